//! The steps of the article on Peeper, which keeps the state of a GenServer over its crashes: increment, crash, read; the
//! keeper crashes too; the process ends for every other reason; it goes on under another supervisor, here on another node.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::Finding;
use super::crashes::{crash_worker, started_again};
use crate::artifacts::python;
use crate::site::{SIDECAR, Signal, Site};
use crate::trial::{Example, HubOptions, Trial};

/// Every other way in which a worker is ended.
const OTHER_WAYS: [(&str, Signal); 3] =
    [("SIGTERM", Signal::TERM), ("SIGABRT", Signal::ABORT), ("SIGSEGV", Signal::SEGV)];

pub(super) async fn a_counter_keeps_its_state_as_in_the_article_on_peeper(site: &Site) -> Result<Finding> {
    article(site, "peeper", Example::Counter).await
}

pub(super) async fn an_account_in_python_keeps_its_state_as_in_the_article_on_peeper(
    site: &Site,
) -> Result<Finding> {
    if python().is_none() {
        return Ok("not tried: this machine has no python3".to_owned());
    }
    article(site, "pypeeper", Example::PythonAccount).await
}

/// The process that is asked by hand: exactly what it answers is known. The other one has clients.
struct Subject<'a> {
    trial: Trial<'a>,
    name: String,
    example: Example,
    value: u64,
}

impl Subject<'_> {
    async fn increment(&mut self) -> Result<()> {
        self.value += 1;
        let (path, body) = match self.example {
            Example::Counter => ("/increment", json!({"client": "reader", "number": self.value})),
            Example::Account | Example::PythonAccount => {
                ("/deposit", json!({"amount": 1, "id": format!("reader/{}", self.value)}))
            }
        };
        let answer = self.trial.ask(&self.name, "POST", path, &body.to_string()).await?.answer().await?;
        ensure!((200..300).contains(&answer.status), "increment: {} {}", answer.status, answer.body);
        Ok(())
    }

    /// The value, and all that goes with it, is what was answered last.
    async fn reads(&mut self, after: &str) -> Result<()> {
        let path = match self.example {
            Example::Counter => "/audit",
            Example::Account | Example::PythonAccount => "/balance",
        };
        let answer = self.trial.ask(&self.name, "GET", path, "").await?.answer().await?;
        ensure!(answer.status == 200, "{after}: {} {}", answer.status, answer.body);
        let read: Value = serde_json::from_str(&answer.body).context("a value that is no JSON")?;
        let value = read.as_u64().or_else(|| read["value"].as_u64());
        ensure!(value == Some(self.value), "{after}: {read} where {} was answered", self.value);
        Ok(())
    }

    async fn crash(&self, signal: Signal) -> Result<()> {
        crash_worker(&self.trial, &self.name, signal).await
    }
}

async fn article(site: &Site, hub: &str, example: Example) -> Result<Finding> {
    let spec = json!({"checkpoint": {"class": "Sync"}, "worker": {"hold": {"milliseconds": 60_000}}});
    let options = HubOptions::of(hub, 2).example(example).driven(1).spec(spec);
    let options = options.environment("COUNTER_FAULTS_BY_CLIENTS", "true");
    let trial = Trial::begin(site, hub, options, None).await?;
    let name = format!("{hub}-1");
    let mut subject = Subject { trial, name: name.clone(), example, value: 0 };
    for _ in 0..3 {
        subject.increment().await?;
    }
    subject.reads("three increments").await?;
    subject.trial.says(&name, "StateDurable", "NodeLocal").await?;

    subject.crash(Signal::KILL).await?;
    subject.reads("a kill").await?;
    subject.increment().await?;

    // Peeper's new keeper has nothing, and the worker begins anew.
    let pod = subject.trial.owner(&name).await?.pod;
    site.signal_children(subject.trial.namespace(), &pod, SIDECAR, Signal::KILL).await?;
    subject.crash(Signal::KILL).await?;
    subject.reads("a kill of the keeper and then of the worker").await?;
    subject.increment().await?;
    let before = subject.trial.worker_restarts(&name).await?;
    site.signal(subject.trial.namespace(), &before.0, "worker", Signal::KILL).await?;
    site.signal_children(subject.trial.namespace(), &before.0, SIDECAR, Signal::KILL).await?;
    started_again(&subject.trial, &name, &before).await?;
    subject.reads("a kill of the worker and then of the keeper").await?;

    for (way, signal) in OTHER_WAYS {
        subject.increment().await?;
        subject.crash(signal).await?;
        subject.reads(way).await?;
    }
    if example == Example::Counter {
        for status in [0, 1] {
            let before = subject.trial.worker_restarts(&name).await?;
            subject.trial.set_faults(&name, &format!("exit=increment:{status}")).await?;
            // What became of it nobody knows: it was not applied.
            let number = subject.value + 1000;
            let body = json!({"client": "killer", "number": number}).to_string();
            let answer = subject.trial.ask(&name, "POST", "/increment", &body).await?.answer().await?;
            ensure!(answer.status == 502, "exit {status}: {} {}", answer.status, answer.body);
            started_again(&subject.trial, &name, &before).await?;
            subject.reads(&format!("exit {status}")).await?;
        }
    }

    subject.trial.process_settled(&name).await?;
    let to = subject.trial.wish_away(&name).await?;
    subject.trial.owned_by(&name, &to).await?;
    subject.reads("a move to another node").await?;
    subject.increment().await?;
    subject.trial.process_settled(&name).await?;
    subject.crash(Signal::KILL).await?;
    subject.reads("a kill on the other node").await?;

    let status = subject.trial.processes().get(&name).await?.status.unwrap_or_default();
    ensure!(status.may_miss.is_none(), "a loss is said: {:?}", status.may_miss);
    subject.trial.under_load(20).await?;
    let Subject { trial, value, .. } = subject;
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    Ok(format!("{value} increments, read after each step; beside it {}", verdict.line()))
}

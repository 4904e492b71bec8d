//! Workers and sidecars that die again and again, by class of checkpoint.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::ResourceExt;
use processhub_crds::MigrationTrigger;
use serde_json::json;
use tokio::time::sleep;

use super::Finding;
use crate::site::{SIDECAR, Signal, Site, SiteKind};
use crate::trial::{HubOptions, Trial, Verdict, condition};
use crate::wait::{Seen, until};

/// How a worker is ended, one after the other. Its kubelet waits longer each time before it starts it again. Other signals do
/// not reach the first process of a container that does not handle them.
const WAYS: [Signal; 3] = [Signal::KILL, Signal::TERM, Signal::KILL];
/// A sidecar that ends sooner counts as one that does not start, and is left to the kubelet when that happens in a row.
const STARTED: Duration = Duration::from_millis(1200);

/// A hub whose sidecars keep checkpoints.
fn options(name: &str, class: &str) -> HubOptions {
    HubOptions::of(name, 2).spec(json!({
        "checkpoint": {"class": class, "periodMilliseconds": 200},
        "worker": {"hold": {"milliseconds": 60_000}},
    }))
}

/// With `Sync` nothing that was answered is missing, whatever ends the worker and however often.
pub(super) async fn a_worker_is_killed_again_and_again_with_sync_checkpoints(site: &Site) -> Result<Finding> {
    let trial = Trial::begin(site, "sync", options("sync", "Sync"), None).await?;
    trial.says("sync-0", "StateDurable", "NodeLocal").await?;
    kill_workers(&trial, "sync-0").await?;
    let lost = trial.processes().get("sync-0").await?.status.and_then(|status| status.may_miss);
    ensure!(lost.is_none(), "a loss is said: {lost:?}");
    judge(&trial.finish().await?)
}

/// With `Async` what was answered since the newest checkpoint may be missing, and then the object says so.
pub(super) async fn a_worker_is_killed_again_and_again_with_async_checkpoints(
    site: &Site,
) -> Result<Finding> {
    let trial = Trial::begin(site, "async", options("async", "Async"), None).await?;
    kill_workers(&trial, "async-0").await?;
    let said = trial.processes().get("async-0").await?.status.and_then(|status| status.may_miss);
    let verdict = trial.finish_excusing(&["async-0"]).await?;
    let lost = verdict.excused.lost;
    ensure!(lost == 0 || said.is_some(), "{lost} lost, and the object says nothing");
    let from = said.map_or_else(|| "nothing".to_owned(), |said| format!("from {} on", said.from));
    Ok(format!("{lost} lost, said: {from}; {}", judge(&verdict)?))
}

/// The first process of its container starts a sidecar again: no kubelet and no back-off is in the way.
pub(super) async fn a_sidecar_is_killed_again_and_again(site: &Site) -> Result<Finding> {
    let trial = Trial::begin(site, "keeper", options("keeper", "Sync"), None).await?;
    let owner = trial.owner("keeper-0").await?;
    for _ in 0..10 {
        trial.under_load(50).await?;
        sleep(STARTED).await;
        site.signal_children(trial.namespace(), &owner.pod, SIDECAR, Signal::KILL).await?;
    }
    trial.under_load(100).await?;
    trial.process_settled("keeper-0").await?;
    ensure!(trial.owner("keeper-0").await?.uid == owner.uid, "the owner changed");
    let verdict = trial.finish().await?;
    // Its death cuts connections, also those that it has not taken yet.
    verdict.check()?;
    Ok(verdict.line())
}

/// Worker and sidecar, in either order: what was answered is on disk.
pub(super) async fn worker_and_sidecar_are_killed_in_either_order(site: &Site) -> Result<Finding> {
    let trial = Trial::begin(site, "both", options("both", "Sync"), None).await?;
    for (process, worker_first) in [("both-0", true), ("both-1", false)] {
        trial.under_load(100).await?;
        let pod = trial.owner(process).await?.pod;
        if worker_first {
            site.signal(trial.namespace(), &pod, "worker", Signal::KILL).await?;
            site.signal_children(trial.namespace(), &pod, SIDECAR, Signal::KILL).await?;
        } else {
            site.signal_children(trial.namespace(), &pod, SIDECAR, Signal::KILL).await?;
            site.signal(trial.namespace(), &pod, "worker", Signal::KILL).await?;
        }
        trial.process_settled(process).await?;
    }
    trial.under_load(100).await?;
    let verdict = trial.finish().await?;
    verdict.check()?;
    Ok(verdict.line())
}

async fn kill_workers(trial: &Trial<'_>, process: &str) -> Result<()> {
    for signal in WAYS {
        trial.under_load(100).await?;
        crash_worker(trial, process, signal).await?;
        trial.process_settled(process).await?;
    }
    trial.under_load(200).await
}

/// Every way out, one after the other, faster than a kubelet would start it again.
const OFTEN: [Signal; 5] = [Signal::KILL, Signal::ABORT, Signal::TERM, Signal::SEGV, Signal::KILL];

/// Twenty crashes in a row: from the second one on it is started in a new pod where its kubelet would wait, nothing that was
/// answered is missing, no request is refused, and its neighbour sees nothing of it.
pub(super) async fn a_worker_crashes_again_and_again(site: &Site) -> Result<Finding> {
    const CRASHES: usize = 20;
    let trial = Trial::begin(site, "loop", options("loop", "Sync"), None).await?;
    let neighbour = trial.owner("loop-1").await?.uid;
    let mark = site.mark()?;
    for crash in 0..CRASHES {
        trial.under_load(60).await?;
        crash_worker(&trial, "loop-0", OFTEN[crash % OFTEN.len()]).await?;
        eprintln!("crash {} of {CRASHES} is over", crash + 1);
    }
    trial.under_load(60).await?;
    trial.settled().await?;
    let writes = site.writes_since(mark)?;
    let writes = writes.iter().filter(|write| write.is_of_a_move(trial.namespace())).count();
    let status = trial.processes().get("loop-0").await?.status.unwrap_or_default();
    ensure!(status.may_miss.is_none(), "a loss is said: {:?}", status.may_miss);
    let pods = status.restarts.len();
    ensure!(pods > 0 && pods <= CRASHES, "{pods} new pods for {CRASHES} crashes");
    let history = status.history.iter().filter(|moved| moved.trigger == MigrationTrigger::Crash);
    ensure!(history.count() > 0, "no move says that it was for a crash: {:?}", status.history);
    ensure!(trial.owner("loop-1").await?.uid == neighbour, "another process got another pod");
    let verdict = trial.finish().await?;
    let down = verdict.downtime();
    Ok(format!(
        "{CRASHES} crashes, {pods} new pods; without an answer p50 {:.0} p99 {:.0} max {:.0} ms; {:.1} writes for each \
         crash; {}",
        down.p50,
        down.p99,
        down.max,
        writes as f64 / CRASHES as f64,
        judge(&verdict)?
    ))
}

/// New code dies of its first request: it is given up after as many new pods as the hub allows, and says so; a higher limit
/// allows more of them, and a template that mends it is given its state.
pub(super) async fn a_crash_loop_ends_at_its_limit_and_is_mended(site: &Site) -> Result<Finding> {
    let hub = "mended";
    let process = "mended-0";
    let mut options = options(hub, "Sync");
    options.replicas = 1;
    options.spec["worker"]["restarts"] = json!({"max": 2, "periodSeconds": 600});
    let trial = Trial::begin(site, hub, options, None).await?;
    trial.under_load(100).await?;
    give_faults(&trial, hub, "crash=increment").await?;
    let said = trial.says(process, "Progressing", "RestartLimitExceeded").await?;
    ensure!(said.status == "False" && said.message.contains("spec.worker.restarts"), "{said:?}");
    trial.event(process, "RestartLimitExceeded").await?;
    let counted = async || {
        let status = trial.processes().get(process).await?.status.unwrap_or_default();
        anyhow::Ok((status.restarts.len(), status.epoch))
    };
    let (restarts, epoch) = counted().await?;
    ensure!(restarts == 2, "{restarts} new pods where 2 are allowed");
    trial.change(json!({"worker": {"restarts": {"max": 3}}})).await?;
    trial
        .becomes(process, "in one more pod", |seen| {
            seen.status.as_ref().is_some_and(|status| status.restarts.len() == 3)
        })
        .await?;
    trial.says(process, "Progressing", "RestartLimitExceeded").await?;
    ensure!(counted().await?.1 > epoch, "no other pod was begun");
    give_faults(&trial, hub, "").await?;
    trial.settled().await?;
    trial.under_load(100).await?;
    let status = trial.processes().get(process).await?.status.unwrap_or_default();
    ensure!(status.restarts.is_empty(), "what counted before the new code counts on: {:?}", status.restarts);
    ensure!(status.may_miss.is_none(), "a loss is said: {:?}", status.may_miss);
    let verdict = trial.finish().await?;
    verdict.check()?;
    Ok(format!("{}; {}", said.message, verdict.line()))
}

/// A worker takes more memory than its container may have: the kernel ends it, in its container the first time and in a pod
/// that another one takes over from after that; what was answered is there, and its neighbour sees nothing of it.
pub(super) async fn a_worker_runs_out_of_memory(site: &Site) -> Result<Finding> {
    const MEMORY: &str = "64Mi";
    let process = "greedy-0";
    let options = options("greedy", "Sync").memory(MEMORY).environment("COUNTER_FAULTS_BY_CLIENTS", "true");
    let mut trial = Trial::begin(site, "greedy", options, None).await?;
    let neighbour = trial.worker_restarts("greedy-1").await?;
    for _ in 0..2 {
        trial.under_load(100).await?;
        let before = trial.worker_restarts(process).await?;
        trial.disturb(process);
        trial.set_faults(process, "exhaust=increment").await?;
        let reason = out_of_memory(&trial, process, &before.0).await?;
        ensure!(reason == "OOMKilled", "it ended for another reason: {reason}");
        started_again(&trial, process, &before).await?;
        trial.process_settled(process).await?;
    }
    trial.under_load(100).await?;
    let status = trial.processes().get(process).await?.status.unwrap_or_default();
    ensure!(status.may_miss.is_none(), "a loss is said: {:?}", status.may_miss);
    ensure!(status.restarts.len() == 1, "{} new pods for two crashes", status.restarts.len());
    ensure!(trial.worker_restarts("greedy-1").await? == neighbour, "its neighbour was started again");
    let verdict = trial.finish().await?;
    Ok(format!("twice, {} new pod; {}", status.restarts.len(), judge(&verdict)?))
}

/// Waits until the worker of that pod has ended; why, as its kubelet says.
async fn out_of_memory(trial: &Trial<'_>, process: &str, pod: &str) -> Result<String> {
    until(&format!("the end of the worker of {pod}"), Duration::from_secs(60), async || {
        let pods = trial.pods(process).await?;
        let status = pods.into_iter().find(|one| one.name_any() == pod).and_then(|pod| pod.status);
        let containers = status.and_then(|status| status.container_statuses).unwrap_or_default();
        let worker = containers.into_iter().find(|container| container.name == "worker");
        let ended = worker.and_then(|worker| {
            let now = worker.state.and_then(|state| state.terminated);
            now.or_else(|| worker.last_state.and_then(|state| state.terminated))
        });
        Ok(ended.map_or_else(
            || Seen::NotYet("it runs".to_owned()),
            |ended| Seen::Yes(ended.reason.unwrap_or_else(|| format!("exit {}", ended.exit_code))),
        ))
    })
    .await
}

/// Gives every process code with these faults.
async fn give_faults(trial: &Trial<'_>, hub: &str, faults: &str) -> Result<()> {
    let mut template = serde_json::to_value(trial.hubs().get(hub).await?.spec.template)?;
    let environment = template["spec"]["containers"][0]["env"].as_array_mut().context("no environment")?;
    environment.retain(|variable| variable["name"] != "COUNTER_FAULTS");
    if !faults.is_empty() {
        environment.push(json!({"name": "COUNTER_FAULTS", "value": faults}));
    }
    trial.change(json!({"template": template})).await
}

/// Ends the worker, and waits until another start of it serves.
pub(crate) async fn crash_worker(trial: &Trial<'_>, process: &str, signal: Signal) -> Result<()> {
    let before = trial.worker_restarts(process).await?;
    trial.disturb(process);
    send(trial, &before.0, signal).await?;
    started_again(trial, process, &before).await
}

/// Ends the worker of a pod by a signal. In a container of its own it is the first process, which only those reach that it
/// handles and the one that nobody can: there that one takes the place of the others.
pub(crate) async fn send(trial: &Trial<'_>, pod: &str, signal: Signal) -> Result<()> {
    let (site, namespace) = (trial.site(), trial.namespace());
    let contained = site.kind() != SiteKind::Embedded && signal != Signal::TERM;
    let signal = if contained { Signal::KILL } else { signal };
    site.signal(namespace, pod, "worker", signal).await?;
    if signal == Signal::SEGV {
        // A program in Rust looks whether its stack has overflowed, goes on as it has not, and is ended by the next one.
        // Another program has ended by now.
        tokio::time::sleep(Duration::from_millis(100)).await;
        site.signal(namespace, pod, "worker", signal).await.ok();
    }
    Ok(())
}

/// Waits until another start of the worker than that one serves.
pub(crate) async fn started_again(trial: &Trial<'_>, process: &str, before: &(String, i32)) -> Result<()> {
    until("another start of the worker", Duration::from_secs(120), async || {
        let now = trial.worker_restarts(process).await?;
        Ok(if now == *before { Seen::NotYet(format!("{now:?}")) } else { Seen::Yes(()) })
    })
    .await?;
    trial
        .becomes(process, "ready", |seen| {
            condition(seen, "Ready").is_some_and(|condition| condition.status == "True")
        })
        .await
}

/// The requests that died with a worker have an unknown outcome, all others wait; nothing else may show.
fn judge(verdict: &Verdict) -> Result<Finding> {
    verdict.check()?;
    let errors = verdict.account.errors + verdict.excused.errors;
    ensure!(
        errors == 0,
        "{errors} requests were refused: {:?} {:?}",
        verdict.account.error_samples,
        verdict.excused.error_samples
    );
    Ok(verdict.line())
}

//! Workers and sidecars that die again and again, by class of checkpoint.

use std::time::Duration;

use anyhow::{Result, ensure};
use kube::ResourceExt;
use serde_json::json;

use super::Finding;
use crate::site::{SIDECAR, Signal, Site};
use crate::trial::{HubOptions, Trial, Verdict};
use crate::wait::{Seen, until};

/// How a worker is ended, one after the other. Its kubelet waits longer each time before it starts it again.
const WAYS: [Signal; 3] = [Signal::KILL, Signal::ABORT, Signal::TERM];

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
        let before = worker(trial, process).await?;
        trial.site().signal(trial.namespace(), &before.0, "worker", signal).await?;
        until("another start of the worker", Duration::from_secs(60), async || {
            let now = worker(trial, process).await?;
            Ok(if now == before { Seen::NotYet(format!("{now:?}")) } else { Seen::Yes(()) })
        })
        .await?;
        trial.process_settled(process).await?;
    }
    trial.under_load(200).await
}

/// The pod that owns the process, and how often the worker was started again in it.
async fn worker(trial: &Trial<'_>, process: &str) -> Result<(String, i32)> {
    let owner = trial.owner(process).await?.pod;
    let pods = trial.pods(process).await?;
    let status = pods.into_iter().find(|pod| pod.name_any() == owner).and_then(|pod| pod.status);
    let containers = status.and_then(|status| status.container_statuses).unwrap_or_default();
    let worker = containers.iter().find(|container| container.name == "worker");
    Ok((owner, worker.map_or(0, |worker| worker.restart_count)))
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

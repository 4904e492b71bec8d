//! The source of a move fails, or takes too long.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use super::Finding;
use crate::site::{SIDECAR, Signal, Site};
use crate::trial::{HubOptions, Trial};
use crate::wait::{Seen, until};

/// Its record on disk says that it is frozen: it comes back so, and the move goes on or is undone.
pub(super) async fn a_source_whose_sidecar_is_killed_while_frozen(site: &Site) -> Result<Finding> {
    let (mut trial, source) = frozen(site, "frozen", "hang=import:2000").await?;
    site.signal(trial.namespace(), &source, SIDECAR, Signal::KILL).await?;
    let moved = trial.swap_ended("frozen-0", 0).await?;
    trial.process_settled("frozen-0").await?;
    trial.under_load(200).await?;
    let report = trial.owner("frozen-0").await?.pod;
    trial.reports(&report, "that it serves", |report| report.serving).await?;
    let verdict = trial.finish().await?;
    // The sidecar held connections, which its death has cut: their outcome is unknown, nothing is lost.
    verdict.check()?;
    Ok(format!("{} {}; {}", moved.result, moved.reason.unwrap_or_default(), verdict.line()))
}

/// What was captured is what counts: the worker's death afterwards is irrelevant.
pub(super) async fn a_source_whose_worker_is_killed_while_frozen(site: &Site) -> Result<Finding> {
    let (trial, source) = frozen(site, "fallen", "hang=import:2000").await?;
    site.signal(trial.namespace(), &source, "worker", Signal::KILL).await?;
    let moved = trial.swap_ended("fallen-0", 0).await?;
    trial.process_settled("fallen-0").await?;
    trial.under_load(200).await?;
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    Ok(format!("{} {}; {}", moved.result, moved.reason.unwrap_or_default(), verdict.line()))
}

/// The target has acknowledged the state, and the operators sleep before they commit.
pub(super) async fn a_source_whose_worker_is_killed_while_delivered(site: &Site) -> Result<Finding> {
    let (mut trial, source) = frozen(site, "given", "hang=import:1500").await?;
    let target = trial.target_runs("given-0", "worker").await?;
    let operators = site.operators().await?;
    for operator in &operators {
        site.signal_operator(operator, Signal::STOP).await?;
    }
    let delivered = trial.delivered(&target).await;
    let killed = site.signal(trial.namespace(), &source, "worker", Signal::KILL).await;
    for operator in &operators {
        site.signal_operator(operator, Signal::CONT).await?;
    }
    delivered?;
    killed?;
    let moved = trial.swap_ended("given-0", 0).await?;
    ensure!(moved.succeeded(), "the target had it all: {moved:?}");
    trial.process_settled("given-0").await?;
    trial.under_load(200).await?;
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    Ok(verdict.line())
}

/// A hub of two, with the first one frozen for its move; the source's pod.
async fn frozen<'a>(site: &'a Site, name: &str, faults: &str) -> Result<(Trial<'a>, String)> {
    let options = HubOptions::of(name, 2).faults(faults);
    let mut trial = Trial::begin(site, name, options, None).await?;
    let process = format!("{name}-0");
    let source = trial.owner(&process).await?.pod;
    trial.wish_away(&process).await?;
    trial.frozen(&source).await?;
    Ok((trial, source))
}

/// Capture takes longer than `stateQueryTimeout`: undone, and the source serves.
pub(super) async fn a_worker_that_hangs_in_its_capture(site: &Site) -> Result<Finding> {
    let options = HubOptions::of("hang", 2)
        .environment("COUNTER_FAULTS_BY_CLIENTS", "true")
        .spec(json!({"migration": {"stateQueryTimeoutMilliseconds": 500}}));
    let mut trial = Trial::begin(site, "hang", options, None).await?;
    trial.set_faults("hang-0", "hang=capture:2500").await?;
    let before = trial.owner("hang-0").await?;
    trial.wish_away("hang-0").await?;
    let reason = trial.swap_aborted("hang-0", before.epoch).await?;
    ensure!(reason == "StateQueryTimeout", "undone because of {reason}");
    ensure!(trial.owner("hang-0").await?.uid == before.uid, "the owner changed");
    trial.under_load(200).await?;
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    Ok(verdict.line())
}

/// The captured state waits for longer than `stateTTL`: undone, never dropped.
pub(super) async fn a_capture_that_grows_too_old(site: &Site) -> Result<Finding> {
    let options = HubOptions::of("old", 2)
        .faults("hang=import:4000")
        .spec(json!({"migration": {"stateTTLMilliseconds": 1000}}));
    let trial = Trial::begin(site, "old", options, None).await?;
    let before = trial.owner("old-0").await?;
    trial.wish_away("old-0").await?;
    let reason = trial.swap_aborted("old-0", before.epoch).await?;
    ensure!(["StateTTLExpired", "ImportFailed"].contains(&reason.as_str()), "undone because of {reason}");
    ensure!(trial.owner("old-0").await?.uid == before.uid, "the owner changed");
    trial.under_load(200).await?;
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    Ok(format!("{reason}; {}", verdict.line()))
}

/// A request that takes longer than the drain time does not hold the move up; its client is told that its outcome is
/// unknown, and everybody else sees nothing.
pub(super) async fn requests_longer_than_the_drain_time(site: &Site) -> Result<Finding> {
    let options = HubOptions::of("slow", 2).spec(json!({"worker": {"drainTimeoutMilliseconds": 500}}));
    let mut trial = Trial::begin(site, "slow", options, None).await?;
    let body = json!({"client": "slow-client", "number": 1}).to_string();
    let slow = trial.ask("slow-0", "POST", "/increment?delay=8000", &body).await?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before = trial.epoch("slow-0").await?;
    trial.wish_away("slow-0").await?;
    let moved = trial.swap_ended("slow-0", before).await?;
    ensure!(moved.succeeded(), "{moved:?}");
    let answer = slow.answer().await?;
    ensure!(answer.status == 502 && answer.body.contains("outcome_unknown"), "{answer:?}");
    trial.process_settled("slow-0").await?;
    trial.under_load(200).await?;
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    Ok(verdict.line())
}

/// The worker of an owner dies without any move: it gets back what its keeper has, and what is missing is said.
pub(super) async fn a_worker_that_crashes_in_peace(site: &Site) -> Result<Finding> {
    let trial = Trial::begin(site, "crash", HubOptions::of("crash", 2), None).await?;
    let owner = trial.owner("crash-0").await?;
    trial.under_load(200).await?;
    site.signal(trial.namespace(), &owner.pod, "worker", Signal::KILL).await?;
    let losses = until("the loss to be told", Duration::from_secs(60), async || {
        let status = trial.processes().get("crash-0").await?.status.unwrap_or_default();
        Ok(status.may_miss.map_or_else(|| Seen::NotYet("nothing is said".into()), Seen::Yes))
    })
    .await?;
    trial.process_settled("crash-0").await?;
    trial.under_load(200).await?;
    let verdict = trial.finish_excusing(&["crash-0"]).await?;
    verdict.check_planned()?;
    Ok(format!("from {} on: {} lost; {}", losses.from, verdict.excused.lost, verdict.line()))
}

//! The target of a move fails.

use anyhow::{Result, ensure};
use processhub_crds::MigrationPhase;
use serde_json::json;

use super::Finding;
use crate::site::{SIDECAR, Signal, Site};
use crate::trial::{HubOptions, Trial};

/// The pod with the new code does not start: the move is undone and nobody notices.
pub(super) async fn a_target_that_never_becomes_ready(site: &Site) -> Result<Finding> {
    let options = HubOptions::of("never", 1).spec(json!({"migration": {"deadlineSeconds": 5}}));
    let trial = Trial::begin(site, "never", options, None).await?;
    let before = trial.owner("never-0").await?;
    let containers = trial.hubs().get("never").await?.spec.template.spec.map(|spec| spec.containers);
    let mut containers = serde_json::to_value(containers)?;
    containers[0]["image"] = "localhost/no-such-image:1".into();
    containers[0]["imagePullPolicy"] = "Never".into();
    trial.change(json!({"template": {"spec": {"containers": containers}}})).await?;
    let reason = trial.swap_aborted("never-0", before.epoch).await?;
    ensure!(reason == "TargetFailed", "undone because of {reason}");
    ensure!(trial.owner("never-0").await?.uid == before.uid, "the owner changed");
    trial.event("never-0", "MigrationAborted").await?;
    trial.under_load(100).await?;
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    Ok(format!("{reason}; {}", verdict.line()))
}

/// Its worker does not take the state: the move is undone, and what clients sent meanwhile is answered by the source.
pub(super) async fn a_target_that_refuses_the_state(site: &Site) -> Result<Finding> {
    let options = HubOptions::of("refusal", 2).faults("refuse=import");
    let trial = Trial::begin(site, "refusal", options, None).await?;
    let before = trial.owner("refusal-0").await?;
    trial.under_load(100).await?;
    trial.wish_away("refusal-0").await?;
    let reason = trial.swap_aborted("refusal-0", before.epoch).await?;
    ensure!(reason == "ImportRefused", "undone because of {reason}");
    ensure!(trial.owner("refusal-0").await?.uid == before.uid, "the owner changed");
    trial.under_load(200).await?;
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    Ok(verdict.line())
}

pub(super) async fn a_target_whose_worker_is_killed_before_the_commit(site: &Site) -> Result<Finding> {
    killed_before(site, "early", "worker").await
}

pub(super) async fn a_target_whose_sidecar_is_killed_before_the_commit(site: &Site) -> Result<Finding> {
    killed_before(site, "earlier", SIDECAR).await
}

/// While it takes the state: the move is finished or undone, and clients see nothing but a pause.
async fn killed_before(site: &Site, name: &str, container: &str) -> Result<Finding> {
    let options = HubOptions::of(name, 2).faults("hang=import:1500");
    let mut trial = Trial::begin(site, name, options, None).await?;
    let process = format!("{name}-0");
    let source = trial.owner(&process).await?;
    trial.wish_away(&process).await?;
    let target = trial.target_runs(&process, "worker").await?;
    trial.frozen(&source.pod).await?;
    site.signal(trial.namespace(), &target, container, Signal::KILL).await?;
    let moved = trial.swap_ended(&process, source.epoch).await?;
    trial.process_settled(&process).await?;
    trial.under_load(200).await?;
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    Ok(format!("{} {}; {}", moved.result, moved.reason.unwrap_or_default(), verdict.line()))
}

pub(super) async fn a_target_whose_worker_is_killed_after_the_commit(site: &Site) -> Result<Finding> {
    killed_after(site, "late", "worker").await
}

pub(super) async fn a_target_whose_sidecar_is_killed_after_the_commit(site: &Site) -> Result<Finding> {
    killed_after(site, "later", SIDECAR).await
}

/// Between commit and activation: from there only forward, from what the target has on its disk.
async fn killed_after(site: &Site, name: &str, container: &str) -> Result<Finding> {
    let options = HubOptions::of(name, 2).faults("hang=activate:1500").checkpointed();
    let trial = Trial::begin(site, name, options, None).await?;
    let process = format!("{name}-0");
    let before = trial.epoch(&process).await?;
    let to = trial.wish_away(&process).await?;
    let target = trial.target_runs(&process, "worker").await?;
    trial.in_phase(&process, MigrationPhase::Committed).await?;
    site.signal(trial.namespace(), &target, container, Signal::KILL).await?;
    let moved = trial.swap_ended(&process, before).await?;
    ensure!(moved.succeeded() && moved.to.as_deref() == Some(&to), "a committed move: {moved:?}");
    trial.process_settled(&process).await?;
    trial.under_load(200).await?;
    let verdict = trial.finish().await?;
    verdict.check()?;
    Ok(verdict.line())
}

//! The four ways to swap: hot and cold, with state and without; and what a calm move costs.

use std::time::Duration;

use anyhow::{Result, ensure};
use processhub_crds::MigrationKind;
use serde_json::json;
use tokio::time::sleep;

use super::Finding;
use crate::site::{Site, Write};
use crate::trial::{HubOptions, Trial};

/// The old worker has ended before the new one begins, and the state comes along all the same.
pub(super) async fn a_cold_swap_carries_its_state(site: &Site) -> Result<Finding> {
    let options =
        HubOptions::of("cold", 2).spec(json!({"migration": {"strategy": "ColdSwap"}})).checkpointed();
    let trial = Trial::begin(site, "cold", options, None).await?;
    trial.under_load(100).await?;
    let before = trial.epoch("cold-0").await?;
    trial.wish_away("cold-0").await?;
    let moved = trial.swap_ended("cold-0", before).await?;
    ensure!(moved.succeeded() && moved.kind == MigrationKind::ColdSwap, "{moved:?}");
    ensure!(moved.blackout.is_some_and(|blackout| blackout > 0), "no blackout: {moved:?}");
    trial.settled().await?;
    trial.under_load(200).await?;
    let verdict = trial.finish().await?;
    // One worker ends and another begins: a client sees a slow request and nothing else.
    verdict.check_planned()?;
    Ok(verdict.line())
}

pub(super) async fn a_cold_swap_without_handover(site: &Site) -> Result<Finding> {
    without_state(site, "colder", MigrationKind::ColdSwap).await
}

pub(super) async fn a_hot_swap_without_handover(site: &Site) -> Result<Finding> {
    without_state(site, "hotter", MigrationKind::HotSwap).await
}

/// It begins anew on its new node, as asked, and the other one keeps what it has.
async fn without_state(site: &Site, name: &str, kind: MigrationKind) -> Result<Finding> {
    let options =
        HubOptions::of(name, 2).spec(json!({"migration": {"strategy": kind.as_str(), "handover": false}}));
    let trial = Trial::begin(site, name, options, None).await?;
    trial.hub_says(name, "Degraded", "HandoverDisabled").await?;
    let process = format!("{name}-0");
    trial.under_load(100).await?;
    let before = trial.epoch(&process).await?;
    trial.wish_away(&process).await?;
    let moved = trial.swap_ended(&process, before).await?;
    ensure!(moved.succeeded() && moved.kind == kind, "{moved:?}");
    ensure!(moved.bytes.unwrap_or(0) == 0, "{:?} bytes of state", moved.bytes);
    trial.settled().await?;
    trial.under_load(200).await?;
    let verdict = trial.finish_excusing(&[&process]).await?;
    verdict.check_planned()?;
    ensure!(verdict.excused.lost > 0, "state was carried though nobody wanted it");
    Ok(format!("{} not carried; {}", verdict.excused.lost, verdict.line()))
}

/// Six object writes for a calm move, and none when nothing happens.
pub(super) async fn a_move_is_six_writes_and_peace_is_none(site: &Site) -> Result<Finding> {
    let trial = Trial::begin(site, "writes", HubOptions::of("writes", 4), None).await?;
    sleep(Duration::from_secs(3)).await;
    let mark = site.mark()?;
    sleep(Duration::from_secs(20)).await;
    let idle = by_operator(site.writes_since(mark)?, trial.namespace());
    ensure!(idle.is_empty(), "writes in peace: {}", lines(&idle));
    let mark = site.mark()?;
    let before = trial.epoch("writes-0").await?;
    trial.wish_away("writes-0").await?;
    trial.swap_ended("writes-0", before).await?;
    trial.settled().await?;
    sleep(Duration::from_secs(2)).await;
    let of_move = site.writes_since(mark)?;
    let of_move: Vec<_> = of_move.into_iter().filter(|write| write.is_of_a_move(trial.namespace())).collect();
    ensure!(of_move.len() <= 6, "{} writes for one move: {}", of_move.len(), lines(&of_move));
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    Ok(format!("{} writes: {}", of_move.len(), lines(&of_move)))
}

fn by_operator(writes: Vec<Write>, namespace: &str) -> Vec<Write> {
    writes
        .into_iter()
        .filter(|write| write.by_operator && write.namespace == namespace && write.resource != "events")
        .collect()
}

fn lines(writes: &[Write]) -> String {
    writes.iter().map(Write::line).collect::<Vec<_>>().join(", ")
}

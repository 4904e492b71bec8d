//! A person asks for a process to be moved.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::ResourceExt;
use serde_json::json;

use super::Finding;
use crate::site::Site;
use crate::trial::{HubOptions, Trial};
use crate::wait::{Seen, until};

const MOVE_TO: &str = "processhub.io/move-to";

pub(super) async fn a_wish_moves_a_process_with_its_state(site: &Site) -> Result<Finding> {
    let trial = Trial::begin(site, "wish", HubOptions::of("wish", 1).state_size(1 << 20), None).await?;
    trial.under_load(200).await?;
    let to = trial.wish_away("wish-0").await?;
    trial.owned_by("wish-0", &to).await?;
    trial.settled().await?;
    trial.under_load(200).await?;
    let process = trial.processes().get("wish-0").await?;
    ensure!(!process.annotations().contains_key(MOVE_TO), "the fulfilled wish is still there");
    for reason in ["MigrationStarted", "MigrationSucceeded"] {
        trial.event("wish-0", reason).await?;
    }
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    let swaps: Vec<_> = verdict.moves.iter().filter(|moved| moved.is_swap()).collect();
    ensure!(swaps.len() == 1, "one wish is one move: {:?}", verdict.moves);
    ensure!(swaps[0].bytes.is_some_and(|bytes| bytes > 1 << 20), "no state was carried: {swaps:?}");
    Ok(verdict.line())
}

pub(super) async fn a_wish_for_a_node_that_is_no_member_is_refused(site: &Site) -> Result<Finding> {
    let trial = Trial::begin(site, "nonmember", HubOptions::of("nomember", 1), None).await?;
    let before = trial.owner_node("nomember-0").await?;
    trial.wish_for("nomember-0", "no-such-node").await?;
    until("the wish to be refused and removed", Duration::from_secs(30), async || {
        let process = trial.processes().get("nomember-0").await?;
        Ok(if process.annotations().contains_key(MOVE_TO) {
            Seen::NotYet("the wish stands".into())
        } else {
            Seen::Yes(())
        })
    })
    .await?;
    trial.event("nomember-0", "WishRefused").await?;
    let owner = trial.owner_node("nomember-0").await?;
    ensure!(owner == before, "it moved all the same");
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    Ok(verdict.line())
}

/// A move that is cancelled before its commit leaves the source serving.
pub(super) async fn a_move_is_cancelled(site: &Site) -> Result<Finding> {
    let options = HubOptions::of("cancel", 1).faults("hang=import:3000");
    let mut trial = Trial::begin(site, "cancel", options, None).await?;
    let before = trial.owner("cancel-0").await?;
    trial.wish_away("cancel-0").await?;
    trial.frozen(&before.pod).await?;
    trial.wish("cancel-0", "processhub.io/cancel-migration", "true").await?;
    let reason = trial.swap_aborted("cancel-0", before.epoch).await?;
    ensure!(reason == "Cancelled", "undone because of {reason}");
    ensure!(trial.owner("cancel-0").await?.uid == before.uid, "the owner changed");
    trial.under_load(100).await?;
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    Ok(verdict.line())
}

/// An operator dies when a wish has been tried and before it was removed: the next one does not try it again.
pub(super) async fn a_wish_is_one_attempt_whoever_leads(site: &Site) -> Result<Finding> {
    let options = HubOptions::of("attempt", 1).faults("refuse=import");
    let trial = Trial::begin(site, "attempt", options, None).await?;
    site.one_operator().await?;
    let tried = one_attempt(site, &trial).await;
    site.all_operators().await?;
    tried?;
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    Ok(verdict.line())
}

async fn one_attempt(site: &Site, trial: &Trial<'_>) -> Result<()> {
    let before = trial.owner("attempt-0").await?;
    // The operator that is replaced is one end.
    let ends = site.operator_ends()? + 1;
    site.arm("remove-wish:before").await?;
    trial.wish_away("attempt-0").await?;
    site.operator_ended(ends).await?;
    let reason = trial.swap_aborted("attempt-0", before.epoch).await?;
    ensure!(reason == "ImportRefused", "undone because of {reason}");
    trial.event("attempt-0", "WishRefused").await?;
    let process = trial.processes().get("attempt-0").await?;
    ensure!(!process.annotations().contains_key(MOVE_TO), "the wish is still there");
    trial.under_load(200).await?;
    ensure!(trial.swaps().len() == 1, "one wish is one move: {:?}", trial.swaps());
    Ok(())
}

pub(super) async fn a_process_moves_back_and_forth(site: &Site) -> Result<Finding> {
    let options = HubOptions::of("pingpong", 2)
        .state_size(1 << 20)
        .spec(json!({"migration": {"retentionMilliseconds": 2000}}))
        .checkpointed();
    let trial = Trial::begin(site, "pingpong", options, None).await?;
    for _ in 0..3 {
        let mut wishes = Vec::new();
        for process in ["pingpong-0", "pingpong-1"] {
            wishes.push((process, trial.wish_away(process).await?));
        }
        for (process, to) in wishes {
            trial.owned_by(process, &to).await?;
        }
        trial.settled().await?;
    }
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    let swaps = verdict.moves.iter().filter(|moved| moved.is_swap()).count();
    ensure!(swaps >= 6, "six wishes are six moves, not {swaps}");
    let last = verdict.moves.last().context("moves")?;
    Ok(format!("last {:?} ms; {}", last.blackout, verdict.line()))
}

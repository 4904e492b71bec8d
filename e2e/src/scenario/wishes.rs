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

fn options(name: &str, replicas: u32) -> HubOptions {
    HubOptions { name: name.to_owned(), replicas, ..HubOptions::default() }
}

pub(super) async fn a_wish_moves_a_process_with_its_state(site: &Site) -> Result<Finding> {
    let trial = Trial::begin(site, "wish", options("wish", 1), None).await?;
    trial.under_load(200).await?;
    let to = trial.another_node("wish-0").await?;
    trial.wish("wish-0", MOVE_TO, &to).await?;
    trial.owned_by("wish-0", &to).await?;
    trial.settled().await?;
    trial.under_load(200).await?;
    let process = trial.processes().get("wish-0").await?;
    ensure!(!process.annotations().contains_key(MOVE_TO), "the fulfilled wish is still there");
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    let swaps = verdict.moves.iter().filter(|moved| moved.is_swap()).count();
    ensure!(swaps == 1, "one wish is one move, not {swaps}: {:?}", verdict.moves);
    Ok(verdict.line())
}

pub(super) async fn a_wish_for_a_node_that_is_no_member_is_refused(site: &Site) -> Result<Finding> {
    let trial = Trial::begin(site, "nonmember", options("nomember", 1), None).await?;
    let before = trial.owner_node("nomember-0").await?;
    trial.wish("nomember-0", MOVE_TO, "no-such-node").await?;
    until("the wish to be refused and removed", Duration::from_secs(30), async || {
        let process = trial.processes().get("nomember-0").await?;
        Ok(if process.annotations().contains_key(MOVE_TO) {
            Seen::NotYet("the wish stands".into())
        } else {
            Seen::Yes(())
        })
    })
    .await?;
    let process = trial.processes().get("nomember-0").await?;
    let said = serde_json::to_string(&process.status.context("a status")?.conditions)?;
    ensure!(said.contains("not_a_member"), "nothing says not_a_member: {said}");
    ensure!(trial.owner_node("nomember-0").await? == before, "it moved all the same");
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    Ok(verdict.line())
}

pub(super) async fn a_process_moves_back_and_forth(site: &Site) -> Result<Finding> {
    let mut hub = options("pingpong", 2);
    hub.spec = json!({"migration": {"retentionMilliseconds": 500}});
    hub.state_size = 1 << 20;
    let trial = Trial::begin(site, "pingpong", hub, None).await?;
    for _ in 0..4 {
        for process in ["pingpong-0", "pingpong-1"] {
            let to = trial.another_node(process).await?;
            trial.wish(process, MOVE_TO, &to).await?;
            trial.owned_by(process, &to).await?;
        }
        trial.settled().await?;
    }
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    let swaps = verdict.moves.iter().filter(|moved| moved.is_swap()).count();
    ensure!(swaps >= 8, "eight wishes are eight moves, not {swaps}");
    Ok(verdict.line())
}

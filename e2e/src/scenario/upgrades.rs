//! The code of a hub's processes changes under load, with their state: up and down, refused, crashing, hanging, paused,
//! and for some of them first.

use std::time::Duration;

use anyhow::{Result, ensure};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use processhub_crds::{HubProcess, MigrationTrigger};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::Finding;
use crate::site::Site;
use crate::trial::{HubOptions, Trial, condition};

const OLD: &str = "1.8";
const NEW: &str = "1.9";

/// Counters of version 1.8 that take the state of 1.9 as well.
fn old_code(name: &str, replicas: u32, spec: Value) -> HubOptions {
    HubOptions::of(name, replicas).spec(spec).code(OLD, NEW)
}

async fn pause(trial: &Trial<'_>, hub: &str, paused: bool) -> Result<()> {
    let value = if paused { json!("true") } else { Value::Null };
    let patch = json!({"metadata": {"annotations": {"processhub.io/paused": value}}});
    trial.hubs().patch(hub, &PatchParams::default(), &Patch::Merge(patch)).await?;
    Ok(())
}

pub(super) fn vsn(process: &HubProcess) -> &str {
    process.status.as_ref().and_then(|status| status.owner.as_ref()).map_or("", |owner| &owner.vsn)
}

fn node(process: &HubProcess) -> &str {
    process.status.as_ref().and_then(|status| status.owner.as_ref()).map_or("", |owner| &owner.node)
}

/// Names of the processes that run that version.
pub(super) async fn running(trial: &Trial<'_>, version: &str) -> Result<Vec<String>> {
    let all = trial.processes().list(&kube::api::ListParams::default()).await?;
    let mut names: Vec<_> =
        all.iter().filter(|process| vsn(process) == version).map(ResourceExt::name_any).collect();
    names.sort_unstable();
    Ok(names)
}

/// What the worker itself was told of the state that it has.
async fn told(trial: &mut Trial<'_>, process: &str) -> Result<Value> {
    let answer = trial.ask(process, "GET", "/origin", "").await?.answer().await?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.body);
    Ok(serde_json::from_str(&answer.body)?)
}

/// Everybody gets the new code and goes back to the old one, on the node where it is.
pub(super) async fn new_code_up_and_down(site: &Site) -> Result<Finding> {
    let spec = json!({"upgrade": {"maxConcurrent": 2, "extra": {"currency": "EUR"}}});
    let mut trial = Trial::begin(site, "updown", old_code("updown", 4, spec), None).await?;
    trial.upgraded("updown", 4).await?;
    trial.under_load(100).await?;
    let before = trial.processes().list(&kube::api::ListParams::default()).await?.items;
    trial.give_code("updown", NEW, OLD, "").await?;
    trial.upgraded("updown", 4).await?;
    trial.settled().await?;
    trial.hub_says("updown", "Progressing", "Settled").await?;
    trial.event("updown", "Upgraded").await?;
    for process in &before {
        let now = trial.processes().get(&process.name_any()).await?;
        ensure!(vsn(&now) == NEW && node(&now) == node(process), "{:?}", now.status);
        trial.says(&now.name_any(), "Upgraded", "UpToDate").await?;
        let told = told(&mut trial, &now.name_any()).await?;
        let expected =
            json!({"reason": "CodeChange", "vsn": OLD, "direction": "Up", "extra": {"currency": "EUR"}});
        ensure!(told == expected, "told {told}");
    }
    trial.under_load(200).await?;
    trial.give_code("updown", OLD, NEW, "").await?;
    trial.upgraded("updown", 4).await?;
    trial.settled().await?;
    ensure!(running(&trial, OLD).await?.len() == 4, "not all are back");
    let told = told(&mut trial, "updown-0").await?;
    ensure!(told["direction"] == "Down" && told["vsn"] == NEW, "told {told}");
    trial.under_load(200).await?;
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    ensure!(
        verdict.moves.iter().filter(|moved| moved.is_swap() && moved.succeeded()).count() >= 8,
        "too few moves"
    );
    Ok(verdict.line())
}

/// The old worker has ended before the new one begins.
pub(super) async fn new_code_by_cold_swap(site: &Site) -> Result<Finding> {
    let spec = json!({"migration": {"strategy": "ColdSwap"}});
    let mut trial = Trial::begin(site, "coldcode", old_code("coldcode", 2, spec), None).await?;
    trial.upgraded("coldcode", 2).await?;
    trial.under_load(100).await?;
    trial.give_code("coldcode", NEW, OLD, "").await?;
    trial.upgraded("coldcode", 2).await?;
    trial.settled().await?;
    let told = told(&mut trial, "coldcode-0").await?;
    ensure!(told["reason"] == "CodeChange" && told["vsn"] == OLD, "told {told}");
    trial.under_load(200).await?;
    let verdict = trial.finish().await?;
    verdict.check()?;
    Ok(verdict.line())
}

/// The new code refuses the state: everybody runs on with the old one, also who moves, and other code goes on.
pub(super) async fn new_code_that_refuses_the_state(site: &Site) -> Result<Finding> {
    let trial = Trial::begin(site, "refusing", old_code("refusing", 3, json!({})), None).await?;
    trial.upgraded("refusing", 3).await?;
    trial.under_load(100).await?;
    trial.give_code("refusing", NEW, "", "").await?;
    let words = stopped(&trial, "refusing", "refusing-2").await?;
    ensure!(words.contains("422") && words.contains("3 run 1.8") && words.contains("all serve"), "{words}");
    // Whoever moves in the meantime keeps its code.
    let before = trial.epoch("refusing-0").await?;
    let to = trial.wish_away("refusing-0").await?;
    let moved = trial.swap_ended("refusing-0", before).await?;
    ensure!(moved.succeeded() && moved.to == Some(to), "{moved:?}");
    trial.settled().await?;
    ensure!(running(&trial, OLD).await?.len() == 3, "somebody has the refused code");
    trial.under_load(100).await?;
    trial.give_code("refusing", NEW, OLD, "").await?;
    trial.upgraded("refusing", 3).await?;
    trial.settled().await?;
    ensure!(running(&trial, NEW).await?.len() == 3, "not all have the mended code");
    trial.hub_says("refusing", "Degraded", "AsExpected").await?;
    trial.under_load(100).await?;
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    Ok(format!("{words}; {}", verdict.line()))
}

pub(super) async fn new_code_that_crashes_on_the_state(site: &Site) -> Result<Finding> {
    failing(site, "crashing", "crash=import").await
}

pub(super) async fn new_code_that_hangs_on_the_state(site: &Site) -> Result<Finding> {
    failing(site, "hanging", "hang=import:60000").await
}

/// The state waits for as long as it may, and the old code goes on with it.
async fn failing(site: &Site, name: &str, faults: &str) -> Result<Finding> {
    let spec = json!({"migration": {"stateTTLMilliseconds": 2000}});
    let trial = Trial::begin(site, name, old_code(name, 2, spec), None).await?;
    trial.upgraded(name, 2).await?;
    trial.under_load(100).await?;
    trial.give_code(name, NEW, OLD, faults).await?;
    let words = stopped(&trial, name, &format!("{name}-1")).await?;
    // Back to where it was: nothing is left of it.
    trial.give_code(name, OLD, NEW, "").await?;
    trial.upgraded(name, 2).await?;
    trial.hub_says(name, "Degraded", "AsExpected").await?;
    trial.says(&format!("{name}-1"), "Upgraded", "UpToDate").await?;
    trial.under_load(100).await?;
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    Ok(format!("{words}; {}", verdict.line()))
}

/// Waits until the roll-out has stopped because of that process; the hub's words. Nobody else was touched.
async fn stopped(trial: &Trial<'_>, hub: &str, process: &str) -> Result<String> {
    let said = trial.hub_says(hub, "Degraded", "UpgradeFailed").await?;
    ensure!(said.message.starts_with(&format!("{process} (1.8->1.9)")), "{}", said.message);
    trial.hub_says(hub, "Progressing", "UpgradeFailed").await?;
    trial.event(hub, "UpgradeFailed").await?;
    let failed = trial.says(process, "Upgraded", "UpgradeFailed").await?;
    ensure!(failed.status == "False", "Upgraded={}", failed.status);
    trial.settled().await?;
    sleep(Duration::from_secs(3)).await;
    let all = trial.processes().list(&kube::api::ListParams::default()).await?;
    for other in all.iter().filter(|other| other.name_any() != process) {
        let history = other.status.as_ref().map_or(&[][..], |status| &status.history);
        let touched = history.iter().any(|moved| moved.trigger == MigrationTrigger::Upgrade);
        ensure!(!touched, "{} was touched: {history:?}", other.name_any());
        ensure!(
            condition(other, "Upgraded").is_some_and(|it| it.reason == "UpgradePending"),
            "{:?}",
            condition(other, "Upgraded")
        );
    }
    ensure!(running(trial, OLD).await?.len() == all.items.len(), "somebody runs the new code");
    // Once more: whether all serve is known a moment later.
    Ok(trial.hub_says(hub, "Degraded", "UpgradeFailed").await?.message)
}

/// A roll-out that is paused begins nothing, and goes on where it was.
pub(super) async fn new_code_is_paused_and_resumed(site: &Site) -> Result<Finding> {
    let trial = Trial::begin(site, "pausing", old_code("pausing", 3, json!({})), None).await?;
    trial.upgraded("pausing", 3).await?;
    trial.give_code("pausing", NEW, OLD, "").await?;
    trial.upgraded("pausing", 1).await?;
    pause(&trial, "pausing", true).await?;
    trial.hub_says("pausing", "Progressing", "Paused").await?;
    trial.settled().await?;
    let paused_at = running(&trial, NEW).await?;
    trial.under_load(100).await?;
    sleep(Duration::from_secs(3)).await;
    ensure!(running(&trial, NEW).await? == paused_at && paused_at.len() < 3, "it went on: {paused_at:?}");
    pause(&trial, "pausing", false).await?;
    trial.upgraded("pausing", 3).await?;
    trial.settled().await?;
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    Ok(format!("paused at {}; {}", paused_at.len(), verdict.line()))
}

/// One runs the new code, the others keep the old one wherever they move, until they are let go.
pub(super) async fn new_code_for_a_canary(site: &Site) -> Result<Finding> {
    let spec = json!({"upgrade": {"partition": 2}});
    let trial = Trial::begin(site, "canary", old_code("canary", 3, spec), None).await?;
    trial.upgraded("canary", 3).await?;
    trial.give_code("canary", NEW, OLD, "").await?;
    trial.upgraded("canary", 1).await?;
    trial.hub_says("canary", "Progressing", "UpgradePartitioned").await?;
    ensure!(running(&trial, NEW).await? == ["canary-2"], "{:?}", running(&trial, NEW).await?);
    let before = trial.epoch("canary-0").await?;
    trial.wish_away("canary-0").await?;
    ensure!(trial.swap_ended("canary-0", before).await?.succeeded(), "the move of a process that is kept");
    trial.settled().await?;
    ensure!(running(&trial, NEW).await? == ["canary-2"], "a move brought new code");
    trial.under_load(100).await?;
    trial.change(json!({"upgrade": {"partition": 0, "maxConcurrent": 2}})).await?;
    trial.upgraded("canary", 3).await?;
    trial.settled().await?;
    ensure!(running(&trial, NEW).await?.len() == 3, "not all have the new code");
    trial.under_load(100).await?;
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    Ok(verdict.line())
}

//! A process goes from one hub to another with its state, under load: taken, refused, killed, taken back, in both
//! directions at once, while its old hub goes and while the leader dies.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Service;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use processhub_crds::{HubProcess, MigrationPhase, MigrationTrigger};
use serde_json::{Value, json};

use super::Finding;
use super::upgrades::vsn;
use crate::site::{SIDECAR, Signal, Site};
use crate::trial::{HubOptions, Trial, condition};
use crate::wait::{Seen, until};

/// Two hubs without replicas in a namespace of that name, `<name>-a` and `<name>-b`, and one process of the first.
async fn two_hubs<'a>(site: &'a Site, name: &str, from: HubOptions, to: HubOptions) -> Result<Trial<'a>> {
    let mut trial = Trial::create(site, name, from, None).await?;
    trial.create_hub(&to).await?;
    trial.start_child("guest", None).await?;
    trial.settled().await?;
    trial.follow().await?;
    trial.under_load(50).await?;
    Ok(trial)
}

fn hub(name: &str, which: char) -> HubOptions {
    HubOptions::of(&format!("{name}-{which}"), 0)
}

/// With another code, another port, and its own version: everything of the new hub's.
pub(super) async fn a_process_is_transferred_to_another_hub(site: &Site) -> Result<Finding> {
    let from = hub("there", 'a').spec(json!({"vsn": "1.8"})).environment("COUNTER_VSN", "1.8");
    let to = hub("there", 'b')
        .spec(json!({"vsn": "2.0", "worker": {"port": 9090}, "upgrade": {"extra": {"by": "transfer"}}}))
        .environment("COUNTER_VSN", "2.0")
        .environment("COUNTER_ACCEPTS_FROM", "1.8");
    let mut trial = two_hubs(site, "there", from, to).await?;
    let (before, address) = (trial.processes().get("guest").await?, trial.address("guest").await?);
    trial.transfer("guest", "there-b").await?;
    trial.held_by("guest", "there-b").await?;
    let after = trial.processes().get("guest").await?;
    ensure!(after.uid() == before.uid(), "it is another object");
    ensure!(trial.address("guest").await? == address, "it has another address");
    ensure!(vsn(&after) == "2.0", "it runs {}", vsn(&after));
    let last = after.status.as_ref().and_then(|status| status.last_migration.as_ref());
    let trigger = last.map(|last| last.trigger);
    ensure!(trigger == Some(MigrationTrigger::Transfer), "it came by {trigger:?}");
    let told = trial.ask("guest", "GET", "/origin", "").await?.answer().await?;
    let told: Value = serde_json::from_str(&told.body)?;
    let expected =
        json!({"reason": "Transfer", "vsn": "1.8", "direction": "Up", "extra": {"by": "transfer"}});
    ensure!(told == expected, "the worker was told {told}");
    belongs_to(&trial, "guest", "there-b").await?;
    trial.under_load(200).await?;
    let away = trial.wish_away("guest").await?;
    trial.owned_by("guest", &away).await?;
    trial.process_settled("guest").await?;
    belongs_to(&trial, "guest", "there-b").await?;
    counts(&trial, "there-a", 0).await?;
    counts(&trial, "there-b", 1).await?;
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    Ok(verdict.line())
}

/// Everything of the process says that it is of that hub, and goes with it.
async fn belongs_to(trial: &Trial<'_>, process: &str, hub: &str) -> Result<()> {
    let services: Api<Service> = Api::namespaced(trial.site().client(), trial.namespace());
    until(&format!("everything of {process} to be of {hub}"), Duration::from_secs(60), async || {
        let object = trial.processes().get(process).await?;
        let owners: Vec<_> = object.owner_references().iter().map(|owner| owner.name.clone()).collect();
        let of = |labels: &std::collections::BTreeMap<String, String>| {
            labels.get("processhub.io/hub").cloned().unwrap_or_default()
        };
        let mut hubs = vec![of(services.get(process).await?.labels())];
        hubs.extend(trial.pods(process).await?.iter().map(|pod| of(pod.labels())));
        let all = owners == [hub] && hubs.iter().all(|one| one == hub);
        Ok(if all { Seen::Yes(()) } else { Seen::NotYet(format!("owners {owners:?}, labels {hubs:?}")) })
    })
    .await
}

/// Waits until the hub says that it has so many processes, and that all of them serve.
async fn counts(trial: &Trial<'_>, hub: &str, count: u32) -> Result<()> {
    until(&format!("{hub} to count {count}"), Duration::from_secs(60), async || {
        let status = trial.hubs().get(hub).await?.status.unwrap_or_default();
        let so = status.desired == count && status.ready == count && status.moving == 0;
        let words = format!("{} desired, {} ready, {} moving", status.desired, status.ready, status.moving);
        Ok(if so { Seen::Yes(()) } else { Seen::NotYet(words) })
    })
    .await
}

/// Waits until the process says why it does not go, in these words among others.
async fn explains(trial: &Trial<'_>, process: &str, reason: &str, words: &[&str]) -> Result<()> {
    trial
        .becomes(process, &format!("explained by {reason} and {words:?}"), |seen| {
            condition(seen, "Progressing").is_some_and(|said| {
                said.reason == reason && words.iter().all(|words| said.message.contains(words))
            })
        })
        .await
}

/// The new hub's worker does not take the state: the process stays, says why, and is left alone when the wish is taken
/// back.
pub(super) async fn a_transfer_to_a_worker_that_refuses_the_state(site: &Site) -> Result<Finding> {
    let to = hub("picky", 'b').faults("refuse=import");
    let trial = two_hubs(site, "picky", hub("picky", 'a'), to).await?;
    let before = trial.owner("guest").await?;
    trial.transfer("guest", "picky-b").await?;
    let reason = trial.swap_aborted("guest", before.epoch).await?;
    ensure!(reason == "ImportRefused", "undone because of {reason}");
    let way_out = ["ImportRefused", "change spec.hubName back to picky-a"];
    explains(&trial, "guest", "MoveAborted", &way_out).await?;
    counts(&trial, "picky-a", 1).await?;
    counts(&trial, "picky-b", 0).await?;
    trial.under_load(100).await?;
    trial.transfer("guest", "picky-a").await?;
    trial.under_load(100).await?;
    let after = trial.owner("guest").await?;
    ensure!((&after.uid, after.hub.as_str()) == (&before.uid, "picky-a"), "the owner changed: {after:?}");
    belongs_to(&trial, "guest", "picky-a").await?;
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    Ok(verdict.line())
}

/// Hubs that cannot take it, each named with the remedy; nothing moves.
pub(super) async fn a_transfer_to_a_hub_that_cannot_take_it(site: &Site) -> Result<Finding> {
    let nowhere = json!({"members": {"nodeSelector": {"no-such-label": "x"}}});
    let mut trial = two_hubs(site, "nohow", hub("nohow", 'a'), hub("nohow", 'b').spec(nowhere)).await?;
    let before = trial.owner("guest").await?;
    let headless = json!({"worker": {"service": "Headless"}, "migration": {"retentionMilliseconds": 30000}});
    trial.create_hub(&HubOptions::of("headless", 0).spec(headless)).await?;
    let mut refusals = Vec::new();
    for (to, reason, words) in [
        ("missing", "TransferRefused", "there is no ProcessHub missing"),
        ("headless", "TransferRefused", "spec.worker.service"),
        ("nohow-b", "no_target_nodes", "no node"),
    ] {
        trial.transfer("guest", to).await?;
        explains(&trial, "guest", reason, &[words, "change spec.hubName back to nohow-a"]).await?;
        refusals.push(to);
    }
    trial.transfer("guest", "nohow-a").await?;
    trial.says("guest", "Progressing", "Settled").await?;
    trial.under_load(100).await?;
    let after = trial.owner("guest").await?;
    ensure!(after == before, "the owner changed: {after:?}");
    let told = trial.ask("guest", "GET", "/origin", "").await?.answer().await?;
    ensure!(told.body == "null", "it was given a state: {}", told.body);
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    Ok(format!("{} refused it; {}", refusals.join(", "), verdict.line()))
}

/// A replica would be made again: it leaves only when its hub does not want it any more.
pub(super) async fn a_replica_is_transferred_once_its_hub_does_without(site: &Site) -> Result<Finding> {
    let trial = Trial::begin(site, "spare", HubOptions::of("spare", 2), None).await?;
    trial.create_hub(&HubOptions::of("heir", 0)).await?;
    let before = trial.processes().get("spare-1").await?.uid();
    trial.transfer("spare-1", "heir").await?;
    let said = trial.says("spare-1", "Progressing", "TransferRefused").await?.message;
    ensure!(said.contains("lower spec.replicas of hub spare"), "{said}");
    trial.under_load(100).await?;
    counts(&trial, "spare", 2).await?;
    trial.change(json!({"replicas": 1})).await?;
    trial.held_by("spare-1", "heir").await?;
    ensure!(trial.processes().get("spare-1").await?.uid() == before, "it was made again");
    belongs_to(&trial, "spare-1", "heir").await?;
    counts(&trial, "spare", 1).await?;
    trial.change(json!({"replicas": 2})).await?;
    trial.hub_says("spare", "Degraded", "already_started").await?;
    trial.under_load(100).await?;
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    Ok(verdict.line())
}

/// While it takes the state: the transfer is finished, or undone and made again, and clients see nothing but a pause.
pub(super) async fn a_transfer_whose_target_is_killed_before_the_commit(site: &Site) -> Result<Finding> {
    let to = hub("struck", 'b').faults("hang=import:1500");
    let mut trial = two_hubs(site, "struck", hub("struck", 'a'), to).await?;
    let source = trial.owner("guest").await?;
    trial.transfer("guest", "struck-b").await?;
    let target = trial.target_runs("guest", "worker").await?;
    trial.frozen(&source.pod).await?;
    site.signal(trial.namespace(), &target, SIDECAR, Signal::KILL).await?;
    let moved = trial.swap_ended("guest", source.epoch).await?;
    trial.held_by("guest", "struck-b").await?;
    trial.under_load(200).await?;
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    Ok(format!("{} {}; {}", moved.result, moved.reason.unwrap_or_default(), verdict.line()))
}

/// Two processes change places between hubs that move one at a time.
pub(super) async fn two_transfers_in_opposite_directions(site: &Site) -> Result<Finding> {
    let one = || json!({"migration": {"maxConcurrent": 1, "maxConcurrentPerNode": 1}});
    let [from, to] = ['a', 'b'].map(|which| hub("cross", which).spec(one()).faults("hang=import:300"));
    let mut trial = two_hubs(site, "cross", from, to).await?;
    trial.start_child_of("cross-b", "host").await?;
    trial.process_settled("host").await?;
    trial.follow().await?;
    trial.under_load(50).await?;
    trial.transfer("guest", "cross-b").await?;
    trial.transfer("host", "cross-a").await?;
    trial.held_by("guest", "cross-b").await?;
    trial.held_by("host", "cross-a").await?;
    counts(&trial, "cross-a", 1).await?;
    counts(&trial, "cross-b", 1).await?;
    trial.under_load(200).await?;
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    Ok(verdict.line())
}

/// The wish is made twice, taken back in the middle, and made once more: one process, one pod, in one hub.
pub(super) async fn a_transfer_is_wished_twice_and_taken_back(site: &Site) -> Result<Finding> {
    let to = hub("waver", 'b').faults("hang=import:1500");
    let trial = two_hubs(site, "waver", hub("waver", 'a'), to).await?;
    let before = trial.owner("guest").await?;
    trial.transfer("guest", "waver-b").await?;
    trial.transfer("guest", "waver-b").await?;
    trial.in_phase("guest", MigrationPhase::Prepared).await?;
    let third = trial.transfer("guest", "third").await;
    let words = third.err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(words.contains("invalid_config: spec.hubName"), "a third hub in the middle of it: {words}");
    trial.transfer("guest", "waver-a").await?;
    let reason = trial.swap_aborted("guest", before.epoch).await?;
    ensure!(reason == "HubChanged", "undone because of {reason}");
    ensure!(trial.owner("guest").await?.uid == before.uid, "the owner changed");
    belongs_to(&trial, "guest", "waver-a").await?;
    trial.transfer("guest", "waver-b").await?;
    trial.transfer("guest", "waver-b").await?;
    trial.held_by("guest", "waver-b").await?;
    trial.under_load(200).await?;
    let all = trial.processes().list(&ListParams::default()).await?;
    ensure!(all.items.len() == 1, "{} processes", all.items.len());
    one_pod(&trial, "guest").await?;
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    Ok(verdict.line())
}

async fn one_pod(trial: &Trial<'_>, process: &str) -> Result<()> {
    until(&format!("one pod of {process}"), Duration::from_secs(60), async || {
        let pods = trial.pods(process).await?.len();
        Ok(if pods == 1 { Seen::Yes(()) } else { Seen::NotYet(format!("{pods}")) })
    })
    .await
}

/// The old hub is deleted as soon as the process is on its way, and another one as soon as it has arrived.
pub(super) async fn a_hub_is_deleted_while_its_process_leaves(site: &Site) -> Result<Finding> {
    let to = hub("exile", 'b').faults("hang=import:1000");
    let trial = two_hubs(site, "exile", hub("exile", 'a'), to).await?;
    trial.create_hub(&hub("exile", 'c')).await?;
    trial.transfer("guest", "exile-b").await?;
    trial.in_phase("guest", MigrationPhase::Prepared).await?;
    trial.hubs().delete("exile-a", &DeleteParams::default()).await?;
    trial.held_by("guest", "exile-b").await?;
    trial.transfer("guest", "exile-c").await?;
    trial.becomes("guest", "of exile-c", |seen| hub_of(seen) == Some("exile-c")).await?;
    trial.hubs().delete("exile-b", &DeleteParams::default()).await?;
    trial.held_by("guest", "exile-c").await?;
    belongs_to(&trial, "guest", "exile-c").await?;
    trial.under_load(200).await?;
    let left: Vec<_> =
        trial.hubs().list(&ListParams::default()).await?.iter().map(ResourceExt::name_any).collect();
    ensure!(left == ["exile-c"], "{left:?}");
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    Ok(verdict.line())
}

pub(super) fn hub_of(process: &HubProcess) -> Option<&str> {
    Some(process.status.as_ref()?.owner.as_ref()?.hub.as_str())
}

/// What must never exist twice does not, whichever of the hubs says so.
pub(super) async fn a_transfer_to_a_hub_of_cold_swaps(site: &Site) -> Result<Finding> {
    let to = hub("chill", 'b').spec(json!({"migration": {"strategy": "ColdSwap"}}));
    let trial = two_hubs(site, "chill", hub("chill", 'a'), to).await?;
    trial.transfer("guest", "chill-b").await?;
    trial.held_by("guest", "chill-b").await?;
    let status = trial.processes().get("guest").await?.status.unwrap_or_default();
    let last = status.last_migration.context("no move")?;
    ensure!(last.kind == processhub_crds::MigrationKind::ColdSwap && last.with_state, "{last:?}");
    trial.under_load(100).await?;
    trial.transfer("guest", "chill-a").await?;
    trial.held_by("guest", "chill-a").await?;
    trial.under_load(100).await?;
    let verdict = trial.finish().await?;
    verdict.check()?;
    Ok(verdict.line())
}

/// The next leader finishes it by what is on the objects.
pub(super) async fn the_leader_is_killed_in_mid_transfer(site: &Site) -> Result<Finding> {
    let to = hub("heirs", 'b').faults("hang=import:1000");
    let trial = two_hubs(site, "heirs", hub("heirs", 'a'), to).await?;
    let leader = site.leader().await?;
    trial.transfer("guest", "heirs-b").await?;
    trial.in_phase("guest", MigrationPhase::Prepared).await?;
    site.kill_operator(&leader).await?;
    trial.held_by("guest", "heirs-b").await?;
    let next = site.leader().await?;
    belongs_to(&trial, "guest", "heirs-b").await?;
    trial.under_load(200).await?;
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    Ok(format!("{} finished it; {}", next.name(), verdict.line()))
}

//! Nodes come and go.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use processhub_crds::MigrationKind;
use serde_json::json;
use tokio::time::sleep;

use super::Finding;
use crate::site::{Site, SiteKind};
use crate::trial::{HubOptions, Trial};
use crate::wait::{Seen, until};

pub(super) async fn a_node_joins(site: &Site) -> Result<Finding> {
    join(site, "join", 60, 1).await
}

pub(super) async fn three_nodes_join_at_once(site: &Site) -> Result<Finding> {
    join(site, "joins", 24, 3).await
}

/// Only new nodes are moved to, no more than their share.
async fn join(site: &Site, name: &str, replicas: u32, count: usize) -> Result<Finding> {
    let trial = Trial::begin(site, name, HubOptions::of(name, replicas).checkpointed(), None).await?;
    // One that a busy cluster has not spread yet moves between old nodes as well.
    trial.balanced().await?;
    let earlier = trial.swaps();
    let before = site.nodes().await?.len();
    let joined = futures::future::try_join_all((0..count).map(|_| site.join())).await?;
    let share = replicas as usize * count / (before + count);
    trial.owned_at_least(&joined, share).await?;
    trial.settled().await?;
    trial.under_load(300).await?;
    let mut swaps = trial.swaps();
    swaps.retain(|moved| !earlier.iter().any(|known| known.is(moved)));
    for moved in &swaps {
        ensure!(
            moved.to.as_ref().is_some_and(|to| joined.contains(to)),
            "{} moved between two old nodes: {moved:?}",
            moved.process
        );
    }
    ensure!(swaps.len() <= share + count, "{} moves for a share of {share}", swaps.len());
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    Ok(verdict.line())
}

pub(super) async fn a_node_is_drained(site: &Site) -> Result<Finding> {
    let trial = Trial::begin(site, "drain", HubOptions::of("drain", 12).checkpointed(), None).await?;
    let node = trial.owner_node("drain-0").await?;
    let of_node = ListParams::default().fields(&format!("status.owner.node={node}"));
    let there = trial.processes().list(&of_node).await?.items.len();
    site.drain(&node).await?;
    trial.evacuated(&node).await?;
    trial.settled().await?;
    trial.under_load(300).await?;
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    let from = verdict.moves.iter().filter(|moved| moved.from.as_deref() == Some(&node)).count();
    ensure!(from == there, "{from} moves from a node with {there} processes: {:?}", verdict.moves);
    let mut swaps = verdict.moves.iter().filter(|moved| moved.is_swap() && moved.succeeded());
    let silent = swaps.find(|moved| moved.blackout.is_none());
    ensure!(silent.is_none(), "a move that does not say how long its blackout was: {silent:?}");
    Ok(verdict.line())
}

/// A cordon in the middle of a rebalance keeps further processes away; lifted, the rebalance goes on.
pub(super) async fn a_node_is_cordoned_in_mid_rebalance(site: &Site) -> Result<Finding> {
    let options = HubOptions::of("cordon", 16)
        .spec(serde_json::json!({"migration": {"maxConcurrent": 1, "maxConcurrentPerNode": 1}}))
        .checkpointed();
    let trial = Trial::begin(site, "cordon", options, None).await?;
    trial.balanced().await?;
    let joined = site.join().await?;
    let nodes = [joined.clone()];
    trial.owned_at_least(&nodes, 1).await?;
    site.cordon(&joined, true).await?;
    // The one that was under way may still arrive.
    trial.settled().await?;
    let there = trial.swaps().len();
    ensure!(there < 4, "the cordon came too late to show anything: {there} moves");
    trial.under_load(300).await?;
    ensure!(trial.swaps().len() <= there + 1, "moves to a cordoned node: {:?}", trial.swaps());
    site.cordon(&joined, false).await?;
    trial.owned_at_least(&nodes, 4).await?;
    trial.settled().await?;
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    Ok(verdict.line())
}

/// A node whose cable is loose causes no storm of moves, and is used again when it stays.
pub(super) async fn a_node_flaps(site: &Site) -> Result<Finding> {
    let trial = Trial::begin(site, "flap", HubOptions::of("flap", 12).checkpointed(), None).await?;
    let node = trial.owner_node("flap-0").await?;
    for seconds in [1, 2, 1] {
        site.plug(&node, false).await?;
        sleep(Duration::from_secs(seconds)).await;
        site.plug(&node, true).await?;
        sleep(Duration::from_secs(1)).await;
    }
    // Once for so long that it is NotReady.
    site.plug(&node, false).await?;
    not_ready(site, &node).await?;
    site.plug(&node, true).await?;
    trial.settled().await?;
    trial.under_load(300).await?;
    let swaps = trial.swaps();
    ensure!(swaps.len() <= 4, "a storm of {} moves: {swaps:?}", swaps.len());
    let verdict = trial.finish().await?;
    verdict.check()?;
    Ok(verdict.line())
}

/// A node that loses its power: first nothing is known, then somebody says that it is gone, and what may be missing is
/// said on the objects that lost it, which are those of that node alone.
pub(super) async fn a_node_loses_its_power(site: &Site) -> Result<Finding> {
    let joined = site.join().await?;
    let trial = Trial::begin(site, "power", HubOptions::of("power", 12), None).await?;
    // A node that has just joined may get its share by moves.
    trial.balanced().await?;
    trial.settled().await?;
    let before = trial.swaps().len();
    let of_node = ListParams::default().fields(&format!("status.owner.node={joined}"));
    let names = trial.processes().list(&of_node).await?.items;
    let names: Vec<_> = names.iter().map(kube::ResourceExt::name_any).collect();
    ensure!(!names.is_empty(), "the node owns nothing");
    trial.under_load(200).await?;
    site.lose(&joined).await?;
    let unknown = trial.says(&names[0], "Ready", "OwnerUnreachable").await?;
    ensure!(unknown.status == "Unknown", "Ready={} of a process that nobody reaches", unknown.status);
    let words = ["confirmed-dead", "out-of-service", "delete"];
    ensure!(
        words.iter().any(|word| unknown.message.contains(word)),
        "it does not say what to do: {}",
        unknown.message
    );
    // Nothing is taken over without proof.
    ensure!(trial.owner_node(&names[0]).await? == joined, "taken over without proof of death");
    let nodes: Api<Node> = Api::all(site.client());
    nodes.delete(&joined, &DeleteParams::default()).await?;
    trial.evacuated(&joined).await?;
    trial.settled().await?;
    for name in &names {
        let status = trial.processes().get(name).await?.status.unwrap_or_default();
        ensure!(status.may_miss.is_some(), "{name} does not say what may be missing");
        trial.event(name, "StateLost").await?;
    }
    let swaps = trial.swaps();
    let excused: Vec<&str> = names.iter().map(String::as_str).collect();
    let verdict = trial.finish_excusing(&excused).await?;
    verdict.check_planned()?;
    let recovered = verdict.moves.iter().filter(|moved| moved.kind == MigrationKind::Recover);
    ensure!(recovered.filter(|moved| moved.succeeded()).count() == names.len(), "{:?}", verdict.moves);
    ensure!(swaps.len() == before, "{before} moves before a node was lost, then these: {swaps:?}");
    Ok(format!("{} recovered, {} lost with the node; {}", names.len(), verdict.excused.lost, verdict.line()))
}

/// A node that loses its power and comes back with its disk: nothing is taken over meanwhile, and with `Sync` nothing that was
/// answered is missing.
pub(super) async fn a_node_reboots(site: &Site) -> Result<Finding> {
    let joined = site.join().await?;
    let sync = json!({"checkpoint": {"class": "Sync"}, "worker": {"hold": {"milliseconds": 60_000}}});
    let trial = Trial::begin(site, "reboot", HubOptions::of("reboot", 8).spec(sync), None).await?;
    trial.balanced().await?;
    trial.settled().await?;
    let there = trial.owners_on(&joined).await?;
    ensure!(!there.is_empty(), "the node owns nothing");
    trial.under_load(200).await?;
    for (name, _) in &there {
        trial.disturb(name);
    }
    site.power(&joined, false).await?;
    for (name, _) in &there {
        trial.says(name, "Ready", "OwnerUnreachable").await?;
    }
    site.power(&joined, true).await?;
    site.node_ready(&joined).await?;
    trial.settled().await?;
    trial.under_load(200).await?;
    for (name, before) in &there {
        let status = trial.processes().get(name).await?.status.unwrap_or_default();
        ensure!(status.may_miss.is_none(), "{name} says that something is missing: {:?}", status.may_miss);
        let owner = status.owner.as_ref().map(|owner| owner.uid.as_str());
        ensure!(owner == Some(&before.uid), "{name} was taken over");
    }
    let verdict = trial.finish().await?;
    verdict.check()?;
    let downtime = verdict.downtime();
    Ok(format!(
        "{} came back, without an answer for p50 {:.0} ms; {}",
        there.len(),
        downtime.p50,
        verdict.line()
    ))
}

async fn not_ready(site: &Site, node: &str) -> Result<()> {
    let nodes: Api<Node> = Api::all(site.client());
    let bound = match site.kind() {
        SiteKind::Embedded => Duration::from_secs(20),
        SiteKind::Local | SiteKind::Kubeconfig => Duration::from_secs(60),
    };
    until(&format!("{node} to be NotReady"), bound, async || {
        let conditions = nodes.get(node).await?.status.and_then(|status| status.conditions);
        let ready = conditions.unwrap_or_default().into_iter().find(|found| found.type_ == "Ready");
        Ok(match ready {
            Some(ready) if ready.status != "True" => Seen::Yes(()),
            _ => Seen::NotYet("Ready".into()),
        })
    })
    .await
}

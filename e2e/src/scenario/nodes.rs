//! Nodes come and go.

use anyhow::{Result, ensure};

use super::Finding;
use crate::site::Site;
use crate::trial::{HubOptions, Trial};

fn options(name: &str, replicas: u32) -> HubOptions {
    HubOptions { name: name.to_owned(), replicas, ..HubOptions::default() }
}

pub(super) async fn a_node_joins(site: &Site) -> Result<Finding> {
    join(site, "join", 20, 1).await
}

pub(super) async fn three_nodes_join_at_once(site: &Site) -> Result<Finding> {
    join(site, "joins", 24, 3).await
}

/// Only new nodes are moved to, no more than their share, and then they are taken away again.
async fn join(site: &Site, name: &str, replicas: u32, count: usize) -> Result<Finding> {
    let trial = Trial::begin(site, name, options(name, replicas), None).await?;
    let before = site.nodes().await?.len();
    let joined = futures::future::try_join_all((0..count).map(|_| site.join())).await?;
    let share = replicas as usize * count / (before + count);
    trial.owned_at_least(&joined, share).await?;
    trial.settled().await?;
    trial.under_load(500).await?;
    let swaps: Vec<_> = trial.moves().into_iter().filter(crate::moves::Move::is_swap).collect();
    for moved in &swaps {
        ensure!(
            moved.to.as_ref().is_some_and(|to| joined.contains(to)),
            "{} moved between two old nodes: {moved:?}",
            moved.process
        );
    }
    ensure!(swaps.len() <= share + count, "{} moves for a share of {share}", swaps.len());
    for node in &joined {
        site.remove(node).await?;
    }
    trial.settled().await?;
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    Ok(verdict.line())
}

pub(super) async fn a_node_is_drained(site: &Site) -> Result<Finding> {
    let trial = Trial::begin(site, "drain", options("drain", 12), None).await?;
    let node = trial.owner_node("drain-0").await?;
    site.drain(&node).await?;
    trial.evacuated(&node).await?;
    trial.settled().await?;
    trial.under_load(500).await?;
    site.cordon(&node, false).await?;
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    Ok(verdict.line())
}

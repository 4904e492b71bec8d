//! Many processes.

use anyhow::{Result, ensure};

use super::Finding;
use crate::site::Site;
use crate::trial::{HubOptions, Trial};

/// How many: each has a sidecar and a worker of its own.
const COUNT: u32 = 200;
/// How many of them have clients.
const DRIVEN: u32 = 40;

/// A hub of many real sidecars over real sockets is rebalanced once, onto a node that joins.
pub(super) async fn many_processes_are_rebalanced(site: &Site) -> Result<Finding> {
    let trial = Trial::begin(site, "count", HubOptions::of("count", COUNT).driven(DRIVEN), None).await?;
    let began = tokio::time::Instant::now();
    let joined = site.join().await?;
    let share = COUNT as usize / 4;
    trial.owned_at_least(&[joined], share).await?;
    trial.settled().await?;
    let took = began.elapsed();
    let swaps = trial.swaps();
    ensure!(swaps.len() == share, "{} moves for a share of {share}", swaps.len());
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    Ok(format!("{COUNT} processes, {} moves in {:.1} s; {}", swaps.len(), took.as_secs_f64(), verdict.line()))
}

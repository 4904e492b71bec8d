//! Many processes.

use anyhow::{Context, Result, ensure};

use super::Finding;
use crate::site::Site;
use crate::trial::{HubOptions, Trial};

/// How many in the usual run: each has a sidecar and a worker of its own.
const USUAL: u32 = 200;
/// Says how many otherwise.
const COUNT: &str = "PROCESSHUB_SCENARIO_PROCESSES";
/// How many of them have clients.
const DRIVEN: u32 = 40;

/// A hub of many real sidecars over real sockets is rebalanced once, onto a node that joins.
pub(super) async fn many_processes_are_rebalanced(site: &Site) -> Result<Finding> {
    let count = match std::env::var(COUNT) {
        Ok(count) => {
            count.parse().with_context(|| format!("{COUNT}={count} is not a number of processes"))?
        }
        Err(_) => USUAL,
    };
    let trial = Trial::begin(site, "count", HubOptions::of("count", count).driven(DRIVEN), None).await?;
    let began = tokio::time::Instant::now();
    let joined = site.join().await?;
    let share = count as usize / 4;
    trial.owned_at_least(std::slice::from_ref(&joined), share).await?;
    trial.settled().await?;
    let took = began.elapsed();
    let swaps = trial.swaps();
    let others: Vec<_> = swaps.iter().filter(|moved| moved.to.as_ref() != Some(&joined)).collect();
    ensure!(swaps.len() == share, "{} moves for a share of {share}: {others:?}", swaps.len());
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    Ok(format!("{count} processes, {} moves in {:.1} s; {}", swaps.len(), took.as_secs_f64(), verdict.line()))
}

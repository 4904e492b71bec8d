//! `cargo xtask bench`: what things cost, measured.

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use processhub_e2e::bench::{footprint, kills, moves};
use processhub_e2e::cargo::cargo;
use tokio::runtime::Runtime;

/// What is measured.
#[derive(Subcommand)]
pub enum Command {
    /// Moves: blackout, client gap and wall time of a rebalance and a drain, under load
    Moves(moves::Options),
    /// Crashes: workers, sidecars and pods are killed under load; what is missing, who says so, and for how long nobody answers
    Kills(kills::Options),
    /// Size and idle memory of operator and sidecar, as they are released
    Footprint(footprint::Options),
    /// Placement: 100 000 processes over 1 000 nodes, beside its limit; as the operator is released
    Placement,
}

/// Measures and prints a table.
///
/// # Errors
/// When the cluster does not come up, or something was lost.
pub fn run(command: Command) -> Result<()> {
    match command {
        Command::Moves(options) => Runtime::new()?.block_on(moves::run(options)),
        Command::Kills(options) => Runtime::new()?.block_on(kills::run(options)),
        Command::Footprint(options) => Runtime::new()?.block_on(footprint::run(options)),
        Command::Placement => placement(),
    }
}

/// A program of its own beside the code that it times.
fn placement() -> Result<()> {
    let status = cargo()
        .args(["bench", "--quiet", "--package", "processhub-operator", "--bench", "placement"])
        .status()
        .context("cargo cannot be started")?;
    if !status.success() {
        bail!("the placement could not be timed");
    }
    Ok(())
}

//! `cargo xtask bench`: what things cost, measured.

use anyhow::Result;
use clap::Subcommand;

/// What is measured.
#[derive(Subcommand)]
pub enum Command {
    /// Moves: blackout, client gap and wall time of a rebalance and a drain, under load
    Moves(processhub_e2e::bench::Options),
}

/// Measures and prints a table.
///
/// # Errors
/// When the cluster does not come up, or something was lost.
pub fn run(command: Command) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    match command {
        Command::Moves(options) => runtime.block_on(processhub_e2e::bench::run(options)),
    }
}

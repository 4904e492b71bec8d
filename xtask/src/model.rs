//! `cargo xtask model`: the exhaustive exploration of the protocol.

use anyhow::{Context, Result, bail};
use processhub_e2e::cargo::cargo;

/// Explores every scenario, and refutes each rule's absence.
#[derive(clap::Args)]
pub struct Arguments {
    /// Only scenarios whose name contains this
    scenario: Option<String>,
    /// Larger bounds too: some 30 million states, many minutes and 8 GB of memory
    #[arg(long)]
    deep: bool,
    /// Without the counterexamples of the variants that lack a rule
    #[arg(long)]
    brief: bool,
}

/// Runs the exploration. It is a program of its own, so that the variants that lack a rule are compiled into nothing
/// else.
///
/// # Errors
/// When it does not build or finds what must not be; its own output says what.
pub fn run(arguments: &Arguments) -> Result<()> {
    let status = cargo()
        .args(["run", "--quiet", "--package", "processhub-model", "--"])
        .args(arguments.deep.then_some("--deep"))
        .args(arguments.brief.then_some("--brief"))
        .args(&arguments.scenario)
        .status()
        .context("cargo cannot be started")?;
    if !status.success() {
        bail!("the exploration failed");
    }
    Ok(())
}

//! `cargo xtask demo`: the main job, on this machine.

use anyhow::Result;
use processhub_e2e::demo::{self, Options};

/// Runs the demonstration.
///
/// # Errors
/// When something did not work, or anything was lost or duplicated.
pub fn run(options: Options) -> Result<()> {
    tokio::runtime::Runtime::new()?.block_on(demo::run(options))
}

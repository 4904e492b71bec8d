//! What things cost, measured.

pub mod footprint;
pub mod kills;
pub mod moves;

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::site::Site;

/// Measures on a cluster, which ends with it, also on Ctrl-C.
///
/// # Errors
/// What the measurement came to; else that the cluster did not end.
async fn on<T>(site: Site, measure: impl AsyncFnOnce(&Site) -> Result<T>) -> Result<T> {
    let result = tokio::select! {
        result = measure(&site) => result,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    let stopped = site.stop().await;
    let result = result?;
    stopped?;
    Ok(result)
}

/// Writes what was measured so far: a row that fails must not take those before it along.
fn save(path: Option<&Path>, summary: &impl Serialize) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    std::fs::write(path, serde_json::to_vec_pretty(summary)?)
        .with_context(|| format!("write {}", path.display()))
}

//! The log: one JSON object per line. Every line about a process carries its name, epoch and move, from the span that
//! its reconcile runs in.

use anyhow::Context;
use tracing_subscriber::EnvFilter;

/// Writes the log to standard output from now on.
///
/// # Errors
/// When `filter` cannot be understood, or a log is being written already.
pub fn start(filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter).with_context(|| format!("--log {filter:?} is not a filter"))?;
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .with_env_filter(filter)
        .try_init()
        .map_err(|error| anyhow::anyhow!("the log cannot be started: {error}"))
}

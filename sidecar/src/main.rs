//! `processhub-sidecar [run]`, `processhub-sidecar verify --run ./worker`.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use processhub_sidecar::clock::BootClock;
use processhub_sidecar::config::Config;
use processhub_sidecar::net::Tcp;
use processhub_sidecar::server::Running;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.first().map(String::as_str) {
        None | Some("run") => run(),
        Some("verify") => return verify(arguments),
        Some(other) => Err(anyhow::anyhow!("`{other}` is no subcommand; there are `run` and `verify`")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("processhub-sidecar: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .json()
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")))
        .init();
    let config = Config::from_env()?;
    // One thread serves everything and keeps held requests in order; files are written on others.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (data, control) = (config.data, config.control);
        let running = Running::start(config, Arc::new(Tcp), Arc::new(BootClock))
            .await
            .with_context(|| format!("the sidecar does not start (clients {data}, control {control})"))?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("ends");
        running.stop().await;
        Ok(())
    })
}

/// Checks a worker against the contract, without a cluster.
fn verify(arguments: Vec<String>) -> ExitCode {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(processhub_sidecar::verify::command(arguments.into_iter().skip(1))),
        Err(error) => {
            eprintln!("processhub-sidecar: {error}");
            ExitCode::FAILURE
        }
    }
}

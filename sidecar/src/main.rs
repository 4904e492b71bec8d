//! `processhub-sidecar`, which starts `processhub-sidecar run` and starts it again; `processhub-sidecar verify --run
//! ./worker`.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use processhub_sidecar::clock::BootClock;
use processhub_sidecar::config::Config;
use processhub_sidecar::net::Tcp;
use processhub_sidecar::parent;
use processhub_sidecar::server::Running;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        [] => parent::run(),
        ["run"] => run().map(|()| ExitCode::SUCCESS),
        ["run", parent::PARENT, id] => parent::bind_to(id).and_then(|()| run()).map(|()| ExitCode::SUCCESS),
        ["verify", ..] => return verify(&arguments[1..]),
        _ => Err(anyhow::anyhow!("`{}` is no command; there are `run` and `verify`", arguments.join(" "))),
    };
    match result {
        Ok(code) => code,
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
fn verify(arguments: &[&str]) -> ExitCode {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            runtime.block_on(processhub_sidecar::verify::command(arguments.iter().map(ToString::to_string)))
        }
        Err(error) => {
            eprintln!("processhub-sidecar: {error}");
            ExitCode::FAILURE
        }
    }
}

//! Serves the contract until the container is told to end, or the application ends.

use std::future::IntoFuture;
use std::net::SocketAddr;

use anyhow::Context;
use axum::serve::ListenerExt;
use processhub_protocol::contract::{DEFAULT_CONTROL, ENV_CONTROL, ENV_LISTEN};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::control;
use crate::core::Core;
use crate::plan::Plan;

/// Where the application serves its clients when `PROCESSHUB_LISTEN` is absent.
const DEFAULT_LISTEN: &str = "127.0.0.1:8080";

/// Runs a plan.
///
/// # Errors
/// What the plan needs and is not there; an address that cannot be had; the application's end.
pub async fn run(plan: Plan) -> anyhow::Result<()> {
    let (control, listen) = (address(ENV_CONTROL, DEFAULT_CONTROL)?, address(ENV_LISTEN, DEFAULT_LISTEN)?);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (core, mut ends) = Core::open(plan, listen).await?;
    let listener = TcpListener::bind(control).await.with_context(|| format!("listen on {control}"))?;
    let listener = listener.tap_io(|stream| {
        // A connection that is gone already is served as one that ends.
        let _ = stream.set_nodelay(true);
    });
    let serving = axum::serve(listener, control::routes(core.clone())).into_future();
    let mut serving = std::pin::pin!(serving);
    loop {
        tokio::select! {
            served = &mut serving => return served.context("serve the contract"),
            Some(end) = ends.recv() => core.ended(end).await?,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    // The contract is answered to the end.
    tokio::select! {
        served = &mut serving => served.context("serve the contract"),
        () = core.end() => Ok(()),
    }
}

fn address(name: &str, default: &str) -> anyhow::Result<SocketAddr> {
    let value = std::env::var(name).unwrap_or_else(|_| default.to_owned());
    value.parse().with_context(|| {
        format!("environment variable {name} is `{value}`, which is no address and port such as {default}")
    })
}

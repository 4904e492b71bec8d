//! Health and metrics over HTTP, for the kubelet and Prometheus. Nothing here can change anything.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::context::Context;

const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Serves until `shutdown`. `ready` is cancelled once the watches have listed everything.
///
/// # Errors
/// When the address cannot be bound.
pub async fn serve(
    address: SocketAddr,
    context: Arc<Context>,
    ready: CancellationToken,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let listener =
        TcpListener::bind(address).await.with_context(|| format!("--metrics-address {address}"))?;
    let router = Router::new()
        // Kubelet, without authentication: the process runs.
        .route("/healthz", get(|| async { "ok" }))
        // Kubelet, without authentication: this operator could lead. A standby is ready.
        .route("/readyz", get(move || readiness(ready.clone())))
        // Prometheus, without authentication: names of hubs, never of processes or their state.
        .route("/metrics", get(metrics))
        .with_state(context);
    axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await?;
    Ok(())
}

async fn readiness(ready: CancellationToken) -> Response {
    if ready.is_cancelled() {
        "ok".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the watches have not listed everything yet").into_response()
    }
}

async fn metrics(State(context): State<Arc<Context>>) -> Response {
    match context.metrics.text() {
        Ok(text) => ([("content-type", CLASSIC)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

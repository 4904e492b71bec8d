//! The example worker: a counter and a key-value table whose clients can tell when something was lost or done twice.
//!
//! | request | answer |
//! |---|---|
//! | `POST /increment {"client", "number"}`, `?delay=MILLISECONDS` | `{"value", "duplicate"}`; no two increments get the same value |
//! | `GET /audit` | `{"value", "duplicates", "clients": {name: [[from, to], ...]}}`: what was applied |
//! | `PUT /table/{key}`, `GET /table/{key}` | a value, as text |
//! | `GET /ballast` | `{"bytes", "digest", "intact"}` of the bytes that give the state its size |
//! | `GET /origin` | `{"reason", "vsn", "direction", "extra"}`: what the worker was told of the state that it was given |
//! | `GET /healthz` | 200 in every state |
//! | `PUT /faults` | only where it is allowed: faults, separated by spaces |
//!
//! It is also a library, so that a test can run a thousand of them in one process: [`serve`].

mod ballast;
pub mod faults;
mod ledger;
mod routes;
mod worker;

use std::future::Future;
use std::sync::Arc;

use anyhow::Context;
use processhub_sdk::Server;

pub use ballast::Weight;
pub use ledger::{Increment, Ledger};
pub use routes::Audit;
pub use worker::{Counter, Holdings, Options, Origin};

use faults::Faults;

/// How one counter is served.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where, and as which process.
    pub at: processhub_sdk::Config,
    /// What it is made with; `options.process` is taken from `at`.
    pub options: Options,
    /// Whether it speaks the worker contract. Without, it serves from the start and its state never moves.
    pub contract: bool,
    /// Faults that are on from the start.
    pub faults: Faults,
    /// Whether clients may switch faults.
    pub faults_by_clients: bool,
}

impl Config {
    /// A counter without faults at these addresses.
    #[must_use]
    pub fn new(at: processhub_sdk::Config) -> Self {
        let options = Options { vsn: "1".into(), ..Options::default() };
        Self { at, options, contract: true, faults: Faults::default(), faults_by_clients: false }
    }
}

/// Serves one counter until `stop` is done.
///
/// # Errors
/// When an address is not to be had, or serving ends by itself.
pub async fn serve(config: Config, stop: impl Future<Output = ()> + Send + 'static) -> anyhow::Result<()> {
    let Config { at, options, contract, faults, faults_by_clients } = config;
    let options = Options { process: at.process.clone(), ..options };
    let counter = Arc::new(Counter::new(options, faults.clone()));
    let clients = faults.number(routes::router(Arc::clone(&counter), faults_by_clients));
    if contract {
        let server = Server::bind(at.probes([routes::HEALTH])).await?;
        let server = server.map_contract(move |contract| faults.mangle(contract));
        return Ok(server.serve(counter, clients, stop).await?);
    }
    counter.begin();
    let listener =
        tokio::net::TcpListener::bind(at.listen).await.with_context(|| format!("listen on {}", at.listen))?;
    Ok(axum::serve(listener, clients).with_graceful_shutdown(stop).await?)
}

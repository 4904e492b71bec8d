//! A container's program for tests of the kubelet: answers on a port, stops when and how it is told to, and writes down
//! what happened to it, in order, in a file that several containers may share.

use axum::Router;
use axum::routing::get;
use clap::Parser;
use http::StatusCode;
use std::fs::OpenOptions;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// A container's program for tests.
#[derive(Debug, Parser)]
struct Arguments {
    /// What it calls itself in the journal.
    #[arg(long)]
    name: String,
    /// Where it listens.
    #[arg(long)]
    listen: SocketAddr,
    /// The journal.
    #[arg(long)]
    journal: PathBuf,
    /// How long it takes to stop after SIGTERM, in milliseconds.
    #[arg(long, default_value_t = 0)]
    linger: u64,
    /// How long a call of `/hook` takes, in milliseconds.
    #[arg(long, default_value_t = 0)]
    hook: u64,
}

fn note(path: &PathBuf, line: &str) -> std::io::Result<()> {
    // One write per line: lines of several processes do not mix.
    OpenOptions::new().create(true).append(true).open(path)?.write_all(format!("{line}\n").as_bytes())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let (name, journal) = (arguments.name, Arc::new(arguments.journal));
    let mut stop = signal(SignalKind::terminate())?;
    let healthy = Arc::new(AtomicBool::new(true));
    let listener = TcpListener::bind(arguments.listen).await?;
    note(&journal, &format!("{name} start"))?;
    let (hooks, owner, sick) = (journal.clone(), name.clone(), healthy.clone());
    let router = Router::new()
        .route("/", get(move || async move { name_of(&owner) }))
        .route(
            "/healthy",
            get(move || async move {
                if healthy.load(Ordering::Relaxed) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
            }),
        )
        .route("/sicken", get(move || async move { sick.store(false, Ordering::Relaxed) }))
        .route(
            "/hook",
            get(move || async move {
                let begun = note(&hooks, "hook begin");
                tokio::time::sleep(Duration::from_millis(arguments.hook)).await;
                match begun.and_then(|()| note(&hooks, "hook end")) {
                    Ok(()) => StatusCode::OK,
                    Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
                }
            }),
        );
    tokio::spawn(async move { axum::serve(listener, router).await });
    stop.recv().await;
    note(&journal, &format!("{name} term"))?;
    tokio::time::sleep(Duration::from_millis(arguments.linger)).await;
    note(&journal, &format!("{name} exit"))?;
    Ok(())
}

fn name_of(owner: &str) -> String {
    format!("{owner} {}", std::env::var("POD").unwrap_or_default())
}

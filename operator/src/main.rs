//! The operator's binary: reads the command line and calls the library.

use std::io::Write;

use anyhow::Context;
use clap::Parser;
use kube::{Client, Config};
use processhub_operator::args::{Args, Command, Run};
use processhub_operator::failpoint::Point;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> anyhow::Result<()> {
    match Args::parse().command {
        Command::Run(run) => start(run),
        Command::Crd => {
            let files = processhub_crds::generate::crd_yaml()?;
            let documents: Vec<String> = files.into_iter().map(|(_, yaml)| yaml).collect();
            print(&documents.join("---\n"))
        }
        Command::Failpoints => {
            let names: Vec<&str> = Point::ALL.iter().map(|point| point.as_str()).collect();
            print(&(names.join("\n") + "\n"))
        }
    }
}

fn print(text: &str) -> anyhow::Result<()> {
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

#[tokio::main]
async fn start(run: Run) -> anyhow::Result<()> {
    processhub_operator::log::start(&run.log)?;
    let mut config = Config::infer().await.context("no kubeconfig and not in a cluster")?;
    // Every call has a time-out and a retry of its own, decided on what it is for.
    config.default_retry = false;
    let client = Client::try_from(config)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    processhub_operator::run(client, run.options()?, shutdown).await
}

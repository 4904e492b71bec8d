//! The clients' process: see `processhub_e2e::load::RemoteLoad`.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use processhub_e2e::load::{Answers, Load, Operation, Order, Speech, Target, Word, fetch, send};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::mpsc;

/// Runs clients as told by JSON lines on standard input, and says by JSON lines what they saw.
#[derive(Parser)]
struct Args {
    /// Makes the clients' names unique among several runs on the same processes.
    #[arg(long, default_value = "run")]
    run: String,
    /// Pause of each client between two requests.
    #[arg(long, default_value_t = 5)]
    pause_milliseconds: u64,
    /// How long each client waits for an answer.
    #[arg(long, default_value_t = 60_000)]
    patience_milliseconds: u64,
    /// Which of the example workers they talk to.
    #[arg(long, value_enum, default_value_t)]
    speech: Speech,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = Args::parse();
    let (tell, mut told) = mpsc::unbounded_channel::<Operation>();
    let mut load = Load::new(&args.run, Duration::from_millis(args.pause_milliseconds), tell)
        .to(args.speech)
        .for_at_most(Duration::from_millis(args.patience_milliseconds));
    let (answered, mut answers) = mpsc::unbounded_channel::<Word>();
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    loop {
        tokio::select! {
            Some(operation) = told.recv() => say(&Word::Operation { operation })?,
            Some(word) = answers.recv() => say(&word)?,
            line = orders.next_line() => match line? {
                // The one that gives the orders is gone.
                None => return Ok(()),
                Some(line) => match serde_json::from_str(&line).context("an order that is none")? {
                    Order::Add { targets } => targets.iter().for_each(|target| load.add(target)),
                    Order::Finish => {
                        load.finish().await;
                        while let Ok(operation) = told.try_recv() {
                            say(&Word::Operation { operation })?;
                        }
                        say(&Word::Finished)?;
                    }
                    Order::Call { id, call } => {
                        let answered = answered.clone();
                        tokio::spawn(async move {
                            let answer = send(&call).await.map_err(|error| format!("{error:#}"));
                            // Without a receiver the process is ending.
                            let _ = answered.send(Word::Called { id, answer });
                        });
                    }
                    Order::Fetch { id, targets, path } => {
                        let answers = fetch_all(&targets, &path).await;
                        say(&Word::Fetched { id, answers })?;
                    }
                },
            },
        }
    }
}

async fn fetch_all(targets: &[Target], path: &str) -> Answers {
    let asked: FuturesUnordered<_> = targets
        .iter()
        .map(async |target| {
            let answer = fetch(target.address, path).await.map_err(|error| format!("{error:#}"));
            (target.process.clone(), answer)
        })
        .collect();
    asked.collect().await
}

fn say(word: &Word) -> Result<()> {
    let mut line = serde_json::to_vec(word)?;
    line.push(b'\n');
    let mut out = std::io::stdout().lock();
    out.write_all(&line)?;
    Ok(out.flush()?)
}

//! What moves cost: a node joins and is drained again, for hubs of several sizes, beside the floor of the same machine.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use kube::api::PostParams;
use processhub_crds::{HubProcess, MigrationTrigger};
use serde::Serialize;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::oracle::Percentiles;
use crate::site::{Site, SiteKind};
use crate::trial::{HubOptions, Trial};

/// How often the floor is measured.
const SAMPLES: usize = 200;
/// How many moves are made one after the other, with nothing else going on.
const ALONE: u32 = 20;

/// What is measured.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Where it runs
    #[arg(long, value_enum, default_value = "local")]
    cluster: SiteKind,
    /// Nodes before one joins
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=9))]
    nodes: u8,
    /// Processes of each hub
    #[arg(long, value_delimiter = ',', default_value = "20,60")]
    processes: Vec<u32>,
    /// Bytes of state of each process
    #[arg(long, value_delimiter = ',', default_value = "1024,65536,1048576")]
    state_sizes: Vec<u64>,
    /// Write the table to this file as JSON
    #[arg(long)]
    summary: Option<PathBuf>,
}

/// One line of the table. Durations in milliseconds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    processes: u32,
    state_size: u64,
    moves: usize,
    /// From the moment at which the new node is Ready.
    join: u64,
    drain: u64,
    /// Of the moves of the join and of the drain, many of which are under way at once.
    blackout: Percentiles,
    /// Of moves by wish, one after the other.
    alone: Percentiles,
    client_gap: Percentiles,
    acknowledged: u64,
    lost: u64,
    errors: u64,
    /// What some of the errors were.
    seen: Vec<String>,
    /// Writes of objects by the operator for each move, without those of the hub's own status and without events.
    writes: f64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    /// Three round trips on loopback and one write of a status.
    floor: Percentiles,
    rows: Vec<Row>,
}

/// Measures and prints.
///
/// # Errors
/// When the cluster does not come up, or something was lost.
pub async fn run(options: Options) -> Result<()> {
    anyhow::ensure!(
        options.cluster.owns_nodes(),
        "a node has to join and be drained: --cluster embedded or local"
    );
    let site = Site::start(options.cluster, options.nodes).await?;
    let summary = super::on(site, async |site| measure(site, &options).await).await?;
    anyhow::ensure!(summary.rows.iter().all(|row| row.lost == 0), "acknowledged requests were lost");
    Ok(())
}

async fn measure(site: &Site, options: &Options) -> Result<Summary> {
    println!(
        "{:>9} {:>10} {:>6} {:>8} {:>8}  {:>17}  {:>17}  {:>17} {:>8} {:>5} {:>6} {:>11}",
        "processes",
        "state",
        "moves",
        "join s",
        "drain s",
        "blackout p50/p99",
        "alone p50/p99",
        "gap p50/p99",
        "acked",
        "lost",
        "errors",
        "writes/move"
    );
    let mut summary = Summary { floor: Percentiles::default(), rows: Vec::new() };
    for &processes in &options.processes {
        for &state_size in &options.state_sizes {
            let name = format!("bench-{processes}-{}", state_size >> 10);
            let hub = HubOptions::of(&name, processes).state_size(state_size);
            let trial = Trial::begin(site, &name, hub, None).await?;
            if summary.rows.is_empty() {
                summary.floor = measure_floor(&trial).await?;
            }
            let row = one(site, trial, processes, state_size).await?;
            println!(
                "{:>9} {:>10} {:>6} {:>8.1} {:>8.1}  {:>8.1}/{:>8.1}  {:>8.1}/{:>8.1}  {:>8.1}/{:>8.1} {:>8} {:>5} {:>6} \
                 {:>11.2}",
                row.processes,
                row.state_size,
                row.moves,
                row.join as f64 / 1000.0,
                row.drain as f64 / 1000.0,
                row.blackout.p50,
                row.blackout.p99,
                row.alone.p50,
                row.alone.p99,
                row.client_gap.p50,
                row.client_gap.p99,
                row.acknowledged,
                row.lost,
                row.errors,
                row.writes
            );
            for sample in &row.seen {
                println!("  seen: {sample}");
            }
            summary.rows.push(row);
            super::save(options.summary.as_deref(), &summary)?;
            site.tidy().await?;
        }
    }
    println!(
        "floor of a blackout (three round trips on loopback and one status write): p50 {:.1} p99 {:.1} ms",
        summary.floor.p50, summary.floor.p99
    );
    Ok(summary)
}

async fn one(site: &Site, trial: Trial<'_>, processes: u32, state_size: u64) -> Result<Row> {
    let mark = site.mark()?;
    let joined = site.join().await?;
    let began = Instant::now();
    let share = processes as usize / site.nodes().await?.len();
    trial.owned_at_least(std::slice::from_ref(&joined), share).await?;
    trial.settled().await?;
    let join = began.elapsed();
    let began = Instant::now();
    site.drain(&joined).await?;
    trial.settled().await?;
    let drain = began.elapsed();
    for index in 0..processes.min(ALONE) {
        let process = format!("{}-{index}", trial.namespace());
        let epoch = trial.epoch(&process).await?;
        trial.wish_away(&process).await?;
        trial.swap_ended(&process, epoch).await?;
    }
    trial.settled().await?;
    let writes = site.writes_since(mark)?;
    let writes = writes.iter().filter(|write| write.is_of_a_move(trial.namespace())).count();
    let verdict = trial.finish().await?;
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let moves = verdict.moves.iter().filter(|moved| moved.is_swap()).count();
    let blackouts = |alone: bool| {
        let of = verdict.moves.iter().filter(|moved| moved.is_swap());
        let of = of.filter(|moved| (moved.trigger == MigrationTrigger::Wish) == alone);
        Percentiles::of(of.filter_map(|moved| Some(moved.blackout? as f64)).collect())
    };
    Ok(Row {
        processes,
        state_size,
        moves,
        join: milliseconds(join),
        drain: milliseconds(drain),
        blackout: blackouts(false),
        alone: blackouts(true),
        client_gap: verdict.client_gap(),
        acknowledged: verdict.account.acknowledged,
        lost: verdict.account.lost,
        errors: verdict.account.errors + verdict.account.unknown,
        seen: verdict.account.error_samples,
        writes: writes as f64 / moves.max(1) as f64,
    })
}

/// What no hand-over can be faster than: freeze, import and activate are one round trip each, and the commit is a write.
async fn measure_floor(trial: &Trial<'_>) -> Result<Percentiles> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let echo = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        let mut bytes = [0; 1024];
        loop {
            stream.read_exact(&mut bytes).await?;
            stream.write_all(&bytes).await?;
        }
        #[expect(unreachable_code, reason = "gives the block its type")]
        std::io::Result::Ok(())
    });
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let processes = trial.processes();
    let mut object: HubProcess = serde_json::from_value(json!({
        "apiVersion": "processhub.io/v1alpha1", "kind": "HubProcess",
        "metadata": {"name": "floor"}, "spec": {"hubName": "none"},
    }))?;
    object = processes.create(&PostParams::default(), &object).await?;
    let mut samples = Vec::new();
    let mut bytes = [0; 1024];
    while samples.len() < SAMPLES {
        let began = Instant::now();
        for _ in 0..3 {
            stream.write_all(&bytes).await?;
            stream.read_exact(&mut bytes).await?;
        }
        object.status.get_or_insert_default().epoch += 1;
        match processes.replace_status("floor", &PostParams::default(), &object).await {
            Ok(written) => {
                samples.push(began.elapsed().as_secs_f64() * 1000.0);
                object = written;
            }
            // The operator says once that there is no such hub.
            Err(kube::Error::Api(status)) if status.code == 409 => object = processes.get("floor").await?,
            Err(error) => return Err(error.into()),
        }
    }
    processes.delete("floor", &Default::default()).await?;
    echo.abort();
    Ok(Percentiles::of(samples))
}

//! The demonstration: the main job, from nothing to a balance of what clients saw.

mod chapter;
mod summary;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::artifacts::Images;
use crate::moves::Move;
use crate::site::{Site, SiteKind};
use crate::trial::{HubOptions, Trial};
use chapter::{Chapter, Leave, Plan};
use summary::Summary;

/// Where the hub is; taken away again at the end.
const NAMESPACE: &str = "demo";

/// What the demonstration is like.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Where it runs
    #[arg(long, value_enum, default_value = "embedded")]
    cluster: SiteKind,
    /// Nodes at the beginning; a cluster that exists already has its own
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=9))]
    nodes: u8,
    /// Counter processes
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=200))]
    processes: u32,
    /// Bytes of state of each process
    #[arg(long, default_value_t = 64 * 1024)]
    state_size: u64,
    /// Seconds of undisturbed load before each chapter
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// Also let a node lose its power; what is lost with it has a line of its own
    #[arg(long)]
    kill_node: bool,
    /// When a node that is lost is taken over from; with OnLease nothing is lost with it, and one is also cut off (--cluster
    /// local)
    #[arg(long, value_enum, default_value = "on-proof")]
    failover: Takeover,
    /// Nothing but these chapters
    #[arg(long, value_enum, value_delimiter = ',', conflicts_with = "kill_node")]
    only: Vec<Chapter>,
    /// Write the table and all moves to this file as JSON
    #[arg(long)]
    summary: Option<PathBuf>,
    #[command(flatten)]
    images: Images,
}

/// When a node that is lost is taken over from.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Takeover {
    /// When somebody says that it is gone
    #[value(alias = "OnProof")]
    OnProof,
    /// When its leases have ended; each state is with another node as well
    #[value(alias = "OnLease")]
    OnLease,
}

/// Runs it, until its end or Ctrl-C; either way everything that it started is ended.
///
/// # Errors
/// When something did not work, or anything was lost or duplicated.
pub async fn run(options: Options) -> Result<()> {
    ensure!(
        options.cluster.owns_nodes() || !options.kill_node,
        "--kill-node is for a cluster whose nodes may be killed: --cluster embedded or local"
    );
    let site = match options.cluster {
        SiteKind::Embedded | SiteKind::Local => Site::start(options.cluster, options.nodes).await?,
        SiteKind::Kubeconfig => Site::connect(options.images.clone()).await?,
    };
    println!("watch it: {} get hub,hproc --namespace {NAMESPACE} --watch", site.kubectl());
    let result = tokio::select! {
        result = tell(&site, &options) => result,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    let stopped = site.stop().await;
    let summary = result?;
    stopped?;
    if summary.lost + summary.duplicated > 0 {
        bail!("{} acknowledged requests lost, {} duplicated", summary.lost, summary.duplicated);
    }
    Ok(())
}

async fn tell(site: &Site, options: &Options) -> Result<Summary> {
    if !site.kind().owns_nodes() {
        let fit = site.fit_nodes().await?.len();
        ensure!(fit >= 2, "a move takes two nodes; of this cluster's {fit} are Ready and take any pod");
    }
    let by_lease = options.failover == Takeover::OnLease;
    let leave = Leave { kind: site.kind(), owns_operators: site.owns_operators(), by_lease };
    let plan = if options.only.is_empty() {
        Plan::of(leave, options.kill_node)
    } else {
        Plan::only(&options.only, leave)?
    };
    let (tell, told) = mpsc::unbounded_channel();
    let printer = tokio::spawn(print_moves(told));
    println!("creating a hub of {} counters", options.processes);
    let hub =
        HubOptions { replicas: options.processes, state_size: options.state_size, ..HubOptions::default() };
    let trial = Trial::begin(site, NAMESPACE, chapter::hub(hub, by_lease), Some(tell)).await?;
    let mut robbed = Vec::new();
    for (index, chapter) in plan.chapters.iter().enumerate() {
        robbed.extend(chapter.run(index + 1, by_lease, &trial).await?);
        sleep(Duration::from_secs(options.seconds)).await;
    }
    for left_out in &plan.left_out {
        println!("\nLeft out: {left_out}");
    }
    let robbed: Vec<&str> = robbed.iter().map(String::as_str).collect();
    let verdict = trial.finish_excusing(&robbed).await?;
    printer.abort();
    let summary = Summary::of(&verdict);
    summary.print(&verdict);
    if let Some(path) = &options.summary {
        std::fs::write(path, serde_json::to_vec_pretty(&summary)?)
            .with_context(|| format!("write {}", path.display()))?;
    }
    if let Some(disorder) = verdict.disorder.first() {
        bail!("not linearizable: {disorder:?}");
    }
    Ok(summary)
}

async fn print_moves(mut told: mpsc::UnboundedReceiver<Move>) {
    while let Some(moved) = told.recv().await {
        let blackout =
            moved.blackout.map_or_else(String::new, |blackout| format!(", blackout {blackout} ms"));
        let reason = moved.reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
        println!(
            "   {:<10} {:<9} {:<10} {:<12} {} -> {}{blackout}{reason}",
            moved.trigger.to_string(),
            moved.kind.to_string(),
            moved.result.to_string(),
            moved.process,
            moved.from.as_deref().unwrap_or("-"),
            moved.to.as_deref().unwrap_or("-"),
        );
    }
}

//! The demonstration: the main job, from nothing to a balance of what clients saw.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Node;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::moves::Move;
use crate::oracle::Percentiles;
use crate::site::{Site, SiteKind};
use crate::trial::{HubOptions, Trial, Verdict};
use crate::wait::{Seen, until};

/// What the demonstration is like.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Where it runs
    #[arg(long, value_enum, default_value = "embedded")]
    cluster: SiteKind,
    /// Nodes at the beginning
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
    /// Write the table and all moves to this file as JSON
    #[arg(long)]
    summary: Option<PathBuf>,
}

/// The table.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    acknowledged: u64,
    found: u64,
    lost: u64,
    lost_with_the_node: u64,
    duplicated: u64,
    unknown: u64,
    errors: u64,
    blackout: Percentiles,
    client_gap: Percentiles,
    moves: Vec<Move>,
}

/// Runs it, until its end or Ctrl-C; either way everything that it started is ended.
///
/// # Errors
/// When something did not work, or anything was lost or duplicated.
pub async fn run(options: Options) -> Result<()> {
    let site = Site::start(options.cluster, options.nodes).await?;
    println!("watch it: kubectl --kubeconfig {} get hub,hproc -A -w", site.kubeconfig().display());
    let result = tokio::select! {
        result = chapters(&site, &options) => result,
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

async fn chapters(site: &Site, options: &Options) -> Result<Summary> {
    let (tell, told) = mpsc::unbounded_channel();
    let printer = tokio::spawn(print_moves(told));
    println!("creating a hub of {} counters", options.processes);
    let hub =
        HubOptions { replicas: options.processes, state_size: options.state_size, ..HubOptions::default() };
    let trial = Trial::begin(site, "demo", hub, Some(tell)).await?;
    let quiet = Duration::from_secs(options.seconds);

    println!("\n1. Clients count without a pause");
    sleep(quiet).await;
    println!("\n2. A node joins");
    let joined = site.join().await?;
    println!("   {joined} is Ready");
    trial.owned_at_least(std::slice::from_ref(&joined), 1).await?;
    trial.settled().await?;

    sleep(quiet).await;
    let node = trial.owner_node("cart-0").await?;
    println!("\n3. {node} is drained");
    site.drain(&node).await?;
    trial.settled().await?;
    site.cordon(&node, false).await?;
    println!("   {node} is uncordoned");
    trial.balanced().await?;

    sleep(quiet).await;
    let owner = trial.owner("cart-0").await?;
    println!("\n4. kubectl delete pod {}", owner.pod);
    site.delete_pod(trial.namespace(), &owner.pod, None).await?;
    trial.owned_by_another_pod("cart-0", &owner.uid).await?;
    trial.settled().await?;

    sleep(quiet).await;
    println!("\n5. The leading operator is killed in the middle of a move");
    kill_leader_in_mid_move(site, &trial).await?;
    trial.settled().await?;

    if options.kill_node {
        sleep(quiet).await;
        kill_node(site, &trial).await?;
    }
    sleep(quiet).await;
    let verdict = trial.finish().await?;
    printer.abort();
    let summary = summarize(&verdict);
    print_table(&summary, &verdict);
    if let Some(path) = &options.summary {
        std::fs::write(path, serde_json::to_vec_pretty(&summary)?)
            .with_context(|| format!("write {}", path.display()))?;
    }
    if let Some(disorder) = verdict.disorder.first() {
        bail!("not linearizable: {disorder:?}");
    }
    Ok(summary)
}

async fn kill_leader_in_mid_move(site: &Site, trial: &Trial<'_>) -> Result<()> {
    let to = trial.another_node("cart-0").await?;
    let leader = site.leader().await?;
    trial.wish("cart-0", "processhub.io/move-to", &to).await?;
    until("a move to be under way", Duration::from_secs(30), async || {
        let status = trial.processes().get("cart-0").await?.status.unwrap_or_default();
        Ok(if status.migration.is_some() { Seen::Yes(()) } else { Seen::NotYet("no migration".into()) })
    })
    .await?;
    site.kill_operator(&leader).await?;
    println!("   killed {}, the leader", leader.name());
    trial.owned_by("cart-0", &to).await?;
    println!("   {} finished it", site.leader().await?.name());
    Ok(())
}

async fn kill_node(site: &Site, trial: &Trial<'_>) -> Result<()> {
    let node = trial.owner_node("cart-0").await?;
    println!("\n6. {node} loses its power, and somebody says so by deleting its Node object");
    site.lose(&node).await?;
    let nodes: Api<Node> = Api::all(site.client());
    nodes.delete(&node, &DeleteParams::default()).await?;
    trial.evacuated(&node).await?;
    trial.settled().await?;
    for process in trial.processes().list(&ListParams::default()).await? {
        if let Some(loss) = process.status.as_ref().and_then(|status| status.may_miss.as_ref()) {
            println!("   {}: changes from number {} may be missing", process.name_any(), loss.from);
        }
    }
    Ok(())
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

fn summarize(verdict: &Verdict) -> Summary {
    let recovered: BTreeSet<_> = verdict
        .moves
        .iter()
        .filter(|moved| moved.kind == processhub_crds::MigrationKind::Recover)
        .map(|moved| moved.process.as_str())
        .collect();
    let account = &verdict.account;
    let lost_with_the_node = account
        .lost_by_process
        .iter()
        .filter(|(process, _)| recovered.contains(process.as_str()))
        .map(|(_, lost)| *lost)
        .sum();
    Summary {
        acknowledged: account.acknowledged,
        found: account.found,
        lost: account.lost - lost_with_the_node,
        lost_with_the_node,
        duplicated: account.duplicated,
        unknown: account.unknown,
        errors: account.errors,
        blackout: verdict.blackout(),
        client_gap: verdict.client_gap(),
        moves: verdict.moves.clone(),
    }
}

fn print_table(summary: &Summary, verdict: &Verdict) {
    let swaps = summary.moves.iter().filter(|moved| moved.is_swap()).count();
    println!("\n{swaps} processes moved");
    for (what, count) in [
        ("requests acknowledged", summary.acknowledged),
        ("found", summary.found),
        ("lost", summary.lost),
        ("lost with the node", summary.lost_with_the_node),
        ("duplicated", summary.duplicated),
        ("outcome unknown", summary.unknown),
        ("errors that clients saw", summary.errors),
    ] {
        println!("  {what:<26}{count:>9}");
    }
    for (what, of) in
        [("blackout (sidecars), ms", summary.blackout), ("longest client gap, ms", summary.client_gap)]
    {
        println!("  {what:<26}p50 {:>7.1}  p99 {:>7.1}  max {:>7.1}", of.p50, of.p99, of.max);
    }
    for sample in &verdict.account.error_samples {
        println!("  seen: {sample}");
    }
}

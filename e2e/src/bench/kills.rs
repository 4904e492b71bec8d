//! What a crash costs: a worker, its sidecar, both or their pod are killed under load, by class of checkpoint.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use processhub_crds::MigrationKind;
use serde::Serialize;
use serde_json::json;

use crate::oracle::Percentiles;
use crate::scenario::{send, started_again};
use crate::site::{SIDECAR, Signal, Site, SiteKind};
use crate::trial::{HubOptions, Trial, Verdict};

/// How often a worker is killed in a row.
const OFTEN: usize = 20;
/// How long the object may take to say what is missing.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is measured.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Where it runs
    #[arg(long, value_enum, default_value = "local")]
    cluster: SiteKind,
    /// Classes of checkpoints
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Class::None, Class::Async, Class::Sync])]
    classes: Vec<Class>,
    /// What is killed
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Victim::value_variants().to_vec())]
    victims: Vec<Victim>,
    /// Write the table to this file as JSON
    #[arg(long)]
    summary: Option<PathBuf>,
}

/// What is killed, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "camelCase")]
enum Victim {
    /// The worker, by SIGKILL
    Kill,
    /// The worker, by SIGTERM
    Term,
    /// The worker, by SIGSEGV
    Segv,
    /// The worker ends by itself with status 0
    Exit0,
    /// The worker ends by itself with status 1
    Exit1,
    /// The sidecar
    Sidecar,
    /// The worker and then its sidecar
    WorkerSidecar,
    /// The sidecar and then its worker
    SidecarWorker,
    /// The pod is deleted by force, with a grace period of 0
    Pod,
    /// The worker, twenty times in a row; three times where nothing is kept
    Often,
}

/// A class of checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
enum Class {
    /// Nothing is kept
    None,
    /// At most every 200 ms
    Async,
    /// Before each answer
    Sync,
}

impl Class {
    fn word(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Async => "Async",
            Self::Sync => "Sync",
        }
    }
}

impl Victim {
    fn words(self) -> &'static str {
        match self {
            Self::Kill => "worker, SIGKILL",
            Self::Term => "worker, SIGTERM",
            Self::Segv => "worker, SIGSEGV",
            Self::Exit0 => "worker, exit 0",
            Self::Exit1 => "worker, exit 1",
            Self::Sidecar => "sidecar",
            Self::WorkerSidecar => "worker, then sidecar",
            Self::SidecarWorker => "sidecar, then worker",
            Self::Pod => "pod, grace 0",
            Self::Often => "worker, in a row",
        }
    }

    /// Whether what was kept is gone with it.
    fn takes_disk(self) -> bool {
        self == Self::Pod
    }
}

/// One line of the table. Durations in milliseconds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    victim: Victim,
    class: Class,
    kills: usize,
    acknowledged: u64,
    missing: u64,
    /// The number from which on the object says that something may be missing.
    said_from: Option<u64>,
    /// Outcomes that clients do not know: what was under way.
    unknown: u64,
    refused: u64,
    /// How long clients had no answer, for each kill.
    downtime: Percentiles,
    /// How often another pod was started.
    new_pods: usize,
}

/// Measures and prints.
///
/// # Errors
/// When the cluster does not come up, or something was lost that its class promises to keep, or that nobody says.
pub async fn run(options: Options) -> Result<()> {
    let site = Site::start(options.cluster, 2).await?;
    let rows = super::on(site, async |site| measure(site, &options).await).await?;
    for Row { victim, class, missing, said_from, .. } in &rows {
        let kept = *class == Class::Sync && !victim.takes_disk();
        ensure!(!kept || *missing == 0, "{victim:?}, {class:?}: {missing} acknowledged requests were lost");
        ensure!(
            *missing == 0 || said_from.is_some(),
            "{victim:?}, {class:?}: nobody says that {missing} are missing"
        );
    }
    Ok(())
}

async fn measure(site: &Site, options: &Options) -> Result<Vec<Row>> {
    println!(
        "{:<22} {:<6} {:>6} {:>7} {:>8} {:>10} {:>8} {:>8}  {:>19} {:>9}",
        "killed",
        "class",
        "kills",
        "acked",
        "missing",
        "said from",
        "unknown",
        "refused",
        "down p50/max ms",
        "new pods"
    );
    let mut rows = Vec::new();
    for &victim in &options.victims {
        for &class in &options.classes {
            let row = one(site, victim, class).await.with_context(|| format!("{victim:?}, {class:?}"))?;
            println!(
                "{:<22} {:<6} {:>6} {:>7} {:>8} {:>10} {:>8} {:>8}  {:>9.0}/{:>9.0} {:>9}",
                row.victim.words(),
                row.class.word(),
                row.kills,
                row.acknowledged,
                row.missing,
                row.said_from.map_or_else(|| "-".to_owned(), |from| from.to_string()),
                row.unknown,
                row.refused,
                row.downtime.p50,
                row.downtime.max,
                row.new_pods
            );
            rows.push(row);
            super::save(options.summary.as_deref(), &rows)?;
            site.tidy().await?;
        }
    }
    Ok(rows)
}

async fn one(site: &Site, victim: Victim, class: Class) -> Result<Row> {
    let hub = format!("kills-{}-{}", victim.to_possible_value().context("no name")?.get_name(), class.word());
    let hub = hub.to_lowercase();
    let process = format!("{hub}-0");
    let options = HubOptions::of(&hub, 1).environment("COUNTER_FAULTS_BY_CLIENTS", "true").spec(json!({
        "checkpoint": {"class": class.word(), "periodMilliseconds": 200},
        // What is not proven otherwise is taken for dead when the kubelet has had grace period and half a minute.
        "migration": {"stateTTLMilliseconds": 2000, "stateQueryTimeoutMilliseconds": 1000},
        "worker": {"hold": {"milliseconds": 60_000}, "drainTimeoutMilliseconds": 500},
        "template": {"spec": {"terminationGracePeriodSeconds": 1}},
    }));
    let mut trial = Trial::begin(site, &hub, options, None).await?;
    let kills = match (victim, class) {
        // Nothing is kept that another pod could be given: its kubelet starts it, and waits twice as long each time.
        (Victim::Often, Class::None) => 3,
        (Victim::Often, Class::Async | Class::Sync) => OFTEN,
        _ => 1,
    };
    for _ in 0..kills {
        trial.under_load(100).await?;
        kill(&mut trial, &process, victim).await?;
    }
    trial.under_load(50).await?;
    trial.process_settled(&process).await?;
    let processes = trial.processes();
    let verdict = trial.finish_excusing(&[&process]).await?;
    let Verdict { excused, .. } = &verdict;
    let said = async || {
        let status = processes.get(&process).await?.status.unwrap_or_default();
        anyhow::Ok(status.may_miss.map(|said| said.from))
    };
    // Its sidecar says it when the worker is back, and the operator asks every few seconds.
    let patience = Instant::now() + PATIENCE;
    let mut said_from = said().await?;
    while excused.lost > 0 && said_from.is_none() && Instant::now() < patience {
        tokio::time::sleep(Duration::from_millis(200)).await;
        said_from = said().await?;
    }
    Ok(Row {
        victim,
        class,
        kills,
        acknowledged: excused.acknowledged,
        missing: excused.lost,
        said_from,
        unknown: excused.unknown,
        refused: excused.errors,
        downtime: verdict.downtime(),
        new_pods: verdict.moves.iter().filter(|moved| moved.kind != MigrationKind::Start).count(),
    })
}

async fn kill(trial: &mut Trial<'_>, process: &str, victim: Victim) -> Result<()> {
    let before = trial.worker_restarts(process).await?;
    let (site, namespace) = (trial.site(), trial.namespace().to_owned());
    let pod = &before.0;
    let sidecar = async || site.signal_children(&namespace, pod, SIDECAR, Signal::KILL).await;
    trial.disturb(process);
    match victim {
        Victim::Kill | Victim::Often => send(trial, pod, Signal::KILL).await?,
        Victim::Term => send(trial, pod, Signal::TERM).await?,
        Victim::Segv => send(trial, pod, Signal::SEGV).await?,
        Victim::Exit0 => trial.set_faults(process, "exit=increment:0").await?,
        Victim::Exit1 => trial.set_faults(process, "exit=increment:1").await?,
        Victim::Sidecar => {
            sidecar().await?;
            // Its first process starts it again at once; nothing of that is on the object.
            tokio::time::sleep(Duration::from_secs(1)).await;
            return Ok(());
        }
        Victim::WorkerSidecar => {
            send(trial, pod, Signal::KILL).await?;
            sidecar().await?;
        }
        Victim::SidecarWorker => {
            sidecar().await?;
            send(trial, pod, Signal::KILL).await?;
        }
        Victim::Pod => site.delete_pod(&namespace, pod, Some(0)).await?,
    }
    started_again(trial, process, &before).await
}

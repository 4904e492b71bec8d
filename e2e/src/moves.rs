//! What moved, as the objects say it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use futures::{StreamExt, TryStreamExt};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use processhub_crds::{HubProcess, MigrationKind, MigrationRecord, MigrationResult};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// One move that ended.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Move {
    /// The process.
    pub process: String,
    /// Epoch taken for it.
    pub epoch: u64,
    /// How.
    pub kind: MigrationKind,
    /// Node that it left.
    pub from: Option<String>,
    /// Node that it went to.
    pub to: Option<String>,
    /// How it ended.
    pub result: MigrationResult,
    /// Why it did not succeed.
    pub reason: Option<String>,
    /// Bytes of state handed over.
    pub bytes: Option<u64>,
    /// By the sidecars' clock, in milliseconds.
    pub blackout: Option<u64>,
    /// Wall clock, microseconds since the epoch.
    pub started: u64,
    /// Wall clock, microseconds since the epoch.
    pub ended: u64,
}

impl Move {
    fn of(process: &str, record: &MigrationRecord) -> Self {
        let micros = |time: k8s_openapi::jiff::Timestamp| u64::try_from(time.as_microsecond()).unwrap_or(0);
        Self {
            process: process.to_owned(),
            epoch: record.epoch,
            kind: record.kind,
            from: record.source.as_ref().and_then(|source| source.node.clone()),
            to: record.target.node.clone(),
            result: record.result,
            reason: record.reason.map(|reason| reason.to_string()),
            bytes: record.bytes,
            blackout: record.blackout_milliseconds,
            started: micros(record.start_time.0),
            ended: micros(record.completion_time.0),
        }
    }

    /// Whether it carried a process from one node to another.
    #[must_use]
    pub fn is_swap(&self) -> bool {
        matches!(self.kind, MigrationKind::HotSwap | MigrationKind::ColdSwap)
    }
}

/// Notes every move of a namespace from now on.
pub struct MoveLog {
    moves: Arc<Mutex<Vec<Move>>>,
    task: JoinHandle<()>,
}

impl MoveLog {
    /// Begins. Each move is also sent to `tell`, for those who show progress.
    #[must_use]
    pub fn begin(client: Client, namespace: &str, tell: Option<mpsc::UnboundedSender<Move>>) -> Self {
        let moves = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&moves);
        let api: Api<HubProcess> = Api::namespaced(client, namespace);
        let task = tokio::spawn(async move {
            let mut seen = BTreeSet::new();
            let mut stream =
                watcher(api, watcher::Config::default()).default_backoff().applied_objects().boxed();
            loop {
                match stream.try_next().await {
                    Ok(Some(process)) => note(&process, &mut seen, &sink, tell.as_ref()),
                    Ok(None) => return,
                    Err(error) => tracing::debug!(%error, "watch processes"),
                }
            }
        });
        Self { moves, task }
    }

    /// Everything noted so far.
    #[must_use]
    pub fn so_far(&self) -> Vec<Move> {
        self.moves.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for MoveLog {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn note(
    process: &HubProcess,
    seen: &mut BTreeSet<(String, u64)>,
    moves: &Mutex<Vec<Move>>,
    tell: Option<&mpsc::UnboundedSender<Move>>,
) {
    let Some(record) = process.status.as_ref().and_then(|status| status.last_migration.as_ref()) else {
        return;
    };
    let uid = process.uid().unwrap_or_default();
    if !seen.insert((uid, record.epoch)) {
        return;
    }
    let noted = Move::of(&process.name_any(), record);
    if let Some(tell) = tell {
        // Nobody shows progress any more.
        let _ = tell.send(noted.clone());
    }
    moves.lock().unwrap_or_else(PoisonError::into_inner).push(noted);
}

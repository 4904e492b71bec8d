//! Every version of every process and pod of a namespace, as the API server showed them.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use processhub_crds::HubProcess;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::moves::Move;
use crate::oracle::{PodVersion, ProcessVersion};

#[derive(Default)]
struct Seen {
    /// By UID of the process and epoch of the move.
    moves: BTreeMap<(String, u64), Move>,
    processes: Vec<ProcessVersion>,
    pods: Vec<PodVersion>,
}

/// Notes what happens in a namespace, from now on.
pub struct Journal {
    seen: Arc<Mutex<Seen>>,
    tasks: [JoinHandle<()>; 2],
}

impl Journal {
    /// Begins. Each move that ends is also sent to `tell`, for those who show progress.
    #[must_use]
    pub fn begin(client: &Client, namespace: &str, tell: Option<mpsc::UnboundedSender<Move>>) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (of_processes, of_pods) = (Arc::clone(&seen), Arc::clone(&seen));
        let processes = follow(client, namespace, move |process: HubProcess| {
            note_process(&mut lock(&of_processes), &process, tell.as_ref());
        });
        let pods = follow(client, namespace, move |pod: Pod| {
            lock(&of_pods).pods.push(pod_version(&pod));
        });
        Self { seen, tasks: [processes, pods] }
    }

    /// Every move that ended so far, by process.
    #[must_use]
    pub fn moves(&self) -> Vec<Move> {
        lock(&self.seen).moves.values().cloned().collect()
    }

    /// What [`crate::oracle::check_ownership`] finds in it.
    #[must_use]
    pub fn check_ownership(&self) -> Vec<String> {
        let seen = lock(&self.seen);
        crate::oracle::check_ownership(&seen.processes, &seen.pods)
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn follow<K>(client: &Client, namespace: &str, mut note: impl FnMut(K) + Send + 'static) -> JoinHandle<()>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + 'static,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    tokio::spawn(async move {
        let mut stream = watcher(api, watcher::Config::default()).default_backoff().applied_objects().boxed();
        loop {
            match stream.try_next().await {
                Ok(Some(object)) => note(object),
                Ok(None) => return,
                Err(error) => tracing::debug!(%error, "watch"),
            }
        }
    })
}

fn note_process(seen: &mut Seen, process: &HubProcess, tell: Option<&mpsc::UnboundedSender<Move>>) {
    let (name, uid) = (process.name_any(), process.uid().unwrap_or_default());
    for moved in Move::all(&name, process) {
        if seen.moves.contains_key(&(uid.clone(), moved.epoch)) {
            continue;
        }
        if let Some(tell) = tell {
            // Nobody shows progress any more.
            let _ = tell.send(moved.clone());
        }
        seen.moves.insert((uid.clone(), moved.epoch), moved);
    }
    let status = process.status.as_ref();
    seen.processes.push(ProcessVersion {
        revision: revision(process),
        name,
        uid,
        epoch: status.map_or(0, |status| status.epoch),
        owner: status.and_then(|status| status.owner.as_ref()).map(|owner| (owner.uid.clone(), owner.epoch)),
        moving: status
            .and_then(|status| status.migration.as_ref())
            .map(|migration| (migration.kind, migration.trigger)),
        going: process.metadata.deletion_timestamp.is_some(),
    });
}

fn pod_version(pod: &Pod) -> PodVersion {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    PodVersion {
        revision: revision(pod),
        uid: pod.uid().unwrap_or_default(),
        ready: conditions.is_some_and(|conditions| {
            conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
        }),
        going: pod.metadata.deletion_timestamp.is_some(),
    }
}

/// Revisions of one cluster are numbers that count up over all objects.
fn revision(object: &impl ResourceExt) -> u64 {
    object.resource_version().and_then(|revision| revision.parse().ok()).unwrap_or(0)
}

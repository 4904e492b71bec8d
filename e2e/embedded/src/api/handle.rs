//! The registry shared between the HTTP server and what runs inside this process.

use super::audit::Audit;
use super::error::{ApiError, Result};
use super::object::Key;
use super::registry::Registry;
use super::store::{Event, ResourceId};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// The API server's state; every operation is short and synchronous.
#[derive(Debug)]
pub struct Api {
    registry: Mutex<Registry>,
    revision: watch::Sender<u64>,
    audit: Audit,
    logs: Mutex<BTreeMap<(Key, String), Vec<PathBuf>>>,
}

impl Api {
    /// Shares a registry.
    pub fn new(registry: Registry, audit: Audit) -> Arc<Self> {
        let (revision, _) = watch::channel(registry.store().revision());
        Arc::new(Self { registry: Mutex::new(registry), revision, audit, logs: Mutex::default() })
    }

    /// Runs an operation and wakes whoever follows changes if there was one.
    pub fn with<R>(&self, operation: impl FnOnce(&mut Registry) -> R) -> R {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let before = registry.store().revision();
        let result = operation(&mut registry);
        let after = registry.store().revision();
        drop(registry);
        if after != before {
            self.revision.send_replace(after);
        }
        result
    }

    /// Follows the revision.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// The log of requests.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// Says where the output of a container's newest run is kept; earlier runs stay known.
    pub fn log_file(&self, pod: &Key, container: &str, path: PathBuf) {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        logs.entry((pod.clone(), container.to_owned())).or_default().push(path);
    }

    /// The files with a container's output, oldest run first.
    pub fn log_files(&self, pod: &Key, container: &str) -> Vec<PathBuf> {
        let logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        logs.get(&(pod.clone(), container.to_owned())).cloned().unwrap_or_default()
    }
}

/// A way to the API that can be closed: of a node that is cut off, or of everything while the server is stopped.
#[derive(Clone, Debug)]
pub struct Link {
    api: Arc<Api>,
    open: Vec<watch::Receiver<bool>>,
}

impl Link {
    /// A way that is open while all of `open` are.
    pub fn new(api: Arc<Api>, open: Vec<watch::Receiver<bool>>) -> Self {
        Self { api, open }
    }

    /// The same way, closed also while `open` is false.
    pub fn also(&self, open: watch::Receiver<bool>) -> Self {
        let mut link = self.clone();
        link.open.push(open);
        link
    }

    /// Runs an operation.
    ///
    /// # Errors
    /// 503 while the way is closed, and what the operation returns.
    pub fn call<R>(&self, operation: impl FnOnce(&mut Registry) -> Result<R>) -> Result<R> {
        if self.open.iter().all(|open| *open.borrow()) {
            self.api.with(operation)
        } else {
            Err(ApiError::unavailable())
        }
    }

    /// Returns when the way is open.
    pub async fn opened(&mut self) {
        for index in 0..self.open.len() {
            // The sender lives as long as the cluster; when it is gone the task that waits here ends with it.
            if self.open[index].wait_for(|open| *open).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Where a container's output is kept; known to the API server even while the way is closed.
    pub fn log_file(&self, pod: &Key, container: &str, path: PathBuf) {
        self.api.log_file(pod, container, path);
    }

    /// Follows the objects of one resource.
    pub fn feed(&self, resource: ResourceId) -> Feed {
        Feed { changes: self.api.changes(), link: self.clone(), resource, revision: None }
    }
}

/// What a [`Feed`] brings.
#[derive(Debug)]
pub enum Batch {
    /// All objects: at first, and whenever events were missed.
    Snapshot(Vec<Arc<Value>>),
    /// What happened since, at least one event.
    Events(Vec<Arc<Event>>),
}

/// Follows the objects of one resource, as a watch does, without sockets.
#[derive(Debug)]
pub struct Feed {
    link: Link,
    changes: watch::Receiver<u64>,
    resource: ResourceId,
    revision: Option<u64>,
}

impl Feed {
    /// Waits for the next batch. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Batch {
        loop {
            self.link.opened().await;
            // Marked as seen before the read, so that a change during it wakes the next wait.
            self.changes.borrow_and_update();
            if let Some(batch) = self.poll() {
                return batch;
            }
            if self.changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    fn poll(&mut self) -> Option<Batch> {
        let (resource, revision) = (self.resource.clone(), self.revision);
        let (batch, now) = self
            .link
            .call(|registry| {
                let store = registry.store();
                let events = revision.map(|since| store.events_since(&resource, since));
                let batch = match events {
                    Some(Ok(events)) if events.is_empty() => None,
                    Some(Ok(events)) => Some(Batch::Events(events)),
                    None | Some(Err(_)) => Some(Batch::Snapshot(store.list(&resource, None))),
                };
                Ok((batch, store.revision()))
            })
            .ok()?;
        self.revision = Some(now);
        batch
    }
}

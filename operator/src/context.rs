//! What the loops share.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::runtime::reflector::{ObjectRef, Store};
use processhub_crds::{HubProcess, ProcessHub};
use processhub_protocol::id::ProcessUid;

use crate::assignments::{Board, HubKey};
use crate::call::CallError;
use crate::credentials::{Credentials, Key};
use crate::events::Events;
use crate::failpoint::{Failpoint, Failpoints, Point};
use crate::index::{Pods, Routes};
use crate::lease::Leadership;
use crate::metrics::Metrics;
use crate::process::memory::Memory;
use crate::sidecar_client::SidecarClient;

/// What an installation of the operator is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Image of the sidecar that new pods get.
    pub sidecar_image: String,
    /// The class of hubs that this installation owns.
    pub class: String,
    /// Namespace of the Lease.
    pub lease_namespace: String,
    /// This operator's name in the election; no other may have it.
    pub identity: String,
    /// UID of the pod in which it is the only operator: started again there, it need not wait for the one before.
    pub pod: Option<String>,
    /// Where metrics and health are served; `None` for nowhere.
    pub metrics_address: Option<std::net::SocketAddr>,
    /// The armed failpoint.
    pub failpoint: Option<Failpoint>,
}

/// The watched objects that both loops read. A store may be behind the API server.
#[derive(Clone)]
pub struct Stores {
    /// Hubs of all classes.
    pub hubs: Store<ProcessHub>,
    /// Processes of all hubs.
    pub processes: Store<HubProcess>,
    /// Nodes, without images and managed fields.
    pub nodes: Store<Node>,
}

/// What the loops share; one per operator, behind an `Arc`.
pub struct Context {
    /// The API server. Each call goes through [`crate::call::api`].
    pub client: Client,
    /// How this installation was started.
    pub options: Options,
    /// Whether this operator may act now.
    pub leadership: Leadership,
    /// Watched objects by name.
    pub stores: Stores,
    /// Watched pods by process.
    pub pods: Pods,
    /// Watched stable addresses by process.
    pub routes: Routes,
    /// What hub loop and process loop tell each other.
    pub board: Board,
    /// The control connections.
    pub sidecars: SidecarClient,
    /// The hubs' keys.
    pub credentials: Credentials,
    /// Events on objects.
    pub events: Events,
    /// Metrics of this operator.
    pub metrics: Metrics,
    /// The armed failpoint.
    pub failpoints: Failpoints,
    /// What the process loop remembers between two looks at a process.
    pub(crate) memories: Memories,
}

impl Context {
    /// A hub of this installation's class, as far as the watch knows.
    #[must_use]
    pub fn hub(&self, key: &HubKey) -> Option<std::sync::Arc<ProcessHub>> {
        let reference = ObjectRef::<ProcessHub>::new(&key.name).within(&key.namespace);
        self.stores.hubs.get(&reference)
    }

    /// Whether this installation owns the hub.
    #[must_use]
    pub fn owns(&self, hub: &ProcessHub) -> bool {
        hub.spec.class_name == self.options.class
    }

    /// Forgets a process whose object is gone.
    pub(crate) fn forget(&self, process: &ProcessUid) {
        self.board.forget(process);
        drop(self.memories.take(process));
    }

    /// Forgets the processes whose objects went while nobody watched.
    pub(crate) fn forget_the_gone(&self) {
        let present = self.stores.processes.state();
        let present: HashSet<&str> =
            present.iter().filter_map(|process| process.metadata.uid.as_deref()).collect();
        self.board.retain(|process| present.contains(process.0.as_str()));
        self.memories.retain(|process| present.contains(process.0.as_str()));
    }

    /// The key of a hub; made where there is none.
    pub(crate) async fn key(&self, hub: &ProcessHub) -> Result<std::sync::Arc<Key>, CallError> {
        match self.credentials.known(hub) {
            Some(key) => Ok(key),
            None => self.failpoints.pass(Point::CreateKey, self.credentials.ensure(hub)).await,
        }
    }

    /// How long a grant that is given now may last: as long as the Lease is certainly held.
    #[must_use]
    pub fn grant(&self) -> Option<Duration> {
        self.leadership.remaining()
    }
}

/// One [`Memory`] per process. A reconcile takes it out and puts it back: nobody else works on that process.
#[derive(Default)]
pub(crate) struct Memories(Mutex<HashMap<ProcessUid, Memory>>);

impl Memories {
    /// What is remembered of this process; empty for one that is new to this operator.
    pub(crate) fn take(&self, process: &ProcessUid) -> Memory {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(process).unwrap_or_default()
    }

    fn retain(&self, exists: impl Fn(&ProcessUid) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|process, _| exists(process));
    }

    /// To be remembered until the next look.
    pub(crate) fn put(&self, process: ProcessUid, memory: Memory) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(process, memory);
    }
}

//! The cluster as a whole: what tests and the demonstration call.

use crate::api::audit::{Audit, Counted, Entry};
use crate::api::handle::{Api, Link};
use crate::api::object::Key;
use crate::api::registry::Registry;
use crate::api::server;
use crate::controllers::{collector, endpoints, lifecycle, proxy, scheduler};
use crate::environment::Machine;
use crate::kubelet::node::{self, NodeContext};
use crate::options::Options;
use crate::processes::{Groups, Pids};
use crate::serve::{self, Server};
use crate::subnet::Subnet;
use rustix::process::{Resource, getrlimit, setrlimit};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};

/// Ports of the API servers: this one plus the number of the cluster's share of the addresses.
const FIRST_PORT: u16 = 16443;

/// How many containers are started at the same time.
const STARTS: usize = 2;

/// Why a cluster could not be started or did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// A file, socket or process could not be made.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A node is started that runs.
    #[error("node {0:?} runs already; kill it first")]
    NodeRuns(String),
    /// A node is asked for that does not exist or does not run.
    #[error("there is no node {0:?}, or it does not run; join it first")]
    NoSuchNode(String),
    /// The addresses allow no more nodes.
    #[error("an embedded cluster has at most 254 nodes")]
    TooManyNodes,
}

fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> ClusterError {
    let what = what.into();
    |source| ClusterError::Io { what, source }
}

impl Drop for EmbeddedCluster {
    fn drop(&mut self) {
        for kubelet in self.lock().values().filter_map(|n| n.kubelet.as_ref()) {
            kubelet.abort();
        }
        // The runtime may be gone: then nothing else ends the pods.
        self.groups.kill_all();
    }
}

/// A Kubernetes cluster in this process. Dropping it ends every process of its pods and removes its files.
#[derive(Debug)]
pub struct EmbeddedCluster {
    api: Arc<Api>,
    address: SocketAddr,
    server: tokio::sync::Mutex<Option<Server>>,
    serving: watch::Sender<bool>,
    directory: PathBuf,
    link: Link,
    groups: Arc<Groups>,
    pids: Arc<Pids>,
    starts: Arc<Semaphore>,
    options: Arc<Options>,
    subnet: Arc<Subnet>,
    controllers: JoinSet<()>,
    nodes: Mutex<BTreeMap<String, NodeHandle>>,
}

/// What the cluster keeps of a node.
#[derive(Debug)]
struct NodeHandle {
    number: u8,
    connected: watch::Sender<bool>,
    kubelet: Option<JoinHandle<()>>,
}

impl EmbeddedCluster {
    /// Starts a cluster: API server, controllers, and the nodes that the options name.
    ///
    /// # Errors
    /// When files cannot be written or the port is taken.
    pub async fn start(options: Options) -> Result<Self, ClusterError> {
        raise_file_limit();
        let temporary = std::env::temp_dir();
        let (subnet, listener) = share(&temporary)?;
        let address = listener.local_addr().map_err(io("the API server has no address"))?;
        let parent = options.directory.as_deref().unwrap_or(&temporary);
        let directory = parent.join(format!("processhub-embedded-{}", subnet.block()));
        // The share of the addresses is ours, so whatever is there is left from a run that is over.
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).map_err(io(format!("cannot make {}", directory.display())))?;
        let groups = Groups::new(&directory).map_err(io("cannot start the watchdog (sh)"))?;
        let registry = Registry::new(options.event_window, subnet.services(), Box::new(Machine::default()));
        let api = Api::new(registry, Audit::new(options.audit_window));
        let server =
            Server::start(listener, server::router(api.clone())).map_err(io("cannot serve the API"))?;
        let (serving, open) = watch::channel(true);
        let link = Link::new(api.clone(), vec![open]);
        write_kubeconfig(&directory.join("kubeconfig"), address)
            .map_err(io("cannot write the kubeconfig"))?;
        let options = Arc::new(options);
        let mut controllers = JoinSet::new();
        controllers.spawn(scheduler::run(link.clone()));
        controllers.spawn(lifecycle::run(link.clone(), options.clone()));
        controllers.spawn(collector::run(link.clone(), api.changes()));
        controllers.spawn(endpoints::run(link.clone()));
        controllers.spawn(proxy::run(link.clone()));
        let cluster = Self {
            api,
            address,
            server: tokio::sync::Mutex::new(Some(server)),
            serving,
            directory,
            link,
            groups: Arc::new(groups),
            pids: Arc::default(),
            starts: Arc::new(Semaphore::new(STARTS)),
            subnet: Arc::new(subnet),
            controllers,
            nodes: Mutex::default(),
            options: options.clone(),
        };
        if options.keep_directory {
            cluster.keep_directory()?;
        }
        for name in &options.nodes {
            cluster.join_node(name)?;
        }
        Ok(cluster)
    }

    /// Starts a node: a new one, or one that had lost its power, whose pods' volumes are still there.
    ///
    /// # Errors
    /// When the node runs already, or there are 254 nodes.
    pub fn join_node(&self, name: &str) -> Result<(), ClusterError> {
        let mut nodes = self.lock();
        if nodes.get(name).is_some_and(|n| n.kubelet.is_some()) {
            return Err(ClusterError::NodeRuns(name.to_owned()));
        }
        let number = match nodes.get(name) {
            Some(known) => known.number,
            None => {
                u8::try_from(nodes.len() + 1).ok().filter(|n| *n < 255).ok_or(ClusterError::TooManyNodes)?
            }
        };
        let (connected, open) = watch::channel(true);
        let context = NodeContext {
            name: name.to_owned(),
            number,
            address: self.subnet.node(number),
            directory: self.directory.join("nodes").join(name),
            kubeconfig: self.kubeconfig(),
            link: self.link.also(open),
            options: self.options.clone(),
            subnet: self.subnet.clone(),
            groups: self.groups.clone(),
            pids: self.pids.clone(),
            starts: self.starts.clone(),
        };
        let kubelet = tokio::spawn(node::run(Arc::new(context)));
        nodes.insert(name.to_owned(), NodeHandle { number, connected, kubelet: Some(kubelet) });
        Ok(())
    }

    /// Cuts the power of a node: everything on it is killed at once, and nobody is told. `join_node` starts it again.
    ///
    /// # Errors
    /// When no such node runs.
    pub async fn kill_node(&self, name: &str) -> Result<(), ClusterError> {
        let kubelet = self.lock().get_mut(name).and_then(|n| n.kubelet.take());
        let kubelet = kubelet.ok_or_else(|| ClusterError::NoSuchNode(name.to_owned()))?;
        kubelet.abort();
        // The only error is the cancellation; afterwards every pod's task is dropped, and its processes with it.
        let _ = kubelet.await;
        Ok(())
    }

    /// Cuts a node off from the API server; its pods go on and are reachable.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn cut_node(&self, name: &str) -> Result<(), ClusterError> {
        self.connect(name, false)
    }

    /// Ends the cut.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn heal_node(&self, name: &str) -> Result<(), ClusterError> {
        self.connect(name, true)
    }

    fn connect(&self, name: &str, connected: bool) -> Result<(), ClusterError> {
        let nodes = self.lock();
        let node = nodes.get(name).ok_or_else(|| ClusterError::NoSuchNode(name.to_owned()))?;
        node.connected.send_replace(connected);
        Ok(())
    }

    /// The names of all nodes that ever joined.
    pub fn nodes(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, NodeHandle>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a process group that the caller has started end with the cluster, however that ends.
    pub fn adopt(&self, group: i32) {
        self.groups.enter(group);
    }

    /// Kills what is left of an adopted group whose leader has ended.
    pub fn disown(&self, group: i32) {
        self.groups.leave(group);
    }

    /// The first process of a container, while it runs; its id is also that of the container's process group. Signals to
    /// it are the test's business.
    pub fn pid(&self, namespace: &str, pod: &str, container: &str) -> Option<i32> {
        self.pids.of(&Key::new(namespace, pod), container)
    }

    /// The files with a container's output, oldest run first; none where it never ran.
    pub fn logs(&self, namespace: &str, pod: &str, container: &str) -> Vec<PathBuf> {
        self.api.log_files(&Key::new(namespace, pod), container)
    }

    /// The kubeconfig (mode 0600) of a user who may do everything.
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.join("kubeconfig")
    }

    /// The API server's address, `http://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where volumes and logs are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Leaves the directory behind at the end, for looking at logs. A test that fails may say so late.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn keep_directory(&self) -> Result<(), ClusterError> {
        fs::write(self.directory.join("keep"), "").map_err(io("cannot mark the directory"))
    }

    /// What was asked of the API server over HTTP, counted since the start.
    pub fn audit(&self) -> BTreeMap<Counted, u64> {
        self.api.audit().counts()
    }

    /// The sequence number of the newest request, for [`Self::audit_since`].
    pub fn audit_mark(&self) -> u64 {
        self.api.audit().latest()
    }

    /// The requests after the one with this sequence number, oldest first.
    pub fn audit_since(&self, sequence: u64) -> Vec<Entry> {
        self.api.audit().since(sequence)
    }

    /// Closes the API server with every connection; nodes and pods go on, objects are kept.
    pub async fn stop_apiserver(&self) {
        if let Some(server) = self.server.lock().await.take() {
            self.serving.send_replace(false);
            server.stop().await;
        }
    }

    /// Opens the API server again at the same address.
    ///
    /// # Errors
    /// When the port was taken meanwhile.
    pub async fn start_apiserver(&self) -> Result<(), ClusterError> {
        let mut server = self.server.lock().await;
        if server.is_none() {
            let what = format!("cannot listen at {} for the API server", self.address);
            let listener = serve::bind(self.address).map_err(io(what))?;
            let started = Server::start(listener, server::router(self.api.clone()));
            *server = Some(started.map_err(io("cannot serve the API"))?);
            self.serving.send_replace(true);
        }
        Ok(())
    }

    /// Forgets past events, as etcd's compaction does: watches that are behind get 410 and must list again.
    pub fn compact(&self) {
        self.api.with(Registry::compact);
    }

    /// Ends everything and returns when it is gone.
    pub async fn shutdown(mut self) {
        self.stop_apiserver().await;
        self.controllers.shutdown().await;
        for name in self.nodes() {
            // A node that was killed before is off already.
            let _ = self.kill_node(&name).await;
        }
    }
}

/// The first share of the addresses whose port for the API server is free, too.
fn share(locks: &Path) -> Result<(Subnet, TcpListener), ClusterError> {
    // Shares whose port somebody else has are held until one fits, so that the next look is at another.
    let mut passed = Vec::new();
    loop {
        let subnet = Subnet::take(locks).map_err(io("no addresses for the cluster"))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, FIRST_PORT + u16::from(subnet.block())));
        match serve::bind(address) {
            Ok(listener) => return Ok((subnet, listener)),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => passed.push(subnet),
            Err(error) => return Err(io(format!("cannot listen at {address} for the API server"))(error)),
        }
    }
}

/// A thousand Services need more files than many shells allow; what the system allows is taken.
fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Small clusters do without.
    let _ = setrlimit(Resource::Nofile, limit);
}

fn write_kubeconfig(path: &Path, address: SocketAddr) -> std::io::Result<()> {
    let mut file = fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path)?;
    write!(
        file,
        "apiVersion: v1\nkind: Config\ncurrent-context: embedded\n\
         clusters:\n- name: embedded\n  cluster:\n    server: http://{address}\n\
         contexts:\n- name: embedded\n  context:\n    cluster: embedded\n    user: embedded\n    namespace: default\n\
         users:\n- name: embedded\n  user: {{}}\n"
    )
}

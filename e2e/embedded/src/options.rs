//! What a cluster is started with.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// The local program that stands for a container image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSpec {
    /// The executable, an absolute path.
    pub program: PathBuf,
    /// Its arguments where the container gives none.
    pub args: Vec<String>,
}

impl ImageSpec {
    /// An image whose entry point is `program`, without arguments.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), args: Vec::new() }
    }
}

/// How a cluster is set up. `Options::default()` is a cluster without nodes and images.
#[derive(Clone, Debug)]
pub struct Options {
    /// Images by the name that containers use.
    pub images: BTreeMap<String, ImageSpec>,
    /// Nodes that join at the start.
    pub nodes: Vec<String>,
    /// In which directory the cluster makes one of its own for pods' volumes, logs and the kubeconfig, which is removed at
    /// the end; the system's temporary one by default.
    pub directory: Option<PathBuf>,
    /// Leaves its directory behind, for looking at logs; the next cluster with the same share of addresses removes it.
    pub keep_directory: bool,
    /// How many events of each resource a watch may be behind.
    pub event_window: usize,
    /// How many requests the audit log keeps.
    pub audit_window: usize,
    /// How many pods a node takes; at most 254, the addresses that a node has.
    pub pods_per_node: usize,
    /// How often a kubelet renews its Lease.
    pub lease_period: Duration,
    /// A node whose Lease was not renewed for this long is not ready (real clusters: 40 s).
    pub node_grace: Duration,
    /// Pods of a deleted node are removed after this long (real clusters: 40 s).
    pub orphan_grace: Duration,
    /// A second crash of a container waits this long before its restart, doubled for each further one.
    pub back_off: Duration,
    /// The longest wait before a restart.
    pub back_off_limit: Duration,
    /// A container that ran this long is restarted at once again.
    pub back_off_reset: Duration,
    /// Two containers start at a time in the whole cluster, and the next ones this long after them.
    pub start_pause: Duration,
    /// Factor on the delays and periods of probes; below 1 pods become ready sooner than in a real cluster.
    pub probe_pace: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            images: BTreeMap::new(),
            nodes: Vec::new(),
            directory: None,
            keep_directory: false,
            event_window: 20_000,
            audit_window: 100_000,
            pods_per_node: 110,
            lease_period: Duration::from_secs(2),
            node_grace: Duration::from_secs(8),
            orphan_grace: Duration::from_secs(5),
            back_off: Duration::from_secs(10),
            back_off_limit: Duration::from_secs(300),
            back_off_reset: Duration::from_secs(600),
            start_pause: Duration::from_millis(20),
            probe_pace: 1.0,
        }
    }
}

impl Options {
    /// Nodes `node-1` to `node-<count>`.
    pub fn with_nodes(mut self, count: usize) -> Self {
        self.nodes = (1..=count).map(|n| format!("node-{n}")).collect();
        self
    }

    /// One more image.
    pub fn with_image(mut self, name: &str, image: ImageSpec) -> Self {
        self.images.insert(name.to_owned(), image);
        self
    }
}

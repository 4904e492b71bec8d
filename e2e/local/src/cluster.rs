//! The handle that tests and commands hold.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::cleanup;
use crate::client;
use crate::command::{create_dir, progress, remove_dir, write_file};
use crate::control_plane;
use crate::error::{Error, Result, file_error};
use crate::host;
use crate::image;
use crate::layout::Layout;
use crate::machine::{Machine, State};
use crate::node;
use crate::ownership::Ownership;
use crate::plan::check_name;
use crate::slots;
use crate::tools::{Tool, Tools};

/// How a cluster is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// Prefix of the network namespaces; clusters of different names can run beside each other. Lower-case letters and
    /// digits, at most 30.
    pub name: String,
    /// The directory that holds all of the cluster; it is created, or must be a former cluster's.
    pub dir: PathBuf,
    /// How many nodes to start with, 0 to [`crate::MAX_NODES`].
    pub nodes: u8,
    /// Whether etcd waits for the disk, as in a real cluster. Costs about 3 ms per write.
    pub fsync: bool,
    /// How long a silent node counts as Ready. A node's lease is half of it.
    pub node_monitor_grace: Duration,
    /// Whether missing Debian packages may be installed.
    pub install: bool,
    /// Image files that every node has from the start.
    pub images: Vec<PathBuf>,
}

impl Default for Options {
    /// Three nodes that are NotReady after 8 s of silence, named `phk`, in `.cluster/phk` of this repository.
    fn default() -> Self {
        let name = "phk".to_owned();
        Self {
            dir: default_dir(&name),
            name,
            nodes: 3,
            fsync: false,
            node_monitor_grace: Duration::from_secs(8),
            install: false,
            images: Vec::new(),
        }
    }
}

/// Where the cluster of that name lives unless told otherwise: in this repository, ignored by git.
pub fn default_dir(name: &str) -> PathBuf {
    // The crate is at e2e/local of the repository.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new("/"));
    root.join(".cluster").join(name)
}

/// A running cluster. All methods block; in asynchronous tests they are short enough to be called directly, except
/// [`LocalCluster::up`], [`LocalCluster::join`] and [`LocalCluster::load`], which take seconds.
///
/// The handle that [`LocalCluster::up`] gives owns the cluster and takes it down when it is dropped; what a killed
/// process left is cleaned up by the next `up` of the same name.
#[derive(Debug)]
pub struct LocalCluster {
    machine: Machine,
    ownership: Option<Ownership>,
}

impl LocalCluster {
    /// Starts a cluster and returns when all of its nodes are Ready. Builds Kubernetes first where this machine has
    /// never done so, which takes minutes.
    ///
    /// # Errors
    ///
    /// [`Error::Impossible`] says all that this machine lacks; [`Error::AlreadyRunning`] when a cluster of that name
    /// is up. After any error nothing is left but the logs.
    pub fn up(options: Options) -> Result<Self> {
        check_cluster_name(&options.name)?;
        host::check(options.install)?;
        let tools = Tools::of_user();
        for tool in [Tool::Testcluster, Tool::Kubectl, Tool::Coredns] {
            tools.provide(tool)?;
        }
        let pause = image::pause_image(&tools)?;

        let ownership = Ownership::take(&options.name)?;
        ownership.refuse_detached()?;
        let layout = Layout::new(options.dir.clone());
        prepare_dir(&layout)?;
        cleanup::sweep(&options.name, &layout)?;
        remove_dir(&layout.logs())?;

        let state = State {
            name: options.name.clone(),
            port: control_plane::free_port()?,
            fsync: options.fsync,
            node_monitor_grace_milliseconds: u64::try_from(options.node_monitor_grace.as_millis())
                .unwrap_or(u64::MAX),
        };
        let cluster = Self { machine: Machine { state, layout, tools }, ownership: Some(ownership) };
        cluster.write_state()?;
        create_dir(&cluster.machine.layout.images())?;
        for image in options.images.iter().chain([&pause]) {
            cluster.keep_image(image)?;
        }
        // From here on an error drops the handle, which takes down what was started.
        cluster.start(options.nodes)?;
        Ok(cluster)
    }

    /// A handle for the cluster that runs in `dir`, which it does not own.
    pub fn attach(dir: &Path) -> Result<Self> {
        let layout = Layout::new(dir.to_owned());
        let not_running = || Error::NotRunning(dir.to_owned());
        let path = layout.state();
        let text = fs::read_to_string(&path).map_err(|_| not_running())?;
        let state: State = serde_json::from_str(&text).map_err(|source| Error::State { path, source })?;
        if !control_plane::is_running(&state.name) {
            return Err(not_running());
        }
        Ok(Self { machine: Machine { state, layout, tools: Tools::of_user() }, ownership: None })
    }

    /// Lets the cluster run on when this process ends, until [`take_down`] is called for its directory.
    pub fn detach(mut self) -> Result<()> {
        if let Some(ownership) = &self.ownership {
            ownership.detach(self.machine.layout.dir())?;
        }
        self.ownership = None;
        Ok(())
    }

    /// Takes the cluster down. As dropping the handle does, but tells of failure, and also without owning it.
    pub fn down(mut self) -> Result<()> {
        let _until_all_is_gone = self.ownership.take();
        cleanup::sweep(&self.machine.state.name, &self.machine.layout)
    }

    /// Adds a node, named `node<n>` where no name is given, and returns its name when it is Ready. It has all images
    /// that were loaded before.
    pub fn join(&self, name: Option<&str>) -> Result<String> {
        let slot = node::create(&self.machine, name)?;
        node::await_ready(&self.machine, std::slice::from_ref(&slot))?;
        Ok(slot.node)
    }

    /// A machine loses its power and never comes back: everything on it is killed at one instant and its disk is gone.
    /// Nobody is told; its Node object stays, as in a real cluster.
    pub fn leave(&self, node: &str) -> Result<()> {
        node::destroy(&self.machine, node)
    }

    /// A machine loses its power, and keeps its disk for [`LocalCluster::power_on`]: all that runs on it is killed at
    /// one instant, and its address falls silent.
    pub fn power_off(&self, node: &str) -> Result<()> {
        node::switch_off(&self.machine, node)
    }

    /// Starts a machine that was powered off, with what was on its disk. Returns when its programs run; the node is
    /// Ready some seconds later.
    pub fn power_on(&self, node: &str) -> Result<()> {
        node::switch_on(&self.machine, node)
    }

    /// Pulls a node's network cable: it runs on and reaches nobody.
    pub fn cut(&self, node: &str) -> Result<()> {
        node::plug(&self.machine, node, false)
    }

    /// Puts the cable back.
    pub fn heal(&self, node: &str) -> Result<()> {
        node::plug(&self.machine, node, true)
    }

    /// The names of the present nodes, cut off ones included, in the order in which they joined.
    pub fn nodes(&self) -> Vec<String> {
        slots::present(&self.machine.layout).into_iter().map(|slot| slot.node).collect()
    }

    /// Loads an image file, as [`crate::build_image`] writes it, into all nodes and all that will join. A file of the
    /// same name replaces an earlier one.
    pub fn load(&self, image: &Path) -> Result<()> {
        node::import(&self.machine, &self.keep_image(image)?)
    }

    /// A kubeconfig for the cluster's administrator that works from the host.
    pub fn kubeconfig(&self) -> PathBuf {
        self.machine.layout.kubeconfig(crate::machine::ADMIN)
    }

    /// kubectl of the cluster's own version, as administrator.
    pub fn kubectl(&self) -> Result<Command> {
        self.machine.kubectl()
    }

    /// helm, as administrator. Builds it when first asked for.
    pub fn helm(&self) -> Result<Command> {
        let mut command = Command::new(self.machine.tools.provide(Tool::Helm)?);
        command.env("KUBECONFIG", self.kubeconfig());
        Ok(command)
    }

    /// A command that runs a program of the host where load clients belong: on the cluster's network, reaching pods,
    /// Services and the cluster's DNS names, untouched by the loss of any node. The process is the program's own: its
    /// id, signals and end are.
    pub fn client_command(&self, program: impl AsRef<OsStr>) -> Command {
        client::command(&self.machine, program.as_ref())
    }

    /// A command that runs a program of the host in the network of a node.
    pub fn node_command(&self, node: &str, program: impl AsRef<OsStr>) -> Result<Command> {
        slots::find(&self.machine.layout, node)?;
        Ok(self.machine.namespace(node).command(program))
    }

    /// A command that runs a program of the host in the network of the control plane.
    pub fn control_plane_command(&self, program: impl AsRef<OsStr>) -> Command {
        self.machine.control_plane().command(program)
    }

    /// Kills the API server. Nodes and pods run on; kubectl and all controllers meet refused connections.
    pub fn stop_apiserver(&self) -> Result<()> {
        control_plane::stop_apiserver(&self.machine)
    }

    /// Starts the API server again and returns when it is ready.
    pub fn start_apiserver(&self) -> Result<()> {
        control_plane::start_apiserver(&self.machine)
    }

    /// The API server's audit log: one JSON object per line for each write of pods, Services, EndpointSlices, Leases,
    /// events and everything in `processhub.io`, without bodies.
    pub fn audit_log(&self) -> PathBuf {
        self.machine.layout.audit_log()
    }

    /// Where the logs of all parts are. They outlive the cluster, until the next one starts in the same directory.
    pub fn logs(&self) -> PathBuf {
        self.machine.layout.logs()
    }

    fn start(&self, nodes: u8) -> Result<()> {
        progress(&format!("starting in {}", self.machine.layout.dir().display()));
        control_plane::start(&self.machine)?;
        let numbers: Vec<u8> = (0..nodes).collect();
        let machine = &self.machine;
        thread::scope(|scope| {
            let client = scope.spawn(|| client::start(machine));
            let nodes = node::in_parallel(&numbers, |_| node::create(machine, None).map(drop));
            let client = client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            nodes.and(client)
        })?;
        node::await_ready(machine, &slots::present(&machine.layout))
    }

    fn write_state(&self) -> Result<()> {
        let path = self.machine.layout.state();
        let text = serde_json::to_string(&self.machine.state)
            .map_err(|source| Error::State { path: path.clone(), source })?;
        write_file(&path, &text)
    }

    fn keep_image(&self, image: &Path) -> Result<PathBuf> {
        let mut kept = self.machine.layout.images();
        kept.push(image.file_stem().unwrap_or(OsStr::new("image")));
        kept.add_extension("tar");
        // Under another name first: a node that joins meanwhile must not read half a file.
        let unfinished = kept.with_added_extension("unfinished");
        fs::copy(image, &unfinished).map_err(file_error("copy", image))?;
        fs::rename(&unfinished, &kept).map_err(file_error("rename", &unfinished))?;
        Ok(kept)
    }
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        if self.ownership.is_none() {
            return;
        }
        if let Err(error) = cleanup::sweep(&self.machine.state.name, &self.machine.layout) {
            progress(&format!("not all could be taken down: {error}"));
        }
    }
}

/// Takes down whatever cluster is, or was, in `dir`; that there is none is fine. `name` is its name if the directory
/// does not tell.
///
/// # Errors
///
/// [`Error::AlreadyRunning`] when a living process owns the cluster: it is that process's to end.
pub fn take_down(name: &str, dir: &Path) -> Result<()> {
    let layout = Layout::new(dir.to_owned());
    let known = fs::read_to_string(layout.state()).ok();
    let state: Option<State> = known.and_then(|text| serde_json::from_str(&text).ok());
    let name = state.as_ref().map_or(name, |state| &state.name);
    check_cluster_name(name)?;
    let _until_all_is_gone = Ownership::take(name)?;
    cleanup::sweep(name, &layout)
}

/// Builds all programs that clusters need, helm included, so that nothing later waits for it.
pub fn build_tools(install: bool) -> Result<()> {
    host::check(install)?;
    let tools = Tools::of_user();
    for tool in [Tool::Testcluster, Tool::Kubectl, Tool::Coredns, Tool::Helm] {
        tools.provide(tool)?;
    }
    image::pause_image(&tools).map(drop)
}

/// A cluster's name separates its namespaces from others by the hyphen that follows it, so it has none itself.
fn check_cluster_name(name: &str) -> Result<()> {
    check_name("name", name)?;
    if name.contains('-') {
        let rule = "use lower-case letters and digits only";
        return Err(Error::Invalid { field: "name", value: name.to_owned(), rule });
    }
    Ok(())
}

fn prepare_dir(layout: &Layout) -> Result<()> {
    create_dir(layout.dir())?;
    let entries = fs::read_dir(layout.dir()).map_err(file_error("list", layout.dir()))?;
    let is_empty = entries.count() == 0;
    // Logs are what a cluster leaves behind.
    if is_empty || layout.state().exists() || layout.logs().exists() {
        return Ok(());
    }
    Err(Error::ForeignDirectory(layout.dir().to_owned()))
}

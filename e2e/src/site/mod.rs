//! A cluster with the system installed, and what can be done to it.

mod api;
mod audit;
mod crew;
mod embedded;
mod existing;
mod kind;
mod local;
mod machine;
mod operator;
mod processes;

pub use audit::{Mark, Write};
pub use kind::SiteKind;
pub use operator::OperatorPod;
pub use rustix::process::{Pid, Signal};

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use http::HeaderValue;
use http::header;
use k8s_openapi::api::core::v1::Node;
use kube::api::DeleteParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use tokio::task::spawn_blocking;

use crate::artifacts::{Binaries, COUNTER_IMAGE, Images};
use crew::Crew;
use embedded::Embedded;
use existing::Existing;
use local::Local;

/// Namespace of the operators.
pub const SYSTEM: &str = "processhub-system";
/// Name of the sidecar's container in the pods of processes.
pub const SIDECAR: &str = "processhub-sidecar";
/// The program of the clients.
const CLIENTS: &str = "processhub-load";
/// How the test is known in audit logs.
const USER_AGENT: &str = "processhub-e2e";

/// A cluster with the system installed. Its end takes away everything that was started for it.
pub struct Site {
    client: Client,
    crew: Arc<Mutex<Option<Arc<Crew>>>>,
    ground: Arc<Ground>,
    /// Nodes that it was started with.
    founders: Arc<BTreeSet<String>>,
    /// Namespaces that were created for trials through this handle.
    trials: Mutex<BTreeSet<String>>,
}

enum Ground {
    Embedded(Box<Embedded>),
    Local(Local),
    Existing(Existing),
}

impl Site {
    /// Starts a cluster of `nodes` nodes and installs the system with two operators. Of a cluster that exists already
    /// the nodes are as they are, and [`Site::connect`] says which images it has to pull.
    ///
    /// # Errors
    /// When the cluster or the operator does not come up.
    pub async fn start(kind: SiteKind, nodes: u8) -> Result<Self> {
        match kind {
            SiteKind::Embedded | SiteKind::Local => {
                let binaries = spawn_blocking(Binaries::build).await??;
                Self::start_with(kind, nodes, binaries).await
            }
            SiteKind::Kubeconfig => Self::connect(Images::default()).await,
        }
    }

    /// [`Site::start`] with these binaries.
    ///
    /// # Errors
    /// As there, and for a cluster that exists already: it runs images.
    pub async fn start_with(kind: SiteKind, nodes: u8, binaries: Binaries) -> Result<Self> {
        let (ground, kubeconfig) = match kind {
            SiteKind::Embedded => {
                let embedded = Embedded::start(binaries, nodes).await?;
                let kubeconfig = embedded.kubeconfig();
                (Ground::Embedded(Box::new(embedded)), kubeconfig)
            }
            SiteKind::Local => {
                let local = Local::start(binaries, nodes).await?;
                let kubeconfig = local.kubeconfig();
                (Ground::Local(local), kubeconfig)
            }
            SiteKind::Kubeconfig => return not_ours(),
        };
        let kubeconfig = Kubeconfig::read_from(kubeconfig).context("read the cluster's kubeconfig")?;
        let mut site = Self::of(client(kubeconfig).await?, ground);
        if let Ground::Embedded(embedded) = &*site.ground {
            embedded::install(&site.client).await?;
            let (recipe, logs) = (embedded.recipe()?, embedded.operator_logs());
            let crew = Crew::start(&operator::NAMES, recipe, embedded.register(), &logs);
            site.set_crew(Some(Arc::new(crew)));
        }
        site.ready().await?;
        site.founders = Arc::new(site.nodes().await?.into_iter().collect());
        for node in &*site.founders {
            site.node_ready(node).await?;
        }
        Ok(site)
    }

    /// The cluster that KUBECONFIG names. The system is installed there unless an operator leads already; what was
    /// installed is taken away again by [`Site::stop`].
    ///
    /// # Errors
    /// When the cluster cannot be reached, or the operator does not come up.
    pub async fn connect(images: Images) -> Result<Self> {
        let kubeconfig = Kubeconfig::read()
            .context("no cluster: set KUBECONFIG to the file that names one, or write ~/.kube/config")?;
        let client = client(kubeconfig).await?;
        let existing = Existing::connect(&client, images).await?;
        let site = Self::of(client, Ground::Existing(existing));
        if site.owns_operators()
            && let Err(error) = site.ready().await
        {
            // What was installed is in the way of the next try.
            let _ = site.stop().await;
            return Err(error);
        }
        Ok(site)
    }

    fn of(client: Client, ground: Ground) -> Self {
        let (crew, founders, trials) = (Arc::default(), Arc::default(), Mutex::default());
        Self { client, crew, ground: Arc::new(ground), founders, trials }
    }

    /// Another handle of the same cluster, with trials of its own. A cluster ends with [`Site::stop`] of the last one.
    #[must_use]
    pub fn beside(&self) -> Self {
        Self {
            client: self.client.clone(),
            crew: Arc::clone(&self.crew),
            ground: Arc::clone(&self.ground),
            founders: Arc::clone(&self.founders),
            trials: Mutex::default(),
        }
    }

    /// Which kind it is.
    #[must_use]
    pub fn kind(&self) -> SiteKind {
        match &*self.ground {
            Ground::Embedded(_) => SiteKind::Embedded,
            Ground::Local(_) => SiteKind::Local,
            Ground::Existing(_) => SiteKind::Kubeconfig,
        }
    }

    /// Whether the operators were installed for this site, so that they may be killed.
    #[must_use]
    pub fn owns_operators(&self) -> bool {
        match &*self.ground {
            Ground::Embedded(_) | Ground::Local(_) => true,
            Ground::Existing(existing) => existing.installed(),
        }
    }

    /// A client with all rights.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The beginning of a kubectl command line that reaches it from this machine.
    #[must_use]
    pub fn kubectl(&self) -> String {
        let kubeconfig = match &*self.ground {
            Ground::Embedded(embedded) => embedded.kubeconfig(),
            Ground::Local(local) => local.kubeconfig(),
            Ground::Existing(_) => return "kubectl".to_owned(),
        };
        format!("kubectl --kubeconfig {}", kubeconfig.display())
    }

    /// Where the logs are, of a cluster of this machine; those of the embedded cluster outlive it only after
    /// [`Site::keep_logs`].
    #[must_use]
    pub fn logs(&self) -> Option<PathBuf> {
        match &*self.ground {
            Ground::Embedded(embedded) => Some(embedded.logs()),
            Ground::Local(local) => Some(local.logs()),
            Ground::Existing(_) => None,
        }
    }

    /// Lets the logs outlive the site.
    pub fn keep_logs(&self) {
        match &*self.ground {
            Ground::Embedded(embedded) => embedded.keep_logs(),
            Ground::Local(_) | Ground::Existing(_) => {}
        }
    }

    /// A program of this checkout, as it runs in the cluster.
    ///
    /// # Errors
    /// When the cluster runs images from elsewhere.
    pub fn program(&self, name: &str) -> Result<PathBuf> {
        match &*self.ground {
            Ground::Embedded(embedded) => Ok(embedded.binaries().path(name)),
            Ground::Local(local) => Ok(local.binaries().path(name)),
            Ground::Existing(_) => not_ours(),
        }
    }

    /// Image of the example worker.
    #[must_use]
    pub fn worker_image(&self) -> &str {
        match &*self.ground {
            Ground::Embedded(_) | Ground::Local(_) => COUNTER_IMAGE,
            Ground::Existing(existing) => &existing.images().worker_image,
        }
    }

    /// The command that starts the clients' process where Services can be reached, for a trial in this namespace.
    #[must_use]
    pub fn load_command(&self, namespace: &str) -> Command {
        match &*self.ground {
            Ground::Embedded(embedded) => Command::new(embedded.binaries().path(CLIENTS)),
            Ground::Local(local) => local.client_command(&local.binaries().path(CLIENTS)),
            Ground::Existing(existing) => existing.clients(namespace, format!("/{CLIENTS}")),
        }
    }

    /// The command that starts further clients on a node, where that node's pods can be reached whatever becomes of its
    /// cable; `run` is in their names.
    ///
    /// # Errors
    /// When nodes have no network of their own.
    pub fn load_command_on(&self, node: &str, run: &str) -> Result<Command> {
        match &*self.ground {
            Ground::Local(local) => local.load_command_on(node, run),
            Ground::Embedded(_) | Ground::Existing(_) => not_ours(),
        }
    }

    /// A node joins; its name.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn join(&self) -> Result<String> {
        let node = match &*self.ground {
            Ground::Embedded(embedded) => embedded.join()?,
            Ground::Local(local) => local.join().await?,
            Ground::Existing(_) => return not_ours(),
        };
        self.node_ready(&node).await?;
        Ok(node)
    }

    /// A node loses its power: nothing on it is told.
    ///
    /// # Errors
    /// When it cannot be ended.
    pub async fn lose(&self, node: &str) -> Result<()> {
        match &*self.ground {
            Ground::Embedded(embedded) => embedded.lose(node).await,
            Ground::Local(local) => local.lose(node).await,
            Ground::Existing(_) => not_ours(),
        }
    }

    /// Cuts a node's power, or gives it back: all that ran on it is gone at one instant, its disk is not.
    ///
    /// # Errors
    /// When nodes have no power of their own.
    pub async fn power(&self, node: &str, on: bool) -> Result<()> {
        match &*self.ground {
            Ground::Local(local) => local.power(node, on).await,
            Ground::Embedded(_) | Ground::Existing(_) => not_ours(),
        }
    }

    /// Pulls a node's network cable, or puts it back. It runs on and reaches nobody; on the embedded cluster its
    /// kubelet alone reaches nobody.
    ///
    /// # Errors
    /// When there is no such node.
    pub async fn plug(&self, node: &str, plugged: bool) -> Result<()> {
        match &*self.ground {
            Ground::Embedded(embedded) => embedded.plug(node, plugged),
            Ground::Local(local) => local.plug(node, plugged).await,
            Ground::Existing(_) => not_ours(),
        }
    }

    /// Ends the API server, or starts it again with all its objects. Nodes and pods go on.
    ///
    /// # Errors
    /// When it cannot be ended or does not come up.
    pub async fn serve_api(&self, up: bool) -> Result<()> {
        match &*self.ground {
            Ground::Embedded(embedded) => embedded.serve_api(up).await,
            Ground::Local(local) => local.serve_api(up).await,
            Ground::Existing(_) => not_ours(),
        }
    }

    /// Takes a node out of the cluster in order: drained, switched off, its Node object deleted.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn remove(&self, node: &str) -> Result<()> {
        self.drain(node).await?;
        self.lose(node).await?;
        let nodes: Api<Node> = Api::all(self.client());
        nodes.delete(node, &DeleteParams::default()).await?;
        Ok(())
    }

    /// A place in the record of writes.
    ///
    /// # Errors
    /// When the record is not this site's to read.
    pub fn mark(&self) -> Result<Mark> {
        match &*self.ground {
            Ground::Embedded(embedded) => Ok(embedded.mark()),
            Ground::Local(local) => Ok(local.mark()),
            Ground::Existing(_) => not_ours(),
        }
    }

    /// The accepted writes since then, in order.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn writes_since(&self, mark: Mark) -> Result<Vec<Write>> {
        match &*self.ground {
            Ground::Embedded(embedded) => Ok(embedded.writes_since(mark)),
            Ground::Local(local) => local.writes_since(mark),
            Ground::Existing(_) => not_ours(),
        }
    }

    /// Ends the cluster, or takes away what was created and installed on one that existed before.
    ///
    /// # Errors
    /// When something of it stays behind.
    pub async fn stop(self) -> Result<()> {
        if self.kind() == SiteKind::Kubeconfig {
            self.tidy_own().await?;
        }
        drop(self.crew);
        let ground = Arc::into_inner(self.ground).context("the cluster is still in use")?;
        match ground {
            Ground::Embedded(embedded) => embedded.stop().await,
            Ground::Local(local) => local.stop().await,
            Ground::Existing(existing) => existing.stop(&self.client).await,
        }
    }

    fn crew(&self) -> Option<Arc<Crew>> {
        self.crew.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_crew(&self, crew: Option<Arc<Crew>>) {
        *self.crew.lock().unwrap_or_else(PoisonError::into_inner) = crew;
    }
}

/// The arguments of an operator that runs as a child process.
fn operator_arguments(metrics_port: u16) -> Vec<String> {
    vec![
        "run".to_owned(),
        format!("--sidecar-image={}", crate::artifacts::SIDECAR_IMAGE),
        format!("--lease-namespace={SYSTEM}"),
        format!("--metrics-address=127.0.0.1:{metrics_port}"),
    ]
}

fn not_ours<T>() -> Result<T> {
    bail!("machines, programs and logs of the cluster that KUBECONFIG names are somebody else's")
}

async fn client(kubeconfig: Kubeconfig) -> Result<Client> {
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    // A test wants to see every refusal.
    config.default_retry = false;
    config.headers.push((header::USER_AGENT, HeaderValue::from_static(USER_AGENT)));
    Ok(Client::try_from(config)?)
}

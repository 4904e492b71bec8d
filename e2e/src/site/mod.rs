//! A cluster with the system installed, and what can be done to it.

mod api;
mod audit;
mod crew;
mod embedded;
mod local;
mod operator;

pub use api::TRIAL;
pub use audit::{Mark, Write};
pub use operator::OperatorPod;
pub use rustix::process::Signal;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use http::HeaderValue;
use http::header;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::DeleteParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};

use crate::artifacts::Binaries;
use crew::Crew;
use embedded::Embedded;
use local::Local;

/// Namespace of the operators.
pub const SYSTEM: &str = "processhub-system";
/// How the test is known in audit logs.
const USER_AGENT: &str = "processhub-e2e";

/// Which kind of cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum SiteKind {
    /// In memory, pods as local processes: needs nothing but Rust.
    Embedded,
    /// Real Kubernetes on this machine: needs Linux and root.
    Local,
}

/// A cluster with the system installed. Its end takes everything down.
pub struct Site {
    client: Client,
    binaries: Binaries,
    crew: Mutex<Option<Arc<Crew>>>,
    ground: Ground,
    /// Nodes that it was started with.
    founders: BTreeSet<String>,
}

enum Ground {
    Embedded(Box<Embedded>),
    Local(Local),
}

impl Site {
    /// Starts a cluster of `nodes` nodes and installs the system with two operators.
    ///
    /// # Errors
    /// When the cluster or the operator does not come up.
    pub async fn start(kind: SiteKind, nodes: u8) -> Result<Self> {
        let binaries = tokio::task::spawn_blocking(Binaries::build).await??;
        let (ground, kubeconfig) = match kind {
            SiteKind::Embedded => {
                let embedded = Embedded::start(&binaries, nodes).await?;
                let kubeconfig = embedded.kubeconfig();
                (Ground::Embedded(Box::new(embedded)), kubeconfig)
            }
            SiteKind::Local => {
                let local = Local::start(&binaries, nodes).await?;
                let kubeconfig = local.kubeconfig();
                (Ground::Local(local), kubeconfig)
            }
        };
        let client = client(&kubeconfig).await?;
        let mut site = Self { client, binaries, crew: Mutex::default(), ground, founders: BTreeSet::new() };
        if let Ground::Embedded(embedded) = &site.ground {
            embedded::install(&site.client).await?;
            let (recipe, logs) = (embedded.recipe(&site.binaries)?, embedded.operator_logs());
            let crew = Crew::start(&operator::NAMES, recipe, embedded.register(), &logs);
            site.set_crew(Some(Arc::new(crew)));
        }
        site.ready().await?;
        site.founders = site.nodes().await?.into_iter().collect();
        for node in &site.founders {
            site.node_ready(node).await?;
        }
        Ok(site)
    }

    /// Which kind it is.
    #[must_use]
    pub fn kind(&self) -> SiteKind {
        match &self.ground {
            Ground::Embedded(_) => SiteKind::Embedded,
            Ground::Local(_) => SiteKind::Local,
        }
    }

    /// A client with all rights.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// A kubeconfig with all rights, usable while the site is up.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        match &self.ground {
            Ground::Embedded(embedded) => embedded.kubeconfig(),
            Ground::Local(local) => local.kubeconfig(),
        }
    }

    /// Where the logs are; those of the embedded cluster outlive it only after [`Site::keep_logs`].
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        match &self.ground {
            Ground::Embedded(embedded) => embedded.logs(),
            Ground::Local(local) => local.logs(),
        }
    }

    /// Lets the logs outlive the site.
    pub fn keep_logs(&self) {
        match &self.ground {
            Ground::Embedded(embedded) => embedded.keep_logs(),
            Ground::Local(_) => {}
        }
    }

    /// The binaries that run in it.
    #[must_use]
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// The command that starts the clients' process where Services can be reached.
    #[must_use]
    pub fn load_command(&self) -> Command {
        let program = self.binaries.path("processhub-load");
        match &self.ground {
            Ground::Embedded(_) => Command::new(program),
            Ground::Local(local) => local.client_command(&program),
        }
    }

    /// A node joins; its name.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn join(&self) -> Result<String> {
        let node = match &self.ground {
            Ground::Embedded(embedded) => embedded.join()?,
            Ground::Local(local) => local.join().await?,
        };
        self.node_ready(&node).await?;
        Ok(node)
    }

    /// A node loses its power: nothing on it is told.
    ///
    /// # Errors
    /// When it cannot be ended.
    pub async fn lose(&self, node: &str) -> Result<()> {
        match &self.ground {
            Ground::Embedded(embedded) => embedded.lose(node).await,
            Ground::Local(local) => local.lose(node).await,
        }
    }

    /// Pulls a node's network cable, or puts it back. It runs on and reaches nobody; on the embedded cluster its
    /// kubelet alone reaches nobody.
    ///
    /// # Errors
    /// When there is no such node.
    pub async fn plug(&self, node: &str, plugged: bool) -> Result<()> {
        match &self.ground {
            Ground::Embedded(embedded) => embedded.plug(node, plugged),
            Ground::Local(local) => local.plug(node, plugged).await,
        }
    }

    /// Ends the API server, or starts it again with all its objects. Nodes and pods go on.
    ///
    /// # Errors
    /// When it cannot be ended or does not come up.
    pub async fn serve_api(&self, up: bool) -> Result<()> {
        match &self.ground {
            Ground::Embedded(embedded) => embedded.serve_api(up).await,
            Ground::Local(local) => local.serve_api(up).await,
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

    /// Sends a signal to every process of a container of a pod.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn signal(&self, namespace: &str, pod: &str, container: &str, signal: Signal) -> Result<()> {
        match &self.ground {
            Ground::Embedded(embedded) => embedded.signal(namespace, pod, container, signal),
            Ground::Local(_) => {
                let pods: Api<Pod> = Api::namespaced(self.client(), namespace);
                let status = pods.get(pod).await?.status.unwrap_or_default();
                let statuses = [status.init_container_statuses, status.container_statuses];
                let id = statuses
                    .into_iter()
                    .flatten()
                    .flatten()
                    .find(|status| status.name == container)
                    .and_then(|status| status.container_id)
                    .with_context(|| format!("{container} of {pod} does not run"))?;
                let id = id.rsplit('/').next().unwrap_or_default().to_owned();
                tokio::task::spawn_blocking(move || local::signal_container(&id, signal)).await?
            }
        }
    }

    /// A place in the record of writes.
    pub fn mark(&self) -> Mark {
        match &self.ground {
            Ground::Embedded(embedded) => embedded.mark(),
            Ground::Local(local) => local.mark(),
        }
    }

    /// The accepted writes since then, in order.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn writes_since(&self, mark: Mark) -> Result<Vec<Write>> {
        match &self.ground {
            Ground::Embedded(embedded) => Ok(embedded.writes_since(mark)),
            Ground::Local(local) => local.writes_since(mark),
        }
    }

    /// Ends the cluster.
    ///
    /// # Errors
    /// When something of it stays behind.
    pub async fn stop(self) -> Result<()> {
        drop(self.crew);
        match self.ground {
            Ground::Embedded(embedded) => embedded.stop().await,
            Ground::Local(local) => local.stop().await,
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

async fn client(kubeconfig: &Path) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).context("read the cluster's kubeconfig")?;
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    // A test wants to see every refusal.
    config.default_retry = false;
    config.headers.push((header::USER_AGENT, HeaderValue::from_static(USER_AGENT)));
    Ok(Client::try_from(config)?)
}

//! A cluster with the system installed, and what can be done to it.

mod api;
mod local;
mod operator;

pub use operator::OperatorPod;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::artifacts::Binaries;
use local::Local;

/// Namespace of the operators.
pub const SYSTEM: &str = "processhub-system";

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
    ground: Ground,
}

enum Ground {
    Local(Local),
}

impl Site {
    /// Starts a cluster of `nodes` nodes and installs the system with two operators.
    ///
    /// # Errors
    /// When the cluster or the operator does not come up.
    pub async fn start(kind: SiteKind, nodes: u8) -> Result<Self> {
        let binaries = tokio::task::spawn_blocking(Binaries::build).await??;
        match kind {
            SiteKind::Embedded => anyhow::bail!("the embedded cluster is not there yet"),
            SiteKind::Local => {
                let local = Local::start(&binaries, nodes).await?;
                let client = client(&local.kubeconfig()).await?;
                let site = Self { client, binaries, ground: Ground::Local(local) };
                site.ready().await?;
                Ok(site)
            }
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
            Ground::Local(local) => local.kubeconfig(),
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
            Ground::Local(local) => local.client_command(&program),
        }
    }

    /// A node joins; its name.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn join(&self) -> Result<String> {
        let node = match &self.ground {
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
            Ground::Local(local) => local.lose(node).await,
        }
    }

    /// Takes a node out of the cluster in order: drained, switched off, its Node object deleted.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn remove(&self, node: &str) -> Result<()> {
        self.drain(node).await?;
        self.lose(node).await?;
        let nodes: kube::Api<k8s_openapi::api::core::v1::Node> = kube::Api::all(self.client());
        nodes.delete(node, &kube::api::DeleteParams::default()).await?;
        Ok(())
    }

    /// Kills one operator's process as `kill -9` does; it comes back by itself.
    ///
    /// # Errors
    /// When there is no such process.
    pub async fn kill_operator(&self, operator: &OperatorPod) -> Result<()> {
        match &self.ground {
            Ground::Local(local) => local.signal_container(operator.name(), "KILL").await,
        }
    }

    /// Ends the cluster.
    ///
    /// # Errors
    /// When something of it stays behind.
    pub async fn stop(self) -> Result<()> {
        match self.ground {
            Ground::Local(local) => local.stop().await,
        }
    }
}

async fn client(kubeconfig: &Path) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).context("read the cluster's kubeconfig")?;
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    // A test wants to see every refusal.
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}

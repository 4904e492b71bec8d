//! The system on a real Kubernetes on this machine, installed by its chart.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use processhub_local_cluster::{LocalCluster, Options, default_dir};
use tokio::task::spawn_blocking;

use super::SYSTEM;
use super::audit::{Mark, Write, read_log};
use super::crew::Recipe;
use crate::artifacts::{Binaries, OPERATOR_IMAGE, SIDECAR_IMAGE};

/// Names the cluster, so that several can run beside each other. Lower-case letters and digits.
const NAME: &str = "PROCESSHUB_CLUSTER_NAME";
/// Where the API server is for programs on the cluster's network.
const INSIDE: &str = "https://10.96.0.1:443";

/// A local cluster; its calls block, so each has a thread of its own.
pub(super) struct Local {
    cluster: Arc<LocalCluster>,
    binaries: Binaries,
}

impl Local {
    pub(super) async fn start(binaries: Binaries, nodes: u8) -> Result<Self> {
        spawn_blocking(move || {
            let images = binaries.images()?;
            println!("starting Kubernetes with {nodes} nodes");
            let mut options = Options { nodes, images, install: true, ..Options::default() };
            if let Ok(name) = std::env::var(NAME) {
                options = Options { dir: default_dir(&name), name, ..options };
            }
            let cluster = LocalCluster::up(options)?;
            install(&cluster, binaries.root())?;
            Ok(Self { cluster: Arc::new(cluster), binaries })
        })
        .await?
    }

    pub(super) fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.cluster.kubeconfig()
    }

    pub(super) fn logs(&self) -> PathBuf {
        self.cluster.logs()
    }

    pub(super) fn client_command(&self, program: &Path) -> Command {
        self.cluster.client_command(program)
    }

    pub(super) fn load_command_on(&self, node: &str, run: &str) -> Result<Command> {
        let mut command = self.cluster.node_command(node, self.binaries.path(super::CLIENTS))?;
        command.args(["--run", run]);
        Ok(command)
    }

    /// How an operator of this checkout is run beside the cluster, on its network, with the administrator's rights.
    pub(super) fn recipe(&self) -> Result<Recipe> {
        let text = std::fs::read_to_string(self.kubeconfig()).context("read the kubeconfig")?;
        let mut config: serde_json::Value = serde_json::from_str(&text).context("the kubeconfig")?;
        config["clusters"][0]["cluster"]["server"] = INSIDE.into();
        let path = self.cluster.logs().join("inside.kubeconfig");
        std::fs::write(&path, config.to_string()).with_context(|| format!("write {}", path.display()))?;
        let (cluster, program) = (Arc::downgrade(&self.cluster), self.binaries.path("processhub-operator"));
        Ok(Box::new(move |name| {
            // Without a cluster there is nothing to operate; the program says so and ends.
            let mut command = cluster
                .upgrade()
                .map_or_else(|| Command::new(&program), |cluster| cluster.client_command(&program));
            let port = 19_715 + u16::from(name.ends_with('1'));
            command.args(super::operator_arguments(port)).env("KUBECONFIG", &path);
            command
        }))
    }

    pub(super) async fn join(&self) -> Result<String> {
        self.blocking(|cluster| cluster.join(None)).await
    }

    pub(super) async fn lose(&self, node: &str) -> Result<()> {
        let node = node.to_owned();
        self.blocking(move |cluster| cluster.leave(&node)).await
    }

    pub(super) async fn power(&self, node: &str, on: bool) -> Result<()> {
        let node = node.to_owned();
        self.blocking(move |cluster| if on { cluster.power_on(&node) } else { cluster.power_off(&node) })
            .await
    }

    pub(super) async fn plug(&self, node: &str, plugged: bool) -> Result<()> {
        let node = node.to_owned();
        self.blocking(move |cluster| if plugged { cluster.heal(&node) } else { cluster.cut(&node) }).await
    }

    pub(super) async fn serve_api(&self, up: bool) -> Result<()> {
        self.blocking(move |cluster| if up { cluster.start_apiserver() } else { cluster.stop_apiserver() })
            .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&LocalCluster) -> processhub_local_cluster::Result<T> + Send + 'static,
    ) -> Result<T> {
        let cluster = Arc::clone(&self.cluster);
        Ok(spawn_blocking(move || work(&cluster)).await??)
    }

    pub(super) fn mark(&self) -> Mark {
        Mark(std::fs::metadata(self.cluster.audit_log()).map_or(0, |file| file.len()))
    }

    pub(super) fn writes_since(&self, mark: Mark) -> Result<Vec<Write>> {
        read_log(&self.cluster.audit_log(), mark)
    }

    pub(super) async fn stop(self) -> Result<()> {
        spawn_blocking(move || match Arc::into_inner(self.cluster) {
            Some(cluster) => Ok(cluster.down()?),
            None => bail!("the cluster is still in use"),
        })
        .await?
    }
}

/// Installs the chart and waits until its operators are ready.
fn install(cluster: &LocalCluster, root: &Path) -> Result<()> {
    println!("installing the chart");
    let output = cluster
        .helm()?
        .args(["upgrade", "--install", "processhub"])
        .arg(root.join("charts").join("processhub"))
        .args(["--namespace", SYSTEM, "--create-namespace", "--wait", "--timeout", "120s"])
        .args(["--set", &format!("operator.image={OPERATOR_IMAGE},sidecar.image={SIDECAR_IMAGE}")])
        .output()
        .context("run helm")?;
    if !output.status.success() {
        bail!("helm install failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

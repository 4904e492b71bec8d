//! The system on a real Kubernetes on this machine, installed by its chart.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use processhub_local_cluster::{LocalCluster, Options};
use tokio::task::spawn_blocking;

use super::SYSTEM;
use crate::artifacts::{Binaries, OPERATOR_IMAGE, SIDECAR_IMAGE};

/// A local cluster; its calls block, so each has a thread of its own.
pub(super) struct Local(Arc<LocalCluster>);

impl Local {
    pub(super) async fn start(binaries: &Binaries, nodes: u8) -> Result<Self> {
        let binaries = binaries.clone();
        spawn_blocking(move || {
            let images = binaries.images()?;
            println!("starting Kubernetes with {nodes} nodes");
            let cluster = LocalCluster::up(Options { nodes, images, install: true, ..Options::default() })?;
            install(&cluster, binaries.root())?;
            Ok(Self(Arc::new(cluster)))
        })
        .await?
    }

    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.0.kubeconfig()
    }

    pub(super) fn client_command(&self, program: &Path) -> Command {
        self.0.client_command(program)
    }

    pub(super) async fn join(&self) -> Result<String> {
        let cluster = Arc::clone(&self.0);
        Ok(spawn_blocking(move || cluster.join(None)).await??)
    }

    pub(super) async fn lose(&self, node: &str) -> Result<()> {
        let (cluster, node) = (Arc::clone(&self.0), node.to_owned());
        Ok(spawn_blocking(move || cluster.leave(&node)).await??)
    }

    /// Sends a signal to the main process of the operator's container in the pod of that name. The machine sees the
    /// processes of all nodes; the pod's name stands in its environment.
    pub(super) async fn signal_container(&self, pod: &str, signal: &str) -> Result<()> {
        let (wanted, signal) = (format!("POD_NAME={pod}"), signal.to_owned());
        spawn_blocking(move || {
            let pids = processes_with_environment(&wanted)?;
            if pids.is_empty() {
                bail!("no process has {wanted}");
            }
            for pid in pids {
                Command::new("kill").arg(format!("-{signal}")).arg(pid.to_string()).status()?;
            }
            Ok(())
        })
        .await?
    }

    pub(super) async fn stop(self) -> Result<()> {
        spawn_blocking(move || match Arc::into_inner(self.0) {
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

fn processes_with_environment(wanted: &str) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let path = entry?.path();
        let Some(pid) = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // A process that ended meanwhile has no environment any more.
        let Ok(environment) = std::fs::read(path.join("environ")) else {
            continue;
        };
        if environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes()) {
            found.push(pid);
        }
    }
    Ok(found)
}

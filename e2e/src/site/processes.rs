//! The processes of containers, as this machine knows them, and signals to them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::task::spawn_blocking;

use super::{Ground, Site, machine, not_ours};
use crate::wait::{Seen, until};

/// How long a kubelet may take to say that a container runs.
const SAID: Duration = Duration::from_secs(20);

impl Site {
    /// Sends a signal to every process of a container of a pod.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn signal(&self, namespace: &str, pod: &str, container: &str, signal: Signal) -> Result<()> {
        if let Ground::Embedded(embedded) = &*self.ground {
            return Ok(kill_process_group(embedded.group(namespace, pod, container)?, signal)?);
        }
        for pid in self.processes(namespace, pod, container).await? {
            match kill_process(pid, signal) {
                // It has ended meanwhile.
                Ok(()) | Err(Errno::SRCH) => {}
                Err(error) => return Err(error).context(format!("signal {container} of {pod}")),
            }
        }
        Ok(())
    }

    /// Sends a signal to what the first process of a container has started, and not to that process.
    ///
    /// # Errors
    /// When the container does not run, or has one process only.
    pub async fn signal_children(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        signal: Signal,
    ) -> Result<()> {
        let all = self.processes(namespace, pod, container).await?;
        let children = spawn_blocking(move || machine::children_among(&all)).await?;
        ensure!(!children.is_empty(), "{container} of {pod} has one process only");
        for pid in children {
            kill_process(pid, signal).with_context(|| format!("signal {container} of {pod}"))?;
        }
        Ok(())
    }

    /// The processes of a container of a pod, as this machine knows them; at least one.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn processes(&self, namespace: &str, pod: &str, container: &str) -> Result<Vec<Pid>> {
        match &*self.ground {
            Ground::Embedded(embedded) => {
                let group = embedded.group(namespace, pod, container)?;
                let found = spawn_blocking(move || machine::of_group(group)).await??;
                ensure!(!found.is_empty(), "{container} of {pod} has no process");
                Ok(found)
            }
            // A kubelet says a second or two late which container it has started.
            Ground::Local(_) => {
                until(&format!("{container} of {pod} to run"), SAID, async || {
                    let found = self.contained(namespace, pod, container).await?;
                    Ok(if found.is_empty() {
                        Seen::NotYet("no process".to_owned())
                    } else {
                        Seen::Yes(found)
                    })
                })
                .await
            }
            Ground::Existing(_) => not_ours(),
        }
    }

    /// The processes of a container, as far as its kubelet has said which it is.
    async fn contained(&self, namespace: &str, pod: &str, container: &str) -> Result<Vec<Pid>> {
        let pods: Api<Pod> = Api::namespaced(self.client(), namespace);
        let status = pods.get(pod).await?.status.unwrap_or_default();
        let statuses = [status.init_container_statuses, status.container_statuses];
        let mut statuses = statuses.into_iter().flatten().flatten();
        let id = statuses.find(|status| status.name == container).and_then(|status| status.container_id);
        let Some(id) = id else { return Ok(Vec::new()) };
        let id = id.rsplit('/').next().unwrap_or_default().to_owned();
        spawn_blocking(move || machine::of_container(&id)).await?
    }
}

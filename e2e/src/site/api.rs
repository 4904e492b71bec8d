//! What a person does to nodes with kubectl, through the API alone, so that it needs no kubectl.

use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::api::{DeleteParams, EvictParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use processhub_crds::{HubProcess, ProcessHub};

use super::Site;
use crate::wait::{Seen, until};

/// Label of the namespaces of trials.
pub const TRIAL: &str = "processhub-e2e/trial";

impl Site {
    /// Names of the nodes, in order.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn nodes(&self) -> Result<Vec<String>> {
        let nodes: Api<Node> = Api::all(self.client());
        let mut names: Vec<_> =
            nodes.list(&ListParams::default()).await?.iter().map(ResourceExt::name_any).collect();
        names.sort();
        Ok(names)
    }

    pub(super) async fn node_ready(&self, node: &str) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.client());
        until(&format!("node {node} to take pods"), Duration::from_secs(60), async || {
            let found = nodes.get(node).await?;
            // A node that has just become Ready keeps its taint for a moment longer, and takes nothing.
            let taints = found.spec.and_then(|spec| spec.taints).unwrap_or_default();
            let ready = found
                .status
                .and_then(|status| status.conditions)
                .unwrap_or_default()
                .into_iter()
                .any(|condition| condition.type_ == "Ready" && condition.status == "True");
            Ok(if ready && taints.is_empty() {
                Seen::Yes(())
            } else {
                Seen::NotYet(format!("Ready: {ready}, taints: {taints:?}"))
            })
        })
        .await
    }

    /// Cordons the node, or lifts it.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn cordon(&self, node: &str, cordoned: bool) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.client());
        let patch = Patch::Merge(serde_json::json!({"spec": {"unschedulable": cordoned}}));
        nodes.patch(node, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Drains the node as `kubectl drain` does: cordon, evict every pod, wait until they are gone.
    ///
    /// # Errors
    /// When a pod is still there after five minutes.
    pub async fn drain(&self, node: &str) -> Result<()> {
        self.cordon(node, true).await?;
        let here = ListParams::default().fields(&format!("spec.nodeName={node}"));
        let pods: Api<Pod> = Api::all(self.client());
        until(&format!("node {node} to be empty"), Duration::from_secs(300), async || {
            let left = pods.list(&here).await?.items;
            for pod in left.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
                let api: Api<Pod> = Api::namespaced(self.client(), &pod.namespace().unwrap_or_default());
                match api.evict(&pod.name_any(), &EvictParams::default()).await {
                    Ok(_) => {}
                    // Gone meanwhile, or a budget says later: the next look tells.
                    Err(kube::Error::Api(status)) if matches!(status.code, 404 | 429) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(if left.is_empty() {
                Seen::Yes(())
            } else {
                Seen::NotYet(left.iter().map(ResourceExt::name_any).collect::<Vec<_>>().join(", "))
            })
        })
        .await
    }

    /// Deletes a pod.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn delete_pod(&self, namespace: &str, pod: &str, grace: Option<u32>) -> Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.client(), namespace);
        let parameters = DeleteParams { grace_period_seconds: grace, ..DeleteParams::default() };
        pods.delete(pod, &parameters).await?;
        Ok(())
    }

    /// Leaves the cluster as it was found: no namespace of a trial, every founder schedulable, no other node.
    ///
    /// # Errors
    /// When something cannot be taken away within a minute.
    pub async fn tidy(&self) -> Result<()> {
        self.delete_trials().await?;
        for node in self.nodes().await? {
            if self.founders.contains(&node) {
                self.plug(&node, true).await?;
                self.cordon(&node, false).await?;
                self.node_ready(&node).await?;
            } else {
                // It may have lost its power already.
                let _ = self.lose(&node).await;
                let nodes: Api<Node> = Api::all(self.client());
                nodes.delete(&node, &DeleteParams::default()).await?;
            }
        }
        Ok(())
    }

    async fn delete_trials(&self) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client());
        let trials = ListParams::default().labels(TRIAL);
        for namespace in namespaces.list(&trials).await? {
            let name = namespace.name_any();
            let hubs: Api<ProcessHub> = Api::namespaced(self.client(), &name);
            for hub in hubs.list(&ListParams::default()).await? {
                gone(hubs.delete(&hub.name_any(), &DeleteParams::default()).await.map(drop))?;
            }
            let processes: Api<HubProcess> = Api::namespaced(self.client(), &name);
            for process in processes.list(&ListParams::default()).await? {
                gone(processes.delete(&process.name_any(), &DeleteParams::default()).await.map(drop))?;
            }
            let pods: Api<Pod> = Api::namespaced(self.client(), &name);
            until(&format!("the pods of {name} to go"), Duration::from_secs(60), async || {
                let left = pods.list(&ListParams::default()).await?.items;
                Ok(if left.is_empty() {
                    Seen::Yes(())
                } else {
                    Seen::NotYet(left.iter().map(ResourceExt::name_any).collect::<Vec<_>>().join(", "))
                })
            })
            .await?;
            gone(namespaces.delete(&name, &DeleteParams::default()).await.map(drop))?;
            // The same name may be wanted again at once.
            until(&format!("namespace {name} to go"), Duration::from_secs(60), async || {
                Ok(match namespaces.get_opt(&name).await? {
                    None => Seen::Yes(()),
                    Some(_) => Seen::NotYet("it is being terminated".into()),
                })
            })
            .await?;
        }
        Ok(())
    }
}

/// That it was gone before is as good.
fn gone(answer: kube::Result<()>) -> Result<()> {
    match answer {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        answer => Ok(answer?),
    }
}

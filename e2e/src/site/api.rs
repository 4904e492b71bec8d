//! What a person does to nodes with kubectl, through the API alone, so that it needs no kubectl.

use std::sync::PoisonError;
use std::time::Duration;

use anyhow::{Result, bail};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::api::{DeleteParams, EvictParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use processhub_crds::{HubProcess, ProcessHub};
use serde_json::json;

use super::Site;
use crate::wait::{Seen, until};

/// Label of the namespaces of trials.
const TRIAL: &str = "processhub-e2e/trial";

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

    /// Names of the nodes that are Ready, not cordoned, and without a taint that keeps pods away, in order.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn fit_nodes(&self) -> Result<Vec<String>> {
        let nodes: Api<Node> = Api::all(self.client());
        let nodes = nodes.list(&ListParams::default()).await?;
        let mut names: Vec<_> = nodes.iter().filter(|node| is_fit(node)).map(ResourceExt::name_any).collect();
        names.sort();
        Ok(names)
    }

    pub(crate) async fn node_ready(&self, node: &str) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.client());
        until(&format!("node {node} to take pods"), Duration::from_secs(60), async || {
            // A node that has just become Ready keeps its taint for a moment longer, and takes nothing.
            Ok(if is_fit(&nodes.get(node).await?) {
                Seen::Yes(())
            } else {
                Seen::NotYet("not Ready, cordoned or tainted".into())
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
        let patch = Patch::Merge(json!({"spec": {"unschedulable": cordoned}}));
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
                self.evict(&pod.namespace().unwrap_or_default(), &pod.name_any()).await?;
            }
            Ok(if left.is_empty() {
                Seen::Yes(())
            } else {
                Seen::NotYet(left.iter().map(ResourceExt::name_any).collect::<Vec<_>>().join(", "))
            })
        })
        .await
    }

    /// Asks for the eviction of a pod. That it is gone, or that a budget says later, is no error: the next look tells.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn evict(&self, namespace: &str, pod: &str) -> Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.client(), namespace);
        match pods.evict(pod, &EvictParams::default()).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 429) => Ok(()),
            Err(error) => Err(error.into()),
        }
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

    /// Takes away the trials that were begun through this handle.
    ///
    /// # Errors
    /// When something cannot be taken away within a minute.
    pub async fn tidy_own(&self) -> Result<()> {
        let trials = std::mem::take(&mut *self.trials.lock().unwrap_or_else(PoisonError::into_inner));
        for trial in trials {
            self.delete_trial(&trial).await?;
        }
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

    /// Creates the namespace of a trial.
    ///
    /// # Errors
    /// When the API server refuses, or it exists on a cluster that is somebody else's.
    pub async fn create_trial(&self, name: &str) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client());
        let namespace = serde_json::from_value(json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": name,
                "labels": {"pod-security.kubernetes.io/enforce": "restricted", TRIAL: "true"},
            },
        }))?;
        match namespaces.create(&PostParams::default(), &namespace).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 409 && self.kind().owns_nodes() => {}
            Err(kube::Error::Api(status)) if status.code == 409 => bail!(
                "namespace {name} exists. If it is left over from a demonstration: kubectl delete namespace {name}"
            ),
            Err(error) => return Err(error.into()),
        }
        self.trials.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
        Ok(())
    }

    async fn delete_trials(&self) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client());
        let trials = ListParams::default().labels(TRIAL);
        for namespace in namespaces.list(&trials).await? {
            self.delete_trial(&namespace.name_any()).await?;
        }
        Ok(())
    }

    /// Takes a trial's objects and its namespace away.
    async fn delete_trial(&self, name: &str) -> Result<()> {
        let hubs: Api<ProcessHub> = Api::namespaced(self.client(), name);
        for hub in hubs.list(&ListParams::default()).await? {
            gone(hubs.delete(&hub.name_any(), &DeleteParams::default()).await.map(drop))?;
        }
        let processes: Api<HubProcess> = Api::namespaced(self.client(), name);
        for process in processes.list(&ListParams::default()).await? {
            gone(processes.delete(&process.name_any(), &DeleteParams::default()).await.map(drop))?;
        }
        let pods: Api<Pod> = Api::namespaced(self.client(), name);
        until(&format!("the pods of {name} to go"), Duration::from_secs(60), async || {
            let left = pods.list(&ListParams::default()).await?.items;
            Ok(if left.is_empty() {
                Seen::Yes(())
            } else {
                Seen::NotYet(left.iter().map(ResourceExt::name_any).collect::<Vec<_>>().join(", "))
            })
        })
        .await?;
        delete_namespace(&self.client, name).await
    }
}

/// Deletes a namespace and waits until it is gone: the same name may be wanted again at once.
pub(super) async fn delete_namespace(client: &Client, name: &str) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    gone(namespaces.delete(name, &DeleteParams::default()).await.map(drop))?;
    until(&format!("namespace {name} to go"), Duration::from_secs(60), async || {
        Ok(match namespaces.get_opt(name).await? {
            None => Seen::Yes(()),
            Some(_) => Seen::NotYet("it is being terminated".into()),
        })
    })
    .await
}

/// That it was gone before is as good.
fn gone(answer: kube::Result<()>) -> Result<()> {
    match answer {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        answer => Ok(answer?),
    }
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|found| found.type_ == "Ready" && found.status == "True")
}

fn is_fit(node: &Node) -> bool {
    let spec = node.spec.clone().unwrap_or_default();
    let keeps_away = |effect: &str| matches!(effect, "NoSchedule" | "NoExecute");
    let tainted = spec.taints.iter().flatten().any(|taint| keeps_away(&taint.effect));
    is_ready(node) && spec.unschedulable != Some(true) && !tainted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_for_the_control_plane_alone_is_not_fit() {
        let node = |spec: serde_json::Value, ready: &str| -> Node {
            let conditions = json!([{"type": "Ready", "status": ready}]);
            serde_json::from_value(json!({"spec": spec, "status": {"conditions": conditions}})).unwrap()
        };
        let taint = |effect: &str| json!({"taints": [{"key": "node-role.kubernetes.io/control-plane", "effect": effect}]});
        assert!(is_fit(&node(json!({}), "True")));
        assert!(is_fit(&node(taint("PreferNoSchedule"), "True")));
        assert!(!is_fit(&node(taint("NoSchedule"), "True")));
        assert!(!is_fit(&node(json!({"unschedulable": true}), "True")));
        assert!(!is_fit(&node(json!({}), "Unknown")));
    }
}

//! The API server through kubectl, where the machine has it.

use crate::support::{client, container, definition, options, pod, pod_until, ready};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use processhub_embedded_cluster::EmbeddedCluster;
use std::path::Path;
use std::process::Stdio;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// kubectl with the cluster's kubeconfig and a discovery cache of its own.
struct Kubectl<'a> {
    cluster: &'a EmbeddedCluster,
    cache: tempfile::TempDir,
}

impl<'a> Kubectl<'a> {
    /// `None`, with a word about it, where there is no kubectl.
    fn of(cluster: &'a EmbeddedCluster) -> Option<Self> {
        let found = std::env::var_os("PATH").is_some_and(|path| {
            std::env::split_paths(&path).any(|dir| Path::new(&dir).join("kubectl").exists())
        });
        if !found {
            eprintln!("skipped: there is no kubectl on this machine");
            return None;
        }
        Some(Self { cluster, cache: tempfile::tempdir().unwrap() })
    }

    async fn run(&self, arguments: &str, input: &str) -> (bool, String) {
        let mut child = Command::new("kubectl")
            .args(arguments.split_whitespace())
            .env("KUBECONFIG", self.cluster.kubeconfig())
            .env("KUBECACHEDIR", self.cache.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
        let output = child.wait_with_output().await.unwrap();
        let text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), text)
    }

    async fn ok(&self, arguments: &str, input: &str) -> String {
        let (success, text) = self.run(arguments, input).await;
        assert!(success, "kubectl {arguments}: {text}");
        text
    }
}

#[tokio::test]
async fn get_describe_apply_scale_label_and_delete() {
    let cluster = EmbeddedCluster::start(options(0)).await.unwrap();
    let Some(kubectl) = Kubectl::of(&cluster) else { return };
    kubectl.ok("apply -f -", &definition().to_string()).await;
    let thing =
        |spec: &str| format!("apiVersion: x.io/v1\nkind: Thing\nmetadata: {{name: a}}\nspec: {spec}\n");
    assert!(kubectl.ok("apply -f -", &thing("{hub: h}")).await.contains("created"));
    assert!(kubectl.ok("apply -f -", &thing("{hub: h}")).await.contains("unchanged"));
    let (success, refused) = kubectl.run("apply -f -", &thing("{hub: h, hup: h}")).await;
    assert!(!success && refused.contains("unknown field \"spec.hup\""), "{refused}");
    kubectl.ok("scale thing/a --replicas=3", "").await;
    assert_eq!(kubectl.ok("get th a -o jsonpath={.spec.replicas}", "").await, "3");
    let table = kubectl.ok("get th", "").await;
    let words: Vec<&str> = table.split_whitespace().collect();
    assert_eq!(words, ["NAME", "HUB", "a", "h"]);
    kubectl.ok("label thing a x=y", "").await;
    kubectl.ok("annotate thing a processhub.io/paused=true", "").await;
    assert!(kubectl.ok("describe thing a", "").await.contains("processhub.io/paused"));
    kubectl.ok("apply --server-side -f -", &thing("{hub: h}")).await;
    kubectl.ok("create namespace other", "").await;
    kubectl.ok("create configmap m --from-literal=a=b", "").await;
    assert_eq!(kubectl.ok("get cm m -o jsonpath={.data.a}", "").await, "b");
    kubectl.ok("delete thing a", "").await;
    let (success, text) = kubectl.run("get thing a", "").await;
    assert!(!success && text.contains("NotFound"), "{text}");
    drop(kubectl);
    cluster.shutdown().await;
}

#[tokio::test]
async fn cordon_drain_and_logs() {
    let cluster = EmbeddedCluster::start(options(2)).await.unwrap();
    let Some(kubectl) = Kubectl::of(&cluster) else { return };
    let pods: Api<Pod> = Api::namespaced(client(&cluster).await, "default");
    let mut one = pod("one", vec![], vec![container("main", 8080, &[])]);
    one["spec"]["nodeName"] = "node-1".into();
    one["apiVersion"] = "v1".into();
    one["kind"] = "Pod".into();
    kubectl.ok("apply -f -", &one.to_string()).await;
    pod_until(&pods, "one", "becomes ready", ready).await;
    let wide = kubectl.ok("get pods -o wide", "").await;
    assert!(wide.contains("1/1") && wide.contains("Running") && wide.contains("node-1"), "{wide}");
    assert!(kubectl.ok("describe pod one", "").await.contains("node-1"));
    kubectl.ok("logs one", "").await;
    kubectl.ok("drain node-1 --ignore-daemonsets --delete-emptydir-data --force", "").await;
    crate::support::gone(&pods, "one").await;
    assert!(kubectl.ok("get nodes", "").await.contains("Ready,SchedulingDisabled"));
    assert!(kubectl.ok("describe node node-1", "").await.contains("Unschedulable:      true"));
    kubectl.ok("uncordon node-1", "").await;
    assert!(!kubectl.ok("get nodes", "").await.contains("SchedulingDisabled"));
    drop(kubectl);
    cluster.shutdown().await;
}

//! Nodes that join, lose their power, are cut off and are deleted.

use crate::support::{client, container, create, eventually, gone, options, pod, pod_until, ready};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::DeleteParams;
use kube::{Api, Client};
use processhub_embedded_cluster::EmbeddedCluster;
use rustix::process::{Pid, test_kill_process};
use serde_json::{Value, json};

async fn node_is(client: &Client, name: &str, status: &str) {
    let nodes: Api<Node> = Api::all(client.clone());
    eventually(&format!("node {name} is {status}"), || async {
        let node = serde_json::to_value(nodes.get_opt(name).await.unwrap()?).unwrap();
        let conditions = node["status"]["conditions"].as_array()?;
        conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == status).then_some(())
    })
    .await;
}

fn on(node: &str, name: &str) -> Value {
    let mut pod = pod(name, vec![], vec![container("worker", 8080, &[])]);
    pod["spec"]["affinity"] = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
        {"nodeSelectorTerms": [{"matchFields":
            [{"key": "metadata.name", "operator": "In", "values": [node]}]}]}}});
    pod
}

#[tokio::test]
async fn a_node_that_loses_its_power_takes_its_processes_along_and_may_come_back() {
    let cluster = EmbeddedCluster::start(options(1)).await.unwrap();
    let client = client(&cluster).await;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    cluster.join_node("late").unwrap();
    create::<Pod>(&client, on("late", "a")).await;
    pod_until(&pods, "a", "becomes ready", ready).await;
    let pid = Pid::from_raw(cluster.pid("default", "a", "worker").unwrap()).unwrap();
    cluster.kill_node("late").await.unwrap();
    eventually("the process dies", || async { test_kill_process(pid).err() }).await;
    node_is(&client, "late", "Unknown").await;
    pod_until(&pods, "a", "is not ready", |p| !ready(p)).await;
    cluster.join_node("late").unwrap();
    node_is(&client, "late", "True").await;
    let back = pod_until(&pods, "a", "is ready again", ready).await;
    assert_eq!(back.pointer("/status/containerStatuses/0/restartCount"), Some(&json!(1)));
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_cut_off_node_runs_its_pods_until_it_hears_that_they_are_gone() {
    let cluster = EmbeddedCluster::start(options(1)).await.unwrap();
    let client = client(&cluster).await;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    create::<Pod>(&client, on("node-1", "a")).await;
    pod_until(&pods, "a", "becomes ready", ready).await;
    let pid = Pid::from_raw(cluster.pid("default", "a", "worker").unwrap()).unwrap();
    cluster.cut_node("node-1").unwrap();
    node_is(&client, "node-1", "Unknown").await;
    pods.delete("a", &DeleteParams::default().grace_period(0)).await.unwrap();
    gone(&pods, "a").await;
    assert!(test_kill_process(pid).is_ok(), "the process runs as long as its kubelet does not know");
    cluster.heal_node("node-1").unwrap();
    eventually("the process ends", || async { test_kill_process(pid).err() }).await;
    node_is(&client, "node-1", "True").await;
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_deleted_node_loses_its_pods() {
    let cluster = EmbeddedCluster::start(options(1)).await.unwrap();
    let client = client(&cluster).await;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    create::<Pod>(&client, on("node-1", "a")).await;
    pod_until(&pods, "a", "becomes ready", ready).await;
    let nodes: Api<Node> = Api::all(client.clone());
    nodes.delete("node-1", &DeleteParams::default()).await.unwrap();
    gone(&pods, "a").await;
    cluster.shutdown().await;
}

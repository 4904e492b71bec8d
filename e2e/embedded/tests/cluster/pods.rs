//! Pods as processes.

use crate::support::{
    client, client_of, container, create, eventually, gone, journal, options, pod, pod_until, ready,
};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use processhub_embedded_cluster::EmbeddedCluster;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

fn lines(path: &std::path::Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn restarts(pod: &Value) -> i64 {
    pod.pointer("/status/containerStatuses/0/restartCount").and_then(Value::as_i64).unwrap_or_default()
}

async fn get(address: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.split("\r\n\r\n").nth(1).unwrap_or_default().to_owned())
}

#[tokio::test]
async fn the_end_of_a_pod_is_hook_then_worker_then_sidecar() {
    let cluster = EmbeddedCluster::start(options(1)).await.unwrap();
    let client = client(&cluster).await;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let mut sidecar = container("sidecar", 8081, &["--hook=300", "--linger=100"]);
    sidecar["restartPolicy"] = "Always".into();
    sidecar["startupProbe"] = json!({"httpGet": {"port": "main"}, "periodSeconds": 1});
    let mut worker = container("worker", 8080, &[]);
    worker["lifecycle"] = json!({"preStop": {"httpGet": {"port": 8081, "path": "/hook"}}});
    create::<Pod>(&client, pod("a", vec![sidecar], vec![worker])).await;
    let running = pod_until(&pods, "a", "becomes ready", ready).await;
    let path = journal(&cluster, &running);
    assert_eq!(lines(&path), ["sidecar start", "worker start"]);
    // The volume goes with the pod: a second name for the same file keeps what is written to it.
    let kept = cluster.directory().join("kept");
    fs::hard_link(&path, &kept).unwrap();
    pods.delete("a", &DeleteParams::default()).await.unwrap();
    gone(&pods, "a").await;
    assert_eq!(
        lines(&kept)[2..],
        ["hook begin", "hook end", "worker term", "worker exit", "sidecar term", "sidecar exit"]
    );
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_crashed_container_starts_again_with_its_volume_and_then_backs_off() {
    let cluster = EmbeddedCluster::start(options(1)).await.unwrap();
    let client = client(&cluster).await;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    create::<Pod>(&client, pod("a", vec![], vec![container("worker", 8080, &[])])).await;
    let running = pod_until(&pods, "a", "becomes ready", ready).await;
    let crash = || {
        let pid = cluster.pid("default", "a", "worker").unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    };
    crash();
    let again = pod_until(&pods, "a", "is restarted", |p| restarts(p) == 1 && ready(p)).await;
    assert_eq!(again.pointer("/status/containerStatuses/0/lastState/terminated/exitCode"), Some(&json!(137)));
    assert_eq!(again.pointer("/status/podIP"), running.pointer("/status/podIP"));
    assert_eq!(lines(&journal(&cluster, &again)), ["worker start", "worker start"]);
    crash();
    let waiting = pod_until(&pods, "a", "backs off", |p| !ready(p) && restarts(p) == 1).await;
    assert_eq!(
        waiting.pointer("/status/containerStatuses/0/state/waiting/reason"),
        Some(&json!("CrashLoopBackOff"))
    );
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_failed_liveness_probe_restarts_and_a_failed_readiness_probe_does_not() {
    let cluster = EmbeddedCluster::start(options(1)).await.unwrap();
    let client = client(&cluster).await;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let mut worker = container("worker", 8080, &[]);
    create::<Pod>(&client, pod("unready", vec![], vec![worker.clone()])).await;
    worker["livenessProbe"] = json!({"httpGet": {"port": 8080, "path": "/healthy"}, "periodSeconds": 1});
    create::<Pod>(&client, pod("unhealthy", vec![], vec![worker])).await;
    for name in ["unready", "unhealthy"] {
        let running = pod_until(&pods, name, "becomes ready", ready).await;
        let ip = running["status"]["podIP"].as_str().unwrap();
        get(&format!("{ip}:8080"), "/sicken").await.unwrap();
    }
    pod_until(&pods, "unhealthy", "is restarted", |p| restarts(p) == 1 && ready(p)).await;
    let unready = pod_until(&pods, "unready", "becomes unready", |p| !ready(p)).await;
    assert_eq!(restarts(&unready), 0);
    cluster.shutdown().await;
}

#[tokio::test]
async fn an_image_changed_in_place_restarts_only_its_container() {
    let one = options(1);
    let image = one.images["pod"].clone();
    let cluster = EmbeddedCluster::start(one.with_image("pod:2", image)).await.unwrap();
    let client = client(&cluster).await;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let both = vec![container("worker", 8080, &[]), container("other", 8081, &[])];
    create::<Pod>(&client, pod("a", vec![], both)).await;
    pod_until(&pods, "a", "becomes ready", ready).await;
    let other = cluster.pid("default", "a", "other");
    let patch = Patch::Strategic(json!({"spec": {"containers": [{"name": "worker", "image": "pod:2"}]}}));
    pods.patch("a", &PatchParams::default(), &patch).await.unwrap();
    let changed = pod_until(&pods, "a", "runs the new image", |p| restarts(p) == 1 && ready(p)).await;
    assert_eq!(changed.pointer("/status/containerStatuses/0/image"), Some(&json!("pod:2")));
    assert_eq!(cluster.pid("default", "a", "other"), other);
    cluster.shutdown().await;
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let cluster = EmbeddedCluster::start(options(1)).await.unwrap();
    let client = client(&cluster).await;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let mut no_image = container("worker", 8080, &[]);
    no_image["image"] = "nowhere".into();
    create::<Pod>(&client, pod("image", vec![], vec![no_image])).await;
    let mut no_secret = container("worker", 8080, &[]);
    no_secret["env"] = json!([{"name": "A", "valueFrom": {"secretKeyRef": {"name": "none", "key": "k"}}}]);
    create::<Pod>(&client, pod("secret", vec![], vec![no_secret])).await;
    let mut nowhere = pod("node", vec![], vec![container("worker", 8080, &[])]);
    nowhere["spec"]["nodeSelector"] = json!({"zone": "none"});
    create::<Pod>(&client, nowhere).await;
    let reason = |p: &Value| p.pointer("/status/containerStatuses/0/state/waiting/reason").cloned();
    pod_until(&pods, "image", "has no image", |p| reason(p) == Some(json!("ErrImagePull"))).await;
    pod_until(&pods, "secret", "has no secret", |p| reason(p) == Some(json!("CreateContainerConfigError")))
        .await;
    let pending = pod_until(&pods, "node", "has no node", |p| {
        p.pointer("/status/conditions/0/reason") == Some(&json!("Unschedulable"))
    })
    .await;
    assert!(
        pending.pointer("/status/conditions/0/message").unwrap().as_str().unwrap().starts_with("0/1 nodes")
    );
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_service_routes_to_ready_pods_and_refuses_without_them() {
    let cluster = EmbeddedCluster::start(options(2)).await.unwrap();
    let client = client(&cluster).await;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let service = json!({"metadata": {"name": "s"}, "spec": {"selector": {"app": "a"},
        "ports": [{"port": 80, "targetPort": "main"}]}});
    let service = create::<Service>(&client, service).await;
    let address = format!("{}:80", service.spec.unwrap().cluster_ip.unwrap());
    assert!(TcpStream::connect(&address).await.is_err());
    create::<Pod>(&client, pod("a", vec![], vec![container("worker", 8080, &[])])).await;
    pod_until(&pods, "a", "becomes ready", ready).await;
    let answer = eventually("the service answers", || async { get(&address, "/").await.ok() }).await;
    assert_eq!(answer, "worker a");
    pods.delete("a", &DeleteParams::default()).await.unwrap();
    gone(&pods, "a").await;
    eventually("the service refuses", || async { TcpStream::connect(&address).await.err() }).await;
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_slice_written_by_hand_switches_a_service_and_leaves_connections_alone() {
    let cluster = EmbeddedCluster::start(options(1)).await.unwrap();
    let client = client(&cluster).await;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let mut ips = Vec::new();
    for name in ["a", "b"] {
        create::<Pod>(&client, pod(name, vec![], vec![container("worker", 8080, &[])])).await;
        let running = pod_until(&pods, name, "becomes ready", ready).await;
        ips.push(running["status"]["podIP"].as_str().unwrap().to_owned());
    }
    let service =
        create::<Service>(&client, json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}}))
            .await;
    let address = format!("{}:80", service.spec.unwrap().cluster_ip.unwrap());
    let slices: Api<k8s_openapi::api::discovery::v1::EndpointSlice> =
        Api::namespaced(client.clone(), "default");
    let slice = |ip: &str| {
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "s", "labels": {"kubernetes.io/service-name": "s"}}, "addressType": "IPv4",
            "ports": [{"port": 8080}], "endpoints": [{"addresses": [ip]}]})
    };
    let apply = PatchParams::apply("test");
    slices.patch("s", &apply, &Patch::Apply(slice(&ips[0]))).await.unwrap();
    let mut old =
        eventually("the service listens", || async { TcpStream::connect(&address).await.ok() }).await;
    // The connection is carried to the first pod once it has answered there.
    old.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut buffer = [0_u8; 512];
    assert!(old.read(&mut buffer).await.unwrap() > 0);
    slices.patch("s", &apply, &Patch::Apply(slice(&ips[1]))).await.unwrap();
    eventually("new connections go to the other pod", || async {
        (get(&address, "/").await.ok()? == "worker b").then_some(())
    })
    .await;
    old.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let read = old.read(&mut buffer).await.unwrap();
    assert!(String::from_utf8_lossy(&buffer[..read]).ends_with("worker a"));
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_cluster_that_is_killed_takes_its_pods_along() {
    let mut program = tokio::process::Command::new(env!("CARGO_BIN_EXE_embedded-cluster"))
        .args(["--nodes", "1", "--image"])
        .arg(format!("pod={}", env!("CARGO_BIN_EXE_embedded-pod")))
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut said = BufReader::new(program.stdout.take().unwrap()).lines();
    let line = said.next_line().await.unwrap().unwrap();
    let kubeconfig = PathBuf::from(line.strip_prefix("export KUBECONFIG=").unwrap());
    let client = client_of(&kubeconfig).await;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    create::<Pod>(&client, pod("a", vec![], vec![container("worker", 8080, &[])])).await;
    let running = pod_until(&pods, "a", "becomes ready", ready).await;
    let address = format!("{}:8080", running["status"]["podIP"].as_str().unwrap());
    assert!(TcpStream::connect(&address).await.is_ok());
    program.kill().await.unwrap();
    eventually("the pod dies", || async { TcpStream::connect(&address).await.err() }).await;
    eventually("the files go", || async { (!kubeconfig.exists()).then_some(()) }).await;
}

#[tokio::test]
async fn nothing_is_left_after_the_end_of_a_cluster() {
    let cluster = EmbeddedCluster::start(options(1)).await.unwrap();
    let client = client(&cluster).await;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    create::<Pod>(&client, pod("a", vec![], vec![container("worker", 8080, &["--linger=60000"])])).await;
    pod_until(&pods, "a", "becomes ready", ready).await;
    let pid = Pid::from_raw(cluster.pid("default", "a", "worker").unwrap()).unwrap();
    let directory = cluster.directory().to_owned();
    cluster.shutdown().await;
    eventually("the process ends", || async { test_kill_process(pid).err() }).await;
    eventually("the files go", || async { (!directory.exists()).then_some(()) }).await;
}

//! The harness against a real kernel: what it promises about nodes, names and images, and that nothing of it stays.

// Helpers of tests fail the test that calls them, as the tests themselves do.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fs};

use processhub_local_cluster::{Error, ImageBuild, LocalCluster, Options, build_image, take_down, wanted};
use serde_json::{Value, json};
use tempfile::TempDir;

const NAMESPACE: &str = "echo";
const TAG: &str = "localhost/local-cluster-echo:1";
const PROGRAM: &str = "local-cluster-echo";
const LIMIT: Duration = Duration::from_secs(60);
/// Tells the test program that it is the one to be killed, and where to put its cluster.
const VICTIM_DIR: &str = "LOCAL_CLUSTER_VICTIM_DIR";
const VICTIM: &str = "phvictim";

/// Two clusters at once would be slow, not wrong.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn options(name: &str, dir: &Path, nodes: u8) -> Options {
    Options { name: name.to_owned(), dir: dir.to_owned(), nodes, install: true, ..Options::default() }
}

#[test]
fn nodes_join_vanish_and_come_back_and_leave_nothing() {
    if !wanted("nodes_join_vanish_and_come_back_and_leave_nothing") {
        return;
    }
    let _turn = one_at_a_time();
    let temporary = TempDir::new().unwrap();
    let dir = temporary.path().join("cluster");
    let cluster = LocalCluster::up(options("phtest", &dir, 3)).unwrap();
    assert_eq!(cluster.nodes(), ["node1", "node2", "node3"]);

    second_one_is_refused(&dir);
    cluster.load(&echo_image(temporary.path())).unwrap();
    let first_three = ["node1", "node2", "node3"];
    create_pods(&cluster, &first_three);
    answers_by_name(&cluster);
    a_node_that_joins_has_the_images(&cluster);
    a_cut_node_is_unreachable_until_it_heals(&cluster);
    a_node_keeps_its_disk_when_its_power_fails(&cluster);
    a_node_without_power_is_gone_and_nobody_was_told(&cluster);
    a_machine_that_comes_back_is_a_new_one(&cluster);
    serves_without_its_api_server(&cluster);
    writes_are_in_the_audit_log(&cluster);

    cluster.down().unwrap();
    nothing_is_left("phtest", &dir);
}

fn second_one_is_refused(dir: &Path) {
    let other = dir.with_extension("other");
    let refused = LocalCluster::up(options("phtest", &other, 0)).unwrap_err();
    assert!(matches!(refused, Error::AlreadyRunning { .. }), "{refused}");
    let refused = take_down("phtest", &other).unwrap_err();
    assert!(matches!(refused, Error::AlreadyRunning { .. }), "{refused}");
}

#[test]
fn a_detached_cluster_runs_until_it_is_taken_down() {
    if !wanted("a_detached_cluster_runs_until_it_is_taken_down") {
        return;
    }
    let _turn = one_at_a_time();
    let temporary = TempDir::new().unwrap();
    let dir = temporary.path().join("cluster");
    LocalCluster::up(options("phdetached", &dir, 0)).unwrap().detach().unwrap();

    let refused = LocalCluster::up(options("phdetached", &dir.with_extension("other"), 0)).unwrap_err();
    assert!(refused.to_string().contains(dir.to_str().unwrap()), "{refused}");
    let cluster = LocalCluster::attach(&dir).unwrap();
    assert_eq!(
        thread::scope(|scope| {
            let joins = [scope.spawn(|| cluster.join(None)), scope.spawn(|| cluster.join(Some("b")))];
            joins.map(|join| join.join().unwrap().unwrap()).len()
        }),
        2
    );
    assert_eq!(cluster.nodes().len(), 2);
    drop(cluster);
    assert!(!processes_with("phdetached/apiserver").is_empty(), "a handle that does not own it ended it");

    take_down("phdetached", &dir).unwrap();
    take_down("phdetached", &dir).unwrap();
    nothing_is_left("phdetached", &dir);
    assert!(matches!(LocalCluster::attach(&dir).unwrap_err(), Error::NotRunning(_)));
}

fn answers_by_name(cluster: &LocalCluster) {
    let name = format!("{PROGRAM}.{NAMESPACE}.svc.cluster.local");
    let looked_up = output(cluster.client_command("getent").args(["hosts", &name]));
    assert!(looked_up.starts_with("10.96."), "{looked_up:?}");
    eventually("an answer through the Service", || ask(cluster, &name, 80).is_some());
}

fn a_node_that_joins_has_the_images(cluster: &LocalCluster) {
    let node = cluster.join(None).unwrap();
    assert_eq!(node, "node4");
    create_pods(cluster, &[&node]);
}

fn a_cut_node_is_unreachable_until_it_heals(cluster: &LocalCluster) {
    let address = pod_address(cluster, "node2");
    assert_eq!(ask(cluster, &address, 8080).as_deref(), Some("node2"));
    cluster.cut("node2").unwrap();
    assert_eq!(ask(cluster, &address, 8080), None);
    eventually("NotReady", || !is_ready(cluster, "node2"));
    cluster.heal("node2").unwrap();
    eventually("Ready", || is_ready(cluster, "node2"));
    eventually("an answer", || ask(cluster, &address, 8080).as_deref() == Some("node2"));
}

fn a_node_keeps_its_disk_when_its_power_fails(cluster: &LocalCluster) {
    let address = pod_address(cluster, "node1");
    cluster.power_off("node1").unwrap();
    assert_eq!(ask(cluster, &address, 8080), None);
    assert!(processes_with("node/node1/").is_empty());
    eventually("NotReady", || !is_ready(cluster, "node1"));
    cluster.power_on("node1").unwrap();
    eventually("Ready", || is_ready(cluster, "node1"));
    let is_same_pod_again = || ask(cluster, &pod_address(cluster, "node1"), 8080).as_deref() == Some("node1");
    eventually("an answer of the restarted pod", is_same_pod_again);
}

fn a_node_without_power_is_gone_and_nobody_was_told(cluster: &LocalCluster) {
    let address = pod_address(cluster, "node3");
    assert_eq!(ask(cluster, &address, 8080).as_deref(), Some("node3"));
    cluster.leave("node3").unwrap();
    assert_eq!(ask(cluster, &address, 8080), None);
    assert_eq!(cluster.nodes(), ["node1", "node2", "node4"]);
    let gone = cluster.cut("node3").unwrap_err();
    assert!(matches!(gone, Error::NoSuchNode { .. }), "{gone}");
    assert!(processes_with("node/node3/").is_empty());
    // Its objects stay, as a real machine's would.
    assert!(kubectl(cluster, &["get", "node", "node3", "--output=name"]).contains("node3"));
    eventually("NotReady", || !is_ready(cluster, "node3"));
}

fn a_machine_that_comes_back_is_a_new_one(cluster: &LocalCluster) {
    let before = node_address(cluster, "node3");
    kubectl(cluster, &["delete", "node", "node3"]);
    assert_eq!(cluster.join(Some("node3")).unwrap(), "node3");
    assert_ne!(node_address(cluster, "node3"), before);
}

fn serves_without_its_api_server(cluster: &LocalCluster) {
    let name = format!("{PROGRAM}.{NAMESPACE}.svc.cluster.local");
    cluster.stop_apiserver().unwrap();
    assert!(!cluster.kubectl().unwrap().args(["get", "--raw=/readyz"]).output().unwrap().status.success());
    assert!(ask(cluster, &name, 80).is_some());
    cluster.start_apiserver().unwrap();
    kubectl(cluster, &["get", "nodes"]);
}

fn writes_are_in_the_audit_log(cluster: &LocalCluster) {
    let log = fs::read_to_string(cluster.audit_log()).unwrap();
    let applied = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).any(|entry| {
        entry["verb"] == "patch"
            && entry["objectRef"]["resource"] == "pods"
            && entry["objectRef"]["namespace"] == NAMESPACE
            && entry["user"]["username"] == "admin"
    });
    assert!(applied);
    assert!(!log.contains(r#""verb":"get""#));
}

#[test]
fn what_a_killed_owner_leaves_is_cleaned_up_by_the_next() {
    if !wanted("what_a_killed_owner_leaves_is_cleaned_up_by_the_next") {
        return;
    }
    let _turn = one_at_a_time();
    let temporary = TempDir::new().unwrap();
    let dir = temporary.path().join("cluster");
    let mut victim = start_victim(&dir);
    eventually("the victim's node", || !processes_with("phvictim/node/node1/kubelet").is_empty());
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert!(!processes_with("phvictim/").is_empty(), "the victim took its cluster down");

    let cluster = LocalCluster::up(options(VICTIM, &dir, 0)).unwrap();
    assert_eq!(cluster.nodes(), [""; 0]);
    assert!(processes_with("phvictim/node/").is_empty());
    drop(cluster);
    nothing_is_left(VICTIM, &dir);
}

/// The other half of the test above, in a process of its own; alone it does nothing.
#[test]
fn owner_to_be_killed() {
    let Some(dir) = env::var_os(VICTIM_DIR).map(PathBuf::from) else { return };
    let _cluster = LocalCluster::up(options(VICTIM, &dir, 1)).unwrap();
    thread::sleep(10 * LIMIT);
}

fn start_victim(dir: &Path) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "owner_to_be_killed"])
        .env(VICTIM_DIR, dir)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn echo_image(temporary: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/echo");
    let programs = temporary.join("programs");
    fs::create_dir(&programs).unwrap();
    let mut go = Command::new("go");
    go.args(["build", "-o"]).arg(programs.join(PROGRAM)).arg("main.go");
    output(go.current_dir(&source).env("CGO_ENABLED", "0").env("GO111MODULE", "off"));
    let image = temporary.join("echo.tar");
    let build = ImageBuild {
        dockerfile: source.join("Dockerfile"),
        target: Some("echo".to_owned()),
        context: source,
        named_contexts: vec![("programs".to_owned(), programs)],
        arguments: Vec::new(),
        tag: TAG.to_owned(),
    };
    build_image(&build, &image).unwrap();
    image
}

/// One pod per node under the strictest pod security standard, and a Service for all.
fn create_pods(cluster: &LocalCluster, nodes: &[&str]) {
    let mut items = vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {
            "name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
        }}),
        json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": PROGRAM, "namespace": NAMESPACE},
            "spec": {"selector": {"app": PROGRAM}, "ports": [{"port": 80, "targetPort": 8080}]}}),
    ];
    items.extend(nodes.iter().map(|node| pod(node)));
    let objects = cluster.logs().join("objects.json");
    fs::write(&objects, json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()).unwrap();
    // The pods' ServiceAccount is made a moment after their namespace.
    eventually("the objects", || {
        let mut kubectl = cluster.kubectl().unwrap();
        kubectl.args(["apply", "--server-side", "--filename"]).arg(&objects);
        kubectl.output().unwrap().status.success()
    });
    let mut wait = vec!["wait", "--namespace", NAMESPACE, "--for=condition=Ready", "--timeout=60s"];
    let pods: Vec<_> = nodes.iter().map(|node| format!("pod/{node}")).collect();
    wait.extend(pods.iter().map(String::as_str));
    kubectl(cluster, &wait);
}

fn pod(node: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": node, "namespace": NAMESPACE, "labels": {"app": PROGRAM}},
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": node},
            "terminationGracePeriodSeconds": 0,
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "echo", "image": TAG, "imagePullPolicy": "IfNotPresent",
                "env": [{"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
                "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
                "resources": {"limits": {"cpu": "200m", "memory": "64Mi"}},
                "securityContext": {
                    "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                    "capabilities": {"drop": ["ALL"]},
                },
            }],
        },
    })
}

/// What a fresh connection from the client's machine is answered.
fn ask(cluster: &LocalCluster, host: &str, port: u16) -> Option<String> {
    let mut bash = cluster.client_command("timeout");
    bash.args(["2", "bash", "-c", "exec 3<>/dev/tcp/$0/$1 && head -n 1 <&3", host, &port.to_string()]);
    let output = bash.output().unwrap();
    let answer = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    (output.status.success() && !answer.is_empty()).then_some(answer)
}

fn is_ready(cluster: &LocalCluster, node: &str) -> bool {
    let path = r#"--output=jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
    kubectl(cluster, &["get", "node", node, path]) == "True"
}

fn node_address(cluster: &LocalCluster, node: &str) -> String {
    kubectl(cluster, &["get", "node", node, "--output=jsonpath={.status.addresses[0].address}"])
}

fn pod_address(cluster: &LocalCluster, pod: &str) -> String {
    kubectl(cluster, &["get", "--namespace", NAMESPACE, "pod", pod, "--output=jsonpath={.status.podIP}"])
}

fn kubectl(cluster: &LocalCluster, arguments: &[&str]) -> String {
    output(cluster.kubectl().unwrap().args(arguments))
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < deadline, "no {what} within {LIMIT:?}");
        thread::sleep(Duration::from_millis(100));
    }
}

fn nothing_is_left(cluster: &str, dir: &Path) {
    let prefix = format!("{cluster}-");
    for place in ["/run/netns", "/sys/fs/cgroup", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/unified"] {
        let names = fs::read_dir(place).into_iter().flatten().flatten().map(|entry| entry.file_name());
        let left: Vec<_> = names.filter(|name| name.to_string_lossy().starts_with(&prefix)).collect();
        assert!(left.is_empty(), "{place}: {left:?}");
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(dir.to_str().unwrap()), "{mounts}");
    for trace in [format!("{cluster}/"), dir.to_str().unwrap().to_owned(), PROGRAM.to_owned()] {
        let left = processes_with(&trace);
        assert!(left.is_empty(), "processes with {trace}: {left:?}");
    }
    let files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(files, ["log"]);
}

/// All other processes that have the text in their command line, or as part of the mark in their environment.
fn processes_with(trace: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if name.parse::<u32>().ok().is_none_or(|pid| pid == std::process::id()) {
            continue;
        }
        let read = |file| {
            String::from_utf8_lossy(&fs::read(entry.path().join(file)).unwrap_or_default()).into_owned()
        };
        let (line, environment) = (read("cmdline"), read("environ"));
        let mark =
            environment.split('\0').find(|variable| variable.starts_with("PROCESSHUB_LOCAL_CLUSTER_PART="));
        if line.contains(trace) || mark.is_some_and(|mark| mark.contains(trace)) {
            found.push(line.replace('\0', " "));
        }
    }
    found
}

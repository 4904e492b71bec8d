//! A node: a machine of its own as far as the kernel can pretend.
//!
//! It has its own network, mounts and processes. The first of its processes does nothing but live; containerd, kubelet,
//! kube-proxy and the pods are put beside it. To kill that one process is to cut the power: the kernel then ends all
//! others at once and drops every mount, so nothing of a node can be left behind. Its directory is its disk.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::cgroup;
use crate::command::{create_dir, remove_dir, run, wait_until, write_file};
use crate::config;
use crate::daemon;
use crate::error::{Error, Result, file_error};
use crate::host;
use crate::image;
use crate::machine::Machine;
use crate::network::{self, tool};
use crate::plan::{node_address, pod_subnet};
use crate::slots::{self, Slot};
use crate::tools::Tool;

/// Where the node's programs write beside their configured directories, kept apart from the host and from each other.
const PRIVATE_DIRS: [&str; 5] =
    ["/var/lib/kubelet", "/run/netns", "/run/containerd", "/var/lib/cni", "/var/log/containers"];
const INIT: &str = "init";
const CONTAINERD: &str = "containerd";
const KUBELET: &str = "kubelet";
const PROXY: &str = "proxy";
const PROXY_USER: &str = "system:kube-proxy";
const START: Duration = Duration::from_secs(60);
const READY: Duration = Duration::from_secs(120);

/// The part's name in the list of a cluster's processes.
fn part(node: &str, program: &str) -> String {
    format!("node/{node}/{program}")
}

/// Whether `candidate` is a part of that node.
fn belongs_to(candidate: &str, node: &str) -> bool {
    candidate
        .strip_prefix("node/")
        .and_then(|rest| rest.split_once('/'))
        .is_some_and(|(name, _)| name == node)
}

/// Makes a node and starts it; it is not awaited.
pub(crate) fn create(machine: &Machine, name: Option<&str>) -> Result<Slot> {
    let slot = slots::claim(&machine.layout, name)?;
    let layout = machine.layout.node(&slot.node);
    create_dir(layout.dir())?;
    network::attach(
        &machine.control_plane(),
        &machine.namespace(&slot.node),
        &port(&slot),
        node_address(slot.number),
        Some(slot.number),
    )?;
    let user = format!("system:node:{}", slot.node);
    machine.enroll(&kubelet_identity(&slot), &user, Some("system:nodes"))?;
    let proxy = machine.enroll(&format!("node-{}-proxy", slot.node), PROXY_USER, None)?;

    write_file(&layout.containerd_config(), &config::containerd(&layout, &host::cni_plugins()?))?;
    let network = config::cni(&layout, &pod_subnet(slot.number));
    write_file(&layout.cni_dir().join("10-pods.conflist"), &network.to_string())?;
    let lease = machine.grace() / 2;
    let cgroup = format!("/{}", cgroup_name(machine, &slot.node));
    let kubelet = config::kubelet(&layout, &cgroup, &machine.authority(), lease);
    write_file(&layout.kubelet_config(), &kubelet.to_string())?;
    let proxy = config::proxy(&slot.node, node_address(slot.number), &proxy);
    write_file(&layout.proxy_config(), &proxy.to_string())?;
    boot(machine, &slot)?;
    Ok(slot)
}

/// Switches a node on: the programs start, on the disk that is there.
fn boot(machine: &Machine, slot: &Slot) -> Result<()> {
    let layout = machine.layout.node(&slot.node);
    let testcluster = machine.tools.provide(Tool::Testcluster)?;
    for dir in PRIVATE_DIRS {
        create_dir(dir.as_ref())?;
    }
    cgroup::create(&cgroup_name(machine, &slot.node))?;
    let mut init = machine.namespace(&slot.node).command("unshare");
    init.args(["--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--"]);
    init.arg(&testcluster).arg("node-init").arg(format!("--private={}", PRIVATE_DIRS.join(",")));
    init.arg(format!("--ready={}", layout.ready().display()));
    let log = machine.layout.log(&part(&slot.node, INIT));
    daemon::start(&machine.state.name, &part(&slot.node, INIT), &log, &init)?;
    wait_until(format!("the start of {}", slot.node), START, &log, || layout.ready().exists())?;

    let mut containerd = inside(machine, &slot.node, "containerd")?;
    containerd.arg("--config").arg(layout.containerd_config());
    start(machine, &slot.node, CONTAINERD, &containerd)?;
    let log = machine.layout.log(&part(&slot.node, CONTAINERD));
    wait_until(format!("containerd on {}", slot.node), START, &log, || {
        let mut version = tool("ctr");
        layout.containerd_socket().exists()
            && run(version.arg("--address").arg(layout.containerd_socket()).arg("version")).is_ok()
    })?;
    // Before the kubelet: a pod must not meet a node that does not have its image yet.
    for image in images(machine)? {
        image::import(&layout.containerd_socket(), &image)?;
    }
    start_kubelet(machine, slot)?;
    let mut proxy = inside(machine, &slot.node, &testcluster)?;
    proxy.arg(PROXY).arg(format!("--config={}", layout.proxy_config().display()));
    start(machine, &slot.node, PROXY, &proxy)
}

fn start_kubelet(machine: &Machine, slot: &Slot) -> Result<()> {
    let layout = machine.layout.node(&slot.node);
    let kubeconfig = machine.layout.kubeconfig(&kubelet_identity(slot));
    let flags = BTreeMap::from([
        ("config", layout.kubelet_config()),
        ("kubeconfig", kubeconfig),
        ("root-dir", layout.kubelet_root()),
        ("cert-dir", layout.kubelet_certificates()),
        ("hostname-override", PathBuf::from(&slot.node)),
        ("node-ip", PathBuf::from(node_address(slot.number).to_string())),
    ]);
    let mut command = inside(machine, &slot.node, machine.tools.provide(Tool::Testcluster)?)?;
    command.arg(KUBELET);
    command.args(flags.iter().map(|(name, value)| format!("--{name}={}", value.display())));
    start(machine, &slot.node, KUBELET, &command)
}

fn start(machine: &Machine, node: &str, program: &str, command: &Command) -> Result<()> {
    let part = part(node, program);
    daemon::start(&machine.state.name, &part, &machine.layout.log(&part), command)
}

/// A command inside all of a node's namespaces.
fn inside(machine: &Machine, node: &str, program: impl AsRef<OsStr>) -> Result<Command> {
    let parts = daemon::find_part(&machine.state.name, &part(node, INIT));
    let init = parts.iter().find(|daemon| daemon.is_init);
    let pid =
        init.ok_or_else(|| Error::NoSuchNode { name: node.to_owned(), known: "without power".to_owned() })?;
    let mut command = tool("nsenter");
    command.args(["--target", &pid.pid.to_string(), "--net", "--mount", "--pid", "--"]).arg(program);
    Ok(command)
}

/// Waits until the API server has seen the nodes ready.
pub(crate) fn await_ready(machine: &Machine, nodes: &[Slot]) -> Result<()> {
    let names: Vec<_> = nodes.iter().map(|slot| slot.node.as_str()).collect();
    let what = format!("the readiness of {}", names.join(", "));
    wait_until(what, READY, &machine.layout.logs(), || {
        let list =
            machine.kubectl().and_then(|mut kubectl| run(kubectl.args(["get", "--raw=/api/v1/nodes"])));
        // A failed question is asked again: the API server may be starting.
        list.is_ok_and(|list| all_ready(&list, &names))
    })
}

/// Whether a NodeList, as JSON, has all of these nodes as Ready.
fn all_ready(list: &str, names: &[&str]) -> bool {
    let list: serde_json::Value = serde_json::from_str(list).unwrap_or_default();
    let is_ready = |name: &&str| {
        let mut nodes = list["items"].as_array().into_iter().flatten();
        let node = nodes.find(|node| node["metadata"]["name"] == **name);
        let conditions = node.and_then(|node| node["status"]["conditions"].as_array());
        conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
    };
    names.iter().all(is_ready)
}

/// Cuts the power of a node and throws the machine away.
pub(crate) fn destroy(machine: &Machine, node: &str) -> Result<()> {
    let slot = slots::find(&machine.layout, node)?;
    network::detach(&machine.control_plane(), &port(&slot))?;
    power_off(machine, node)?;
    machine.namespace(node).delete()?;
    cgroup::remove(&cgroup_name(machine, node))?;
    remove_dir(machine.layout.node(node).dir())
}

/// Cuts the power of a node, and pulls its cable: no kernel answers for it any more.
pub(crate) fn switch_off(machine: &Machine, node: &str) -> Result<()> {
    plug(machine, node, false)?;
    power_off(machine, node)
}

/// Gives a node its power and its cable back.
pub(crate) fn switch_on(machine: &Machine, node: &str) -> Result<()> {
    let slot = slots::find(&machine.layout, node)?;
    if daemon::find_part(&machine.state.name, &part(node, INIT)).iter().any(|daemon| daemon.is_init) {
        return Err(Error::Invalid { field: "node", value: node.to_owned(), rule: "has its power already" });
    }
    // All that a machine keeps in memory.
    let layout = machine.layout.node(node);
    remove_dir(&layout.containerd_state())?;
    std::fs::remove_file(layout.ready()).map_err(file_error("remove", &layout.ready()))?;
    plug(machine, node, true)?;
    boot(machine, &slot)
}

fn power_off(machine: &Machine, node: &str) -> Result<()> {
    // First the init alone: with it all others end at the same instant.
    for daemon in daemon::find_part(&machine.state.name, &part(node, INIT)) {
        if daemon.is_init {
            daemon::signal(daemon.pid, "KILL")?;
        }
    }
    machine.kill(|candidate| belongs_to(candidate, node))
}

/// Pulls the node's cable, or puts it back.
pub(crate) fn plug(machine: &Machine, node: &str, connected: bool) -> Result<()> {
    let slot = slots::find(&machine.layout, node)?;
    network::plug(&machine.control_plane(), &port(&slot), connected)
}

/// Loads an image file into all nodes at once.
pub(crate) fn import(machine: &Machine, image: &std::path::Path) -> Result<()> {
    in_parallel(&slots::present(&machine.layout), |slot| {
        image::import(&machine.layout.node(&slot.node).containerd_socket(), image)
    })
}

/// Does something for each of `items` at the same time; the first failure is given back when all have ended.
pub(crate) fn in_parallel<T: Sync>(items: &[T], work: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    thread::scope(|scope| {
        let threads: Vec<_> = items.iter().map(|item| scope.spawn(|| work(item))).collect();
        let results: Vec<_> = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect();
        results.into_iter().collect()
    })
}

fn images(machine: &Machine) -> Result<Vec<PathBuf>> {
    let dir = machine.layout.images();
    let entries = std::fs::read_dir(&dir).map_err(file_error("list", &dir))?;
    let is_image = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "tar");
    Ok(entries.flatten().map(|entry| entry.path()).filter(is_image).collect())
}

fn kubelet_identity(slot: &Slot) -> String {
    format!("node-{}", slot.node)
}

/// The node's end of the cable at the bridge; interface names hold at most 15 characters.
fn port(slot: &Slot) -> String {
    format!("node{}", slot.number)
}

/// The control group that all pods of a node are in.
fn cgroup_name(machine: &Machine, node: &str) -> String {
    format!("{}-{node}", machine.state.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_belongs_to_exactly_the_node_it_names() {
        assert!(belongs_to("node/node1/kubelet", "node1"));
        for other in ["node/node10/kubelet", "node1/kubelet", "apiserver", "node/node1"] {
            assert!(!belongs_to(other, "node1"), "{other}");
        }
    }

    #[test]
    fn all_nodes_must_be_there_and_ready() {
        let list = r#"{"items": [
            {"metadata": {"name": "a"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}},
            {"metadata": {"name": "b"}, "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}},
            {"metadata": {"name": "c"}, "status": {}}
        ]}"#;
        assert!(all_ready(list, &["a"]));
        for other in ["b", "c", "d"] {
            assert!(!all_ready(list, &["a", other]), "{other}");
        }
        assert!(!all_ready("", &["a"]));
    }
}

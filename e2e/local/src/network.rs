//! Network namespaces, the bridge that joins them, and their links.
//!
//! Namespaces are entered with `nsenter --net`, never with `ip netns exec`: that mounts a new `/sys`, which hides the
//! control groups from the kubelet.

use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;

use crate::command::{run, run_with_input};
use crate::daemon::search_path;
use crate::error::Result;
use crate::plan::{CONTROL_PLANE, NETWORK_PREFIX, pod_routes};

const BRIDGE: &str = "br0";

/// A command of the host that is found where only root's programs are, too.
pub(crate) fn tool(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env("PATH", search_path());
    command
}

/// A network namespace of a cluster.
#[derive(Clone, Debug)]
pub(crate) struct Namespace(String);

impl Namespace {
    /// The namespace `<cluster>-<machine>`.
    pub(crate) fn of(cluster: &str, machine: &str) -> Self {
        Self(format!("{cluster}-{machine}"))
    }

    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.0)
    }

    pub(crate) fn exists(&self) -> bool {
        self.path().exists()
    }

    /// A command that runs `program` inside.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = tool("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command
    }

    /// Runs lines of `ip -batch` inside.
    fn ip(&self, lines: &str) -> Result<()> {
        run_with_input(self.command("ip").args(["-batch", "-"]), lines).map(drop)
    }

    fn create(&self) -> Result<()> {
        run(tool("ip").args(["netns", "add", &self.0]))?;
        // Between two ports of one network a redirect would teach machines a path that bypasses later changes.
        for setting in ["ip_forward=1", "conf.all.send_redirects=0", "conf.default.send_redirects=0"] {
            run(self.command("sysctl").args(["-qw", &format!("net.ipv4.{setting}")]))?;
        }
        self.ip("link set lo up\n")
    }

    /// Deletes it if it is there; what still runs inside keeps it alive, unreachable.
    pub(crate) fn delete(&self) -> Result<()> {
        if self.exists() { run(tool("ip").args(["netns", "delete", &self.0])).map(drop) } else { Ok(()) }
    }
}

/// Makes the namespace of the control plane, with the bridge that everyone is attached to.
pub(crate) fn create_hub(namespace: &Namespace) -> Result<()> {
    namespace.create()?;
    namespace.ip(&format!(
        "link add {BRIDGE} type bridge\n\
         addr add {CONTROL_PLANE}/{NETWORK_PREFIX} dev {BRIDGE}\n\
         link set {BRIDGE} up\n{}",
        pod_routes(None)
    ))
}

/// Makes a namespace with a cable to the hub's bridge. `slot` is the node's, none for a machine without pods.
pub(crate) fn attach(
    hub: &Namespace,
    namespace: &Namespace,
    port: &str,
    address: Ipv4Addr,
    slot: Option<u8>,
) -> Result<()> {
    namespace.create()?;
    run(hub.command("ip").args(["link", "add", port, "type", "veth", "peer", "name", "eth0", "netns"]).arg(
        // The peer's namespace is named by its file, which is the same inside and outside of the hub's.
        &namespace.0,
    ))?;
    hub.ip(&format!("link set {port} master {BRIDGE} up\n"))?;
    namespace.ip(&format!(
        "addr add {address}/{NETWORK_PREFIX} dev eth0\n\
         link set eth0 up\n\
         route add default via {CONTROL_PLANE}\n{}",
        pod_routes(slot)
    ))
}

/// Pulls the cable at the bridge or puts it back; inside the namespace the link loses its carrier, as when a switch
/// fails, and no route is lost.
pub(crate) fn plug(hub: &Namespace, port: &str, connected: bool) -> Result<()> {
    let state = if connected { "up" } else { "down" };
    run(hub.command("ip").args(["link", "set", port, state])).map(drop)
}

/// Removes the cable.
pub(crate) fn detach(hub: &Namespace, port: &str) -> Result<()> {
    run(hub.command("ip").args(["link", "delete", port])).map(drop)
}

/// The namespaces whose names begin with `<cluster>-`.
pub(crate) fn namespaces_of(cluster: &str) -> Vec<Namespace> {
    let prefix = format!("{cluster}-");
    let mut found: Vec<_> = std::fs::read_dir("/run/netns")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with(&prefix))
        .collect();
    found.sort();
    found.into_iter().map(Namespace).collect()
}

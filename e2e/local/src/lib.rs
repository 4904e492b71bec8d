//! A real Kubernetes cluster of many nodes on one Linux machine.
//!
//! etcd, API server, controllers, scheduler, name server, and any number of nodes, each with its own kubelet,
//! containerd, kube-proxy, network, processes and mounts. Nodes join, lose their power, and are cut off, one by one.
//! Nothing leaves the machine, and nothing is left on it afterwards.
//!
//! ```no_run
//! use processhub_local_cluster::{LocalCluster, Options};
//!
//! # fn main() -> processhub_local_cluster::Result<()> {
//! let cluster = LocalCluster::up(Options { nodes: 3, ..Options::default() })?;
//! cluster.load("target/images/operator.tar".as_ref())?;
//! // kube::Config::from_kubeconfig(...) with cluster.kubeconfig(), from the host:
//! cluster.kubectl()?.args(["get", "nodes"]).status().ok();
//! // A client that reaches Services by name and survives any node's loss:
//! cluster.client_command("curl").arg("http://cart-0.default.svc:8080/").status().ok();
//! let node = cluster.join(None)?;
//! cluster.cut(&node)?;
//! cluster.heal(&node)?;
//! cluster.leave(&node)?;
//! # Ok(())
//! # } // The handle's end takes everything down.
//! ```
//!
//! It needs root and what [`check`] asks for. Set [`CLUSTER_TESTS`] to `local` to have tests run that need it.

mod certificates;
mod cgroup;
mod cleanup;
mod client;
mod cluster;
mod command;
mod config;
mod control_plane;
mod daemon;
mod error;
mod host;
mod image;
mod layout;
mod machine;
mod network;
mod node;
mod ownership;
mod plan;
mod slots;
mod tools;

pub use cluster::{LocalCluster, Options, build_tools, default_dir, take_down};
pub use error::{Error, Result};
pub use host::check;
pub use image::{ImageBuild, build_image};
pub use plan::MAX_NODES;
pub use tools::KUBERNETES_VERSION;

/// The environment variable that says on which clusters tests shall run: `local`, or nothing for none.
pub const CLUSTER_TESTS: &str = "PROCESSHUB_CLUSTER_TESTS";

/// Whether tests that need a local cluster shall run. When not, says so on standard error: a test that is skipped must
/// not look like one that passed. Where they shall run and cannot, [`LocalCluster::up`] fails and so does the test.
pub fn wanted(test: &str) -> bool {
    let wanted = std::env::var(CLUSTER_TESTS).is_ok_and(|value| value == "local");
    if !wanted {
        command::say(&format!(
            "SKIPPED {test}: needs a local cluster; set {CLUSTER_TESTS}=local to run it (as root)"
        ));
    }
    wanted
}

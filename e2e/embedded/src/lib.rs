//! A Kubernetes cluster in one process, for scenarios and demonstrations that need nothing but Rust.
//!
//! ```no_run
//! use processhub_embedded_cluster::{EmbeddedCluster, ImageSpec, Options};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let options = Options::default().with_nodes(3).with_image("counter:1", ImageSpec::new("/path/to/counter"));
//! let cluster = EmbeddedCluster::start(options).await?;
//! // kubectl and kube-rs work with cluster.kubeconfig().
//! cluster.join_node("node-4")?;
//! cluster.kill_node("node-2").await?;
//! cluster.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! * [`api`]: an API server in memory. The core is synchronous and has neither clock nor sockets; [`api::server::router`]
//!   puts HTTP around it.
//! * Kubelets that run containers as processes: probes, restarts with back-off, native sidecars, hooks and grace periods in
//!   the order that was measured on real kubelets.
//! * A scheduler, node lifecycle with taints and eviction, garbage collection, EndpointSlices, and a service proxy.
//!
//! The conformance tests ask the same requests of this API server and of the real one.
//!
//! # Where it differs from a real cluster
//!
//! * Everything is allowed to everyone; there are no tokens, no TLS, no admission webhooks, no quotas, and budgets do not
//!   hold evictions back.
//! * Containers are processes of this machine's user, without isolation: for trusted programs only. All addresses are
//!   loopback addresses; a program of the machine that listens at 0.0.0.0 on a container's port is in its way.
//! * An image is a name for a local program. There is no file system of its own: where a variable or an argument begins
//!   with the path of a volume mount, the real directory takes its place. Volumes are `emptyDir`, `secret`, `configMap`.
//! * 127.0.0.1 is everybody's. In variables named `PROCESSHUB_*` the pod's own loopback takes its place.
//! * Containers find the cluster through the variable `KUBECONFIG`, unless `automountServiceAccountToken` is false.
//! * A node that is cut off cannot reach the API server, but its pods are still reachable; a node without power refuses
//!   connections instead of swallowing them.
//! * The service proxy accepts before it reaches the endpoint: where a real cluster refuses a connection because the
//!   endpoint is gone, this one resets it. Its routes follow a slice within milliseconds.
//! * There is no DNS, and server-side apply does not detect conflicts between managers: the last one wins.

pub mod api;
mod cluster;
mod controllers;
mod environment;
mod kubelet;
mod options;
mod processes;
mod serve;
mod subnet;

pub use api::audit::{Counted, Entry, Verb};
pub use cluster::{ClusterError, EmbeddedCluster};
pub use options::{ImageSpec, Options};

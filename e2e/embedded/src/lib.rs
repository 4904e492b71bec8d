//! A Kubernetes cluster in one process, for scenarios and demonstrations that need nothing but Rust.
//!
//! * [`api`]: an API server in memory, with the verbs that an operator and kubectl use.
//!
//! Everything is allowed to everyone, addresses are loopback addresses, and containers are processes of this machine's
//! user without isolation: for tests on a trusted machine only.

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

//! The operator of ProcessHub for Kubernetes.

pub mod assignments;
pub mod call;
pub mod context;
pub mod credentials;
pub mod events;
pub mod failpoint;
pub mod index;
pub mod lease;
pub mod metrics;
pub mod plan;
pub mod process;
pub mod sidecar_client;

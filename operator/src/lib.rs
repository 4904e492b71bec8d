//! The operator of ProcessHub for Kubernetes.

pub mod assignments;
pub mod call;
pub mod credentials;
pub mod failpoint;
pub mod index;
pub mod lease;
pub mod plan;
pub mod process;
pub mod sidecar_client;

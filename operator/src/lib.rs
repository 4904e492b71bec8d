//! The operator of ProcessHub for Kubernetes.

pub mod assignments;

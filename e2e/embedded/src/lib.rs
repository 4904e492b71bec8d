//! A Kubernetes cluster in one process.

pub mod api;

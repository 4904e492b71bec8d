//! What a cluster does beside its API server and kubelets: schedule, collect, watch over nodes, keep endpoints, carry
//! traffic. Each controller is a pure decision with a task around it.

pub mod collector;
pub mod endpoints;
pub mod lifecycle;
pub mod proxy;
pub mod scheduler;

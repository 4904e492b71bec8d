//! The kubelet: pods as processes.

mod container;
mod environment;
mod launch;
mod machine;
mod model;
pub mod node;
mod probe;
mod spec;
mod status;
mod volumes;
mod worker;

//! The kubelet: pods as processes.

mod container;
mod environment;
mod machine;
mod model;
pub mod node;
mod probe;
mod spec;
mod status;
mod volumes;
mod worker;

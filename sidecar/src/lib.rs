//! The sidecar of a process's pod: control endpoints, traffic proxy, state keeper and fence.

pub mod auth;
pub mod clock;
pub mod config;
pub mod fence;
pub mod keeper;

//! The operator of ProcessHub for Kubernetes.
//!
//! Two loops, each level-triggered, each with one stage per file. The [`hub`] loop decides where processes should be
//! ([`plan`], pure); the [`process`] loop starts, moves and recovers each of them (`processhub_protocol::handover`,
//! pure). They meet on the [`assignments::Board`]. [`run`] wires them together.

// The fixture of the planner's tests names this crate as those outside of it do.
#[cfg(test)]
extern crate self as processhub_operator;

pub mod args;
pub mod assignments;
pub mod call;
pub mod context;
pub mod credentials;
pub mod events;
pub mod failpoint;
pub mod hub;
pub mod index;
pub mod lease;
pub mod log;
pub mod metrics;
pub mod plan;
pub mod process;
pub mod revision;
mod runtime;
mod server;
pub mod sidecar_client;
pub mod transfer;
#[cfg(test)]
mod vocabulary_tests;
mod watch;

pub use context::Options;
pub use runtime::run;

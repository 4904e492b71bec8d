//! The operator with real sidecars and the example worker, on a cluster in this process.

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used)]

mod failpoints;
mod leadership;
mod moves;
mod world;

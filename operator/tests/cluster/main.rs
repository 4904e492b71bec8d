//! The operator with real sidecars and the example worker, on a cluster in this process.

mod failpoints;
mod moves;
mod world;

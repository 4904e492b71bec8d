//! Real sidecars in front of real workers, driven as the operator drives them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod checkpoints;
mod contract;
mod control;
mod crashes;
mod leases;
mod moves;
mod peer;
mod process;
mod replicas;
mod restarts;
mod support;
mod tcp;
mod traffic;
mod trial;

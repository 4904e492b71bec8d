//! The sidecar of a process's pod: it decides by a durable record what its worker may do, holds and forwards the clients'
//! requests, and hands the state over.
//!
//! * [`config`]: what the operator tells it, by environment.
//! * [`fence`]: the record on disk. What a command does to it is decided by [`processhub_protocol::fence`].
//! * [`keeper`]: states on disk.
//! * `checkpoint`: states of a worker that serves; `capture`: how a state comes from the worker onto disk.
//! * [`control`]: the endpoints of operator, peers and kubelet; [`commands`]: the commands' work.
//! * `lease`: serving by lease.
//! * [`proxy`]: the clients' way, or [`tcp`] where the worker does not speak HTTP; [`hold`]: which way that is at present.
//! * [`worker`]: the client of the worker's contract; [`duty`]: what the worker is due; [`supervise`], [`restore`]: doing it.
//! * [`peer`], [`announce`]: what a sidecar asks of another one.
//! * [`gate`]: probes and the worker's `preStop`; [`report`], [`metrics`]: what it says of itself.
//! * [`server`]: listeners, and the order in which a sidecar ends.
//! * [`parent`]: the first process of the container, which starts the sidecar again when it dies.
//! * [`verify`]: a worker, checked against the contract without a cluster.
//! * [`auth`], [`clock`], [`net`], [`client`]: the seams to identity, time and network.
//!
//! # The blackout
//!
//! The blackout of a move is measured on one clock, that of the source: from the moment at which it begins to hold
//! requests (the freeze command's arrival, before the drain) to the moment at which what it held goes on, because the
//! target, active by then, has told it to forward; or, after an abort, because its own worker has acknowledged that it
//! serves again. The target takes the figure over from the source's answer, so that it outlives the source. In a
//! cold swap the source hands on before the target's worker has started: what it sends on waits at the target, its worker
//! ends, and it stays until the target has said that it serves. The figure contains the end of one worker and the start of
//! the other.

pub mod announce;
pub mod auth;
mod capture;
mod checkpoint;
pub mod client;
pub mod clock;
pub mod commands;
pub mod config;
pub mod control;
pub mod duty;
pub mod fence;
pub mod gate;
pub mod hold;
pub mod keeper;
mod lease;
pub mod metrics;
pub mod net;
pub mod parent;
pub mod peer;
pub mod proxy;
mod replica;
pub mod report;
pub mod restore;
pub mod server;
pub mod sidecar;
pub mod supervise;
pub mod tcp;
pub mod verify;
pub mod worker;

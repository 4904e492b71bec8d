//! Replicas of checkpoints (`processhub_protocol::replica`).
//!
//! * [`holders`]: with whom this pod's own state is, as far as its owner knows.
//! * [`push`]: offers each holder what is newest, and serves it while the holder fetches it.
//! * [`shelves`]: the replicas of other processes that are here, on disk.
//! * [`hold`]: takes what is offered, seals, and gives it out again.

mod hold;
mod holders;
mod push;
mod shelves;

pub(crate) use holders::Holders;
pub(crate) use shelves::Shelves;

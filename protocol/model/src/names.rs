//! Names of the protocol for the small numbers of the model, and back.

use processhub_protocol::id::{BootId, Digest, Epoch, PodUid, ProcessUid, RecordId, StateId};
use processhub_protocol::ledger::{PodRef, pod_name};
use processhub_protocol::wire::{Addressee, Peer};

/// Place of an incarnation in the state.
pub type Slot = u8;

/// Name of the one process.
pub const PROCESS: &str = "p";

/// The one process's UID.
pub fn process() -> ProcessUid {
    ProcessUid::from(PROCESS)
}

/// UID of the pod in `slot`.
pub fn uid(slot: Slot) -> PodUid {
    PodUid(format!("u{slot}"))
}

/// The slot of a UID made by [`uid`].
pub fn slot(uid: &PodUid) -> Slot {
    number(&uid.0)
}

/// The pod in `slot`, created with `born`.
pub fn pod(slot: Slot, born: u8) -> PodRef {
    PodRef { name: pod_name(PROCESS, epoch(born)), uid: uid(slot), node: "n".to_owned() }
}

/// The record that the sidecar in `slot` minted when its volume was empty for the `wipes`-th time.
pub fn record(slot: Slot, wipes: u8) -> RecordId {
    RecordId(format!("r{slot}.{wipes}"))
}

/// A start of the sidecar in `slot`.
pub fn boot(slot: Slot, boot: u8) -> BootId {
    BootId(format!("b{slot}.{boot}"))
}

/// Whom a command to `slot` is for.
pub fn addressee(slot: Slot) -> Addressee {
    Addressee { process: process(), pod: uid(slot) }
}

/// The sidecar in `slot` as others call it.
pub fn peer(slot: Slot) -> Peer {
    Peer::of_this_hub(uid(slot), String::new(), 0)
}

/// The pod of another process that holds the replica.
pub fn holder() -> PodRef {
    PodRef { name: "holder-1".to_owned(), uid: PodUid::from("h"), node: "far".to_owned() }
}

/// An epoch of the protocol.
pub fn epoch(epoch: u8) -> Epoch {
    Epoch(u64::from(epoch))
}

/// The model's number for an epoch; explorations are bounded far below 256 of them.
pub fn small(epoch: Epoch) -> u8 {
    u8::try_from(epoch.0).unwrap_or(u8::MAX)
}

/// The captured state that holds exactly the writes of `writes`, one bit each.
pub fn state(writes: u8) -> StateId {
    StateId { seq: u64::from(writes.count_ones()), digest: Digest(format!("d{writes}")), bytes: 0 }
}

/// The writes in a state made by [`state`].
pub fn writes(state: Option<&StateId>) -> u8 {
    state.map_or(0, |state| number(&state.digest.0))
}

/// The epoch in a name made by [`pod_name`]; 0 for none.
pub fn born(name: &str) -> u8 {
    name.strip_prefix(PROCESS).and_then(|rest| rest.strip_prefix('-')).map_or(0, parse)
}

fn number(text: &str) -> u8 {
    text.get(1..).map_or(0, parse)
}

fn parse(text: &str) -> u8 {
    text.parse().unwrap_or(0)
}

//! The hand-over protocol: wire types, epochs and the pure state machines that decide.
//!
//! Nothing here reads a clock, opens a socket or touches a disk. A decision is a function of what was observed; the
//! operator and the sidecar carry it out at their edges. The exhaustive exploration in `processhub-model` runs these
//! same functions, so that the checked code is the shipped code.
//!
//! * [`id`]: names of processes, pods, records, boots, and the [`id::Epoch`].
//! * [`ledger`]: what the API server holds about the ownership of one process, and its only transitions.
//! * [`lease`]: for how long an owner may acknowledge without hearing from a leader.
//! * [`replica`]: copies of an owner's state with sidecars of other nodes.
//! * [`fence`]: the sidecar's durable record and what each command does to it.
//! * [`handover`]: the operator's next effects for one process, from what it sees.
//! * [`passage`]: which way a client's request goes at a sidecar.
//! * [`wire`]: what operator and sidecars say to each other.
//! * [`rules`]: the rules of the protocol by number.

pub mod contract;
pub mod fence;
pub mod handover;
pub mod id;
pub mod lease;
pub mod ledger;
pub mod passage;
pub mod replica;
pub mod rules;
pub mod wire;

//! The exhaustive exploration of the hand-over protocol, from the shipped state machines.
//!
//! What decides is not modelled but called: [`handover::next`], [`Ledger::after`], and the `judge_*` and `*_done` of
//! [`fence::Record`]. What is modelled is everything around them: the API server (one object with a version), one leader
//! and a second one whose ledger lags behind, up to six incarnations with a durable record, a sidecar and a worker,
//! clients that write, a keeper that checkpoints, and a network in which a command may be delivered any number of times,
//! late, in any order or never, and an API call late or never. The surroundings restart sidecars, workers and nodes, lose
//! nodes for good (first without proof, then with), lose volumes, delete pods (also by force), cancel moves, let them
//! expire and clear the status by hand. What may happen how often is bounded by a [`state::Budget`] per configuration;
//! within it, everything that can happen is explored, breadth first.
//!
//! Checked in every state and step are the [`promise::Promise`]s, and at the end, backward from the states in which
//! everything rests with one owner, that every state can still come to rest: nothing is ever stuck.
//!
//! For each of the protocol's rules there is a variant without it ([`scenario::refutations`]), which must be refuted: the
//! shortest way to a broken promise is printed. Most rules stand in the shipped functions. Five stand at the edges where
//! I/O is done, and are honoured here where the operator and the sidecar do that I/O:
//!
//! * 2, compare-and-swap: where a write of the ledger arrives at the API server (`effects`);
//! * 3, durable before the answer: where the sidecar takes a new record (`sidecar`);
//! * 6, no timer thaws: the surroundings have no such step (`surroundings`);
//! * 8, persisted imports: where an import is done (`sidecar`);
//! * 12, grants to the recorded owner only: where the operator makes a grant (`effects`; the rest of that rule is shipped).
//!
//! What the operator's edge owes beside the decisions is honoured here as well, and broken promises follow where it is not:
//! it reads the ledger before pods and sidecars, writes a reported loss before it acts on that report, gates every pod of a
//! hub of cold swaps, and collects pods that [`handover::stray`] says have no part any more.
//!
//! The sidecar of a pod that goes may say, once its process was handed on, that its worker has ended; in a cold swap the
//! target's then starts while the source's sidecar still forwards.
//!
//! What this does not cover: bytes (a state is the set of writes in it), clocks (a time-out may come at any moment, a grant
//! is fresh or of another boot; milliseconds are covered by the fence's own tests), and take-over by lease.
//!
//! That no request is forwarded twice, nor executed twice, is the matter of a second, small model ([`requests`]).
//!
//! Two reductions are made, both sound: a message that every future record of its addressee refuses is forgotten (a
//! durable floor never sinks), and the slot of a pod that is gone is used again once nothing names that pod. Pods are seen
//! by a live read, which no decision but reading again distinguishes from a cached one.
//!
//! [`handover::next`]: processhub_protocol::handover::next
//! [`handover::stray`]: processhub_protocol::handover::stray
//! [`Ledger::after`]: processhub_protocol::ledger::Ledger::after
//! [`fence::Record`]: processhub_protocol::fence::Record

pub mod effects;
pub mod explore;
pub mod intern;
pub mod message;
pub mod model;
pub mod names;
pub mod operator;
pub mod promise;
pub mod requests;
pub mod run;
pub mod scenario;
pub mod sidecar;
pub mod state;
pub mod step;
pub mod surroundings;
pub mod view;
pub mod words;

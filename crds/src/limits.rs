//! Bounds that the schemas, the CEL rules and the Rust validation share.
//!
//! Every string and list of the resources is bounded: an unbounded one makes the API server refuse the CEL rules that
//! read it, and an object that cannot grow cannot fill etcd.

/// Largest integer that every JSON implementation keeps exactly: epochs, sequence numbers and byte counts stay below.
pub const MAX_INTEGER: u64 = (1 << 53) - 1;
/// Longest process name: `<process>-<epoch>` must be a pod name and a label value of at most 63 characters.
pub const MAX_PROCESS_NAME: usize = 40;
/// Longest hub name: `<hub>-<ordinal>` of the last possible replica must be a process name.
pub const MAX_HUB_NAME: usize = 34;
/// Most replicas that a hub may ask for; the last ordinal then has five digits.
pub const MAX_REPLICAS: u32 = 100_000;
/// Most processes that a hub may list by name. Larger sets are `HubProcess` objects of their own.
pub const MAX_STATIC_PROCESSES: usize = 512;
/// Most bytes of a process's `config` when written as JSON.
pub const MAX_CONFIG_BYTES: usize = 16 * 1024;
/// Longest message of a condition or of a migration, in bytes of UTF-8.
pub const MAX_MESSAGE: usize = 2048;
/// How many codes a hub's status names; one that a process runs is never left out.
pub const MAX_REVISIONS: usize = 10;
/// With how many sidecars of other nodes a state is kept at most.
pub const MAX_STATE_REPLICAS: u32 = 2;
/// How many finished migrations a process remembers.
pub const MAX_HISTORY: usize = 5;
/// How many restarts because of crashes a process remembers; no hub may allow more.
pub const MAX_RESTARTS: u32 = 100;
/// How many member names a hub's status lists; the count beside them is always whole.
pub const MAX_MEMBER_NAMES: usize = 64;
/// Ports that the sidecar uses in every pod: its own and that of the worker's contract.
pub const RESERVED_PORTS: std::ops::RangeInclusive<u16> = 9700..=9719;

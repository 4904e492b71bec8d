//! Bodies of the contract's requests and answers.
//!
//! A body that serde accepted is well-formed; its `check` says whether it is also within the contract's bounds. Both
//! sides call it on everything they receive.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Name, PartName};
use crate::id::{Epoch, Seq};

/// What a worker is doing. It starts in [`WorkerState::Standby`], also after a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum WorkerState {
    /// Takes a state, serves no client, does nothing of its own accord.
    Standby,
    /// Serves clients.
    Active,
    /// Its state cannot change; it can be captured.
    Suspended,
}

impl WorkerState {
    /// The state as it is written on the wire, for headers and messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Standby => "Standby",
            Self::Active => "Active",
            Self::Suspended => "Suspended",
        }
    }
}

/// In which states a worker can be captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum CaptureMode {
    /// While it serves, and while suspended.
    Live,
    /// Only while suspended.
    Suspended,
}

/// Why a worker is suspended, is given a state, or is activated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Reason {
    /// The process starts.
    Start,
    /// It moves to another node.
    Handover,
    /// It comes back after a crash.
    Crash,
    /// Its code changes.
    CodeChange,
    /// It moves to another hub.
    Transfer,
    /// A code change is taken back.
    Rollback,
    /// Two incarnations of a divided cluster meet.
    Merge,
}

/// What a capture is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum CapturePurpose {
    /// The state leaves for another incarnation.
    Handover,
    /// The keeper stores it against a crash.
    Checkpoint,
}

/// Whether the code that takes a state is newer or older than the code that gave it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Direction {
    /// Newer or the same.
    #[default]
    Up,
    /// Older: the state goes back (`{down, vsn}`).
    Down,
}

/// Answer of `GET /v1/info`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Info {
    /// Version of the contract: 1.
    pub contract: u32,
    /// Random per start of the worker. Another one means that the worker restarted and knows nothing any more.
    pub instance: String,
    /// The worker's code version; may be empty.
    #[serde(default)]
    pub vsn: String,
    /// What it does now.
    pub state: WorkerState,
    /// Highest epoch that it has seen; 0 after a start.
    pub epoch: Epoch,
    /// Number of the last change of its state. Zero where the worker does not count.
    #[serde(default)]
    pub seq: Seq,
    /// When it can be captured.
    pub capture: CaptureMode,
    /// Versions whose deltas it takes; its own too must be named. Empty: it takes whole states only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub delta_from: Vec<String>,
    /// Versions whose states it takes, beside its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accepts_from: Vec<String>,
    /// Its load, in a unit of its choice that is the same for all workers of a hub.
    #[serde(default)]
    pub load: u64,
    /// Whether it wants to be asked before it is moved (`POST /v1/consent`).
    #[serde(default)]
    pub consent: bool,
}

/// Body of `POST /v1/consent`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ConsentRequest {
    /// For what it would be suspended.
    pub reason: Reason,
    /// From when on it is no longer asked, as RFC 3339 has it; absent when it is always asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forced_at_time: Option<String>,
}

/// Whether a worker may be moved now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Consent {
    /// Yes.
    Ready,
    /// Not now: ask again. Whatever a reader does not know means this, and so does no answer.
    #[serde(other)]
    Defer,
}

/// Answer of `POST /v1/consent`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ConsentAnswer {
    /// The answer.
    pub answer: Consent,
}

/// Body of `POST /v1/suspend`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SuspendRequest {
    /// A new epoch.
    pub epoch: Epoch,
    /// Why.
    pub reason: Reason,
}

/// Body of `POST /v1/resume`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ResumeRequest {
    /// A new epoch.
    pub epoch: Epoch,
}

/// Body of `POST /v1/capture`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct CaptureRequest {
    /// The epoch of the suspend, or for a live capture the owner's.
    pub epoch: Epoch,
    /// What for.
    pub purpose: CapturePurpose,
    /// Only the changes after this `seq` are wanted, which was captured from or applied to this very `instance`. A
    /// worker that cannot tell them any more, or never could, answers with the whole state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Seq>,
    /// Answer 204 if the state's `seq` is still this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unless_seq: Option<Seq>,
}

/// One part in a [`CaptureAnswer`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CapturePart {
    /// Its name.
    pub name: PartName,
    /// Its length, if the worker knows it beforehand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// Answer of `POST /v1/capture`: one point in time over all parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CaptureAnswer {
    /// Name of the capture; its parts stay readable until it is deleted, another of the same purpose is made, or the
    /// worker is resumed.
    pub capture: Name,
    /// The state's number at that point.
    pub seq: Seq,
    /// Version of the code that wrote it.
    #[serde(default)]
    pub vsn: String,
    /// Present if the parts are a delta on exactly this `seq`, which is the one that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Seq>,
    /// The parts, at most [`super::MAX_PARTS`], each name once. None at all is an empty state, and still a state.
    pub parts: Vec<CapturePart>,
}

/// Name and length of one part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PartSize {
    /// Its name.
    pub name: PartName,
    /// Its length.
    pub bytes: u64,
}

/// Answer of `DELETE /v1/capture/{id}`: what the worker gave out. The caller compares it with what it received, which
/// catches an export that was cut short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CaptureSummary {
    /// Each part of the capture with its length.
    pub parts: Vec<PartSize>,
}

/// Body of `POST /v1/import/{id}/apply`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ApplyRequest {
    /// The epoch at which the worker will be activated.
    pub epoch: Epoch,
    /// Why it gets a state.
    pub reason: Reason,
    /// Version of the code that wrote the state.
    #[serde(default)]
    pub vsn: String,
    /// Whether the worker's code is newer or older than that.
    #[serde(default)]
    pub direction: Direction,
    /// What the hub's upgrade passes to the code change; null otherwise.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Object, nullable))]
    pub extra: Value,
    /// The state's number.
    pub seq: Seq,
    /// Present if the parts are a delta on exactly this `seq`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Seq>,
    /// Every part with its length: what was uploaded must be exactly this.
    pub parts: Vec<PartSize>,
    /// Say whether it could be accepted, and change nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// Body of `POST /v1/code-change`: the suspended worker takes up other code, with the state that it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CodeChangeRequest {
    /// The epoch of the suspend.
    pub epoch: Epoch,
    /// Version of the code that the worker runs now.
    #[serde(default)]
    pub from: String,
    /// Version of the code that it is to run.
    pub to: String,
    /// Whether `to` is newer or older than `from`.
    #[serde(default)]
    pub direction: Direction,
    /// What the hub's upgrade passes to the code change; null otherwise.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Object, nullable))]
    pub extra: Value,
}

/// What a worker is told about its process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ProcessInfo {
    /// `spec.config` of the process.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Object, nullable))]
    pub config: Value,
    /// Labels of the process.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Body of `POST /v1/activate`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ActivateRequest {
    /// A new epoch, or the one of the applied state.
    pub epoch: Epoch,
    /// Why.
    pub reason: Reason,
    /// True: begin with an initial state. False: begin with the state that was applied. A worker refuses the one that
    /// does not fit what happened ([`super::ErrorCode::InitialMismatch`]), so that an empty state never passes for the
    /// process's.
    pub initial: bool,
    /// The process.
    #[serde(default)]
    pub process: ProcessInfo,
    /// First number of a change that may be missing after a crash; absent when nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub may_miss: Option<Seq>,
}

#[cfg(test)]
mod tests;

//! The worker contract, version 1: what the sidecar asks of a worker and what a worker may answer.
//!
//! The wire is HTTP/1.1 on loopback with JSON control bodies and opaque bytes for the parts of a state. This module
//! holds its vocabulary and its pure rules, for both sides of the wire:
//!
//! * [`types`]: bodies of requests and answers, each with a `check` that bounds everything that came in.
//! * [`error`]: the refusals, their HTTP status, and what a caller does about each.
//! * [`names`]: names of parts, captures and imports.
//! * [`machine`]: the worker's side: Standby, Active, Suspended, which command is new, repeated or stale, and which delta
//!   fits.
//! * [`assembly`]: how the slices of an import become parts.
//!
//! Integers on the wire are at most [`MAX_INTEGER`]. A field that a reader does not know is ignored, so that a newer
//! sidecar can talk to an older worker and the other way round.

pub mod assembly;
mod check;
pub mod error;
pub mod machine;
pub mod names;
#[cfg(feature = "openapi")]
mod openapi;
pub mod types;

pub use check::Violation;
pub use error::{Disposition, ErrorBody, ErrorCode};
pub use names::{BadName, Name, PartName};
pub use types::{
    ActivateRequest, ApplyRequest, CaptureAnswer, CaptureMode, CapturePart, CapturePurpose, CaptureRequest,
    CaptureSummary, CodeChangeRequest, Consent, ConsentAnswer, ConsentRequest, Direction, Info, PartSize,
    ProcessInfo, Reason, ResumeRequest, SuspendRequest, WorkerState,
};

/// Version of the contract that this module describes, as [`Info::contract`] says it.
pub const CONTRACT_VERSION: u32 = 1;

/// Largest integer on the wire: the largest that every JSON reader keeps exactly (2^53 - 1).
pub const MAX_INTEGER: u64 = (1 << 53) - 1;
/// Largest slice of `PUT /v1/import/{id}/{part}`, in bytes (8 MiB).
pub const MAX_SLICE: usize = 8 << 20;
/// Largest body of a control request, in bytes (1 MiB): the process's configuration is the largest thing in one.
pub const MAX_CONTROL_REQUEST: usize = 1 << 20;
/// Largest body of a control answer, in bytes (256 KiB). A caller reads no further and refuses the answer.
pub const MAX_CONTROL_ANSWER: usize = 256 << 10;
/// Most parts in one state.
pub const MAX_PARTS: usize = 1024;
/// Longest `message` of an [`ErrorBody`], in bytes (1 KiB).
pub const MAX_MESSAGE: usize = 1024;
/// Longest version string (`vsn`) and `instance`, in bytes.
pub const MAX_TEXT: usize = 128;
/// Most entries in `acceptsFrom` and `deltaFrom`.
pub const MAX_VERSIONS: usize = 64;

/// Set by the sidecar on each request that it forwards: the name of the process.
pub const HEADER_PROCESS: &str = "processhub-process";
/// Set by the sidecar on each request that it forwards: the owner's epoch, a fencing token for resources outside.
pub const HEADER_EPOCH: &str = "processhub-epoch";
/// Set by the worker on a 503 to a client's request that was not executed: its [`WorkerState`].
pub const HEADER_STATE: &str = "processhub-state";
/// Set by a worker that numbers its answers: a state with at least this `seq` contains what the answer tells of.
pub const HEADER_SEQ: &str = "processhub-seq";

/// Environment: namespace of the process.
pub const ENV_NAMESPACE: &str = "PROCESSHUB_NAMESPACE";
/// Environment: name of the hub that the process belongs to.
pub const ENV_HUB: &str = "PROCESSHUB_HUB";
/// Environment: name of the process.
pub const ENV_PROCESS: &str = "PROCESSHUB_PROCESS";
/// Environment: `address:port` where the worker serves this contract; [`DEFAULT_CONTROL`] when absent.
pub const ENV_CONTROL: &str = "PROCESSHUB_CONTROL";
/// Environment: `address:port` where the worker serves its clients.
pub const ENV_LISTEN: &str = "PROCESSHUB_LISTEN";
/// Where the worker serves this contract when [`ENV_CONTROL`] is absent.
pub const DEFAULT_CONTROL: &str = "127.0.0.1:9700";

/// `GET`: [`Info`], within one second, in every state.
pub const PATH_INFO: &str = "/v1/info";
/// `POST` [`ConsentRequest`]: [`ConsentAnswer`]. Only for a worker whose [`Info::consent`] is true.
pub const PATH_CONSENT: &str = "/v1/consent";
/// `POST` [`SuspendRequest`]: 204 once the state can no longer change.
pub const PATH_SUSPEND: &str = "/v1/suspend";
/// `POST` [`ResumeRequest`]: 204.
pub const PATH_RESUME: &str = "/v1/resume";
/// `POST` [`CaptureRequest`]: [`CaptureAnswer`], or 204 when nothing changed since `unlessSeq`.
pub const PATH_CAPTURE: &str = "/v1/capture";
/// `POST` [`CodeChangeRequest`]: 204 when the worker runs the other code. A worker need not have this call, see
/// [`error::is_not_offered`].
pub const PATH_CODE_CHANGE: &str = "/v1/code-change";
/// `POST` [`ActivateRequest`]: 204.
pub const PATH_ACTIVATE: &str = "/v1/activate";

/// `DELETE`: [`CaptureSummary`].
#[must_use]
pub fn path_capture(capture: &Name) -> String {
    format!("/v1/capture/{capture}")
}

/// `GET`: the bytes of one part of a capture, as often as asked.
#[must_use]
pub fn path_capture_part(capture: &Name, part: &PartName) -> String {
    format!("/v1/capture/{capture}/{part}")
}

/// `DELETE`: 204; the import and what was uploaded for it are forgotten.
#[must_use]
pub fn path_import(import: &Name) -> String {
    format!("/v1/import/{import}")
}

/// `PUT`: one slice of a part, with `Content-Length`, at most [`MAX_SLICE`]. Offset 0 starts the part over.
#[must_use]
pub fn path_import_part(import: &Name, part: &PartName, offset: u64) -> String {
    format!("/v1/import/{import}/{part}?offset={offset}")
}

/// `POST` [`ApplyRequest`]: 204 when the uploaded state is the worker's state.
#[must_use]
pub fn path_apply(import: &Name) -> String {
    format!("/v1/import/{import}/apply")
}

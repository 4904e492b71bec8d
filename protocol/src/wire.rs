//! What operator and sidecars say to each other: JSON over HTTP/1.1, field names in camelCase.
//!
//! Every command is answered with the sidecar's whole [`Report`] after it, or with a [`Refusal`]; so the operator
//! never has to remember what it asked for.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::contract::Direction;
use crate::fence::Role;
use crate::id::{BootId, Epoch, PodUid, ProcessUid, RecordId, Seq, StateId};
use crate::lease::LeaseView;

/// Version of this protocol. The operator speaks this and the one before.
pub const VERSION: u32 = 1;

/// Port of the sidecar's control endpoints on the pod's address.
pub const CONTROL_PORT: u16 = 9710;

/// Header that carries the secret of a command: the HMAC of the addressed pod's UID under the hub's key, hexadecimal.
pub const TOKEN_HEADER: &str = "processhub-token";

/// Paths of the sidecar's control endpoints.
pub mod path {
    /// `GET`, operator: a [`super::Report`].
    pub const REPORT: &str = "/v1/report";
    /// `POST` [`super::Freeze`], operator.
    pub const FREEZE: &str = "/v1/freeze";
    /// `POST` [`super::Import`], operator.
    pub const IMPORT: &str = "/v1/import";
    /// `POST` [`super::Activate`], operator.
    pub const ACTIVATE: &str = "/v1/activate";
    /// `POST` [`super::Thaw`], operator.
    pub const THAW: &str = "/v1/thaw";
    /// `POST` [`super::Renew`], operator.
    pub const RENEW: &str = "/v1/renew";
    /// `POST` [`crate::replica::Replicate`], operator.
    pub const REPLICATE: &str = "/v1/replicate";
    /// `POST` [`crate::replica::Offer`], an owner's sidecar.
    pub const REPLICA: &str = "/v1/replica";
    /// `POST` [`crate::replica::Seal`], operator: a [`crate::replica::Sealed`].
    pub const SEAL: &str = "/v1/replica/seal";
    /// `GET`, another sidecar: the manifest of a state; `/v1/state/<part>?offset=N` its bytes. The sealed one for a target;
    /// with `checkpoint` the one that an owner offers a holder, with `process` the replica that a holder has of that process.
    pub const STATE: &str = "/v1/state";
    /// `POST` [`super::Forward`], target sidecar.
    pub const FORWARD: &str = "/v1/forward";
    /// `POST` [`super::Trial`], operator.
    pub const TRIAL: &str = "/v1/trial";
    /// `POST`, the target's sidecar: a copy of the state of a worker that serves. `GET` of `<path>/<capture>/<part>`: its
    /// bytes.
    pub const COPY: &str = "/v1/copy";
    /// `POST` [`super::HandOn`], operator.
    pub const HAND_ON: &str = "/v1/hand-on";
    /// `POST` [`super::LetGo`], operator.
    pub const LET_GO: &str = "/v1/let-go";
    /// `GET`, kubelet, without a token: returns when the worker may be told to stop.
    pub const PRE_STOP: &str = "/v1/prestop";
    /// `GET`, kubelet: the sidecar is up and the worker may be started.
    pub const START: &str = "/startz";
    /// `GET`, kubelet: this pod serves its process.
    pub const READY: &str = "/readyz";
    /// `GET`, kubelet: the sidecar runs.
    pub const LIVE: &str = "/livez";
    /// `GET`: Prometheus metrics.
    pub const METRICS: &str = "/metrics";
}

/// Whom a command is for. A sidecar refuses one that is not for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Addressee {
    /// The process.
    pub process: ProcessUid,
    /// The pod.
    pub pod: PodUid,
}

/// Stop acknowledging: hold new requests, let those in flight finish, suspend the worker, capture its state.
///
/// Answered when the capture and the record with floor `epoch` are on disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Freeze {
    /// Whom it is for.
    pub to: Addressee,
    /// Epoch of the move.
    pub epoch: Epoch,
    /// Whether the state is captured; without, the source is only sealed.
    pub capture: bool,
    /// How long requests in flight may take to finish.
    pub drain_timeout_milliseconds: u64,
    /// How long the worker may take to suspend and to capture.
    pub state_query_timeout_milliseconds: u64,
}

/// Fetch the sealed state from the source, give it to the worker, persist it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Import {
    /// Whom it is for.
    pub to: Addressee,
    /// Epoch of the move.
    pub epoch: Epoch,
    /// What must arrive.
    pub state: StateId,
    /// Where it is.
    pub from: Peer,
    /// Whether it is there as a replica, and not as that pod's own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replica: bool,
    /// How long it may take.
    pub timeout_milliseconds: u64,
    /// What the worker is told of the reason.
    pub reason: ImportReason,
    /// The target's code is another one than the source's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code_change: Option<CodeChange>,
}

/// Fetch a copy of the state of the source, which serves on, and see whether the worker would take it. Nothing is kept of
/// it, and the record stays what it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trial {
    /// Whom it is for.
    pub to: Addressee,
    /// Epoch of the move.
    pub epoch: Epoch,
    /// Who serves.
    pub from: Peer,
    /// How long the copy may take, and how long the worker over its answer.
    pub timeout_milliseconds: u64,
    /// What the worker is told.
    pub code_change: CodeChange,
}

/// What the worker of a target learns when its code is not that which wrote the state.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CodeChange {
    /// Version of the source's code, where the state itself does not say it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub from: String,
    /// Whether the target's code is newer or older.
    pub direction: Direction,
    /// `spec.upgrade.extra` of the hub, as JSON text; empty for none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub extra: String,
}

/// Why a state is imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ImportReason {
    /// A planned move.
    Handover,
    /// The owner died; this is the newest copy that is left.
    Crash,
    /// The process leaves its hub for another one, whose pod the target is.
    Transfer,
}

/// What a command to one pod carries in [`TOKEN_HEADER`]. Never shown.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Token(pub String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// Another incarnation's sidecar.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// Its pod, for the token.
    pub pod: PodUid,
    /// The pod's address.
    pub address: String,
    /// Port of its control endpoints.
    pub control_port: u16,
    /// Port of its process; absent where that is the reader's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_port: Option<u16>,
    /// What it takes for a command: it may be of a hub with another key. Absent where the reader's own key gives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
}

impl Peer {
    /// A sidecar of the reader's own hub.
    #[must_use]
    pub fn of_this_hub(pod: PodUid, address: String, control_port: u16) -> Self {
        Self { pod, address, control_port, data_port: None, token: None }
    }
}

/// What makes a grant expire: it is honoured only by the boot that issued the challenge, and only so long after.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Challenge {
    /// The boot that issued it.
    pub boot: BootId,
    /// That boot's clock when it did, in milliseconds.
    pub issued_milliseconds: u64,
}

/// A grant's proof of being fresh, and the record that it is meant for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Grant {
    /// The challenge that it answers.
    pub challenge: Challenge,
    /// How long after the challenge it is void.
    pub valid_milliseconds: u64,
    /// The record that the ledger names.
    pub record: RecordId,
}

/// Serve from now on, at `epoch`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Activate {
    /// Whom it is for.
    pub to: Addressee,
    /// Epoch that the ledger gives it.
    pub epoch: Epoch,
    /// Freshness.
    pub grant: Grant,
    /// The state that the ledger says it acknowledged.
    pub state: Option<StateId>,
    /// The sealed source, to be told where to forward.
    pub source: Option<Peer>,
    /// The process's own data, handed to the worker.
    pub start: StartInfo,
}

/// What a worker learns when it becomes active.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StartInfo {
    /// Whether this is the process's first start.
    pub initial: bool,
    /// Whether an owner died before it.
    pub recovery: bool,
    /// Whether it comes from another hub.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub transfer: bool,
    /// `HubProcess.spec.config`, as JSON text; empty for none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub config: String,
    /// The process's labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<(String, String)>,
    /// First sequence number that may be missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub may_miss_from: Option<Seq>,
}

/// Serve again, at `epoch`: the move was undone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Thaw {
    /// Whom it is for.
    pub to: Addressee,
    /// Epoch of the abort.
    pub epoch: Epoch,
    /// Freshness.
    pub grant: Grant,
}

/// Serve on: a lease that counts from the challenge that this answers. Obeyed beside any other command; nothing of it is in
/// the record.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Renew {
    /// Whom it is for.
    pub to: Addressee,
    /// The epoch that it serves at.
    pub epoch: Epoch,
    /// Freshness.
    pub grant: Grant,
}

/// From the target to the sealed source: forward what you hold and what still arrives.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Forward {
    /// Whom it is for.
    pub to: Addressee,
    /// Epoch at which the target serves.
    pub epoch: Epoch,
    /// The target.
    pub peer: Peer,
}

/// To the sealed source of a committed move whose target's worker starts only when the source's has ended (cold swap):
/// forward what you hold and what still arrives. It waits at the target until the target serves; the blackout goes on until
/// then, and ends with the target's own [`Forward`]. The worker's end waits for nothing more.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HandOn {
    /// Whom it is for.
    pub to: Addressee,
    /// Epoch at which the target will serve.
    pub epoch: Epoch,
    /// The target.
    pub peer: Peer,
}

impl HandOn {
    /// The forwarding that it begins: what the record knows of it.
    #[must_use]
    pub fn forward(&self) -> Forward {
        Forward { to: self.to.clone(), epoch: self.epoch, peer: self.peer.clone() }
    }
}

/// To an owner whose process was deleted: let requests in flight finish, then acknowledge nothing any more, ever. The
/// worker's end waits for nothing more.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LetGo {
    /// Whom it is for.
    pub to: Addressee,
    /// An epoch above all that this pod has obeyed. The object that counted them is gone, so nobody gives one out again.
    pub epoch: Epoch,
    /// How long requests in flight may take to finish.
    pub drain_timeout_milliseconds: u64,
}

/// What a sidecar says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// [`VERSION`] that it speaks.
    pub protocol: u32,
    /// The process that it was started for.
    pub process: ProcessUid,
    /// Its pod.
    pub pod: PodUid,
    /// Its record.
    pub record: RecordId,
    /// The highest epoch that it obeyed.
    pub floor: Epoch,
    /// Its durable role.
    pub role: Role,
    /// A fresh challenge.
    pub challenge: Challenge,
    /// The worker as last seen.
    pub worker: WorkerView,
    /// Whether requests are being answered by this pod now.
    pub serving: bool,
    /// Milliseconds since it began to serve at its present epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving_for_milliseconds: Option<u64>,
    /// Milliseconds since the freeze was complete, while frozen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frozen_for_milliseconds: Option<u64>,
    /// The command that is being carried out, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busy: Option<Busy>,
    /// The move for which the worker was offered a copy of the state and did not refuse it, or none could be had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried: Option<Epoch>,
    /// Why the last freeze, trial or import failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Requests held now.
    pub held: u64,
    /// Length of the last blackout: from the freeze of the source (as the source measured it up to the forwarding) to
    /// the first moment that held requests could be answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blackout_microseconds: Option<u64>,
    /// Whether the worker's `preStop` hook is waiting here.
    #[serde(default)]
    pub stopping: bool,
    /// What may be missing after the worker crashed and was given its newest kept state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<crate::ledger::Lost>,
    /// How the state is kept against a crash; absent from a sidecar that keeps none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<CheckpointView>,
    /// Its lease; absent where it serves without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseView>,
    /// Its replicas; absent where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<crate::replica::ReplicaView>,
}

/// How a sidecar keeps its worker's state against a crash. The newest state itself is in [`Role::Active`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointView {
    /// What the hub chose; absent when each answer decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<CheckpointClass>,
    /// Whether the worker can be captured while it serves: if it cannot, there are no checkpoints. Absent while it does not
    /// say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<bool>,
    /// Whether the newest state on disk contains everything that was answered.
    pub current: bool,
    /// Milliseconds since the newest state on disk was known to be the worker's; absent where that was in an earlier life
    /// of the sidecar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_milliseconds: Option<u64>,
}

/// What an answer to a client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum CheckpointClass {
    /// Nothing; only moves capture.
    None,
    /// Nothing; the state is captured every period.
    Async,
    /// A state on disk that contains its change.
    Sync,
}

/// A command in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Busy {
    /// Which.
    pub command: CommandKind,
    /// At which epoch.
    pub epoch: Epoch,
    /// For how long.
    pub milliseconds: u64,
}

/// The commands by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum CommandKind {
    /// [`Freeze`].
    Freeze,
    /// [`Trial`].
    Trial,
    /// [`Import`].
    Import,
    /// [`Activate`].
    Activate,
    /// [`Thaw`].
    Thaw,
    /// [`Forward`].
    Forward,
    /// [`HandOn`].
    HandOn,
    /// [`LetGo`].
    LetGo,
    /// [`Renew`].
    Renew,
    /// [`crate::replica::Replicate`].
    Replicate,
}

/// A freeze or import that did not come to its end. The sidecar holds its role; only the operator decides what next.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// At which epoch.
    pub epoch: Epoch,
    /// What kind.
    pub kind: FailureKind,
    /// For people: what happened, at most 1 KiB.
    pub message: String,
}

/// Why a freeze or import failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum FailureKind {
    /// The worker did not suspend or capture in time.
    StateQueryTimeout,
    /// The worker answered the capture with an error, or cut it short.
    CaptureFailed,
    /// The worker said that it cannot accept the state (413, 422).
    ImportRefused,
    /// Connection, disk or digest.
    ImportFailed,
}

/// The worker as the sidecar sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerView {
    /// Whether it answers.
    pub state: WorkerState,
    /// Whether it can hand its state over; unknown until it answered once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub can_hand_over: Option<bool>,
    /// Its code's version.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub vsn: String,
    /// Its sequence number as last seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<Seq>,
    /// Version of the worker contract that it speaks, if that is not the sidecar's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreign_contract: Option<u32>,
}

/// What state the worker is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum WorkerState {
    /// Not started yet, because this pod waits for the source's end (cold swap).
    Gated,
    /// It does not answer (yet).
    #[default]
    Unreachable,
    /// Ready to be given a state or to be activated.
    Standby,
    /// Serving.
    Active,
    /// Suspended.
    Suspended,
    /// Ended with its pod, for good: the kubelet has told the sidecar to end, which it does only when every other container
    /// has ended, after the worker's `preStop` hook was answered here, and nothing listens where the worker did. The sidecar
    /// stays a while longer, for the clients.
    Ended,
}

/// A refused command. Nothing was changed by it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// Why.
    pub code: RefusalCode,
    /// For people: what was wrong and what to do.
    pub message: String,
    /// The highest epoch that the sidecar obeyed.
    pub floor: Epoch,
}

/// Why a command was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RefusalCode {
    /// No or a wrong token (401).
    Unauthenticated,
    /// Not JSON, an unknown field, a value out of bounds (400).
    BadRequest,
    /// For another process or pod (409).
    WrongAddressee,
    /// At or below the floor (409).
    StaleEpoch,
    /// The role does not allow it (409).
    WrongRole,
    /// The grant answers another boot's challenge, or has expired (409).
    StaleGrant,
    /// The grant is for another record: this pod lost its volume (409).
    WrongRecord,
    /// It does not hold the state that the ledger says it acknowledged (409).
    WrongState,
    /// Another command is in progress; ask again (503).
    Busy,
}

impl RefusalCode {
    /// The HTTP status that carries it.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::Unauthenticated => 401,
            Self::BadRequest => 400,
            Self::WrongAddressee
            | Self::StaleEpoch
            | Self::WrongRole
            | Self::StaleGrant
            | Self::WrongRecord
            | Self::WrongState => 409,
            Self::Busy => 503,
        }
    }
}

//! The trait that a worker implements.

use processhub_protocol::contract::error::clean;
use processhub_protocol::contract::{
    CapturePurpose, Consent, ConsentRequest, Direction, ErrorBody, ErrorCode, PartName, ProcessInfo, Reason,
};
use processhub_protocol::id::{Epoch, Seq};
use serde_json::Value;

use crate::import::{ImportSink, Imported, MemorySink};
use crate::part::Part;
use crate::tracked::Track;

/// Holds the state of one process.
///
/// The state is kept in one of three ways: in a [`crate::Tracked`] (see [`Worker::tracked`]), by methods of one's own
/// ([`Worker::capture`], [`Worker::decode`], [`Worker::install`]), or not at all.
///
/// The methods are called one at a time, on a thread that may block, so that they may compute for as long as they need
/// without keeping the worker from answering `GET /v1/info`. Clients' requests never run at the same time as
/// [`Worker::capture`], [`Worker::install`], [`Worker::change_code`] or the hooks, except [`Worker::before_capture`] and
/// [`Worker::consent`], which are called while clients are served too, and [`Worker::capture`] of a worker that says
/// [`Worker::captured_live`].
pub trait Worker: Send + Sync + 'static {
    /// A whole state, decoded and ready to take the place of the present one. `()` for a worker without a state, and for
    /// one whose state is tracked.
    type State: Send;

    /// The state, if it is a [`crate::Tracked`]. Then `capture`, `decode`, `install` and `merge` are never called: the
    /// worker is captured while it serves, gives and takes deltas, and numbers its answers, by itself. It is asked for
    /// at the start: always the same.
    fn tracked(&self) -> Option<&dyn Track> {
        None
    }

    /// Version of the code, as `spec.vsn` of the hub has it.
    fn vsn(&self) -> String {
        String::new()
    }

    /// Versions of the code, beside this one, whose states this code takes, by [`Worker::code_change`] or as they are. A
    /// state of any other version is refused.
    fn accepts_from(&self) -> Vec<String> {
        Vec::new()
    }

    /// The worker's load, in a unit that is the same for all workers of the hub. Called often; must be quick.
    fn load(&self) -> u64 {
        0
    }

    /// A capture is about to be taken: the moment to bring what is buffered into the state. Called in every capture, also
    /// while clients are served.
    ///
    /// # Errors
    /// What is told to the sidecar: nothing was captured.
    fn before_capture(&self, _: CapturePurpose) -> Result<(), Refusal> {
        Ok(())
    }

    /// Whether [`Worker::capture`] gives one point in time also while clients' requests change the state, because both take
    /// the same lock. Then the state is kept against a crash while the worker serves. Always the same; a tracked state is
    /// captured so without being asked.
    fn captured_live(&self) -> bool {
        false
    }

    /// The state as it is now, in parts with different names. The worker is suspended, unless it says
    /// [`Worker::captured_live`]: nothing changes it.
    ///
    /// # Errors
    /// [`Refusal::no_state`] (the default) says that this worker moves without a state; anything else aborts the move.
    fn capture(&self) -> Result<Vec<Part>, Refusal> {
        Err(Refusal::no_state())
    }

    /// Where the bytes of one part go while they come in. In memory unless this says otherwise.
    ///
    /// # Errors
    /// What is told to the sidecar; [`Refusal::too_large`] and [`Refusal::cannot_accept`] abort the move.
    fn import(&self, _part: &PartName) -> Result<Box<dyn ImportSink>, Refusal> {
        Ok(Box::<MemorySink>::default())
    }

    /// Whether this worker takes a state at all, before a byte of it is looked at.
    ///
    /// # Errors
    /// What is told to the sidecar; [`Refusal::cannot_accept`] aborts the move and leaves the old owner in charge.
    fn accept(&self, _: &ApplyContext) -> Result<(), Refusal> {
        Ok(())
    }

    /// Converts the parts of a state that another version of the code has written into those that this version writes:
    /// OTP's `code_change(old_vsn | {down, vsn}, state, extra)`. Called when the version differs, before the state is
    /// decoded, for a mere trial too: it must touch nothing but `state`. A state of this very version is taken as it is,
    /// whatever the reason. The default takes every state as it is; [`crate::Steps`] goes from version to version.
    ///
    /// # Errors
    /// What is told to the sidecar; [`Refusal::cannot_accept`] leaves the old code with the old state in charge.
    fn code_change(&self, _from: &OldVsn, state: Imported, _extra: &Value) -> Result<Imported, Refusal> {
        Ok(state)
    }

    /// Makes a state out of what came in, as this version writes it, without touching the present one: it is called for a
    /// mere trial too.
    ///
    /// # Errors
    /// What is told to the sidecar; [`Refusal::cannot_accept`] aborts the move and leaves the old owner in charge.
    fn decode(&self, _state: &Imported, _context: &ApplyContext) -> Result<Self::State, Refusal> {
        Err(Refusal::cannot_accept("this worker takes no state: implement `decode` and `install`"))
    }

    /// Replaces the state by a decoded one.
    fn install(&self, _state: Self::State) {}

    /// What the state is to be, of the present one and that of another incarnation of the same process, after a division
    /// of the cluster (reason `Merge`). It must not touch the present one: it is called for a mere trial too.
    ///
    /// # Errors
    /// As [`Worker::decode`]; the default refuses.
    fn merge(&self, _other: Self::State) -> Result<Self::State, Refusal> {
        Err(Refusal::cannot_accept("this worker does not merge two states: implement `merge`"))
    }

    /// Takes up other code without a restart (strategy `Live`), with the state as that code has it. The worker is
    /// suspended. Afterwards [`Worker::vsn`] is `change.to`.
    ///
    /// # Errors
    /// What is told to the sidecar; the old code goes on with the old state, so it must be there still. The default says
    /// that this worker cannot.
    fn change_code(&self, _change: &CodeChange) -> Result<(), Refusal> {
        Err(Refusal::not_offered("this worker cannot change its code while it runs: use another strategy"))
    }

    /// Whether [`Worker::consent`] is to be asked before the process is moved. Always the same.
    fn asks_consent(&self) -> bool {
        false
    }

    /// Whether the process may be moved now; [`Consent::Defer`] asks for another time, within the bounds of the hub's
    /// `migration.consent`. Clients are being served.
    fn consent(&self, _ask: &ConsentRequest) -> Consent {
        Consent::Ready
    }

    /// Begins with an initial state. The default keeps what the worker was made with.
    ///
    /// # Errors
    /// The worker stays in Standby, and is asked again.
    fn initial(&self, _activation: &Activation) -> Result<(), Refusal> {
        Ok(())
    }

    /// The worker is about to serve: the moment to start timers and connect to what is outside.
    ///
    /// # Errors
    /// The worker stays in Standby, and is asked again.
    fn activate(&self, _activation: &Activation) -> Result<(), Refusal> {
        Ok(())
    }

    /// No request runs any more and none will: stop everything else that could change the state.
    ///
    /// # Errors
    /// The worker stays Active, and the move is aborted.
    fn suspend(&self, _reason: Reason) -> Result<(), Refusal> {
        Ok(())
    }

    /// The worker serves again after a suspend: undo what [`Worker::suspend`] did.
    fn resume(&self) {}
}

/// Which code wrote a state, seen from the code that takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OldVsn {
    /// Older code: OTP's `old_vsn`.
    Up(String),
    /// Newer code, the state goes back: OTP's `{down, vsn}`.
    Down(String),
}

impl OldVsn {
    /// From the two fields of the wire.
    #[must_use]
    pub fn new(direction: Direction, vsn: &str) -> Self {
        match direction {
            Direction::Up => Self::Up(vsn.to_owned()),
            Direction::Down => Self::Down(vsn.to_owned()),
        }
    }

    /// The version, whichever way it goes.
    #[must_use]
    pub fn vsn(&self) -> &str {
        match self {
            Self::Up(vsn) | Self::Down(vsn) => vsn,
        }
    }
}

/// What a worker is asked in [`Worker::change_code`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeChange {
    /// The version that the worker is, and whether the other one is newer or older.
    pub from: OldVsn,
    /// The version that it is to be.
    pub to: String,
    /// What the hub's upgrade passes to the code change; null otherwise.
    pub extra: Value,
}

/// What a state that came in is, and why it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApplyContext {
    /// The epoch at which the worker will be activated.
    pub epoch: Epoch,
    /// Why it gets a state.
    pub reason: Reason,
    /// Version of the code that wrote it.
    pub vsn: String,
    /// Whether this code is newer or older than that.
    pub direction: Direction,
    /// What the hub's upgrade passes to the code change; null otherwise.
    pub extra: Value,
    /// The state's number.
    pub seq: Seq,
}

/// What a worker is told when it begins to serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activation {
    /// Its epoch: a fencing token for resources outside.
    pub epoch: Epoch,
    /// Why.
    pub reason: Reason,
    /// True: with an initial state. False: with the one that was installed.
    pub initial: bool,
    /// The process's configuration and labels.
    pub process: ProcessInfo,
    /// First number of a change that may be missing after a crash; none when nothing is.
    pub may_miss: Option<Seq>,
}

/// A worker's no, as the sidecar is told it. The message is shown on the process's object: name what was wrong and what
/// mends it, and never put bytes of the state into it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.message)]
pub struct Refusal(pub(crate) ErrorBody);

impl Refusal {
    /// The worker has no state.
    #[must_use]
    pub fn no_state() -> Self {
        Self(ErrorBody::new(ErrorCode::NoState, "this worker has no state"))
    }

    /// The worker cannot take this state, now or later (422).
    #[must_use]
    pub fn cannot_accept(message: &str) -> Self {
        Self(ErrorBody::new(ErrorCode::CannotAccept, message))
    }

    /// The state is too large for this worker (413).
    #[must_use]
    pub fn too_large(message: &str) -> Self {
        Self(ErrorBody::new(ErrorCode::TooLarge, message))
    }

    /// This worker does not have the call (404).
    #[must_use]
    pub fn not_offered(message: &str) -> Self {
        Self(ErrorBody::new(ErrorCode::NotFound, message))
    }

    /// Not now (503); the sidecar asks again while there is time.
    #[must_use]
    pub fn busy(message: &str) -> Self {
        Self(ErrorBody::new(ErrorCode::Busy, message))
    }

    /// The worker failed (500); the sidecar tries again a few times.
    #[must_use]
    pub fn internal(message: &str) -> Self {
        Self(ErrorBody::new(ErrorCode::Internal, message))
    }

    /// The same, with the thing that it is about before its message.
    pub(crate) fn about(self, thing: &str) -> Self {
        Self(ErrorBody { message: clean(&format!("{thing}: {}", self.0.message)), ..self.0 })
    }
}

impl From<ErrorBody> for Refusal {
    fn from(body: ErrorBody) -> Self {
        Self(body)
    }
}

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Self {
        Self::internal(&error.to_string())
    }
}

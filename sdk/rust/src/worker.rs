//! The trait that a worker implements.

use processhub_protocol::contract::{Direction, ErrorBody, ErrorCode, PartName, ProcessInfo, Reason};
use processhub_protocol::id::{Epoch, Seq};
use serde_json::Value;

use crate::import::{ImportSink, Imported, MemorySink};
use crate::part::Part;

/// Holds the state of one process.
///
/// The methods are called one at a time, on a thread that may block, so that they may compute for as long as they need
/// without keeping the worker from answering `GET /v1/info`. Clients' requests never run at the same time as
/// [`Worker::capture`], [`Worker::install`] or the hooks.
pub trait Worker: Send + Sync + 'static {
    /// A whole state, decoded and ready to take the place of the present one. `()` for a worker without a state.
    type State: Send;

    /// Version of the code, as `spec.vsn` of the hub has it.
    fn vsn(&self) -> String {
        String::new()
    }

    /// Versions of the code, beside this one, whose states [`Worker::decode`] understands. A state of any other version is
    /// refused before it is decoded.
    fn accepts_from(&self) -> Vec<String> {
        Vec::new()
    }

    /// The worker's load, in a unit that is the same for all workers of the hub. Called often; must be quick.
    fn load(&self) -> u64 {
        0
    }

    /// The state as it is now, in parts with different names. The worker is suspended: nothing changes it.
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

    /// Makes a state out of what came in, converting it from the version that wrote it (`context.vsn`), without
    /// touching the present one: it is called for a mere trial too.
    ///
    /// # Errors
    /// What is told to the sidecar; [`Refusal::cannot_accept`] aborts the move and leaves the old owner in charge.
    fn decode(&self, _state: &Imported, _context: &ApplyContext) -> Result<Self::State, Refusal> {
        Err(Refusal::cannot_accept("this worker takes no state: implement `decode` and `install`"))
    }

    /// Replaces the state by a decoded one.
    fn install(&self, _state: Self::State) {}

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

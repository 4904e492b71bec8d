//! The words of the pod's machine: what a container is, what can happen, what can be done.

use super::spec::{Container as Spec, Role};
use jiff::Timestamp;
use std::time::Duration;

/// How long crashed containers wait.
#[derive(Clone, Copy, Debug)]
pub struct BackOff {
    /// Before the second restart in a row; the first is at once.
    pub first: Duration,
    /// The longest wait.
    pub limit: Duration,
    /// A run this long ends the series.
    pub reset: Duration,
}

/// The end of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Exit code; 128 + signal for a signal.
    pub code: i32,
    /// When the run began.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
}

/// Why a container is not there, in the words of its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// For example `ErrImagePull`.
    pub reason: &'static str,
    /// For a person.
    pub message: String,
}

/// Where a container is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It never ran, or could not be started.
    Waiting(Waiting),
    /// It was told to start.
    Starting,
    /// It runs.
    Running {
        /// Since when.
        since: Timestamp,
    },
    /// It ended.
    Ended(Exit),
}

/// How far the stopping of a running container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Its hook runs.
    Hook,
    /// Its hook is done, and it waits for containers that stop before it.
    Hooked,
    /// It was told to stop.
    Told,
    /// It was killed.
    Killed,
}

/// One container of the pod.
#[derive(Clone, Debug)]
pub struct Container {
    /// What it is.
    pub spec: Spec,
    /// Where it is.
    pub state: State,
    /// How often it was started again.
    pub restarts: u32,
    /// The end of the run before.
    pub last: Option<Exit>,
    /// Whether it has passed its start-up probe.
    pub started: bool,
    /// Whether its readiness probe succeeds.
    pub ready: bool,
    /// Counts starts; what is said of an earlier run is ignored.
    pub run: u64,
    pub(super) failures: u32,
    pub(super) not_before: Option<Timestamp>,
    pub(super) stop: Option<Stop>,
    pub(super) kill_at: Option<Timestamp>,
    pub(super) replaced: bool,
}

impl Container {
    pub(super) fn alive(&self) -> bool {
        matches!(self.state, State::Starting | State::Running { .. })
    }

    /// Whether its order allows the next one to start.
    pub(super) fn passed(&self) -> bool {
        match self.spec.role {
            Role::Init => matches!(&self.state, State::Ended(exit) if exit.code == 0),
            Role::Sidecar => self.started && matches!(self.state, State::Running { .. }),
            Role::Main => true,
        }
    }

    /// Whether it waits for the end of its back-off.
    pub fn backing_off(&self, now: Timestamp) -> bool {
        self.failures > 1 && self.not_before.is_some_and(|t| t > now)
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A run began.
    Started,
    /// A start failed, for a reason that may pass.
    Refused(Waiting),
    /// A run ended with this code.
    Exited(i32),
    /// The start-up probe succeeded.
    StartupPassed,
    /// The start-up or liveness probe failed for good.
    Unhealthy,
    /// The readiness probe changed its mind.
    Ready(bool),
    /// The hook before stopping is done.
    HookDone,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Start a run of the container.
    Start {
        /// Its place.
        container: usize,
        /// The run.
        run: u64,
    },
    /// End the liveness probe.
    StopLiveness(usize),
    /// Call the hook before stopping.
    Hook(usize),
    /// SIGTERM.
    Terminate(usize),
    /// SIGKILL.
    Kill(usize),
    /// Everything has ended: the pod may go.
    Finished,
}

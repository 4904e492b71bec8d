//! The worker's side of the contract as a pure state machine.
//!
//! ```text
//! start or restart -> STANDBY --activate(e)--> ACTIVE --suspend(e')--> SUSPENDED --SIGTERM--> gone
//!                       ^ import, apply          ^-------resume(e'')-------'
//! ```
//!
//! A command goes through in two steps: first it is asked for (`suspend`, `resume`, `activate`, `apply`, `change_code`),
//! which says whether there is work to do ([`Step::Run`]) or whether it is already in effect ([`Step::Again`]); then the
//! outcome of the work is told (`suspended`, `resumed`, `activated`, `applied`, `code_changed`). Who runs it does one
//! command's work at a time; only the draining of requests between `suspend` and [`Machine::drained`] may overlap with
//! other commands.

use super::{ApplyRequest, CodeChangeRequest, ErrorBody, ErrorCode, Name, Reason, WorkerState};
use crate::id::Epoch;

/// What is left to do for a command that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The work of the command; then tell its outcome.
    Run,
    /// Nothing: it is in effect, answer as the first time.
    Again,
}

/// What a worker can do beyond the least that the contract asks of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    /// It can be captured while it serves ([`super::CaptureMode::Live`]).
    pub live: bool,
    /// It takes deltas ([`super::Info::delta_from`]).
    pub deltas: bool,
}

/// A worker's state, the highest epoch that it has seen, and the command that used the last one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    abilities: Abilities,
    phase: Phase,
    highest: Epoch,
    used: Option<(Command, Epoch)>,
    applied: Option<Applied>,
    changed: Option<CodeChangeRequest>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Standby,
    Active,
    /// No client is admitted any more; those that were still run.
    Suspending,
    Suspended,
}

/// The commands that change what a worker may do; each needs an epoch of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    Suspend,
    Resume,
    Activate,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Applied {
    import: Name,
    request: ApplyRequest,
}

type Answer<T> = Result<T, ErrorBody>;

impl Machine {
    /// A worker that has just started. [`Machine::default`] is one that is captured only while suspended and takes whole
    /// states only.
    #[must_use]
    pub fn new(abilities: Abilities) -> Self {
        Self { abilities, ..Self::default() }
    }

    /// What the worker is doing. A worker that is draining is still Active: its state can change.
    #[must_use]
    pub fn state(&self) -> WorkerState {
        match self.phase {
            Phase::Standby => WorkerState::Standby,
            Phase::Active | Phase::Suspending => WorkerState::Active,
            Phase::Suspended => WorkerState::Suspended,
        }
    }

    /// Highest epoch seen; 0 after a start.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.highest
    }

    /// Whether a client's request may run now.
    ///
    /// # Errors
    /// The state to answer it with (503 and `ProcessHub-State`): it was not executed.
    pub fn admit(&self) -> Result<(), WorkerState> {
        match self.phase {
            Phase::Active => Ok(()),
            Phase::Standby => Err(WorkerState::Standby),
            Phase::Suspending | Phase::Suspended => Err(WorkerState::Suspended),
        }
    }

    /// `POST /v1/suspend`. From the moment of [`Step::Run`] no client is admitted; when those that were are done, ask
    /// [`Machine::drained`].
    ///
    /// # Errors
    /// `StaleEpoch`, or `WrongState` in Standby.
    pub fn suspend(&mut self, epoch: Epoch) -> Answer<Step> {
        self.see(epoch)?;
        match self.phase {
            Phase::Standby => Err(self.wrong_state("`suspend` is for an active worker: activate it first")),
            Phase::Active => {
                self.claim(Command::Suspend, epoch)?;
                self.phase = Phase::Suspending;
                Ok(Step::Run)
            }
            Phase::Suspending => self.claim(Command::Suspend, epoch).map(|_| Step::Run),
            Phase::Suspended => self.claim(Command::Suspend, epoch).map(|_| Step::Again),
        }
    }

    /// All requests of a suspending worker are done: whether its work is to be done now, or somebody else asked for the
    /// same and it is.
    ///
    /// # Errors
    /// `StaleEpoch` when another command came in the meantime.
    pub fn drained(&self, epoch: Epoch) -> Answer<Step> {
        match (self.phase, self.used) {
            (Phase::Suspending, Some((Command::Suspend, used))) if used == epoch => Ok(Step::Run),
            (Phase::Suspended, Some((Command::Suspend, used))) if used == epoch => Ok(Step::Again),
            _ => Err(self.stale(epoch)),
        }
    }

    /// The work of a suspend is done (or failed, which leaves the worker active and the epoch free for a repeat).
    pub fn suspended(&mut self, epoch: Epoch, done: bool) {
        if self.drained(epoch) != Ok(Step::Run) {
            return;
        }
        if done {
            self.phase = Phase::Suspended;
        } else {
            self.phase = Phase::Active;
            self.used = None;
        }
    }

    /// `POST /v1/resume`. A suspend that is not through yet is called off at once.
    ///
    /// # Errors
    /// `StaleEpoch`, or `WrongState` in Standby.
    pub fn resume(&mut self, epoch: Epoch) -> Answer<Step> {
        self.see(epoch)?;
        match self.phase {
            Phase::Standby => Err(self.wrong_state("`resume` is for a suspended worker: activate this one")),
            Phase::Active => self.claim(Command::Resume, epoch).map(|_| Step::Again),
            Phase::Suspending => {
                self.claim(Command::Resume, epoch)?;
                self.phase = Phase::Active;
                Ok(Step::Again)
            }
            Phase::Suspended => self.free(Command::Resume, epoch).map(|()| Step::Run),
        }
    }

    /// The work of a resume is done: clients are admitted.
    pub fn resumed(&mut self, epoch: Epoch) {
        if self.phase == Phase::Suspended && self.claim(Command::Resume, epoch).is_ok() {
            self.phase = Phase::Active;
            self.changed = None;
        }
    }

    /// `POST /v1/activate`: the only way out of Standby. On an active worker it only renews the epoch.
    ///
    /// # Errors
    /// `StaleEpoch`; `WrongState` while suspended; `InitialMismatch` when `initial` does not fit what was applied.
    pub fn activate(&mut self, epoch: Epoch, initial: bool) -> Answer<Step> {
        self.see(epoch)?;
        match (self.phase, initial, &self.applied) {
            (Phase::Suspending | Phase::Suspended, _, _) => {
                Err(self.wrong_state("`activate` is for a worker in Standby: resume this one"))
            }
            (Phase::Active, _, _) => self.claim(Command::Activate, epoch).map(|_| Step::Again),
            (Phase::Standby, true, Some(_)) => Err(ErrorBody::new(
                ErrorCode::InitialMismatch,
                "`initial` is true and a state was applied, which would be dropped: send false",
            )),
            (Phase::Standby, false, None) => Err(ErrorBody::new(
                ErrorCode::InitialMismatch,
                "`initial` is false and no state was applied: apply one, or send true to begin with an empty one",
            )),
            (Phase::Standby, true, None) | (Phase::Standby, false, Some(_)) => {
                self.free(Command::Activate, epoch).map(|()| Step::Run)
            }
        }
    }

    /// The work of an activate is done: clients are admitted.
    pub fn activated(&mut self, epoch: Epoch) {
        if self.phase == Phase::Standby && self.claim(Command::Activate, epoch).is_ok() {
            self.phase = Phase::Active;
            self.applied = None;
        }
    }

    /// `POST /v1/capture`.
    ///
    /// # Errors
    /// `StaleEpoch`; `WrongState` in Standby, and while Active unless it can be captured live.
    pub fn capture(&mut self, epoch: Epoch) -> Answer<()> {
        self.see(epoch)?;
        match self.phase {
            Phase::Suspended => Ok(()),
            Phase::Active | Phase::Suspending if self.abilities.live => Ok(()),
            Phase::Active | Phase::Suspending => {
                Err(self.wrong_state("this worker is captured only while suspended: suspend it first"))
            }
            Phase::Standby => {
                Err(self.wrong_state("it has no state of its own to capture: activate it first"))
            }
        }
    }

    /// `POST /v1/consent`. Has no epoch and changes nothing.
    ///
    /// # Errors
    /// `WrongState` unless Active: only an owner has anything to consent to.
    pub fn consent(&self) -> Answer<()> {
        match self.phase {
            Phase::Active => Ok(()),
            Phase::Standby | Phase::Suspending | Phase::Suspended => {
                Err(self.wrong_state("only a worker that serves is asked for consent"))
            }
        }
    }

    /// `POST /v1/code-change`.
    ///
    /// # Errors
    /// `StaleEpoch`, or `WrongState` unless suspended.
    pub fn change_code(&mut self, request: &CodeChangeRequest) -> Answer<Step> {
        self.see(request.epoch)?;
        match self.phase {
            Phase::Suspended if self.changed.as_ref() == Some(request) => Ok(Step::Again),
            Phase::Suspended => Ok(Step::Run),
            Phase::Standby | Phase::Active | Phase::Suspending => {
                Err(self.wrong_state("code is changed only under a suspended worker: suspend it first"))
            }
        }
    }

    /// The work of a code change is done: the worker runs the other code.
    pub fn code_changed(&mut self, request: &CodeChangeRequest) {
        self.changed = Some(request.clone());
    }

    /// `PUT /v1/import/{id}/{part}`.
    ///
    /// # Errors
    /// `WrongState` unless in Standby.
    pub fn upload(&self) -> Answer<()> {
        match self.phase {
            Phase::Standby => Ok(()),
            Phase::Active | Phase::Suspending | Phase::Suspended => {
                Err(self.wrong_state("only a worker in Standby takes a state: restart it to replace its own"))
            }
        }
    }

    /// `POST /v1/import/{id}/apply`.
    ///
    /// # Errors
    /// `StaleEpoch`; `WrongState` unless in Standby; `WrongBase` for a delta on a state that is not held, or for a state
    /// to be merged into none.
    pub fn apply(&mut self, import: &Name, request: &ApplyRequest) -> Answer<Step> {
        self.see(request.epoch)?;
        self.upload()?;
        if self.applied.as_ref().is_some_and(|held| &held.import == import && &held.request == request) {
            return Ok(Step::Again);
        }
        let wrong_base = |message: &str| Err(ErrorBody::new(ErrorCode::WrongBase, message));
        let held = self.applied.as_ref().map(|held| held.request.seq);
        match (request.since, held) {
            (Some(since), _) if !self.abilities.deltas => wrong_base(&format!(
                "a delta on {since}: this worker takes whole states only, send one without `since`"
            )),
            (Some(since), None) => wrong_base(&format!(
                "a delta on {since}: this worker holds no state yet, send a whole one without `since`"
            )),
            (Some(since), Some(held)) if held != since => wrong_base(&format!(
                "a delta on {since}: this worker holds {held}, send a delta on that or a whole state without `since`"
            )),
            (None, None) if request.reason == Reason::Merge => {
                wrong_base("nothing to merge with: apply the process's own state first")
            }
            (Some(_), Some(_)) | (None, _) => Ok(Step::Run),
        }
    }

    /// The work of an apply is done: its state is the worker's. Not to be told of a dry run.
    pub fn applied(&mut self, import: &Name, request: &ApplyRequest) {
        self.applied = Some(Applied { import: import.clone(), request: request.clone() });
    }

    /// Rule 1: keeps the highest epoch, refuses a lower one.
    fn see(&mut self, epoch: Epoch) -> Answer<()> {
        if epoch < self.highest {
            return Err(self.stale(epoch));
        }
        self.highest = epoch;
        Ok(())
    }

    /// Whether `command` may use `epoch`: nobody did, or it did itself.
    fn free(&self, command: Command, epoch: Epoch) -> Answer<()> {
        match self.used {
            Some((by, used)) if used == epoch && by != command => Err(self.stale(epoch)),
            _ => Ok(()),
        }
    }

    fn claim(&mut self, command: Command, epoch: Epoch) -> Answer<()> {
        self.free(command, epoch)?;
        self.used = Some((command, epoch));
        Ok(())
    }

    fn stale(&self, epoch: Epoch) -> ErrorBody {
        let highest = self.highest;
        let message =
            format!("epoch {epoch} is used up, {highest} was seen: send the command at a new epoch");
        self.told(ErrorBody::new(ErrorCode::StaleEpoch, &message))
    }

    fn wrong_state(&self, remedy: &str) -> ErrorBody {
        let message = format!("the worker is {}; {remedy}", self.state().as_str());
        self.told(ErrorBody::new(ErrorCode::WrongState, &message))
    }

    fn told(&self, refusal: ErrorBody) -> ErrorBody {
        ErrorBody { state: Some(self.state()), epoch: Some(self.highest), ..refusal }
    }
}

#[cfg(test)]
mod tests;

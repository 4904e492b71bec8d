//! The operator's commands: one at a time, each in a task of its own, so that its work goes on when the caller is gone
//! and the same command again joins it.

mod freeze;
mod grant;
mod import;
mod trial;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use processhub_protocol::fence::Verdict;
use processhub_protocol::id::Epoch;
use processhub_protocol::wire::{
    Activate, Busy, CommandKind, Forward, Freeze, HandOn, Import, LetGo, Refusal, RefusalCode, Thaw, Trial,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::fence::CommitError;
use crate::sidecar::Sidecar;

/// A command as it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Stop acknowledging, capture.
    Freeze(Freeze),
    /// See whether the worker would take the state.
    Trial(Trial),
    /// Fetch and take a state.
    Import(Import),
    /// Serve.
    Activate(Activate),
    /// Serve again.
    Thaw(Thaw),
    /// Forward to the successor, which serves.
    Forward(Forward),
    /// Forward to the successor, where it waits.
    HandOn(HandOn),
    /// The process is no more.
    LetGo(LetGo),
}

/// What a command came to: it is in effect (its failure, if it had one, is in the report), or it was refused.
pub type Outcome = Result<(), Refusal>;

/// The command that is being carried out.
#[derive(Debug, Default)]
pub struct Commands {
    running: Mutex<Option<Running>>,
}

#[derive(Clone, Debug)]
struct Running {
    command: Command,
    since: u64,
    cancel: CancellationToken,
    done: watch::Receiver<Option<Outcome>>,
}

impl Command {
    fn kind(&self) -> CommandKind {
        match self {
            Self::Freeze(_) => CommandKind::Freeze,
            Self::Trial(_) => CommandKind::Trial,
            Self::Import(_) => CommandKind::Import,
            Self::Activate(_) => CommandKind::Activate,
            Self::Thaw(_) => CommandKind::Thaw,
            Self::Forward(_) => CommandKind::Forward,
            Self::HandOn(_) => CommandKind::HandOn,
            Self::LetGo(_) => CommandKind::LetGo,
        }
    }

    fn epoch(&self) -> Epoch {
        match self {
            Self::Freeze(command) => command.epoch,
            Self::Trial(command) => command.epoch,
            Self::Import(command) => command.epoch,
            Self::Activate(command) => command.epoch,
            Self::Thaw(command) => command.epoch,
            Self::Forward(command) => command.epoch,
            Self::HandOn(command) => command.epoch,
            Self::LetGo(command) => command.epoch,
        }
    }

    /// Whether both ask for the same. A repeated grant answers a newer challenge.
    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Activate(a), Self::Activate(b)) => {
                (&a.to, a.epoch, &a.state) == (&b.to, b.epoch, &b.state)
            }
            (Self::Thaw(a), Self::Thaw(b)) => (&a.to, a.epoch) == (&b.to, b.epoch),
            (a, b) => a == b,
        }
    }

    /// Whether this one ends the work on `running`: a thaw ends a freeze, as does the end of the process; and a grant whose record is written only waits
    /// for its worker, which nothing else has to wait for.
    fn ends(&self, running: &Self) -> bool {
        match running {
            Self::Freeze(_) => matches!(self, Self::Thaw(_) | Self::LetGo(_)),
            Self::Activate(_) | Self::Thaw(_) => true,
            Self::Trial(_) | Self::Import(_) | Self::Forward(_) | Self::HandOn(_) | Self::LetGo(_) => false,
        }
    }
}

impl Commands {
    /// What is being carried out, with its age at clock `now`.
    #[must_use]
    pub fn busy(&self, now: u64) -> Option<Busy> {
        let running = self.lock().clone()?;
        let milliseconds = now.saturating_sub(running.since);
        Some(Busy { command: running.command.kind(), epoch: running.command.epoch(), milliseconds })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sidecar {
    /// Carries `command` out, or joins who does. When this is dropped the work goes on.
    ///
    /// # Errors
    /// A refusal; then the command has changed nothing.
    pub async fn obey(self: &Arc<Self>, command: Command) -> Outcome {
        let served = matches!(command, Command::Forward(_));
        let outcome = self.run_or_join(command).await;
        if served && outcome.is_ok() {
            // Also where nothing is left to do, because the operator had this pod hand on before.
            self.successor_serves();
        }
        if let Err(refusal) = &outcome
            && refusal.code == RefusalCode::StaleEpoch
        {
            self.metrics.stale.inc();
        }
        outcome
    }

    async fn run_or_join(self: &Arc<Self>, command: Command) -> Outcome {
        loop {
            let verdict = self.judge(&command)?;
            let (mut done, ended) = {
                let mut running = self.commands.lock();
                match running.as_ref() {
                    Some(other) if other.command.same(&command) => (other.done.clone(), false),
                    _ if verdict == Verdict::InEffect => return Ok(()),
                    Some(other) if command.ends(&other.command) => {
                        other.cancel.cancel();
                        (other.done.clone(), true)
                    }
                    Some(other) => {
                        return Err(self.refuse(
                            RefusalCode::Busy,
                            format!("{:?} is being carried out; ask again", other.command.kind()),
                        ));
                    }
                    None => (self.start(&mut running, command.clone()), false),
                }
            };
            let outcome = match done.wait_for(Option::is_some).await {
                Ok(outcome) => outcome.clone(),
                // Its task panicked or this sidecar ends.
                Err(_) => Some(Err(self.refuse(RefusalCode::Busy, "the work was cut off; ask again".into()))),
            };
            if !ended && let Some(outcome) = outcome {
                return outcome;
            }
        }
    }

    fn start(
        self: &Arc<Self>,
        running: &mut Option<Running>,
        command: Command,
    ) -> watch::Receiver<Option<Outcome>> {
        let (sender, done) = watch::channel(None);
        let cancel = CancellationToken::new();
        *running = Some(Running {
            command: command.clone(),
            since: self.clock.milliseconds(),
            cancel: cancel.clone(),
            done: done.clone(),
        });
        let sidecar = Arc::clone(self);
        let work = async move {
            // Also when the work panics: what follows must not find it running for ever.
            let over = Over { sidecar: Arc::clone(&sidecar) };
            tracing::info!(command = ?command.kind(), epoch = %command.epoch(), "begins");
            let outcome = sidecar.carry_out(&command, &cancel).await;
            match &outcome {
                Ok(()) => tracing::info!(command = ?command.kind(), epoch = %command.epoch(), "done"),
                Err(refusal) => tracing::warn!(
                    command = ?command.kind(), epoch = %command.epoch(), code = ?refusal.code,
                    "refused: {}", refusal.message
                ),
            }
            drop(over);
            sender.send_replace(Some(outcome));
        };
        tokio::spawn(work.in_current_span());
        done
    }

    async fn carry_out(self: &Arc<Self>, command: &Command, cancel: &CancellationToken) -> Outcome {
        match command {
            Command::Freeze(command) => self.freeze(command, cancel).await,
            Command::Trial(command) => self.trial(command).await,
            Command::Import(command) => self.import(command).await,
            Command::Activate(command) => self.activate(command, cancel).await,
            Command::Thaw(command) => self.thaw(command, cancel).await,
            Command::Forward(command) => self.forward(command).await,
            Command::HandOn(command) => self.hand_on(command).await,
            Command::LetGo(command) => self.let_go(command).await,
        }
    }

    fn judge(&self, command: &Command) -> Result<Verdict, Refusal> {
        let record = self.fence.record();
        match command {
            Command::Freeze(command) => record.judge_freeze(command),
            Command::Trial(command) => record.judge_trial(command),
            Command::Import(command) => record.judge_import(command),
            Command::Activate(command) => record.judge_activate(command, &self.now()),
            Command::Thaw(command) => record.judge_thaw(command, &self.now()),
            Command::Forward(command) => record.judge_forward(command),
            Command::HandOn(command) => record.judge_hand_on(command),
            Command::LetGo(command) => record.judge_let_go(command),
        }
    }

    fn refuse(&self, code: RefusalCode, message: String) -> Refusal {
        Refusal { code, message, floor: self.fence.record().floor.epoch }
    }

    /// A record that could not be written, as a refusal: the disk may recover, so it says to ask again.
    fn refused(&self, error: CommitError) -> Refusal {
        match error {
            CommitError::Refused(refusal) => refusal,
            CommitError::Disk(_) => self.refuse(RefusalCode::Busy, error.to_string()),
        }
    }
}

struct Over {
    sidecar: Arc<Sidecar>,
}

impl Drop for Over {
    fn drop(&mut self) {
        *self.sidecar.commands.lock() = None;
        self.sidecar.settle();
    }
}

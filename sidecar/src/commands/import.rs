//! Import: fetch the sealed state, keep it, give it to the worker, record.

use std::sync::Arc;
use std::time::Duration;

use processhub_protocol::contract::error::clean;
use processhub_protocol::contract::{Disposition, Reason, WorkerState};
use processhub_protocol::wire::{CodeChange, Failure, FailureKind, Import, ImportReason};
use tokio::time::Instant;

use super::Outcome;
use crate::checkpoint::Exposure;
use crate::fence::{CommitError, Foreign, Stored};
use crate::keeper::Kept;
use crate::peer::{Place, Remote};
use crate::sidecar::{Seen, Sidecar};
use crate::worker::{Given, WorkerError};

/// How often a state is given to a worker that fails on it.
const ATTEMPTS: u32 = 3;
/// Pause before it is given again.
pub(super) const PAUSE: Duration = Duration::from_millis(100);

pub(super) struct Failed {
    pub(super) kind: FailureKind,
    pub(super) message: String,
}

impl Failed {
    pub(super) fn import(message: impl ToString) -> Self {
        Self { kind: FailureKind::ImportFailed, message: message.to_string() }
    }
}

impl Sidecar {
    pub(super) async fn import(self: &Arc<Self>, command: &Import) -> Outcome {
        self.change(|live| live.failure = None);
        self.tidy();
        let time = Duration::from_millis(command.timeout_milliseconds);
        let taken = tokio::time::timeout(time, self.take(command, time)).await.unwrap_or_else(|_| {
            Err(Failed::import(format!("not done within {} ms", command.timeout_milliseconds)))
        });
        let failed = match taken {
            Ok(instance) => {
                let import = command.clone();
                let commit = self.fence.commit(move |stored| {
                    let record = stored.record.import_done(&import)?;
                    let state = import.state;
                    let foreign = import.code_change.map(|change| Foreign { state, change });
                    let transferred = import.reason == ImportReason::Transfer;
                    Ok(Stored { record, foreign, transferred, ..stored.clone() })
                });
                match commit.await {
                    Ok(_) => {
                        self.metrics.state_bytes.set(command.state.bytes);
                        self.change(|live| {
                            live.delivered = instance;
                            live.exposure = Exposure::default();
                        });
                        return Ok(());
                    }
                    Err(CommitError::Refused(refusal)) => return Err(refusal),
                    Err(error) => Failed::import(error),
                }
            }
            Err(failed) => failed,
        };
        tracing::warn!(epoch = %command.epoch, kind = ?failed.kind, "the import failed: {}", failed.message);
        self.change(|live| {
            live.failure =
                Some(Failure { epoch: command.epoch, kind: failed.kind, message: clean(&failed.message) });
        });
        Ok(())
    }

    /// The state onto disk and, unless gated, into the worker; the start of the worker that has it.
    async fn take(&self, command: &Import, time: Duration) -> Result<Option<String>, Failed> {
        let begin = Instant::now();
        let place = if command.replica { Place::Replica(&command.to.process) } else { Place::Sealed };
        let remote = Remote { from: &command.from, epoch: command.epoch, state: &command.state, place };
        let written = self.peers.pull(remote, self.keeper.record()).await.map_err(Failed::import)?;
        let kept = self.keeper.find(&command.state).map_err(Failed::import)?;
        if self.gated() {
            written.synced().await.map_err(Failed::import)?;
            return Ok(None);
        }
        // The worker takes it while the disk does; both have to be done with it.
        let (synced, given) = tokio::join!(written.synced(), self.give_first(command, &kept, begin + time));
        synced.map_err(Failed::import)?;
        given.map(Some)
    }

    /// The state into the worker; the start of the worker that has it.
    async fn give_first(&self, command: &Import, kept: &Kept, deadline: Instant) -> Result<String, Failed> {
        let reason = match command.reason {
            ImportReason::Handover if command.code_change.is_some() => Reason::CodeChange,
            ImportReason::Handover => Reason::Handover,
            ImportReason::Crash => Reason::Crash,
            ImportReason::Transfer => Reason::Transfer,
        };
        let mut attempts = 0;
        loop {
            let instance = self.standby_worker().await;
            let left = deadline.saturating_duration_since(Instant::now());
            let change = command.code_change.clone();
            let given = Given { epoch: command.epoch, reason, change, time: left };
            let error = match self.deliver(kept, given).await {
                Ok(()) => return Ok(instance),
                Err(error) => error,
            };
            attempts += 1;
            after(&error, attempts)?;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Gives a kept state to the worker.
    pub(crate) async fn deliver(&self, kept: &Kept, mut given: Given) -> Result<(), WorkerError> {
        given.change = given.change.map(|change| self.for_worker(change));
        self.worker.give(kept, given).await
    }

    /// To a worker without versions the hub's word for one would be that of a stranger.
    pub(super) fn for_worker(&self, change: CodeChange) -> CodeChange {
        let names_none = match &self.live().worker {
            Seen::Contract(info) => info.vsn.is_empty(),
            Seen::Plain | Seen::Nothing => false,
        };
        if names_none { CodeChange { from: String::new(), ..change } } else { change }
    }

    /// Waits for a worker in Standby; its `instance`. The caller bounds the time.
    pub(super) async fn standby_worker(&self) -> String {
        let instance = |sidecar: &Self| match &sidecar.live().worker {
            Seen::Contract(info) if info.state == WorkerState::Standby => Some(info.instance.clone()),
            Seen::Contract(_) | Seen::Plain | Seen::Nothing => None,
        };
        self.kick.notify_one();
        self.until(|sidecar| instance(sidecar).is_some()).await;
        instance(self).unwrap_or_default()
    }
}

/// Whether a state is given once more to a worker that did not take it.
pub(super) fn after(error: &WorkerError, attempts: u32) -> Result<(), Failed> {
    match error.disposition(false) {
        Disposition::Abort => Err(Failed { kind: FailureKind::ImportRefused, message: error.to_string() }),
        Disposition::Wait => Ok(()),
        Disposition::Retry | Disposition::Done | Disposition::NoState => {
            if matches!(error, WorkerError::Refused { status: 404 | 405 | 501, .. }) {
                let message = format!("the worker takes no state: {error}");
                return Err(Failed { kind: FailureKind::ImportRefused, message });
            }
            if attempts >= ATTEMPTS { Err(Failed::import(error)) } else { Ok(()) }
        }
    }
}

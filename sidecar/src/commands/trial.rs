//! Trial: a copy of the state of a source that serves, offered to the worker before anything is frozen.

use std::sync::Arc;
use std::time::Duration;

use processhub_protocol::contract::error::clean;
use processhub_protocol::contract::{CaptureAnswer, PartSize, Reason};
use processhub_protocol::wire::{Failure, Trial};

use super::Outcome;
use super::import::{Failed, PAUSE, after};
use crate::peer::PeerError;
use crate::sidecar::Sidecar;
use crate::worker::{Given, PassError, WorkerError};

/// Why a worker has not said yes to a copy.
enum NotTaken {
    /// The copy did not come through: nothing is known of the worker.
    Copy(String),
    /// The worker's word.
    Worker(WorkerError),
}

impl From<PeerError> for NotTaken {
    fn from(error: PeerError) -> Self {
        Self::Copy(error.to_string())
    }
}

impl From<PassError> for NotTaken {
    fn from(error: PassError) -> Self {
        match error {
            PassError::Stream(message) => Self::Copy(message),
            PassError::Worker(error) => Self::Worker(error),
        }
    }
}

impl Sidecar {
    pub(super) async fn trial(self: &Arc<Self>, command: &Trial) -> Outcome {
        self.change(|live| live.failure = None);
        match self.offer(command).await {
            Ok(()) => self.change(|live| live.tried = Some(command.epoch)),
            Err(failed) => {
                let Failed { kind, message } = failed;
                tracing::warn!(epoch = %command.epoch, ?kind, "the trial failed: {message}");
                let message = clean(&format!("a copy of the state was tried: {message}"));
                self.change(|live| {
                    live.failure = Some(Failure { epoch: command.epoch, kind, message });
                });
            }
        }
        Ok(())
    }

    /// Only the worker's word counts against it. Where no copy can be had nothing is tried: the freeze will tell.
    async fn offer(&self, command: &Trial) -> Result<(), Failed> {
        let time = Duration::from_millis(command.timeout_milliseconds);
        let (mut attempts, mut why) = (0, "the worker did not get ready for it".to_owned());
        loop {
            let standby = tokio::time::timeout(time, self.standby_worker()).await;
            standby.map_err(|_| Failed::import(&why))?;
            let error = match self.offer_once(command, time).await {
                Ok(()) => return Ok(()),
                Err(NotTaken::Copy(why)) => {
                    tracing::warn!(epoch = %command.epoch, "nothing is tried, since no copy came through: {why}");
                    return Ok(());
                }
                Err(NotTaken::Worker(error)) => error,
            };
            attempts += 1;
            if error.timed_out() {
                return Err(Failed::import(error));
            }
            after(&error, attempts)?;
            why = format!("the worker did not come back after it; {error}");
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn offer_once(&self, command: &Trial, time: Duration) -> Result<(), NotTaken> {
        let Some(copy) = self.peers.copy(&command.from, command.epoch).await? else { return Ok(()) };
        let change = Some(self.for_worker(command.code_change.clone()));
        let given = Given { epoch: command.epoch, reason: Reason::CodeChange, change, time };
        let import = format!("t{}", command.epoch);
        let import = import.parse().map_err(|_| NotTaken::Copy(format!("`{import}` is no name")))?;
        let passed = tokio::time::timeout(time, self.pass_on(command, &copy, &import)).await;
        let offered = match passed {
            Ok(Ok(sizes)) => self.worker.offer(&import, &copy, sizes, &given).await.map_err(NotTaken::Worker),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(NotTaken::Copy(format!("not done within {} ms", command.timeout_milliseconds))),
        };
        self.worker.forget(&import).await;
        offered
    }

    /// The parts of the copy from the source to the worker, none of them as a whole in memory.
    async fn pass_on(
        &self,
        command: &Trial,
        copy: &CaptureAnswer,
        import: &processhub_protocol::contract::Name,
    ) -> Result<Vec<PartSize>, NotTaken> {
        let mut sizes = Vec::with_capacity(copy.parts.len());
        for part in &copy.parts {
            let body =
                self.peers.copied_part(&command.from, command.epoch, &copy.capture, &part.name).await?;
            let bytes = self.worker.pass_on(import, &part.name, body).await?;
            if part.bytes.is_some_and(|announced| announced != bytes) {
                return Err(NotTaken::Copy(format!("part `{}` was cut short", part.name)));
            }
            sizes.push(PartSize { name: part.name.clone(), bytes });
        }
        Ok(sizes)
    }
}

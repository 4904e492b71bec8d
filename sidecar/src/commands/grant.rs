//! Activate and thaw: the record first, then the worker. Forward: the successor serves. Hand on: it will.

use std::sync::Arc;
use std::time::Duration;

use processhub_protocol::wire::{Activate, Forward, HandOn, Thaw};
use tokio_util::sync::CancellationToken;

use super::Outcome;
use crate::checkpoint::Exposure;
use crate::fence::{CommitError, Stored};
use crate::sidecar::Sidecar;

/// How long an answer waits for the worker to serve. The grant is in force all the same: the supervisor goes on.
const WAIT: Duration = Duration::from_secs(10);

impl Sidecar {
    pub(super) async fn activate(
        self: &Arc<Self>,
        command: &Activate,
        cancel: &CancellationToken,
    ) -> Outcome {
        let challenge = command.grant.challenge.clone();
        let (grant, now) = (command.clone(), self.now());
        let commit = self.fence.commit(move |stored| {
            let record = stored.record.activate_done(&grant, &now)?;
            let (start, source) = (grant.start, grant.source);
            Ok(Stored { record, start, source, lost: None, exposed: false, ..stored.clone() })
        });
        commit.await.map_err(|error| self.refused(error))?;
        self.change(|live| {
            live.thawed = false;
            live.exposure = Exposure::default();
            live.fenced = None;
            live.forward_to = None;
            live.blackout_microseconds = None;
        });
        self.lease(challenge);
        self.wait_to_serve(cancel).await;
        Ok(())
    }

    pub(super) async fn thaw(self: &Arc<Self>, command: &Thaw, cancel: &CancellationToken) -> Outcome {
        let challenge = command.grant.challenge.clone();
        let (grant, now) = (command.clone(), self.now());
        let commit = self.fence.commit(move |stored| {
            let record = stored.record.thaw_done(&grant, &now)?;
            // What a crash took stays reported: the operator may not have heard of it yet.
            Ok(Stored { record, ..stored.clone() })
        });
        commit.await.map_err(|error| self.refused(error))?;
        // The blackout goes on until the worker has said that it serves.
        let held_since = self.change(|live| {
            live.thawed = true;
            live.forward_to = None;
            live.frozen_since = None;
            live.fenced.take().map(|fenced| fenced.since)
        });
        self.lease(challenge);
        self.wait_to_serve(cancel).await;
        if let Some(since) = held_since
            && self.serving()
        {
            self.blackout_over(since);
            self.metrics.blackout(self.live().blackout_microseconds);
        }
        Ok(())
    }

    /// Lets the supervisor put the worker into its role, and waits for it.
    async fn wait_to_serve(&self, cancel: &CancellationToken) {
        self.kick.notify_one();
        tokio::select! {
            () = self.until(Self::serving) => self.tidy(),
            () = cancel.cancelled() => {}
            () = tokio::time::sleep(WAIT) => tracing::warn!("the worker does not serve yet; goes on trying"),
        }
    }

    /// Held requests go on before the record is written: forwarding is final, and a sidecar that restarts Frozen is told
    /// again. Only the answer waits for the disk (rule 3).
    pub(super) async fn forward(self: &Arc<Self>, command: &Forward) -> Outcome {
        self.change(|live| live.forward_to = Some((command.epoch, command.peer.clone())));
        self.successor_serves();
        self.record_forward(command).await
    }

    /// As [`Sidecar::forward`], but the blackout goes on: what is sent on waits there, until the successor says that it
    /// serves.
    pub(super) async fn hand_on(self: &Arc<Self>, command: &HandOn) -> Outcome {
        self.change(|live| live.forward_to = Some((command.epoch, command.peer.clone())));
        self.record_forward(&command.forward()).await
    }

    async fn record_forward(self: &Arc<Self>, command: &Forward) -> Outcome {
        let order = command.clone();
        let commit = self.fence.commit(move |stored| {
            let record = stored.record.forward_done(&order)?;
            Ok(Stored { record, source: None, ..stored.clone() })
        });
        match commit.await {
            Ok(_) => {
                self.settle();
                Ok(())
            }
            Err(error) => {
                if matches!(error, CommitError::Refused(_)) {
                    self.change(|live| live.forward_to = None);
                }
                Err(self.refused(error))
            }
        }
    }

    /// What was held here is answered from now on: the blackout is over.
    pub(super) fn successor_serves(&self) {
        let held_since = self.change(|live| live.fenced.take().map(|fenced| fenced.since));
        if let Some(since) = held_since {
            self.blackout_over(since);
        }
    }

    fn blackout_over(&self, since: tokio::time::Instant) {
        let microseconds = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.live().blackout_microseconds = Some(microseconds);
    }
}

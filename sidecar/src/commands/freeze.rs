//! Freeze: hold, drain, suspend, capture, record. Let go: hold, drain, record.

use std::sync::Arc;
use std::time::Duration;

use processhub_protocol::contract::error::clean;
use processhub_protocol::contract::{CapturePurpose, CaptureRequest, Reason, SuspendRequest, WorkerState};
use processhub_protocol::fence::Role;
use processhub_protocol::id::{Epoch, Seq, StateId};
use processhub_protocol::wire::{Failure, Freeze, LetGo};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Outcome;
use crate::capture::{Captured, Failed, Whose};
use crate::checkpoint::Exposure;
use crate::fence::{CommitError, Stored};
use crate::restore::now_lost;
use crate::sidecar::{Fenced, Seen, Sidecar};
use crate::worker::WorkerError;

/// What a freeze has sealed.
struct Sealed {
    /// The state; none when it was sealed without.
    state: Option<StateId>,
    /// Number of that state, when answers went out that it may not contain.
    lost: Option<Seq>,
}

impl Sidecar {
    /// Holds from now on, whatever comes of it: only a thaw or a forward ends that.
    pub(super) async fn freeze(self: &Arc<Self>, command: &Freeze, cancel: &CancellationToken) -> Outcome {
        self.change(|live| live.failure = None);
        self.fence_off();
        let work = async {
            self.drain(command.epoch, command.drain_timeout_milliseconds).await;
            // Answers that waited for a checkpoint have had theirs: whatever is still captured is in the way from here on.
            let turn = self.checkpoints.press().await;
            (self.seal(command).await, turn)
        };
        let (sealed, _turn) = tokio::select! {
            sealed = work => sealed,
            () = cancel.cancelled() => return Ok(()),
        };
        let failed = match sealed {
            Ok(Sealed { state, lost }) => {
                let (freeze, seal) = (command.clone(), state.clone());
                let commit = self.fence.commit(move |stored| {
                    let record = stored.record.freeze_done(&freeze, seal)?;
                    Ok(Stored { record, lost: now_lost(stored.lost, lost.is_some(), lost), ..stored.clone() })
                });
                match commit.await {
                    Ok(_) => {
                        let now = self.clock.milliseconds();
                        self.change(|live| {
                            live.frozen_since = Some(now);
                            if let Some(state) = state.as_ref().filter(|_| lost.is_none()) {
                                live.exposure = Exposure::default();
                                self.checkpoints.holds(Some(state.seq));
                            }
                        });
                        return Ok(());
                    }
                    Err(CommitError::Refused(refusal)) => return Err(refusal),
                    Err(error) => Failed::capture(error),
                }
            }
            Err(failed) => failed,
        };
        tracing::warn!(epoch = %command.epoch, kind = ?failed.kind, "the freeze failed: {}", failed.message);
        self.change(|live| {
            live.failure =
                Some(Failure { epoch: command.epoch, kind: failed.kind, message: clean(&failed.message) });
        });
        Ok(())
    }

    /// The process was deleted: what is in flight may finish, and nothing is acknowledged after that.
    pub(super) async fn let_go(self: &Arc<Self>, command: &LetGo) -> Outcome {
        self.fence_off();
        self.drain(command.epoch, command.drain_timeout_milliseconds).await;
        let order = command.clone();
        let commit = self.fence.commit(move |stored| {
            let record = stored.record.let_go_done(&order)?;
            Ok(Stored { record, source: None, ..stored.clone() })
        });
        commit.await.map_err(|error| self.refused(error))?;
        self.settle();
        Ok(())
    }

    /// Requests are held from now on; when that was so before, the same blackout goes on.
    fn fence_off(&self) {
        self.change(|live| {
            let since = live.fenced.map_or_else(Instant::now, |fenced| fenced.since);
            live.fenced = Some(Fenced { since });
        });
    }

    /// Lets what is in flight finish, and cuts what does not.
    async fn drain(&self, epoch: Epoch, milliseconds: u64) {
        let time = Duration::from_millis(milliseconds);
        if tokio::time::timeout(time, self.hold.drained()).await.is_err() {
            tracing::warn!(%epoch, "requests still in flight after the drain are cut");
            self.hold.cut();
        }
    }

    async fn seal(&self, command: &Freeze) -> Result<Sealed, Failed> {
        let contract = !matches!(self.live().worker, Seen::Plain);
        let time = Duration::from_millis(command.state_query_timeout_milliseconds);
        if !contract {
            return Ok(Sealed { state: None, lost: None });
        }
        if !command.capture {
            // Nothing is carried over, so a worker that cannot be suspended, or has crashed, loses nothing by it: its
            // sidecar relays nothing more.
            if let Err(error) = self.suspend(command, time).await {
                tracing::warn!(epoch = %command.epoch, %error, "sealed without suspending the worker");
            }
            return Ok(Sealed { state: None, lost: None });
        }
        let holder = match self.worker.info().await {
            Ok(info) if info.state != WorkerState::Standby => Some(info.instance),
            seen => {
                // One that does not answer in time, or still serves clients, may be alive.
                let crashed = match &seen {
                    Ok(_) => true,
                    Err(error) => {
                        error.unreachable() && self.net.connect(self.config.worker_listen).await.is_err()
                    }
                };
                if crashed && let Some(sealed) = self.seal_what_is_kept().await? {
                    return Ok(sealed);
                }
                self.live().holder.clone()
            }
        };
        self.suspend(command, time).await?;
        let state = self.seal_the_worker(command, holder.as_deref().unwrap_or_default(), time).await?;
        Ok(Sealed { state, lost: None })
    }

    async fn suspend(&self, command: &Freeze, time: Duration) -> Result<(), WorkerError> {
        let request = SuspendRequest { epoch: command.epoch, reason: Reason::Handover };
        self.repeat(time, false, || self.worker.suspend(&request, time)).await
    }

    /// The worker is dead, or was started anew and has nothing yet: what it would be given after its crash is what leaves.
    async fn seal_what_is_kept(&self) -> Result<Option<Sealed>, Failed> {
        let Role::Active { kept: Some(kept), .. } = self.fence.record().role else { return Ok(None) };
        if !self.fence.stored().contract {
            return Ok(None);
        }
        self.checkpoints.worker_died();
        if self.read_whole(&kept).await?.is_none() {
            return Ok(None);
        }
        let lost = self.live().exposure.beyond(Some(kept.seq)).then_some(kept.seq);
        tracing::warn!(seq = kept.seq, "the worker has crashed: sealed with its newest checkpoint");
        Ok(Some(Sealed { state: Some(kept), lost }))
    }

    /// The state of the suspended worker whose start is `holder`.
    async fn seal_the_worker(
        &self,
        command: &Freeze,
        holder: &str,
        time: Duration,
    ) -> Result<Option<StateId>, Failed> {
        let request = CaptureRequest {
            epoch: command.epoch,
            purpose: CapturePurpose::Handover,
            since: None,
            unless_seq: None,
        };
        let whose = Whose { instance: holder, least: 0 };
        match self.capture(&request, whose, self.keeper.record(), time).await? {
            Captured::State(manifest) => Ok(Some(manifest.state)),
            Captured::Unchanged | Captured::NoState => Ok(None),
        }
    }

    /// Whether a freeze left this pod sealed.
    pub(crate) fn frozen(&self) -> bool {
        matches!(self.fence.record().role, Role::Frozen { .. })
    }
}

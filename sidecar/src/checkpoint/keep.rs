//! Keeps checkpoints: when something new is to be kept, and one at a time.

use std::sync::Arc;
use std::time::Duration;

use processhub_protocol::contract::{CapturePurpose, CaptureRequest};
use processhub_protocol::fence::Role;
use processhub_protocol::id::{Epoch, StateId};
use processhub_protocol::wire::CheckpointClass;
use tokio::time::Instant;

use super::lock;
use crate::capture::{Captured, Failed, Whose};
use crate::fence::blocking;
use crate::keeper::{Manifest, Mark};
use crate::metrics::{CheckpointLabel, Checkpointed};
use crate::sidecar::{Seen, Sidecar, referred};

/// How long the worker may take over each call of a capture.
const CAPTURE_TIME: Duration = Duration::from_secs(10);
/// Pause before a capture that answers wait for is tried again.
const PAUSE: Duration = Duration::from_millis(50);
/// Captures that nobody waits for take at most one part in so many of the time.
const SHARE: u32 = 4;

impl Sidecar {
    /// Runs until this sidecar ends.
    pub(crate) async fn keep_checkpoints(self: Arc<Self>) {
        let period = self.config.checkpoint.period;
        if self.config.checkpoint.class == Some(CheckpointClass::None) {
            return;
        }
        let mut due = Instant::now() + period;
        loop {
            tokio::select! {
                () = self.down.cancelled() => return,
                () = self.checkpoints.wake.notified() => {}
                () = tokio::time::sleep_until(due) => {}
            }
            let begun = Instant::now();
            if !self.checkpoints.wanted() {
                if begun < due {
                    continue;
                }
                if !self.has_news() {
                    due = begun + period;
                    continue;
                }
            }
            if let Err(failed) = self.checkpoint().await {
                self.checkpointed(Checkpointed::Failed);
                tracing::warn!("no checkpoint: {}", failed.message);
                if failed.dead {
                    self.checkpoints.worker_died();
                    self.doubt_worker();
                }
            }
            due = begun + period.max(begun.elapsed() * SHARE);
            if self.checkpoints.wanted() {
                // Who waits has a deadline of their own.
                due = due.min(Instant::now() + PAUSE);
            }
        }
    }

    fn checkpointed(&self, result: Checkpointed) {
        self.metrics.checkpoints.get_or_create(&CheckpointLabel { result }).inc();
    }

    /// Whether a capture that nobody waits for would find something new, as far as that is known.
    fn has_news(&self) -> bool {
        let live = self.live();
        let progress = *self.checkpoints.progress.borrow();
        let seen = match &live.worker {
            Seen::Contract(info) => Some(info.seq),
            Seen::Plain | Seen::Nothing => None,
        };
        live.fenced.is_none()
            && (progress.seq.is_none() || live.exposure.beyond(progress.seq) || seen > progress.seq)
    }

    /// The epoch at which the worker serves and can be captured, and the start of it that does.
    fn capturable(&self) -> Option<(Epoch, String)> {
        let live = self.live();
        let Role::Active { epoch, .. } = self.fence.record().role else { return None };
        let serves = live.ready == Some(epoch) && live.captures_live();
        Some((epoch, live.holder.clone().filter(|_| serves)?))
    }

    async fn checkpoint(&self) -> Result<(), Failed> {
        let _turn = self.checkpoints.turn.lock().await;
        let Some((epoch, instance)) = self.capturable() else { return Ok(()) };
        let mut pressing = self.checkpoints.pressing.subscribe();
        tokio::select! {
            biased;
            _ = pressing.wait_for(|count| *count > 0) => Ok(()),
            kept = self.capture_and_keep(epoch, &instance) => kept,
        }
    }

    async fn capture_and_keep(&self, epoch: Epoch, instance: &str) -> Result<(), Failed> {
        self.is_still(instance).await?;
        let mut known = None;
        self.checkpoints.progress.send_modify(|progress| {
            progress.begun += 1;
            known = Some((progress.begun, progress.seq));
        });
        let Some((begun, seq)) = known else { return Ok(()) };
        let answered = self.live().exposure.unnumbered;
        let began = Instant::now();
        let request = CaptureRequest {
            epoch,
            purpose: CapturePurpose::Checkpoint,
            since: None,
            // A worker that does not count has 0 for every state.
            unless_seq: seq.filter(|seq| *seq > 0),
        };
        let mark = Mark { epoch, number: self.checkpoints.next_number() };
        let recorder = self.keeper.record_checkpoint(mark);
        let whose = Whose { instance, least: seq.unwrap_or(0) };
        let (seq, stateless, result) = match self.capture(&request, whose, recorder, CAPTURE_TIME).await? {
            Captured::State(manifest) => {
                self.keep(epoch, &manifest).await?;
                (Some(manifest.state.seq), false, Checkpointed::Kept)
            }
            Captured::Unchanged => (seq, false, Checkpointed::Unchanged),
            Captured::NoState => (seq, true, Checkpointed::Unchanged),
        };
        {
            let mut live = self.live();
            live.exposure.covered = live.exposure.covered.max(answered);
            live.exposure.unknown = false;
        }
        lock(&self.checkpoints.newest).current = Some(began);
        self.checkpointed(result);
        self.checkpoints.progress.send_modify(|progress| {
            progress.done = begun;
            progress.seq = seq;
            progress.stateless = stateless;
        });
        Ok(())
    }

    /// A state that is on disk becomes what the worker is given after a crash, in place of the one before.
    async fn keep(&self, epoch: Epoch, manifest: &Manifest) -> Result<(), Failed> {
        let state = manifest.state.clone();
        let mut before = None;
        let kept = self.fence.keep(|record| {
            if let Role::Active { kept, .. } = &record.role {
                before.clone_from(kept);
            }
            record.checkpoint_done(epoch, state.clone())
        });
        let refused = kept.await.err();
        let superfluous = match &refused {
            None => before.filter(|before| *before != state),
            Some(_) => Some(state),
        };
        if let Some(superfluous) = superfluous {
            self.discard(superfluous).await;
        }
        refused.map_or(Ok(()), |refusal| Err(Failed::capture(refusal.message)))
    }

    /// Removes a state, unless the record refers to it.
    pub(crate) async fn discard(&self, state: StateId) {
        if referred(&self.fence.record().role).contains(&&state) {
            return;
        }
        let keeper = self.keeper.clone();
        if let Err(error) = blocking(move || keeper.remove(&state)).await {
            tracing::warn!(%error, "a state that is no longer needed could not be removed");
        }
    }
}

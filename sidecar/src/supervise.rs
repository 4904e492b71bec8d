//! Keeps the worker in the role that the record says: over starts of the worker, over starts of this sidecar.

use std::sync::Arc;
use std::time::Duration;

use processhub_protocol::contract::{ResumeRequest, WorkerState};
use processhub_protocol::fence::Role;
use processhub_protocol::id::Epoch;

use crate::duty::{Duty, due};
use crate::fence::Stored;
use crate::sidecar::{Seen, Sidecar};
use crate::worker::WorkerError;

/// How often a worker that is as it should be is looked at. Crashes are met sooner, by the requests.
const STEADY: Duration = Duration::from_secs(1);
/// How often one that is not yet there, or not yet as it should be, is looked at.
const EAGER: Duration = Duration::from_millis(50);
/// How often the contract's port is refused, while clients' is not, before a worker counts as one without contract.
const PLAIN_AFTER: u32 = 40;
/// After how many failures in a row the liveness of the worker is no longer vouched for.
const STUCK_AFTER: u32 = 3;

#[derive(Debug, Default)]
struct Memory {
    /// Times that only the clients' port accepted.
    plain: u32,
    /// Duties in a row that failed on a worker that answers.
    failures: u32,
}

impl Sidecar {
    /// Runs until this sidecar ends.
    pub(crate) async fn supervise(self: Arc<Self>) {
        let mut memory = Memory::default();
        let mut pause = Duration::ZERO;
        loop {
            tokio::select! {
                () = self.down.cancelled() => return,
                () = self.kick.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
            pause = EAGER;
            if self.gated() {
                continue;
            }
            let Some(seen) = self.observe(&mut memory).await else { continue };
            match self.attend(&seen).await {
                Ok(true) => {
                    memory.failures = 0;
                    pause = STEADY;
                }
                Ok(false) => memory.failures = 0,
                Err(error) => {
                    memory.failures += 1;
                    tracing::warn!(%error, "the worker is not in its role yet");
                }
            }
            let stuck = memory.failures >= STUCK_AFTER;
            if self.live().stuck != stuck {
                self.change(|live| live.stuck = stuck);
            }
        }
    }

    /// Looks at the worker; `None` when that gave nothing new.
    async fn observe(&self, memory: &mut Memory) -> Option<Seen> {
        let seen = match self.worker.info().await {
            Ok(info) => {
                memory.plain = 0;
                Seen::Contract(info)
            }
            Err(WorkerError::Refused { status: 404 | 405 | 501, .. }) if !self.speaks_contract() => {
                Seen::Plain
            }
            Err(error) if error.unreachable() => {
                if self.speaks_contract() || self.net.connect(self.config.worker_listen).await.is_err() {
                    Seen::Nothing
                } else {
                    memory.plain = memory.plain.saturating_add(1);
                    if memory.plain < PLAIN_AFTER {
                        return None;
                    }
                    Seen::Plain
                }
            }
            // Slow or odd: what was known of it stays; the requests themselves tell whether it serves.
            Err(error) => {
                tracing::warn!(%error, "the worker does not say how it is");
                if let WorkerError::Foreign(version) = error {
                    self.note_foreign(Some(version));
                }
                return None;
            }
        };
        self.note_foreign(None);
        let unchanged = self.live().worker == seen;
        if !unchanged {
            self.change(|live| {
                match &seen {
                    Seen::Contract(_) => {
                        // What a capture taught stays true until the worker's code changes.
                        live.can_hand_over.get_or_insert(true);
                        if live.worker == Seen::Plain {
                            live.can_hand_over = Some(true);
                        }
                    }
                    Seen::Plain => live.can_hand_over = Some(false),
                    Seen::Nothing => live.ready = None,
                }
                live.worker = seen.clone();
            });
            if seen == Seen::Nothing {
                // Nothing is captured from it any more. Who waits for that would wait until another one is there, and so
                // would a freeze that lets answers out first.
                self.checkpoints.worker_died();
            }
        }
        if matches!(seen, Seen::Contract(_)) && !self.speaks_contract() {
            let commit = self.fence.commit(|stored| Ok(Stored { contract: true, ..stored.clone() })).await;
            if let Err(error) = commit {
                tracing::warn!(%error, "not noted that the worker speaks the contract");
            }
        }
        Some(seen)
    }

    fn note_foreign(&self, version: Option<u32>) {
        if self.live().foreign_contract != version {
            self.change(|live| live.foreign_contract = version);
        }
    }

    /// Whether the worker of this pod has ever spoken the contract.
    fn speaks_contract(&self) -> bool {
        self.fence.stored().contract
    }

    /// Does what is due; whether the worker is as it should be.
    async fn attend(&self, seen: &Seen) -> Result<bool, WorkerError> {
        let stored = self.fence.stored();
        let role = &stored.record.role;
        let (fenced, delivered, empty) = {
            let live = self.live();
            (live.fenced.is_some(), live.delivered.clone(), live.empty.clone())
        };
        let info = match seen {
            Seen::Nothing => return Ok(false),
            Seen::Plain => {
                if let Role::Active { epoch, .. } = role {
                    self.ready_at(*epoch, None);
                }
                return Ok(true);
            }
            Seen::Contract(info) => info,
        };
        let delivered = delivered.as_ref() == Some(&info.instance);
        match due(role, fenced, info, delivered) {
            // A Standby pod is about to be used: it is looked at often, and so is a worker that should not be Standby.
            Duty::Leave => return Ok(info.state != WorkerState::Standby || delivered),
            Duty::Serve(epoch) => self.ready_at(epoch, Some(&info.instance)),
            Duty::Resume(epoch) => {
                self.worker.resume(&ResumeRequest { epoch }).await?;
                self.ready_at(epoch, Some(&info.instance));
            }
            Duty::Deliver(epoch) => self.deliver_again(&stored, epoch, &info.instance).await?,
            Duty::Activate(epoch) => {
                let empty = empty.as_ref() == Some(&info.instance);
                let applied = delivered || (info.epoch >= epoch && !empty);
                self.activate_worker(epoch, &info.instance, applied).await?;
            }
        }
        Ok(true)
    }

    /// The worker serves at `epoch`; `holder` is its present start, where it says which that is.
    fn ready_at(&self, epoch: Epoch, holder: Option<&str>) {
        let known = {
            let live = self.live();
            live.ready == Some(epoch) && live.holder.as_deref() == holder
        };
        if !known {
            self.change(|live| {
                live.activated = Some(epoch);
                live.ready = Some(epoch);
                live.holder = holder.map(str::to_owned);
            });
        }
    }
}

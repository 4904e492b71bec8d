//! Keeps the worker in the role that the record says: over starts of the worker, over starts of this sidecar.

use std::sync::Arc;
use std::time::Duration;

use processhub_protocol::contract::{
    ActivateRequest, ErrorCode, ProcessInfo, Reason, ResumeRequest, WorkerState,
};
use processhub_protocol::fence::Role;
use processhub_protocol::id::{Epoch, StateId};
use processhub_protocol::ledger::Lost;
use processhub_protocol::wire::StartInfo;
use serde_json::Value;

use crate::duty::{Duty, due};
use crate::fence::Stored;
use crate::metrics::{Loss, LossLabel};
use crate::sidecar::{Seen, Sidecar};
use crate::worker::{Given, WorkerError};

/// How often a worker that is as it should be is looked at. Crashes are met sooner, by the requests.
const STEADY: Duration = Duration::from_secs(1);
/// How often one that is not yet there, or not yet as it should be, is looked at.
const EAGER: Duration = Duration::from_millis(50);
/// How long the worker may take over an activation or a restored state.
const ACTIVATE_TIME: Duration = Duration::from_secs(30);
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
                return None;
            }
        };
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
        }
        if matches!(seen, Seen::Contract(_)) && !self.speaks_contract() {
            let commit = self.fence.commit(|stored| Ok(Stored { contract: true, ..stored.clone() })).await;
            if let Err(error) = commit {
                tracing::warn!(%error, "not noted that the worker speaks the contract");
            }
        }
        Some(seen)
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
                    self.ready_at(*epoch);
                }
                return Ok(true);
            }
            Seen::Contract(info) => info,
        };
        let delivered = delivered.as_ref() == Some(&info.instance);
        match due(role, fenced, info, delivered) {
            // A Standby pod is about to be used: it is looked at often, and so is a worker that should not be Standby.
            Duty::Leave => return Ok(info.state != WorkerState::Standby || delivered),
            Duty::Serve(epoch) => self.ready_at(epoch),
            Duty::Resume(epoch) => {
                self.worker.resume(&ResumeRequest { epoch }).await?;
                self.ready_at(epoch);
            }
            Duty::Deliver(epoch) => self.deliver_again(&stored, epoch, &info.instance).await?,
            Duty::Activate(epoch) => {
                let empty = empty.as_ref() == Some(&info.instance);
                let applied = delivered || (info.epoch >= epoch && !empty);
                self.activate_worker(stored, epoch, &info.instance, applied).await?;
            }
        }
        Ok(true)
    }

    fn ready_at(&self, epoch: Epoch) {
        if self.live().ready != Some(epoch) {
            self.change(|live| live.ready = Some(epoch));
        }
    }

    async fn deliver_again(&self, stored: &Stored, epoch: Epoch, instance: &str) -> Result<(), WorkerError> {
        let Role::Delivered { state, .. } = &stored.record.role else {
            return Ok(());
        };
        self.give_kept(state, epoch, Reason::Handover).await?;
        self.change(|live| live.delivered = Some(instance.to_owned()));
        Ok(())
    }

    async fn give_kept(&self, state: &StateId, epoch: Epoch, reason: Reason) -> Result<(), WorkerError> {
        let kept = self
            .keeper
            .find(state)
            .map_err(|error| WorkerError::Malformed(format!("no state to give: {error}")))?;
        self.deliver(&kept, Given { epoch, reason, time: ACTIVATE_TIME }).await
    }

    /// The worker is in Standby and this pod is the owner. What was acknowledged since the newest kept state is lost with
    /// the worker that did it; that is on disk before the worker serves again (rule 10).
    async fn activate_worker(
        &self,
        stored: Stored,
        epoch: Epoch,
        instance: &str,
        applied: bool,
    ) -> Result<(), WorkerError> {
        let Role::Active { kept, .. } = &stored.record.role else {
            return Ok(());
        };
        let (dirty, thawed) = {
            let live = self.live();
            (live.dirty, live.thawed)
        };
        let mut lost = stored.lost;
        if dirty && !applied && lost.is_none() {
            lost = Some(Lost { from: kept.as_ref().map_or(1, |state| state.seq + 1) });
            let commit = self.fence.commit(move |stored| {
                let still = matches!(stored.record.role, Role::Active { epoch: now, .. } if now == epoch);
                Ok(Stored { lost: if still { lost } else { stored.lost }, ..stored.clone() })
            });
            commit.await.map_err(|error| WorkerError::Malformed(error.to_string()))?;
        }
        let initial = kept.is_none();
        let reason = reason(&stored.start, lost.is_some(), thawed, initial);
        if let Some(state) = kept
            && !applied
        {
            self.give_kept(state, epoch, reason).await?;
            self.change(|live| live.delivered = Some(instance.to_owned()));
        }
        let may_miss = lost.map(|lost| lost.from).or(stored.start.may_miss_from.filter(|_| !thawed));
        let process = process(&stored.start);
        let request = ActivateRequest { epoch, reason, initial, process, may_miss };
        match self.worker.activate(&request, ACTIVATE_TIME).await {
            Ok(()) => {}
            Err(error) => {
                if error.code() == Some(ErrorCode::InitialMismatch) {
                    // It does not hold what it was thought to hold: give the state again.
                    self.change(|live| {
                        live.delivered = None;
                        live.empty = Some(instance.to_owned());
                    });
                }
                return Err(error);
            }
        }
        let loss = if lost.is_some() { Loss::Possible } else { Loss::None };
        self.metrics.restores.get_or_create(&LossLabel { loss }).inc();
        if let Some(lost) = lost {
            tracing::error!(epoch = %epoch, from = lost.from, "the worker crashed: changes from here on may be missing");
        }
        self.change(|live| {
            live.delivered = None;
            live.ready = Some(epoch);
        });
        Ok(())
    }
}

fn reason(start: &StartInfo, lost: bool, thawed: bool, initial: bool) -> Reason {
    if lost || (start.recovery && !thawed) {
        Reason::Crash
    } else if thawed {
        Reason::Rollback
    } else if initial && start.initial {
        Reason::Start
    } else {
        Reason::Handover
    }
}

fn process(start: &StartInfo) -> ProcessInfo {
    let config = if start.config.is_empty() {
        Value::Null
    } else {
        serde_json::from_str(&start.config).unwrap_or_else(|_| Value::String(start.config.clone()))
    };
    ProcessInfo { config, labels: start.labels.iter().cloned().collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worker_is_told_why_it_becomes_active() {
        let first = StartInfo { initial: true, ..StartInfo::default() };
        let recovered = StartInfo { recovery: true, ..StartInfo::default() };
        let moved = StartInfo::default();
        assert_eq!(reason(&first, false, false, true), Reason::Start);
        assert_eq!(reason(&first, true, false, true), Reason::Crash, "it had served and crashed");
        assert_eq!(reason(&recovered, false, false, false), Reason::Crash);
        assert_eq!(reason(&moved, false, false, false), Reason::Handover);
        assert_eq!(reason(&moved, false, false, true), Reason::Handover);
        assert_eq!(reason(&moved, false, true, false), Reason::Rollback);
        assert_eq!(reason(&recovered, false, true, false), Reason::Rollback);
        assert_eq!(reason(&moved, true, true, false), Reason::Crash);
    }

    #[test]
    fn the_configuration_is_handed_on_as_it_is() {
        let start = |config: &str| StartInfo { config: config.into(), ..StartInfo::default() };
        assert_eq!(process(&start("")).config, Value::Null);
        assert_eq!(process(&start(r#"{"a":1}"#)).config, serde_json::json!({"a": 1}));
        assert_eq!(process(&start("plain")).config, serde_json::json!("plain"));
    }
}

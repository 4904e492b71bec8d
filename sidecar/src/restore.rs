//! Gives a worker that has started anew the state of its role, and makes an owner's worker active.

use std::io;
use std::time::Duration;

use processhub_protocol::contract::{ActivateRequest, ErrorCode, ProcessInfo, Reason};
use processhub_protocol::fence::Role;
use processhub_protocol::id::{Epoch, Seq, StateId};
use processhub_protocol::ledger::Lost;
use processhub_protocol::wire::StartInfo;
use serde_json::Value;

use crate::checkpoint::Exposure;
use crate::fence::Stored;
use crate::keeper::Kept;
use crate::metrics::{Loss, LossLabel};
use crate::sidecar::Sidecar;
use crate::worker::{Given, WorkerError};

/// How long the worker may take over an activation or a restored state.
const ACTIVATE_TIME: Duration = Duration::from_secs(30);

impl Sidecar {
    /// A target's worker has lost what was delivered: it is given again.
    pub(crate) async fn deliver_again(
        &self,
        stored: &Stored,
        epoch: Epoch,
        instance: &str,
    ) -> Result<(), WorkerError> {
        let Role::Delivered { state, .. } = &stored.record.role else {
            return Ok(());
        };
        let kept = self.keeper.find(state).map_err(unreadable)?;
        let change = stored.change_with(state).cloned();
        let reason = match change {
            _ if stored.transferred => Reason::Transfer,
            Some(_) => Reason::CodeChange,
            None => Reason::Handover,
        };
        let given = Given { epoch, reason, change, time: ACTIVATE_TIME };
        self.give_kept(&kept, given, instance).await
    }

    async fn give_kept(&self, kept: &Kept, given: Given, instance: &str) -> Result<(), WorkerError> {
        self.deliver(kept, given).await?;
        self.change(|live| live.delivered = Some(instance.to_owned()));
        Ok(())
    }

    /// The worker is in Standby and this pod is the owner. `applied`: this start of the worker holds the kept state
    /// already, or has been told to begin without one. What was acknowledged since the newest kept state is lost with the
    /// worker that did it; that is on disk before the worker serves again (rule 10).
    pub(crate) async fn activate_worker(
        &self,
        epoch: Epoch,
        instance: &str,
        applied: bool,
    ) -> Result<(), WorkerError> {
        // Answers of a worker that died wait in vain; and what was captured from it counts only if it is kept by now,
        // because from here on this worker's state is built upon what is.
        self.checkpoints.worker_died();
        let _turn = self.checkpoints.turn().await;
        let stored = self.fence.stored();
        let Role::Active { epoch: now, kept: state } = &stored.record.role else {
            return Ok(());
        };
        if *now != epoch {
            return Ok(());
        }
        let kept = match state {
            Some(state) if !applied => self.read_whole(state).await?,
            Some(_) | None => None,
        };
        let damaged = state.is_some() && !applied && kept.is_none();
        let newest = state.as_ref().filter(|_| !damaged).map(|state| state.seq);
        let (dirty, thawed, crashed) = {
            let live = self.live();
            (live.exposure.beyond(newest), live.thawed, live.activated == Some(epoch))
        };
        let lost = now_lost(stored.lost, (dirty && !applied) || damaged, newest);
        if lost != stored.lost {
            let commit = self.fence.commit(move |stored| {
                let still = matches!(stored.record.role, Role::Active { epoch: now, .. } if now == epoch);
                Ok(Stored { lost: if still { lost } else { stored.lost }, ..stored.clone() })
            });
            commit.await.map_err(|error| WorkerError::Malformed(error.to_string()))?;
        }
        let initial = newest.is_none();
        // A loss that was said before the newest capture is no news to the worker.
        let news = lost.filter(|_| dirty || damaged);
        let change = state.as_ref().and_then(|state| stored.change_with(state)).cloned();
        let reason = match reason(&stored.start, news.is_some() || crashed, thawed, initial) {
            Reason::Handover if change.is_some() => Reason::CodeChange,
            other => other,
        };
        if let Some(kept) = kept {
            self.give_kept(&kept, Given { epoch, reason, change, time: ACTIVATE_TIME }, instance).await?;
        }
        let may_miss = news.map(|lost| lost.from).or(stored.start.may_miss_from.filter(|_| !thawed));
        let process = process(&stored.start);
        let request = ActivateRequest { epoch, reason, initial, process, may_miss };
        if let Err(error) = self.worker.activate(&request, ACTIVATE_TIME).await {
            if error.code() == Some(ErrorCode::InitialMismatch) {
                // It does not hold what it was thought to hold: give the state again.
                self.change(|live| {
                    live.delivered = None;
                    live.empty = Some(instance.to_owned());
                });
            }
            return Err(error);
        }
        let loss = if news.is_some() { Loss::Possible } else { Loss::None };
        self.metrics.activations.get_or_create(&LossLabel { loss }).inc();
        if let Some(lost) = news {
            tracing::error!(epoch = %epoch, from = lost.from, "the worker crashed: changes from here on may be missing");
        }
        self.checkpoints.holds(newest);
        self.change(|live| {
            live.delivered = None;
            live.exposure = Exposure::default();
            live.activated = Some(epoch);
            live.ready = Some(epoch);
            live.holder = Some(instance.to_owned());
        });
        Ok(())
    }

    /// The kept state, read to its end; `None` when it is damaged or gone, which trying again would not mend.
    pub(crate) async fn read_whole(&self, state: &StateId) -> Result<Option<Kept>, WorkerError> {
        let read = async {
            let kept = self.keeper.find(state)?;
            for part in &kept.manifest().parts {
                let mut offset = 0;
                while offset < part.bytes {
                    offset += kept.chunk(&part.name, offset).await?.len() as u64;
                }
            }
            Ok::<_, io::Error>(kept)
        };
        match read.await {
            Ok(kept) => Ok(Some(kept)),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                    tracing::error!(seq = state.seq, %error, "the kept state is lost");
                    Ok(None)
                }
                _ => Err(unreadable(error)),
            },
        }
    }
}

fn unreadable(error: io::Error) -> WorkerError {
    WorkerError::Malformed(format!("there is no state to give it: {error}"))
}

/// What may be missing. A loss stays said as long as this pod does, and only grows.
pub(crate) fn now_lost(said: Option<Lost>, losing: bool, newest: Option<Seq>) -> Option<Lost> {
    if !losing {
        return said;
    }
    let from = newest.map_or(1, |seq| seq + 1);
    Some(Lost { from: said.map_or(from, |said| said.from.min(from)) })
}

fn reason(start: &StartInfo, crashed: bool, thawed: bool, initial: bool) -> Reason {
    if crashed || (start.recovery && !thawed) {
        Reason::Crash
    } else if thawed {
        Reason::Rollback
    } else if initial && start.initial {
        Reason::Start
    } else if start.transfer {
        Reason::Transfer
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
        let transferred = StartInfo { transfer: true, ..StartInfo::default() };
        assert_eq!(reason(&transferred, false, false, false), Reason::Transfer);
        assert_eq!(reason(&transferred, false, true, false), Reason::Rollback);
        assert_eq!(reason(&transferred, true, false, false), Reason::Crash);
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
    fn a_loss_is_said_from_the_newest_state_on_and_never_taken_back() {
        let from = |from| Some(Lost { from });
        assert_eq!(now_lost(None, false, Some(5)), None);
        assert_eq!(now_lost(None, true, Some(5)), from(6));
        assert_eq!(now_lost(None, true, None), from(1));
        assert_eq!(now_lost(from(6), false, None), from(6));
        assert_eq!(now_lost(from(6), true, None), from(1), "the kept state was damaged meanwhile");
        assert_eq!(now_lost(from(1), true, Some(5)), from(1));
    }

    #[test]
    fn the_configuration_is_handed_on_as_it_is() {
        let start = |config: &str| StartInfo { config: config.into(), ..StartInfo::default() };
        assert_eq!(process(&start("")).config, Value::Null);
        assert_eq!(process(&start(r#"{"a":1}"#)).config, serde_json::json!({"a": 1}));
        assert_eq!(process(&start("plain")).config, serde_json::json!("plain"));
    }
}

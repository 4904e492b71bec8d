//! What holds up a move that is wanted, and until when.

use processhub_crds::vocabulary::{MoveReason, ProcessReason};

use super::Moves;
use super::permits::Rank;
use super::step::Step;
use crate::assignments::{Held, OwnerState};
use crate::plan::backoff;
use crate::plan::debounce::Steadiness;
use crate::plan::farewell::paused;
use crate::plan::homes::as_milliseconds;

impl Step<'_> {
    /// Another process could not be given the new code.
    pub(super) fn stopped(&self) -> Option<Held> {
        let first = self.rollout.report.failed.first().filter(|failed| *failed != self.name)?;
        Some(Held {
            reason: ProcessReason::UpgradePending,
            message: format!(
                "the roll-out has stopped: {first} could not be given the new code; its condition Upgraded says why"
            ),
        })
    }

    /// What holds up every move of this rank.
    pub(super) fn suspended(&self, rank: Rank) -> Option<Held> {
        let hub = &self.inputs.hub;
        if !hub.accepted && (!rank.presses() || rank == Rank::Start) {
            return Some(Held {
                reason: ProcessReason::HubNotAccepted,
                message: format!("hub {} is not accepted; its condition Accepted says why", hub.name),
            });
        }
        if rank.presses() {
            return None;
        }
        if let Some(held) = paused(hub, self.facts) {
            return Some(held);
        }
        if rank != Rank::Rebalance {
            return None;
        }
        let message = match self.steadiness {
            Steadiness::Steady if self.recovering => {
                "waits until no owner is lost: its pod may hold what that one is recovered from".to_owned()
            }
            Steadiness::Steady => return None,
            Steadiness::Debouncing { .. } => "waits until joins and leaves of nodes have settled".to_owned(),
            Steadiness::TooManyLost { have, had, .. } => {
                format!("{have} of {had} members are left; rebalancing waits until two thirds are back")
            }
        };
        Some(Held { reason: ProcessReason::Deferred, message })
    }

    /// A worker that crashes again and again is started again more and more slowly.
    pub(super) fn pauses(&self, rank: Rank, result: &mut Moves) -> Option<Held> {
        let OwnerState::Crashed { again: Some(from) } = self.facts.owner else { return None };
        let from = as_milliseconds(from);
        if rank != Rank::Crashed || from <= as_milliseconds(self.inputs.now) {
            return None;
        }
        result.wake = Some(result.wake.map_or(from, |wake| wake.min(from)));
        Some(Held {
            reason: ProcessReason::Restarting,
            message: format!(
                "the worker crashes again and again; it is started in a new pod at {}. kubectl logs --previous of its \
                 worker says why",
                at(from),
            ),
        })
    }

    /// Whether it is given other code now.
    pub(super) fn gets_code(&self) -> bool {
        let turn = self.rollout.turn(self.name).filter(|turn| *turn < self.rollout.slots);
        turn.is_some_and(|turn| self.suspended(Rank::Upgrade(turn)).is_none()) && self.stopped().is_none()
    }

    pub(super) fn backs_off(&self, rank: Rank, node: &str, result: &mut Moves) -> Option<Held> {
        let failed = self.facts.failed.as_ref()?;
        let new = match rank {
            // A wish is one attempt: one that stands after a failure was made anew.
            Rank::Wish => true,
            Rank::Pin => failed.to != node,
            Rank::Recover
            | Rank::Crashed
            | Rank::Start
            | Rank::Leaving
            | Rank::Transfer
            | Rank::Rebalance
            | Rank::Upgrade(_) => false,
        };
        // A worker that crashes in its new pod as well is in no hurry to get another one.
        let until = backoff::until(failed, rank.presses() && rank != Rank::Crashed);
        let now = as_milliseconds(self.inputs.now);
        if new || until <= now {
            return None;
        }
        result.wake = Some(result.wake.map_or(until, |wake| wake.min(until)));
        let reason = failed.reason.map_or("unknown", MoveReason::as_str);
        let message = format!(
            "the move to {} did not succeed: {reason} (try {}); it is tried again at {}",
            failed.to,
            failed.times,
            at(until),
        );
        Some(Held { reason: ProcessReason::MoveAborted, message })
    }
}

/// No further pod is started for a worker that crashes.
pub(super) fn limit_exceeded() -> Held {
    Held {
        reason: ProcessReason::RestartLimitExceeded,
        message: "the worker crashes again and again: as many new pods as spec.worker.restarts of the hub allows have been \
                  started, and from now on its kubelet starts it, which waits up to five minutes each time. What was kept \
                  of its state is on disk. kubectl logs --previous of its worker says why it crashes. Give the hub a \
                  template that mends it, move the process (annotation processhub.io/move-to), or raise \
                  spec.worker.restarts.max"
            .to_owned(),
    }
}

/// A time for people, to the second.
fn at(milliseconds: u64) -> String {
    let seconds = i64::try_from(milliseconds / 1000).unwrap_or(i64::MAX);
    k8s_openapi::jiff::Timestamp::from_second(seconds)
        .map_or_else(|_| "never".to_owned(), |at| at.to_string())
}

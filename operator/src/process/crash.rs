//! A worker that crashes again and again: whether its process is started in another pod, and when. Pure.
//!
//! A kubelet starts a container at once only the first time; then it waits, ten seconds and more, up to five minutes. A new
//! pod takes seconds and is given what the old one's sidecar has kept. How often that is done is bounded as a supervisor of
//! OTP bounds its restarts (`spec.worker.restarts`): one more than `max` within the period, and it stops.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use processhub_crds::limits::MAX_RESTARTS;
use processhub_crds::{MigrationTrigger, Restarts, conditions};
use processhub_protocol::fence::Role;
use processhub_protocol::handover::Handover;
use processhub_protocol::ledger::Phase;
use processhub_protocol::wire::{Report, WorkerState};

use super::incarnation::BackingOff;
use super::observation::{Observation, limits};

/// So many new pods follow one another without a pause.
const AT_ONCE: usize = 10;
/// The longest pause between two new pods, in seconds.
const LONGEST_PAUSE: i64 = 30;

/// When a process whose worker has crashed is started in another pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Crash {
    /// It is not, or not this way: its worker runs, its kubelet is about to start it, or a new pod could not be given what
    /// this one will be.
    None,
    /// From this time on.
    Again(Timestamp),
    /// The hub's limit is reached: its kubelet starts it.
    Exceeded,
}

/// What is to be done about the owner's worker, by its sidecar's report.
pub(super) fn crash(seen: &Observation, report: &Report) -> Crash {
    let Some(backing_off) = seen.owner_pod().and_then(|pod| pod.facts.backing_off) else {
        return Crash::None;
    };
    if report.worker.state != WorkerState::Unreachable || !carries(seen, report) {
        return Crash::None;
    }
    let status = seen.object.status.as_ref();
    let under_way = status.and_then(|status| status.migration.as_ref());
    if under_way.is_some_and(|migration| migration.trigger == MigrationTrigger::Crash)
        && seen.ledger.migration.as_ref().is_some_and(|migration| migration.phase == Phase::Prepared)
    {
        // It counts already, and may be the last one.
        return Crash::Again(seen.now);
    }
    let known = status.map_or(&[][..], |status| &status.restarts);
    next(known, &seen.hub.spec.worker.restarts, backing_off, seen.now)
}

/// Whether a new pod begins with what this one would be given by its sidecar.
fn carries(seen: &Observation, report: &Report) -> bool {
    let Role::Active { kept, .. } = &report.role else { return false };
    let stateless = report.worker.can_hand_over == Some(false);
    stateless || (kept.is_some() && limits(&seen.hub).handover != Handover::Never)
}

fn next(known: &[Time], limit: &Restarts, backing_off: BackingOff, now: Timestamp) -> Crash {
    if limit.max == 0 {
        return Crash::Exceeded;
    }
    let Some(last) = known.last().map(|last| last.0) else { return Crash::Again(now) };
    if backing_off.ran_seconds >= limit.period_seconds {
        return Crash::Again(now);
    }
    // Counted from the last one and not from now: a limit that was reached stays so, however long the kubelet waits.
    if counting(known, limit, last) >= usize::try_from(limit.max).unwrap_or(usize::MAX) {
        return Crash::Exceeded;
    }
    let pause = SignedDuration::from_secs(pause(counting(known, limit, now)));
    Crash::Again(last.saturating_add(pause).unwrap_or(now))
}

/// How many of them lie within the period before `at`.
fn counting(known: &[Time], limit: &Restarts, at: Timestamp) -> usize {
    known.iter().filter(|one| counts(one, limit, at)).count()
}

fn counts(one: &Time, limit: &Restarts, at: Timestamp) -> bool {
    let period = SignedDuration::from_secs(i64::try_from(limit.period_seconds).unwrap_or(i64::MAX));
    at.duration_since(one.0) < period
}

/// How long after the last new pod the next one is begun, in seconds, when so many have followed one another.
fn pause(count: usize) -> i64 {
    match count.checked_sub(AT_ONCE) {
        None => 0,
        Some(further) => (1_i64 << further.min(10)).min(LONGEST_PAUSE),
    }
}

/// What is remembered of new pods when another one is begun at `now` for this reason. What a person has a hand in begins a
/// new count.
#[must_use]
pub(super) fn remembered(
    known: &[Time],
    trigger: MigrationTrigger,
    limit: &Restarts,
    now: Timestamp,
) -> Vec<Time> {
    match trigger {
        MigrationTrigger::Crash => {
            let most = usize::try_from(MAX_RESTARTS).unwrap_or(usize::MAX);
            let mut counting: Vec<Time> =
                known.iter().filter(|one| counts(one, limit, now)).cloned().collect();
            counting.push(conditions::time(now));
            let superfluous = counting.len().saturating_sub(most);
            counting.drain(..superfluous);
            counting
        }
        MigrationTrigger::Wish | MigrationTrigger::Upgrade | MigrationTrigger::Transfer => Vec::new(),
        MigrationTrigger::Start
        | MigrationTrigger::Rebalance
        | MigrationTrigger::Drain
        | MigrationTrigger::PodDeleted
        | MigrationTrigger::NodeLost
        | MigrationTrigger::Pinned
        | MigrationTrigger::Recovery => known.to_vec(),
    }
}

#[cfg(test)]
#[path = "crash_tests.rs"]
mod tests;

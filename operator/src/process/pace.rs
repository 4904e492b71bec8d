//! How soon a process is looked at again when nothing wakes it. Pure.

use std::time::Duration;

use processhub_protocol::handover::Waiting;
use processhub_protocol::ledger::{Phase, Tenure};

use super::observation::Observation;
use super::tenure::RENEWAL;

/// The slow resync: what a lost watch event costs at most.
pub const RESYNC: Duration = Duration::from_secs(30);
/// While a command runs that outlasted its first answer: requests are held meanwhile.
const COMMAND: Duration = Duration::from_millis(50);
/// While a target starts, or a sidecar is expected back.
const START: Duration = Duration::from_millis(200);
/// While something is awaited that only time or a watch event brings.
const SLOW: Duration = Duration::from_secs(2);

/// How soon it is noticed that a holder of replicas does not answer its owner: answers wait for it.
const HOLDERS: Duration = Duration::from_secs(1);

/// How long to wait at most before looking again.
#[must_use]
pub fn pace(seen: &Observation, waiting: Waiting) -> Duration {
    let longest = if leased(seen) { RENEWAL } else { RESYNC };
    let longest = if replicated(seen) { longest.min(HOLDERS) } else { longest };
    longest.min(unleased(seen, waiting))
}

fn leased(seen: &Observation) -> bool {
    seen.ledger.owner.as_ref().is_some_and(|owner| owner.tenure == Tenure::Leased)
}

/// Whether an owner has holders, whose end no watch event tells of in time.
fn replicated(seen: &Observation) -> bool {
    seen.owner_report().is_some_and(|report| report.replicas.is_some())
}

fn unleased(seen: &Observation, waiting: Waiting) -> Duration {
    match waiting {
        Waiting::Nothing => at_rest(seen),
        Waiting::Placement | Waiting::HandoverNotSupported | Waiting::HistoryRewound => RESYNC,
        // One that serves by lease is missed soon: how soon decides how long it is down.
        Waiting::OwnerUnreachable if leased(seen) => START,
        Waiting::Leadership | Waiting::OwnerUnreachable => SLOW,
        Waiting::OldPodGone => old_pod(seen),
        Waiting::Trying | Waiting::Freezing | Waiting::Importing | Waiting::Activating | Waiting::Thawing => {
            COMMAND
        }
        Waiting::TargetPod | Waiting::TargetSidecar | Waiting::TargetWorker => target(seen),
        Waiting::Replicas => HOLDERS,
        Waiting::TargetReady | Waiting::Source | Waiting::LeaseEnd => START,
        Waiting::Retention => retention(seen),
    }
}

/// A worker that is down will be back, and what it lost is said by its sidecar then: no watch event need tell of it. Where its
/// kubelet says that it has ended and its sidecar, which looks once a second, has not seen it yet, that is in a moment.
fn at_rest(seen: &Observation) -> Duration {
    let Some((pod, report)) = seen.owner_pod().zip(seen.owner_report()) else { return RESYNC };
    match (report.serving, pod.facts.backing_off) {
        (true, Some(_)) => START,
        (true, None) if pod.facts.ready => RESYNC,
        (true, None) | (false, _) => SLOW,
    }
}

/// A target that cannot start is waited for in no hurry: a change of its pod wakes the process.
fn target(seen: &Observation) -> Duration {
    match seen.target() {
        Some(target) if target.facts.trouble.is_some() || target.facts.ip.is_none() => SLOW,
        Some(_) | None => START,
    }
}

/// The source of a committed cold swap says itself that its worker has ended: requests are held until it does.
fn old_pod(seen: &Observation) -> Duration {
    let migration = seen.ledger.migration.as_ref();
    let committed = migration.filter(|migration| matches!(migration.phase, Phase::Committed { .. }));
    let source = committed.and_then(|migration| migration.source.as_ref());
    if source.is_some_and(|source| seen.reports.contains_key(&source.uid)) { COMMAND } else { SLOW }
}

fn retention(seen: &Observation) -> Duration {
    let served = seen.owner_report().and_then(|report| report.serving_for_milliseconds).unwrap_or(0);
    let left = seen.hub.spec.migration.retention_milliseconds.saturating_sub(served);
    // Not a moment too early: that would be one more look.
    Duration::from_millis(left) + COMMAND
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::observation::tests::{report, seen};
    use crate::process::record::tests::{commit, owner_pod, prepare, started, state_id};
    use processhub_protocol::ledger::Kind;

    #[test]
    fn a_source_whose_worker_is_to_end_is_watched_closely_while_it_answers() {
        let mut steps = started();
        steps.push(prepare(Kind::ColdSwap, Some(owner_pod())));
        assert_eq!(pace(&seen(&steps, 0), Waiting::OldPodGone), SLOW);
        steps.push(commit(2, Some(state_id()), None));
        let mut seen = seen(&steps, 0);
        assert_eq!(
            pace(&seen, Waiting::OldPodGone),
            SLOW,
            "its kubelet will say it, and the watch brings that"
        );
        seen.reports.insert("pod-1".into(), report("pod-1", 2));
        assert_eq!(pace(&seen, Waiting::OldPodGone), COMMAND);
    }

    #[test]
    fn a_worker_that_has_ended_is_asked_about_until_its_sidecar_has_seen_it() {
        let mut seen = seen(&started(), 0);
        seen.reports.insert("pod-1".into(), report("pod-1", 1));
        let ready = |seen: &mut Observation, ready| {
            std::sync::Arc::make_mut(&mut seen.pods.get_mut("cart-3-1").unwrap().facts).ready = ready;
        };
        ready(&mut seen, true);
        assert_eq!(pace(&seen, Waiting::Nothing), RESYNC);
        ready(&mut seen, false);
        assert_eq!(pace(&seen, Waiting::Nothing), SLOW);
        let pod = std::sync::Arc::make_mut(&mut seen.pods.get_mut("cart-3-1").unwrap().facts);
        pod.backing_off = Some(crate::process::incarnation::BackingOff { ran_seconds: 1 });
        assert_eq!(pace(&seen, Waiting::Nothing), START);
        seen.reports.values_mut().for_each(|report| report.serving = false);
        assert_eq!(pace(&seen, Waiting::Nothing), SLOW, "what it lost is said when it is back");
    }

    #[test]
    fn the_retention_is_waited_out_in_one_go() {
        let mut seen = seen(&started(), 0);
        let mut serving = report("pod-1", 1);
        serving.serving_for_milliseconds = Some(1200);
        seen.reports.insert("pod-1".into(), serving);
        assert_eq!(pace(&seen, Waiting::Retention), Duration::from_millis(3800) + COMMAND);
    }
}

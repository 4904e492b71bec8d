//! What the planner is told of a process. Pure.

use k8s_openapi::jiff::Timestamp;
use processhub_crds::vocabulary::{MoveReason, annotation};
use processhub_crds::{HubProcessStatus, MigrationResult, MigrationSummary, MigrationTrigger};
use processhub_protocol::fence::Role;
use processhub_protocol::handover::Waiting;
use processhub_protocol::ledger::{Owner, Phase, Tenure};

use super::crash::{Crash, crash};
use super::observation::Observation;
use crate::assignments::{
    CodeFacts, FailedMove, FailedUpgrade, HubKey, Moving, MovingPhase, OwnerState, ProcessFacts, ProcessKey,
};
use crate::transfer;

/// The facts of an observation.
#[must_use]
pub fn facts(seen: &Observation, waiting: Waiting) -> ProcessFacts {
    let name = seen.name();
    let status = seen.status();
    ProcessFacts {
        key: ProcessKey { uid: seen.uid(), namespace: name.namespace.clone(), name: name.name },
        hub: HubKey { namespace: name.namespace, name: transfer::holder(&seen.object).to_owned() },
        bound_for: transfer::destination(&seen.object).map(str::to_owned),
        epoch: seen.ledger.epoch,
        pin: seen.object.spec.node_name.clone(),
        wish: seen.annotation(annotation::MOVE_TO).map(str::to_owned),
        paused: seen.annotation(annotation::PAUSED) == Some("true"),
        node: seen.ledger.owner.as_ref().map(|owner| owner.pod.node.clone()),
        owner: owner(seen),
        fenced: fenced(seen),
        moving: moving(seen, &status),
        capable: seen.owner_report().and_then(|report| report.worker.can_hand_over),
        waiting,
        settled_by_wish: settled_by_wish(seen, &status),
        failed: failed(&status),
        failed_transfer: failed_transfer(&status),
        code: code(&status),
    }
}

fn code(status: &HubProcessStatus) -> CodeFacts {
    let failed = status.failed_upgrade.as_ref().map(|failed| FailedUpgrade {
        revision: failed.revision.clone(),
        message: format!("({}->{}): {}", failed.from, failed.to, words(failed)),
    });
    let revision = status.owner.as_ref().map(|owner| owner.revision.clone()).unwrap_or_default();
    CodeFacts { revision, failed }
}

/// Why an upgrade was undone: in the worker's words, where it has any.
pub(super) fn words(failed: &processhub_crds::FailedUpgrade) -> &str {
    let reason = failed.reason.map_or("unknown", |reason| reason.as_str());
    failed.message.as_deref().filter(|message| !message.is_empty()).unwrap_or(reason)
}

/// Whether the owner does not answer and its lease runs out, or has.
fn fenced(seen: &Observation) -> bool {
    let fencing = |owner: &Owner| matches!(owner.tenure, Tenure::Fencing { .. });
    seen.ledger.owner.as_ref().is_some_and(fencing) && seen.owner_report().is_none()
}

fn owner(seen: &Observation) -> OwnerState {
    let Some(owner) = &seen.ledger.owner else { return OwnerState::None };
    if seen.dead.contains_key(&owner.pod.uid) || fenced(seen) {
        return OwnerState::Dead;
    }
    let until = match seen.owner_pod() {
        Some(pod) => pod.facts.going_until,
        // Deleted by force: the kubelet ends it as soon as it sees that. Until then it answers and can hand over.
        None => Some(seen.now),
    };
    match (seen.owner_report(), until) {
        (None, _) => OwnerState::Unreachable,
        (Some(_), Some(until)) => OwnerState::Leaving { until },
        (Some(report), None) if report.serving => OwnerState::Serving,
        (Some(report), None) => match crash(seen, report) {
            Crash::None => OwnerState::NotServing,
            Crash::Again(from) => OwnerState::Crashed { again: Some(from) },
            Crash::Exceeded => OwnerState::Crashed { again: None },
        },
    }
}

fn moving(seen: &Observation, status: &HubProcessStatus) -> Option<Moving> {
    let migration = seen.ledger.migration.as_ref()?;
    let written = status.migration.as_ref()?;
    let source = migration.source.as_ref();
    let frozen = source
        .and_then(|pod| seen.reports.get(&pod.uid))
        .is_some_and(|report| !matches!(report.role, Role::Active { .. }));
    Some(Moving {
        kind: migration.kind,
        trigger: written.trigger,
        from: source.map(|pod| pod.node.clone()),
        to: migration.target_node.clone(),
        revision: written.revision.clone(),
        phase: match migration.phase {
            Phase::Prepared if frozen => MovingPhase::Frozen,
            Phase::Prepared => MovingPhase::Prepared,
            Phase::Committed { .. } => MovingPhase::Committed,
            Phase::Aborted { .. } => MovingPhase::Aborted,
        },
    })
}

fn settled_by_wish(seen: &Observation, status: &HubProcessStatus) -> bool {
    let node = seen.ledger.owner.as_ref().map(|owner| &owner.pod.node);
    // New code leaves it where it is, and so do a new pod after a crash and a transfer that came to nothing.
    let last = status.history.iter().find(|last| match last.trigger {
        MigrationTrigger::Upgrade | MigrationTrigger::Crash => false,
        MigrationTrigger::Transfer => last.result == MigrationResult::Succeeded,
        MigrationTrigger::Start
        | MigrationTrigger::Wish
        | MigrationTrigger::Rebalance
        | MigrationTrigger::Drain
        | MigrationTrigger::PodDeleted
        | MigrationTrigger::NodeLost
        | MigrationTrigger::Pinned
        | MigrationTrigger::Recovery => true,
    });
    last.is_some_and(|last| {
        last.trigger == MigrationTrigger::Wish
            && last.result == MigrationResult::Succeeded
            && last.to.as_ref() == node
    })
}

fn failed(status: &HubProcessStatus) -> Option<FailedMove> {
    // What the new code or another hub's could not says nothing of the node, nor of the code that the process runs.
    let aside = |one: &&MigrationSummary| {
        matches!(one.trigger, MigrationTrigger::Upgrade | MigrationTrigger::Transfer)
    };
    failed_in_a_row(status.history.iter().filter(|one| !aside(one)))
}

fn failed_transfer(status: &HubProcessStatus) -> Option<FailedMove> {
    let transfers = || status.history.iter().filter(|one| one.trigger == MigrationTrigger::Transfer);
    // What was not wanted any more is begun anew when it is wanted again.
    let unwanted = transfers().next().is_some_and(|last| last.reason == Some(MoveReason::HubChanged));
    if unwanted { None } else { failed_in_a_row(transfers()) }
}

/// The newest of some moves, if it did not succeed.
fn failed_in_a_row<'a>(mut moves: impl Iterator<Item = &'a MigrationSummary>) -> Option<FailedMove> {
    let last = moves.next().filter(|last| last.result != MigrationResult::Succeeded)?;
    let in_a_row = 1 + moves.take_while(|one| one.result != MigrationResult::Succeeded).count();
    let at: Timestamp = last.completion_time.0;
    Some(FailedMove {
        to: last.to.clone().unwrap_or_default(),
        reason: last.reason,
        at,
        times: u32::try_from(in_a_row).unwrap_or(u32::MAX).max(1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::observation::tests::{report, seen};
    use crate::process::proof::Proof;
    use crate::process::record::tests::{end, owner_pod, prepare, started};
    use processhub_protocol::ledger::{AbortReason, Kind, MoveResult, Transition};
    use std::sync::Arc;

    #[test]
    fn the_owner_is_told_by_what_is_most_urgent() {
        let mut seen = seen(&started(), 0);
        assert_eq!(facts(&seen, Waiting::Nothing).owner, OwnerState::Unreachable);
        seen.reports.insert("pod-1".into(), report("pod-1", 1));
        assert_eq!(facts(&seen, Waiting::Nothing).owner, OwnerState::Serving);
        let until = Timestamp::from_second(99).unwrap();
        let pod = seen.pods.get_mut("cart-3-1").unwrap();
        Arc::make_mut(&mut pod.facts).going_until = Some(until);
        assert_eq!(facts(&seen, Waiting::Nothing).owner, OwnerState::Leaving { until });
        seen.dead.insert("pod-1".into(), Proof::ContainersEnded);
        assert_eq!(facts(&seen, Waiting::Nothing).owner, OwnerState::Dead);
    }

    #[test]
    fn an_owner_that_answers_without_a_pod_object_is_leaving_now() {
        let mut seen = seen(&started(), 0);
        seen.pods.clear();
        assert_eq!(facts(&seen, Waiting::Nothing).owner, OwnerState::Unreachable);
        seen.reports.insert("pod-1".into(), report("pod-1", 1));
        assert_eq!(facts(&seen, Waiting::Nothing).owner, OwnerState::Leaving { until: seen.now });
    }

    #[test]
    fn a_frozen_move_is_told_from_one_that_can_still_be_withdrawn() {
        let mut steps = started();
        steps.push(prepare(Kind::HotSwap, Some(owner_pod())));
        let mut seen = seen(&steps, 0);
        seen.reports.insert("pod-1".into(), report("pod-1", 1));
        let moving = facts(&seen, Waiting::TargetPod).moving.unwrap();
        assert_eq!((moving.phase, moving.kind), (MovingPhase::Prepared, Kind::HotSwap));
        let mut frozen = report("pod-1", 2);
        frozen.role = Role::Frozen { epoch: seen.ledger.epoch, state: None, kept: None };
        seen.reports.insert("pod-1".into(), frozen);
        assert_eq!(facts(&seen, Waiting::TargetPod).moving.unwrap().phase, MovingPhase::Frozen);
    }

    #[test]
    fn a_process_that_a_wish_brought_where_it_is_says_so() {
        let mut steps = started();
        steps.push(prepare(Kind::HotSwap, Some(owner_pod())));
        steps.push(crate::process::record::tests::commit(2, None, None));
        steps.push(end(MoveResult::Succeeded));
        let mut seen = seen(&steps, 0);
        for (trigger, node, by_wish) in [
            (MigrationTrigger::Wish, "n4", true),
            (MigrationTrigger::Rebalance, "n4", false),
            (MigrationTrigger::Wish, "elsewhere", false),
        ] {
            let last = &mut seen.object.status.as_mut().unwrap().history[0];
            (last.trigger, last.to) = (trigger, Some(node.into()));
            assert_eq!(facts(&seen, Waiting::Nothing).settled_by_wish, by_wish, "{trigger} to {node}");
        }
    }

    #[test]
    fn an_upgrade_that_failed_is_no_failed_move_and_leaves_a_wish_in_force() {
        let mut steps = started();
        steps.push(prepare(Kind::HotSwap, Some(owner_pod())));
        steps.push(crate::process::record::tests::commit(2, None, None));
        steps.push(end(MoveResult::Succeeded));
        steps.push(prepare(Kind::HotSwap, Some(owner_pod())));
        steps.push(Transition::Abort { reason: AbortReason::ImportRefused });
        steps.push(end(MoveResult::Aborted));
        let mut seen = seen(&steps, 0);
        assert!(facts(&seen, Waiting::Nothing).failed.is_some());
        let status = seen.object.status.as_mut().unwrap();
        status.history[0].trigger = MigrationTrigger::Upgrade;
        let facts = facts(&seen, Waiting::Nothing);
        assert_eq!(facts.failed, None, "nothing is said of the node");
        assert!(facts.settled_by_wish);
    }

    #[test]
    fn a_transfer_that_failed_counts_for_the_other_hub_alone_and_one_that_is_not_wanted_for_none() {
        let mut steps = started();
        steps.push(prepare(Kind::HotSwap, Some(owner_pod())));
        steps.push(Transition::Abort { reason: AbortReason::ImportRefused });
        steps.push(end(MoveResult::Aborted));
        let mut seen = seen(&steps, 0);
        seen.object.spec.hub_name = "till".into();
        seen.object.status.as_mut().unwrap().history[0].trigger = MigrationTrigger::Transfer;
        let told = facts(&seen, Waiting::Nothing);
        assert_eq!((told.hub.name.as_str(), told.bound_for.as_deref()), ("cart", Some("till")));
        assert_eq!((told.failed, told.failed_transfer.unwrap().times), (None, 1));
        seen.object.status.as_mut().unwrap().history[0].reason = Some(MoveReason::HubChanged);
        assert_eq!(facts(&seen, Waiting::Nothing).failed_transfer, None);
    }

    #[test]
    fn failed_moves_are_counted_until_one_succeeds() {
        let mut steps = started();
        assert_eq!(facts(&seen(&steps, 0), Waiting::Nothing).failed, None);
        for _ in 0..2 {
            steps.push(prepare(Kind::HotSwap, Some(owner_pod())));
            steps.push(Transition::Abort { reason: AbortReason::ImportRefused });
            steps.push(end(MoveResult::Aborted));
        }
        let failed = facts(&seen(&steps, 0), Waiting::Nothing).failed.unwrap();
        assert_eq!((failed.times, failed.to.as_str()), (2, "n4"));
    }
}

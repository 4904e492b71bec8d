//! The target owns the process: from here only forward.

use super::{Decision, Effect, PodView, Side, View, Waiting};
use crate::fence::Role;
use crate::id::StateId;
use crate::ledger::{AbortReason, Kind, Migration, MoveResult, Owner, Transition};
use crate::rules::{Rule, enforced};
use crate::wire::{CommandKind, Report, WorkerState};

pub(super) fn next(view: &View, migration: &Migration, state: Option<&StateId>) -> Decision {
    let Some(owner) = &view.ledger.owner else {
        // A ledger that is committed names its owner; one that does not was not written by this protocol.
        return Decision::wait(Waiting::HistoryRewound);
    };
    if view.target.dead {
        return lost(view, migration);
    }
    if !enforced(Rule::DeleteAfterActivation)
        && let Some(pod) = view.source.present()
        && !pod.deleting
    {
        return Decision::act(
            Effect::DeletePod { side: Side::Source, uid: pod.uid.clone() },
            Waiting::Activating,
        );
    }
    let Some(report) = view.target.report() else {
        return Decision::wait(Waiting::OwnerUnreachable);
    };
    if report.record != owner.record && enforced(Rule::RecordIdentity) {
        return amnesiac(view);
    }
    match &report.role {
        Role::Standby | Role::Delivered { .. } => activate(view, migration, state, report),
        Role::Active { .. } if !report.serving => match &view.intent {
            Some(intent) if intent.is_move() => make_way(view, migration, owner),
            Some(_) | None => Decision::wait(Waiting::Activating),
        },
        Role::Active { .. } => release(view, migration, owner, report),
        Role::Frozen { .. } | Role::Forwarding { .. } | Role::Retired { .. } => {
            Decision::wait(Waiting::Source)
        }
    }
}

fn activate(view: &View, migration: &Migration, state: Option<&StateId>, report: &Report) -> Decision {
    let gated = report.worker.state == WorkerState::Gated;
    if (gated || migration.kind == Kind::ColdSwap)
        && migration.source.is_some()
        && !view.source.worker_ended()
    {
        // Its clients' requests wait at the target from now on, and its worker may end.
        if view.source.report().is_some_and(|source| keeps_requests(&source.role, migration)) {
            return Decision::act(Effect::HandOn { epoch: migration.epoch }, Waiting::OldPodGone);
        }
        // The gate opens only when every container of the source, but its sidecar, has ended.
        return end_source(view, Waiting::OldPodGone);
    }
    if gated && view.lingering {
        return Decision::wait(Waiting::OldPodGone);
    }
    if report.busy.is_some_and(|busy| busy.command == CommandKind::Activate) {
        return Decision::wait(Waiting::Activating);
    }
    Decision::act(Effect::Activate { epoch: migration.epoch, state: state.cloned() }, Waiting::Activating)
}

/// Whether a sealed source does not know yet that its requests belong to the target of this move.
fn keeps_requests(role: &Role, migration: &Migration) -> bool {
    match role {
        Role::Frozen { .. } => true,
        Role::Forwarding { epoch, .. } => *epoch < migration.epoch,
        Role::Standby | Role::Delivered { .. } | Role::Active { .. } | Role::Retired { .. } => false,
    }
}

/// What comes before the source is let go: the route to the target; and the end, where there is no source any more.
fn routed_or_over(view: &View, migration: &Migration, owner: &Owner, unrouted: Waiting) -> Option<Decision> {
    if view.routed_to.as_ref() != Some(&owner.pod.uid) {
        return Some(Decision::act(Effect::Route(owner.pod.clone()), unrouted));
    }
    let gone = match &view.source.pod {
        PodView::Absent { live: true } | PodView::Foreign => true,
        PodView::Present(pod) => pod.deleting,
        PodView::Unknown | PodView::Absent { live: false } => false,
    };
    let over = migration.source.is_none() || view.source.dead || gone;
    let succeeded = Effect::Write(Transition::End { result: MoveResult::Succeeded });
    over.then(|| Decision::act(succeeded, Waiting::Nothing))
}

/// The target serves: route, keep the source for the retention, read live, delete it, end.
fn release(view: &View, migration: &Migration, owner: &Owner, report: &Report) -> Decision {
    if let Some(decision) = routed_or_over(view, migration, owner, Waiting::TargetReady) {
        return decision;
    }
    if report.serving_for_milliseconds.unwrap_or(0) < view.limits.retention {
        return Decision::wait(Waiting::Retention);
    }
    match view.target.present() {
        Some(pod) if !pod.live => Decision::act(Effect::ReadLive(Side::Target), Waiting::TargetReady),
        Some(pod) if pod.ready => end_source(view, Waiting::OldPodGone),
        Some(_) | None => Decision::wait(Waiting::TargetReady),
    }
}

/// The target took over, and the planner wants the process in yet another incarnation: its worker crashes again and again,
/// and may never be seen ready. The target's disk holds the state by now, and its sidecar what clients ask for; the source
/// is not needed any more.
fn make_way(view: &View, migration: &Migration, owner: &Owner) -> Decision {
    if let Some(decision) = routed_or_over(view, migration, owner, Waiting::Activating) {
        return decision;
    }
    if view.source.report().is_some_and(|source| keeps_requests(&source.role, migration)) {
        return Decision::act(Effect::HandOn { epoch: migration.epoch }, Waiting::OldPodGone);
    }
    match view.target.present() {
        Some(pod) if pod.live => end_source(view, Waiting::OldPodGone),
        Some(_) | None => Decision::act(Effect::ReadLive(Side::Target), Waiting::OldPodGone),
    }
}

fn end_source(view: &View, waiting: Waiting) -> Decision {
    match view.source.present() {
        Some(pod) if pod.deleting => Decision::wait(waiting),
        Some(pod) if pod.live => {
            Decision::act(Effect::DeletePod { side: Side::Source, uid: pod.uid.clone() }, waiting)
        }
        _ => Decision::act(Effect::ReadLive(Side::Source), waiting),
    }
}

/// The new owner died before the move ended. The sealed source is the newest copy there is; what the target may have
/// acknowledged since is reported as missing. It is imported by a new incarnation, never thawed (rule 12).
fn lost(view: &View, migration: &Migration) -> Decision {
    if !enforced(Rule::SealedStaysSealed) && !view.source.dead && migration.source.is_some() {
        return Decision::act(
            Effect::Write(Transition::Abort { reason: AbortReason::TargetLost }),
            Waiting::Thawing,
        );
    }
    let Some(intent) = &view.intent else {
        return Decision::wait(Waiting::Placement);
    };
    let sealed = migration.source.clone().filter(|_| migration.with_state && !view.source.dead);
    Decision::act(
        Effect::Write(Transition::Prepare {
            kind: Kind::Recover,
            with_state: sealed.is_some(),
            source: sealed,
            node: intent.node.clone(),
        }),
        Waiting::TargetPod,
    )
}

fn amnesiac(view: &View) -> Decision {
    match view.target.present() {
        Some(pod) if pod.deleting => Decision::wait(Waiting::OldPodGone),
        Some(pod) if pod.live => {
            Decision::act(Effect::DeletePod { side: Side::Target, uid: pod.uid.clone() }, Waiting::OldPodGone)
        }
        _ => Decision::act(Effect::ReadLive(Side::Target), Waiting::OldPodGone),
    }
}

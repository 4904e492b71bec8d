//! A move is prepared: everything up to the commit can still be undone.

use super::replicas::{self, Recovery};
use super::{Decision, Effect, PodView, Side, View, Waiting, tenure};
use crate::fence::Role;
use crate::id::StateId;
use crate::ledger::{AbortReason, Kind, Lost, Migration, PodRef, Transition};
use crate::rules::{Rule, enforced};
use crate::wire::{CommandKind, Failure, FailureKind, ImportReason, Report};

/// What the source's side of the move has come to.
enum Source<'a> {
    /// There is none, or there is nothing to wait for from it.
    None,
    /// It serves.
    Serving(&'a Report),
    /// It is sealed for this move, with this state.
    Sealed(Option<&'a StateId>),
    /// It is proven dead, or has lost its record.
    Lost,
    /// It does not answer.
    Silent,
    /// It is sealed by another move.
    Astray,
}

pub(super) fn next(view: &View, migration: &Migration) -> Decision {
    // The owner was given up too soon: it answers, and has all of its state.
    if migration.kind == Kind::Recover && tenure::back(view) {
        return abort(view, AbortReason::Regrant);
    }
    let source = source(view, migration);
    if let Some(decision) = commit_if_delivered(view, migration, &source) {
        return decision;
    }
    if let Some(reason) = reason_to_abort(view, migration, &source) {
        return abort(view, reason);
    }
    match &view.target.pod {
        PodView::Unknown | PodView::Absent { live: false } => {
            return Decision::act(Effect::ReadLive(Side::Target), Waiting::TargetPod);
        }
        PodView::Absent { live: true } => {
            return Decision::act(
                Effect::CreatePod {
                    name: migration.target_name.clone(),
                    node: migration.target_node.clone(),
                    epoch: migration.epoch,
                    gated: migration.kind == Kind::ColdSwap,
                },
                Waiting::TargetPod,
            );
        }
        PodView::Foreign | PodView::Present(_) => {}
    }
    let Some(target) = view.target.report() else {
        return Decision::wait(Waiting::TargetSidecar);
    };
    match target.busy.map(|busy| busy.command) {
        Some(CommandKind::Import) => return Decision::wait(Waiting::Importing),
        Some(CommandKind::Trial) => return Decision::wait(Waiting::Trying),
        Some(_) | None => {}
    }
    if !view.target.can_take_over() {
        return Decision::wait(Waiting::TargetWorker);
    }
    if migration.kind == Kind::Recover
        && let Some(decision) = recover(view, migration, &source)
    {
        return decision;
    }
    match source {
        Source::None => commit(view, migration, target, None),
        Source::Serving(report) if freezing(report, migration) => Decision::wait(Waiting::Freezing),
        Source::Serving(_) if view.trial && migration.with_state && target.tried != Some(migration.epoch) => {
            Decision::act(Effect::Trial { epoch: migration.epoch }, Waiting::Trying)
        }
        Source::Serving(_) => Decision::act(
            Effect::Freeze { epoch: migration.epoch, capture: migration.with_state },
            Waiting::Freezing,
        ),
        Source::Sealed(Some(state)) if migration.with_state => Decision::act(
            Effect::Import {
                epoch: migration.epoch,
                state: state.clone(),
                reason: match migration.kind {
                    Kind::Recover => ImportReason::Crash,
                    Kind::Start | Kind::HotSwap | Kind::ColdSwap => ImportReason::Handover,
                },
                replica: None,
            },
            Waiting::Importing,
        ),
        Source::Sealed(_) => commit(view, migration, target, None),
        Source::Silent => Decision::wait(Waiting::Source),
        // A recovery whose sealed source is lost as well: nothing is left to be had. Every other lost or astray
        // source has been a reason to abort above.
        Source::Lost | Source::Astray => commit(view, migration, target, None),
    }
}

/// A recovery takes the newest of the sealed source and the replicas. They are sealed only when nobody else may acknowledge
/// any more: an owner that comes back before that goes on with them.
fn recover(view: &View, migration: &Migration, source: &Source<'_>) -> Option<Decision> {
    let sealed = match source {
        Source::Sealed(Some(_)) => view.source.report().and_then(|report| match report.role {
            Role::Frozen { epoch, .. } | Role::Forwarding { epoch, .. } => Some(epoch),
            Role::Standby | Role::Delivered { .. } | Role::Active { .. } | Role::Retired { .. } => None,
        }),
        Source::None | Source::Lost | Source::Astray | Source::Sealed(None) => None,
        Source::Serving(_) | Source::Silent => return None,
    };
    if !view.ledger.replicas.holders().is_empty() && !tenure::replaceable(view) {
        return Some(Decision::wait(Waiting::LeaseEnd));
    }
    let epoch = migration.epoch;
    match replicas::recovery(view, sealed) {
        Recovery::None => None,
        Recovery::Ask => Some(Decision::act(Effect::SealReplicas { epoch }, Waiting::Replicas)),
        Recovery::Wait => Some(Decision::wait(Waiting::Replicas)),
        Recovery::From(pod, state) => Some(Decision::act(
            Effect::Import {
                epoch,
                state: state.clone(),
                reason: ImportReason::Crash,
                replica: Some(pod.clone()),
            },
            Waiting::Importing,
        )),
    }
}

fn source<'a>(view: &'a View, migration: &Migration) -> Source<'a> {
    let Some(pod) = &migration.source else {
        return Source::None;
    };
    if view.source.dead {
        return Source::Lost;
    }
    let Some(report) = view.source.report() else {
        return Source::Silent;
    };
    if migration.kind == Kind::Recover {
        // Sealed by the commit of the move before; any later epoch may fetch from it.
        return match &report.role {
            Role::Frozen { state, .. } | Role::Forwarding { state, .. } => Source::Sealed(state.as_ref()),
            Role::Active { .. } | Role::Standby | Role::Delivered { .. } | Role::Retired { .. } => {
                Source::Lost
            }
        };
    }
    let known =
        view.ledger.owner.as_ref().is_none_or(|owner| owner.pod != *pod || owner.record == report.record);
    if !known && enforced(Rule::RecordIdentity) {
        return Source::Lost;
    }
    match &report.role {
        Role::Active { .. } => Source::Serving(report),
        Role::Frozen { epoch, state, .. } if *epoch == migration.epoch => Source::Sealed(state.as_ref()),
        Role::Frozen { .. } | Role::Forwarding { .. } | Role::Retired { .. } => Source::Astray,
        Role::Standby | Role::Delivered { .. } => Source::Lost,
    }
}

/// The target holds the state: commit, if it is the state that the source sealed, or the source is lost (rule 13).
fn commit_if_delivered(view: &View, migration: &Migration, source: &Source<'_>) -> Option<Decision> {
    let target = view.target.report()?;
    let Role::Delivered { epoch, state } = &target.role else {
        return None;
    };
    if *epoch != migration.epoch || view.target.dead {
        return None;
    }
    let recovers = migration.kind == Kind::Recover;
    // What may be missing is said by who asked the holders; another leader has to ask them again.
    if recovers && matches!(replicas::recovery(view, None), Recovery::Ask) {
        return Some(Decision::act(Effect::SealReplicas { epoch: migration.epoch }, Waiting::Replicas));
    }
    let same = match source {
        // A recovery imports what was the newest that was to be had.
        Source::Sealed(sealed) => *sealed == Some(state) || recovers,
        Source::Lost => enforced(Rule::CommitWithoutSource),
        Source::None | Source::Astray => recovers,
        Source::Serving(_) | Source::Silent => false,
    };
    same.then(|| commit(view, migration, target, Some(state)))
}

fn commit(view: &View, migration: &Migration, target: &Report, state: Option<&StateId>) -> Decision {
    let Some(pod) = view.target.present() else {
        return Decision::act(Effect::ReadLive(Side::Target), Waiting::TargetPod);
    };
    if migration.kind == Kind::Recover && !tenure::replaceable(view) {
        return Decision::wait(Waiting::LeaseEnd);
    }
    let vouched = replicas::vouched(view, state);
    let recovered = migration.kind == Kind::Recover && enforced(Rule::ReportedLoss) && !vouched;
    let lost = recovered.then(|| Lost { from: View::first_unknown(state.map(|state| state.seq)) });
    Decision::act(
        Effect::Write(Transition::Commit {
            target: PodRef {
                name: migration.target_name.clone(),
                uid: pod.uid.clone(),
                node: migration.target_node.clone(),
            },
            record: target.record.clone(),
            state: state.cloned(),
            lost,
            leased: target.lease.is_some(),
            replicated: target.replicas.is_some(),
        }),
        Waiting::Activating,
    )
}

fn reason_to_abort(view: &View, migration: &Migration, source: &Source<'_>) -> Option<AbortReason> {
    if let Some(reason) = view.give_up
        && may_give_up(view, migration, source, reason)
    {
        return Some(reason);
    }
    if view.target.dead
        || matches!(view.target.pod, PodView::Foreign)
        || view.target.present().is_some_and(|pod| pod.deleting)
    {
        return Some(AbortReason::TargetLost);
    }
    if let Some(failure) = view.target.report().and_then(|report| failure(report, migration)) {
        return Some(failure);
    }
    match source {
        Source::None | Source::Silent => None,
        Source::Serving(report) => failure(report, migration).or_else(|| {
            let busy = report.busy.filter(|busy| busy.command == CommandKind::Freeze)?;
            (busy.milliseconds > view.limits.freeze).then_some(AbortReason::StateQueryTimeout)
        }),
        Source::Sealed(state) => {
            let waited = view.source.report().and_then(|report| report.frozen_for_milliseconds).unwrap_or(0);
            if migration.kind == Kind::Recover {
                None
            } else if waited > view.limits.state_ttl {
                Some(AbortReason::StateTTLExpired)
            } else if migration.with_state && state.is_none() {
                Some(AbortReason::CaptureFailed)
            } else {
                None
            }
        }
        Source::Lost | Source::Astray if migration.kind == Kind::Recover => None,
        Source::Lost if may_hold_all(view, migration) => None,
        Source::Lost => Some(AbortReason::SourceLost),
        Source::Astray => Some(AbortReason::Regrant),
    }
}

fn may_give_up(view: &View, migration: &Migration, source: &Source<'_>, reason: AbortReason) -> bool {
    match (reason, source) {
        // A plan that changed its mind stops nothing that has been frozen: going on is the shorter blackout.
        (AbortReason::Withdrawn, Source::Sealed(_)) => false,
        // There is no source to go back to, and the target may be all that is left of the state.
        (AbortReason::Cancelled | AbortReason::Withdrawn, Source::Lost) => !may_hold_all(view, migration),
        _ => true,
    }
}

/// Whether the target may hold the whole state of a source that is lost, or may yet come to hold it: nobody knows while
/// it does not answer, or while it imports. The move's deadline ends the wait.
fn may_hold_all(view: &View, migration: &Migration) -> bool {
    if view.target.dead || matches!(view.target.pod, PodView::Absent { live: true } | PodView::Foreign) {
        return false;
    }
    view.target.report().is_none_or(|report| {
        let importing = report.busy.is_some_and(|busy| busy.command == CommandKind::Import);
        let delivered = matches!(report.role, Role::Delivered { epoch, .. } if epoch == migration.epoch);
        importing || (delivered && enforced(Rule::CommitWithoutSource))
    })
}

fn failure(report: &Report, migration: &Migration) -> Option<AbortReason> {
    let Failure { epoch, kind, .. } = report.failure.as_ref()?;
    (*epoch == migration.epoch).then_some(match kind {
        FailureKind::StateQueryTimeout => AbortReason::StateQueryTimeout,
        FailureKind::CaptureFailed => AbortReason::CaptureFailed,
        FailureKind::ImportRefused => AbortReason::ImportRefused,
        FailureKind::ImportFailed => AbortReason::ImportFailed,
    })
}

fn freezing(report: &Report, migration: &Migration) -> bool {
    report.busy.is_some_and(|busy| busy.command == CommandKind::Freeze && busy.epoch == migration.epoch)
}

fn abort(view: &View, reason: AbortReason) -> Decision {
    // The variant without rule 5 thaws first and writes afterwards.
    if !enforced(Rule::AbortBeforeUndo)
        && view.source.report().is_some_and(|report| matches!(report.role, Role::Frozen { .. }))
    {
        return Decision::act(Effect::Thaw { epoch: view.ledger.epoch.next() }, Waiting::Thawing);
    }
    Decision::act(Effect::Write(Transition::Abort { reason }), Waiting::Thawing)
}

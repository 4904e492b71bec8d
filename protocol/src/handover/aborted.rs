//! A move is being undone: the source serves again at the abort's epoch, the target goes.

use super::{Decision, Effect, PodView, Side, View, Waiting, tenure};
use crate::fence::Role;
use crate::id::Epoch;
use crate::ledger::{Kind, Migration, MoveResult, Transition};
use crate::rules::{Rule, enforced};

/// Whether one half of the undo is done.
enum Undo {
    Done,
    Do(Effect),
    Wait(Waiting),
}

pub(super) fn next(view: &View, migration: &Migration, epoch: Epoch) -> Decision {
    let halves = [thaw_source(view, migration, epoch), end_target(view, migration)];
    let mut decision = Decision::wait(Waiting::Nothing);
    for half in halves {
        match half {
            Undo::Done => {}
            Undo::Do(effect) => {
                decision.effects.push(effect);
                decision.waiting = Waiting::Thawing;
            }
            Undo::Wait(waiting) => decision.waiting = waiting,
        }
    }
    if decision.effects.is_empty() && decision.waiting == Waiting::Nothing {
        if migration.kind == Kind::Recover
            && migration.source.is_some()
            && !view.source.dead
            && !tenure::back(view)
        {
            return recover_again(view, migration);
        }
        let result = if view.source.dead { MoveResult::Failed } else { MoveResult::Aborted };
        return Decision::act(Effect::Write(Transition::End { result }), Waiting::Nothing);
    }
    decision
}

/// The sealed source is still the newest copy: ending the move here would forget it.
fn recover_again(view: &View, migration: &Migration) -> Decision {
    let Some(intent) = &view.intent else {
        return Decision::wait(Waiting::Placement);
    };
    Decision::act(
        Effect::Write(Transition::Prepare {
            kind: Kind::Recover,
            source: migration.source.clone(),
            node: intent.node.clone(),
            with_state: migration.with_state,
        }),
        Waiting::TargetPod,
    )
}

fn thaw_source(view: &View, migration: &Migration, epoch: Epoch) -> Undo {
    // A sealed source of a recovery stays sealed (rule 12).
    if migration.source.is_none() || migration.kind == Kind::Recover || view.source.dead {
        return Undo::Done;
    }
    let Some(report) = view.source.report() else {
        return Undo::Wait(Waiting::OwnerUnreachable);
    };
    let known = view.ledger.owner.as_ref().is_none_or(|owner| owner.record == report.record);
    if !known && enforced(Rule::RecordIdentity) && enforced(Rule::SealedStaysSealed) {
        // The steady loop ends that pod and recovers the process.
        return Undo::Done;
    }
    match &report.role {
        Role::Active { epoch: serving, .. } if *serving >= epoch => {
            if report.serving {
                Undo::Done
            } else {
                Undo::Wait(Waiting::Thawing)
            }
        }
        // Also while it never froze: this raises its floor above a freeze that may still be on its way.
        Role::Active { .. } | Role::Frozen { .. } => Undo::Do(Effect::Thaw { epoch }),
        Role::Forwarding { .. } if !enforced(Rule::SealedStaysSealed) => Undo::Do(Effect::Thaw { epoch }),
        Role::Forwarding { .. } | Role::Retired { .. } | Role::Standby | Role::Delivered { .. } => {
            Undo::Wait(Waiting::Source)
        }
    }
}

fn end_target(view: &View, migration: &Migration) -> Undo {
    if migration.target_name.is_empty() {
        return Undo::Done;
    }
    match &view.target.pod {
        PodView::Absent { live: true } | PodView::Foreign => Undo::Done,
        PodView::Present(pod) if pod.deleting => Undo::Done,
        PodView::Present(pod) if pod.live => {
            Undo::Do(Effect::DeletePod { side: Side::Target, uid: pod.uid.clone() })
        }
        PodView::Unknown | PodView::Absent { live: false } | PodView::Present(_) => {
            Undo::Do(Effect::ReadLive(Side::Target))
        }
    }
}

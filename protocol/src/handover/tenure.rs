//! The owner's tenure, where it is by lease: renewed while it answers, fenced and waited out when it does not.
//!
//! Fencing decides nothing yet: it only ends the renewals (rule 17). An owner that answers again before somebody else was
//! committed goes on with its state. The target of the recovery starts meanwhile.

use super::{Decision, Effect, View, Waiting};
use crate::fence::Role;
use crate::ledger::{Phase, Tenure, Transition};
use crate::rules::{Rule, enforced};
use crate::wire::Report;

/// What comes before everything else of a move.
pub(super) fn next(view: &View) -> Option<Decision> {
    let owner = view.ledger.owner.as_ref()?;
    let answers =
        view.owner.report().is_some_and(|report| report.record == owner.record && can_go_on(view, report));
    match owner.tenure {
        Tenure::Unbounded => None,
        Tenure::Leased => {
            let silent = view.owner.report().is_none() && !view.owner.dead;
            (silent && view.owner.replaceable)
                .then(|| Decision::act(Effect::Write(Transition::Fence), Waiting::LeaseEnd))
        }
        Tenure::Fencing { .. } => {
            answers.then(|| Decision::act(Effect::Write(Transition::Unfence), Waiting::Source))
        }
    }
}

/// Whether an owner that answers again can go on as one. Once its recovery was prepared nobody remembers what one was to be
/// activated with that had not been yet.
fn can_go_on(view: &View, report: &Report) -> bool {
    let migration = view.ledger.migration.as_ref();
    let activating = migration.is_some_and(|migration| matches!(migration.phase, Phase::Committed { .. }));
    match report.role {
        Role::Active { .. } | Role::Frozen { .. } => true,
        Role::Standby | Role::Delivered { .. } => activating,
        Role::Forwarding { .. } | Role::Retired { .. } => false,
    }
}

/// The renewal that is due whenever the owner is looked at, whatever else is done: beside the effects of [`super::next`],
/// and before them.
#[must_use]
pub fn renewal(view: &View) -> Option<Effect> {
    let owner = view.ledger.owner.as_ref()?;
    let granted = match owner.tenure {
        Tenure::Unbounded => false,
        Tenure::Leased => true,
        Tenure::Fencing { .. } => !enforced(Rule::FencedUnrenewed),
    };
    if !view.leading || !granted || view.history_rewound() {
        return None;
    }
    let report = view.owner.report().filter(|report| report.record == owner.record)?;
    match report.role {
        Role::Active { epoch, .. } => Some(Effect::Renew { epoch }),
        Role::Standby
        | Role::Delivered { .. }
        | Role::Frozen { .. }
        | Role::Forwarding { .. }
        | Role::Retired { .. } => None,
    }
}

/// Whether the owner may be replaced by a recovery now: by proof of death, or because it holds no lease and gets none.
pub(super) fn replaceable(view: &View) -> bool {
    let Some(owner) = &view.ledger.owner else { return true };
    view.owner.dead
        || match owner.tenure {
            // Whatever was seen when it was prepared: a proof of death does not go away.
            Tenure::Unbounded => true,
            Tenure::Leased => false,
            Tenure::Fencing { .. } => view.owner.lapsed || !enforced(Rule::LeaseWaitedOut),
        }
}

/// Whether the owner is being fenced: its recovery begins, and waits for the end of its lease with everything prepared.
pub(super) fn fencing(view: &View) -> bool {
    view.ledger.owner.as_ref().is_some_and(|owner| matches!(owner.tenure, Tenure::Fencing { .. }))
}

/// Whether an owner that was fenced is one again, and is not proven dead.
pub(super) fn back(view: &View) -> bool {
    let leased = view.ledger.owner.as_ref().is_some_and(|owner| owner.tenure == Tenure::Leased);
    leased && !view.owner.dead
}

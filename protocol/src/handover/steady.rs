//! No move is under way.

use super::{Decision, Effect, Handover, Side, View, Waiting, tenure};
use crate::fence::Role;
use crate::ledger::{AbortReason, Kind, Owner, Transition};
use crate::rules::{Rule, enforced};
use crate::wire::Report;

pub(super) fn next(view: &View) -> Decision {
    let Some(owner) = &view.ledger.owner else {
        return match &view.intent {
            None => Decision::wait(Waiting::Placement),
            Some(_) if view.lingering => Decision::wait(Waiting::OldPodGone),
            Some(intent) => prepare(Kind::Start, None, &intent.node, false),
        };
    };
    if view.source.dead || tenure::fencing(view) {
        return match &view.intent {
            None => Decision::wait(Waiting::Placement),
            Some(intent) => prepare(Kind::Recover, None, &intent.node, false),
        };
    }
    match view.source.report() {
        None => Decision::wait(Waiting::OwnerUnreachable),
        Some(report) => owned(view, owner, report),
    }
}

fn owned(view: &View, owner: &Owner, report: &Report) -> Decision {
    if report.record != owner.record && enforced(Rule::RecordIdentity) {
        return amnesiac(view);
    }
    match &report.role {
        // Rule 11: fenced, and no move that would ever end it.
        Role::Frozen { .. } if enforced(Rule::StandingRegrant) => {
            Decision::act(Effect::Write(Transition::Abort { reason: AbortReason::Regrant }), Waiting::Thawing)
        }
        Role::Active { epoch, .. } if *epoch < owner.epoch && enforced(Rule::StandingRegrant) => {
            Decision::act(Effect::Write(Transition::Abort { reason: AbortReason::Regrant }), Waiting::Thawing)
        }
        Role::Active { .. } => serving(view, owner, report),
        // The variant without rule 14 takes whatever runs in the owner's pod for the owner.
        Role::Standby if !enforced(Rule::RecordIdentity) => {
            Decision::act(Effect::Activate { epoch: owner.epoch, state: None }, Waiting::Activating)
        }
        Role::Frozen { .. }
        | Role::Forwarding { .. }
        | Role::Retired { .. }
        | Role::Standby
        | Role::Delivered { .. } => Decision::wait(Waiting::Source),
    }
}

fn serving(view: &View, owner: &Owner, report: &Report) -> Decision {
    if view.routed_to.as_ref() != Some(&owner.pod.uid) {
        return Decision::act(Effect::Route(owner.pod.clone()), Waiting::Nothing);
    }
    // A start or recovery that was planned has been carried out: this owner is what came of it.
    let Some(intent) = view.intent.as_ref().filter(|intent| intent.is_move()) else {
        return Decision::wait(Waiting::Nothing);
    };
    if view.lingering {
        return Decision::wait(Waiting::OldPodGone);
    }
    let with_state = match (view.limits.handover, report.worker.can_hand_over) {
        (Handover::Never, _) | (Handover::IfCapable, Some(false)) => false,
        (Handover::IfCapable | Handover::Required, Some(true)) => true,
        (Handover::Required, Some(false)) => return Decision::wait(Waiting::HandoverNotSupported),
        // It has not answered since its sidecar started: what it can is not known, and guessing could lose its state.
        (Handover::IfCapable | Handover::Required, None) => return Decision::wait(Waiting::Source),
    };
    prepare(intent.kind, Some(owner.pod.clone()), &intent.node, with_state)
}

/// Rule 14: the owner's pod runs, but its record is gone with its volume. It can never be granted anything again; it
/// is ended, and then the process is recovered.
fn amnesiac(view: &View) -> Decision {
    match view.source.present() {
        Some(pod) if pod.deleting => Decision::wait(Waiting::OldPodGone),
        Some(pod) if pod.live => {
            Decision::act(Effect::DeletePod { side: Side::Source, uid: pod.uid.clone() }, Waiting::OldPodGone)
        }
        _ => Decision::act(Effect::ReadLive(Side::Source), Waiting::OldPodGone),
    }
}

fn prepare(kind: Kind, source: Option<crate::ledger::PodRef>, node: &str, with_state: bool) -> Decision {
    Decision::act(
        Effect::Write(Transition::Prepare { kind, source, node: node.to_owned(), with_state }),
        Waiting::TargetPod,
    )
}

//! Owners whose tenure is by lease: renewed, fenced, waited out, taken over, or back in time.

use processhub_protocol::handover::{
    Decision, Effect, Incarnation, Side, SidecarView, View, Waiting, next, renewal,
};
use processhub_protocol::id::Epoch;
use processhub_protocol::ledger::{AbortReason, Kind, Lost, MoveResult, Phase, Tenure, Transition};

use crate::parts::*;

fn wait(waiting: Waiting) -> Decision {
    Decision { effects: Vec::new(), waiting }
}

/// An owner at epoch 4 that answers.
fn answering() -> View {
    view(ledger(4, Some(leased(1, 4)), None), up(&active(1, 4)), Incarnation::default())
}

/// It does not, and another node is there for it.
fn lost() -> View {
    let mut lost = view(ledger(4, Some(leased(1, 4)), None), silent(&active(1, 4)), Incarnation::default());
    lost.owner.replaceable = true;
    lost.intent = intent(Kind::Recover);
    lost
}

/// It is being fenced.
fn fencing() -> View {
    let mut fencing = lost();
    fencing.ledger.owner = Some(fenced(1, 4));
    fencing
}

/// Its recovery is prepared, and the target is up.
fn recovering() -> View {
    let mut recovering = fencing();
    recovering.ledger =
        ledger(5, Some(fenced(1, 4)), Some(migration(Kind::Recover, 5, None, Phase::Prepared)));
    recovering.source = Incarnation::default();
    recovering.target = up(&standby(5));
    recovering
}

fn back(mut view: View) -> View {
    view.owner.sidecar = SidecarView::Report(Box::new(report(&active(1, 4))));
    view
}

#[test]
fn an_owner_that_answers_is_renewed_at_the_epoch_that_it_serves_at() {
    assert_eq!(renewal(&answering()), Some(Effect::Renew { epoch: Epoch(4) }));
    let mut regranted = answering();
    regranted.ledger = ledger(6, Some(leased(1, 6)), None);
    assert_eq!(
        renewal(&regranted),
        Some(Effect::Renew { epoch: Epoch(4) }),
        "it serves on until it is thawed"
    );
}

#[test]
fn nobody_is_renewed_who_has_no_lease_or_is_not_the_owner() {
    let mut unbounded = answering();
    unbounded.ledger.owner = Some(owner(1, 4));
    assert_eq!(renewal(&unbounded), None);
    assert_eq!(renewal(&View { leading: false, ..answering() }), None);
    assert_eq!(renewal(&lost()), None, "it does not answer");
    assert_eq!(renewal(&back(fencing())), None, "it is unfenced first");
    let mut frozen_owner = answering();
    frozen_owner.owner.sidecar = SidecarView::Report(Box::new(report(&frozen(1, 5, Some(7)))));
    frozen_owner.ledger.epoch = Epoch(5);
    assert_eq!(renewal(&frozen_owner), None);
    let mut amnesiac = answering();
    let mut other = report(&active(1, 4));
    other.record = record_id(9);
    amnesiac.owner.sidecar = SidecarView::Report(Box::new(other));
    assert_eq!(renewal(&amnesiac), None, "its volume was lost");
}

#[test]
fn an_owner_that_does_not_answer_is_fenced_once_it_may_be_replaced() {
    assert_eq!(only(&lost()), Effect::Write(Transition::Fence));
    let mut alone = lost();
    alone.owner.replaceable = false;
    assert_eq!(next(&alone), wait(Waiting::OwnerUnreachable));
    let mut unbounded = lost();
    unbounded.ledger.owner = Some(owner(1, 4));
    assert_eq!(next(&unbounded), wait(Waiting::OwnerUnreachable), "nobody knows when it ends");
}

#[test]
fn its_recovery_is_prepared_while_its_lease_runs_out() {
    let prepare =
        Transition::Prepare { kind: Kind::Recover, source: None, node: "n9".to_owned(), with_state: false };
    assert_eq!(only(&fencing()), Effect::Write(prepare));
    assert_eq!(
        next(&recovering()),
        wait(Waiting::LeaseEnd),
        "the target waits for it with everything else done"
    );
    let mut lapsed = recovering();
    lapsed.owner.lapsed = true;
    let Effect::Write(Transition::Commit { target, lost, .. }) = only(&lapsed) else { panic!("{lapsed:?}") };
    assert_eq!((target, lost), (pod(5), Some(Lost { from: 1 })));
}

#[test]
fn a_lease_that_has_ended_is_no_reason_before_it_was_fenced() {
    let mut renewed = recovering();
    renewed.owner.lapsed = true;
    renewed.ledger.owner = Some(leased(1, 4));
    assert_eq!(only(&renewed), Effect::Write(Transition::Fence));
}

#[test]
fn a_proof_of_death_needs_no_fencing() {
    let mut dead = lost();
    dead.owner.dead = true;
    dead.source.dead = true;
    assert!(matches!(only(&dead), Effect::Write(Transition::Prepare { kind: Kind::Recover, .. })));
    let mut prepared = recovering();
    prepared.ledger.owner = Some(leased(1, 4));
    prepared.owner.dead = true;
    assert!(matches!(only(&prepared), Effect::Write(Transition::Commit { .. })));
}

#[test]
fn an_owner_that_is_back_in_time_goes_on_with_its_state() {
    assert_eq!(only(&back(fencing())), Effect::Write(Transition::Unfence));
    assert_eq!(
        only(&back(recovering())),
        Effect::Write(Transition::Unfence),
        "before anybody else is committed"
    );
    let mut unfenced = back(recovering());
    unfenced.ledger.owner = Some(leased(1, 4));
    assert_eq!(only(&unfenced), Effect::Write(Transition::Abort { reason: AbortReason::Regrant }));
    assert_eq!(renewal(&unfenced), Some(Effect::Renew { epoch: Epoch(4) }), "it serves meanwhile");
    let phase = Phase::Aborted { epoch: Epoch(6), reason: AbortReason::Regrant };
    let mut undone = back(recovering());
    undone.ledger = ledger(6, Some(leased(1, 6)), Some(migration(Kind::Recover, 5, None, phase)));
    let Effect::DeletePod { side, .. } = only(&undone) else { panic!("{undone:?}") };
    assert_eq!(side, Side::Target);
    undone.target = absent();
    assert_eq!(only(&undone), Effect::Write(Transition::End { result: MoveResult::Aborted }));
}

#[test]
fn an_owner_whose_volume_is_gone_is_not_back() {
    let mut other = report(&standby(1));
    other.record = record_id(9);
    let mut fencing = recovering();
    fencing.owner.sidecar = SidecarView::Report(Box::new(other));
    assert_eq!(next(&fencing), wait(Waiting::LeaseEnd));
}

#[test]
fn a_target_that_is_lost_after_the_commit_is_fenced_as_any_owner() {
    let phase = Phase::Committed { state: Some(state(7)) };
    let committed = ledger(5, Some(leased(5, 5)), Some(migration(Kind::HotSwap, 5, Some(1), phase)));
    let mut lost = view(committed, up(&frozen(1, 5, Some(7))), silent(&active(5, 5)));
    lost.owner.replaceable = true;
    assert_eq!(only(&lost), Effect::Write(Transition::Fence));
    lost.ledger.owner = Some(fenced(5, 5));
    assert_eq!(next(&lost), wait(Waiting::OwnerUnreachable));
    // An owner that is fenced, lapsed and silent is as good as dead: its sealed source is the newest copy.
    lost.target.dead = true;
    lost.owner.lapsed = true;
    lost.intent = intent(Kind::Recover);
    let Effect::Write(Transition::Prepare { kind, source, with_state, .. }) = only(&lost) else {
        panic!("{lost:?}")
    };
    assert_eq!((kind, source, with_state), (Kind::Recover, Some(pod(1)), true));
}

#[test]
fn fencing_takes_no_epoch_and_unfencing_does() {
    let start = ledger(4, Some(leased(1, 4)), None);
    let fenced = start.after(PROCESS, &Transition::Fence).expect("fenced");
    assert_eq!(
        (fenced.epoch, fenced.owner.as_ref().map(|owner| owner.tenure)),
        (Epoch(4), Some(Tenure::Fencing { at: Epoch(4) }))
    );
    assert_eq!(fenced.after(PROCESS, &Transition::Fence), None, "it is fenced");
    let back = fenced.after(PROCESS, &Transition::Unfence).expect("unfenced");
    assert_eq!(back, ledger(5, Some(leased(1, 4)), None));
    assert_eq!(start.after(PROCESS, &Transition::Unfence), None, "it is not fenced");
    assert_eq!(ledger(4, Some(owner(1, 4)), None).after(PROCESS, &Transition::Fence), None);
}

#[test]
fn an_undo_goes_on_at_the_epoch_of_the_unfencing() {
    let phase = |epoch| Phase::Aborted { epoch: Epoch(epoch), reason: AbortReason::Cancelled };
    let undone = ledger(6, Some(fenced(1, 6)), Some(migration(Kind::HotSwap, 5, Some(1), phase(6))));
    let back = undone.after(PROCESS, &Transition::Unfence).expect("unfenced");
    assert_eq!(back, ledger(7, Some(leased(1, 7)), Some(migration(Kind::HotSwap, 5, Some(1), phase(7)))));
}

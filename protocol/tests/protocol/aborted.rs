//! A move is being undone: source 1, target 5, undone at epoch 6.

use processhub_protocol::handover::{Decision, Effect, Incarnation, PodView, Side, View, Waiting, next};
use processhub_protocol::id::Epoch;
use processhub_protocol::ledger::{AbortReason, Kind, MoveResult, Phase, Transition};

use crate::parts::*;

fn phase() -> Phase {
    Phase::Aborted { epoch: Epoch(6), reason: AbortReason::Cancelled }
}

fn aborted(source: Incarnation, target: Incarnation) -> View {
    view(ledger(6, Some(owner(1, 6)), Some(migration(Kind::HotSwap, 5, Some(1), phase()))), source, target)
}

fn thaw() -> Effect {
    Effect::Thaw { epoch: Epoch(6) }
}

fn delete_target() -> Effect {
    Effect::DeletePod { side: Side::Target, uid: uid(5) }
}

fn ended(result: MoveResult) -> Effect {
    Effect::Write(Transition::End { result })
}

fn waiting(view: &View) -> Waiting {
    let Decision { effects, waiting } = next(view);
    assert!(effects.is_empty(), "{effects:?}");
    waiting
}

#[test]
fn source_and_target_are_undone_side_by_side() {
    let both = aborted(up(&frozen(1, 5, Some(7))), up(&delivered(5, 5, 7)));
    assert_eq!(next(&both).effects, [thaw(), delete_target()]);
    let thawed = aborted(up(&active(1, 6)), up(&delivered(5, 5, 7)));
    assert_eq!(next(&thawed).effects, [delete_target()]);
    let ended_target = aborted(up(&frozen(1, 5, Some(7))), absent());
    assert_eq!(next(&ended_target).effects, [thaw()]);
}

#[test]
fn a_source_that_never_froze_is_thawed_all_the_same() {
    let view = aborted(up(&active(1, 4)), absent());
    assert_eq!(only(&view), thaw(), "its floor must rise above a freeze that may still be on its way");
}

#[test]
fn the_move_ends_when_the_source_serves_again_and_the_target_goes() {
    let serves = up(&active(1, 6));
    let foreign = Incarnation { pod: PodView::Foreign, ..Incarnation::default() };
    for target in [absent(), deleting(up(&standby(5))), foreign] {
        assert_eq!(only(&aborted(serves.clone(), target)), ended(MoveResult::Aborted));
    }
    let resuming = reporting(serves, |report| report.serving = false);
    assert_eq!(waiting(&aborted(resuming, absent())), Waiting::Thawing);
}

#[test]
fn no_target_is_deleted_on_the_word_of_a_cache() {
    let view = aborted(up(&active(1, 6)), cached(up(&delivered(5, 5, 7))));
    assert_eq!(only(&view), Effect::ReadLive(Side::Target));
    let unfound = aborted(up(&active(1, 6)), Incarnation::default());
    assert_eq!(only(&unfound), Effect::ReadLive(Side::Target));
}

#[test]
fn a_source_that_does_not_answer_is_waited_for_while_the_target_goes() {
    let cut_off = aborted(silent(&frozen(1, 5, Some(7))), up(&delivered(5, 5, 7)));
    assert_eq!(only(&cut_off), delete_target());
    let alone = aborted(silent(&frozen(1, 5, Some(7))), absent());
    assert_eq!(waiting(&alone), Waiting::OwnerUnreachable);
}

#[test]
fn a_source_that_died_has_failed_and_is_recovered_after() {
    let view = aborted(dead(&frozen(1, 5, Some(7))), absent());
    assert_eq!(only(&view), ended(MoveResult::Failed));
}

#[test]
fn a_source_that_lost_its_record_is_left_to_the_standing_loop() {
    let forgot = reporting(up(&standby(1)), |report| report.record = record_id(77));
    let view = aborted(forgot, absent());
    assert_eq!(only(&view), ended(MoveResult::Aborted));
}

#[test]
fn a_regrant_has_no_target_to_end() {
    let mut regrant = migration(Kind::HotSwap, 6, Some(1), phase());
    regrant.target_name = String::new();
    let frozen =
        view(ledger(6, Some(owner(1, 6)), Some(regrant)), up(&frozen(1, 5, Some(7))), Incarnation::default());
    assert_eq!(only(&frozen), thaw());
    let serves = View { source: up(&active(1, 6)), ..frozen };
    assert_eq!(only(&serves), ended(MoveResult::Aborted));
}

#[test]
fn a_recovery_that_is_undone_keeps_its_sealed_source_sealed_and_tries_again() {
    let recovery = migration(Kind::Recover, 5, Some(1), phase());
    let undone = |source| {
        let ledger = ledger(6, Some(owner(4, 6)), Some(recovery.clone()));
        View { intent: intent(Kind::Recover), ..view(ledger, source, absent()) }
    };
    let again = undone(up(&forwarding(1, 4, Some(7), 4)));
    let Effect::Write(Transition::Prepare { kind, source, with_state, .. }) = only(&again) else {
        panic!("tries again: {:?}", next(&again));
    };
    assert_eq!((kind, source, with_state), (Kind::Recover, Some(pod(1)), true));
    assert_eq!(waiting(&View { intent: None, ..again }), Waiting::Placement);
    assert_eq!(only(&undone(dead(&forwarding(1, 4, Some(7), 4)))), ended(MoveResult::Failed));
}

#[test]
fn a_start_that_is_undone_ends() {
    let start = migration(Kind::Start, 5, None, phase());
    let view = view(ledger(6, None, Some(start)), Incarnation::default(), up(&standby(5)));
    assert_eq!(only(&view), delete_target());
    assert_eq!(only(&View { target: absent(), ..view }), ended(MoveResult::Aborted));
}

//! A move is prepared: source 1 at epoch 4, target 5.

use processhub_protocol::handover::{Decision, Effect, Incarnation, PodView, Side, View, Waiting, next};
use processhub_protocol::id::Epoch;
use processhub_protocol::ledger::{AbortReason, Kind, Lost, Migration, Phase, Transition};
use processhub_protocol::wire::{CommandKind, FailureKind, ImportReason, WorkerState};

use crate::parts::*;

fn prepared(source: Incarnation, target: Incarnation) -> View {
    let migration = migration(Kind::HotSwap, 5, Some(1), Phase::Prepared);
    view(ledger(5, Some(owner(1, 4)), Some(migration)), source, target)
}

fn with_migration(mut view: View, change: impl FnOnce(&mut Migration)) -> View {
    if let Some(migration) = &mut view.ledger.migration {
        change(migration);
    }
    view
}

fn wait(waiting: Waiting) -> Decision {
    Decision { effects: Vec::new(), waiting }
}

fn abort(reason: AbortReason) -> Effect {
    Effect::Write(Transition::Abort { reason })
}

fn commit(seq: Option<u64>, lost: Option<u64>) -> Effect {
    let lost = lost.map(|from| Lost { from });
    Effect::Write(Transition::Commit {
        target: pod(5),
        record: record_id(5),
        state: seq.map(state),
        lost,
        leased: false,
        replicated: false,
    })
}

fn create(gated: bool) -> Effect {
    Effect::CreatePod { name: "cart-5".to_owned(), node: "n5".to_owned(), epoch: Epoch(5), gated }
}

fn import(seq: u64, reason: ImportReason) -> Effect {
    Effect::Import { epoch: Epoch(5), state: state(seq), reason, replica: None }
}

#[test]
fn the_way_to_the_commit() {
    let serving = || up(&active(1, 4));
    let unread = prepared(serving(), Incarnation::default());
    assert_eq!(only(&unread), Effect::ReadLive(Side::Target));
    assert_eq!(only(&prepared(serving(), absent())), create(false));
    let starting = prepared(serving(), silent(&standby(5)));
    assert_eq!(next(&starting), wait(Waiting::TargetSidecar));
    let unready = reporting(up(&standby(5)), |report| report.worker.state = WorkerState::Unreachable);
    assert_eq!(next(&prepared(serving(), unready)), wait(Waiting::TargetWorker));
    let ready = prepared(serving(), up(&standby(5)));
    assert_eq!(only(&ready), Effect::Freeze { epoch: Epoch(5), capture: true });
    let freezing = prepared(busy(serving(), CommandKind::Freeze, 5, 10), up(&standby(5)));
    assert_eq!(next(&freezing), wait(Waiting::Freezing));
    let sealed = || up(&frozen(1, 5, Some(7)));
    assert_eq!(only(&prepared(sealed(), up(&standby(5)))), import(7, ImportReason::Handover));
    let importing = prepared(sealed(), busy(up(&standby(5)), CommandKind::Import, 5, 10));
    assert_eq!(next(&importing), wait(Waiting::Importing));
    assert_eq!(only(&prepared(sealed(), up(&delivered(5, 5, 7)))), commit(Some(7), None));
}

#[test]
fn other_code_is_tried_on_a_copy_before_anything_is_frozen() {
    let source = || up(&active(1, 4));
    let tried = |target| View { trial: true, ..prepared(source(), target) };
    let of = |epoch| reporting(up(&standby(5)), |report| report.tried = Some(Epoch(epoch)));
    assert_eq!(only(&tried(up(&standby(5)))), Effect::Trial { epoch: Epoch(5) });
    assert_eq!(only(&tried(of(4))), Effect::Trial { epoch: Epoch(5) }, "that was for another move");
    let trying = tried(busy(up(&standby(5)), CommandKind::Trial, 5, 10));
    assert_eq!(next(&trying), wait(Waiting::Trying));
    assert_eq!(only(&tried(of(5))), Effect::Freeze { epoch: Epoch(5), capture: true });
    let refused = tried(failed(up(&standby(5)), 5, FailureKind::ImportRefused));
    assert_eq!(only(&refused), abort(AbortReason::ImportRefused));
    let stateless = with_migration(tried(up(&standby(5))), |migration| migration.with_state = false);
    assert_eq!(only(&stateless), Effect::Freeze { epoch: Epoch(5), capture: false });
}

#[test]
fn nothing_is_committed_but_what_the_source_sealed() {
    let other = prepared(up(&frozen(1, 5, Some(8))), up(&delivered(5, 5, 7)));
    assert!(!matches!(next(&other).effects.first(), Some(Effect::Write(Transition::Commit { .. }))));
    let silent = prepared(silent(&frozen(1, 5, Some(7))), up(&delivered(5, 5, 7)));
    assert!(next(&silent).effects.is_empty(), "nobody knows what the source sealed");
    let older = prepared(up(&frozen(1, 5, Some(7))), up(&delivered(5, 4, 7)));
    assert!(!matches!(next(&older).effects.first(), Some(Effect::Write(Transition::Commit { .. }))));
}

#[test]
fn a_source_that_is_lost_when_the_target_holds_its_state_is_no_loss() {
    let view = prepared(dead(&frozen(1, 5, Some(7))), up(&delivered(5, 5, 7)));
    assert_eq!(only(&view), commit(Some(7), None));
    let cancelled = View { give_up: Some(AbortReason::DeadlineExceeded), ..view };
    assert_eq!(only(&cancelled), commit(Some(7), None), "there is nothing to go back to");
}

#[test]
fn a_source_that_is_lost_before_ends_the_move() {
    let lost = |target| prepared(dead(&active(1, 4)), target);
    for target in [up(&standby(5)), absent(), Incarnation { pod: PodView::Foreign, ..Incarnation::default() }]
    {
        let decision = only(&lost(target.clone()));
        let expected =
            if target.pod == PodView::Foreign { AbortReason::TargetLost } else { AbortReason::SourceLost };
        assert_eq!(decision, abort(expected), "{target:?}");
    }
}

#[test]
fn a_target_that_may_hold_the_last_copy_is_not_given_up_unheard() {
    let source = || dead(&frozen(1, 5, Some(7)));
    let unheard = prepared(source(), silent(&delivered(5, 5, 7)));
    assert_eq!(next(&unheard), wait(Waiting::TargetSidecar));
    let importing = prepared(source(), busy(up(&standby(5)), CommandKind::Import, 5, 10));
    assert_eq!(next(&importing), wait(Waiting::Importing));
    for reason in [AbortReason::Cancelled, AbortReason::Withdrawn] {
        let waits = View { give_up: Some(reason), ..unheard.clone() };
        assert_eq!(
            next(&waits),
            wait(Waiting::TargetSidecar),
            "{reason:?}: there is no source to go back to"
        );
    }
    let expired = View { give_up: Some(AbortReason::DeadlineExceeded), ..unheard };
    assert_eq!(only(&expired), abort(AbortReason::DeadlineExceeded));
    let neither = prepared(source(), dead(&standby(5)));
    assert_eq!(only(&neither), abort(AbortReason::TargetLost));
}

#[test]
fn a_source_that_lost_its_record_counts_as_lost() {
    let forgot = reporting(up(&standby(1)), |report| report.record = record_id(77));
    assert_eq!(only(&prepared(forgot, up(&standby(5)))), abort(AbortReason::SourceLost));
}

#[test]
fn a_source_that_another_move_sealed_is_granted_again() {
    let astray = prepared(up(&frozen(1, 4, Some(7))), up(&standby(5)));
    assert_eq!(only(&astray), abort(AbortReason::Regrant));
}

#[test]
fn a_target_that_is_lost_aborts() {
    let serving = || up(&active(1, 4));
    let foreign = Incarnation { pod: PodView::Foreign, ..Incarnation::default() };
    for target in [dead(&standby(5)), deleting(up(&standby(5))), foreign] {
        assert_eq!(only(&prepared(serving(), target)), abort(AbortReason::TargetLost));
    }
}

#[test]
fn what_failed_is_the_reason() {
    let reasons = [
        (FailureKind::StateQueryTimeout, AbortReason::StateQueryTimeout),
        (FailureKind::CaptureFailed, AbortReason::CaptureFailed),
    ];
    for (kind, reason) in reasons {
        let view = prepared(failed(up(&active(1, 4)), 5, kind), up(&standby(5)));
        assert_eq!(only(&view), abort(reason));
    }
    let reasons = [
        (FailureKind::ImportRefused, AbortReason::ImportRefused),
        (FailureKind::ImportFailed, AbortReason::ImportFailed),
    ];
    for (kind, reason) in reasons {
        let view = prepared(up(&frozen(1, 5, Some(7))), failed(up(&standby(5)), 5, kind));
        assert_eq!(only(&view), abort(reason));
    }
    let older = prepared(failed(up(&active(1, 4)), 3, FailureKind::CaptureFailed), up(&standby(5)));
    assert_eq!(only(&older), Effect::Freeze { epoch: Epoch(5), capture: true }, "of another move");
}

#[test]
fn time_that_ran_out_aborts_and_never_drops_state() {
    let slow = prepared(busy(up(&active(1, 4)), CommandKind::Freeze, 5, 12_001), up(&standby(5)));
    assert_eq!(only(&slow), abort(AbortReason::StateQueryTimeout));
    let waited =
        reporting(up(&frozen(1, 5, Some(7))), |report| report.frozen_for_milliseconds = Some(30_001));
    let expired = prepared(waited.clone(), up(&standby(5)));
    assert_eq!(only(&expired), abort(AbortReason::StateTTLExpired));
    let just_in_time = prepared(waited, up(&delivered(5, 5, 7)));
    assert_eq!(only(&just_in_time), commit(Some(7), None));
}

#[test]
fn a_cancelled_move_is_undone_and_a_withdrawn_one_only_before_the_freeze() {
    let cancelled = |source, reason| View { give_up: Some(reason), ..prepared(source, up(&standby(5))) };
    let (serving, sealed) = (up(&active(1, 4)), up(&frozen(1, 5, Some(7))));
    for source in [&serving, &sealed] {
        let view = cancelled(source.clone(), AbortReason::Cancelled);
        assert_eq!(only(&view), abort(AbortReason::Cancelled));
    }
    assert_eq!(only(&cancelled(serving, AbortReason::Withdrawn)), abort(AbortReason::Withdrawn));
    assert_eq!(only(&cancelled(sealed, AbortReason::Withdrawn)), import(7, ImportReason::Handover));
}

#[test]
fn without_hand_over_the_source_is_sealed_and_nothing_is_carried() {
    let stateless = |source| with_migration(prepared(source, up(&standby(5))), |m| m.with_state = false);
    assert_eq!(only(&stateless(up(&active(1, 4)))), Effect::Freeze { epoch: Epoch(5), capture: false });
    assert_eq!(only(&stateless(up(&frozen(1, 5, None)))), commit(None, None));
    let uncaptured = prepared(up(&frozen(1, 5, None)), up(&standby(5)));
    assert_eq!(only(&uncaptured), abort(AbortReason::CaptureFailed), "a state was to be carried");
}

#[test]
fn a_cold_swap_gates_its_target() {
    let cold = |target| with_migration(prepared(up(&active(1, 4)), target), |m| m.kind = Kind::ColdSwap);
    assert_eq!(only(&cold(absent())), create(true));
    let gated = reporting(up(&standby(5)), |report| report.worker.state = WorkerState::Gated);
    assert_eq!(only(&cold(gated)), Effect::Freeze { epoch: Epoch(5), capture: true });
}

#[test]
fn a_start_commits_as_soon_as_the_worker_waits() {
    let start = migration(Kind::Start, 5, None, Phase::Prepared);
    let view = view(ledger(5, None, Some(start)), Incarnation::default(), up(&standby(5)));
    assert_eq!(only(&view), commit(None, None));
}

#[test]
fn a_recovery_takes_the_sealed_source_and_says_what_may_be_missing() {
    let recover = |source, target| with_migration(prepared(source, target), |m| m.kind = Kind::Recover);
    let sealed = || up(&forwarding(1, 4, Some(7), 4));
    assert_eq!(only(&recover(sealed(), up(&standby(5)))), import(7, ImportReason::Crash));
    assert_eq!(only(&recover(sealed(), up(&delivered(5, 5, 7)))), commit(Some(7), Some(8)));
    let unheard = recover(silent(&forwarding(1, 4, Some(7), 4)), up(&standby(5)));
    assert_eq!(next(&unheard), wait(Waiting::Source));
    let nothing_left = recover(dead(&forwarding(1, 4, Some(7), 4)), up(&standby(5)));
    assert_eq!(only(&nothing_left), commit(None, Some(1)));
    let waited = reporting(sealed(), |report| report.frozen_for_milliseconds = Some(900_000));
    assert_eq!(
        only(&recover(waited, up(&standby(5)))),
        import(7, ImportReason::Crash),
        "the only copy never expires"
    );
}

#[test]
fn a_recovery_of_nothing_says_that_everything_may_be_missing() {
    let migration = migration(Kind::Recover, 5, None, Phase::Prepared);
    let view = view(ledger(5, Some(owner(1, 4)), Some(migration)), Incarnation::default(), up(&standby(5)));
    assert_eq!(only(&view), commit(None, Some(1)));
}

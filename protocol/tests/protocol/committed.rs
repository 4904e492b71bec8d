//! The target owns the process: source 1, target and owner 5.

use processhub_protocol::handover::{Decision, Effect, Incarnation, Side, View, Waiting, next};
use processhub_protocol::id::Epoch;
use processhub_protocol::ledger::{Kind, Migration, MoveResult, Phase, Transition};
use processhub_protocol::wire::{CommandKind, Report, WorkerState};

use crate::parts::*;

fn committed(kind: Kind, source: Incarnation, target: Incarnation) -> View {
    let phase = Phase::Committed { state: Some(state(7)) };
    view(ledger(5, Some(owner(5, 5)), Some(migration(kind, 5, Some(1), phase))), source, target)
}

fn hot(source: Incarnation, target: Incarnation) -> View {
    committed(Kind::HotSwap, source, target)
}

fn sealed() -> Incarnation {
    up(&frozen(1, 5, Some(7)))
}

fn wait(waiting: Waiting) -> Decision {
    Decision { effects: Vec::new(), waiting }
}

fn activate() -> Effect {
    Effect::Activate { epoch: Epoch(5), state: Some(state(7)) }
}

fn succeeded() -> Effect {
    Effect::Write(Transition::End { result: MoveResult::Succeeded })
}

fn delete_source() -> Effect {
    Effect::DeletePod { side: Side::Source, uid: uid(1) }
}

#[test]
fn the_way_to_the_end() {
    assert_eq!(only(&hot(sealed(), up(&delivered(5, 5, 7)))), activate());
    let activating = hot(sealed(), busy(up(&delivered(5, 5, 7)), CommandKind::Activate, 5, 1));
    assert_eq!(next(&activating), wait(Waiting::Activating));
    let starting = hot(sealed(), reporting(up(&active(5, 5)), |report| report.serving = false));
    assert_eq!(next(&starting), wait(Waiting::Activating));
    let serving = hot(sealed(), up(&active(5, 5)));
    let unrouted = View { routed_to: Some(uid(1)), ..serving.clone() };
    assert_eq!(only(&unrouted), Effect::Route(pod(5)));
    assert_eq!(only(&serving), delete_source());
    assert_eq!(only(&hot(deleting(sealed()), up(&active(5, 5)))), succeeded());
    assert_eq!(only(&hot(absent(), up(&active(5, 5)))), succeeded());
}

#[test]
fn the_source_stays_until_the_target_is_seen_serving_live_and_the_retention_is_over() {
    let young = reporting(up(&active(5, 5)), |report| report.serving_for_milliseconds = Some(4_999));
    assert_eq!(next(&hot(sealed(), young)), wait(Waiting::Retention));
    let unread = hot(sealed(), cached(up(&active(5, 5))));
    assert_eq!(only(&unread), Effect::ReadLive(Side::Target));
    let unready = hot(sealed(), with_pod(up(&active(5, 5)), |pod| pod.ready = false));
    assert_eq!(next(&unready), wait(Waiting::TargetReady));
    let source_unread = hot(cached(sealed()), up(&active(5, 5)));
    assert_eq!(only(&source_unread), Effect::ReadLive(Side::Source));
    let unfound = hot(Incarnation::default(), up(&active(5, 5)));
    assert_eq!(
        only(&unfound),
        Effect::ReadLive(Side::Source),
        "that a cache does not hold it proves nothing"
    );
}

#[test]
fn a_target_that_crashes_again_and_again_makes_way_for_the_next_one() {
    let crashed = || reporting(up(&active(5, 5)), |report| report.serving = false);
    let wanted = |source| View { intent: intent(Kind::HotSwap), ..hot(source, crashed()) };
    let unrouted = View { routed_to: Some(uid(1)), ..wanted(sealed()) };
    assert_eq!(only(&unrouted), Effect::Route(pod(5)));
    assert_eq!(
        only(&wanted(sealed())),
        Effect::HandOn { epoch: Epoch(5) },
        "what clients asked for waits there"
    );
    let handed_on = || up(&forwarding(1, 5, Some(7), 5));
    assert_eq!(only(&wanted(handed_on())), delete_source());
    assert_eq!(only(&wanted(silent(&frozen(1, 5, Some(7))))), delete_source(), "it cannot be told");
    let unread = View { target: cached(crashed()), ..wanted(handed_on()) };
    assert_eq!(only(&unread), Effect::ReadLive(Side::Target));
    assert_eq!(only(&wanted(cached(handed_on()))), Effect::ReadLive(Side::Source));
    for gone in [deleting(handed_on()), absent(), dead(&frozen(1, 5, Some(7)))] {
        assert_eq!(only(&wanted(gone)), succeeded());
    }
    let recovery = View { intent: intent(Kind::Recover), ..wanted(sealed()) };
    assert_eq!(next(&recovery), wait(Waiting::Activating), "it is not dead");
}

#[test]
fn a_source_that_dies_after_the_commit_changes_nothing() {
    assert_eq!(only(&hot(dead(&frozen(1, 5, Some(7))), up(&delivered(5, 5, 7)))), activate());
    assert_eq!(only(&hot(dead(&frozen(1, 5, Some(7))), up(&active(5, 5)))), succeeded());
}

#[test]
fn a_cancellation_comes_too_late() {
    let reason = processhub_protocol::ledger::AbortReason::Cancelled;
    let view = View { give_up: Some(reason), ..hot(sealed(), up(&delivered(5, 5, 7))) };
    assert_eq!(only(&view), activate());
}

#[test]
fn a_cold_swap_opens_the_gate_only_when_the_source_has_ended() {
    let cold = |source| committed(Kind::ColdSwap, source, up(&delivered(5, 5, 7)));
    assert_eq!(only(&cold(sealed())), Effect::HandOn { epoch: Epoch(5) }, "its clients' requests go first");
    assert_eq!(
        only(&cold(deleting(sealed()))),
        Effect::HandOn { epoch: Epoch(5) },
        "its worker's end waits for it"
    );
    let handed_on = || up(&forwarding(1, 5, Some(7), 5));
    assert_eq!(only(&cold(handed_on())), delete_source());
    assert_eq!(only(&cold(silent(&frozen(1, 5, Some(7))))), delete_source(), "it cannot be told");
    assert_eq!(only(&cold(cached(handed_on()))), Effect::ReadLive(Side::Source));
    assert_eq!(next(&cold(deleting(handed_on()))), wait(Waiting::OldPodGone));
    let ended = |source| reporting(source, |report: &mut Report| report.worker.state = WorkerState::Ended);
    assert_eq!(only(&cold(ended(deleting(handed_on())))), activate(), "its sidecar stays for the clients");
    assert_eq!(
        only(&cold(ended(handed_on()))),
        delete_source(),
        "a pod that stays may start its worker again"
    );
    let gone_but_unproven = cold(absent());
    assert!(
        !next(&gone_but_unproven).effects.contains(&activate()),
        "that it cannot be found proves nothing"
    );
    assert_eq!(only(&cold(dead(&frozen(1, 5, Some(7))))), activate());
}

#[test]
fn a_gate_opens_only_when_no_other_pod_may_run() {
    let gated = || reporting(up(&delivered(5, 5, 7)), |report| report.worker.state = WorkerState::Gated);
    // A recovery in a hub of cold swaps: its sealed source has a worker, too.
    let recover = |source| committed(Kind::Recover, source, gated());
    assert_eq!(only(&recover(sealed())), Effect::HandOn { epoch: Epoch(5) });
    let to_the_dead = up(&forwarding(1, 4, Some(7), 4));
    assert_eq!(only(&recover(to_the_dead)), Effect::HandOn { epoch: Epoch(5) });
    assert_eq!(only(&recover(up(&forwarding(1, 5, Some(7), 5)))), delete_source());
    assert_eq!(next(&recover(deleting(up(&forwarding(1, 5, Some(7), 5))))), wait(Waiting::OldPodGone));
    let alone = committed(Kind::Recover, dead(&frozen(1, 5, Some(7))), gated());
    assert_eq!(only(&alone), activate());
    assert_eq!(next(&View { lingering: true, ..alone }), wait(Waiting::OldPodGone));
    // Elsewhere the sealed source stays until the recovered one serves.
    assert_eq!(only(&committed(Kind::Recover, sealed(), up(&delivered(5, 5, 7)))), activate());
}

#[test]
fn an_owner_that_does_not_answer_is_waited_for_until_it_is_proven_dead() {
    let silent = View { intent: intent(Kind::Recover), ..hot(sealed(), silent(&active(5, 5))) };
    assert_eq!(next(&silent), wait(Waiting::OwnerUnreachable));
}

#[test]
fn a_lost_owner_is_recovered_from_the_sealed_source() {
    let lost = View { intent: intent(Kind::Recover), ..hot(sealed(), dead(&active(5, 5))) };
    let recover = |source: Option<u64>| {
        Effect::Write(Transition::Prepare {
            kind: Kind::Recover,
            source: source.map(pod),
            node: "n9".to_owned(),
            with_state: source.is_some(),
        })
    };
    assert_eq!(only(&lost), recover(Some(1)));
    assert_eq!(next(&View { intent: None, ..lost.clone() }), wait(Waiting::Placement));
    let both = View { source: dead(&frozen(1, 5, Some(7))), ..lost.clone() };
    assert_eq!(only(&both), recover(None));
    let mut stateless = lost;
    if let Some(Migration { with_state, .. }) = &mut stateless.ledger.migration {
        *with_state = false;
    }
    assert_eq!(only(&stateless), recover(None), "nothing was captured");
}

#[test]
fn an_owner_that_lost_its_record_is_ended_and_its_sealed_source_kept() {
    let forgot = reporting(up(&standby(5)), |report| report.record = record_id(77));
    let view = hot(sealed(), forgot.clone());
    assert_eq!(only(&view), Effect::DeletePod { side: Side::Target, uid: uid(5) });
    assert_eq!(only(&hot(sealed(), cached(forgot.clone()))), Effect::ReadLive(Side::Target));
    assert_eq!(next(&hot(sealed(), deleting(forgot))), wait(Waiting::OldPodGone));
}

#[test]
fn a_start_ends_when_it_serves() {
    let phase = Phase::Committed { state: None };
    let start = ledger(5, Some(owner(5, 5)), Some(migration(Kind::Start, 5, None, phase)));
    let view = view(start, Incarnation::default(), up(&active(5, 5)));
    assert_eq!(only(&view), succeeded());
}

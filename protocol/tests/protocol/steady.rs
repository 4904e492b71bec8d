//! No move is under way.

use processhub_protocol::handover::{Decision, Effect, Handover, Incarnation, Side, View, Waiting, next};
use processhub_protocol::id::Epoch;
use processhub_protocol::ledger::{AbortReason, Kind, Transition};

use crate::parts::*;

fn serving() -> View {
    view(ledger(4, Some(owner(1, 4)), None), up(&active(1, 4)), Incarnation::default())
}

fn wait(waiting: Waiting) -> Decision {
    Decision { effects: Vec::new(), waiting }
}

fn prepare(kind: Kind, source: Option<u64>, with_state: bool) -> Effect {
    Effect::Write(Transition::Prepare { kind, source: source.map(pod), node: "n9".to_owned(), with_state })
}

#[test]
fn a_process_where_it_should_be_is_left_alone() {
    assert_eq!(next(&serving()), wait(Waiting::Nothing));
}

#[test]
fn one_that_does_not_lead_does_nothing() {
    let view = View { leading: false, intent: intent(Kind::HotSwap), ..serving() };
    assert_eq!(next(&view), wait(Waiting::Leadership));
}

#[test]
fn a_pod_ahead_of_the_ledger_stops_everything() {
    let view = View { source: up(&active(1, 5)), intent: intent(Kind::HotSwap), ..serving() };
    assert_eq!(next(&view), wait(Waiting::HistoryRewound));
}

#[test]
fn the_first_start_waits_for_a_place_and_for_older_pods_to_go() {
    let unborn = view(ledger(0, None, None), Incarnation::default(), Incarnation::default());
    assert_eq!(next(&unborn), wait(Waiting::Placement));
    let planned = View { intent: intent(Kind::Start), ..unborn };
    assert_eq!(only(&planned), prepare(Kind::Start, None, false));
    assert_eq!(next(&View { lingering: true, ..planned }), wait(Waiting::OldPodGone));
}

#[test]
fn the_stable_address_follows_the_owner_before_anything_else() {
    let astray = View { routed_to: Some(uid(9)), intent: intent(Kind::HotSwap), ..serving() };
    assert_eq!(only(&astray), Effect::Route(pod(1)));
}

#[test]
fn a_planned_move_hands_over_what_the_worker_can() {
    let planned = View { intent: intent(Kind::HotSwap), ..serving() };
    assert_eq!(only(&planned), prepare(Kind::HotSwap, Some(1), true));
    let cold = View { intent: intent(Kind::ColdSwap), ..serving() };
    assert_eq!(only(&cold), prepare(Kind::ColdSwap, Some(1), true));
    let never = with_handover(planned, Handover::Never, Some(true));
    assert_eq!(only(&never), prepare(Kind::HotSwap, Some(1), false));
    let incapable = with_handover(never, Handover::IfCapable, Some(false));
    assert_eq!(only(&incapable), prepare(Kind::HotSwap, Some(1), false));
    let required = with_handover(incapable, Handover::Required, Some(false));
    assert_eq!(next(&required), wait(Waiting::HandoverNotSupported));
    let unknown = with_handover(required, Handover::IfCapable, None);
    assert_eq!(next(&unknown), wait(Waiting::Source), "guessing could lose its state");
}

fn with_handover(mut view: View, handover: Handover, capable: Option<bool>) -> View {
    view.limits.handover = handover;
    view.source = reporting(view.source, |report| report.worker.can_hand_over = capable);
    view
}

#[test]
fn a_move_waits_for_a_third_pod_to_go() {
    let view = View { intent: intent(Kind::HotSwap), lingering: true, ..serving() };
    assert_eq!(next(&view), wait(Waiting::OldPodGone));
}

#[test]
fn an_owner_that_does_not_answer_is_not_replaced_until_it_is_proven_dead() {
    let cut_off = View { source: silent(&active(1, 4)), intent: intent(Kind::Recover), ..serving() };
    assert_eq!(next(&cut_off), wait(Waiting::OwnerUnreachable));
    let lost = View { source: dead(&active(1, 4)), ..cut_off };
    assert_eq!(only(&lost), prepare(Kind::Recover, None, false));
    assert_eq!(only(&View { lingering: true, ..lost.clone() }), prepare(Kind::Recover, None, false));
    assert_eq!(next(&View { intent: None, ..lost }), wait(Waiting::Placement));
}

#[test]
fn an_owner_that_is_fenced_without_a_move_is_granted_again() {
    let regrant = Effect::Write(Transition::Abort { reason: AbortReason::Regrant });
    let fenced = View { source: up(&frozen(1, 4, Some(7))), ..serving() };
    assert_eq!(only(&fenced), regrant);
    let behind = view(ledger(6, Some(owner(1, 6)), None), up(&active(1, 4)), Incarnation::default());
    assert_eq!(only(&behind), regrant, "it never got the grant that the ledger gave");
}

#[test]
fn an_owner_that_lost_its_record_is_ended_never_granted_again() {
    let forgot = reporting(up(&standby(1)), |report| report.record = record_id(77));
    let read = View { source: cached(forgot.clone()), ..serving() };
    assert_eq!(only(&read), Effect::ReadLive(Side::Source));
    let delete = View { source: forgot.clone(), ..serving() };
    assert_eq!(only(&delete), Effect::DeletePod { side: Side::Source, uid: uid(1) });
    assert_eq!(next(&View { source: deleting(forgot), ..serving() }), wait(Waiting::OldPodGone));
    let gone =
        View { source: Incarnation { dead: true, ..absent() }, intent: intent(Kind::Recover), ..serving() };
    assert_eq!(only(&gone), prepare(Kind::Recover, None, false));
}

#[test]
fn effects_have_names_that_stay() {
    let effects = [
        (prepare(Kind::Start, None, false), "prepare"),
        (Effect::Thaw { epoch: Epoch(3) }, "thaw"),
        (Effect::DeletePod { side: Side::Source, uid: uid(1) }, "delete-source"),
        (Effect::DeletePod { side: Side::Target, uid: uid(1) }, "delete-target"),
    ];
    for (effect, name) in effects {
        assert_eq!(effect.name(), name);
    }
}

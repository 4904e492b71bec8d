//! What each command does to a sidecar's record.

use processhub_protocol::fence::{Record, Role, Step, Verdict};
use processhub_protocol::handover::Effect;
use processhub_protocol::id::{Epoch, PodUid, ProcessUid};
use processhub_protocol::wire::RefusalCode;

use crate::parts::*;

const NOW: u64 = 1_000;

fn code<T: std::fmt::Debug>(judged: Result<T, processhub_protocol::wire::Refusal>) -> RefusalCode {
    match judged {
        Err(refusal) => refusal.code,
        Ok(obeyed) => panic!("should have been refused: {obeyed:?}"),
    }
}

#[test]
fn a_first_record_holds_nothing_and_obeys_nothing_below_its_birth() {
    let first = standby(5);
    assert_eq!((first.floor.epoch, first.floor.step), (Epoch(0), Step::Nothing));
    assert_eq!(code(first.judge_import(&import(5, 4, 7, 1))), RefusalCode::StaleEpoch);
    assert_eq!(first.judge_import(&import(5, 5, 7, 1)), Ok(Verdict::Proceed));
}

#[test]
fn a_command_for_another_pod_or_process_is_refused_by_name() {
    let mut command = freeze(1, 2);
    command.to.pod = PodUid::from("other");
    let refusal = active(1, 1).judge_freeze(&command).expect_err("another pod");
    assert_eq!(refusal.code, RefusalCode::WrongAddressee);
    assert!(refusal.message.contains("other") && refusal.message.contains("uid-1"), "{}", refusal.message);
    let mut command = thaw(1, 2);
    command.to.process = ProcessUid::from("other");
    assert_eq!(code(active(1, 1).judge_thaw(&command, &clock("boot", NOW))), RefusalCode::WrongAddressee);
}

#[test]
fn a_freeze_seals_an_owner_with_its_capture_and_keeps_the_older_state() {
    let role = Role::Active { epoch: Epoch(1), kept: Some(state(3)) };
    let owner = record(1, 1, Step::TakeOver, role);
    assert_eq!(owner.judge_freeze(&freeze(1, 2)), Ok(Verdict::Proceed));
    let sealed = owner.freeze_done(&freeze(1, 2), Some(state(7))).expect("obeyed");
    assert_eq!(sealed.role, Role::Frozen { epoch: Epoch(2), state: Some(state(7)), kept: Some(state(3)) });
    assert_eq!((sealed.floor.epoch, sealed.floor.step), (Epoch(2), Step::HandOver));
    assert_eq!(sealed.judge_freeze(&freeze(1, 2)), Ok(Verdict::InEffect), "the same again: the same answer");
    assert_eq!(code(sealed.judge_freeze(&freeze(1, 3))), RefusalCode::WrongRole);
}

#[test]
fn a_checkpoint_changes_what_an_owner_keeps_and_nothing_else() {
    let owner = active(1, 4);
    let kept = owner.checkpoint_done(Epoch(4), state(7)).expect("it serves at 4");
    assert_eq!(kept.role, Role::Active { epoch: Epoch(4), kept: Some(state(7)) });
    assert_eq!(Record { role: owner.role.clone(), ..kept.clone() }, owner);
    assert_eq!(
        code(owner.checkpoint_done(Epoch(3), state(7))),
        RefusalCode::WrongRole,
        "overtaken by a thaw"
    );
    assert_eq!(kept.checkpoint_done(Epoch(4), state(7)).expect("again").role, kept.role);
    assert_eq!(code(kept.checkpoint_done(Epoch(4), state(6))), RefusalCode::WrongState, "an older one");
    let sealed = kept.freeze_done(&freeze(1, 5), Some(state(9))).expect("obeyed");
    assert_eq!(
        code(sealed.checkpoint_done(Epoch(4), state(8))),
        RefusalCode::WrongRole,
        "overtaken by a freeze"
    );
    for record in [standby(5), delivered(5, 5, 7), forwarding(5, 6, Some(7), 6)] {
        assert_eq!(code(record.checkpoint_done(Epoch(5), state(8))), RefusalCode::WrongRole);
    }
}

#[test]
fn a_freeze_at_or_below_the_floor_is_refused_with_the_floor() {
    let refusal = active(1, 4).judge_freeze(&freeze(1, 4)).expect_err("stale");
    assert_eq!((refusal.code, refusal.floor), (RefusalCode::StaleEpoch, Epoch(4)));
    assert!(refusal.message.contains("epoch` 4"), "{}", refusal.message);
}

#[test]
fn only_an_owner_is_frozen() {
    for record in [standby(5), delivered(5, 5, 7), forwarding(5, 6, Some(7), 6)] {
        assert_eq!(code(record.judge_freeze(&freeze(5, 8))), RefusalCode::WrongRole, "{:?}", record.role);
    }
}

#[test]
fn a_capture_that_a_thaw_overtook_is_thrown_away() {
    let owner = active(1, 1);
    assert_eq!(owner.judge_freeze(&freeze(1, 2)), Ok(Verdict::Proceed));
    let thawed = owner.thaw_done(&thaw(1, 3), &clock("boot", NOW)).expect("accepted while active");
    assert_eq!(thawed.role, Role::Active { epoch: Epoch(3), kept: None });
    assert_eq!(code(thawed.freeze_done(&freeze(1, 2), Some(state(7)))), RefusalCode::StaleEpoch);
}

#[test]
fn an_import_is_taken_by_a_standby_once_and_never_replaced() {
    let taken = standby(2).import_done(&import(2, 2, 7, 1)).expect("obeyed");
    assert_eq!(taken, delivered(2, 2, 7));
    assert_eq!(taken.judge_import(&import(2, 2, 7, 1)), Ok(Verdict::InEffect));
    assert_eq!(code(taken.judge_import(&import(2, 2, 8, 1))), RefusalCode::StaleEpoch, "another state");
    assert_eq!(code(taken.judge_import(&import(2, 3, 8, 1))), RefusalCode::WrongRole);
    assert_eq!(code(active(2, 2).judge_import(&import(2, 3, 8, 1))), RefusalCode::WrongRole);
}

#[test]
fn an_activation_makes_an_owner_of_what_was_delivered() {
    let clock = clock("boot", NOW);
    let owner = delivered(2, 2, 7).activate_done(&activate(2, 2, Some(7)), &clock).expect("obeyed");
    assert_eq!(owner.role, Role::Active { epoch: Epoch(2), kept: Some(state(7)) });
    assert_eq!((owner.floor.epoch, owner.floor.step), (Epoch(2), Step::TakeOver));
    let owner = standby(2).activate_done(&activate(2, 2, None), &clock).expect("a start");
    assert_eq!(owner.role, Role::Active { epoch: Epoch(2), kept: None });
}

#[test]
fn an_activation_in_effect_is_answered_again_even_by_an_old_grant() {
    let owner = active(2, 2);
    assert_eq!(
        owner.judge_activate(&activate(2, 2, None), &clock("another boot", NOW)),
        Ok(Verdict::InEffect)
    );
}

#[test]
fn empty_or_other_state_never_passes_as_owner() {
    let clock = clock("boot", NOW);
    for (record, seq) in [(standby(2), Some(7)), (delivered(2, 2, 6), Some(7))] {
        let refusal =
            record.judge_activate(&activate(2, 2, seq), &clock).expect_err("not what was acknowledged");
        assert_eq!(refusal.code, RefusalCode::WrongState);
        assert!(refusal.message.contains("seq 7"), "{}", refusal.message);
    }
    // What was delivered for an older epoch is not what a commit without state means either.
    assert_eq!(
        code(delivered(2, 2, 6).judge_activate(&activate(2, 3, None), &clock)),
        RefusalCode::WrongState
    );
}

#[test]
fn an_import_that_came_to_its_end_after_a_commit_without_it_is_served() {
    let clock = clock("boot", NOW);
    let owner = delivered(3, 3, 7).activate_done(&activate(3, 3, None), &clock).expect("better than nothing");
    assert_eq!(owner.role, Role::Active { epoch: Epoch(3), kept: Some(state(7)) });
}

#[test]
fn an_activation_needs_a_target() {
    for record in [active(2, 2), frozen(2, 3, Some(7)), forwarding(2, 3, Some(7), 3)] {
        let judged = record.judge_activate(&activate(2, 9, None), &clock("boot", NOW));
        assert_eq!(code(judged), RefusalCode::WrongRole, "{:?}", record.role);
    }
}

#[test]
fn a_grant_is_for_one_record_one_boot_and_a_while() {
    let judged = |born: u64, boot: &str, now: u64| {
        let command = processhub_protocol::wire::Thaw { grant: grant(born, "boot", 100), ..thaw(1, 3) };
        frozen(1, 2, Some(7)).judge_thaw(&command, &clock(boot, now))
    };
    assert_eq!(judged(1, "boot", 100), Ok(Verdict::Proceed));
    assert_eq!(judged(1, "boot", 5_100), Ok(Verdict::Proceed), "until its last millisecond");
    assert_eq!(code(judged(1, "boot", 5_101)), RefusalCode::StaleGrant);
    assert_eq!(
        code(judged(1, "boot", 99)),
        RefusalCode::StaleGrant,
        "a challenge from the future was never given"
    );
    assert_eq!(code(judged(1, "next boot", 100)), RefusalCode::StaleGrant);
    assert_eq!(code(judged(2, "boot", 100)), RefusalCode::WrongRecord);
}

#[test]
fn a_thaw_gives_a_frozen_owner_its_capture_not_an_older_checkpoint() {
    let role = Role::Frozen { epoch: Epoch(2), state: Some(state(7)), kept: Some(state(3)) };
    let thawed =
        record(1, 2, Step::HandOver, role).thaw_done(&thaw(1, 3), &clock("boot", NOW)).expect("obeyed");
    assert_eq!(thawed.role, Role::Active { epoch: Epoch(3), kept: Some(state(7)) });
    let role = Role::Frozen { epoch: Epoch(2), state: None, kept: Some(state(3)) };
    let thawed =
        record(1, 2, Step::HandOver, role).thaw_done(&thaw(1, 3), &clock("boot", NOW)).expect("obeyed");
    assert_eq!(
        thawed.role,
        Role::Active { epoch: Epoch(3), kept: Some(state(3)) },
        "sealed without a capture"
    );
}

#[test]
fn a_thaw_below_the_floor_is_refused_and_a_repeated_one_is_in_effect() {
    let clock = clock("boot", NOW);
    assert_eq!(code(frozen(1, 4, Some(7)).judge_thaw(&thaw(1, 3), &clock)), RefusalCode::StaleEpoch);
    assert_eq!(active(1, 3).judge_thaw(&thaw(1, 3), &clock), Ok(Verdict::InEffect));
    assert_eq!(code(active(1, 3).judge_thaw(&thaw(1, 2), &clock)), RefusalCode::StaleEpoch);
}

#[test]
fn a_sealed_source_whose_successor_serves_is_never_thawed() {
    for record in [forwarding(1, 2, Some(7), 2), standby(5), delivered(5, 5, 7)] {
        let command = thaw(if record.born == Epoch(5) { 5 } else { 1 }, 9);
        assert_eq!(code(record.judge_thaw(&command, &clock("boot", NOW))), RefusalCode::WrongRole);
    }
}

#[test]
fn a_sealed_source_forwards_and_keeps_its_state() {
    let sealed = frozen(1, 2, Some(7));
    let passing = sealed.forward_done(&forward(1, 2, 2)).expect("obeyed");
    assert_eq!(passing, forwarding(1, 2, Some(7), 2));
    assert_eq!(passing.judge_forward(&forward(1, 2, 2)), Ok(Verdict::InEffect));
    assert_eq!(passing.sealed(), Some(&state(7)));
    let mut itself = forward(1, 2, 2);
    itself.peer.data_port = Some(9090);
    assert_eq!(passing.judge_forward(&itself), Ok(Verdict::InEffect), "the same pod");
    let told = passing.forward_done(&itself).expect("how it is reached");
    assert!(matches!(told.role, Role::Forwarding { to, .. } if to == itself.peer));
    let further = passing.forward_done(&forward(1, 3, 3)).expect("to the successor's successor");
    assert_eq!(further, forwarding(1, 3, Some(7), 3));
}

#[test]
fn forwarding_goes_only_upwards() {
    assert_eq!(code(forwarding(1, 3, Some(7), 3).judge_forward(&forward(1, 2, 2))), RefusalCode::StaleEpoch);
    assert_eq!(code(frozen(1, 3, Some(7)).judge_forward(&forward(1, 2, 2))), RefusalCode::StaleEpoch);
}

#[test]
fn one_that_never_owned_or_still_owns_forwards_nothing() {
    for record in [standby(5), delivered(5, 5, 7), active(5, 5)] {
        assert_eq!(
            code(record.judge_forward(&forward(5, 6, 6))),
            RefusalCode::WrongRole,
            "{:?}",
            record.role
        );
    }
}

#[test]
fn a_record_that_is_let_go_obeys_nothing_more() {
    let clock = clock("boot", 1);
    for record in
        [standby(1), delivered(1, 2, 7), active(1, 2), frozen(1, 2, Some(7)), forwarding(1, 2, None, 2)]
    {
        assert_eq!(code(record.judge_let_go(&let_go(1, 0))), RefusalCode::StaleEpoch, "{:?}", record.role);
        let retired = record.let_go_done(&let_go(1, 3)).expect("every role");
        assert_eq!(retired.role, Role::Retired { epoch: Epoch(3) });
        assert_eq!(retired.judge_let_go(&let_go(1, 3)), Ok(Verdict::InEffect));
        let late = [
            retired.judge_freeze(&freeze(1, 4)),
            retired.judge_import(&import(1, 4, 7, 1)),
            retired.judge_activate(&activate(1, 4, None), &clock),
            retired.judge_thaw(&thaw(1, 4), &clock),
            retired.judge_forward(&forward(1, 4, 4)),
        ];
        assert!(late.into_iter().all(|judged| code(judged) == RefusalCode::WrongRole));
        assert_eq!(retired.exportable(Epoch(4)), None);
    }
}

#[test]
fn only_an_owner_has_to_be_let_go() {
    let due = |record| processhub_protocol::handover::let_go(&report(&record));
    let with = |epoch| Some(Effect::LetGo { epoch: Epoch(epoch) });
    assert_eq!((due(active(1, 2)), due(frozen(1, 4, None))), (with(3), with(5)), "above its floor");
    for record in [standby(1), delivered(1, 2, 7), forwarding(1, 2, None, 2)] {
        assert_eq!(due(record), None, "nothing waits for it");
    }
}

#[test]
fn only_a_sealed_state_is_fetched_and_not_by_a_move_before_the_seal() {
    assert_eq!(frozen(1, 2, Some(7)).exportable(Epoch(2)), Some(&state(7)));
    assert_eq!(frozen(1, 2, Some(7)).exportable(Epoch(1)), None);
    assert_eq!(forwarding(1, 2, Some(7), 2).exportable(Epoch(5)), Some(&state(7)), "a recovery");
    assert_eq!(frozen(1, 2, None).exportable(Epoch(2)), None);
    assert_eq!(active(1, 1).exportable(Epoch(2)), None);
    assert_eq!(delivered(2, 2, 7).exportable(Epoch(2)), None);
}

#[test]
fn a_record_survives_the_disk() {
    for record in
        [standby(5), delivered(5, 5, 7), active(5, 6), frozen(5, 7, None), forwarding(5, 7, Some(9), 7)]
    {
        let text = serde_json::to_string(&record).expect("serializes");
        assert_eq!(serde_json::from_str::<Record>(&text).expect("is read again"), record, "{text}");
    }
}

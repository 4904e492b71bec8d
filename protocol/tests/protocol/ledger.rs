//! The four transitions of a ledger.

use processhub_protocol::handover::stray;
use processhub_protocol::id::Epoch;
use processhub_protocol::ledger::{AbortReason, Kind, Lost, MoveResult, Phase, Transition, pod_name};

use crate::parts::*;

fn prepare(kind: Kind, source: Option<u64>) -> Transition {
    Transition::Prepare { kind, source: source.map(pod), node: "n9".to_owned(), with_state: true }
}

fn commit(born: u64) -> Transition {
    Transition::Commit {
        target: pod(born),
        record: record_id(born),
        state: Some(state(7)),
        lost: Some(Lost { from: 8 }),
        leased: false,
        replicated: false,
    }
}

#[test]
fn a_move_takes_an_epoch_serves_at_it_and_leaves_nothing_behind() {
    let start = ledger(4, Some(owner(1, 4)), None);
    let prepared = start.after(PROCESS, &prepare(Kind::HotSwap, Some(1))).expect("prepared");
    let moving = prepared.migration.as_ref().expect("a migration");
    assert_eq!((prepared.epoch, moving.epoch, &*moving.target_name), (Epoch(5), Epoch(5), "cart-5"));
    assert_eq!(prepared.owner, start.owner, "nothing is given away yet");
    let committed = prepared.after(PROCESS, &commit(5)).expect("committed");
    assert_eq!(committed.owner, Some(owner(5, 5)));
    assert_eq!(
        committed.migration.as_ref().map(|m| &m.phase),
        Some(&Phase::Committed { state: Some(state(7)) })
    );
    let ended = committed.after(PROCESS, &Transition::End { result: MoveResult::Succeeded }).expect("ended");
    assert_eq!(ended, ledger(5, Some(owner(5, 5)), None));
}

#[test]
fn an_abort_takes_an_epoch_of_its_own_and_grants_it_to_the_owner() {
    let prepared = ledger(5, Some(owner(1, 4)), Some(migration(Kind::HotSwap, 5, Some(1), Phase::Prepared)));
    let reason = AbortReason::Cancelled;
    let aborted = prepared.after(PROCESS, &Transition::Abort { reason }).expect("aborted");
    assert_eq!((aborted.epoch, aborted.owner), (Epoch(6), Some(owner(1, 6))));
    let phase = Phase::Aborted { epoch: Epoch(6), reason };
    assert_eq!(aborted.migration, Some(migration(Kind::HotSwap, 5, Some(1), phase)));
}

#[test]
fn a_regrant_is_the_undo_of_a_move_that_nobody_knows() {
    let reason = AbortReason::Regrant;
    let regrant =
        ledger(5, Some(owner(1, 4)), None).after(PROCESS, &Transition::Abort { reason }).expect("aborted");
    let undo = regrant.migration.expect("an undo");
    assert_eq!((regrant.epoch, undo.epoch, undo.source), (Epoch(6), Epoch(6), Some(pod(1))));
    assert_eq!(undo.target_name, "", "no target is to be ended");
}

#[test]
fn what_does_not_apply_is_refused() {
    let quiet = ledger(4, Some(owner(1, 4)), None);
    assert_eq!(quiet.after(PROCESS, &commit(5)), None);
    assert_eq!(quiet.after(PROCESS, &Transition::End { result: MoveResult::Failed }), None);
    assert_eq!(
        ledger(0, None, None).after(PROCESS, &Transition::Abort { reason: AbortReason::Regrant }),
        None
    );
}

#[test]
fn no_epoch_is_taken_twice() {
    let mut taken = vec![Epoch(0)];
    let mut now = ledger(0, None, None);
    let abort = Transition::Abort { reason: AbortReason::TargetFailed };
    let end = Transition::End { result: MoveResult::Aborted };
    let moves =
        [prepare(Kind::Start, None), commit(1), end.clone(), prepare(Kind::HotSwap, Some(1)), abort, end];
    for transition in moves.iter().cycle().take(24) {
        now = now.after(PROCESS, transition).expect("applies");
        if matches!(transition, Transition::Prepare { .. } | Transition::Abort { .. }) {
            assert!(taken.iter().all(|epoch| *epoch < now.epoch), "{} after {taken:?}", now.epoch);
            taken.push(now.epoch);
        }
    }
}

#[test]
fn a_pod_that_the_ledger_names_no_more_is_a_stray() {
    let moving = ledger(5, Some(owner(1, 4)), Some(migration(Kind::HotSwap, 5, Some(2), Phase::Prepared)));
    let judged = |born: u64| stray(&moving, &uid(born), &pod_name(PROCESS, Epoch(born)), Epoch(born));
    assert!(!judged(1), "the owner");
    assert!(!judged(2), "the source");
    assert!(!judged(5), "the target, by its name");
    assert!(judged(3) && judged(4), "left behind");
    assert!(!judged(6), "the ledger is older than this pod: it cannot judge");
}

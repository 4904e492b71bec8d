use std::collections::BTreeMap;

use super::*;
use crate::contract::{CodeChangeRequest, Direction, Reason};

const LAST: u64 = 4;

/// Everything that can happen to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Suspend(u64),
    Drained(u64, bool),
    Resume(u64),
    Activate(u64, bool),
    Capture(u64),
    Apply(u64),
    Delta(u64),
    ChangeCode(u64),
    Consent,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Answered,
    Waiting,
    Refused(ErrorCode),
}

fn import() -> Name {
    "i".parse().unwrap()
}

fn request(epoch: u64) -> ApplyRequest {
    ApplyRequest {
        epoch: Epoch(epoch),
        reason: Reason::Handover,
        vsn: String::new(),
        direction: Direction::Up,
        extra: serde_json::Value::Null,
        seq: 9,
        since: None,
        parts: vec![],
        dry_run: false,
    }
}

/// A delta from the state of [`request`] to a later one.
fn delta(epoch: u64) -> ApplyRequest {
    ApplyRequest { since: Some(9), seq: 12, ..request(epoch) }
}

fn code(epoch: u64) -> CodeChangeRequest {
    CodeChangeRequest {
        epoch: Epoch(epoch),
        from: "1".into(),
        to: "2".into(),
        direction: Direction::Up,
        extra: serde_json::Value::Null,
    }
}

fn able(live: bool, deltas: bool) -> Machine {
    Machine::new(Abilities { live, deltas })
}

/// Asks and does the work at once, as an owner of the machine does; only a suspend drains in between.
fn step(machine: &mut Machine, event: Event) -> Outcome {
    let answer = match event {
        Event::Suspend(epoch) => match machine.suspend(Epoch(epoch)) {
            Ok(Step::Run) => return Outcome::Waiting,
            Ok(Step::Again) => Ok(()),
            Err(refusal) => Err(refusal),
        },
        Event::Drained(epoch, done) => machine.drained(Epoch(epoch)).map(|step| {
            if step == Step::Run {
                machine.suspended(Epoch(epoch), done);
            }
        }),
        Event::Resume(epoch) => machine.resume(Epoch(epoch)).map(|step| {
            if step == Step::Run {
                machine.resumed(Epoch(epoch));
            }
        }),
        Event::Activate(epoch, initial) => machine.activate(Epoch(epoch), initial).map(|step| {
            if step == Step::Run {
                machine.activated(Epoch(epoch));
            }
        }),
        Event::Capture(epoch) => machine.capture(Epoch(epoch)),
        Event::Apply(epoch) => machine.apply(&import(), &request(epoch)).map(|step| {
            if step == Step::Run {
                machine.applied(&import(), &request(epoch));
            }
        }),
        Event::Delta(epoch) => machine.apply(&import(), &delta(epoch)).map(|step| {
            if step == Step::Run {
                machine.applied(&import(), &delta(epoch));
            }
        }),
        Event::ChangeCode(epoch) => machine.change_code(&code(epoch)).map(|step| {
            if step == Step::Run {
                machine.code_changed(&code(epoch));
            }
        }),
        Event::Consent => machine.consent(),
    };
    answer.map_or_else(|refusal| Outcome::Refused(refusal.code), |()| Outcome::Answered)
}

fn events() -> Vec<Event> {
    let mut events = vec![Event::Consent];
    for epoch in 1..=LAST {
        events.extend([
            Event::Suspend(epoch),
            Event::Drained(epoch, true),
            Event::Drained(epoch, false),
            Event::Resume(epoch),
            Event::Activate(epoch, true),
            Event::Activate(epoch, false),
            Event::Capture(epoch),
            Event::Apply(epoch),
            Event::Delta(epoch),
            Event::ChangeCode(epoch),
        ]);
    }
    events
}

fn epoch_of(event: Event) -> Option<u64> {
    match event {
        Event::Suspend(epoch)
        | Event::Drained(epoch, _)
        | Event::Resume(epoch)
        | Event::Activate(epoch, _)
        | Event::Capture(epoch)
        | Event::Apply(epoch)
        | Event::Delta(epoch)
        | Event::ChangeCode(epoch) => Some(epoch),
        Event::Consent => None,
    }
}

/// Every machine that any sequence of events leads to.
fn reachable() -> Vec<Machine> {
    let mut known = BTreeMap::new();
    let mut open = vec![Machine::default(), able(true, false), able(false, true), able(true, true)];
    while let Some(machine) = open.pop() {
        if known.insert(format!("{machine:?}"), machine.clone()).is_some() {
            continue;
        }
        for event in events() {
            let mut next = machine.clone();
            step(&mut next, event);
            open.push(next);
        }
    }
    known.into_values().collect()
}

fn after(history: &[Event]) -> Machine {
    let mut machine = Machine::default();
    for event in history {
        let outcome = step(&mut machine, *event);
        assert!(!matches!(outcome, Outcome::Refused(_)), "{event:?}: {outcome:?}");
    }
    machine
}

#[test]
fn the_exploration_meets_every_state() {
    let machines = reachable();
    for state in [WorkerState::Standby, WorkerState::Active, WorkerState::Suspended] {
        assert!(machines.iter().any(|machine| machine.state() == state));
    }
    assert!(machines.len() >= 46, "{}", machines.len());
}

#[test]
fn a_lower_epoch_is_refused_and_changes_nothing() {
    for machine in reachable() {
        for event in events().into_iter().filter(|event| !matches!(event, Event::Drained(..))) {
            if epoch_of(event).is_some_and(|epoch| Epoch(epoch) < machine.epoch()) {
                let mut next = machine.clone();
                assert_eq!(
                    step(&mut next, event),
                    Outcome::Refused(ErrorCode::StaleEpoch),
                    "{machine:?} {event:?}"
                );
                assert_eq!(next, machine, "{event:?}");
            }
        }
    }
}

#[test]
fn the_highest_epoch_never_falls() {
    for machine in reachable() {
        for event in events() {
            let mut next = machine.clone();
            step(&mut next, event);
            assert!(next.epoch() >= machine.epoch(), "{machine:?} {event:?}");
        }
    }
}

#[test]
fn a_repeat_gets_the_same_answer_and_changes_nothing() {
    for machine in reachable() {
        for event in events() {
            let mut once = machine.clone();
            let first = step(&mut once, event);
            // A failed suspend may be tried again; an apply is for Standby, an activate ends it.
            let once_only = matches!(event, Event::Drained(_, false));
            if once_only || first == Outcome::Refused(ErrorCode::StaleEpoch) {
                continue;
            }
            let mut twice = once.clone();
            assert_eq!(step(&mut twice, event), first, "{machine:?} {event:?}");
            assert_eq!(twice, once, "{machine:?} {event:?}");
        }
    }
}

#[test]
fn no_epoch_serves_two_commands() {
    for machine in reachable() {
        for first in events() {
            let mut next = machine.clone();
            if !matches!(first, Event::Suspend(_) | Event::Resume(_) | Event::Activate(..))
                || matches!(step(&mut next, first), Outcome::Refused(_))
            {
                continue;
            }
            let Some(epoch) = epoch_of(first) else { continue };
            for second in [Event::Suspend(epoch), Event::Resume(epoch), Event::Activate(epoch, true)] {
                if std::mem::discriminant(&second) != std::mem::discriminant(&first) {
                    let outcome = step(&mut next.clone(), second);
                    assert!(
                        matches!(outcome, Outcome::Refused(_)),
                        "{machine:?} {first:?} {second:?}: {outcome:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_suspend_that_comes_late_cannot_orphan_a_resumed_worker() {
    for machine in reachable() {
        for resume in 1..=LAST {
            let mut next = machine.clone();
            if step(&mut next, Event::Resume(resume)) != Outcome::Answered {
                continue;
            }
            for late in 1..=resume {
                step(&mut next, Event::Suspend(late));
                step(&mut next, Event::Drained(late, true));
                assert_eq!(next.admit(), Ok(()), "{machine:?} resume {resume}, late suspend {late}");
            }
        }
    }
}

#[test]
fn clients_are_admitted_only_where_the_state_may_change() {
    for machine in reachable() {
        if machine.admit().is_ok() {
            assert_eq!(machine.state(), WorkerState::Active);
        }
        if machine.clone().capture(Epoch(LAST)).is_ok() && !machine.abilities.live {
            assert_eq!(machine.admit(), Err(WorkerState::Suspended));
        }
        if machine.clone().change_code(&code(LAST)).is_ok() {
            assert_eq!(machine.admit(), Err(WorkerState::Suspended));
        }
    }
}

#[test]
fn a_live_capture_is_for_a_worker_that_has_a_state_and_said_it_can() {
    for machine in reachable() {
        let captured = machine.clone().capture(machine.epoch());
        let expected = match machine.state() {
            WorkerState::Standby => false,
            WorkerState::Active => machine.abilities.live,
            WorkerState::Suspended => true,
        };
        assert_eq!(captured.is_ok(), expected, "{machine:?}: {captured:?}");
    }
}

#[test]
fn only_a_worker_that_serves_is_asked_for_consent() {
    for machine in reachable() {
        assert_eq!(machine.consent().is_ok(), machine.admit().is_ok(), "{machine:?}");
    }
}

#[test]
fn a_delta_fits_only_the_state_that_is_held() {
    for machine in reachable() {
        let held = machine.applied.as_ref().map(|held| held.request.seq);
        let again = machine.applied.as_ref().is_some_and(|held| held.request == delta(LAST));
        let fits = machine.abilities.deltas && (held == Some(9) || again);
        let mut next = machine.clone();
        match next.apply(&import(), &delta(LAST)) {
            Ok(_) => assert!(fits, "{machine:?}"),
            Err(refusal) if refusal.code == ErrorCode::WrongBase => assert!(!fits, "{machine:?}"),
            Err(refusal) => assert_eq!(refusal.code, ErrorCode::WrongState, "{machine:?}"),
        }
    }
}

#[test]
fn only_activate_leaves_standby() {
    for machine in reachable() {
        for event in events() {
            let mut next = machine.clone();
            step(&mut next, event);
            if machine.state() == WorkerState::Standby && next.state() != WorkerState::Standby {
                assert!(matches!(event, Event::Activate(..)), "{event:?}");
            }
        }
    }
}

#[test]
fn an_empty_state_never_passes_for_the_process_s() {
    let mut fresh = Machine::default();
    assert_eq!(fresh.activate(Epoch(1), false).unwrap_err().code, ErrorCode::InitialMismatch);
    assert_eq!(fresh.activate(Epoch(1), true), Ok(Step::Run));
    let mut given = after(&[Event::Apply(2)]);
    assert_eq!(given.activate(Epoch(2), true).unwrap_err().code, ErrorCode::InitialMismatch);
    assert_eq!(given.activate(Epoch(2), false), Ok(Step::Run));
}

#[test]
fn a_whole_life() {
    let machine = after(&[
        Event::Activate(1, true),
        Event::Suspend(2),
        Event::Suspend(2),
        Event::Drained(2, true),
        Event::Drained(2, true),
        Event::Capture(2),
        Event::Capture(2),
        Event::Resume(3),
        Event::Suspend(4),
        Event::Drained(4, true),
    ]);
    assert_eq!((machine.state(), machine.epoch()), (WorkerState::Suspended, Epoch(4)));
}

#[test]
fn a_resume_calls_off_a_suspend_that_drains() {
    let mut machine = after(&[Event::Activate(1, true), Event::Suspend(2)]);
    assert_eq!(machine.admit(), Err(WorkerState::Suspended));
    assert_eq!(machine.state(), WorkerState::Active, "its state may still change");
    assert_eq!(machine.resume(Epoch(3)), Ok(Step::Again));
    assert_eq!(machine.admit(), Ok(()));
    assert_eq!(machine.drained(Epoch(2)).unwrap_err().code, ErrorCode::StaleEpoch);
    machine.suspended(Epoch(2), true);
    assert_eq!(machine.admit(), Ok(()));
}

#[test]
fn a_suspend_that_failed_leaves_the_worker_active_and_may_be_repeated() {
    let mut machine = after(&[Event::Activate(1, true), Event::Suspend(2), Event::Drained(2, false)]);
    assert_eq!(machine.admit(), Ok(()));
    assert_eq!(machine.suspend(Epoch(2)), Ok(Step::Run));
}

#[test]
fn a_delta_is_refused_and_says_what_to_send() {
    let mut machine = Machine::default();
    let refusal = machine.apply(&import(), &delta(1)).unwrap_err();
    assert_eq!(refusal.code, ErrorCode::WrongBase);
    assert!(refusal.message.contains("without `since`"));
}

#[test]
fn base_and_deltas_follow_one_another_in_standby() {
    let mut machine = able(true, true);
    let (base, first, second): (Name, Name, Name) =
        ("b".parse().unwrap(), "d1".parse().unwrap(), "d2".parse().unwrap());
    let next = ApplyRequest { since: Some(12), seq: 13, ..request(1) };
    assert_eq!(machine.apply(&first, &delta(1)).unwrap_err().code, ErrorCode::WrongBase);
    for (import, request) in [(&base, request(1)), (&first, delta(1)), (&second, next.clone())] {
        assert_eq!(machine.apply(import, &request), Ok(Step::Run));
        machine.applied(import, &request);
        assert_eq!(machine.apply(import, &request), Ok(Step::Again));
    }
    let refusal = machine.apply(&first, &delta(1)).unwrap_err();
    assert_eq!(refusal.code, ErrorCode::WrongBase);
    assert!(refusal.message.contains("holds 13"), "{}", refusal.message);
    assert_eq!(machine.activate(Epoch(1), false), Ok(Step::Run));
}

#[test]
fn a_state_is_merged_only_into_another() {
    let mut machine = Machine::default();
    let other = ApplyRequest { reason: Reason::Merge, ..request(1) };
    assert_eq!(machine.apply(&import(), &other).unwrap_err().code, ErrorCode::WrongBase);
    let mut machine = after(&[Event::Apply(1)]);
    assert_eq!(machine.apply(&import(), &other), Ok(Step::Run));
}

#[test]
fn a_code_change_may_come_again_until_the_worker_is_resumed() {
    let mut machine =
        after(&[Event::Activate(1, true), Event::Suspend(2), Event::Drained(2, true), Event::ChangeCode(2)]);
    assert_eq!(machine.change_code(&code(2)), Ok(Step::Again));
    let other = CodeChangeRequest { to: "3".into(), ..code(2) };
    assert_eq!(machine.change_code(&other), Ok(Step::Run));
    assert_eq!(machine.resume(Epoch(3)), Ok(Step::Run));
    machine.resumed(Epoch(3));
    assert_eq!(machine.change_code(&code(2)).unwrap_err().code, ErrorCode::StaleEpoch);
    assert_eq!(machine.change_code(&code(3)).unwrap_err().code, ErrorCode::WrongState);
}

#[test]
fn another_state_may_be_applied_over_the_first() {
    let mut machine = after(&[Event::Apply(1)]);
    let other: Name = "j".parse().unwrap();
    assert_eq!(machine.apply(&import(), &request(1)), Ok(Step::Again));
    assert_eq!(machine.apply(&other, &request(1)), Ok(Step::Run));
}

#[test]
fn refusals_say_where_the_worker_stands() {
    let mut machine = after(&[Event::Activate(3, true)]);
    let refusal = machine.suspend(Epoch(2)).unwrap_err();
    assert_eq!(
        (refusal.code, refusal.state, refusal.epoch),
        (ErrorCode::StaleEpoch, Some(WorkerState::Active), Some(Epoch(3)))
    );
    assert_eq!(machine.upload().unwrap_err().code, ErrorCode::WrongState);
}

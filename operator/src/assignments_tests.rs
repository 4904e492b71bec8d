use super::*;
use crate::plan::fixture::go;

fn process(uid: &str) -> ProcessKey {
    ProcessKey { uid: uid.into(), namespace: "ns".into(), name: format!("p-{uid}") }
}

fn hub_key(name: &str) -> HubKey {
    HubKey { namespace: "ns".into(), name: name.into() }
}

fn facts(uid: &str, hub: &str) -> ProcessFacts {
    ProcessFacts {
        key: process(uid),
        hub: hub_key(hub),
        bound_for: None,
        epoch: Epoch(0),
        pin: None,
        wish: None,
        paused: false,
        node: None,
        owner: OwnerState::None,
        moving: None,
        capable: None,
        waiting: Waiting::Placement,
        fenced: false,
        settled_by_wish: false,
        failed: None,
        failed_transfer: None,
        code: CodeFacts::default(),
    }
}

#[test]
fn a_new_assignment_wakes_the_process_once_and_an_equal_one_does_not() {
    let (board, mut wake) = Board::new();
    assert_eq!(board.assignment(&hub_key("a"), &"u1".into()), None);
    assert!(board.assign(&hub_key("a"), &process("u1"), go("n1")));
    assert!(!board.assign(&hub_key("a"), &process("u1"), go("n1")));
    assert_eq!(wake.processes.try_recv(), Ok(process("u1")));
    assert!(wake.processes.try_recv().is_err());
    assert_eq!(board.assignment(&hub_key("a"), &"u1".into()), Some(go("n1")));
}

#[test]
fn facts_are_kept_by_hub_and_wake_the_hub_only_when_they_change() {
    let (board, mut wake) = Board::new();
    assert!(board.report(facts("u1", "a")));
    assert!(!board.report(facts("u1", "a")));
    assert!(board.report(ProcessFacts { owner: OwnerState::Dead, ..facts("u1", "a") }));
    let hub = facts("u1", "a").hub;
    assert_eq!(wake.hubs.try_recv(), Ok(hub.clone()));
    assert_eq!(wake.hubs.try_recv(), Ok(hub.clone()));
    assert!(wake.hubs.try_recv().is_err());
    assert_eq!(board.facts_of(&hub).len(), 1);
    assert!(board.facts_of(&HubKey { name: "b".into(), ..hub }).is_empty());
}

#[test]
fn a_forgotten_process_leaves_nothing_behind_and_its_hub_hears_of_it() {
    let (board, mut wake) = Board::new();
    board.report(facts("u1", "a"));
    board.assign(&hub_key("a"), &process("u1"), go("n1"));
    let _ = wake.hubs.try_recv();
    board.forget(&"u1".into());
    assert_eq!(board.assignment(&hub_key("a"), &"u1".into()), None);
    assert!(board.facts_of(&facts("u1", "a").hub).is_empty());
    assert!(wake.hubs.try_recv().is_ok());
}

#[test]
fn two_hubs_may_say_something_of_a_process_that_leaves_one_for_the_other() {
    let (board, mut wake) = Board::new();
    let (from, to) = (hub_key("a"), hub_key("b"));
    board.assign(&from, &process("u1"), Assignment { lets_go: true, ..Assignment::default() });
    board.assign(&to, &process("u1"), go("n2"));
    assert!(board.assignment(&from, &"u1".into()).unwrap().lets_go);
    assert_eq!(board.assignment(&to, &"u1".into()), Some(go("n2")));
    board.report(ProcessFacts { bound_for: Some("b".into()), ..facts("u1", "a") });
    assert_eq!([wake.hubs.try_recv(), wake.hubs.try_recv()], [Ok(from.clone()), Ok(to.clone())]);
    assert!(board.facts_in(&from, &"u1".into()).is_some());
    board.report(facts("u1", "b"));
    assert!(board.facts_of(&from).is_empty(), "it belongs to one hub");
    assert_eq!([wake.hubs.try_recv(), wake.hubs.try_recv()], [Ok(from.clone()), Ok(to.clone())]);
    board.withdraw(&from, |process| *process != "u1".into());
    assert_eq!(board.assignment(&from, &"u1".into()), None);
    assert!(board.assignment(&to, &"u1".into()).is_some());
}

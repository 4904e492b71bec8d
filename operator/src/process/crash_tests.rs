use std::sync::Arc;

use processhub_protocol::id::{Epoch, StateId};
use processhub_protocol::ledger::Kind;

use super::*;
use crate::process::observation::tests::{report, seen};
use crate::process::record::tests::{owner_pod, prepare, started};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn times(seconds: impl IntoIterator<Item = i64>) -> Vec<Time> {
    seconds.into_iter().map(|second| conditions::time(at(second))).collect()
}

fn limit(max: u32) -> Restarts {
    Restarts { max, period_seconds: 600 }
}

const BRIEFLY: BackingOff = BackingOff { ran_seconds: 3 };

/// An owner whose worker has crashed again and which has kept a state.
fn crashed() -> (Observation, Report) {
    let mut seen = seen(&started(), 1_000);
    let mut down = report("pod-1", 1);
    (down.serving, down.worker.state) = (false, WorkerState::Unreachable);
    let kept = Some(StateId { seq: 4, digest: "d".into(), bytes: 1 });
    down.role = Role::Active { epoch: Epoch(1), kept };
    seen.reports.insert("pod-1".into(), down.clone());
    let pod = seen.pods.get_mut("cart-3-1").unwrap();
    Arc::make_mut(&mut pod.facts).backing_off = Some(BRIEFLY);
    (seen, down)
}

#[test]
fn a_new_pod_is_for_a_worker_that_its_kubelet_keeps_waiting_and_whose_state_is_kept() {
    let (seen, down) = crashed();
    assert_eq!(crash(&seen, &down), Crash::Again(seen.now));
    let back = Report {
        worker: processhub_protocol::wire::WorkerView { state: WorkerState::Standby, ..down.worker.clone() },
        ..down.clone()
    };
    assert_eq!(crash(&seen, &back), Crash::None, "it is back");
    let nothing = Report { role: Role::Active { epoch: Epoch(1), kept: None }, ..down.clone() };
    assert_eq!(crash(&seen, &nothing), Crash::None, "its kubelet gives it as much as a new pod could");
    let mut stateless = nothing;
    stateless.worker.can_hand_over = Some(false);
    assert_eq!(crash(&seen, &stateless), Crash::Again(seen.now));
    let mut hub = (*seen.hub).clone();
    hub.spec.migration.handover = Some(false);
    let drops = Observation { hub: Arc::new(hub), ..seen.clone() };
    assert_eq!(crash(&drops, &down), Crash::None, "a move would drop what its sidecar gives it");
    let mut at_once = seen;
    Arc::make_mut(&mut at_once.pods.get_mut("cart-3-1").unwrap().facts).backing_off = None;
    assert_eq!(crash(&at_once, &down), Crash::None);
}

#[test]
fn the_last_new_pod_that_is_allowed_is_brought_to_its_end() {
    let (mut seen, down) = crashed();
    let mut hub = (*seen.hub).clone();
    hub.spec.worker.restarts.max = 1;
    seen.hub = Arc::new(hub);
    seen.object.status.as_mut().unwrap().restarts = times([999]);
    assert_eq!(crash(&seen, &down), Crash::Exceeded);
    let mut steps = started();
    steps.push(prepare(Kind::HotSwap, Some(owner_pod())));
    let mut moving = super::super::observation::tests::seen(&steps, 1_000);
    (moving.hub, moving.pods) = (seen.hub.clone(), seen.pods.clone());
    let status = moving.object.status.as_mut().unwrap();
    status.restarts = times([999]);
    assert_eq!(crash(&moving, &down), Crash::Exceeded, "it moves for another reason");
    moving.object.status.as_mut().unwrap().migration.as_mut().unwrap().trigger = MigrationTrigger::Crash;
    assert_eq!(crash(&moving, &down), Crash::Again(moving.now));
}

#[test]
fn more_than_the_limit_within_the_period_ends_it_for_good() {
    let known = times([1_000, 1_100, 1_200]);
    let now = |seconds| next(&known, &limit(3), BRIEFLY, at(seconds));
    assert_eq!(now(1_201), Crash::Exceeded);
    assert_eq!(now(9_000), Crash::Exceeded, "that its kubelet waits longer and longer is no recovery");
    assert_eq!(next(&known, &limit(4), BRIEFLY, at(1_201)), Crash::Again(at(1_200)), "the limit was raised");
    let slow = times([1_000, 1_300, 1_600]);
    assert_eq!(next(&slow, &limit(3), BRIEFLY, at(1_601)), Crash::Again(at(1_600)), "the first is too old");
    assert_eq!(next(&[], &limit(0), BRIEFLY, at(1)), Crash::Exceeded);
}

#[test]
fn a_worker_that_ran_for_the_period_begins_anew() {
    let known = times([1_000, 1_001]);
    let ran = |ran_seconds| next(&known, &limit(2), BackingOff { ran_seconds }, at(5_000));
    assert_eq!(ran(599), Crash::Exceeded);
    assert_eq!(ran(600), Crash::Again(at(5_000)));
}

#[test]
fn new_pods_that_follow_one_another_do_so_more_and_more_slowly() {
    let pauses: Vec<_> = (0..18).map(pause).collect();
    assert_eq!(pauses, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 30, 30, 30]);
    assert_eq!(pause(usize::MAX), LONGEST_PAUSE);
    let known = times(1_000..1_012);
    assert_eq!(next(&known, &limit(100), BRIEFLY, at(1_012)), Crash::Again(at(1_015)));
    assert_eq!(
        next(&known, &limit(100), BRIEFLY, at(1_605)),
        Crash::Again(at(1_011)),
        "half of them are old"
    );
}

#[test]
fn what_counts_is_remembered_until_a_person_has_a_hand_in_it() {
    let known = times([1_000, 1_500]);
    let after = |trigger, now| remembered(&known, trigger, &limit(30), at(now));
    assert_eq!(after(MigrationTrigger::Crash, 1_599), times([1_000, 1_500, 1_599]));
    assert_eq!(after(MigrationTrigger::Crash, 1_600), times([1_500, 1_600]));
    assert_eq!(after(MigrationTrigger::Drain, 1_600), known);
    assert_eq!(after(MigrationTrigger::Wish, 1_600), []);
    assert_eq!(after(MigrationTrigger::Upgrade, 1_600), []);
    let many = remembered(&times(1_000..1_100), MigrationTrigger::Crash, &limit(100), at(1_100));
    assert_eq!((many.len(), many[0].0), (100, at(1_001)), "the object cannot grow");
}

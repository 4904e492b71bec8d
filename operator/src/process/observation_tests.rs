use processhub_crds::MigrationTrigger;
use processhub_protocol::handover::{Effect, Waiting, next};
use processhub_protocol::id::Epoch;
use processhub_protocol::ledger::{Tenure, Transition, pod_name};

use super::*;
use crate::assignments::{Assignment, Go};
use crate::process::incarnation::Trouble;
use crate::process::incarnation::tests::pod;
use crate::process::pod::tests::{hub, process};
use crate::process::proof::Proof;
use crate::process::record::tests::{chain, owner_pod, prepare, started};
use crate::process::{record, status};

pub(crate) fn sighting(name: &str, uid: &str, epoch: u64) -> Sighting {
    let mut facts = PodFacts::of(&pod(serde_json::json!({}))).unwrap();
    facts.name = name.into();
    facts.uid = uid.into();
    facts.epoch = Epoch(epoch);
    facts.ip = Some("10.0.0.1".into());
    Sighting { facts: Arc::new(facts), live: false }
}

/// An active sidecar with a worker that can hand over.
pub(crate) fn report(uid: &str, epoch: u64) -> Report {
    serde_json::from_value(serde_json::json!({
        "protocol": 1, "process": "process", "pod": uid, "record": "record-1", "floor": epoch,
        "role": { "name": "active", "epoch": epoch, "kept": null },
        "challenge": { "boot": "b", "issuedMilliseconds": 1 },
        "worker": { "state": "Active", "canHandOver": true },
        "serving": true, "held": 0, "checkpoint": { "live": true, "current": true },
    }))
    .unwrap()
}

/// A process of which these transitions were written, at a second after 1970.
pub(crate) fn seen(transitions: &[Transition], second: i64) -> Observation {
    let status = chain(transitions);
    let mut object = process();
    let ledger = record::read(&status).unwrap();
    object.status = Some(status);
    Observation {
        object,
        hub: Arc::new(hub()),
        destination: None,
        ledger,
        pods: [("cart-3-1".to_owned(), sighting("cart-3-1", "pod-1", 1))].into(),
        absent: BTreeSet::new(),
        reports: BTreeMap::new(),
        dead: BTreeMap::new(),
        routed_to: None,
        assignment: None,
        leading: true,
        now: Timestamp::from_second(second).unwrap(),
        trouble: None,
        heard: None,
        lapsed: Lapsed::default(),
        replicas: ReplicasSeen::default(),
    }
}

fn moving() -> Vec<Transition> {
    let mut steps = started();
    steps.push(prepare(Kind::HotSwap, Some(owner_pod())));
    steps
}

fn go(epoch: u64) -> Assignment {
    let go = Go {
        kind: Kind::HotSwap,
        node: "n5".into(),
        trigger: MigrationTrigger::Rebalance,
        revision: String::new(),
        epoch: Epoch(epoch),
        hub: "cart".into(),
    };
    Assignment { go: Some(go), ..Assignment::default() }
}

#[test]
fn an_owner_is_fenced_for_a_missed_renewal_and_not_for_one_look_that_failed() {
    let mut seen = seen(&started(), 100);
    seen.ledger.owner.as_mut().unwrap().tenure = Tenure::Leased;
    seen.assignment = Some(Assignment { take_over: true, ..Assignment::default() });
    let fences = |seen: &Observation| seen.decide().effects == [Effect::Write(Transition::Fence)];
    for (last, expected) in [(Some(98), false), (Some(96), true), (None, true)] {
        seen.heard = last.map(|second| Timestamp::from_second(second).unwrap());
        assert_eq!(fences(&seen), expected, "last heard {last:?}");
    }
    seen.assignment = Some(Assignment::default());
    assert!(!fences(&seen), "without a quorum");
}

#[test]
fn a_permission_for_another_epoch_is_void() {
    let mut seen = seen(&started(), 0);
    seen.assignment = Some(go(1));
    assert_eq!(seen.view().intent.unwrap().node, "n5");
    seen.assignment = Some(go(0));
    assert_eq!(seen.view().intent, None);
}

#[test]
fn the_target_is_the_pod_with_our_uid_and_the_moves_epoch_and_no_other() {
    let mut seen = seen(&moving(), 0);
    assert_eq!(seen.view().target.pod, PodView::Absent { live: false });
    seen.absent.insert("cart-3-2".into());
    assert_eq!(seen.view().target.pod, PodView::Absent { live: true });
    seen.pods.insert("cart-3-2".into(), sighting("cart-3-2", "pod-2", 2));
    assert!(matches!(seen.view().target.pod, PodView::Present(_)));
    let mut older = sighting("cart-3-2", "pod-2", 2);
    Arc::make_mut(&mut older.facts).process = "an older object".into();
    seen.pods.insert("cart-3-2".into(), older);
    assert_eq!(seen.view().target.pod, PodView::Foreign);
}

#[test]
fn a_pod_of_a_recreated_name_is_not_the_source() {
    let mut seen = seen(&started(), 0);
    seen.pods.insert("cart-3-1".into(), sighting("cart-3-1", "another", 1));
    assert_eq!(seen.view().source.pod, PodView::Foreign);
}

#[test]
fn a_pod_of_an_older_object_lingers_until_it_is_proven_dead() {
    let mut seen = seen(&started(), 0);
    assert!(!seen.view().lingering);
    seen.pods.insert("cart-3-9".into(), sighting("cart-3-9", "old", 9));
    assert!(seen.view().lingering);
    seen.dead.insert("old".into(), Proof::ContainersEnded);
    assert!(!seen.view().lingering);
}

#[test]
fn a_dead_pod_that_still_has_the_name_of_the_next_one_is_waited_for() {
    let mut seen = seen(&started(), 0);
    let next = pod_name("cart-3", seen.ledger.epoch.next());
    seen.pods.insert(next.clone(), sighting(&next, "old", 9));
    seen.dead.insert("old".into(), Proof::ContainersEnded);
    assert!(seen.view().lingering, "its creation would meet a pod of another object, and the move would end");
}

#[test]
fn what_was_read_before_an_effect_is_not_live_after_it() {
    let mut seen = seen(&moving(), 0);
    seen.absent.insert("cart-3-2".into());
    for pod in seen.pods.values_mut() {
        pod.live = true;
    }
    seen.age();
    assert_eq!(seen.view().target.pod, PodView::Absent { live: false });
    assert!(!seen.view().source.present().unwrap().live);
}

#[test]
fn a_move_is_given_up_for_a_person_a_deadline_or_the_planner_in_this_order() {
    let mut seen = seen(&moving(), 1_000);
    assert_eq!(seen.view().give_up, None);
    seen.assignment = Some(Assignment { give_up: Some(AbortReason::Withdrawn), ..Assignment::default() });
    assert_eq!(seen.view().give_up, Some(AbortReason::Withdrawn));
    seen.now = Timestamp::from_second(1_600).unwrap();
    assert_eq!(seen.view().give_up, Some(AbortReason::TargetFailed), "there is no target yet");
    seen.pods.insert("cart-3-2".into(), sighting("cart-3-2", "pod-2", 2));
    let mut target = report("pod-2", 2);
    (target.role, target.worker.state) = (Role::Standby, WorkerState::Standby);
    seen.reports.insert("pod-2".into(), target);
    assert_eq!(seen.view().give_up, Some(AbortReason::DeadlineExceeded));
    seen.object.annotations_mut().insert(annotation::CANCEL_MIGRATION.into(), String::new());
    assert_eq!(seen.view().give_up, Some(AbortReason::Cancelled));
}

#[test]
fn a_target_that_will_never_come_up_is_given_up_at_once() {
    let mut seen = seen(&moving(), 1_000);
    seen.pods.insert("cart-3-2".into(), sighting("cart-3-2", "pod-2", 2));
    let trouble = |gravity| Some(Trouble { gravity, words: "container worker: CrashLoopBackOff".into() });
    let target = |seen: &mut Observation, trouble, ended| {
        let target = seen.pods.get_mut("cart-3-2").unwrap();
        let facts = Arc::make_mut(&mut target.facts);
        (facts.trouble, facts.ended) = (trouble, ended);
    };
    target(&mut seen, trouble(Gravity::Passing), false);
    assert_eq!(seen.view().give_up, None);
    target(&mut seen, trouble(Gravity::Lasting), false);
    assert_eq!(seen.view().give_up, Some(AbortReason::TargetFailed));
    // It may hold all that is left of the state.
    let mut lost = seen.clone();
    lost.dead.insert("pod-1".into(), Proof::NodeDeleted);
    assert_eq!(lost.view().give_up, None);
    // Not admitted by its kubelet.
    target(&mut lost, trouble(Gravity::Lasting), true);
    assert_eq!(lost.view().give_up, Some(AbortReason::TargetFailed));
}

#[test]
fn the_move_of_a_source_that_is_going_has_no_deadline() {
    let mut seen = seen(&moving(), 1_600);
    let pod = seen.pods.get_mut("cart-3-1").unwrap();
    Arc::make_mut(&mut pod.facts).going_until = Some(Timestamp::from_second(2_000).unwrap());
    assert_eq!(seen.view().give_up, None);
}

#[test]
fn the_protocol_decides_on_the_view() {
    let mut new = seen(&[], 0);
    new.pods.clear();
    assert_eq!(next(&new.view()).waiting, Waiting::Placement);
    new.assignment = Some(go(0));
    let decision = next(&new.view());
    assert!(matches!(decision.effects[..], [Effect::Write(Transition::Prepare { kind: Kind::Start, .. })]));
    new.leading = false;
    assert_eq!(next(&new.view()).waiting, Waiting::Leadership);
}

#[test]
fn a_pod_above_the_ledger_stops_everything_even_if_the_owner_is_dead() {
    let mut seen = seen(&started(), 0);
    let go = Go {
        kind: Kind::Recover,
        node: "n5".into(),
        trigger: MigrationTrigger::Recovery,
        revision: String::new(),
        epoch: seen.ledger.epoch,
        hub: "cart".into(),
    };
    seen.assignment = Some(Assignment { go: Some(go), ..Assignment::default() });
    seen.pods.clear();
    seen.dead.insert("pod-1".into(), Proof::KubeletWorkedSince);
    assert!(matches!(seen.decide().effects[..], [Effect::Write(Transition::Prepare { .. })]));
    seen.pods.insert("cart-3-9".into(), sighting("cart-3-9", "pod-9", 9));
    let decision = seen.decide();
    assert_eq!((decision.effects, decision.waiting), (Vec::new(), Waiting::HistoryRewound));
    status::refresh(&mut seen, Waiting::HistoryRewound, status::Outlook::Observed);
    let said = serde_json::to_string(&seen.object.status).unwrap();
    assert!(said.contains("pod cart-3-9 has obeyed epoch 9, above the ledger's 1"), "{said}");
    // One of an older object of this name has a history of its own.
    let mut other = sighting("cart-3-9", "pod-9", 9);
    Arc::make_mut(&mut other.facts).process = "another".into();
    seen.pods.insert("cart-3-9".into(), other);
    assert!(seen.ahead().is_none());
}

/// A transfer from hub `cart` to hub `till`, up to these transitions.
fn transferring(steps: &[Transition]) -> Observation {
    let mut seen = seen(steps, 0);
    let mut till = hub();
    (till.metadata.name, till.metadata.uid) = (Some("till".into()), Some("till-uid".into()));
    seen.destination = Some(Arc::new(till));
    seen.object.spec.hub_name = "till".into();
    let status = seen.object.status.as_mut().unwrap();
    status.migration.as_mut().unwrap().target.hub = Some("till".into());
    seen.pods.insert("cart-3-2".into(), sighting("cart-3-2", "pod-2", 2));
    seen
}

#[test]
fn each_end_of_a_transfer_is_of_its_own_hub() {
    let mut seen = transferring(&moving());
    assert!(seen.is_transfer() && !seen.is_unwanted_transfer());
    assert_eq!((seen.hub_of(&"pod-1".into()), seen.hub_of(&"pod-2".into())), ("cart".into(), "till".into()));
    assert_eq!(seen.target_hub().unwrap().name_any(), "till");
    assert_eq!(seen.hub_named("cart").unwrap().name_any(), "cart");
    seen.enter();
    assert_eq!(seen.hub.name_any(), "cart", "not before the commit");
    seen.object.status.as_mut().unwrap().owner.as_mut().unwrap().hub = "till".into();
    seen.enter();
    assert_eq!((seen.hub.name_any(), seen.destination.is_none()), ("till".into(), true));
    assert!(seen.hub_named("cart").is_none());
}

#[test]
fn a_transfer_ends_when_the_object_names_another_hub_or_the_other_one_goes() {
    let mut seen = transferring(&moving());
    assert_eq!(seen.give_up(), None);
    seen.object.spec.hub_name = "cart".into();
    assert_eq!(seen.give_up(), Some(AbortReason::Cancelled));
    seen.object.spec.hub_name = "till".into();
    let till = Arc::make_mut(seen.destination.as_mut().unwrap());
    till.metadata.deletion_timestamp =
        serde_json::from_value(serde_json::json!("2026-01-01T00:00:00Z")).unwrap();
    assert_eq!(seen.give_up(), Some(AbortReason::Cancelled));
    seen.destination = None;
    assert_eq!(seen.give_up(), Some(AbortReason::Cancelled));
}

#[test]
fn a_transfer_is_cold_where_the_other_hub_is() {
    let mut seen = transferring(&moving());
    seen.object.status.as_mut().unwrap().migration = None;
    let mut go = go(2);
    go.go.as_mut().unwrap().hub = "till".into();
    seen.assignment = Some(go);
    seen.ledger.migration = None;
    seen.ledger.epoch = Epoch(2);
    assert_eq!(seen.view().intent.unwrap().kind, Kind::HotSwap);
    let till = Arc::make_mut(seen.destination.as_mut().unwrap());
    till.spec.migration.strategy = processhub_crds::MigrationStrategy::ColdSwap;
    assert_eq!(seen.view().intent.unwrap().kind, Kind::ColdSwap);
}

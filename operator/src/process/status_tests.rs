use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use processhub_crds::vocabulary::MoveReason;
use processhub_protocol::handover::next;
use processhub_protocol::ledger::{AbortReason, Lost, MoveResult, PodRef, Transition};

use super::*;
use crate::assignments::{Assignment, Held};
use crate::index::Routed;
use crate::process::incarnation::{Gravity, Trouble};
use crate::process::observation::tests::{report, seen, sighting};
use crate::process::record::tests::{end, owner_pod, prepare, started};

fn condition(seen: &Observation, type_: ProcessCondition) -> (String, String, String) {
    let conditions = &seen.object.status.as_ref().unwrap().conditions;
    let found = conditions::get(conditions, type_.as_str()).unwrap();
    (found.status.clone(), found.reason.clone(), found.message.clone())
}

fn refreshed(mut seen: Observation) -> Observation {
    let waiting = next(&seen.view()).waiting;
    refresh(&mut seen, waiting, Outlook::Observed);
    seen
}

fn moving() -> Observation {
    let mut steps = started();
    steps.push(prepare(Kind::HotSwap, Some(owner_pod())));
    let mut seen = seen(&steps, 1_000);
    seen.reports.insert("pod-1".into(), report("pod-1", 1));
    seen.pods.insert("cart-3-2".into(), sighting("cart-3-2", "pod-2", 2));
    seen
}

#[test]
fn an_owner_whose_machine_was_started_anew_is_where_its_pod_is_now() {
    let mut seen = seen(&started(), 0);
    seen.reports.insert("pod-1".into(), report("pod-1", 1));
    let known = Routed { pod: "pod-1".into(), address: seen.ip(&"pod-1".into()).unwrap() };
    assert_eq!(seen.points_at(known.clone()), Some("pod-1".into()));
    let pod = seen.pods.get_mut("cart-3-1").unwrap();
    Arc::make_mut(&mut pod.facts).ip = Some("10.9.9.9".into());
    assert_eq!(seen.points_at(known), None, "the address is written anew");
    assert!(refresh(&mut seen, Waiting::Nothing, Outlook::Observed));
    assert_eq!(seen.object.status.as_ref().unwrap().owner.as_ref().unwrap().ip, "10.9.9.9");
    assert!(!refresh(&mut seen, Waiting::Nothing, Outlook::Observed));
}

#[test]
fn a_process_that_serves_is_settled_and_is_not_written_again() {
    let mut seen = seen(&started(), 1_000);
    seen.reports.insert("pod-1".into(), report("pod-1", 1));
    seen.routed_to = Some("pod-1".into());
    let mut seen = refreshed(seen);
    assert_eq!(condition(&seen, ProcessCondition::Ready).1, "Serving");
    assert_eq!(condition(&seen, ProcessCondition::Progressing).1, "Settled");
    assert_eq!(condition(&seen, ProcessCondition::HandoverCapable).1, "ContractSpoken");
    assert_eq!(condition(&seen, ProcessCondition::StateDurable).1, "NodeLocal");
    seen.now = Timestamp::from_second(2_000).unwrap();
    assert!(!refresh(&mut seen, Waiting::Nothing, Outlook::Observed), "nothing changed: nothing is written");
}

#[test]
fn the_object_says_what_a_crash_would_take() {
    use processhub_protocol::wire::{CheckpointClass as Class, CheckpointView};
    for (class, live, reason, words) in [
        (Some(Class::Sync), Some(true), "NodeLocal", "takes nothing that was answered (Sync)"),
        (Some(Class::Async), Some(true), "NodeLocal", "one every 1000 ms (Async)"),
        (None, Some(true), "NodeLocal", "ProcessHub-Seq"),
        (Some(Class::None), Some(true), "NotCheckpointed", "spec.checkpoint.class"),
        (Some(Class::Sync), Some(false), "NotCheckpointed", "while it is suspended"),
    ] {
        let mut seen = seen(&started(), 1_000);
        let mut owner = report("pod-1", 1);
        owner.checkpoint = Some(CheckpointView { class, live, current: true, age_milliseconds: None });
        seen.reports.insert("pod-1".into(), owner.clone());
        let mut seen = refreshed(seen);
        let (status, said, message) = condition(&seen, ProcessCondition::StateDurable);
        assert_eq!((status.as_str(), said.as_str()), ("False", reason));
        assert!(message.contains(words), "{message}");
        // A worker that is just down says nothing else.
        owner.checkpoint = Some(CheckpointView { class, live: None, current: true, age_milliseconds: None });
        seen.reports.insert("pod-1".into(), owner);
        let before = condition(&seen, ProcessCondition::StateDurable);
        refresh(&mut seen, Waiting::Nothing, Outlook::Observed);
        assert_eq!(condition(&seen, ProcessCondition::StateDurable), before);
    }
}

#[test]
fn the_object_says_which_other_nodes_have_the_state() {
    use processhub_protocol::replica::ReplicaView;
    use processhub_protocol::wire::{CheckpointClass, CheckpointView};
    let said = |holders: &[&str], generation, complete, live| {
        let pod = |node: &&str| PodRef { name: "cart-7-1".into(), uid: "pod-7".into(), node: (*node).into() };
        let mut steps = started();
        steps.push(Transition::Replicate { holders: holders.iter().map(pod).collect() });
        let mut seen = seen(&steps, 1_000);
        let mut owner = report("pod-1", 1);
        let class = Some(CheckpointClass::Sync);
        owner.checkpoint =
            Some(CheckpointView { class, live: Some(live), current: true, age_milliseconds: None });
        owner.replicas = Some(ReplicaView { generation: Some(generation), complete, holders: Vec::new() });
        seen.reports.insert("pod-1".into(), owner);
        let seen = refreshed(seen);
        let conditions = &seen.object.status.as_ref().unwrap().conditions;
        let known = conditions.iter().any(|known| known.type_ == ProcessCondition::StateDurable.as_str());
        known.then(|| condition(&seen, ProcessCondition::StateDurable))
    };
    let (status, reason, message) = said(&["n7"], 1, true, true).unwrap();
    assert_eq!((status.as_str(), reason.as_str()), ("True", "Replicated"));
    assert!(message.contains("cart-7-1 on n7") && message.contains("nothing that was answered"), "{message}");
    assert_eq!(said(&["n7"], 1, false, true).unwrap().1, "Replicating");
    assert_eq!(said(&[], 1, true, true).unwrap().1, "NodeLocal");
    assert_eq!(said(&["n7"], 1, true, false).unwrap().1, "NotCheckpointed", "there is nothing to replicate");
    assert_eq!(said(&["n7"], 0, true, true), None, "it was told of another set: nothing is known yet");
}

#[test]
fn the_newest_checkpoint_is_written_only_along_with_something_else() {
    use processhub_protocol::wire::CheckpointView;
    let kept = |seq| Some(processhub_protocol::id::StateId { seq, digest: "d".into(), bytes: 1 });
    let owner = |seq| {
        let mut owner = report("pod-1", 1);
        owner.role = Role::Active { epoch: processhub_protocol::id::Epoch(1), kept: kept(seq) };
        owner.checkpoint = Some(CheckpointView {
            class: None,
            live: Some(true),
            current: true,
            age_milliseconds: Some(5_000),
        });
        owner
    };
    let mut seen = seen(&started(), 1_000);
    seen.reports.insert("pod-1".into(), owner(7));
    let mut seen = refreshed(seen);
    let written = |seen: &Observation| seen.object.status.as_ref().unwrap().checkpoint.clone().unwrap();
    assert_eq!((written(&seen).seq, written(&seen).time.0), (7, Timestamp::from_second(995).unwrap()));
    seen.reports.insert("pod-1".into(), owner(8));
    seen.now = Timestamp::from_second(2_000).unwrap();
    let waiting = next(&seen.view()).waiting;
    assert!(!refresh(&mut seen, waiting, Outlook::Observed), "a checkpoint is no reason to write");
    assert_eq!(written(&seen).seq, 7);
    seen.reports.get_mut(&"pod-1".into()).unwrap().lost = Some(Lost { from: 9 });
    assert!(refresh(&mut seen, waiting, Outlook::Observed));
    assert_eq!(written(&seen).seq, 8);
}

#[test]
fn a_stuck_move_says_what_keeps_it_that_nothing_is_at_risk_when_it_ends_and_how_to_cancel_it() {
    let mut seen = moving();
    let target = seen.pods.get_mut("cart-3-2").unwrap();
    let words = "container worker: ErrImagePull: cart:1.8".to_owned();
    Arc::make_mut(&mut target.facts).trouble = Some(Trouble { gravity: Gravity::Passing, words });
    let (status, reason, message) = condition(&refreshed(seen), ProcessCondition::Progressing);
    assert_eq!((status.as_str(), reason.as_str()), ("True", "WaitingForTarget"));
    assert_eq!(
        message,
        "1->2 n4->n4 (Wish): cart-3-2 container worker: ErrImagePull: cart:1.8. Source serves; nothing at risk. \
         Aborts 00:26:40Z. Cancel: kubectl annotate hproc cart-3 processhub.io/cancel-migration=yes"
    );
}

#[test]
fn a_target_without_room_is_told_apart() {
    let mut seen = moving();
    let target = seen.pods.get_mut("cart-3-2").unwrap();
    Arc::make_mut(&mut target.facts).trouble =
        Some(Trouble { gravity: Gravity::Unschedulable, words: "0/3 nodes are available".into() });
    assert_eq!(blamed(&seen), MoveReason::NoRoom);
    assert_eq!(condition(&refreshed(seen), ProcessCondition::Progressing).1, "NoRoom");
}

#[test]
fn a_target_is_blamed_for_what_kept_it() {
    let mut seen = moving();
    assert_eq!(blamed(&seen), MoveReason::TargetNotReady);
    seen.trouble = Some("create pod: forbidden: exceeded quota: compute".into());
    assert_eq!(blamed(&seen), MoveReason::QuotaExceeded);
    let target = seen.pods.get_mut("cart-3-2").unwrap();
    let words = "container worker: ErrImagePull: cart:1.8".to_owned();
    Arc::make_mut(&mut target.facts).trouble = Some(Trouble { gravity: Gravity::Passing, words });
    assert_eq!(blamed(&seen), MoveReason::TargetFailed);
}

#[test]
fn a_worker_of_another_contract_is_named_before_and_after_it_owns_the_process() {
    let foreign = |uid: &str, epoch: u64| {
        let mut foreign = report(uid, epoch);
        (foreign.worker.foreign_contract, foreign.worker.can_hand_over) = (Some(2), None);
        foreign
    };
    let mut target = moving();
    target.reports.insert("pod-2".into(), foreign("pod-2", 2));
    assert_eq!(blamed(&target), MoveReason::TargetFailed);
    let target = refreshed(target);
    let (_, _, message) = condition(&target, ProcessCondition::Progressing);
    assert!(
        message.contains("speaks version 2 of the worker contract") && message.contains("SDK"),
        "{message}"
    );
    assert_eq!(condition(&target, ProcessCondition::HandoverCapable).1, "ContractVersion");

    let mut owner = seen(&started(), 1_000);
    owner.reports.insert("pod-1".into(), foreign("pod-1", 1));
    let (status, reason, _) = condition(&refreshed(owner), ProcessCondition::HandoverCapable);
    assert_eq!((status.as_str(), reason.as_str()), ("False", "ContractVersion"));
}

#[test]
fn an_owner_that_does_not_answer_is_unknown_and_the_message_says_what_to_do() {
    let seen = refreshed(seen(&started(), 1_000));
    let (status, reason, message) = condition(&seen, ProcessCondition::Ready);
    assert_eq!((status.as_str(), reason.as_str()), ("Unknown", "OwnerUnreachable"));
    assert!(
        message.contains("kubectl annotate hproc cart-3 processhub.io/confirmed-dead=pod-1"),
        "{message}"
    );
}

#[test]
fn a_deleted_owner_without_a_target_is_at_risk_with_the_time_that_is_left() {
    let mut seen = seen(&started(), 1_000);
    seen.reports.insert("pod-1".into(), report("pod-1", 1));
    let owner = seen.pods.get_mut("cart-3-1").unwrap();
    let facts = Arc::make_mut(&mut owner.facts);
    facts.going_until = Some(Timestamp::from_second(1_080).unwrap());
    facts.grace_seconds = i64::try_from(crate::process::pod::grace(&seen.hub).as_secs()).unwrap();
    assert_eq!(at_risk(&seen), None, "not before the planner has looked");
    seen.assignment = Some(Assignment::default());
    assert_eq!(at_risk(&seen), None, "what it said before the deletion says nothing of it");
    let held =
        Held { reason: ProcessReason::NoTargetNodes, message: "no_target_nodes: all are cordoned".into() };
    seen.assignment = Some(Assignment { held: Some(held), ..Assignment::default() });
    let (_, reason, message) = condition(&refreshed(seen), ProcessCondition::Progressing);
    assert_eq!(reason, "StateAtRisk");
    assert!(
        message.contains("no_target_nodes") && message.contains("lost at 00:17:25Z"),
        "the hook ends 35 s before the grace: {message}"
    );
}

#[test]
fn an_undone_move_stays_visible_with_its_reason() {
    let mut steps = started();
    steps.push(prepare(Kind::HotSwap, Some(owner_pod())));
    steps.push(Transition::Abort { reason: AbortReason::ImportRefused });
    steps.push(end(MoveResult::Aborted));
    let mut seen = seen(&steps, 1_000);
    seen.reports.insert("pod-1".into(), report("pod-1", 3));
    seen.routed_to = Some("pod-1".into());
    let (status, reason, message) = condition(&refreshed(seen), ProcessCondition::Progressing);
    assert_eq!((status.as_str(), reason.as_str()), ("False", "MoveAborted"));
    assert!(message.contains(MoveReason::ImportRefused.as_str()) && message.contains("because"), "{message}");
}

#[test]
fn the_commit_is_written_with_the_conditions_that_follow_it() {
    let mut seen = moving();
    refresh(&mut seen, Waiting::Retention, Outlook::Expected);
    assert_eq!(condition(&seen, ProcessCondition::Ready).0, "True");
    assert_eq!(condition(&seen, ProcessCondition::Progressing).1, "Releasing");
}

#[test]
fn a_process_is_ready_once_it_has_an_address() {
    let mut steps = started();
    assert!(matches!(steps.pop(), Some(Transition::End { .. })));
    let mut seen = seen(&steps, 1_000);
    seen.reports.insert("pod-1".into(), report("pod-1", 1));
    for outlook in [Outlook::Expected, Outlook::Observed] {
        refresh(&mut seen, Waiting::Nothing, outlook);
        let (status, reason, _) = condition(&seen, ProcessCondition::Ready);
        assert_eq!((status.as_str(), reason.as_str()), ("False", "Starting"), "{outlook:?}");
    }
}

#[test]
fn what_a_crashed_worker_took_along_is_said_once() {
    let mut seen = seen(&started(), 1_000);
    let mut crashed = report("pod-1", 1);
    crashed.lost = Some(Lost { from: 42 });
    seen.reports.insert("pod-1".into(), crashed.clone());
    assert!(refresh(&mut seen, Waiting::Nothing, Outlook::Observed));
    let missing = seen.object.status.as_ref().unwrap().may_miss.clone().unwrap();
    assert_eq!((missing.from, missing.reason), (42, LossReason::WorkerCrashed));
    assert_eq!(condition(&seen, ProcessCondition::StateDurable).1, "StateLost");
    seen.now = Timestamp::from_second(2_000).unwrap();
    assert!(!refresh(&mut seen, Waiting::Nothing, Outlook::Observed), "it is the same crash");

    crashed.worker.can_hand_over = Some(false);
    let mut stateless = crate::process::observation::tests::seen(&started(), 1_000);
    stateless.reports.insert("pod-1".into(), crashed);
    refresh(&mut stateless, Waiting::Nothing, Outlook::Observed);
    assert_eq!(stateless.object.status.unwrap().may_miss, None, "there was nothing to lose");
}

/// The owner runs the first of two codes of its hub, which has the second.
fn outdated(steps: &[Transition]) -> Observation {
    use processhub_crds::Revision;

    let mut seen = seen(steps, 1_000);
    seen.reports.insert("pod-1".into(), report("pod-1", 1));
    seen.routed_to = Some("pod-1".into());
    let old = Revision { name: "old".into(), number: 1, vsn: "1.7".into(), template: None };
    let hub = Arc::make_mut(&mut seen.hub);
    hub.spec.vsn = "1.8".into();
    let new = Revision { number: 2, ..crate::revision::present(hub) };
    hub.status.get_or_insert_default().revisions = vec![old, new];
    let owner = seen.object.status.as_mut().and_then(|status| status.owner.as_mut()).unwrap();
    owner.revision = "old".into();
    seen
}

#[test]
fn a_process_says_whether_it_runs_the_code_of_its_hub_and_why_not() {
    let seen = refreshed(outdated(&started()));
    let (status, reason, message) = condition(&seen, ProcessCondition::Upgraded);
    assert_eq!((status.as_str(), reason.as_str()), ("False", "UpgradePending"));
    assert_eq!(message, "runs 1.7; the hub has 1.8");

    let mut seen = seen;
    let present = crate::revision::name(&seen.hub);
    let failed: processhub_crds::FailedUpgrade = serde_json::from_value(serde_json::json!({
        "revision": present, "from": "1.7", "to": "1.8", "reason": "ImportRefused", "message": "422 no",
        "time": "2026-01-01T00:00:00Z",
    }))
    .unwrap();
    seen.object.status.as_mut().unwrap().failed_upgrade = Some(failed);
    let mut seen = refreshed(seen);
    let (_, reason, message) = condition(&seen, ProcessCondition::Upgraded);
    assert_eq!(
        (reason.as_str(), message.as_str()),
        ("UpgradeFailed", "(1.7->1.8): 422 no; it runs on with 1.7")
    );

    // Back at what the hub has, whatever failed is no matter any more.
    seen.object.status.as_mut().unwrap().owner.as_mut().unwrap().revision = present;
    let seen = refreshed(seen);
    assert_eq!(condition(&seen, ProcessCondition::Upgraded).1, "UpToDate");
    assert_eq!(seen.object.status.unwrap().failed_upgrade, None);
}

#[test]
fn a_process_of_before_codes_had_names_is_taken_to_run_the_first() {
    let mut seen = outdated(&started());
    seen.object.status.as_mut().unwrap().owner.as_mut().unwrap().revision = String::new();
    assert_eq!(seen.runs(), Some("old"));
    Arc::make_mut(&mut seen.hub).status = None;
    assert_eq!(seen.runs(), None, "nothing is known: nothing is said");
}

#[test]
fn the_worker_is_told_of_other_code_and_of_the_way_back() {
    use processhub_protocol::contract::Direction;

    let mut steps = started();
    steps.push(prepare(Kind::HotSwap, Some(owner_pod())));
    let mut seen = outdated(&steps);
    let present = crate::revision::name(&seen.hub);
    Arc::make_mut(&mut seen.hub).spec.upgrade.extra = [("a".to_owned(), 1.into())].into();
    let to = |seen: &mut Observation, revision: &str| {
        let migration = seen.object.status.as_mut().unwrap().migration.as_mut().unwrap();
        migration.revision = revision.to_owned();
        super::super::commands::code_change(seen)
    };
    let change = to(&mut seen, &present).unwrap();
    assert_eq!(
        (change.from.as_str(), change.direction, change.extra.as_str()),
        ("1.7", Direction::Up, r#"{"a":1}"#)
    );
    assert_eq!(to(&mut seen, "old"), None, "a move keeps the code");
    assert_eq!(to(&mut seen, ""), None, "a move that was prepared before codes had names");
    seen.object.status.as_mut().unwrap().owner.as_mut().unwrap().revision = present;
    assert_eq!(to(&mut seen, "old").unwrap().direction, Direction::Down);
}

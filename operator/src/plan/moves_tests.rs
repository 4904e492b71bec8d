use k8s_openapi::jiff::{SignedDuration, Timestamp};
use processhub_crds::vocabulary::{MoveReason, ProcessReason};
use processhub_crds::{MigrationStrategy, MigrationTrigger};
use processhub_protocol::handover::{Handover, Waiting};
use processhub_protocol::id::Epoch;
use processhub_protocol::ledger::{AbortReason, Kind};

use super::*;
use crate::assignments::{FailedMove, Moving, MovingPhase, OwnerState};
use crate::plan::fixture::{Populate, inputs, moving};
use crate::plan::{Operator, Plan, Requirement, Term, plan};

fn assignment(plan: &Plan, name: &str) -> Assignment {
    plan.assignments.get(name).cloned().unwrap_or_default()
}

fn held(plan: &Plan, name: &str) -> ProcessReason {
    assignment(plan, name).held.unwrap().reason
}

fn go_of(plan: &Plan, name: &str) -> Option<(String, MigrationTrigger)> {
    assignment(plan, name).go.map(|go| (go.node, go.trigger))
}

/// Two processes on n1 and none on n2: one of them has to go.
fn unbalanced() -> Inputs {
    let mut inputs = inputs(2, &["n1", "n2"]);
    inputs.serving("cart-0", "n1");
    inputs.serving("cart-1", "n1");
    inputs
}

/// The one that the distribution sends to n2.
fn mover(inputs: &Inputs) -> String {
    let plan = plan(inputs).0;
    let mover = plan.assignments.iter().find(|(_, assignment)| assignment.go.is_some());
    mover.map(|(name, _)| name.clone()).unwrap()
}

#[test]
fn a_permission_carries_the_epoch_and_the_kind_of_the_hub() {
    let mut inputs = unbalanced();
    let mover = mover(&inputs);
    inputs.hub.migration = MigrationStrategy::ColdSwap;
    let go = assignment(&plan(&inputs).0, &mover).go.unwrap();
    assert_eq!((go.epoch, go.kind, go.trigger), (Epoch(7), Kind::ColdSwap, MigrationTrigger::Rebalance));
}

#[test]
fn a_process_that_was_not_observed_is_left_alone() {
    let mut inputs = unbalanced();
    let mover = mover(&inputs);
    let process = inputs.processes.get_mut(&mover).unwrap();
    (process.facts, process.node) = (None, Some("n1".into()));
    assert!(!plan(&inputs).0.assignments.contains_key(&mover));
}

#[test]
fn pauses_of_hub_and_process_hold_back_what_need_not_move() {
    let mut inputs = unbalanced();
    let mover = mover(&inputs);
    inputs.facts(&mover).paused = true;
    assert_eq!(held(&plan(&inputs).0, &mover), ProcessReason::Paused);
    inputs.facts(&mover).paused = false;
    inputs.hub.paused = true;
    assert_eq!(held(&plan(&inputs).0, &mover), ProcessReason::Paused);
    inputs.facts(&mover).owner = OwnerState::Leaving { until: Timestamp::UNIX_EPOCH };
    let (_, trigger) = go_of(&plan(&inputs).0, &mover).unwrap();
    assert_eq!(trigger, MigrationTrigger::PodDeleted);
}

fn crashed(again: Option<i64>) -> OwnerState {
    OwnerState::Crashed { again: again.map(|second| Timestamp::from_second(second).unwrap()) }
}

#[test]
fn a_worker_that_crashes_again_gets_a_new_pod_where_it_is_and_takes_no_place_from_others() {
    let mut inputs = inputs(3, &["n1", "n2", "n3"]);
    inputs.serving("cart-0", "n1").wish = Some("n3".into());
    inputs.serving("cart-1", "n2").owner = crashed(Some(0));
    inputs.serving("cart-2", "n3");
    let there = plan(&inputs).0;
    assert_eq!(go_of(&there, "cart-1"), Some(("n2".into(), MigrationTrigger::Crash)));
    assert_eq!(go_of(&there, "cart-0"), Some(("n3".into(), MigrationTrigger::Wish)), "nobody waits for it");
    inputs.hub.paused = true;
    assert_eq!(go_of(&plan(&inputs).0, "cart-1"), Some(("n2".into(), MigrationTrigger::Crash)));
    inputs.nodes.get_mut("n2").unwrap().unschedulable = true;
    let (node, trigger) = go_of(&plan(&inputs).0, "cart-1").unwrap();
    assert!(node != "n2" && trigger == MigrationTrigger::Crash, "{node} {trigger}");
    inputs.facts("cart-1").wish = Some("n1".into());
    assert_eq!(go_of(&plan(&inputs).0, "cart-1"), Some(("n1".into(), MigrationTrigger::Wish)));
}

#[test]
fn a_worker_that_crashes_again_and_again_is_started_more_slowly_and_wakes_the_plan() {
    let mut inputs = inputs(1, &["n1"]);
    inputs.serving("cart-0", "n1").owner = crashed(Some(7));
    let waits = plan(&inputs).0;
    assert_eq!((held(&waits, "cart-0"), waits.wake), (ProcessReason::Restarting, Some(7_000)));
    inputs.now = Timestamp::from_second(7).unwrap();
    assert_eq!(go_of(&plan(&inputs).0, "cart-0"), Some(("n1".into(), MigrationTrigger::Crash)));
    let at = inputs.now;
    let reason = Some(MoveReason::TargetFailed);
    inputs.facts("cart-0").failed = Some(FailedMove { to: "n1".into(), reason, at, times: 3 });
    let failed = plan(&inputs).0;
    assert_eq!((held(&failed, "cart-0"), failed.wake), (ProcessReason::MoveAborted, Some(27_000)));
}

#[test]
fn beyond_the_limit_only_a_person_gets_a_crashed_process_another_pod() {
    let mut inputs = inputs(1, &["n1", "n2"]);
    inputs.serving("cart-0", "n1").owner = crashed(None);
    let stopped = plan(&inputs).0;
    assert_eq!(
        (held(&stopped, "cart-0"), go_of(&stopped, "cart-0")),
        (ProcessReason::RestartLimitExceeded, None)
    );
    inputs.nodes.get_mut("n1").unwrap().unschedulable = true;
    assert_eq!(held(&plan(&inputs).0, "cart-0"), ProcessReason::RestartLimitExceeded);
    inputs.nodes.get_mut("n1").unwrap().unschedulable = false;
    inputs.facts("cart-0").wish = Some("n2".into());
    assert_eq!(go_of(&plan(&inputs).0, "cart-0"), Some(("n2".into(), MigrationTrigger::Wish)));
    inputs.facts("cart-0").wish = None;
    inputs.processes.get_mut("cart-0").unwrap().child.pin = Some("n2".into());
    assert_eq!(go_of(&plan(&inputs).0, "cart-0"), Some(("n2".into(), MigrationTrigger::Pinned)));
}

#[test]
fn new_code_is_given_to_a_process_whose_worker_crashes() {
    for again in [None, Some(0)] {
        let mut inputs = inputs(1, &["n1"]);
        inputs.serving("cart-0", "n1").owner = crashed(again);
        inputs.facts("cart-0").code.revision = "old".into();
        let code = |name: &str| crate::plan::Code { name: name.into(), label: name.into(), usable: true };
        inputs.hub.upgrade = crate::plan::Upgrade {
            present: "new".into(),
            codes: vec![code("old"), code("new")],
            max_concurrent: 1,
            ..Default::default()
        };
        let go = assignment(&plan(&inputs).0, "cart-0").go.unwrap();
        assert_eq!((go.trigger, go.revision.as_str()), (MigrationTrigger::Upgrade, "new"), "{again:?}");
    }
}

#[test]
fn a_move_whose_target_crashes_is_followed_by_the_next_one() {
    let mut inputs = inputs(1, &["n1", "n2"]);
    inputs.serving("cart-0", "n2").moving = Some(moving("n1", "n2", MovingPhase::Committed));
    assert_eq!(go_of(&plan(&inputs).0, "cart-0"), None);
    inputs.facts("cart-0").owner = crashed(Some(0));
    assert_eq!(go_of(&plan(&inputs).0, "cart-0"), Some(("n2".into(), MigrationTrigger::Crash)));
    inputs.facts("cart-0").owner = crashed(None);
    assert_eq!(held(&plan(&inputs).0, "cart-0"), ProcessReason::RestartLimitExceeded);
    inputs.facts("cart-0").moving.as_mut().unwrap().phase = MovingPhase::Prepared;
    assert_eq!(
        assignment(&plan(&inputs).0, "cart-0"),
        Assignment::default(),
        "its source may still hand over"
    );
}

#[test]
fn an_owner_that_cannot_be_reached_takes_no_place_from_others() {
    let mut inputs = unbalanced();
    let mover = mover(&inputs);
    inputs.facts(&mover).owner = OwnerState::Unreachable;
    assert_eq!(assignment(&plan(&inputs).0, &mover).go, None);
}

#[test]
fn who_was_permitted_and_does_not_begin_takes_no_place_from_others() {
    let mut inputs = inputs(2, &["n1", "n2"]);
    for name in ["cart-0", "cart-1"] {
        inputs.serving(name, "n1").wish = Some("n2".into());
    }
    assert_eq!(held(&plan(&inputs).0, "cart-1"), ProcessReason::Deferred);
    inputs.facts("cart-0").waiting = Waiting::OldPodGone;
    let plan = plan(&inputs).0;
    assert!(go_of(&plan, "cart-0").is_some(), "it may begin as soon as it can");
    assert!(go_of(&plan, "cart-1").is_some());
}

#[test]
fn a_worker_that_cannot_hand_over_where_it_must_takes_no_place_from_others() {
    let mut inputs = inputs(2, &["n1", "n2"]);
    inputs.hub.handover = Handover::Required;
    for name in ["cart-0", "cart-1"] {
        inputs.serving(name, "n1").wish = Some("n2".into());
    }
    inputs.facts("cart-0").capable = Some(false);
    assert!(go_of(&plan(&inputs).0, "cart-1").is_some());
}

#[test]
fn first_starts_and_recoveries_wait_for_no_limit() {
    let mut inputs = inputs(4, &["n1"]);
    inputs.serving("cart-0", "n1").moving = Some(moving("n1", "n1", MovingPhase::Frozen));
    for (name, owner) in
        [("cart-1", OwnerState::None), ("cart-2", OwnerState::None), ("cart-3", OwnerState::Dead)]
    {
        inputs.serving(name, "n1").owner = owner;
    }
    let plan = plan(&inputs).0;
    let triggers: Vec<_> =
        (1..4).filter_map(|i| go_of(&plan, &format!("cart-{i}"))).map(|(_, it)| it).collect();
    assert_eq!(triggers, [MigrationTrigger::Start, MigrationTrigger::Start, MigrationTrigger::Recovery]);
}

#[test]
fn a_committed_move_counts_for_the_hub_and_no_longer_for_its_nodes() {
    let mut inputs = inputs(2, &["n1", "n2"]);
    (inputs.hub.max_concurrent, inputs.hub.max_concurrent_per_node) = (2, 1);
    inputs.serving("cart-0", "n2").moving = Some(moving("n1", "n2", MovingPhase::Committed));
    inputs.serving("cart-1", "n1").wish = Some("n2".into());
    assert!(go_of(&plan(&inputs).0, "cart-1").is_some());
    inputs.hub.max_concurrent = 1;
    assert_eq!(held(&plan(&inputs).0, "cart-1"), ProcessReason::Deferred);
}

#[test]
fn a_move_is_withdrawn_when_its_target_becomes_unfit_unless_it_is_frozen() {
    let mut inputs = inputs(1, &["n1", "n2"]);
    inputs.serving("cart-0", "n1").moving = Some(moving("n1", "n2", MovingPhase::Prepared));
    assert_eq!(assignment(&plan(&inputs).0, "cart-0").give_up, None, "it is as good there as here");
    inputs.nodes.get_mut("n2").unwrap().unschedulable = true;
    assert_eq!(assignment(&plan(&inputs).0, "cart-0").give_up, Some(AbortReason::Withdrawn));
    inputs.facts("cart-0").moving = Some(moving("n1", "n2", MovingPhase::Frozen));
    assert_eq!(assignment(&plan(&inputs).0, "cart-0").give_up, None);
}

#[test]
fn a_newer_wish_replaces_the_move_that_is_under_way() {
    let mut inputs = inputs(1, &["n1", "n2", "n3"]);
    inputs.serving("cart-0", "n1").moving = Some(moving("n1", "n2", MovingPhase::Prepared));
    inputs.facts("cart-0").wish = Some("n3".into());
    let plan = plan(&inputs).0;
    let Assignment { go, give_up, held: _, lets_go: _, take_over: _ } = assignment(&plan, "cart-0");
    assert_eq!((go, give_up), (None, Some(AbortReason::Withdrawn)));
}

#[test]
fn only_within_a_quorum_of_a_hub_by_lease_is_an_owner_taken_over_that_does_not_answer() {
    let mut inputs = inputs(3, &["n1", "n2", "n3"]);
    for (name, node) in [("cart-0", "n1"), ("cart-1", "n2"), ("cart-2", "n3")] {
        inputs.serving(name, node);
    }
    inputs.facts("cart-0").owner = OwnerState::Unreachable;
    let taken_over = |inputs: &Inputs| assignment(&plan(inputs).0, "cart-0").take_over;
    assert!(!taken_over(&inputs), "without leases nothing but a proof counts");
    inputs.hub.on_lease = true;
    assert!(taken_over(&inputs));
    assert!(!assignment(&plan(&inputs).0, "cart-1").take_over, "it answers");
    inputs.facts("cart-1").owner = OwnerState::Unreachable;
    assert!(!taken_over(&inputs), "the operator may be the one that is cut off");
}

#[test]
fn the_recovery_of_an_owner_that_is_being_fenced_goes_to_another_node() {
    let mut inputs = inputs(1, &["n1", "n2"]);
    inputs.hub.on_lease = true;
    let facts = inputs.serving("cart-0", "n1");
    (facts.owner, facts.fenced) = (OwnerState::Dead, true);
    // Kubernetes calls its node Ready for another forty seconds.
    let go = assignment(&plan(&inputs).0, "cart-0").go.unwrap();
    assert_eq!((go.kind, go.node.as_str()), (Kind::Recover, "n2"));
    let mut alone = inputs.clone();
    alone.nodes.remove("n2");
    alone.facts("cart-0").fenced = false;
    assert_eq!(go_of(&plan(&alone).0, "cart-0").unwrap().0, "n1");
}

#[test]
fn nothing_is_rebalanced_that_may_hold_what_another_is_recovered_from() {
    let mut inputs = unbalanced();
    let mover = mover(&inputs);
    let other = if mover == "cart-0" { "cart-1" } else { "cart-0" };
    inputs.facts(other).owner = OwnerState::Unreachable;
    assert!(go_of(&plan(&inputs).0, &mover).is_some(), "without replicas nothing is held by it");
    inputs.hub.replicated = true;
    let plan = plan(&inputs).0;
    assert_eq!((go_of(&plan, &mover), held(&plan, &mover)), (None, ProcessReason::Deferred));
}

#[test]
fn a_target_that_died_after_the_commit_is_recovered_elsewhere() {
    let mut inputs = inputs(1, &["n1", "n3"]);
    inputs.serving("cart-0", "n2").moving = Some(moving("n1", "n2", MovingPhase::Committed));
    inputs.facts("cart-0").owner = OwnerState::Dead;
    let go = assignment(&plan(&inputs).0, "cart-0").go.unwrap();
    // Not a kind of move: the incarnation that the recovery brings is not to be moved by the same plan.
    assert_eq!((go.kind, go.trigger), (Kind::Recover, MigrationTrigger::NodeLost));
}

#[test]
fn a_failed_move_waits_and_says_until_when() {
    let mut inputs = inputs(1, &["n1", "n2", "n3"]);
    inputs.serving("cart-0", "n1");
    inputs.processes.get_mut("cart-0").unwrap().child.pin = Some("n2".into());
    let at = Timestamp::UNIX_EPOCH;
    inputs.facts("cart-0").failed =
        Some(FailedMove { to: "n2".into(), reason: Some(MoveReason::TargetNotReady), at, times: 2 });
    let first = plan(&inputs).0;
    assert_eq!(held(&first, "cart-0"), ProcessReason::MoveAborted);
    let message = assignment(&first, "cart-0").held.unwrap().message;
    assert!(
        message.contains("TargetNotReady (try 2)") && message.contains("1970-01-01T00:00:10Z"),
        "{message}"
    );
    assert_eq!(first.wake, Some(10_000));
    inputs.now += SignedDuration::from_secs(10);
    assert!(go_of(&plan(&inputs).0, "cart-0").is_some());
}

#[test]
fn a_person_may_try_again_or_something_else_at_once() {
    let mut inputs = inputs(1, &["n1", "n2", "n3"]);
    let at = Timestamp::UNIX_EPOCH;
    inputs.serving("cart-0", "n1").failed =
        Some(FailedMove { to: "n2".into(), reason: Some(MoveReason::Cancelled), at, times: 2 });
    inputs.facts("cart-0").wish = Some("n2".into());
    assert_eq!(go_of(&plan(&inputs).0, "cart-0"), Some(("n2".into(), MigrationTrigger::Wish)));
    inputs.facts("cart-0").wish = None;
    inputs.processes.get_mut("cart-0").unwrap().child.pin = Some("n3".into());
    assert_eq!(go_of(&plan(&inputs).0, "cart-0"), Some(("n3".into(), MigrationTrigger::Pinned)));
}

#[test]
fn who_could_not_be_started_on_a_node_is_started_on_another() {
    let mut inputs = inputs(1, &["n1", "n2", "n3"]);
    let facts = inputs.serving("cart-0", "n1");
    (facts.owner, facts.node) = (OwnerState::None, None);
    let (first, _) = go_of(&plan(&inputs).0, "cart-0").unwrap();
    let at = inputs.now;
    inputs.facts("cart-0").failed =
        Some(FailedMove { to: first.clone(), reason: Some(MoveReason::TargetFailed), at, times: 1 });
    assert_eq!(held(&plan(&inputs).0, "cart-0"), ProcessReason::MoveAborted);
    inputs.now += SignedDuration::from_secs(1);
    let (second, _) = go_of(&plan(&inputs).0, "cart-0").unwrap();
    assert_ne!(first, second);
    // With no other node it is tried there again.
    inputs.nodes.retain(|name, _| *name == first);
    assert_eq!(go_of(&plan(&inputs).0, "cart-0").unwrap().0, first);
}

#[test]
fn a_move_that_a_wish_began_moves_nobody_else_in_any_of_its_phases() {
    for phase in [MovingPhase::Prepared, MovingPhase::Frozen, MovingPhase::Committed] {
        let mut inputs = inputs(4, &["n1", "n2"]);
        (inputs.hub.max_concurrent, inputs.hub.max_concurrent_per_node) = (9, 9);
        for (name, node) in [("cart-0", "n1"), ("cart-1", "n1"), ("cart-2", "n2"), ("cart-3", "n2")] {
            inputs.serving(name, node);
        }
        let facts = inputs.facts("cart-0");
        facts.moving = Some(Moving { trigger: MigrationTrigger::Wish, ..moving("n1", "n2", phase) });
        facts.wish = Some("n2".into());
        assert!(plan(&inputs).0.is_empty(), "{phase:?}");
        if phase != MovingPhase::Committed {
            continue;
        }
        // The annotation may be gone before the move has ended; then only the move itself tells.
        let facts = inputs.facts("cart-0");
        (facts.wish, facts.node) = (None, Some("n2".into()));
        assert!(plan(&inputs).0.is_empty(), "{phase:?}");
        let facts = inputs.facts("cart-0");
        (facts.moving, facts.settled_by_wish) = (None, true);
        assert!(plan(&inputs).0.is_empty(), "ended");
    }
}

#[test]
fn new_code_and_a_new_pod_leave_a_process_where_a_wish_has_sent_it() {
    let phases = [MovingPhase::Prepared, MovingPhase::Frozen, MovingPhase::Committed];
    let triggers = [MigrationTrigger::Upgrade, MigrationTrigger::Crash];
    for (phase, trigger) in phases.into_iter().flat_map(|phase| triggers.map(|trigger| (phase, trigger))) {
        let mut inputs = inputs(4, &["n1", "n2"]);
        (inputs.hub.max_concurrent, inputs.hub.max_concurrent_per_node) = (9, 9);
        for (name, node) in [("cart-0", "n2"), ("cart-1", "n1"), ("cart-2", "n2"), ("cart-3", "n2")] {
            inputs.serving(name, node);
        }
        let facts = inputs.facts("cart-0");
        facts.settled_by_wish = true;
        facts.moving = Some(Moving { trigger, ..moving("n2", "n2", phase) });
        assert!(plan(&inputs).0.is_empty(), "{phase:?} {trigger:?}");
    }
}

#[test]
fn a_pin_and_a_wish_against_it_are_sorted_out() {
    let mut inputs = inputs(1, &["n1", "n2", "n3"]);
    inputs.serving("cart-0", "n1").wish = Some("n3".into());
    inputs.processes.get_mut("cart-0").unwrap().child.pin = Some("n2".into());
    let plan = plan(&inputs).0;
    assert_eq!(held(&plan, "cart-0"), ProcessReason::NotAMember);
    assert_eq!(go_of(&plan, "cart-0"), Some(("n2".into(), MigrationTrigger::Pinned)));
}

#[test]
fn a_process_that_is_to_be_deleted_is_not_moved_any_more() {
    let mut inputs = unbalanced();
    inputs.hub.replicas = 1;
    let plan = plan(&inputs).0;
    assert_eq!(plan.children.delete, ["cart-1"]);
    assert_eq!(assignment(&plan, "cart-1"), Assignment::default());
}

#[test]
fn a_hub_that_is_being_deleted_begins_nothing() {
    let mut inputs = unbalanced();
    inputs.hub.deleting = true;
    assert!(plan(&inputs).0.is_empty());
}

#[test]
fn who_is_killed_at_a_deadline_waits_for_no_limit_and_others_wait_for_him() {
    let mut inputs = inputs(4, &["n1", "n2", "n3"]);
    let until = Timestamp::from_second(60).unwrap();
    inputs.serving("cart-0", "n1").moving = Some(moving("n1", "n3", MovingPhase::Prepared));
    for name in ["cart-1", "cart-2"] {
        inputs.serving(name, "n2").owner = OwnerState::Leaving { until };
    }
    inputs.nodes.get_mut("n2").unwrap().unschedulable = true;
    inputs.serving("cart-3", "n3").wish = Some("n1".into());
    let plan = plan(&inputs).0;
    assert_eq!(assignment(&plan, "cart-0").give_up, None);
    for name in ["cart-1", "cart-2"] {
        let (_, trigger) = go_of(&plan, name).expect("it waits while its grace period runs");
        assert_eq!(trigger, MigrationTrigger::Drain);
    }
    assert_eq!(held(&plan, "cart-3"), ProcessReason::Deferred);
}

#[test]
fn a_node_that_the_template_can_never_be_scheduled_on_is_no_member() {
    let mut inputs = unbalanced();
    let disk = Requirement { key: "disk".into(), operator: Operator::Exists };
    inputs.hub.affinity = Some(vec![Term { labels: vec![disk], names: Vec::new() }]);
    inputs.nodes.get_mut("n1").unwrap().labels.insert("disk".into(), "ssd".into());
    let (planned, report) = plan(&inputs);
    assert_eq!(report.membership.targets, ["n1".to_owned()].into());
    assert!(matches!(report.membership.others["n2"], Fitness::NotMatched(_)), "{report}");
    assert!(planned.is_empty(), "nothing is sent there");
    inputs.facts("cart-0").wish = Some("n2".into());
    assert_eq!(held(&plan(&inputs).0, "cart-0"), ProcessReason::NotAMember);
}

#[test]
fn who_was_let_go_and_has_not_begun_is_not_sent_elsewhere() {
    let nodes = ["n1", "n2", "n3"];
    let mut inputs = inputs(0, &nodes);
    let mut sent: BTreeMap<String, String> = BTreeMap::new();
    for i in 0..40 {
        let name = format!("cart-{i}");
        let facts = inputs.serving(&name, "n1");
        (facts.owner, facts.node) = (OwnerState::None, None);
        inputs.hub.replicas = i + 1;
        let plan = plan(&inputs).0;
        for (name, node) in &sent {
            assert_eq!(go_of(&plan, name).map(|(node, _)| node).as_ref(), Some(node), "{name}");
        }
        sent.insert(name.clone(), go_of(&plan, &name).unwrap().0);
        inputs.memory = plan.memory;
    }
    for node in nodes {
        assert!((13..=14).contains(&sent.values().filter(|to| *to == node).count()), "{sent:?}");
    }
}

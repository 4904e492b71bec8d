use processhub_protocol::ledger::{AbortReason, Kind};

use super::*;
use crate::assignments::{Assignment, FailedUpgrade, MovingPhase};
use crate::plan::fixture::{Populate, inputs, moving};
use crate::plan::{Plan, Report, plan};

/// A hub with these replicas on one node that run 1.8, and 1.9 as its code.
fn outdated(replicas: u32) -> Inputs {
    let mut inputs = inputs(replicas, &["n1"]);
    (inputs.hub.max_concurrent, inputs.hub.max_concurrent_per_node) = (8, 8);
    let code = |name: &str, label: &str| Code { name: name.into(), label: label.into(), usable: true };
    inputs.hub.upgrade = Upgrade {
        present: "new".into(),
        codes: vec![code("old", "1.8"), code("new", "1.9")],
        cold: false,
        max_concurrent: 1,
        partition: 0,
    };
    for replica in 0..replicas {
        inputs.serving(&format!("cart-{replica}"), "n1").code.revision = "old".into();
    }
    inputs
}

fn assignment(plan: &Plan, name: &str) -> Assignment {
    plan.assignments.get(name).cloned().unwrap_or_default()
}

/// Who may begin, by name.
fn begin(inputs: &Inputs) -> Vec<String> {
    let (plan, _) = plan(inputs);
    plan.assignments.iter().filter(|(_, it)| it.go.is_some()).map(|(name, _)| name.clone()).collect()
}

fn report(inputs: &Inputs) -> RolloutReport {
    let Report { rollout, .. } = plan(inputs).1;
    rollout
}

fn refuses(inputs: &mut Inputs, name: &str, revision: &str) {
    let message = "(1.8->1.9): 422".to_owned();
    inputs.facts(name).code.failed = Some(FailedUpgrade { revision: revision.into(), message });
}

fn under_way(inputs: &mut Inputs, name: &str, phase: MovingPhase) {
    inputs.facts(name).moving = Some(crate::assignments::Moving {
        trigger: MigrationTrigger::Upgrade,
        revision: "new".into(),
        ..moving("n1", "n1", phase)
    });
}

#[test]
fn the_last_replica_begins_and_stays_on_its_node_with_the_new_code() {
    let inputs = outdated(11);
    assert_eq!(begin(&inputs), ["cart-10"], "by number, not by name");
    let go = assignment(&plan(&inputs).0, "cart-10").go.unwrap();
    assert_eq!((go.kind, go.node.as_str(), go.revision.as_str()), (Kind::HotSwap, "n1", "new"));
    assert_eq!(go.trigger, MigrationTrigger::Upgrade);
}

#[test]
fn processes_that_are_no_replicas_begin_before_the_replicas() {
    let mut inputs = outdated(2);
    inputs.serving("blue", "n1").code.revision = "old".into();
    inputs.processes.get_mut("blue").unwrap().managed = false;
    assert_eq!(begin(&inputs), ["blue"]);
}

#[test]
fn as_many_change_their_code_at_once_as_the_hub_says() {
    let mut inputs = outdated(4);
    inputs.hub.upgrade.max_concurrent = 2;
    assert_eq!(begin(&inputs), ["cart-2", "cart-3"]);
    under_way(&mut inputs, "cart-3", MovingPhase::Frozen);
    assert_eq!(begin(&inputs), ["cart-2"]);
    under_way(&mut inputs, "cart-2", MovingPhase::Prepared);
    assert_eq!(begin(&inputs), Vec::<String>::new());
    // The limits of moves hold as well.
    let mut inputs = outdated(4);
    (inputs.hub.upgrade.max_concurrent, inputs.hub.max_concurrent_per_node) = (4, 3);
    assert_eq!(begin(&inputs).len(), 3);
}

#[test]
fn one_that_is_to_go_takes_its_place_until_it_is_gone() {
    let mut inputs = outdated(3);
    under_way(&mut inputs, "cart-2", MovingPhase::Frozen);
    inputs.hub.replicas = 2;
    assert_eq!(plan(&inputs).0.children.delete, ["cart-2"]);
    assert_eq!(begin(&inputs), Vec::<String>::new());
    inputs.processes.remove("cart-2");
    assert_eq!(begin(&inputs), ["cart-1"]);
}

#[test]
fn the_next_begins_when_one_runs_the_new_code() {
    let mut inputs = outdated(3);
    inputs.facts("cart-2").code.revision = "new".into();
    assert_eq!(begin(&inputs), ["cart-1"]);
    let seen = report(&inputs);
    assert_eq!((seen.current, seen.outdated), (1, 2));
    assert_eq!(seen.runs.into_iter().collect::<Vec<_>>(), [("1.8".to_owned(), 2), ("1.9".to_owned(), 1)]);
}

#[test]
fn one_that_could_not_be_given_the_code_stops_all_others_until_the_hub_has_other_code() {
    let mut inputs = outdated(3);
    inputs.hub.upgrade.max_concurrent = 3;
    refuses(&mut inputs, "cart-2", "new");
    assert_eq!(begin(&inputs), Vec::<String>::new());
    assert_eq!(report(&inputs).failed, ["cart-2"]);
    let held = assignment(&plan(&inputs).0, "cart-0").held.unwrap();
    assert!(held.message.contains("cart-2 could not be given the new code"), "{}", held.message);
    refuses(&mut inputs, "cart-2", "older");
    assert_eq!(begin(&inputs).len(), 3, "that was about other code");
}

#[test]
fn one_that_failed_and_is_kept_on_its_code_stops_nobody() {
    let mut inputs = outdated(3);
    refuses(&mut inputs, "cart-0", "new");
    inputs.hub.upgrade.partition = 1;
    assert_eq!(begin(&inputs), ["cart-2"]);
}

#[test]
fn a_partition_keeps_the_first_on_their_code_wherever_they_move() {
    let mut inputs = outdated(3);
    inputs.hub.upgrade.partition = 2;
    assert_eq!(begin(&inputs), ["cart-2"]);
    inputs.facts("cart-2").code.revision = "new".into();
    assert_eq!(begin(&inputs), Vec::<String>::new());
    let seen = report(&inputs);
    assert_eq!((seen.kept, seen.outdated, seen.current), (2, 0, 1));
    inputs.facts("cart-0").owner = crate::assignments::OwnerState::Dead;
    let go = assignment(&plan(&inputs).0, "cart-0").go.unwrap();
    assert_eq!((go.kind, go.revision.as_str()), (Kind::Recover, "old"));
}

#[test]
fn a_move_for_another_reason_keeps_the_code_unless_it_is_forgotten() {
    let mut inputs = outdated(1);
    inputs.nodes.insert("n2".into(), inputs.nodes["n1"].clone());
    inputs.facts("cart-0").wish = Some("n2".into());
    let go = assignment(&plan(&inputs).0, "cart-0").go.unwrap();
    assert_eq!((go.trigger, go.revision.as_str()), (MigrationTrigger::Wish, "old"));
    inputs.hub.upgrade.codes[0].usable = false;
    assert_eq!(assignment(&plan(&inputs).0, "cart-0").go.unwrap().revision, "new");
}

#[test]
fn a_process_of_before_codes_had_names_runs_the_first_that_was_named() {
    let mut inputs = outdated(1);
    inputs.facts("cart-0").code.revision = String::new();
    assert_eq!(begin(&inputs), ["cart-0"]);
    inputs.hub.upgrade.present = "old".into();
    assert_eq!(begin(&inputs), Vec::<String>::new(), "an upgrade of the operator rolls no pod");
}

#[test]
fn nothing_changes_its_code_while_the_hub_is_paused_or_its_code_cannot_be_used() {
    let mut inputs = outdated(2);
    inputs.hub.paused = true;
    assert_eq!(begin(&inputs), Vec::<String>::new());
    inputs.hub.paused = false;
    inputs.hub.upgrade.present = String::new();
    assert_eq!(begin(&inputs), Vec::<String>::new());
}

#[test]
fn a_change_to_code_that_is_not_wanted_any_more_is_given_up_while_it_can() {
    let mut inputs = outdated(1);
    under_way(&mut inputs, "cart-0", MovingPhase::Prepared);
    assert_eq!(assignment(&plan(&inputs).0, "cart-0").give_up, None);
    inputs.hub.upgrade.present = "newer".into();
    assert_eq!(assignment(&plan(&inputs).0, "cart-0").give_up, Some(AbortReason::Withdrawn));
    under_way(&mut inputs, "cart-0", MovingPhase::Frozen);
    assert_eq!(assignment(&plan(&inputs).0, "cart-0").give_up, None);
    inputs.hub.upgrade.present = "new".into();
    inputs.hub.upgrade.partition = 1;
    under_way(&mut inputs, "cart-0", MovingPhase::Prepared);
    assert_eq!(assignment(&plan(&inputs).0, "cart-0").give_up, Some(AbortReason::Withdrawn));
}

#[test]
fn a_node_that_takes_nothing_new_holds_up_its_own_processes_only() {
    let mut inputs = outdated(2);
    inputs.nodes.insert("n2".into(), inputs.nodes["n1"].clone());
    inputs.facts("cart-1").node = Some("n2".into());
    inputs.nodes.get_mut("n2").unwrap().unschedulable = true;
    assert_eq!(begin(&inputs), ["cart-0"]);
    let held = assignment(&plan(&inputs).0, "cart-1").held.unwrap();
    assert!(held.message.contains("its node takes nothing new"), "{}", held.message);
}

#[test]
fn an_upgrade_by_cold_swaps_is_one() {
    let mut inputs = outdated(1);
    inputs.hub.upgrade.cold = true;
    assert_eq!(assignment(&plan(&inputs).0, "cart-0").go.unwrap().kind, Kind::ColdSwap);
}

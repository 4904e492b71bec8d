use std::collections::BTreeMap;

use processhub_crds::MigrationTrigger;
use processhub_crds::vocabulary::{MoveReason, ProcessReason};
use processhub_protocol::ledger::AbortReason;

use super::fixture::{Populate, inputs, moving};
use super::*;
use crate::assignments::{FailedMove, Moving, MovingPhase, OwnerState};

fn assignment(inputs: &Inputs, name: &str) -> Assignment {
    plan(inputs).0.assignments.get(name).cloned().unwrap_or_default()
}

/// The hub `cart` on two nodes, with a process `guest` on n1 at this end of a transfer.
fn guest(transfer: Transfer) -> Inputs {
    let mut inputs = inputs(1, &["n1", "n2"]);
    inputs.serving("cart-0", "n2");
    inputs.serving("guest", "n1");
    let process = inputs.processes.get_mut("guest").unwrap();
    (process.transfer, process.managed) = (Some(transfer), false);
    inputs.hub.upgrade.present = "new".into();
    inputs.hub.upgrade.codes = vec![Code { name: "new".into(), label: "2".into(), usable: true }];
    for facts in inputs.processes.values_mut().filter_map(|process| process.facts.as_mut()) {
        facts.code.revision = "new".into();
    }
    inputs
}

fn carried(phase: MovingPhase) -> Moving {
    Moving { trigger: MigrationTrigger::Transfer, ..moving("n1", "n1", phase) }
}

#[test]
fn who_arrives_gets_the_hubs_code_on_a_node_of_the_hub_and_stays_where_it_is_if_it_can() {
    let mut inputs = guest(Transfer::Arriving);
    inputs.facts("guest").code.revision = "of the other hub".into();
    let go = assignment(&inputs, "guest").go.unwrap();
    assert_eq!((go.node.as_str(), go.trigger), ("n1", MigrationTrigger::Transfer));
    assert_eq!((go.revision.as_str(), go.hub.as_str()), ("new", "cart"));
    inputs.nodes.get_mut("n1").unwrap().unschedulable = true;
    assert_eq!(assignment(&inputs, "guest").go.unwrap().node, "n2", "n1 takes nothing new");
    inputs.nodes.get_mut("n2").unwrap().ready = false;
    assert!(assignment(&inputs, "guest").held.is_some());
    let report = plan(&inputs).1;
    assert!(report.placement.pending.is_empty(), "it is not this hub's to be without a node");
}

#[test]
fn who_arrives_waits_for_limits_and_pauses_and_for_a_hub_that_is_accepted() {
    let why = |change: fn(&mut Inputs)| {
        let mut inputs = guest(Transfer::Arriving);
        change(&mut inputs);
        assignment(&inputs, "guest").held.map(|held| held.reason)
    };
    assert_eq!(why(|_| ()), None);
    assert_eq!(why(|inputs| inputs.hub.max_concurrent = 0), Some(ProcessReason::Deferred));
    assert_eq!(why(|inputs| inputs.hub.paused = true), Some(ProcessReason::Paused));
    assert_eq!(why(|inputs| inputs.hub.accepted = false), Some(ProcessReason::HubNotAccepted));
    let failed = |inputs: &mut Inputs| {
        let at = inputs.now;
        let reason = Some(MoveReason::ImportRefused);
        inputs.facts("guest").failed = Some(FailedMove { to: "n1".into(), reason, at, times: 1 });
    };
    assert_eq!(why(failed), Some(ProcessReason::MoveAborted));
    let leaving = |inputs: &mut Inputs| {
        inputs.facts("guest").owner = OwnerState::Leaving { until: inputs.now };
    };
    let mut going = guest(Transfer::Arriving);
    leaving(&mut going);
    assert_eq!(assignment(&going, "guest").go, None, "its own hub brings it to safety first");
}

#[test]
fn a_hub_counts_who_leaves_and_not_who_is_to_come() {
    let counted = |transfer| {
        let children = plan(&guest(transfer)).0.children;
        (children.desired, children.replicas)
    };
    assert_eq!(counted(Transfer::Leaving), (2, 1));
    assert_eq!(counted(Transfer::Arriving), (1, 1));
}

#[test]
fn a_hub_lets_go_whom_it_would_not_make_again() {
    let leave = |name: &str, change: fn(&mut Inputs)| {
        let mut inputs = guest(Transfer::Leaving);
        let process = inputs.processes.get_mut(name).unwrap();
        (process.transfer, process.managed) = (Some(Transfer::Leaving), name != "guest");
        change(&mut inputs);
        let assignment = assignment(&inputs, name);
        (assignment.lets_go, assignment.held.map(|held| held.message))
    };
    assert_eq!(leave("guest", |_| ()), (true, None));
    assert_eq!(leave("guest", |inputs| inputs.hub.accepted = false), (true, None));
    assert!(leave("guest", |inputs| inputs.hub.paused = true).1.unwrap().contains("hub cart is paused"));
    let replica = leave("cart-0", |_| ());
    assert!(!replica.0 && replica.1.unwrap().contains("lower spec.replicas of hub cart"));
    assert_eq!(leave("cart-0", |inputs| inputs.hub.replicas = 0), (true, None));
    let listed = |inputs: &mut Inputs| drop(inputs.hub.listed.insert("guest".into(), Child::default()));
    let listed = leave("guest", listed);
    assert!(!listed.0 && listed.1.unwrap().contains("remove it from spec.processes of hub cart"));
}

#[test]
fn a_replica_that_leaves_is_not_stopped_for_being_one_too_many() {
    let mut inputs = guest(Transfer::Leaving);
    inputs.hub.replicas = 0;
    inputs.processes.get_mut("cart-0").unwrap().transfer = Some(Transfer::Leaving);
    assert_eq!(plan(&inputs).0.children.delete, Vec::<String>::new());
    inputs.processes.get_mut("cart-0").unwrap().transfer = None;
    assert_eq!(plan(&inputs).0.children.delete, ["cart-0"]);
}

#[test]
fn who_leaves_is_moved_by_its_hub_only_if_it_has_to_be() {
    let mut inputs = guest(Transfer::Leaving);
    inputs.processes.get_mut("guest").unwrap().child.pin = Some("n2".into());
    inputs.facts("guest").code.revision = "old".into();
    let stays = assignment(&inputs, "guest");
    assert!(stays.go.is_none() && stays.lets_go, "neither its pin nor new code moves it");
    inputs.facts("guest").owner = OwnerState::Leaving { until: inputs.now };
    let goes = assignment(&inputs, "guest").go.unwrap();
    assert_eq!((goes.node.as_str(), goes.hub.as_str()), ("n2", "cart"));
}

#[test]
fn a_transfer_under_way_is_given_up_by_the_hub_that_it_goes_to_alone() {
    for (transfer, gives_up) in
        [(Transfer::Leaving, None), (Transfer::Arriving, Some(AbortReason::Withdrawn))]
    {
        let mut inputs = guest(transfer);
        inputs.facts("guest").moving = Some(carried(MovingPhase::Prepared));
        assert_eq!(assignment(&inputs, "guest").give_up, None, "{transfer:?}");
        inputs.nodes.get_mut("n1").unwrap().unschedulable = true;
        assert_eq!(assignment(&inputs, "guest").give_up, gives_up, "{transfer:?}");
    }
}

#[test]
fn what_the_other_hub_makes_of_its_process_is_none_of_ours() {
    let mut inputs = guest(Transfer::Arriving);
    inputs.facts("guest").moving = Some(moving("n1", "n9", MovingPhase::Prepared));
    assert_eq!(assignment(&inputs, "guest"), Assignment::default());
    inputs.serving("other", "n1");
    assert_eq!(plan(&inputs).1.moves.under_way, 0, "nor does it take a place among our moves");
    inputs.facts("guest").moving = Some(carried(MovingPhase::Frozen));
    assert_eq!(plan(&inputs).1.moves.under_way, 1);
}

#[test]
fn a_name_that_is_to_arrive_is_still_taken() {
    let mut inputs = guest(Transfer::Arriving);
    inputs.hub.listed = BTreeMap::from([("guest".to_owned(), Child::default())]);
    inputs.taken = BTreeMap::from([("guest".to_owned(), "till".to_owned())]);
    let children = plan(&inputs).0.children;
    assert_eq!((children.create.len(), children.taken.len(), children.desired), (0, 1, 2));
}

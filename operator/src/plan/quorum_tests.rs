use super::*;
use crate::plan::fixture::{Populate, inputs};
use crate::plan::membership::membership;

/// Five nodes, each with a process, of which the last `silent` do not answer.
fn split(silent: usize) -> Inputs {
    let nodes = ["n0", "n1", "n2", "n3", "n4"];
    let mut inputs = inputs(5, &nodes);
    for (at, node) in nodes.iter().enumerate() {
        let facts = inputs.serving(&format!("cart-{at}"), node);
        if at + silent >= nodes.len() {
            facts.owner = OwnerState::Unreachable;
        }
    }
    inputs
}

fn judge(inputs: &Inputs) -> Quorum {
    quorum(inputs, &membership(&inputs.hub, &inputs.nodes), &Lost::new(), 0).1
}

fn not_ready(inputs: &mut Inputs, nodes: &[&str]) {
    for node in nodes {
        inputs.nodes.get_mut(*node).unwrap().ready = false;
    }
}

#[test]
fn a_majority_takes_over_and_a_minority_does_not() {
    for (silent, holds) in [(0, true), (2, true), (3, false), (5, false)] {
        let quorum = judge(&split(silent));
        assert_eq!((quorum.needed, quorum.lost.len()), (3, silent));
        assert_eq!(quorum.holds(), holds, "{silent} silent");
    }
}

#[test]
fn of_two_nodes_neither_is_a_majority_and_a_static_quorum_of_one_is_a_choice() {
    let mut inputs = inputs(2, &["n0", "n1"]);
    inputs.serving("cart-0", "n0");
    inputs.serving("cart-1", "n1").owner = OwnerState::Unreachable;
    assert!(!judge(&inputs).holds());
    inputs.hub.partition.strategy = PartitionStrategy::StaticQuorum;
    inputs.hub.partition.quorum_size = Some(1);
    assert!(judge(&inputs).holds());
}

#[test]
fn lost_nodes_count_as_long_as_kubernetes_lists_them_unless_said_otherwise() {
    let mut inputs = split(3);
    not_ready(&mut inputs, &["n2", "n3", "n4"]);
    assert!(!judge(&inputs).holds());
    inputs.hub.partition.track_max_size = false;
    assert!(judge(&inputs).holds(), "two of two that Kubernetes calls ready");
    inputs.hub.partition.initial_cluster_size = 5;
    assert!(!judge(&inputs).holds(), "there are five at least");
    inputs.hub.partition = PartitionTolerance::default();
    for node in ["n3", "n4"] {
        inputs.nodes.remove(node);
    }
    assert!(judge(&inputs).holds(), "two of three: the others were taken away");
}

#[test]
fn a_node_that_kubernetes_does_not_hear_and_the_operator_does_is_reached() {
    let mut inputs = split(2);
    not_ready(&mut inputs, &["n0", "n1", "n2"]);
    assert_eq!(judge(&inputs).reached, 3);
}

#[test]
fn a_node_without_processes_is_reached_while_it_is_ready() {
    let mut inputs = split(0);
    inputs.processes.remove("cart-4");
    assert_eq!(judge(&inputs).reached, 5);
    not_ready(&mut inputs, &["n4"]);
    assert_eq!(judge(&inputs).reached, 4);
}

#[test]
fn a_node_that_was_fenced_is_not_reached_and_one_that_is_proven_dead_says_nothing() {
    let mut inputs = split(0);
    inputs.facts("cart-4").owner = OwnerState::Dead;
    assert_eq!(judge(&inputs).reached, 5);
    inputs.facts("cart-4").fenced = true;
    assert_eq!(judge(&inputs).reached, 4);
}

#[test]
fn a_static_quorum_counts_nodes() {
    let mut inputs = split(2);
    inputs.hub.partition.strategy = PartitionStrategy::StaticQuorum;
    for (size, holds) in [(3, true), (4, false)] {
        inputs.hub.partition.quorum_size = Some(size);
        assert_eq!(judge(&inputs).holds(), holds, "{size}");
    }
}

#[test]
fn a_dynamic_quorum_forgets_who_was_lost_long_ago() {
    let mut inputs = split(3);
    inputs.hub.partition = PartitionTolerance {
        strategy: PartitionStrategy::DynamicQuorum,
        quorum_size: Some(60),
        threshold_seconds: 30,
        ..PartitionTolerance::default()
    };
    let fitness = membership(&inputs.hub, &inputs.nodes);
    let (lost, at_once) = quorum(&inputs, &fitness, &Lost::new(), 1_000);
    assert_eq!((at_once.reached, at_once.needed, at_once.wake), (2, 3, Some(31_000)));
    let (lost, before) = quorum(&inputs, &fitness, &lost, 30_999);
    assert!(!before.holds());
    let (_, after) = quorum(&inputs, &fitness, &lost, 31_000);
    assert!(after.holds(), "two of two");
    inputs.hub.partition.quorum_size = Some(40);
    assert!(judge(&inputs).holds());
}

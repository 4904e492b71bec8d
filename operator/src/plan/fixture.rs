//! A small hub, its nodes and processes: for the tests of this crate, those beside it, and the benchmark.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;
use processhub_crds::{DistributionStrategy, MigrationStrategy, MigrationTrigger, PartitionTolerance};
use processhub_protocol::handover::{Handover, Waiting};
use processhub_protocol::id::Epoch;
use processhub_protocol::ledger::Kind;

use processhub_operator::assignments::{
    Assignment, CodeFacts, Go, HubKey, Moving, MovingPhase, OwnerState, ProcessFacts, ProcessKey,
};
use processhub_operator::plan::{Child, Hub, Inputs, Memory, Node, Process, Upgrade};

/// The hub `cart` with narrow limits.
pub(crate) fn hub(replicas: u32, listed: &[&str]) -> Hub {
    Hub {
        name: "cart".into(),
        accepted: true,
        paused: false,
        deleting: false,
        replicas,
        listed: listed.iter().map(|name| ((*name).to_owned(), Child::default())).collect(),
        node_selector: BTreeSet::new(),
        affinity: None,
        tolerations: Vec::new(),
        distribution: DistributionStrategy::ConsistentHashing,
        migration: MigrationStrategy::HotSwap,
        handover: Handover::IfCapable,
        max_concurrent: 1,
        max_concurrent_per_node: 1,
        debounce: 500,
        upgrade: Upgrade::default(),
        on_lease: false,
        replicated: false,
        partition: PartitionTolerance::default(),
    }
}

/// That hub on these nodes, each of them fit.
pub(crate) fn inputs(replicas: u32, nodes: &[&str]) -> Inputs {
    let fit = Node { ready: true, ..Node::default() };
    Inputs {
        now: Timestamp::UNIX_EPOCH,
        hub: hub(replicas, &[]),
        nodes: nodes.iter().map(|name| ((*name).to_owned(), fit.clone())).collect(),
        processes: BTreeMap::new(),
        taken: BTreeMap::new(),
        memory: Memory::default(),
    }
}

/// A process that serves on this node.
pub(crate) fn facts(name: &str, node: &str) -> ProcessFacts {
    ProcessFacts {
        key: ProcessKey { uid: name.into(), namespace: "shop".into(), name: name.into() },
        hub: HubKey { namespace: "shop".into(), name: "cart".into() },
        bound_for: None,
        epoch: Epoch(7),
        pin: None,
        wish: None,
        paused: false,
        node: Some(node.into()),
        owner: OwnerState::Serving,
        moving: None,
        capable: Some(true),
        waiting: Waiting::Nothing,
        fenced: false,
        settled_by_wish: false,
        failed: None,
        failed_transfer: None,
        code: CodeFacts::default(),
    }
}

/// A move for the balance.
pub(crate) fn moving(from: &str, to: &str, phase: MovingPhase) -> Moving {
    Moving {
        kind: Kind::HotSwap,
        trigger: MigrationTrigger::Rebalance,
        from: Some(from.into()),
        to: to.into(),
        phase,
        revision: String::new(),
    }
}

/// The permission to move there.
pub(crate) fn go(node: &str) -> Assignment {
    let go = Go {
        kind: Kind::HotSwap,
        node: node.into(),
        trigger: MigrationTrigger::Rebalance,
        revision: String::new(),
        epoch: Epoch(7),
        hub: "cart".into(),
    };
    Assignment { go: Some(go), ..Assignment::default() }
}

/// Processes among the inputs.
pub(crate) trait Populate {
    /// Adds a process that serves on this node; returns what is known of it, to be changed.
    fn serving(&mut self, name: &str, node: &str) -> &mut ProcessFacts;

    /// What is known of a process.
    fn facts(&mut self, name: &str) -> &mut ProcessFacts;
}

impl Populate for Inputs {
    fn serving(&mut self, name: &str, node: &str) -> &mut ProcessFacts {
        let process = Process { managed: true, facts: Some(facts(name, node)), ..Process::default() };
        self.processes.insert(name.to_owned(), process);
        Populate::facts(self, name)
    }

    fn facts(&mut self, name: &str) -> &mut ProcessFacts {
        self.processes.get_mut(name).and_then(|process| process.facts.as_mut()).unwrap()
    }
}

//! What a plan is made from.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;
use processhub_crds::{DistributionStrategy, MigrationStrategy, MigrationTrigger, PartitionTolerance};
use processhub_protocol::handover::Handover;
use serde_json::Value;

use super::affinity::Term;
use super::debounce::Memory;
use super::rollout::Upgrade;
use crate::assignments::{Moving, ProcessFacts};

/// Everything that a plan of one hub rests on. Equal inputs give equal plans.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// When the rest was observed.
    pub now: Timestamp,
    /// What the hub asks for.
    pub hub: Hub,
    /// All nodes of the cluster, by name.
    pub nodes: BTreeMap<String, Node>,
    /// The hub's processes, by name. May lag behind what was just created or deleted.
    pub processes: BTreeMap<String, Process>,
    /// Names that the hub may ask for and that are taken: name of the process to name of the hub that has it.
    pub taken: BTreeMap<String, String>,
    /// What the plan before this one remembered of joins and leaves; the default for the first.
    pub memory: Memory,
}

/// What a hub asks for, after validation.
#[derive(Clone, Debug)]
pub struct Hub {
    /// Its name.
    pub name: String,
    /// Whether spec and template can be used. While not, nothing new is started and nothing moves that need not.
    pub accepted: bool,
    /// Whether the hub is paused: only what must move moves.
    pub paused: bool,
    /// Whether the hub is being deleted: nothing is begun any more.
    pub deleting: bool,
    /// How many processes `<hub>-<ordinal>` to have.
    pub replicas: u32,
    /// The processes listed by name.
    pub listed: BTreeMap<String, Child>,
    /// Labels that a node must have: of the members and of the template together, also where they contradict.
    pub node_selector: BTreeSet<(String, String)>,
    /// The node affinity that the template requires: one of these has to hold. None: any node will do.
    pub affinity: Option<Vec<Term>>,
    /// What the template tolerates.
    pub tolerations: Vec<Toleration>,
    /// How processes are spread.
    pub distribution: DistributionStrategy,
    /// How they move.
    pub migration: MigrationStrategy,
    /// Whether a worker must be able to hand over.
    pub handover: Handover,
    /// How many processes may move at once.
    pub max_concurrent: u32,
    /// How many of them may leave or enter one node.
    pub max_concurrent_per_node: u32,
    /// How long joins and leaves are collected, in milliseconds.
    pub debounce: u64,
    /// The code that they run, and how they get to it.
    pub upgrade: Upgrade,
    /// Whether owners serve by lease, and are taken over when they do not answer.
    pub on_lease: bool,
    /// Whether pods hold replicas of one another's processes.
    pub replicated: bool,
    /// How many members must be reached for that.
    pub partition: PartitionTolerance,
}

/// A node as far as it matters for placement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Whether its `Ready` condition is `True`. False and Unknown (cut off) are the same here.
    pub ready: bool,
    /// Whether it is cordoned.
    pub unschedulable: bool,
    /// Whether it has a deletion timestamp.
    pub deleting: bool,
    /// Its taints.
    pub taints: Vec<Taint>,
    /// How many pods it can hold, from its allocatable resources; `None` while it has not said.
    pub pods: Option<u32>,
}

/// A taint of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taint {
    /// Key.
    pub key: String,
    /// Value; empty when absent.
    pub value: String,
    /// Effect.
    pub effect: TaintEffect,
}

/// What a taint does to pods that do not tolerate it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaintEffect {
    /// Not scheduled there.
    NoSchedule,
    /// Scheduled elsewhere if possible.
    PreferNoSchedule,
    /// Not scheduled there, and evicted.
    NoExecute,
}

/// A toleration of the template.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Toleration {
    /// Key; `None` with [`Match::Exists`] tolerates everything.
    pub key: Option<String>,
    /// How the value is compared.
    pub matches: Match,
    /// Effect; `None` stands for all.
    pub effect: Option<TaintEffect>,
}

/// How a toleration compares values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// Any value.
    Exists,
    /// This one.
    Equal(String),
}

impl Default for Match {
    fn default() -> Self {
        Self::Equal(String::new())
    }
}

/// What the operator writes into a `HubProcess` that it creates.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Child {
    /// `spec.config`.
    pub config: BTreeMap<String, Value>,
    /// Labels without the reserved ones.
    pub labels: BTreeMap<String, String>,
    /// `spec.nodeName`.
    pub pin: Option<String>,
    /// Keys of the labels that the hub lists; of a process that is there those that were taken from its list.
    pub listed_labels: BTreeSet<String>,
}

/// A process of the hub as observed.
#[derive(Clone, Debug, Default)]
pub struct Process {
    /// Whether the operator created it for this hub. Others, the dynamic ones, are neither changed nor deleted.
    pub managed: bool,
    /// Whether its object is being deleted.
    pub deleting: bool,
    /// Whether it is on its way between this hub and another one.
    pub transfer: Option<Transfer>,
    /// What its object says.
    pub child: Child,
    /// Node of the owner by the object's status; used while [`Self::facts`] are missing.
    pub node: Option<String>,
    /// What the process loop saw; `None` while it has not looked. Nothing is begun for such a process.
    pub facts: Option<ProcessFacts>,
}

/// Which end of a transfer this hub is. The process is the other one's until the commit, and this one's from then on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// Its object names another hub. It is still one of this hub's, which moves it only if it has to be moved.
    Leaving,
    /// Its owner is another hub's, and its object names this one: a place is kept for it here. What is known of its last
    /// failure is that of its transfer.
    Arriving,
}

impl Process {
    /// Whether it is of another hub and to come here.
    #[must_use]
    pub fn arrives(&self) -> bool {
        self.transfer == Some(Transfer::Arriving)
    }

    /// Whether it is of this hub and to go to another one.
    #[must_use]
    pub fn leaves(&self) -> bool {
        self.transfer == Some(Transfer::Leaving)
    }

    /// The move under way that counts in this hub: not one that the other hub makes of its own process.
    #[must_use]
    pub fn moving(&self) -> Option<&Moving> {
        let moving = self.facts.as_ref()?.moving.as_ref()?;
        (!self.arrives() || moving.trigger == MigrationTrigger::Transfer).then_some(moving)
    }

    /// Node of the owner.
    #[must_use]
    pub fn owner_node(&self) -> Option<&str> {
        match &self.facts {
            Some(facts) => facts.node.as_deref(),
            None => self.node.as_deref(),
        }
    }
}

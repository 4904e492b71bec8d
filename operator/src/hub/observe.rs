//! Reads what a plan needs from the stores and the board. Calls nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use processhub_crds::validate::Handover as Carry;
use processhub_crds::vocabulary::{annotation, label};
use processhub_crds::{Failover, HubProcess, ProcessHub, Revision, StaticProcess, Upgrade, UpgradeStrategy};
use processhub_protocol::handover::Handover;
use processhub_protocol::id::ProcessUid;

use super::template::Verdict;
use super::{key, nodes};
use crate::assignments::{HubKey, ProcessFacts, ProcessKey};
use crate::context::Context;
use crate::plan::{self, Child, Inputs, Process, Transfer, replica};
use crate::{revision, transfer};

/// What was seen.
pub(super) struct Seen {
    /// What the plan is made from.
    pub inputs: Inputs,
    /// The objects of the hub's processes.
    pub objects: BTreeMap<String, Arc<HubProcess>>,
    /// The objects of other hubs' processes that are to come here.
    pub arriving: BTreeMap<String, Arc<HubProcess>>,
}

impl Seen {
    /// The objects of the hub's processes, and of those that are to come.
    pub fn all(&self) -> impl Iterator<Item = (&String, &Arc<HubProcess>)> {
        self.objects.iter().chain(&self.arriving)
    }
}

/// Looks at everything that concerns this hub.
pub(super) fn observe(context: &Context, hub: &ProcessHub, verdict: &Verdict, now: Timestamp) -> Seen {
    let at = key(hub);
    let (objects, arriving): (BTreeMap<_, _>, BTreeMap<_, _>) = context
        .stores
        .processes
        .state_filter(|process| {
            process.metadata.namespace.as_deref() == Some(&at.namespace)
                && (process.spec.hub_name == at.name || transfer::holder(process) == at.name)
        })
        .into_iter()
        .map(|process| (process.name_any(), process))
        .partition(|(_, process)| transfer::holder(process) == at.name);
    let mut facts = context.board.facts_of(&at);
    let own = objects.iter().map(|(name, object)| {
        let leaves = transfer::destination(object).map(|_| Transfer::Leaving);
        (name.clone(), process(hub, object, facts.remove(&process_key(object).uid), leaves))
    });
    let others = arriving.iter().map(|(name, object)| {
        let holder = HubKey { name: transfer::holder(object).to_owned(), ..at.clone() };
        let facts = context.board.facts_in(&holder, &process_key(object).uid);
        // What its moves within the other hub came to says nothing of this one.
        let facts = facts.map(|facts| ProcessFacts { failed: facts.failed_transfer.clone(), ..facts });
        (name.clone(), process(hub, object, facts, Some(Transfer::Arriving)))
    });
    let processes = own.chain(others).collect();
    let wanted = wants(hub, verdict);
    let taken = wanted_names(&wanted)
        .filter(|name| !objects.contains_key(name))
        .filter_map(|name| {
            let reference = ObjectRef::<HubProcess>::new(&name).within(&at.namespace);
            let other = context.stores.processes.get(&reference)?;
            let holder = transfer::holder(&other);
            (holder != at.name).then(|| (name, holder.to_owned()))
        })
        .collect();
    let nodes =
        context.stores.nodes.state().iter().map(|node| (node.name_any(), nodes::observed(node))).collect();
    let inputs = Inputs { now, hub: wanted, nodes, processes, taken, memory: plan::Memory::default() };
    Seen { inputs, objects, arriving }
}

/// The key under which the board knows a process.
pub(super) fn process_key(object: &HubProcess) -> ProcessKey {
    ProcessKey {
        uid: ProcessUid(object.metadata.uid.clone().unwrap_or_default()),
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
    }
}

/// Who owns a process as an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ownership {
    /// The operator made it for this hub: the hub is its controller.
    Managed,
    /// Somebody else made it; the hub is among its owners, so that it goes with the hub.
    Dynamic,
    /// The operator made it for a hub of this name that is no more; it has no controller.
    Orphan,
    /// Somebody else made it, and the hub is not among its owners yet.
    New,
}

/// Whose a process is.
pub(super) fn ownership(hub: &ProcessHub, process: &HubProcess) -> Ownership {
    let uid = hub.metadata.uid.as_deref().unwrap_or_default();
    let owners = process.owner_references();
    match owners.iter().find(|owner| owner.uid == uid) {
        Some(owner) if owner.controller == Some(true) => Ownership::Managed,
        Some(_) => Ownership::Dynamic,
        None => {
            let ours = process.labels().get(label::HUB) == Some(&hub.name_any());
            let controlled = owners.iter().any(|owner| owner.controller == Some(true));
            if ours && !controlled { Ownership::Orphan } else { Ownership::New }
        }
    }
}

fn process(
    hub: &ProcessHub,
    object: &HubProcess,
    facts: Option<ProcessFacts>,
    transfer: Option<Transfer>,
) -> Process {
    let status = object.status.as_ref();
    let node = status.and_then(|status| status.owner.as_ref()).map(|owner| owner.node.clone());
    Process {
        managed: ownership(hub, object) == Ownership::Managed,
        deleting: object.metadata.deletion_timestamp.is_some(),
        transfer,
        child: Child {
            config: object.spec.config.clone(),
            labels: own_labels(object.labels()),
            pin: object.spec.node_name.clone(),
            listed_labels: listed_labels(object),
        },
        node,
        facts,
    }
}

/// Labels without those that the operator puts there.
pub(super) fn own_labels(labels: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let own = labels.iter().filter(|(key, _)| !key.starts_with(label::PREFIX));
    own.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// What the hub asks for. Of one that cannot be used, what is needed to leave alone what runs.
fn wants(hub: &ProcessHub, verdict: &Verdict) -> plan::Hub {
    let spec = &hub.spec;
    let template = spec.template.spec.as_ref();
    let members = spec.members.node_selector.clone().into_iter();
    let node_selector =
        members.chain(template.and_then(|spec| spec.node_selector.clone()).into_iter().flatten()).collect();
    let tolerations = template.and_then(|spec| spec.tolerations.as_ref());
    plan::Hub {
        name: hub.name_any(),
        accepted: verdict.hub.is_some(),
        paused: is_true(hub.annotations().get(annotation::PAUSED)),
        deleting: hub.metadata.deletion_timestamp.is_some(),
        replicas: spec.replicas,
        listed: spec.processes.iter().map(listed).collect(),
        node_selector,
        affinity: template.and_then(nodes::affinity),
        tolerations: tolerations.into_iter().flatten().map(nodes::toleration).collect(),
        distribution: spec.distribution.strategy,
        migration: spec.migration.strategy,
        handover: match verdict.hub.as_ref().map(|hub| hub.migration.handover) {
            Some(Carry::Required) => Handover::Required,
            Some(Carry::Never) => Handover::Never,
            Some(Carry::IfCapable) | None => Handover::IfCapable,
        },
        max_concurrent: spec.migration.max_concurrent,
        max_concurrent_per_node: spec.migration.max_concurrent_per_node,
        debounce: spec.cluster_event_debounce_milliseconds,
        upgrade: upgrade(hub, verdict),
        on_lease: spec.failover == Failover::OnLease,
        replicated: spec.checkpoint.replicas > 0,
        partition: spec.partition_tolerance.clone(),
    }
}

/// The code that the processes are to run, once it can be used and is written down.
fn upgrade(hub: &ProcessHub, verdict: &Verdict) -> plan::Upgrade {
    let known = revision::known(hub);
    let present = revision::name(hub);
    let usable = verdict.hub.is_some() && known.iter().any(|known| known.name == present);
    let code = |known: &Revision| plan::Code {
        name: known.name.clone(),
        label: known.label().to_owned(),
        usable: known.template.is_some(),
    };
    let Upgrade { strategy, max_concurrent, partition, extra: _ } = &hub.spec.upgrade;
    plan::Upgrade {
        present: if usable { present } else { String::new() },
        codes: known.iter().map(code).collect(),
        cold: *strategy == Some(UpgradeStrategy::ColdSwap),
        max_concurrent: *max_concurrent,
        partition: *partition,
    }
}

fn is_true(value: Option<&String>) -> bool {
    value.is_some_and(|value| value == "true")
}

fn listed(process: &StaticProcess) -> (String, Child) {
    let StaticProcess { name, config, labels, node_name } = process.clone();
    let listed_labels = labels.keys().cloned().collect();
    (name, Child { config, labels, pin: node_name, listed_labels })
}

/// The keys of the labels that an object has from its hub's list.
pub(super) fn listed_labels(object: &HubProcess) -> BTreeSet<String> {
    let noted = object.annotations().get(annotation::LISTED_LABELS);
    let keys = noted.map(String::as_str).unwrap_or_default().split(',').filter(|key| !key.is_empty());
    keys.map(str::to_owned).collect()
}

fn wanted_names(hub: &plan::Hub) -> impl Iterator<Item = String> {
    let replicas = (0..hub.replicas).map(|ordinal| replica(&hub.name, ordinal));
    replicas.chain(hub.listed.keys().cloned())
}

#[cfg(test)]
#[path = "observe_tests.rs"]
mod tests;

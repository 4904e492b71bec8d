//! Reads: what the watches hold, live where that says too little, and the sidecars themselves. Decides nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use processhub_crds::vocabulary::annotation;
use processhub_crds::{HubProcess, ProcessHub};
use processhub_protocol::handover::ReplicasSeen;
use processhub_protocol::id::PodUid;
use processhub_protocol::ledger::{Ledger, PodRef};
use processhub_protocol::wire::{CONTROL_PORT, RefusalCode, Report, VERSION};
use tokio::time::Instant;

use super::incarnation::PodFacts;
use super::memory::{Gone, Memory};
use super::observation::{Observation, Sighting};
use super::proof::{Evidence, GoneEvidence, NodeEvidence, prove};
use super::tenure::Lapsed;
use super::{Hubs, pod};
use crate::assignments::{Assignment, HubKey};
use crate::call::{self, CallError};
use crate::context::Context;
use crate::credentials::Key;
use crate::sidecar_client::{Address, SidecarError};
use crate::transfer::{self, Sides};

/// How long a sidecar may take to say how it is. It answers from memory.
pub(crate) const REPORT_PATIENCE: Duration = Duration::from_millis(1000);
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
const NODE_LEASES: &str = "kube-node-lease";

/// Looks at a process.
///
/// # Errors
/// When the API server had to be asked and did not answer.
pub(crate) async fn observe(
    context: &Context,
    object: HubProcess,
    hubs: Hubs,
    ledger: Ledger,
    memory: &mut Memory,
) -> Result<Observation, CallError> {
    let mut seen = Observation {
        object,
        hub: hubs.hub,
        destination: hubs.destination,
        ledger,
        pods: BTreeMap::new(),
        absent: BTreeSet::new(),
        reports: BTreeMap::new(),
        dead: BTreeMap::new(),
        routed_to: None,
        assignment: None,
        leading: context.leadership.valid(),
        now: Timestamp::now(),
        trouble: memory.trouble.clone(),
        heard: memory.heard,
        lapsed: Lapsed::default(),
        replicas: ReplicasSeen::default(),
    };
    let name = seen.name();
    seen.pods = context
        .pods
        .of(&name)
        .into_iter()
        .map(|facts| (facts.name.clone(), Sighting { facts, live: false }))
        .collect();
    seen.routed_to = context.routes.of(&name).and_then(|routed| seen.points_at(routed));
    seen.assignment = assignment(context, &seen);
    let pods = seen.pods.values().map(|seen| &*seen.facts);
    seen.lapsed = memory.leases.look(&seen.ledger, pods, Instant::now());
    find_missing(context, &mut seen, memory).await?;
    prove_all(context, &mut seen, memory).await?;
    ask(context, &mut seen).await?;
    if seen.owner_report().is_some() {
        memory.heard = Some(seen.now);
        seen.heard = memory.heard;
    }
    Ok(seen)
}

/// What the planners want of a process, now.
pub(crate) fn assignment(context: &Context, seen: &Observation) -> Option<Assignment> {
    let said = |hub: &str| {
        let key = HubKey { namespace: seen.name().namespace, name: hub.to_owned() };
        context.board.assignment(&key, &seen.uid())
    };
    let holder = transfer::holder(&seen.object);
    let sides = Sides {
        from: Some(&*seen.hub).filter(|hub| hub.name_any() == holder),
        home: said(holder),
        to: seen.destination.as_deref(),
        away: transfer::destination(&seen.object).and_then(said),
    };
    sides.assignment(&seen.object, &context.options.class)
}

/// The incarnations that the ledger names, as far as their UIDs are known.
fn named(seen: &Observation) -> Vec<PodRef> {
    let owner = seen.ledger.owner.as_ref().map(|owner| owner.pod.clone());
    let mut named: Vec<PodRef> = seen.source().cloned().into_iter().chain(owner).collect();
    named.dedup();
    named
}

/// A cache that does not hold a pod proves nothing: looks for it live, and notes since when it is gone.
async fn find_missing(
    context: &Context,
    seen: &mut Observation,
    memory: &mut Memory,
) -> Result<(), CallError> {
    let named = named(seen);
    memory.gone.retain(|uid, _| named.iter().any(|pod| pod.uid == *uid));
    for pod in named {
        if seen.pod(&pod.uid).is_some() {
            memory.gone.remove(&pod.uid);
            continue;
        }
        match read_pod(context, seen, &pod.name).await? {
            Some(facts) if facts.uid == pod.uid => {
                seen.pods.insert(pod.name, Sighting { facts: Arc::new(facts), live: true });
            }
            _ => {
                let gone = Gone { since: Instant::now(), first_renewal: None, renewed: false };
                memory.gone.entry(pod.uid).or_insert(gone);
            }
        }
    }
    Ok(())
}

/// Reads one pod of the process's namespace from the API server itself.
pub(crate) async fn read_pod(
    context: &Context,
    seen: &Observation,
    name: &str,
) -> Result<Option<PodFacts>, CallError> {
    let pods = Api::<Pod>::namespaced(context.client.clone(), &seen.name().namespace);
    let found = call::optional(call::api("read pod", pods.get(name)).await)?;
    Ok(found.map(|pod| PodFacts::of(&pod).unwrap_or_else(|| PodFacts::stranger(&pod))))
}

async fn prove_all(context: &Context, seen: &mut Observation, memory: &mut Memory) -> Result<(), CallError> {
    let confirmed = seen.annotation(annotation::CONFIRMED_DEAD).map(str::to_owned);
    let mut nodes = BTreeMap::new();
    let mut proofs = Vec::new();
    for Sighting { facts, .. } in seen.pods.values() {
        let node = node_evidence(context, facts.node.as_deref(), &mut nodes).await?;
        let confirmed = confirmed.as_deref();
        let evidence = Evidence { pod: &facts.uid, facts: Some(&**facts), node, confirmed, gone: None };
        proofs.extend(prove(&evidence).map(|proof| (facts.uid.clone(), proof)));
    }
    // The longer one where two hubs have pods of the process.
    let hubs = [Some(&seen.hub), seen.destination.as_ref()].into_iter().flatten();
    let grace = hubs.map(|hub| pod::grace(hub)).max().unwrap_or_default();
    for pod in named(seen) {
        let Some(gone) = memory.gone.get_mut(&pod.uid) else { continue };
        let node = node_evidence(context, Some(&pod.node), &mut nodes).await?;
        let ended = context.pods.had_ended(&pod.uid);
        let waited = GoneEvidence { for_: gone.since.elapsed(), grace, ended, renewed: gone.renewed };
        if !ended && waited.waited() && !gone.renewed {
            watch_kubelet(context, &pod.node, gone).await?;
        }
        let evidence = Evidence {
            pod: &pod.uid,
            facts: None,
            node,
            confirmed: confirmed.as_deref(),
            gone: Some(GoneEvidence { renewed: gone.renewed, ..waited }),
        };
        proofs.extend(prove(&evidence).map(|proof| (pod.uid.clone(), proof)));
    }
    seen.dead.extend(proofs);
    Ok(())
}

pub(crate) async fn node_evidence(
    context: &Context,
    name: Option<&str>,
    known: &mut BTreeMap<String, NodeEvidence>,
) -> Result<NodeEvidence, CallError> {
    let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(NodeEvidence::Unknown) };
    if let Some(evidence) = known.get(name) {
        return Ok(*evidence);
    }
    let evidence = match context.stores.nodes.get(&ObjectRef::new(name)) {
        Some(node) => present(&node),
        // The cache does not hold it. That destroys nothing before a live read agrees.
        None => {
            let nodes = Api::<Node>::all(context.client.clone());
            match call::optional(call::api("read Node", nodes.get(name)).await)? {
                Some(node) => present(&node),
                None => NodeEvidence::Deleted,
            }
        }
    };
    known.insert(name.to_owned(), evidence);
    Ok(evidence)
}

fn present(node: &Node) -> NodeEvidence {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    let out_of_service = taints.is_some_and(|taints| taints.iter().any(|taint| taint.key == OUT_OF_SERVICE));
    NodeEvidence::Present { out_of_service }
}

/// Two different renewals seen after the wait: the kubelet works, by this operator's own observation and no clock of
/// the node's.
async fn watch_kubelet(context: &Context, node: &str, gone: &mut Gone) -> Result<(), CallError> {
    let leases = Api::<Lease>::namespaced(context.client.clone(), NODE_LEASES);
    let lease = call::optional(call::api("read node's Lease", leases.get(node)).await)?;
    let renewal = lease.and_then(|lease| Some(lease.spec?.renew_time?.0.to_string()));
    match (&gone.first_renewal, renewal) {
        (None, found) => gone.first_renewal = found,
        (Some(first), Some(found)) => gone.renewed = *first != found,
        (Some(_), None) => {}
    }
    Ok(())
}

/// Asks the sidecars of all incarnations that the ledger names, at the same time.
async fn ask(context: &Context, seen: &mut Observation) -> Result<(), CallError> {
    let mut to_ask: Vec<PodUid> = named(seen).into_iter().map(|pod| pod.uid).collect();
    to_ask.extend(seen.target_uid().cloned());
    to_ask.sort();
    to_ask.dedup();
    to_ask.retain(|uid| !seen.dead.contains_key(uid));
    // Also before there is a pod: it would not start without.
    context.key(&seen.hub).await?;
    let mut addresses = Vec::new();
    for uid in to_ask {
        let Some(ip) = seen.ip(&uid) else { continue };
        match key_of(context, seen, &uid).await {
            Ok(key) => {
                addresses.push((Address { ip, port: CONTROL_PORT, token: key.token(&uid) }, uid));
            }
            // The key went with its hub, which the process was leaving: that pod takes no command any more.
            Err(CallError::NotFound { .. }) => tracing::warn!(pod = %uid, "the key of its hub is gone"),
            Err(error) => return Err(error),
        }
    }
    let questions = addresses.into_iter().map(|(address, uid)| async move {
        let answer = context.sidecars.report(&address, REPORT_PATIENCE).await;
        (uid, answer)
    });
    let answers = join_all(questions).await;
    for (uid, answer) in answers {
        match answer {
            Ok(report) => take_in(seen, &uid, report),
            Err(SidecarError::Refused { refusal, .. }) if refusal.code == RefusalCode::Unauthenticated => {
                tracing::warn!(pod = %uid, "the sidecar refuses the hub's key; the Secret is read again");
                // One of a hub that is gone could not be read again.
                if let Some(hub) = seen.hub_named(&seen.hub_of(&uid)) {
                    context.credentials.forget(&hub_key(hub));
                }
            }
            Err(error) => tracing::debug!(pod = %uid, %error, "no report"),
        }
    }
    Ok(())
}

/// The key by which this incarnation takes commands: that of the hub whose pod it is.
pub(crate) async fn key_of(
    context: &Context,
    seen: &Observation,
    uid: &PodUid,
) -> Result<Arc<Key>, CallError> {
    let name = seen.hub_of(uid);
    match seen.hub_named(&name) {
        Some(hub) => context.key(hub).await,
        None => context.credentials.read(&HubKey { namespace: seen.name().namespace, name }).await,
    }
}

/// A report counts only for the incarnation that was asked: an address may have been given to another pod.
pub(crate) fn take_in(seen: &mut Observation, asked: &PodUid, report: Report) {
    if report.protocol > VERSION {
        // What a newer sidecar means by its words is not known here: it is as if it did not answer.
        tracing::error!(pod = %asked, protocol = report.protocol, "the sidecar is newer than this operator");
    } else if report.pod == *asked && report.process == seen.uid() {
        seen.reports.insert(asked.clone(), report);
    } else {
        tracing::warn!(pod = %asked, answered = %report.pod, "another pod answers at the address of this one");
    }
}

/// The key of a hub.
pub(crate) fn hub_key(hub: &ProcessHub) -> HubKey {
    HubKey { namespace: hub.namespace().unwrap_or_default(), name: hub.name_any() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::observation::tests::{report, seen};
    use crate::process::record::tests::started;

    #[test]
    fn only_the_incarnation_that_was_asked_is_believed_and_only_in_words_that_are_known() {
        let uid = PodUid::from("pod-1");
        let mut seen = seen(&started(), 0);
        take_in(&mut seen, &uid, report("pod-2", 1));
        assert!(seen.reports.is_empty(), "its address was given to another pod");
        take_in(&mut seen, &uid, Report { process: "older".into(), ..report("pod-1", 1) });
        assert!(seen.reports.is_empty(), "a pod of an older object");
        take_in(&mut seen, &uid, Report { protocol: VERSION + 1, ..report("pod-1", 1) });
        assert!(seen.reports.is_empty(), "a newer sidecar");
        take_in(&mut seen, &uid, report("pod-1", 1));
        assert!(seen.owner_report().is_some());
    }
}

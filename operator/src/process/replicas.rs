//! Holders of replicas: chooses them for an owner that serves, and asks them for one that is lost.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use processhub_protocol::handover::{HolderSeen, replication};
use processhub_protocol::id::{Epoch, PodUid};
use processhub_protocol::ledger::PodRef;
use processhub_protocol::replica::{Replicate, Seal};
use processhub_protocol::wire::{CONTROL_PORT, Peer, Token};
use tokio::time::Instant;

use super::commands::{addressee, grant, missing};
use super::incarnation::PodFacts;
use super::memory::Memory;
use super::observation::Observation;
use super::proof::NodeEvidence;
use super::{apply, observe};
use crate::assignments::HubKey;
use crate::call::CallError;
use crate::context::Context;
use crate::plan;
use crate::sidecar_client::Address;

/// A holder that has not done as it was asked for so long is replaced, if there is another.
const FAILING: Duration = Duration::from_millis(500);
/// For how long one that was replaced for that is not chosen again.
const AVOIDED: Duration = Duration::from_secs(30);
/// How often it is looked for holders where there are fewer than wanted: through all pods of the hub.
const SEARCH: Duration = Duration::from_secs(5);
/// How long a holder may take to say what it has.
const PATIENCE: Duration = Duration::from_millis(1000);
/// A choice, a set that is told, one that is settled: more is not to be done at once.
const MAX_STEPS: usize = 4;

/// What is remembered of the holders of one process.
#[derive(Debug, Default)]
pub(crate) struct Replicas {
    /// Those that failed, their nodes, and when.
    avoided: BTreeMap<PodUid, (String, Instant)>,
    /// When holders were last looked for.
    searched: Option<Instant>,
}

/// Brings the replicas of an owner that serves on, whatever else is done.
///
/// # Errors
/// [`CallError::Conflict`] when the ledger is another one by now; anything else is tried again at the next look.
pub(super) async fn bring_on(
    context: &Context,
    seen: &mut Observation,
    memory: &mut Memory,
) -> Result<(), CallError> {
    for _ in 0..MAX_STEPS {
        seen.replicas.choice = choose(context, seen, &mut memory.replicas);
        let Some(effect) = replication(&seen.view()) else { return Ok(()) };
        let name = effect.name();
        match apply::apply(context, seen, memory, effect).await {
            Ok(()) => {}
            Err(error @ CallError::Conflict { .. }) => return Err(error),
            Err(error) => {
                tracing::warn!(effect = name, %error, "the replicas were not brought on");
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Who is to hold the replicas; `None` of an owner that has none or does not answer.
fn choose(context: &Context, seen: &Observation, memory: &mut Replicas) -> Option<Vec<PodRef>> {
    let owner = seen.ledger.owner.as_ref()?;
    let view = seen.owner_report()?.replicas.as_ref()?;
    let now = Instant::now();
    let failing = |milliseconds: Option<u64>| {
        milliseconds.is_some_and(|milliseconds| Duration::from_millis(milliseconds) >= FAILING)
    };
    let present = seen.ledger.replicas.in_force().unwrap_or_default();
    for holder in view.holders.iter().filter(|holder| failing(holder.failing_milliseconds)) {
        let node = present.iter().find(|pod| pod.uid == holder.pod).map(|pod| pod.node.clone());
        memory.avoided.insert(holder.pod.clone(), (node.unwrap_or_default(), now));
    }
    memory.avoided.retain(|_, (_, since)| now.saturating_duration_since(*since) < AVOIDED);
    let stays = |facts: &PodFacts| {
        !facts.going() && !facts.ended && facts.ip.is_some() && !memory.avoided.contains_key(&facts.uid)
    };
    let wanted = seen.hub.spec.checkpoint.replicas as usize;
    let namespace = seen.name().namespace;
    let fit: Vec<PodRef> = present
        .iter()
        .filter(|pod| context.pods.find(&namespace, pod).is_some_and(|facts| stays(&facts)))
        .cloned()
        .collect();
    let process = seen.name().name;
    let choose = |fit: &[PodRef]| plan::holders(&process, &owner.pod.node, wanted, present, fit);
    let chosen = choose(&fit);
    let known = seen.ledger.replicas.in_force().is_some() && chosen == present;
    let waits = memory.searched.is_some_and(|at| now.saturating_duration_since(at) < SEARCH);
    if chosen.len() == wanted || (known && waits) {
        return Some(chosen);
    }
    memory.searched = Some(now);
    let uid = seen.uid();
    let others = context.pods.of_hub(&namespace, &super::observe::hub_key(&seen.hub).name);
    let others = others.iter().filter(|facts| facts.process != uid && facts.ready && stays(facts));
    let more = others.filter_map(|facts| reference(facts)).filter(|pod| !fit.contains(pod));
    // Where one fails its whole node may be gone, which nobody else has noticed yet.
    let failing = |pod: &PodRef| memory.avoided.values().any(|(node, _)| *node == pod.node);
    let (last, mut all): (Vec<PodRef>, Vec<PodRef>) = more.partition(failing);
    all.extend(fit);
    let chosen = choose(&all);
    if chosen.len() == wanted {
        return Some(chosen);
    }
    all.extend(last);
    Some(choose(&all))
}

fn reference(facts: &PodFacts) -> Option<PodRef> {
    Some(PodRef { name: facts.name.clone(), uid: facts.uid.clone(), node: facts.node.clone()? })
}

/// What the owner is told: the set that is in the ledger.
pub(super) async fn command(
    context: &Context,
    seen: &Observation,
    uid: &PodUid,
    epoch: Epoch,
) -> Result<Replicate, CallError> {
    let mut holders = Vec::new();
    for pod in seen.ledger.replicas.in_force().unwrap_or_default() {
        holders.push(peer(context, seen, pod).await?);
    }
    let generation = seen.ledger.replicas.generation;
    Ok(Replicate { to: addressee(seen, uid), epoch, grant: grant(context, seen, uid)?, generation, holders })
}

/// A holder, as another sidecar is told of it.
pub(super) async fn peer(context: &Context, seen: &Observation, pod: &PodRef) -> Result<Peer, CallError> {
    let facts = context.pods.find(&seen.name().namespace, pod);
    let facts = facts.ok_or_else(|| missing("replicate", "the pod of a holder"))?;
    let address = address(context, &facts).await?;
    let peer = Peer::of_this_hub(pod.uid.clone(), address.ip, CONTROL_PORT);
    Ok(Peer { token: Some(Token(address.token)), ..peer })
}

/// A holder takes commands by the key of its own hub.
async fn address(context: &Context, facts: &PodFacts) -> Result<Address, CallError> {
    let ip = facts.ip.clone().ok_or_else(|| missing("replica", "the holder's address"))?;
    let hub = HubKey { namespace: facts.namespace.clone(), name: facts.hub.clone() };
    let key = match context.hub(&hub) {
        Some(hub) => context.key(&hub).await?,
        None => context.credentials.read(&hub).await?,
    };
    Ok(Address { ip, port: CONTROL_PORT, token: key.token(&facts.uid) })
}

/// Has every holder that the ledger names refuse what is older than `epoch`, and notes what each has.
pub(super) async fn seal(context: &Context, seen: &mut Observation, epoch: Epoch) {
    let holders: Vec<PodRef> = seen.ledger.replicas.holders().into_iter().cloned().collect();
    let asked = holders.iter().map(|pod| ask(context, seen, pod, epoch));
    let answers = join_all(asked).await;
    seen.replicas.holders = holders.into_iter().map(|pod| pod.uid).zip(answers).collect();
    seen.replicas.given_up = waited_long_enough(seen, Timestamp::now());
}

/// Half of the move's time: what is left of it is for what can be had.
fn waited_long_enough(seen: &Observation, now: Timestamp) -> bool {
    let migration = seen.object.status.as_ref().and_then(|status| status.migration.as_ref());
    let half = SignedDuration::try_from(Duration::from_secs(seen.hub.spec.migration.deadline_seconds) / 2);
    let (Some(migration), Ok(half)) = (migration, half) else { return false };
    now.duration_since(migration.start_time.0) >= half
}

async fn ask(context: &Context, seen: &Observation, pod: &PodRef, epoch: Epoch) -> HolderSeen {
    let facts = match context.pods.find(&seen.name().namespace, pod) {
        Some(facts) => facts,
        // A cache that does not hold it proves nothing.
        None => match observe::read_pod(context, seen, &pod.name).await {
            Ok(Some(facts)) if facts.uid == pod.uid => facts.into(),
            Ok(_) => return HolderSeen::Gone,
            Err(_) => return HolderSeen::Silent,
        },
    };
    let answer = match address(context, &facts).await {
        Ok(address) => {
            let seal = Seal { process: seen.uid(), epoch };
            context.sidecars.seal_replica(&address, &seal, PATIENCE).await.map_err(CallError::from)
        }
        Err(error) => Err(error),
    };
    match answer {
        Ok(sealed) if sealed.pod == pod.uid && sealed.process == seen.uid() => HolderSeen::Sealed(sealed),
        Ok(_) => HolderSeen::Gone,
        Err(error) => {
            tracing::warn!(holder = %pod.uid, %error, "a holder does not say what it has");
            if facts.ended || lost(context, &facts).await { HolderSeen::Gone } else { HolderSeen::Silent }
        }
    }
}

/// Whether its node is gone, by somebody's word.
async fn lost(context: &Context, facts: &PodFacts) -> bool {
    let evidence = observe::node_evidence(context, facts.node.as_deref(), &mut BTreeMap::new()).await;
    matches!(evidence, Ok(NodeEvidence::Deleted | NodeEvidence::Present { out_of_service: true }))
}

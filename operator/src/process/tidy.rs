//! What follows the steps of a reconcile: pods that belong to nothing any more, wishes that are done, conditions that
//! are not what they should be, and what the planner has to know.

use std::time::Duration;

use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use processhub_crds::HubProcess;
use processhub_crds::conditions::{self, Wanted};
use processhub_crds::vocabulary::{EventReason, ProcessCondition, ProcessReason};
use processhub_protocol::handover::{self, Waiting};
use processhub_protocol::id::PodUid;
use serde_json::json;
use tokio::time::Instant;

use super::incarnation::PodFacts;
use super::memory::Memory;
use super::observation::Observation;
use super::wish::Settled;
use super::{Done, apply, facts, pace, record, status, tell, wish, write};
use crate::call::{self, CallError};
use crate::context::Context;
use crate::failpoint::Point;

/// How long the conditions may be out of date before they are written by themselves: what a move passes through in
/// less is not worth a write.
const SETTLE: Duration = Duration::from_secs(1);

/// Returns how long to wait before looking again.
pub(super) async fn after(
    context: &Context,
    mut seen: Observation,
    memory: &mut Memory,
    done: Done,
) -> Result<Duration, CallError> {
    let mut pause = done.pause.unwrap_or_else(|| pace::pace(&seen, done.waiting));
    if done.waiting != Waiting::Leadership {
        tell_risks(context, &seen, memory, done.waiting);
        remove_wishes(context, &mut seen, memory).await?;
        delete_orphans(context, &seen, done.waiting).await?;
        pause = pause.min(write_conditions(context, &mut seen, memory, done.waiting).await?);
    }
    context.board.report(facts::facts(&seen, done.waiting));
    Ok(pause)
}

/// The object names a hub that is not there (yet): it says so, and nothing else is done for it.
pub(super) async fn without_hub(
    context: &Context,
    mut object: HubProcess,
    memory: &mut Memory,
) -> Result<Duration, CallError> {
    let message = format!("there is no ProcessHub {} in this namespace; create it", object.spec.hub_name);
    let generation = object.metadata.generation;
    let wanted = Wanted::process(ProcessCondition::Ready, false, ProcessReason::HubNotFound, &message);
    let status = object.status.get_or_insert_default();
    let now = k8s_openapi::jiff::Timestamp::now();
    if conditions::set(&mut status.conditions, wanted.observed(generation), now) {
        let write = write::replace_status(context, &object);
        match context.failpoints.pass(Point::WriteConditions, write).await {
            Ok(written) => memory.wrote(&written),
            // Somebody else wrote; the watch wakes us with it.
            Err(CallError::Conflict { .. } | CallError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(pace::RESYNC)
}

/// Says once what a person should hear at once.
fn tell_risks(context: &Context, seen: &Observation, memory: &mut Memory, waiting: Waiting) {
    let about = || seen.object.object_ref(&());
    if let Some(words) = status::at_risk(seen) {
        let epoch = Some(seen.ledger.epoch.0);
        if memory.risk_told != epoch {
            memory.risk_told = epoch;
            context.events.warning(about(), EventReason::StateAtRisk, &words);
        }
    }
    let silent = waiting == Waiting::OwnerUnreachable;
    if silent && memory.stale_since.is_some_and(|since| since.elapsed() >= SETTLE) && !memory.silence_told {
        memory.silence_told = true;
        let owner = seen.ledger.owner.as_ref().map_or("?", |owner| owner.pod.name.as_str());
        let words = format!("pod {owner} does not answer and is not proven dead; it may still serve");
        context.events.warning(about(), EventReason::OwnerUnreachable, &words);
    } else if !silent {
        memory.silence_told = false;
    }
}

/// Removes the wishes that are done or cannot be followed. Those of a move are removed before the move ends: afterwards
/// nothing on the object would tell them from new ones.
pub(super) async fn remove_wishes(
    context: &Context,
    seen: &mut Observation,
    memory: &mut Memory,
) -> Result<(), CallError> {
    for settled in wish::settled(seen) {
        remove_wish(context, seen, memory, &settled).await?;
    }
    Ok(())
}

async fn remove_wish(
    context: &Context,
    seen: &mut Observation,
    memory: &mut Memory,
    settled: &Settled,
) -> Result<(), CallError> {
    let namespace = seen.name().namespace;
    let processes = Api::<HubProcess>::namespaced(context.client.clone(), &namespace);
    // With the version that was seen: a wish that was changed meanwhile is another wish.
    let patch = json!({ "metadata": {
        "resourceVersion": seen.object.resource_version(),
        "uid": seen.object.uid(),
        "annotations": { settled.annotation: null },
    } });
    let name = seen.object.name_any();
    let (parameters, patch) = (PatchParams::default(), Patch::Merge(&patch));
    let removed = processes.patch(&name, &parameters, &patch);
    match context.failpoints.pass(Point::RemoveWish, call::api("remove wish", removed)).await {
        Ok(object) => {
            memory.wrote(&object);
            let kept = seen.object.status.take();
            seen.object = object;
            seen.object.status = kept;
        }
        // Looked at again with the next event.
        Err(CallError::Conflict { .. } | CallError::NotFound { .. }) => return Ok(()),
        Err(error) => return Err(error),
    }
    if let Some(why) = &settled.refused {
        let words = format!("{}={}: {why}", settled.annotation, settled.value);
        context.events.warning(seen.object.object_ref(&()), EventReason::WishRefused, &words);
    }
    Ok(())
}

/// Deletes pods of this object that the ledger names no more, after it was read live.
async fn delete_orphans(context: &Context, seen: &Observation, waiting: Waiting) -> Result<(), CallError> {
    if waiting == Waiting::HistoryRewound {
        return Ok(());
    }
    let uid = seen.uid();
    let stray = |pod: &PodFacts| handover::stray(&seen.ledger, &pod.uid, &pod.name, pod.epoch);
    let orphans: Vec<PodUid> = seen
        .pods
        .values()
        .map(|pod| &*pod.facts)
        .filter(|pod| pod.process == uid && !pod.going() && stray(pod))
        .map(|pod| pod.uid.clone())
        .collect();
    if orphans.is_empty() {
        return Ok(());
    }
    let processes = Api::<HubProcess>::namespaced(context.client.clone(), &seen.name().namespace);
    let live = call::api("read HubProcess", processes.get(&seen.object.name_any())).await?;
    let ledger = record::read(&live.status.unwrap_or_default());
    if live.metadata.uid != seen.object.metadata.uid || ledger.as_ref() != Ok(&seen.ledger) {
        return Ok(());
    }
    for orphan in orphans {
        tracing::info!(pod = %orphan, "deleting a pod that belongs to no move");
        let deleted = apply::delete_pod(context, seen, &orphan);
        context.failpoints.pass(Point::DeleteOrphan, deleted).await?;
    }
    Ok(())
}

/// What a worker's crash took is on the object before anything is done on the strength of the report that says so: the
/// sidecar that knows may be gone by the next look (rule 10).
pub(super) async fn show_loss(
    context: &Context,
    seen: &mut Observation,
    memory: &mut Memory,
) -> Result<(), CallError> {
    let mut wanted = seen.clone();
    if !seen.leading || !status::note_crash(&mut wanted) {
        return Ok(());
    }
    let write = write::replace_status(context, &wanted.object);
    let written = context.failpoints.pass(Point::WriteConditions, write).await?;
    memory.wrote(&written);
    tell_loss(context, seen, &written);
    seen.object = written;
    Ok(())
}

fn tell_loss(context: &Context, seen: &Observation, written: &HubProcess) {
    let missing = |object: &HubProcess| object.status.as_ref().and_then(|status| status.may_miss.clone());
    if let Some(news) = missing(written).filter(|news| missing(&seen.object).as_ref() != Some(news)) {
        let words = format!("changes from {} on may be missing: {}", news.from, news.reason);
        context.events.warning(written.object_ref(&()), EventReason::StateLost, &words);
    }
}

/// Writes conditions that have been out of date for a while; returns when to look again for it.
async fn write_conditions(
    context: &Context,
    seen: &mut Observation,
    memory: &mut Memory,
    waiting: Waiting,
) -> Result<Duration, CallError> {
    let mut wanted = seen.clone();
    if !status::refresh(&mut wanted, waiting, status::Outlook::Observed) {
        memory.stale_since = None;
        return Ok(pace::RESYNC);
    }
    let since = *memory.stale_since.get_or_insert_with(Instant::now);
    let left = SETTLE.saturating_sub(since.elapsed());
    if !left.is_zero() {
        return Ok(left);
    }
    let write = write::replace_status(context, &wanted.object);
    match context.failpoints.pass(Point::WriteConditions, write).await {
        Ok(written) => {
            memory.stale_since = None;
            memory.wrote(&written);
            tell_loss(context, seen, &written);
            tell::limit(context, &seen.object, &written);
            seen.object = written;
            Ok(pace::RESYNC)
        }
        // Decided on an older version: the watch brings the newer one.
        Err(CallError::Conflict { .. } | CallError::NotFound { .. }) => Ok(SETTLE),
        Err(error) => Err(error),
    }
}

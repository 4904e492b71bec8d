//! Writes the ledger, with the conditions that go with it.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, ResourceExt};
use processhub_crds::vocabulary::MoveReason;
use processhub_crds::{HubProcess, MigrationTrigger};
use processhub_protocol::handover::Waiting;
use processhub_protocol::ledger::{Kind, MoveResult, Transition};
use tokio::time::Instant;

use super::commands::{address, missing};
use super::memory::Memory;
use super::observation::Observation;
use super::{observe, record, status, tell};
use crate::call::{self, CallError};
use crate::context::Context;
use crate::failpoint::Point;
use crate::{revision, transfer};

/// How long the end of a move waits for the length of its blackout, and between two questions for it. Nobody's requests
/// wait meanwhile.
const MEASURING: Duration = Duration::from_secs(1);
const MEASURING_PAUSE: Duration = Duration::from_millis(10);

/// Writes the ledger's next state, with the conditions that go with it, by compare-and-swap.
pub(super) async fn write(
    context: &Context,
    seen: &mut Observation,
    memory: &mut Memory,
    point: Point,
    transition: &Transition,
) -> Result<(), CallError> {
    if matches!(transition, Transition::End { result: MoveResult::Succeeded }) {
        measure(context, seen).await;
    }
    let around = circumstances(seen, transition);
    let next = record::write(&seen.status(), transition, &around)
        .ok_or_else(|| missing("write", "a ledger that this transition applies to"))?;
    let ended = seen.object.status.as_ref().and_then(|status| status.migration.clone());
    let mut after = seen.clone();
    after.ledger = record::read(&next).map_err(|unknown| missing("write", &unknown.to_string()))?;
    after.object.status = Some(next);
    after.enter();
    // What holders said was asked for another epoch.
    after.replicas.holders.clear();
    let waiting = after_write(transition).unwrap_or_else(|| after.decide().waiting);
    status::refresh(&mut after, waiting, status::Outlook::Expected);
    let written = context.failpoints.pass(point, replace_status(context, &after.object)).await?;
    memory.wrote(&written);
    tell::limit(context, &seen.object, &written);
    after.object = written;
    after.age();
    *seen = after;
    tracing::info!(transition = point.as_str(), epoch = seen.ledger.epoch.0, "wrote the ledger");
    tell::transition(context, seen, transition, ended.as_ref());
    Ok(())
}

/// Asks the target before the move is forgotten until it says how long the blackout was: it learns that from the source,
/// after its own answer to the activation. Where the source goes anyway the move ends at once, and without the wait often
/// before that.
async fn measure(context: &Context, seen: &mut Observation) {
    let Some(uid) = seen.target_uid().cloned() else { return };
    let source = seen.ledger.migration.as_ref().and_then(|migration| migration.source.as_ref());
    if source.is_none_or(|source| seen.dead.contains_key(&source.uid)) {
        return;
    }
    let measured = |seen: &Observation| {
        seen.reports.get(&uid).is_some_and(|report| report.blackout_microseconds.is_some())
    };
    let Ok(to) = address(context, seen, &uid).await else { return };
    let until = Instant::now() + MEASURING;
    while !measured(seen) && Instant::now() < until {
        tokio::time::sleep(MEASURING_PAUSE).await;
        let Ok(report) = context.sidecars.report(&to, observe::REPORT_PATIENCE).await else { return };
        observe::take_in(seen, &uid, report);
    }
}

/// What will be waited for once the transition is written: so that its conditions need no write of their own. `None` where
/// that does not depend on it.
fn after_write(transition: &Transition) -> Option<Waiting> {
    Some(match transition {
        Transition::Prepare { .. } => Waiting::TargetPod,
        Transition::Commit { .. } => Waiting::Retention,
        Transition::Abort { .. } => Waiting::Thawing,
        Transition::Fence => Waiting::LeaseEnd,
        Transition::Unfence => Waiting::Nothing,
        Transition::End { .. } => Waiting::Nothing,
        Transition::Replicate { .. } | Transition::Replicated => return None,
    })
}

/// Writes the status as it stands in `object`, at the version it was decided on.
pub(crate) async fn replace_status(context: &Context, object: &HubProcess) -> Result<HubProcess, CallError> {
    let namespace = object.namespace().unwrap_or_default();
    let processes = Api::<HubProcess>::namespaced(context.client.clone(), &namespace);
    let (name, parameters) = (object.name_any(), PostParams::default());
    let written = processes.replace_status(&name, &parameters, object);
    call::api("write status", written).await
}

fn circumstances(seen: &Observation, transition: &Transition) -> record::Circumstances {
    let source = seen.source();
    let target = seen.target_uid();
    let target_report = target.and_then(|uid| seen.reports.get(uid));
    let source_report = source.and_then(|pod| seen.reports.get(&pod.uid));
    let failure = [target_report, source_report].into_iter().flatten().find_map(|report| {
        let epoch = seen.ledger.migration.as_ref()?.epoch;
        report
            .failure
            .as_ref()
            .filter(|failure| failure.epoch == epoch)
            .map(|failure| failure.message.clone())
    });
    let carried = seen
        .ledger
        .migration
        .as_ref()
        .is_some_and(|migration| migration.source.is_some() && migration.kind != Kind::Start);
    let succeeded = matches!(transition, Transition::End { result: MoveResult::Succeeded });
    let blackout = target_report
        .and_then(|report| report.blackout_microseconds)
        .filter(|_| carried && succeeded)
        .map(|microseconds| (microseconds + 500) / 1000);
    let go = seen.assignment.as_ref().and_then(|assignment| assignment.go.as_ref());
    let trigger = match transition {
        Transition::Prepare { kind: Kind::Start, .. } => MigrationTrigger::Start,
        _ => go.map_or(MigrationTrigger::Recovery, |go| go.trigger),
    };
    let status = seen.object.status.as_ref();
    let moved_to = status.and_then(|status| Some(status.migration.as_ref()?.revision.as_str()));
    let target_hub = seen.target_hub().unwrap_or(&seen.hub);
    let to = revision::label(target_hub, moved_to.unwrap_or_default());
    let owner = status.and_then(|status| status.owner.as_ref());
    let from = owner.map_or_else(String::new, |owner| seen.label(&owner.revision));
    let vsn = revision::vsn(target_hub, moved_to.unwrap_or_default());
    let prepared = matches!(transition, Transition::Prepare { .. });
    let holder = || transfer::holder(&seen.object).to_owned();
    let into = status.and_then(|status| status.migration.as_ref()?.target.hub.clone());
    let said = target_report.map(|report| report.worker.vsn.clone()).unwrap_or_default();
    record::Circumstances {
        process: seen.object.name_any(),
        now: Timestamp::now(),
        deadline: Duration::from_secs(seen.hub.spec.migration.deadline_seconds),
        trigger,
        restarts: seen.hub.spec.worker.restarts.clone(),
        revision: go.map(|go| go.revision.clone()).unwrap_or_default(),
        versions: (from, to),
        source_ip: source.and_then(|pod| seen.ip(&pod.uid)),
        target_ip: target.and_then(|uid| seen.ip(uid)),
        target_vsn: if said.is_empty() { vsn } else { said },
        source_hub: source.map_or_else(holder, |pod| seen.hub_of(&pod.uid)),
        target_hub: if prepared { go.map(|go| go.hub.clone()) } else { into }.unwrap_or_else(holder),
        cancelled: if seen.is_unwanted_transfer() { MoveReason::HubChanged } else { MoveReason::Cancelled },
        stateless: target_report.is_some_and(|report| report.worker.can_hand_over == Some(false)),
        message: failure.or_else(|| status::target_words(seen)),
        blamed: status::blamed(seen),
        blackout_milliseconds: blackout,
    }
}

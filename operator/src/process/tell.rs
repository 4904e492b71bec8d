//! Tells what was written: events and metrics. Decides nothing.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use processhub_crds::vocabulary::{EventReason, ProcessCondition, ProcessReason};
use processhub_crds::{
    ActiveMigration, HubProcess, MigrationKind, MigrationRecord, MigrationResult, MigrationTrigger,
    conditions,
};
use processhub_protocol::ledger::{AbortReason, Transition};

use super::observation::Observation;
use crate::context::Context;
use crate::metrics::{ByHub, Ended, Recovered};

/// A transition was written; `before` is the move that was under way until then.
pub(crate) fn transition(
    context: &Context,
    seen: &Observation,
    transition: &Transition,
    before: Option<&ActiveMigration>,
) {
    let about = seen.object.object_ref(&());
    let status = seen.object.status.as_ref();
    match transition {
        Transition::Prepare { .. } => {
            let Some(now) = status.and_then(|status| status.migration.as_ref()) else { return };
            if now.kind == MigrationKind::Start {
                return;
            }
            let words = format!("{} begins: {}", now.kind, way(now));
            context.events.normal(about, EventReason::MigrationStarted, &words);
        }
        Transition::Commit { lost, .. } => {
            let missing = status.and_then(|status| status.may_miss.as_ref());
            if let (Some(_), Some(missing)) = (lost, missing) {
                let words = format!("changes from {} on may be missing: {}", missing.from, missing.reason);
                context.events.warning(about, EventReason::StateLost, &words);
            }
        }
        Transition::Abort { reason: AbortReason::Regrant } => {
            let words = "the owner had fenced itself and is granted again";
            context.events.normal(about, EventReason::Regranted, words);
        }
        Transition::Abort { .. } | Transition::Replicate { .. } | Transition::Replicated => {}
        Transition::Fence => {
            let words = "the owner does not answer; its lease is not renewed, and when it has ended the process is taken over";
            context.events.warning(about, EventReason::OwnerUnreachable, words);
        }
        Transition::Unfence => {
            let words = "the owner answers again before it was taken over";
            context.events.normal(about, EventReason::Regranted, words);
        }
        Transition::End { .. } => {
            let last = status.and_then(|status| status.last_migration.as_ref());
            if let (Some(before), Some(last)) = (before, last)
                && before.epoch == last.epoch
            {
                ended(context, seen, last);
            }
        }
    }
}

fn ended(context: &Context, seen: &Observation, last: &MigrationRecord) {
    let about = seen.object.object_ref(&());
    let hub = super::observe::hub_key(&seen.hub);
    let reason = last.reason.map_or("", |reason| reason.as_str());
    let node = last.target.node.as_deref().unwrap_or("?");
    match (last.result, last.kind) {
        (MigrationResult::Succeeded, MigrationKind::Start) => {
            let words = format!("pod {} on {node} acknowledges", last.target.pod);
            context.events.normal(about, EventReason::ProcessStarted, &words);
        }
        (MigrationResult::Succeeded, MigrationKind::Recover) => {
            let words = format!("pod {} on {node} acknowledges", last.target.pod);
            context.events.normal(about, EventReason::Recovered, &words);
        }
        (MigrationResult::Succeeded, MigrationKind::HotSwap | MigrationKind::ColdSwap) => {
            let blackout =
                last.blackout_milliseconds.map_or(String::new(), |ms| format!(", blackout {ms} ms"));
            let words = format!("pod {} on {node} acknowledges{blackout}", last.target.pod);
            context.events.normal(about, EventReason::MigrationSucceeded, &words);
        }
        (MigrationResult::Aborted, _) => {
            let message = last.message.as_deref().unwrap_or("");
            let words = format!("the move to {node} was undone: {reason} {message}");
            context.events.warning(about, EventReason::MigrationAborted, &words);
        }
        (MigrationResult::Failed, _) => {
            let words = format!("the move to {node} failed and its source is lost: {reason}");
            context.events.warning(about, EventReason::MigrationFailed, &words);
        }
    }
    let labels = Ended {
        namespace: hub.namespace.clone(),
        hub: hub.name.clone(),
        result: last.result.to_string(),
        trigger: last.trigger.to_string(),
        reason: reason.to_owned(),
    };
    context.metrics.migrations_total.get_or_create(&labels).inc();
    if last.kind == MigrationKind::Recover && last.result == MigrationResult::Succeeded {
        let missing = seen.object.status.as_ref().and_then(|status| status.may_miss.as_ref());
        let loss = missing.map_or("none".to_owned(), |missing| missing.reason.to_string());
        let labels = Recovered { namespace: hub.namespace.clone(), hub: hub.name.clone(), loss };
        context.metrics.recoveries_total.get_or_create(&labels).inc();
    }
    let target = last.target.uid.as_ref().and_then(|uid| seen.reports.get(&uid.as_str().into()));
    if let (Some(_), Some(report)) = (last.blackout_milliseconds, target)
        && let Some(microseconds) = report.blackout_microseconds
    {
        let seconds = std::time::Duration::from_micros(microseconds).as_secs_f64();
        let labels = ByHub { namespace: hub.namespace, hub: hub.name };
        context.metrics.migration_blackout_seconds.get_or_create(&labels).observe(seconds);
    }
}

/// A status was written, with whatever write: says once that no further pod is started for a worker that crashes.
pub(crate) fn limit(context: &Context, before: &HubProcess, written: &HubProcess) {
    if let (None, Some(news)) = (limit_exceeded(before), limit_exceeded(written)) {
        context.events.warning(written.object_ref(&()), EventReason::RestartLimitExceeded, &news.message);
    }
}

fn limit_exceeded(object: &HubProcess) -> Option<&Condition> {
    let conditions = &object.status.as_ref()?.conditions;
    let progressing = conditions::get(conditions, ProcessCondition::Progressing.as_str())?;
    (progressing.reason == ProcessReason::RestartLimitExceeded.as_str()).then_some(progressing)
}

fn way(migration: &ActiveMigration) -> String {
    let to = migration.target.node.as_deref().unwrap_or("?");
    let hub = migration.target.hub.as_deref().filter(|_| migration.trigger == MigrationTrigger::Transfer);
    let hub = hub.map_or_else(String::new, |hub| format!(" to hub {hub}"));
    match migration.source.as_ref().and_then(|source| source.node.as_deref()) {
        Some(from) => format!("{from} to {to} ({}{hub})", migration.trigger),
        None => format!("on {to} ({})", migration.trigger),
    }
}

//! What a hub says of itself. Written only when it changed, and counts alone not more often than [`CALM`].

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, ResourceExt};
use processhub_crds::vocabulary::{EventReason, HubReason, label};
use processhub_crds::{HubMembers, ProcessHub, ProcessHubStatus, conditions};
use tokio::time::Instant;

use super::about;
use super::memory::Memory;
use super::observe::Seen;
use super::summary::Summary;
use super::template::Verdict;
use crate::call::{self, CallError};
use crate::context::Context;
use crate::failpoint::Point;
use crate::plan::Report;

/// Between two writes of a status in which no condition changed its status or reason.
const CALM: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::MAX;

/// What a status is made from.
pub(super) struct Sources<'a> {
    /// The hub.
    pub hub: &'a ProcessHub,
    /// What was observed.
    pub seen: &'a Seen,
    /// Whether it can be used.
    pub verdict: &'a Verdict,
    /// What was done and is waited for.
    pub report: &'a Report,
}

/// Writes the status if it has to be. Returns when to look again for the sake of it.
///
/// # Errors
/// Those of the API server.
pub(super) async fn write(
    context: &Context,
    sources: &Sources<'_>,
    memory: &mut Memory,
    now: Timestamp,
) -> Result<Duration, CallError> {
    let hub = sources.hub;
    let before = hub.status.clone().unwrap_or_default();
    let after = status(sources, now);
    if after == before {
        return Ok(LONG);
    }
    let urgent = before.observed_generation != after.observed_generation
        || outline(&before.conditions) != outline(&after.conditions);
    if !urgent && let Some(at) = memory.status_written {
        let left = CALM.saturating_sub(at.elapsed());
        if !left.is_zero() {
            return Ok(left);
        }
    }
    tell(context, sources, &before, &after);
    let mut object = hub.clone();
    object.metadata.managed_fields = None;
    object.status = Some(after);
    let hubs = Api::<ProcessHub>::namespaced(context.client.clone(), &hub.namespace().unwrap_or_default());
    let parameters = PostParams::default();
    let name = hub.name_any();
    let write = call::api("write hub status", hubs.replace_status(&name, &parameters, &object));
    let written = context.failpoints.pass(Point::HubStatus, write).await;
    memory.status_written = Some(Instant::now());
    // A hub that is gone needs no status.
    call::optional(written).map(|_| LONG)
}

/// The status that should stand there.
pub(super) fn status(sources: &Sources<'_>, now: Timestamp) -> ProcessHubStatus {
    let summary = Summary::of(sources);
    let hub = sources.hub;
    let generation = hub.metadata.generation;
    let mut status = ProcessHubStatus {
        observed_generation: generation,
        desired: sources.report.children.desired,
        ready: summary.ready,
        moving: summary.moving,
        replicas: sources.report.children.replicas,
        selector: format!("{}={}", label::HUB, hub.name_any()),
        members: HubMembers::new(sources.report.membership.targets.iter().cloned()),
        conditions: hub.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default(),
    };
    for wanted in summary.conditions(sources) {
        conditions::set(&mut status.conditions, wanted.observed(generation), now);
    }
    status
}

/// What of the conditions matters at once.
fn outline(conditions: &[Condition]) -> Vec<(&str, &str, &str)> {
    conditions.iter().map(|it| (it.type_.as_str(), it.status.as_str(), it.reason.as_str())).collect()
}

/// That state is dropped by every move was asked for; it is told when the hub says so for the first time.
fn tell(context: &Context, sources: &Sources<'_>, before: &ProcessHubStatus, after: &ProcessHubStatus) {
    let disabled = |status: &ProcessHubStatus| {
        conditions::get(&status.conditions, "Degraded")
            .is_some_and(|it| it.reason == HubReason::HandoverDisabled.as_str())
    };
    if disabled(after) && !disabled(before) {
        let note = "spec.migration.handover is false: every move drops the state of its process";
        context.events.warning(about(sources.hub), EventReason::HandoverDisabled, note);
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;

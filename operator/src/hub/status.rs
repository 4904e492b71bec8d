//! What a hub says of itself. Written only when it changed, and counts alone not more often than [`CALM`].

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, ResourceExt};
use processhub_crds::vocabulary::{EventReason, HubReason, label};
use processhub_crds::{HubMembers, ProcessHub, ProcessHubStatus, Revision, conditions, revisions};
use tokio::time::Instant;

use super::about;
use super::memory::Memory;
use super::observe::Seen;
use super::summary::{self, Summary};
use super::template::Verdict;
use crate::call::{self, CallError};
use crate::context::Context;
use crate::failpoint::Point;
use crate::plan::{Report, RolloutReport};
use crate::revision;

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
        || outline(&before.conditions) != outline(&after.conditions)
        || before.revisions != after.revisions;
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
        upgraded: sources.report.rollout.current,
        revisions: codes(sources),
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

/// Whether the status names the code of the present spec, or the spec cannot be used.
pub(super) fn code_is_known(sources: &Sources<'_>) -> bool {
    let present = revision::name(sources.hub);
    sources.verdict.hub.is_none() || revision::known(sources.hub).iter().any(|known| known.name == present)
}

/// The codes, with the templates of those that a process runs or is given.
fn codes(sources: &Sources<'_>) -> Vec<Revision> {
    let known = revision::known(sources.hub);
    if sources.verdict.hub.is_none() {
        return known.to_vec();
    }
    let statuses = sources.seen.objects.values().filter_map(|object| object.status.as_ref());
    let used: BTreeSet<&str> = statuses
        .flat_map(|status| {
            let runs = status.owner.as_ref().map(|owner| owner.revision.as_str());
            // An owner of before codes had names runs the first that was named.
            let first = known.first().map(|first| first.name.as_str());
            let runs = runs.and_then(|runs| if runs.is_empty() { first } else { Some(runs) });
            let gets = status.migration.as_ref().map(|migration| migration.revision.as_str());
            runs.into_iter().chain(gets)
        })
        .chain(
            sources
                .seen
                .arriving
                .values()
                .filter_map(|object| Some(object.status.as_ref()?.migration.as_ref()?.revision.as_str())),
        )
        .collect();
    revisions(known, &revision::present(sources.hub), |name| used.contains(name))
}

/// What of the conditions matters at once.
fn outline(conditions: &[Condition]) -> Vec<(&str, &str, &str)> {
    conditions.iter().map(|it| (it.type_.as_str(), it.status.as_str(), it.reason.as_str())).collect()
}

/// Tells what the hub says for the first time: that state is dropped by every move, as was asked for; that a roll-out has
/// stopped, or has come to its end.
fn tell(context: &Context, sources: &Sources<'_>, before: &ProcessHubStatus, after: &ProcessHubStatus) {
    let says = |status: &ProcessHubStatus, type_: &str, reason: HubReason| {
        conditions::get(&status.conditions, type_).is_some_and(|it| it.reason == reason.as_str())
    };
    let is_new = |type_, reason| says(after, type_, reason) && !says(before, type_, reason);
    let hub = || about(sources.hub);
    if is_new("Degraded", HubReason::HandoverDisabled) {
        let note = "spec.migration.handover is false: every move drops the state of its process";
        context.events.warning(hub(), EventReason::HandoverDisabled, note);
    }
    let rolling = says(before, "Progressing", HubReason::Upgrading);
    let RolloutReport { outdated, changing, runs, .. } = &sources.report.rollout;
    if is_new("Progressing", HubReason::UpgradeFailed) {
        let words = conditions::get(&after.conditions, "Progressing").map_or("", |it| &it.message);
        context.events.warning(hub(), EventReason::UpgradeFailed, words);
    } else if rolling && outdated + changing == 0 {
        context.events.normal(hub(), EventReason::Upgraded, &summary::who_runs_what(runs));
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;

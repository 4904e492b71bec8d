//! What the loop remembers of a hub between two looks at it.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use processhub_crds::ProcessHub;
use processhub_crds::vocabulary::EventReason;
use tokio::time::Instant;

use super::gauges::Gauges;
use super::template::Verdict;
use super::{about, key};
use crate::assignments::HubKey;
use crate::context::Context;
use crate::plan::{self, Report};

/// A hub of which everything changes all the time takes at most one part in so many of a processor.
const SHARE: u32 = 4;
/// The longest that a change waits for that reason.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// Of one hub.
#[derive(Default)]
pub(super) struct Memory {
    /// How restless the nodes were.
    pub plan: plan::Memory,
    /// The last template that was tried, and what came of it.
    pub tried: Option<(u64, Verdict)>,
    /// When the status was last written.
    pub status_written: Option<Instant>,
    members: Option<BTreeSet<String>>,
    busy_until: Option<Instant>,
    failures: u32,
    shown: Gauges,
}

impl Memory {
    /// How long to wait before the next look, so that a flood of small changes is answered by few plans.
    pub fn rest(&self) -> Option<Duration> {
        let left = self.busy_until?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// A pass has decided, which took so long; what it waits for at the API server costs nobody anything.
    pub fn decided(&mut self, took: Duration) {
        self.busy_until = Some(Instant::now() + took.saturating_mul(SHARE).min(LONGEST_REST));
    }

    /// A pass has ended well.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Shows the hub's gauges.
    pub fn show(&mut self, context: &Context, hub: &ProcessHub, gauges: Gauges) {
        gauges.show(&self.shown, &key(hub), &context.metrics);
        self.shown = gauges;
    }

    /// Tells who joined and left since the last plan. The first says nothing: nobody has joined by being there.
    pub fn tell_members(&mut self, context: &Context, hub: &ProcessHub, report: &Report) {
        let targets = &report.membership.targets;
        if let Some(before) = &self.members {
            for node in targets.difference(before) {
                context.events.normal(about(hub), EventReason::MemberJoined, &format!("{node} is a member"));
            }
            for node in before.difference(targets) {
                let why =
                    report.membership.others.get(node).map_or_else(|| "gone".to_owned(), ToString::to_string);
                let note = format!("{node} takes no processes any more: {why}");
                context.events.normal(about(hub), EventReason::MemberLeft, &note);
            }
        }
        self.members = Some(targets.clone());
    }
}

/// Of all hubs. A reconcile takes one out and puts it back: nobody else works on that hub.
#[derive(Default)]
pub(super) struct Memories(Mutex<HashMap<(HubKey, String), Memory>>);

impl Memories {
    pub fn take(&self, hub: &ProcessHub) -> Memory {
        self.lock().remove(&of(hub)).unwrap_or_default()
    }

    pub fn put(&self, hub: &ProcessHub, memory: Memory) {
        self.lock().insert(of(hub), memory);
    }

    /// Counts a failed pass; returns how many there were in a row before.
    pub fn failed(&self, hub: &ProcessHub) -> u32 {
        let mut all = self.lock();
        let memory = all.entry(of(hub)).or_default();
        let before = memory.failures;
        memory.failures = before.saturating_add(1);
        before
    }

    /// Forgets a hub that is gone, and takes its gauges away.
    pub fn remove(&self, hub: &HubKey, context: &Context) {
        self.lock().retain(|(key, _), memory| {
            if key == hub {
                memory.shown.hide(hub, &context.metrics);
            }
            key != hub
        });
    }

    /// Forgets everything: somebody else leads, and what was remembered grows old. What it shows is shown by them.
    pub fn forget_all(&self, context: &Context) {
        for ((hub, _), memory) in self.lock().drain() {
            memory.shown.hide(&hub, &context.metrics);
        }
    }

    /// Every change of the map is one insertion or removal, so that a poisoned lock holds a whole one all the same.
    fn lock(&self) -> MutexGuard<'_, HashMap<(HubKey, String), Memory>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// By UID as well: a new hub of the same name begins anew.
fn of(hub: &ProcessHub) -> (HubKey, String) {
    (key(hub), hub.metadata.uid.clone().unwrap_or_default())
}

//! The gauges of a hub: its processes by status, its moves by phase, and since when the oldest move is under way.

use std::collections::{BTreeMap, BTreeSet};

use processhub_crds::conditions::get;
use processhub_crds::vocabulary::ProcessCondition;

use super::observe::Seen;
use crate::assignments::{HubKey, MovingPhase};
use crate::metrics::{ByHub, InPhase, InStatus, Metrics};

/// What the gauges say of a hub.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Gauges {
    processes: BTreeMap<String, i64>,
    migrations: BTreeMap<&'static str, i64>,
    oldest: Option<i64>,
}

impl Gauges {
    /// Counts.
    pub fn of(seen: &Seen) -> Self {
        let mut gauges = Self::default();
        for object in seen.objects.values() {
            let Some(status) = &object.status else { continue };
            if let Some(ready) = get(&status.conditions, ProcessCondition::Ready.as_str()) {
                *gauges.processes.entry(ready.reason.clone()).or_default() += 1;
            }
            if let Some(migration) = &status.migration {
                let began = migration.start_time.0.as_second();
                gauges.oldest = Some(gauges.oldest.map_or(began, |oldest| oldest.min(began)));
            }
        }
        for process in seen.inputs.processes.values() {
            // Counted where it comes from.
            if let Some(moving) = process.moving().filter(|_| !process.arrives()) {
                *gauges.migrations.entry(phase(moving.phase)).or_default() += 1;
            }
        }
        gauges
    }

    /// Shows them; what was shown before and is not there any more is taken away.
    pub fn show(&self, before: &Self, hub: &HubKey, metrics: &Metrics) {
        for status in keys(&before.processes, &self.processes) {
            let labels = in_status(hub, status);
            match self.processes.get(status) {
                Some(count) => drop(metrics.processes.get_or_create(&labels).set(*count)),
                None => drop(metrics.processes.remove(&labels)),
            }
        }
        for phase in keys(&before.migrations, &self.migrations) {
            let labels = in_phase(hub, phase);
            match self.migrations.get(phase) {
                Some(count) => drop(metrics.migrations.get_or_create(&labels).set(*count)),
                None => drop(metrics.migrations.remove(&labels)),
            }
        }
        let oldest = self.oldest.unwrap_or(0);
        metrics.migration_oldest_start_timestamp_seconds.get_or_create(&by_hub(hub)).set(oldest);
    }

    /// Takes them away: the hub is gone.
    pub fn hide(&self, hub: &HubKey, metrics: &Metrics) {
        Self::default().show(self, hub, metrics);
        metrics.migration_oldest_start_timestamp_seconds.remove(&by_hub(hub));
    }
}

fn keys<'a, K: Ord, V>(before: &'a BTreeMap<K, V>, now: &'a BTreeMap<K, V>) -> BTreeSet<&'a K> {
    before.keys().chain(now.keys()).collect()
}

fn phase(phase: MovingPhase) -> &'static str {
    match phase {
        MovingPhase::Prepared => "Prepared",
        MovingPhase::Frozen => "Frozen",
        MovingPhase::Committed => "Committed",
        MovingPhase::Aborted => "Aborted",
    }
}

fn by_hub(hub: &HubKey) -> ByHub {
    ByHub { namespace: hub.namespace.clone(), hub: hub.name.clone() }
}

fn in_phase(hub: &HubKey, phase: &str) -> InPhase {
    InPhase { namespace: hub.namespace.clone(), hub: hub.name.clone(), phase: phase.to_owned() }
}

fn in_status(hub: &HubKey, status: &str) -> InStatus {
    InStatus { namespace: hub.namespace.clone(), hub: hub.name.clone(), status: status.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::plan::fixture::{Populate, inputs, moving};

    fn seen() -> Seen {
        let mut inputs = inputs(2, &["n1", "n2"]);
        inputs.serving("cart-0", "n1").moving = Some(moving("n1", "n2", MovingPhase::Frozen));
        inputs.serving("cart-1", "n2");
        let object = |name: &str, reason: &str| {
            let object = serde_json::from_value(json!({
                "apiVersion": "processhub.io/v1alpha1", "kind": "HubProcess",
                "metadata": { "name": name, "namespace": "shop" }, "spec": { "hubName": "cart" },
                "status": { "conditions": [{ "type": "Ready", "status": "True", "reason": reason, "message": "",
                                             "lastTransitionTime": "2026-01-01T00:00:00Z" }] },
            }));
            (name.to_owned(), Arc::new(object.unwrap()))
        };
        let objects = [object("cart-0", "Moving"), object("cart-1", "Serving")].into();
        Seen { inputs, objects, arriving: BTreeMap::new() }
    }

    #[test]
    fn what_is_no_more_is_taken_away_and_a_hub_that_is_gone_leaves_nothing() {
        let (metrics, hub) = (Metrics::default(), HubKey { namespace: "shop".into(), name: "cart".into() });
        let text = || metrics.text().unwrap();
        let first = Gauges::of(&seen());
        first.show(&Gauges::default(), &hub, &metrics);
        assert!(
            text().contains(r#"processhub_processes{namespace="shop",hub="cart",status="Moving"} 1"#),
            "{}",
            text()
        );
        assert!(text().contains(r#"phase="Frozen"} 1"#));
        let mut later = seen();
        later.objects.remove("cart-0");
        later.inputs.facts("cart-0").moving = None;
        let second = Gauges::of(&later);
        second.show(&first, &hub, &metrics);
        assert!(!text().contains("Moving") && !text().contains("Frozen"), "{}", text());
        assert!(text().contains(r#"status="Serving"} 1"#));
        second.hide(&hub, &metrics);
        assert!(!text().contains("shop"), "{}", text());
    }
}

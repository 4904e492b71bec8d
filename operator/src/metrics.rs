//! Metrics of the operator, `processhub_*`, labelled by hub. Those of one process are at its sidecar.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Bounds of the blackout's histogram in seconds: 1 ms to 30 s, narrow where the goal is (10 ms and 50 ms).
const BLACKOUT_BUCKETS: [f64; 14] =
    [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];

/// Labels of [`Metrics::migrations_total`].
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Ended {
    /// Namespace of the hub.
    pub namespace: String,
    /// Name of the hub.
    pub hub: String,
    /// How it ended.
    pub result: String,
    /// What caused it.
    pub trigger: String,
    /// Why it did not succeed; empty if it did.
    pub reason: String,
}

/// Labels by hub.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ByHub {
    /// Namespace of the hub.
    pub namespace: String,
    /// Name of the hub.
    pub hub: String,
}

/// Labels of [`Metrics::recoveries_total`].
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Recovered {
    /// Namespace of the hub.
    pub namespace: String,
    /// Name of the hub.
    pub hub: String,
    /// `none`, or why acknowledged requests may be missing.
    pub loss: String,
}

/// Labels by hub and one more word: the phase of a move, or the status of a process.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct InPhase {
    /// Namespace of the hub.
    pub namespace: String,
    /// Name of the hub.
    pub hub: String,
    /// Phase of the move.
    pub phase: String,
}

/// Labels of [`Metrics::processes`].
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct InStatus {
    /// Namespace of the hub.
    pub namespace: String,
    /// Name of the hub.
    pub hub: String,
    /// Reason of the condition `Ready`.
    pub status: String,
}

/// Labels of [`Metrics::effects_failed_total`].
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ByEffect {
    /// The effect.
    pub effect: String,
}

/// The metrics of one operator.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Moves under way, by phase. Hub loop.
    pub migrations: Family<InPhase, Gauge>,
    /// Moves that ended.
    pub migrations_total: Family<Ended, Counter>,
    /// Blackouts of the moves that succeeded, as the sidecars measured them.
    pub migration_blackout_seconds: Family<ByHub, Histogram>,
    /// When the oldest move under way began, in seconds since 1970; 0 for none. Hub loop.
    pub migration_oldest_start_timestamp_seconds: Family<ByHub, Gauge>,
    /// Processes by the reason of their condition `Ready`. Hub loop.
    pub processes: Family<InStatus, Gauge>,
    /// Recoveries.
    pub recoveries_total: Family<Recovered, Counter>,
    /// Effects of the process loop that failed and were tried again.
    pub effects_failed_total: Family<ByEffect, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("processhub");
        let migrations = Family::default();
        registry.register("migrations", "Moves under way", migrations.clone());
        let migrations_total = Family::default();
        registry.register("migrations_total", "Moves that ended", migrations_total.clone());
        let migration_blackout_seconds =
            Family::new_with_constructor((|| Histogram::new(BLACKOUT_BUCKETS)) as fn() -> Histogram);
        registry.register_with_unit(
            "migration_blackout",
            "From the freeze of the source to the first moment the target could answer",
            Unit::Seconds,
            migration_blackout_seconds.clone(),
        );
        let migration_oldest_start_timestamp_seconds = Family::default();
        registry.register_with_unit(
            "migration_oldest_start_timestamp",
            "When the oldest move under way began",
            Unit::Seconds,
            migration_oldest_start_timestamp_seconds.clone(),
        );
        let processes = Family::default();
        registry.register("processes", "Processes by the reason of Ready", processes.clone());
        let recoveries_total = Family::default();
        registry.register("recoveries_total", "Recoveries, by what may be missing", recoveries_total.clone());
        let effects_failed_total = Family::default();
        registry.register(
            "effects_failed_total",
            "Effects that failed and were tried again",
            effects_failed_total.clone(),
        );
        Self {
            registry,
            migrations,
            migrations_total,
            migration_blackout_seconds,
            migration_oldest_start_timestamp_seconds,
            processes,
            recoveries_total,
            effects_failed_total,
        }
    }
}

impl Metrics {
    /// All of them in Prometheus' classic text format.
    ///
    /// # Errors
    /// Never in practice: writing to a `String`.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        // In the classic format a counter's family has the suffix in its name, so that the counter `migrations_total` is
        // another family than the gauge `migrations`. The library knows only the newer format and adds the suffix.
        Ok(text.replace("_total_total", "_total"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_that_alerts_and_boards_use() {
        let metrics = Metrics::default();
        let by_hub = ByHub { namespace: "shop".into(), hub: "cart".into() };
        metrics.migration_blackout_seconds.get_or_create(&by_hub).observe(0.004);
        metrics.migration_oldest_start_timestamp_seconds.get_or_create(&by_hub).set(7);
        let ended = Ended {
            namespace: "shop".into(),
            hub: "cart".into(),
            result: "Succeeded".into(),
            trigger: "Wish".into(),
            reason: String::new(),
        };
        metrics.migrations_total.get_or_create(&ended).inc();
        let phase = InPhase { namespace: "shop".into(), hub: "cart".into(), phase: "Prepared".into() };
        metrics.migrations.get_or_create(&phase).set(1);
        let text = metrics.text().unwrap();
        let mut families: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        let named = families.len();
        families.sort_unstable_by_key(|line| line.split(' ').next());
        families.dedup_by_key(|line| line.split(' ').next());
        assert_eq!(families.len(), named, "a family that is named twice makes the page unreadable: {text}");
        for name in [
            "processhub_migrations{",
            "processhub_migration_blackout_seconds_bucket",
            "processhub_migration_oldest_start_timestamp_seconds{",
            "processhub_migrations_total{",
        ] {
            assert!(text.contains(name), "{name} in {text}");
        }
    }
}

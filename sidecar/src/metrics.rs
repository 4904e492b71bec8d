//! What Prometheus is told.

use std::sync::atomic::AtomicU64;

use processhub_protocol::fence::Role;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::hold::Refused;

/// The metrics of one sidecar; they carry no labels of the process, which the scraper knows from the pod.
pub struct Metrics {
    registry: Registry,
    role: Family<RoleLabel, Gauge>,
    serving: Gauge,
    held: Gauge,
    /// Requests that were refused without being executed.
    pub(crate) refused: Family<RefusedLabel, Counter>,
    /// Requests whose outcome is unknown.
    pub(crate) outcome_unknown: Counter,
    /// Requests that were forwarded to a successor.
    pub(crate) forwarded: Counter,
    /// Control requests without a right token.
    pub(crate) unauthenticated: Counter,
    /// Commands with an epoch that is used up.
    pub(crate) stale: Counter,
    /// Activations of the worker, by what they lost.
    pub(crate) activations: Family<LossLabel, Counter>,
    blackout: Histogram,
    /// Captures while the worker serves, by what they came to.
    pub(crate) checkpoints: Family<CheckpointLabel, Counter>,
    checkpoint_age: Gauge<f64, AtomicU64>,
    /// Bytes of the last captured or imported state.
    pub(crate) state_bytes: Gauge<u64, AtomicU64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RoleLabel {
    role: &'static str,
}

/// Label of refused requests.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RefusedLabel {
    pub(crate) reason: &'static str,
}

/// Label of activations.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct LossLabel {
    pub(crate) loss: Loss,
}

/// Label of captures while the worker serves.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct CheckpointLabel {
    pub(crate) result: Checkpointed,
}

/// What a capture while the worker serves came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Checkpointed {
    /// Its state is on disk.
    Kept,
    /// It was on disk already.
    Unchanged,
    /// No state came of it.
    Failed,
}

/// What an activation lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Loss {
    /// Nothing.
    None,
    /// Possibly the changes since the newest kept state.
    Possible,
}

impl Metrics {
    /// All at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("processhub_sidecar"),
            role: Family::default(),
            serving: Gauge::default(),
            held: Gauge::default(),
            refused: Family::default(),
            outcome_unknown: Counter::default(),
            forwarded: Counter::default(),
            unauthenticated: Counter::default(),
            stale: Counter::default(),
            activations: Family::default(),
            blackout: Histogram::new(exponential_buckets(0.001, 2.0, 14)),
            checkpoints: Family::default(),
            checkpoint_age: Gauge::default(),
            state_bytes: Gauge::default(),
        };
        let m = &mut metrics;
        let registry = &mut m.registry;
        registry.register("role", "1 for the durable role of this pod", m.role.clone());
        registry.register("serving", "Whether requests are answered by this pod", m.serving.clone());
        registry.register("requests_held", "Requests held now", m.held.clone());
        registry.register("requests_refused", "Requests refused, none of them executed", m.refused.clone());
        registry.register(
            "requests_outcome_unknown",
            "Requests whose answer was lost after they had reached a worker",
            m.outcome_unknown.clone(),
        );
        registry.register("requests_forwarded", "Requests forwarded to the successor", m.forwarded.clone());
        registry.register(
            "unauthenticated",
            "Control requests without a right token",
            m.unauthenticated.clone(),
        );
        registry.register("stale_commands", "Commands whose epoch was used up", m.stale.clone());
        registry.register("activations", "Times that the worker was made active", m.activations.clone());
        registry.register_with_unit(
            "blackout",
            "From the first held request's moment to the moment at which held requests went on",
            Unit::Seconds,
            m.blackout.clone(),
        );
        registry.register(
            "checkpoints",
            "Captures of the state while the worker serves",
            m.checkpoints.clone(),
        );
        registry.register_with_unit(
            "checkpoint_age",
            "For how long the newest state on disk has been older than what was answered",
            Unit::Seconds,
            m.checkpoint_age.clone(),
        );
        registry.register_with_unit(
            "state",
            "Length of the state that was captured or imported last",
            Unit::Bytes,
            m.state_bytes.clone(),
        );
        metrics
    }

    pub(crate) fn role(&self, role: &Role, serving: bool) {
        self.role.clear();
        self.role.get_or_create(&RoleLabel { role: role.name() }).set(1);
        self.serving.set(i64::from(serving));
    }

    pub(crate) fn blackout(&self, microseconds: Option<u64>) {
        if let Some(microseconds) = microseconds {
            // Precise enough for a metric: below 2^53.
            self.blackout.observe(microseconds as f64 / 1e6);
        }
    }

    pub(crate) fn refused(&self, refused: Refused) {
        self.refused.get_or_create(&RefusedLabel { reason: refused.code() }).inc();
    }

    /// In the text form; `held` and the age of the newest checkpoint, in seconds, are read at the moment of the scrape.
    #[must_use]
    pub fn text(&self, held: usize, checkpoint_age: f64) -> String {
        self.checkpoint_age.set(checkpoint_age);
        self.held.set(i64::try_from(held).unwrap_or(i64::MAX));
        let mut text = String::new();
        // infallible: writing to a String does not fail
        let _ = encode(&mut text, &self.registry);
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Refused {
    /// Its name in answers and metrics.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::NotServing => "not_serving",
            Self::HoldFull => "hold_full",
            Self::HoldExpired => "hold_expired",
            Self::ForwardedOnce => "forwarded_once",
            Self::Stopping => "stopping",
        }
    }
}

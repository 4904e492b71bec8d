//! What the process loop remembers of a process between two looks: nothing that a decision of the protocol rests on.
//!
//! A new leader begins with an empty memory. It then reads a little more, waits a little longer for a proof of death
//! and says a thing again; it does nothing else differently.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use processhub_crds::HubProcess;
use processhub_protocol::id::PodUid;
use tokio::time::Instant;

use super::replicas::Replicas;
use super::tenure::Leases;

/// First and longest pause after an effect that failed.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// What is remembered of one process.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// Our own last write, until the watch has caught up with it.
    newest: Option<HubProcess>,
    /// Pods of which a live read said that they are gone.
    pub(crate) gone: BTreeMap<PodUid, Gone>,
    /// Since when the conditions on the object are not what they should be.
    pub(crate) stale_since: Option<Instant>,
    /// Effects that failed in a row.
    failures: u32,
    /// Why the last one failed.
    pub(crate) trouble: Option<String>,
    /// When the owner's sidecar last answered.
    pub(crate) heard: Option<Timestamp>,
    /// The epoch for which it was already said that the state is at risk.
    pub(crate) risk_told: Option<u64>,
    /// Whether it was already said that the owner cannot be reached.
    pub(crate) silence_told: bool,
    /// What is known of leases.
    pub(crate) leases: Leases,
    /// What is known of the holders of replicas.
    pub(crate) replicas: Replicas,
}

/// A pod object that is gone.
#[derive(Clone, Debug)]
pub(crate) struct Gone {
    /// Since when, by this operator's own observation.
    pub(crate) since: Instant,
    /// The first renewal of its node's Lease that was seen after the wait.
    pub(crate) first_renewal: Option<String>,
    /// Whether another renewal was seen after that one.
    pub(crate) renewed: bool,
}

impl Memory {
    /// The newest version that is known of the object.
    pub(crate) fn newest(&mut self, cached: &HubProcess) -> HubProcess {
        match &self.newest {
            Some(written) if version(written) > version(cached) && written.uid() == cached.uid() => {
                written.clone()
            }
            _ => {
                self.newest = None;
                cached.clone()
            }
        }
    }

    /// Takes in the answer to a write, or a live read.
    pub(crate) fn wrote(&mut self, object: &HubProcess) {
        self.newest = Some(object.clone());
    }

    /// Notes that an effect failed; returns how long to pause.
    pub(crate) fn failed(&mut self, why: String) -> Duration {
        self.trouble = Some(why);
        let pause = PAUSE.0.saturating_mul(1 << self.failures.min(10));
        self.failures += 1;
        pause.min(PAUSE.1)
    }

    /// Notes that an effect succeeded.
    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
        self.trouble = None;
    }
}

/// Versions of one object grow; one that is not a number is older than every other.
pub(crate) fn version(object: &HubProcess) -> u64 {
    object.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::pod::tests::process;

    fn at(version: &str) -> HubProcess {
        let mut object = process();
        object.metadata.resource_version = Some(version.into());
        object
    }

    #[test]
    fn the_answer_to_our_own_write_counts_until_the_watch_has_caught_up() {
        let mut memory = Memory::default();
        memory.wrote(&at("12"));
        assert_eq!(memory.newest(&at("9")), at("12"));
        assert_eq!(memory.newest(&at("13")), at("13"));
        assert_eq!(memory.newest(&at("9")), at("9"), "an old write is not kept for ever");
    }

    #[test]
    fn pauses_grow_up_to_a_bound_and_a_success_ends_them() {
        let mut memory = Memory::default();
        let pauses: Vec<_> = (0..40).map(|_| memory.failed("no".into())).collect();
        assert!(pauses.is_sorted());
        assert_eq!((pauses[0], pauses[39]), PAUSE);
        memory.succeeded();
        assert_eq!(memory.failed("no".into()), PAUSE.0);
    }
}

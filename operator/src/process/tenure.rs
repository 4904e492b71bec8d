//! For how long this operator has known that an incarnation is given no lease any more, in hubs with `failover: OnLease`.
//! Pure: times come from outside.
//!
//! Only a leader gives leases, and one that leads no more has ended its process: what another operator gave was given
//! before this one led. So the last lease of an incarnation counts, at the latest, from when this operator last had a
//! challenge of it in its hands, or, where it never had, from when it first saw that nobody renews it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use processhub_protocol::id::{Epoch, PodUid};
use processhub_protocol::lease;
use processhub_protocol::ledger::{Ledger, Tenure};
use tokio::time::Instant;

use super::incarnation::PodFacts;

/// After this every lease has ended.
pub(crate) const WAIT: Duration = Duration::from_millis(lease::DURATION + lease::MARGIN);
/// How often a lease is renewed.
pub(crate) const RENEWAL: Duration = Duration::from_millis(lease::RENEWAL);

/// What is remembered of leases.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    /// When this operator last gave one, and to whom.
    granted: Option<(PodUid, Instant)>,
    /// Since when it knows that the owner is being fenced, by the epoch at which that began.
    fenced: Option<(PodUid, Epoch, Instant)>,
    /// Since when it knows that a pod is not the owner.
    expelled: BTreeMap<PodUid, Instant>,
}

/// Who holds no lease, and gets none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lapsed {
    /// The owner, which is being fenced.
    pub owner: bool,
    /// Other pods.
    pub others: BTreeSet<PodUid>,
}

impl Leases {
    /// A grant is about to be sent that answers a challenge of this pod.
    pub(crate) fn grants(&mut self, pod: &PodUid, now: Instant) {
        self.granted = Some((pod.clone(), now));
    }

    /// Looks at a ledger that was just read, and at the pods of the process.
    pub(crate) fn look<'a>(
        &mut self,
        ledger: &Ledger,
        pods: impl Iterator<Item = &'a PodFacts>,
        now: Instant,
    ) -> Lapsed {
        let owner = ledger.owner.as_ref();
        self.fenced = owner.and_then(|owner| match owner.tenure {
            Tenure::Fencing { at } => {
                let known =
                    self.fenced.take().filter(|(pod, epoch, _)| (pod, *epoch) == (&owner.pod.uid, at));
                Some(known.unwrap_or_else(|| (owner.pod.uid.clone(), at, now)))
            }
            Tenure::Unbounded | Tenure::Leased => None,
        });
        let present: BTreeSet<&PodUid> = pods.filter(|pod| pod.leased).map(|pod| &pod.uid).collect();
        let is_owner = |pod: &PodUid| owner.is_some_and(|owner| owner.pod.uid == *pod);
        self.expelled.retain(|pod, _| present.contains(pod) && !is_owner(pod));
        for pod in present.into_iter().filter(|pod| !is_owner(pod)) {
            self.expelled.entry(pod.clone()).or_insert(now);
        }
        let over = |since: Instant| now.saturating_duration_since(since) >= WAIT;
        let since = self.fenced.as_ref().map(|(pod, _, since)| {
            let granted = self.granted.as_ref().filter(|(to, _)| to == pod);
            granted.map_or(*since, |(_, at)| *at)
        });
        Lapsed {
            owner: since.is_some_and(over),
            others: self
                .expelled
                .iter()
                .filter(|(_, since)| over(**since))
                .map(|(pod, _)| pod.clone())
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::incarnation::tests::pod;
    use processhub_protocol::id::RecordId;
    use processhub_protocol::ledger::{Owner, PodRef};
    use serde_json::json;

    fn ledger(tenure: Tenure) -> Ledger {
        let pod = PodRef { name: "cart-3-1".into(), uid: "pod-1".into(), node: "n1".into() };
        let owner = Owner { pod, record: RecordId::from("r"), epoch: Epoch(1), tenure };
        Ledger { epoch: Epoch(1), owner: Some(owner), migration: None, replicas: Default::default() }
    }

    fn fencing(at: u64) -> Ledger {
        ledger(Tenure::Fencing { at: Epoch(at) })
    }

    fn look(leases: &mut Leases, ledger: &Ledger, now: Instant) -> bool {
        leases.look(ledger, std::iter::empty(), now).owner
    }

    #[tokio::test(start_paused = true)]
    async fn who_never_gave_a_lease_waits_from_when_it_saw_the_fencing() {
        let (mut leases, start) = (Leases::default(), Instant::now());
        assert!(!look(&mut leases, &fencing(1), start));
        assert!(!look(&mut leases, &fencing(1), start + WAIT - Duration::from_millis(1)));
        assert!(look(&mut leases, &fencing(1), start + WAIT));
    }

    #[tokio::test(start_paused = true)]
    async fn who_gave_one_waits_from_then() {
        let (mut leases, start) = (Leases::default(), Instant::now());
        leases.grants(&"pod-1".into(), start);
        assert!(!look(&mut leases, &fencing(1), start + Duration::from_secs(4)));
        assert!(look(&mut leases, &fencing(1), start + WAIT));
        let mut leases = Leases::default();
        leases.grants(&"pod-7".into(), start);
        assert!(!look(&mut leases, &fencing(1), start + WAIT), "that was another pod's");
    }

    #[tokio::test(start_paused = true)]
    async fn another_fencing_is_waited_for_anew() {
        let (mut leases, start) = (Leases::default(), Instant::now());
        assert!(!look(&mut leases, &fencing(1), start));
        assert!(!look(&mut leases, &fencing(2), start + WAIT), "it was unfenced in between, by whomever");
        assert!(look(&mut leases, &fencing(2), start + 2 * WAIT));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_has_lapsed_that_is_renewed() {
        let (mut leases, start) = (Leases::default(), Instant::now());
        assert!(!look(&mut leases, &ledger(Tenure::Leased), start));
        assert!(!look(&mut leases, &ledger(Tenure::Leased), start + 2 * WAIT));
        assert!(!look(&mut leases, &ledger(Tenure::Unbounded), start + 2 * WAIT));
    }

    #[tokio::test(start_paused = true)]
    async fn a_former_owner_that_served_by_lease_has_stopped_after_the_wait() {
        let (mut leases, start) = (Leases::default(), Instant::now());
        let mut former = PodFacts::of(&pod(json!({}))).unwrap();
        former.uid = "pod-0".into();
        for (leased, expected) in [(true, 1), (false, 0)] {
            former.leased = leased;
            let mut look =
                |now| leases.look(&ledger(Tenure::Leased), std::iter::once(&former), now).others.len();
            assert_eq!(look(start), 0);
            assert_eq!(look(start + WAIT), expected);
        }
    }
}

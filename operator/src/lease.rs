//! Leader election by a Lease, safe against clocks that differ between operators.
//!
//! Nobody compares the times that stand in the Lease: they are for people. A candidate takes the Lease over when it has
//! itself watched it stay unchanged for the whole duration, and writes by compare-and-swap. The holder counts its own
//! right from before it sent its last successful renewal, so that it stops before anybody else can begin.
//!
//! One candidate need not wait: the one that was started in the holder's own pod. A container is started again only when
//! the one before it has ended, so the holder is dead. What it had sent and is still on its way is refused as that of any
//! former leader: by the version or the UID that it was decided on, by its epoch, by the expiry of its grants.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::call::{self, CallError};

/// How long a Lease that is not renewed keeps everybody else out.
pub const DURATION: Duration = Duration::from_secs(6);
/// How often the holder renews and a candidate looks.
pub const PERIOD: Duration = Duration::from_secs(2);
/// How long one attempt may take: two more fit before the Lease ends.
const ATTEMPT: Duration = Duration::from_millis(1500);
/// How soon an attempt that failed is made again: a holder has no whole period to lose.
const AGAIN: Duration = Duration::from_millis(500);

/// Name of the Lease of a class.
#[must_use]
pub fn lease_name(class: &str) -> String {
    format!("processhub-operator-{class}")
}

/// Whether this operator may act, and for how long. Clones share it.
#[derive(Clone, Debug)]
pub struct Leadership(watch::Receiver<Option<Instant>>);

impl Leadership {
    /// Whether the Lease is held now.
    #[must_use]
    pub fn valid(&self) -> bool {
        self.remaining().is_some()
    }

    /// How long the Lease is certainly held from now on, unless it is renewed.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        let until = (*self.0.borrow())?;
        until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }

    /// Returns when the Lease is held.
    pub async fn acquired(&mut self) {
        // The sender lives as long as the operator; without it nothing is ever acquired.
        if self.0.wait_for(Option::is_some).await.is_err() {
            std::future::pending().await
        }
    }

    /// Leads for ever: for tests of what needs a leader.
    #[cfg(test)]
    pub(crate) fn granted_for(time: Duration) -> Self {
        let (sender, receiver) = watch::channel(Some(Instant::now() + time));
        drop(sender);
        Self(receiver)
    }
}

/// Leadership was lost: another operator may act from now on, so this one must not.
#[derive(Debug, thiserror::Error)]
#[error("the Lease {name} was lost: {reason}")]
pub struct Lost {
    name: String,
    reason: String,
}

/// What to do with the Lease as it was seen.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    /// Write this: take it or renew it.
    Write(LeaseSpec),
    /// Somebody else holds it.
    Wait,
}

/// What came of an attempt.
enum Attempt {
    /// The Lease is renewed, or another operator holds it.
    Settled,
    /// It was written by somebody meanwhile.
    Overtaken,
}

/// Who takes part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its name, which no other operator may use, nor this one when it is started again.
    pub identity: String,
    /// UID of the pod in which it is the only operator; `None` if it runs in none.
    pub pod: Option<String>,
}

impl Candidate {
    /// What stands in the Lease while it holds it.
    fn holder(&self) -> String {
        match &self.pod {
            Some(pod) => format!("{}/{pod}", self.identity),
            None => self.identity.clone(),
        }
    }

    /// Whether `holder` ran in this pod, and has therefore ended.
    fn succeeds(&self, holder: &str) -> bool {
        self.pod.as_deref().is_some_and(|pod| holder.split_once('/').is_some_and(|(_, held)| held == pod))
    }
}

/// What `candidate` does with a Lease that stands as `seen` and has not changed for `unchanged`.
fn next_step(candidate: &Candidate, seen: Option<&LeaseSpec>, unchanged: Duration, now: Timestamp) -> Step {
    let holder = seen.and_then(|spec| spec.holder_identity.as_deref()).filter(|holder| !holder.is_empty());
    let transitions = seen.and_then(|spec| spec.lease_transitions).unwrap_or(0);
    let taken = LeaseSpec {
        holder_identity: Some(candidate.holder()),
        lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
        acquire_time: Some(MicroTime(now)),
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(transitions.saturating_add(1)),
        ..LeaseSpec::default()
    };
    match (holder, seen) {
        (Some(holder), Some(spec)) if holder == candidate.holder() => {
            Step::Write(LeaseSpec { renew_time: Some(MicroTime(now)), ..spec.clone() })
        }
        (Some(holder), Some(_)) if candidate.succeeds(holder) => Step::Write(taken),
        (Some(_), Some(spec)) => {
            let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
            // A holder of another version may have asked for longer; never for less than we would.
            let duration = DURATION.max(Duration::from_secs(seconds.unwrap_or(0)));
            if unchanged >= duration { Step::Write(taken) } else { Step::Wait }
        }
        _ => Step::Write(taken),
    }
}

/// The Lease as its holder leaves it behind: free at once.
fn released(spec: &LeaseSpec, now: Timestamp) -> LeaseSpec {
    LeaseSpec {
        holder_identity: None,
        lease_duration_seconds: Some(1),
        renew_time: Some(MicroTime(now)),
        ..spec.clone()
    }
}

/// Takes part in the election.
pub struct Elector {
    leases: Api<Lease>,
    name: String,
    candidate: Candidate,
    until: watch::Sender<Option<Instant>>,
    seen: Option<(Lease, Instant)>,
}

impl Elector {
    /// Takes part for `candidate`; and its handle.
    #[must_use]
    pub fn new(client: Client, namespace: &str, name: String, candidate: Candidate) -> (Self, Leadership) {
        let (until, handle) = watch::channel(None);
        let leases = Api::namespaced(client, namespace);
        (Self { leases, name, candidate, until, seen: None }, Leadership(handle))
    }

    /// Takes part until `shutdown`, then gives the Lease back.
    ///
    /// # Errors
    /// [`Lost`] when the Lease was held and is not any more: the caller stops acting at once.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), Lost> {
        loop {
            let outcome = tokio::select! {
                // A clean stop: the next leader need not wait.
                () = shutdown.cancelled() => {
                    self.release().await;
                    return Ok(());
                }
                outcome = timeout(ATTEMPT, self.attempt()) => outcome,
            };
            let pause = match outcome {
                Ok(Ok(Attempt::Settled)) => PERIOD,
                Ok(Ok(Attempt::Overtaken)) => AGAIN,
                Ok(Err(error)) => {
                    tracing::warn!(lease = self.name, %error, "the Lease could not be read or written");
                    AGAIN
                }
                Err(_) => {
                    tracing::warn!(lease = self.name, "the API server did not answer in time");
                    AGAIN
                }
            };
            self.check_held()?;
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = sleep(pause) => {}
            }
            self.check_held()?;
        }
    }

    fn check_held(&self) -> Result<(), Lost> {
        let until = *self.until.borrow();
        match until {
            Some(until) if until <= Instant::now() => {
                Err(self.lost(format!("no renewal succeeded for {} s", DURATION.as_secs())))
            }
            Some(_) if !self.holds() => Err(self.lost("another operator holds it".to_owned())),
            Some(_) | None => Ok(()),
        }
    }

    fn lost(&self, reason: String) -> Lost {
        self.until.send_replace(None);
        Lost { name: self.name.clone(), reason }
    }

    fn holds(&self) -> bool {
        let spec = self.seen.as_ref().and_then(|(lease, _)| lease.spec.as_ref());
        spec.and_then(|spec| spec.holder_identity.as_ref()) == Some(&self.candidate.holder())
    }

    /// Looks at the Lease and takes or renews it where that is right.
    async fn attempt(&mut self) -> Result<Attempt, CallError> {
        if !self.holds() {
            self.look().await?;
        }
        let (spec, unchanged) = match &self.seen {
            Some((lease, since)) => (lease.spec.as_ref(), since.elapsed()),
            None => (None, Duration::ZERO),
        };
        let Step::Write(spec) = next_step(&self.candidate, spec, unchanged, Timestamp::now()) else {
            return Ok(Attempt::Settled);
        };
        // From before it is sent: the API server may have counted others out from any later moment.
        let sent = Instant::now();
        match self.write(spec).await {
            Ok(written) => {
                self.seen = Some((written, sent));
                self.until.send_replace(Some(sent + DURATION));
                Ok(Attempt::Settled)
            }
            // By another operator, or by a write of our own whose answer was lost.
            Err(CallError::Conflict { .. } | CallError::Exists { .. } | CallError::NotFound { .. }) => {
                self.look().await?;
                Ok(Attempt::Overtaken)
            }
            Err(error) => Err(error),
        }
    }

    async fn look(&mut self) -> Result<(), CallError> {
        let now = Instant::now();
        let found = call::optional(call::api("read Lease", self.leases.get(&self.name)).await)?;
        self.seen = found.map(|lease| match self.seen.take() {
            Some((old, since)) if old.metadata.resource_version == lease.metadata.resource_version => {
                (lease, since)
            }
            _ => (lease, now),
        });
        Ok(())
    }

    async fn write(&self, spec: LeaseSpec) -> Result<Lease, CallError> {
        let parameters = PostParams::default();
        match &self.seen {
            Some((lease, _)) => {
                let lease = Lease { spec: Some(spec), ..lease.clone() };
                call::api("write Lease", self.leases.replace(&self.name, &parameters, &lease)).await
            }
            None => {
                let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
                let lease = Lease { metadata, spec: Some(spec) };
                call::api("create Lease", self.leases.create(&parameters, &lease)).await
            }
        }
    }

    async fn release(&self) {
        self.until.send_replace(None);
        let Some((Lease { spec: Some(spec), .. }, _)) = &self.seen else { return };
        if !self.holds() {
            return;
        }
        match timeout(ATTEMPT, self.write(released(spec, Timestamp::now()))).await {
            Ok(Ok(_)) => tracing::info!(lease = self.name, "gave the Lease back"),
            Ok(Err(error)) => tracing::warn!(%error, "could not give the Lease back; it runs out by itself"),
            Err(_) => tracing::warn!("could not give the Lease back in time; it runs out by itself"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn named(identity: &str) -> Candidate {
        Candidate { identity: identity.to_owned(), pod: None }
    }

    fn held_by(identity: &str) -> LeaseSpec {
        match next_step(&named(identity), None, Duration::ZERO, at(100)) {
            Step::Write(spec) => spec,
            Step::Wait => panic!("a free Lease is taken"),
        }
    }

    #[test]
    fn a_free_lease_is_taken_at_once() {
        let spec = held_by("a");
        assert_eq!(spec.holder_identity.as_deref(), Some("a"));
        assert_eq!(spec.lease_duration_seconds, Some(6));
        assert_eq!(spec.lease_transitions, Some(1));
        let left = released(&spec, at(101));
        let taken = next_step(&named("b"), Some(&left), Duration::ZERO, at(101));
        assert!(matches!(taken, Step::Write(spec) if spec.lease_transitions == Some(2)));
    }

    #[test]
    fn the_holder_renews_and_keeps_its_term() {
        let Step::Write(renewed) = next_step(&named("a"), Some(&held_by("a")), Duration::ZERO, at(102))
        else {
            panic!("the holder renews");
        };
        assert_eq!(renewed.renew_time, Some(MicroTime(at(102))));
        assert_eq!(renewed.acquire_time, Some(MicroTime(at(100))));
        assert_eq!(renewed.lease_transitions, Some(1));
    }

    #[test]
    fn a_candidate_waits_for_the_whole_duration_by_its_own_observation() {
        // The renewal looks ancient by the clock of the candidate. That proves nothing.
        let seen = held_by("a");
        let late = at(1_000_000);
        let short = DURATION.checked_sub(Duration::from_millis(1)).unwrap();
        assert_eq!(next_step(&named("b"), Some(&seen), short, late), Step::Wait);
        assert!(matches!(next_step(&named("b"), Some(&seen), DURATION, late), Step::Write(_)));
        // Nor is a holder that asked for longer hurried.
        let longer = LeaseSpec { lease_duration_seconds: Some(15), ..seen };
        assert_eq!(next_step(&named("b"), Some(&longer), DURATION, late), Step::Wait);
    }

    #[test]
    fn who_is_started_in_the_holders_own_pod_does_not_wait_for_it() {
        let in_pod = |identity: &str, pod: &str| Candidate { pod: Some(pod.to_owned()), ..named(identity) };
        let Step::Write(seen) = next_step(&in_pod("op_1", "pod-a"), None, Duration::ZERO, at(100)) else {
            panic!("a free Lease is taken");
        };
        assert_eq!(seen.holder_identity.as_deref(), Some("op_1/pod-a"));
        let step = |candidate: &Candidate| next_step(candidate, Some(&seen), Duration::ZERO, at(101));
        assert!(
            matches!(step(&in_pod("op_2", "pod-a")), Step::Write(spec) if spec.lease_transitions == Some(2))
        );
        assert_eq!(step(&in_pod("op_1", "pod-b")), Step::Wait, "of the same name in another pod");
        assert_eq!(step(&named("op_1")), Step::Wait, "in no pod at all");
        let outside = held_by("pod-a");
        let waits = next_step(&in_pod("op_2", "pod-a"), Some(&outside), Duration::ZERO, at(101));
        assert_eq!(waits, Step::Wait, "a holder that ran in no pod");
    }

    #[tokio::test(start_paused = true)]
    async fn leadership_ends_by_itself_when_nothing_renews_it() {
        let leadership = Leadership::granted_for(DURATION);
        assert!(leadership.valid());
        sleep(DURATION).await;
        assert!(!leadership.valid());
        assert_eq!(leadership.remaining(), None);
    }
}

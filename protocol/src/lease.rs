//! Leases: for how long an owner may acknowledge without hearing from a leader, in hubs with `failover: OnLease`.
//!
//! Nobody compares the clocks of two machines. A sidecar counts a lease from the challenge that the grant answers, which it
//! issued itself; a leader counts from when it has that challenge in its hands, or from when it sees that no leader renews
//! any more, whichever it knows, and adds [`MARGIN`]. What is assumed is that no machine stands still for longer than that
//! between looking at its clock and answering a client.

use serde::{Deserialize, Serialize};

use crate::fence::Clock;
use crate::wire::Challenge;

/// How long a lease lasts, in milliseconds.
pub const DURATION: u64 = 10_000;
/// How often a leader renews one, in milliseconds: two renewals may fail.
pub const RENEWAL: u64 = 2_500;
/// What a leader waits beyond the end of a lease, in milliseconds: for clocks that drift and machines that pause.
pub const MARGIN: u64 = 1_000;

/// A lease as its holder has it, in memory: a sidecar that starts anew holds none.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    answers: Challenge,
}

/// A lease as its holder reports it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaseView {
    /// How long it lasts yet, in milliseconds; 0 where none is held.
    pub left_milliseconds: u64,
}

impl Lease {
    /// The lease that a grant gives which answers this challenge.
    #[must_use]
    pub fn answering(challenge: Challenge) -> Self {
        Self { answers: challenge }
    }

    /// How long it lasts yet, in milliseconds; 0 when it has ended, or is another boot's.
    #[must_use]
    pub fn left(&self, clock: &Clock) -> u64 {
        if self.answers.boot != clock.boot {
            return 0;
        }
        let end = self.answers.issued_milliseconds.saturating_add(DURATION);
        // A challenge of the future was never issued.
        if self.answers.issued_milliseconds > clock.milliseconds {
            0
        } else {
            end.saturating_sub(clock.milliseconds)
        }
    }

    /// The one of both that lasts longer: renewals may overtake one another.
    #[must_use]
    pub fn or(self, other: Option<Self>, clock: &Clock) -> Self {
        match other {
            Some(other) if other.left(clock) > self.left(clock) => other,
            Some(_) | None => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::BootId;

    fn clock(boot: &str, milliseconds: u64) -> Clock {
        Clock { boot: BootId::from(boot), milliseconds }
    }

    fn lease(issued_milliseconds: u64) -> Lease {
        Lease::answering(Challenge { boot: BootId::from("b"), issued_milliseconds })
    }

    #[test]
    fn a_lease_counts_from_its_challenge_and_not_from_when_the_grant_came() {
        let lease = lease(1_000);
        assert_eq!(lease.left(&clock("b", 1_000)), DURATION);
        assert_eq!(lease.left(&clock("b", 4_000)), DURATION - 3_000);
        assert_eq!(lease.left(&clock("b", 1_000 + DURATION)), 0);
        assert_eq!(lease.left(&clock("b", u64::MAX)), 0);
    }

    #[test]
    fn a_lease_of_another_boot_or_of_the_future_is_none() {
        assert_eq!(lease(1_000).left(&clock("c", 1_000)), 0);
        assert_eq!(lease(1_001).left(&clock("b", 1_000)), 0);
    }

    #[test]
    fn a_renewal_that_was_overtaken_shortens_nothing() {
        let now = clock("b", 6_000);
        assert_eq!(lease(1_000).or(Some(lease(5_000)), &now), lease(5_000));
        assert_eq!(lease(5_000).or(Some(lease(1_000)), &now), lease(5_000));
        assert_eq!(lease(1_000).or(None, &now), lease(1_000));
    }
}

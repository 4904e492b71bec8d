//! Which way one request goes at one sidecar. The sidecar's queue and sockets carry it out.

use crate::id::Epoch;
use crate::rules::{Rule, enforced};

/// What a sidecar does with requests at present; it follows from its record and its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Course {
    /// It has nothing to serve yet.
    Standby,
    /// All wait.
    Hold,
    /// To its own worker.
    Serve,
    /// To its successor.
    Forward,
    /// It ends, or its process is no more.
    Closed,
}

/// The way of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Passage {
    /// To the own worker.
    Serve,
    /// It waits for another course.
    Wait,
    /// To the successor, marked as forwarded.
    Forward,
    /// This pod does not serve the process.
    NotServing,
    /// It was forwarded once and is not forwarded again (rule 15): who sent it is told where the process went.
    ForwardedOnce,
    /// This sidecar ends.
    Stopping,
}

/// The way of a request that arrives, or waits, under `course`. `forwarded`: another sidecar of the process sent it.
#[must_use]
pub fn passage(course: Course, forwarded: bool) -> Passage {
    match course {
        // Only a source that was told where the process goes sends on to a standby: its target, which will serve.
        Course::Standby if forwarded => Passage::Wait,
        Course::Standby => Passage::NotServing,
        Course::Hold => Passage::Wait,
        Course::Serve => Passage::Serve,
        Course::Forward if forwarded && enforced(Rule::ForwardUpwards) => Passage::ForwardedOnce,
        Course::Forward => Passage::Forward,
        Course::Closed => Passage::Stopping,
    }
}

/// Whether one that forwards to a successor at epoch `known` follows that one's word of its own successor at `told`. The
/// request was not executed, so it is sent there instead.
#[must_use]
pub fn follows(known: Epoch, told: Epoch) -> bool {
    told > known
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_course_has_its_way() {
        let ways = |forwarded| {
            [Course::Standby, Course::Hold, Course::Serve, Course::Forward, Course::Closed]
                .map(|course| passage(course, forwarded))
        };
        use Passage as P;
        assert_eq!(ways(false), [P::NotServing, P::Wait, P::Serve, P::Forward, P::Stopping]);
        assert_eq!(ways(true), [P::Wait, P::Wait, P::Serve, P::ForwardedOnce, P::Stopping]);
    }

    #[test]
    fn a_successors_successor_is_followed_only_upwards() {
        assert!(follows(Epoch(2), Epoch(3)));
        assert!(!follows(Epoch(2), Epoch(2)) && !follows(Epoch(3), Epoch(2)));
    }
}

//! When a process whose move failed is tried again.

use processhub_crds::vocabulary::MoveReason;

use super::homes::as_milliseconds;
use crate::assignments::FailedMove;

/// The first wait of a move that could as well not be made, in milliseconds.
const LEISURELY: u64 = 5_000;
/// The first wait of one that has to be made: a pod that is going, a dead owner, a first start.
const PRESSING: u64 = 1_000;
/// The longest wait of a move that has to be made.
const LONGEST_PRESSING: u64 = 30_000;
/// How long a node is avoided, at least, where a move has failed.
const SHORTEST_GRUDGE: u64 = 60_000;
/// How long a move is left alone that a person cancelled, or whose state the target's worker refused: trying again
/// changes nothing, unless something else has changed meanwhile.
const DEFINITE: u64 = 10 * 60_000;

/// When it may be tried again, in milliseconds since 1970. `pressing`: the process has to get another incarnation.
#[must_use]
pub fn until(failed: &FailedMove, pressing: bool) -> u64 {
    as_milliseconds(failed.at).saturating_add(wait(failed, pressing))
}

/// Until when the node that it failed at is taken only if there is no other, in milliseconds since 1970. Longer than the
/// wait, so that the next try goes elsewhere.
#[must_use]
pub fn avoided_until(failed: &FailedMove, pressing: bool) -> u64 {
    let wait = wait(failed, pressing);
    // What was only withdrawn says nothing of the node.
    let avoided = if wait == 0 { 0 } else { wait.saturating_mul(2).max(SHORTEST_GRUDGE) };
    as_milliseconds(failed.at).saturating_add(avoided)
}

fn wait(failed: &FailedMove, pressing: bool) -> u64 {
    let doublings = failed.times.saturating_sub(1).min(10);
    match failed.reason {
        _ if pressing => (PRESSING << doublings).min(LONGEST_PRESSING),
        Some(MoveReason::Withdrawn | MoveReason::Regrant | MoveReason::HubChanged) => 0,
        Some(MoveReason::Cancelled | MoveReason::ImportRefused) => DEFINITE,
        Some(
            MoveReason::DeadlineExceeded
            | MoveReason::TargetNotReady
            | MoveReason::TargetFailed
            | MoveReason::TargetLost
            | MoveReason::NoRoom
            | MoveReason::QuotaExceeded
            | MoveReason::StateQueryTimeout
            | MoveReason::StateTTLExpired
            | MoveReason::ImportFailed
            | MoveReason::CaptureFailed
            | MoveReason::SourceLost,
        )
        | None => (LEISURELY << doublings).min(DEFINITE),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    fn failed(reason: MoveReason, times: u32) -> FailedMove {
        FailedMove { to: "n1".into(), reason: Some(reason), at: Timestamp::UNIX_EPOCH, times }
    }

    #[test]
    fn the_wait_doubles_and_is_bounded() {
        let waits: Vec<u64> =
            (1..=4).map(|times| until(&failed(MoveReason::TargetNotReady, times), false)).collect();
        assert_eq!(waits, [5_000, 10_000, 20_000, 40_000]);
        assert_eq!(until(&failed(MoveReason::TargetNotReady, u32::MAX), false), DEFINITE);
        assert_eq!(until(&failed(MoveReason::TargetNotReady, u32::MAX), true), LONGEST_PRESSING);
    }

    #[test]
    fn what_a_repetition_cannot_mend_is_left_alone_and_a_withdrawn_move_is_not_punished() {
        assert_eq!(until(&failed(MoveReason::ImportRefused, 1), false), DEFINITE);
        assert_eq!(until(&failed(MoveReason::Cancelled, 1), false), DEFINITE);
        assert_eq!(until(&failed(MoveReason::Withdrawn, 3), false), 0);
    }

    #[test]
    fn a_node_is_avoided_for_longer_than_the_wait_so_that_the_next_try_goes_elsewhere() {
        for times in 1..12 {
            for pressing in [false, true] {
                let failed = failed(MoveReason::TargetNotReady, times);
                assert!(avoided_until(&failed, pressing) > until(&failed, pressing));
            }
        }
        assert_eq!(avoided_until(&failed(MoveReason::Withdrawn, 1), false), 0);
    }

    #[test]
    fn who_has_to_leave_is_tried_again_soon_whatever_went_wrong() {
        assert_eq!(until(&failed(MoveReason::ImportRefused, 1), true), PRESSING);
    }
}

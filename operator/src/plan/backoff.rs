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
/// How long a move is left alone that a person cancelled, or whose state the target's worker refused: trying again
/// changes nothing, unless something else has changed meanwhile.
const DEFINITE: u64 = 10 * 60_000;

/// When it may be tried again, in milliseconds since 1970. `pressing`: the process has to get another incarnation.
#[must_use]
pub fn until(failed: &FailedMove, pressing: bool) -> u64 {
    as_milliseconds(failed.at).saturating_add(wait(failed, pressing))
}

fn wait(failed: &FailedMove, pressing: bool) -> u64 {
    let doublings = failed.times.saturating_sub(1).min(10);
    if pressing {
        return (PRESSING << doublings).min(LONGEST_PRESSING);
    }
    match failed.reason {
        Some(MoveReason::Superseded | MoveReason::Withdrawn | MoveReason::Regrant) => 0,
        Some(MoveReason::Cancelled | MoveReason::ImportRefused | MoveReason::HandoverNotSupported) => {
            DEFINITE
        }
        Some(
            MoveReason::DeadlineExceeded
            | MoveReason::TargetNotReady
            | MoveReason::TargetFailed
            | MoveReason::TargetLost
            | MoveReason::NoRoom
            | MoveReason::QuotaExceeded
            | MoveReason::NotAMember
            | MoveReason::NoTargetNodes
            | MoveReason::Draining
            | MoveReason::StateQueryTimeout
            | MoveReason::StateTTLExpired
            | MoveReason::ImportFailed
            | MoveReason::CaptureFailed
            | MoveReason::SourceRestarted
            | MoveReason::SourceLost
            | MoveReason::Unreachable
            | MoveReason::DigestMismatch
            | MoveReason::PodDeleted
            | MoveReason::Deleted,
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
        assert_eq!(until(&failed(MoveReason::Superseded, 3), false), 0);
    }

    #[test]
    fn who_has_to_leave_is_tried_again_soon_whatever_went_wrong() {
        assert_eq!(until(&failed(MoveReason::ImportRefused, 1), true), PRESSING);
    }
}

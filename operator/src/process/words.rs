//! The words of the protocol and those of the resources, each from the other. Pure.

use processhub_crds::vocabulary::MoveReason;
use processhub_crds::{MigrationKind, MigrationResult};
use processhub_protocol::ledger::{AbortReason, Kind, MoveResult};

/// The protocol's word for a kind.
#[must_use]
pub fn kind(word: MigrationKind) -> Kind {
    match word {
        MigrationKind::Start => Kind::Start,
        MigrationKind::HotSwap => Kind::HotSwap,
        MigrationKind::ColdSwap => Kind::ColdSwap,
        MigrationKind::Recover => Kind::Recover,
    }
}

/// The resources' word for a kind.
#[must_use]
pub fn kind_word(kind: Kind) -> MigrationKind {
    match kind {
        Kind::Start => MigrationKind::Start,
        Kind::HotSwap => MigrationKind::HotSwap,
        Kind::ColdSwap => MigrationKind::ColdSwap,
        Kind::Recover => MigrationKind::Recover,
    }
}

/// The resources' word for a result.
#[must_use]
pub fn result_word(result: MoveResult) -> MigrationResult {
    match result {
        MoveResult::Succeeded => MigrationResult::Succeeded,
        MoveResult::Aborted => MigrationResult::Aborted,
        MoveResult::Failed => MigrationResult::Failed,
    }
}

/// The resources' word for an abort's reason.
#[must_use]
pub fn move_reason(reason: AbortReason) -> MoveReason {
    match reason {
        AbortReason::Cancelled => MoveReason::Cancelled,
        AbortReason::Withdrawn => MoveReason::Withdrawn,
        AbortReason::DeadlineExceeded => MoveReason::DeadlineExceeded,
        AbortReason::StateQueryTimeout => MoveReason::StateQueryTimeout,
        AbortReason::StateTTLExpired => MoveReason::StateTTLExpired,
        AbortReason::CaptureFailed => MoveReason::CaptureFailed,
        AbortReason::ImportRefused => MoveReason::ImportRefused,
        AbortReason::ImportFailed => MoveReason::ImportFailed,
        AbortReason::TargetFailed => MoveReason::TargetFailed,
        AbortReason::TargetLost => MoveReason::TargetLost,
        AbortReason::SourceLost => MoveReason::SourceLost,
        AbortReason::Regrant => MoveReason::Regrant,
    }
}

/// The protocol's word for the reason that stands on an object.
#[must_use]
pub fn abort_reason(reason: Option<MoveReason>) -> AbortReason {
    let Some(reason) = reason else { return AbortReason::Withdrawn };
    match reason {
        MoveReason::Regrant => AbortReason::Regrant,
        MoveReason::Cancelled | MoveReason::HubChanged => AbortReason::Cancelled,
        MoveReason::DeadlineExceeded => AbortReason::DeadlineExceeded,
        MoveReason::StateQueryTimeout => AbortReason::StateQueryTimeout,
        MoveReason::StateTTLExpired => AbortReason::StateTTLExpired,
        MoveReason::CaptureFailed => AbortReason::CaptureFailed,
        MoveReason::ImportRefused => AbortReason::ImportRefused,
        MoveReason::ImportFailed => AbortReason::ImportFailed,
        MoveReason::TargetFailed
        | MoveReason::TargetNotReady
        | MoveReason::NoRoom
        | MoveReason::QuotaExceeded => AbortReason::TargetFailed,
        MoveReason::TargetLost => AbortReason::TargetLost,
        MoveReason::SourceLost => AbortReason::SourceLost,
        MoveReason::Withdrawn => AbortReason::Withdrawn,
    }
}

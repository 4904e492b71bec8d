//! Reasons of events.

use super::vocabulary;

vocabulary! {
    /// Why an event was written. Fixed, so that alerts may match on it.
    EventReason {
        /// A process was started for the first time, without state.
        ProcessStarted = "ProcessStarted",
        /// A process was stopped because its object or its hub was deleted, or the hub was scaled down.
        ProcessStopped = "ProcessStopped",
        /// A move was begun (phase Prepared).
        MigrationStarted = "MigrationStarted",
        /// A move ended and the target acknowledges.
        MigrationSucceeded = "MigrationSucceeded",
        /// A move was undone and the source acknowledges.
        MigrationAborted = "MigrationAborted",
        /// A move ended and neither side could be made to serve by it.
        MigrationFailed = "MigrationFailed",
        /// A wish could not be followed; the note says why.
        WishRefused = "WishRefused",
        /// The owner does not answer and its death is not proven.
        OwnerUnreachable = "OwnerUnreachable",
        /// A process was started again after its owner was proven dead.
        Recovered = "Recovered",
        /// Acknowledged requests may be missing after a recovery; the note says from which sequence number on.
        StateLost = "StateLost",
        /// A deletion was asked for and no target can be had; the state is lost at the deadline in the note.
        StateAtRisk = "StateAtRisk",
        /// A worker crashes again and again, and no further pod is started for it.
        RestartLimitExceeded = "RestartLimitExceeded",
        /// An owner that had fenced itself was granted again.
        Regranted = "Regranted",
        /// Every process that is to run the hub's new code does.
        Upgraded = "Upgraded",
        /// A process could not be given the hub's new code; the roll-out stopped.
        UpgradeFailed = "UpgradeFailed",
        /// A node became a member of a hub.
        MemberJoined = "MemberJoined",
        /// A node is no longer a member of a hub.
        MemberLeft = "MemberLeft",
        /// The hub's spec or template cannot be used.
        InvalidConfig = "InvalidConfig",
        /// `HotSwap` without hand-over: processes of this hub move without their state, as was asked for.
        HandoverDisabled = "HandoverDisabled",
    }
}

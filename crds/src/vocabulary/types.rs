//! Types and statuses of conditions.

use super::vocabulary;

vocabulary! {
    /// The conditions of a `ProcessHub`.
    HubCondition {
        /// The spec and the template can be used. While it is False nothing new is started and nothing moves for the
        /// sake of the new spec; what runs goes on.
        Accepted = "Accepted",
        /// Every desired process acknowledges requests.
        Ready = "Ready",
        /// Processes are being started, moved or stopped.
        Progressing = "Progressing",
        /// Every process is where the distribution wants it.
        Rebalanced = "Rebalanced",
        /// Something needs a person's attention; the message says what and how.
        Degraded = "Degraded",
        /// So many members are reached that the others may be taken over; of hubs with `failover: OnLease`.
        QuorumAvailable = "QuorumAvailable",
    }
}

vocabulary! {
    /// The conditions of a `HubProcess`.
    ProcessCondition {
        /// The owner acknowledges requests. Unknown: the owner cannot be reached and may or may not still serve.
        Ready = "Ready",
        /// A start, a move or a recovery is under way, waits or was refused.
        Progressing = "Progressing",
        /// The worker speaks the worker contract, so that its state can be handed over.
        HandoverCapable = "HandoverCapable",
        /// The state would outlive the loss of the owner's node.
        StateDurable = "StateDurable",
        /// The owner runs the code of the hub's present `vsn` and `template`.
        Upgraded = "Upgraded",
    }
}

vocabulary! {
    /// The status of a condition.
    Status {
        /// It holds.
        True = "True",
        /// It does not hold.
        False = "False",
        /// Nobody can say.
        Unknown = "Unknown",
    }
}

impl From<bool> for Status {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

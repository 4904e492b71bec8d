//! The rules of the protocol by number, so that a refusal, a test and the documentation name the same thing.

/// A rule of the hand-over protocol. The documentation of each variant is the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// A command at or below the floor is refused, except the same command again, which gets the same answer.
    Floor = 1,
    /// Every write of the ledger carries the version it was decided on.
    CompareAndSwap = 2,
    /// Floor and role are durable before the answer.
    DurableBeforeAnswer = 3,
    /// A pod is deleted only after activation of the other and a live read, and only the pod that was meant. A create
    /// that meets an existing name is done only if that pod is ours and is not going.
    DeleteAfterActivation = 4,
    /// `Aborted` comes before every undo.
    AbortBeforeUndo = 5,
    /// A sidecar never leaves Frozen by itself.
    NoTimerThaw = 6,
    /// A grant answers a challenge of the sidecar's present boot and expires.
    ChallengedGrant = 7,
    /// An import is acknowledged only when persisted.
    PersistedImport = 8,
    /// No epoch is used twice.
    FreshEpoch = 9,
    /// A recovery says what may be missing.
    ReportedLoss = 10,
    /// A standing loop re-grants an owner that is fenced without a move.
    StandingRegrant = 11,
    /// A source sealed by Committed is never thawed.
    SealedStaysSealed = 12,
    /// A source that is lost when the target already holds its state: commit.
    CommitWithoutSource = 13,
    /// A grant names the record that it is meant for.
    RecordIdentity = 14,
    /// Forwarding goes only to a higher epoch, and no request is forwarded twice.
    ForwardUpwards = 15,
    /// An owner whose tenure is by lease acknowledges only while it holds one. A lease counts from the challenge that its
    /// grant answers, by the clock of the boot that issued it.
    HeldLease = 16,
    /// `Fencing` comes before every take-over from an owner that is not proven dead, and an owner that is being fenced is
    /// given no lease.
    FencedUnrenewed = 17,
    /// A take-over from an owner that is not proven dead is committed only when every lease that it was given before
    /// `Fencing` has ended.
    LeaseWaitedOut = 18,
    /// A replica takes nothing of an epoch below the highest that it has seen.
    ReplicaFloor = 19,
}

impl Rule {
    /// All rules in order.
    pub const ALL: [Self; 19] = [
        Self::Floor,
        Self::CompareAndSwap,
        Self::DurableBeforeAnswer,
        Self::DeleteAfterActivation,
        Self::AbortBeforeUndo,
        Self::NoTimerThaw,
        Self::ChallengedGrant,
        Self::PersistedImport,
        Self::FreshEpoch,
        Self::ReportedLoss,
        Self::StandingRegrant,
        Self::SealedStaysSealed,
        Self::CommitWithoutSource,
        Self::RecordIdentity,
        Self::ForwardUpwards,
        Self::HeldLease,
        Self::FencedUnrenewed,
        Self::LeaseWaitedOut,
        Self::ReplicaFloor,
    ];
}

/// Whether the rule holds. Always true, except in the exploration of a variant without it.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub fn enforced(_rule: Rule) -> bool {
    true
}

#[cfg(feature = "mutants")]
mod mutants {
    use std::cell::Cell;

    use super::Rule;

    thread_local! {
        static WITHOUT: Cell<Option<Rule>> = const { Cell::new(None) };
    }

    /// Whether the rule holds on this thread.
    pub fn enforced(rule: Rule) -> bool {
        WITHOUT.get() != Some(rule)
    }

    /// Runs `f` on this thread with one rule left out.
    pub fn without<T>(rule: Rule, f: impl FnOnce() -> T) -> T {
        WITHOUT.set(Some(rule));
        let result = f();
        WITHOUT.set(None);
        result
    }
}

#[cfg(feature = "mutants")]
pub use mutants::{enforced, without};

//! The operator's decisions for one process: from what it sees to what it does next.
//!
//! [`next`] is level-triggered: it remembers nothing, so a new leader that sees the same does the same, and finishes
//! or undoes what it finds. One file per durable phase.

mod aborted;
mod committed;
mod prepared;
mod replicas;
mod steady;
mod tenure;
mod view;

pub use replicas::{HolderSeen, ReplicasSeen, replication};
pub use tenure::renewal;
pub use view::{Handover, Incarnation, Intent, Limits, Pod, PodView, SidecarView, Standing, View};

use crate::fence::Role;
use crate::id::{Epoch, PodUid, StateId};
use crate::ledger::{Ledger, Phase, PodRef, Transition};
use crate::wire::{ImportReason, Report};

/// Which incarnation of the move an effect is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The one that hands over; outside a move, the owner.
    Source,
    /// The one that takes over.
    Target,
}

/// One thing to do. Each is idempotent: done twice, or by two operators, it has the effect of once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Write the ledger's next state by compare-and-swap on the version that was seen.
    Write(Transition),
    /// Create the target's pod; an existing one of that name counts only if it is ours and not going (rule 4).
    CreatePod {
        /// Its name.
        name: String,
        /// Its node.
        node: String,
        /// The epoch that it is created with.
        epoch: Epoch,
        /// Whether its worker waits for the source's end (cold swap). In a hub of cold swaps the operator gates every
        /// pod, since also the first start and a recovery must not meet an older pod's worker.
        gated: bool,
    },
    /// Command the target to offer its worker a copy of the state, while the source serves.
    Trial {
        /// Epoch of the move.
        epoch: Epoch,
    },
    /// Command the source to freeze.
    Freeze {
        /// Epoch of the move.
        epoch: Epoch,
        /// Whether its state is captured.
        capture: bool,
    },
    /// Command the target to fetch the sealed state.
    Import {
        /// Epoch of the move.
        epoch: Epoch,
        /// What it must fetch.
        state: StateId,
        /// Why.
        reason: ImportReason,
        /// The holder that has it as a replica; the source, where there is none.
        replica: Option<PodUid>,
    },
    /// Have the holders that the ledger names refuse everything below this epoch, and say what they have.
    SealReplicas {
        /// Epoch of the recovery.
        epoch: Epoch,
    },
    /// Tell the owner of the set of holders that is in the ledger; see [`replication`].
    Replicate {
        /// The epoch that it serves at.
        epoch: Epoch,
    },
    /// Command the target to serve.
    Activate {
        /// Epoch of the move.
        epoch: Epoch,
        /// What it acknowledged.
        state: Option<StateId>,
    },
    /// Command the source to serve again.
    Thaw {
        /// Epoch of the abort.
        epoch: Epoch,
    },
    /// Command the sealed source to forward to the target, which does not serve before the source's worker has ended.
    HandOn {
        /// Epoch of the move.
        epoch: Epoch,
    },
    /// Tell an owner that its process was deleted; see [`let_go`].
    LetGo {
        /// An epoch above all that it has obeyed.
        epoch: Epoch,
    },
    /// Give the owner another lease, at the epoch that it serves at; see [`renewal`].
    Renew {
        /// That epoch.
        epoch: Epoch,
    },
    /// Point the stable address at this pod.
    Route(PodRef),
    /// Read the pod from the API server itself, not from a cache.
    ReadLive(Side),
    /// Delete the pod with this UID as a precondition.
    DeletePod {
        /// Which.
        side: Side,
        /// The pod that is meant, and no other of its name.
        uid: PodUid,
    },
}

impl Effect {
    /// A stable name, for failpoints, logs and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Write(Transition::Prepare { .. }) => "prepare",
            Self::Write(Transition::Commit { .. }) => "commit",
            Self::Write(Transition::Abort { .. }) => "abort",
            Self::Write(Transition::Fence) => "fence",
            Self::Write(Transition::Unfence) => "unfence",
            Self::Write(Transition::Replicate { .. }) => "choose-replicas",
            Self::Write(Transition::Replicated) => "settle-replicas",
            Self::Write(Transition::End { .. }) => "end",
            Self::CreatePod { .. } => "create-pod",
            Self::Trial { .. } => "trial",
            Self::Freeze { .. } => "freeze",
            Self::Import { .. } => "import",
            Self::SealReplicas { .. } => "seal-replicas",
            Self::Replicate { .. } => "replicate",
            Self::Activate { .. } => "activate",
            Self::Thaw { .. } => "thaw",
            Self::HandOn { .. } => "hand-on",
            Self::LetGo { .. } => "let-go",
            Self::Renew { .. } => "renew",
            Self::Route(_) => "route",
            Self::ReadLive(_) => "read-live",
            Self::DeletePod { side: Side::Source, .. } => "delete-source",
            Self::DeletePod { side: Side::Target, .. } => "delete-target",
        }
    }
}

/// What is waited for when nothing, or nothing more, can be done now. The operator turns it into words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Waiting {
    /// Nothing: the process is where it should be.
    Nothing,
    /// The first start has not been planned yet, or a recovery has no target.
    Placement,
    /// This operator does not lead.
    Leadership,
    /// The target's pod is not there or not up.
    TargetPod,
    /// The target's sidecar does not answer.
    TargetSidecar,
    /// The target's worker is not ready to take over.
    TargetWorker,
    /// The target's worker is offered a copy of the state.
    Trying,
    /// The source is freezing.
    Freezing,
    /// Holders of replicas do not answer, and may have what the others have not.
    Replicas,
    /// The target is importing.
    Importing,
    /// The target is being activated.
    Activating,
    /// The target is active, but not ready by a live read.
    TargetReady,
    /// The retention has not passed.
    Retention,
    /// The source's end (cold swap), or an old pod's.
    OldPodGone,
    /// The source's sidecar does not answer.
    Source,
    /// The owner does not answer and is not proven dead.
    OwnerUnreachable,
    /// The owner does not answer, is given no lease any more, and may hold one yet.
    LeaseEnd,
    /// The source is to be thawed.
    Thawing,
    /// The worker cannot hand over, and the hub insists on it.
    HandoverNotSupported,
    /// A pod of this process obeys an epoch above the ledger's: the ledger was restored from an old backup.
    HistoryRewound,
}

/// What to do now, in any order, and what is waited for after that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Effects to carry out; observe again afterwards.
    pub effects: Vec<Effect>,
    /// What is waited for.
    pub waiting: Waiting,
}

impl Decision {
    fn act(effect: Effect, waiting: Waiting) -> Self {
        Self { effects: vec![effect], waiting }
    }

    fn wait(waiting: Waiting) -> Self {
        Self { effects: Vec::new(), waiting }
    }
}

/// Whether a pod of the process, created with `born`, has no part in it any more and is to be deleted: it is what a
/// late creation left behind, or a former owner that came back.
///
/// Safe with a ledger that lags behind: only the write that takes an epoch names a target of that epoch, and a pod that
/// is no longer named is never named again. A pod whose epoch is above the ledger's is not judged.
#[must_use]
pub fn stray(ledger: &Ledger, pod: &PodUid, name: &str, born: Epoch) -> bool {
    let owns = ledger.owner.as_ref().is_some_and(|owner| owner.pod.uid == *pod);
    let moves = ledger.migration.as_ref().is_some_and(|migration| {
        migration.target_name == name || migration.source.as_ref().is_some_and(|source| source.uid == *pod)
    });
    born <= ledger.epoch && !owns && !moves
}

/// What to do with a pod of a process whose object is gone, as a live read has just shown: one that owns the process keeps
/// its worker from ending until it has been handed over, and nobody takes it. No ledger stands against this any more: the
/// object that held it is gone for good, and a new one of its name is another process.
#[must_use]
pub fn let_go(report: &Report) -> Option<Effect> {
    match report.role {
        Role::Active { .. } | Role::Frozen { .. } => Some(Effect::LetGo { epoch: report.floor.next() }),
        Role::Standby | Role::Delivered { .. } | Role::Forwarding { .. } | Role::Retired { .. } => None,
    }
}

/// What to do next for one process.
#[must_use]
pub fn next(view: &View) -> Decision {
    if !view.leading {
        return Decision::wait(Waiting::Leadership);
    }
    if view.history_rewound() {
        return Decision::wait(Waiting::HistoryRewound);
    }
    if let Some(decision) = tenure::next(view) {
        return decision;
    }
    match &view.ledger.migration {
        None => steady::next(view),
        Some(migration) => match &migration.phase {
            Phase::Prepared => prepared::next(view, migration),
            Phase::Committed { state } => committed::next(view, migration, state.as_ref()),
            Phase::Aborted { epoch, .. } => aborted::next(view, migration, *epoch),
        },
    }
}

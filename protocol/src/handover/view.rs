//! What the operator sees of one process when it decides.

use super::replicas::ReplicasSeen;
use crate::fence::Role;
use crate::id::{PodUid, Seq};
use crate::ledger::{AbortReason, Kind, Ledger};
use crate::wire::{Report, WorkerState};

/// Everything that a decision rests on.
///
/// The ledger may lag behind, and pods and sidecars need not be seen at one moment, but the ledger is read first: no
/// report is older than the version of the ledger that it is judged with. (With an older one, a source that was seen
/// serving before it was sealed would pass for lost, and a target seen before it was wiped for amnesiac.) After a write of
/// its own an operator need not look again. What the owner's sidecar reports as lost is written before anything is done on
/// the strength of that report.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct View {
    /// The ledger, at the version that a write will be compared with.
    pub ledger: Ledger,
    /// The move that the plan permits to begin now; also names the node of a recovery's target.
    pub intent: Option<Intent>,
    /// Why the move under way should be given up, if it still can be.
    pub give_up: Option<AbortReason>,
    /// How the owner stands, whichever side of a move it is, or neither.
    pub owner: Standing,
    /// The migration's source; outside a migration, the owner.
    pub source: Incarnation,
    /// The migration's target; once committed, also the owner.
    pub target: Incarnation,
    /// Whether the target's worker is offered a copy of the state before anything is frozen, because its code is another.
    pub trial: bool,
    /// Where the stable address points.
    pub routed_to: Option<PodUid>,
    /// Whether a pod of this process that is neither source nor target may still run.
    pub lingering: bool,
    /// Whether this operator's Lease, counted from when it sent its last renewal, is valid.
    pub leading: bool,
    /// The hub's limits.
    pub limits: Limits,
    /// The replicas.
    pub replicas: ReplicasSeen,
}

/// What is known of the owner beside its sides in a move: a recovery has it on neither.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Standing {
    /// What its sidecar answered.
    pub sidecar: SidecarView,
    /// Whether it is proven dead.
    pub dead: bool,
    /// Whether every lease that it was given before it was fenced has ended, by this operator's own clock.
    pub lapsed: bool,
    /// Whether it may be taken over should it not answer: the plan has another node for it, and whoever may decide that
    /// has a quorum.
    pub replaceable: bool,
}

impl Standing {
    /// Its report, if it answered.
    #[must_use]
    pub fn report(&self) -> Option<&Report> {
        self.sidecar.report()
    }
}

/// A move that may begin.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Intent {
    /// How. One that is for a start or a recovery begins no move of an owner that serves; whether an owner is missing or
    /// dead follows from what is seen, whatever stands here.
    pub kind: Kind,
    /// Where to.
    pub node: String,
}

impl Intent {
    /// Whether it is for an owner that hands over.
    #[must_use]
    pub(super) fn is_move(&self) -> bool {
        matches!(self.kind, Kind::HotSwap | Kind::ColdSwap)
    }
}

/// What the hub says of hand-over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Handover {
    /// If the worker can.
    IfCapable,
    /// A worker that cannot is not moved.
    Required,
    /// No state is carried.
    Never,
}

/// Limits of one hub's moves, in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Whether state is handed over.
    pub handover: Handover,
    /// How long a captured state may wait for its commit.
    pub state_ttl: u64,
    /// How long a freeze may take: drain plus query time-outs plus what the way costs.
    pub freeze: u64,
    /// How long the source stays to forward stragglers.
    pub retention: u64,
}

/// One incarnation as seen through the API server and by its sidecar.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Incarnation {
    /// Its pod.
    pub pod: PodView,
    /// Its sidecar.
    pub sidecar: SidecarView,
    /// Whether it is proven that no container of it runs or ever will again; or, of an owner that is fenced and does not
    /// answer, that it acknowledges nothing and never will again ([`Standing::lapsed`]).
    pub dead: bool,
}

/// A pod as read from the API server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum PodView {
    /// No name is known, or nothing was read yet.
    #[default]
    Unknown,
    /// A cache does not hold it; only a live read counts for anything that destroys.
    Absent {
        /// Whether that was a live read.
        live: bool,
    },
    /// The name is taken by a pod that is not the one meant.
    Foreign,
    /// It is there.
    Present(Pod),
}

/// What matters of a pod that is there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pod {
    /// Its UID.
    pub uid: PodUid,
    /// Whether it has a deletion timestamp.
    pub deleting: bool,
    /// Its `Ready` condition.
    pub ready: bool,
    /// Whether this was a live read, after the last thing done.
    pub live: bool,
}

/// A sidecar as asked directly.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum SidecarView {
    /// No answer: no address yet, refused, or timed out.
    #[default]
    Unreachable,
    /// Its answer.
    Report(Box<Report>),
}

impl SidecarView {
    /// The report, if it answered.
    #[must_use]
    pub fn report(&self) -> Option<&Report> {
        match self {
            Self::Report(report) => Some(report),
            Self::Unreachable => None,
        }
    }
}

impl Incarnation {
    /// The sidecar's report, if it answered.
    #[must_use]
    pub fn report(&self) -> Option<&Report> {
        self.sidecar.report()
    }

    /// The pod, if it is there.
    #[must_use]
    pub fn present(&self) -> Option<&Pod> {
        match &self.pod {
            PodView::Present(pod) => Some(pod),
            PodView::Unknown | PodView::Absent { .. } | PodView::Foreign => None,
        }
    }

    /// The worker's state as its sidecar reports it.
    #[must_use]
    pub(super) fn worker(&self) -> WorkerState {
        self.report().map_or(WorkerState::Unreachable, |report| report.worker.state)
    }

    /// Whether no container of it but, at most, its sidecar runs or ever will again: proven, or said by the sidecar of a pod
    /// that is going.
    pub(super) fn worker_ended(&self) -> bool {
        let stays = self.present().is_some_and(|pod| !pod.deleting);
        self.dead || (!stays && self.worker() == WorkerState::Ended)
    }

    /// Whether the sidecar holds nothing and the worker (unless gated) waits to be given something.
    pub(super) fn can_take_over(&self) -> bool {
        self.report().is_some_and(|report| report.role == Role::Standby)
            && matches!(self.worker(), WorkerState::Standby | WorkerState::Gated)
    }
}

impl View {
    /// A pod that obeyed an epoch which the ledger never gave: the ledger is older than what it gave out.
    pub(super) fn history_rewound(&self) -> bool {
        [&self.source, &self.target]
            .into_iter()
            .filter_map(Incarnation::report)
            .any(|report| report.floor > self.ledger.epoch)
    }

    /// The first sequence number that may be missing after the owner died with nothing recovered.
    pub(super) fn first_unknown(known: Option<Seq>) -> Seq {
        known.map_or(1, |seq| seq + 1)
    }
}

//! What the API server holds about the ownership of one process: the single linearization point.
//!
//! A ledger changes only by [`Transition`]s, each written by compare-and-swap on the version that it was decided on.

use serde::{Deserialize, Serialize};

use crate::id::{Epoch, PodUid, RecordId, Seq, StateId};
use crate::replica::Replicas;
use crate::rules::{Rule, enforced};

/// The ownership part of `HubProcess.status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ledger {
    /// The highest epoch that was ever taken.
    pub epoch: Epoch,
    /// Who may acknowledge requests; `None` until the first start has been committed.
    pub owner: Option<Owner>,
    /// The move under way.
    pub migration: Option<Migration>,
    /// Who holds the replicas: also of an owner that is lost, until its successor has holders of its own.
    pub replicas: Replicas,
}

/// The incarnation that may acknowledge requests.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Its pod.
    pub pod: PodRef,
    /// The sidecar record that the ownership was given to.
    pub record: RecordId,
    /// The epoch at which it may serve.
    pub epoch: Epoch,
    /// For how long.
    pub tenure: Tenure,
}

/// For how long an owner may acknowledge requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Tenure {
    /// As long as it runs.
    #[default]
    Unbounded,
    /// While it holds a lease, which the leader renews.
    Leased,
    /// As `Leased`, and no leader renews it any more: it does not answer and is about to be taken over.
    Fencing {
        /// The highest epoch when that began. Whoever waits for the end of its last lease waits anew for another one.
        at: Epoch,
    },
}

/// A pod by name and, once it exists, UID.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodRef {
    /// Name in the process's namespace.
    pub name: String,
    /// UID.
    pub uid: PodUid,
    /// Node that it is bound to.
    pub node: String,
}

/// How a process moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// The first incarnation: no source, no state.
    Start,
    /// The target is ready before the source ends.
    HotSwap,
    /// The source's worker has ended before the target's worker starts.
    ColdSwap,
    /// The owner is proven dead. The source, if any, is one sealed by an earlier commit.
    Recover,
}

/// A move that was prepared and has not ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Migration {
    /// The epoch taken for it; the target is created with it and serves at it.
    pub epoch: Epoch,
    /// How.
    pub kind: Kind,
    /// The incarnation that hands over.
    pub source: Option<PodRef>,
    /// Name of the target's pod.
    pub target_name: String,
    /// Node of the target.
    pub target_node: String,
    /// Whether state is handed over.
    pub with_state: bool,
    /// How far it is.
    pub phase: Phase,
}

/// The durable phases. What lies between is observed at the sidecars.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// May still be undone.
    Prepared,
    /// Only forward from here. Holds the state that the target acknowledged.
    Committed {
        /// What the target acknowledged; `None` when no state was handed over.
        state: Option<StateId>,
    },
    /// Being undone.
    Aborted {
        /// The epoch taken for the undo; the source serves at it afterwards.
        epoch: Epoch,
        /// Why.
        reason: AbortReason,
    },
}

/// Why a move was undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum AbortReason {
    /// A person asked for it.
    Cancelled,
    /// The plan no longer wants it, for example after an uncordon, before anything was frozen.
    Withdrawn,
    /// `migration.deadlineSeconds` passed.
    DeadlineExceeded,
    /// The worker did not suspend or capture within `stateQueryTimeoutMilliseconds`.
    StateQueryTimeout,
    /// The captured state waited longer than `stateTTLMilliseconds`.
    StateTTLExpired,
    /// The worker answered the capture with an error.
    CaptureFailed,
    /// The target's worker cannot accept the state.
    ImportRefused,
    /// The state could not be carried over: connection, disk or digest.
    ImportFailed,
    /// The target cannot start: image, quota, no room, crash.
    TargetFailed,
    /// The target is gone.
    TargetLost,
    /// The source is gone before the target held its state.
    SourceLost,
    /// An owner was found fenced without a move; it is granted again.
    Regrant,
}

/// The only ways in which a ledger changes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Transition {
    /// Takes the next epoch and names source and target.
    Prepare {
        /// How.
        kind: Kind,
        /// Who hands over.
        source: Option<PodRef>,
        /// Node of the target.
        node: String,
        /// Whether state is to be handed over.
        with_state: bool,
    },
    /// Gives the process to the target.
    Commit {
        /// The target as it is.
        target: PodRef,
        /// The target's record.
        record: RecordId,
        /// What it acknowledged.
        state: Option<StateId>,
        /// What may be missing in it.
        lost: Option<Lost>,
        /// Whether its tenure is by lease.
        leased: bool,
        /// Whether its answers wait for holders of replicas; what they have is all that is known of them later.
        replicated: bool,
    },
    /// Takes the next epoch for the undo.
    Abort {
        /// Why.
        reason: AbortReason,
    },
    /// The owner does not answer: it is given no lease any more (rule 17).
    Fence,
    /// The owner that was being fenced answers again. Takes the next epoch, so that nobody takes the wait of before for one
    /// that a later fencing has had.
    Unfence,
    /// These are to hold the replicas from now on.
    Replicate {
        /// Who.
        holders: Vec<PodRef>,
    },
    /// The holders that were chosen last have everything.
    Replicated,
    /// Clears the migration.
    End {
        /// How it ended.
        result: MoveResult,
    },
}

/// How a move ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum MoveResult {
    /// The target serves.
    Succeeded,
    /// The source serves again.
    Aborted,
    /// Neither: the process has to be recovered.
    Failed,
}

/// A loss that a recovery reports (rule 10): changes with this number and above may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lost {
    /// The first sequence number that may be missing; 1 when nothing could be recovered.
    pub from: Seq,
}

impl Ledger {
    /// The ledger after `transition`; `None` when it does not apply to this ledger, which is a defect of the caller.
    #[must_use]
    pub fn after(&self, process: &str, transition: &Transition) -> Option<Self> {
        let mut next = self.clone();
        match transition {
            Transition::Prepare { kind, source, node, with_state } => {
                next.epoch = self.fresh_epoch();
                next.migration = Some(Migration {
                    epoch: next.epoch,
                    kind: *kind,
                    source: source.clone(),
                    target_name: pod_name(process, next.epoch),
                    target_node: node.clone(),
                    with_state: *with_state,
                    phase: Phase::Prepared,
                });
            }
            Transition::Commit { target, record, state, lost: _, leased, replicated } => {
                let migration = next.migration.as_mut()?;
                let tenure = if *leased { Tenure::Leased } else { Tenure::Unbounded };
                let (pod, record, epoch) = (target.clone(), record.clone(), migration.epoch);
                next.owner = Some(Owner { pod, record, epoch, tenure });
                migration.phase = Phase::Committed { state: state.clone() };
                if !*replicated {
                    next.replicas.sets.clear();
                }
            }
            Transition::Abort { reason } => {
                next.epoch = self.fresh_epoch();
                let epoch = next.epoch;
                match next.migration.as_mut() {
                    Some(migration) => migration.phase = Phase::Aborted { epoch, reason: *reason },
                    // A re-grant: an undo of a move that is no longer known.
                    None => {
                        let owner = self.owner.as_ref()?;
                        next.migration = Some(Migration {
                            epoch,
                            kind: Kind::HotSwap,
                            source: Some(owner.pod.clone()),
                            target_name: String::new(),
                            target_node: String::new(),
                            with_state: false,
                            phase: Phase::Aborted { epoch, reason: *reason },
                        });
                    }
                }
                // The undo grants the owner this epoch.
                if let Some(owner) = next.owner.as_mut()
                    && enforced(Rule::FreshEpoch)
                {
                    owner.epoch = epoch;
                }
            }
            Transition::Fence => {
                let at = self.epoch;
                let owner = next.owner.as_mut().filter(|owner| owner.tenure == Tenure::Leased)?;
                owner.tenure = Tenure::Fencing { at };
            }
            Transition::Unfence => {
                let epoch = self.fresh_epoch();
                let owner =
                    next.owner.as_mut().filter(|owner| matches!(owner.tenure, Tenure::Fencing { .. }))?;
                owner.tenure = Tenure::Leased;
                next.epoch = epoch;
                // An undo goes on at the highest epoch that there is.
                if let Some(Migration { phase: Phase::Aborted { epoch: undo, .. }, .. }) = &mut next.migration
                {
                    *undo = epoch;
                    owner.epoch = epoch;
                }
            }
            Transition::Replicate { holders } => {
                next.owner.as_ref()?;
                next.replicas = self.replicas.with(holders.clone());
            }
            Transition::Replicated => next.replicas = self.replicas.settled(),
            Transition::End { result: _ } => {
                next.migration.as_ref()?;
                next.migration = None;
            }
        }
        Some(next)
    }

    /// Rule 9. The variant without it counts from the owner, so that a retry takes the epoch of the attempt before.
    fn fresh_epoch(&self) -> Epoch {
        if enforced(Rule::FreshEpoch) {
            self.epoch.next()
        } else {
            self.owner.as_ref().map_or(Epoch::default(), |owner| owner.epoch).next()
        }
    }
}

/// Name of the pod of `process` that was created with `epoch`.
#[must_use]
pub fn pod_name(process: &str, epoch: Epoch) -> String {
    format!("{process}-{epoch}")
}

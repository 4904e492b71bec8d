//! What the two loops tell each other: the hub loop where each process should be, the process loop what it saw.
//!
//! Both sides are level-triggered. An entry is the whole present truth of its writer, never a message to be consumed;
//! a change of it wakes the other loop through the stream that the reader subscribed to. Nothing here outlives the
//! operator's process: a new leader fills both maps again from what it observes.
//!
//! The maps hold one entry per process of all hubs, so the locks are held for single look-ups only, or for one pass
//! over a hub ([`Board::facts_of`]); never across an `await`.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use k8s_openapi::jiff::Timestamp;
use processhub_crds::MigrationTrigger;
use processhub_crds::vocabulary::{MoveReason, ProcessReason};
use processhub_protocol::handover::Waiting;
use processhub_protocol::id::{Epoch, ProcessUid};
use processhub_protocol::ledger::{AbortReason, Kind};

/// A `ProcessHub` by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HubKey {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// A `HubProcess` by UID, and by name so that it can be reconciled.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessKey {
    /// UID: a new object of the same name is another process.
    pub uid: ProcessUid,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// What the planner wants of one process. Written by the hub loop, read by the process loop.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    /// The move that may begin now. For a process without an owner it names the node of its first start, for one
    /// whose owner is dead that of its recovery. `None`: it stays where it is, or waits for the limits.
    ///
    /// While a move is under way it is only read where that move has to be planned again (its target died).
    pub go: Option<Go>,
    /// Why the move under way should be given up, if it still can be.
    pub give_up: Option<AbortReason>,
    /// Why a move or a start that is wanted may not begin; shown on the object. With one of
    /// `NotAMember, NoTargetNodes, Draining` and a wish on the object the wish is refused and removed.
    pub held: Option<Held>,
    /// Whether the process may leave for the hub that its object names; said by the hub of its owner.
    pub lets_go: bool,
    /// Whether its owner, which does not answer, may be taken over when its lease has ended.
    pub take_over: bool,
}

/// A move that may begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Go {
    /// What it is for: `Start` for a process without an owner, `Recover` for one whose owner is dead, else how the hub
    /// moves.
    pub kind: Kind,
    /// Where to.
    pub node: String,
    /// What caused it.
    pub trigger: MigrationTrigger,
    /// Name of the code that the new incarnation is to run; empty where codes have no names yet: the hub's present one.
    pub revision: String,
    /// The ledger's epoch that it was decided on ([`ProcessFacts::epoch`]). At any other epoch it is void: a move has
    /// begun or ended since, and beginning it again would repeat that move, or skip its back-off.
    pub epoch: Epoch,
    /// The hub whose pod the new incarnation is to be.
    pub hub: String,
}

/// Why nothing begins, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Reason of the condition `Progressing`.
    pub reason: ProcessReason,
    /// Its message.
    pub message: String,
}

/// What the process loop last saw of one process. Written by the process loop, read by the hub loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessFacts {
    /// The process.
    pub key: ProcessKey,
    /// Its hub: that of its owner.
    pub hub: HubKey,
    /// The hub that its object names, where that is another one.
    pub bound_for: Option<String>,
    /// The ledger's epoch.
    pub epoch: Epoch,
    /// `spec.nodeName`.
    pub pin: Option<String>,
    /// Node in the annotation `processhub.io/move-to`, while the wish stands.
    pub wish: Option<String>,
    /// Whether the object, not only its hub, is paused.
    pub paused: bool,
    /// Node of the owner; `None` before the first commit.
    pub node: Option<String>,
    /// What the owner is like.
    pub owner: OwnerState,
    /// Whether the owner is being fenced; then it is dead here, and its node no place to go to.
    pub fenced: bool,
    /// The move under way.
    pub moving: Option<Moving>,
    /// Whether the worker can hand over; `None` while it has not said.
    pub capable: Option<bool>,
    /// What the process loop waits for.
    pub waiting: Waiting,
    /// Whether its last move was a person's wish, which brought it to where it is: there it stays until a change moves
    /// it again.
    pub settled_by_wish: bool,
    /// The last move that did not succeed, unless a later one did: what a back-off is counted from.
    pub failed: Option<FailedMove>,
    /// The last transfer, unless it succeeded or was not wanted any more.
    pub failed_transfer: Option<FailedMove>,
    /// The code that it runs.
    pub code: CodeFacts,
}

/// What is known of the code of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CodeFacts {
    /// Name of the code that the owner runs; empty for one that was started before codes had names.
    pub revision: String,
    /// The code that it could not be given, until it runs the code of its hub.
    pub failed: Option<FailedUpgrade>,
}

/// A code that a process could not be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedUpgrade {
    /// Name of that code.
    pub revision: String,
    /// For people: from which version to which, and why not.
    pub message: String,
}

/// What the owner of a process is like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OwnerState {
    /// There is none yet.
    #[default]
    None,
    /// It acknowledges requests.
    Serving,
    /// It is there and does not acknowledge: moving, crashed, waiting for a grant.
    NotServing,
    /// Its worker has crashed again, its kubelet waits before it starts it, and what it would be given can be moved.
    Crashed {
        /// From when on it is started in another pod; never, when the hub's `spec.worker.restarts` are used up.
        again: Option<Timestamp>,
    },
    /// Its pod has a deletion timestamp: it has to be elsewhere by then, which makes the move urgent. Stands above
    /// `Serving` and `NotServing`.
    Leaving {
        /// When the kubelet kills it.
        until: Timestamp,
    },
    /// It does not answer and is not proven dead.
    Unreachable,
    /// It is proven dead; a `Go` starts its recovery.
    Dead,
}

/// A move under way, as far as the planner needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moving {
    /// How.
    pub kind: Kind,
    /// What caused it.
    pub trigger: MigrationTrigger,
    /// Node that is left, if there is a source.
    pub from: Option<String>,
    /// Node of the target.
    pub to: String,
    /// How far it is.
    pub phase: MovingPhase,
    /// Name of the code of its target; may be empty.
    pub revision: String,
}

/// How far a move is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MovingPhase {
    /// The source serves; a `give_up: Withdrawn` still stops it.
    Prepared,
    /// The source is frozen: going on is the shorter blackout.
    Frozen,
    /// The target owns the process; it counts against no node's limits for entering or leaving any more.
    Committed,
    /// It is being undone.
    Aborted,
}

/// A move that ended without success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedMove {
    /// Node of its target.
    pub to: String,
    /// Why.
    pub reason: Option<MoveReason>,
    /// When.
    pub at: Timestamp,
    /// How many in a row did not succeed, as far as the history reaches.
    pub times: u32,
}

/// The board on which both loops write. Shared by an `Arc`.
#[derive(Debug)]
pub struct Board {
    assignments: Mutex<BTreeMap<HubKey, BTreeMap<ProcessUid, Assignment>>>,
    facts: Mutex<BTreeMap<HubKey, BTreeMap<ProcessUid, ProcessFacts>>>,
    to_processes: UnboundedSender<ProcessKey>,
    to_hubs: UnboundedSender<HubKey>,
}

/// The wake-ups of a [`Board`], one for each loop. They coalesce in the controllers' queues.
#[derive(Debug)]
pub struct Wakeups {
    /// Processes whose assignment changed; for the process loop.
    pub processes: UnboundedReceiver<ProcessKey>,
    /// Hubs of which the facts of some process changed; for the hub loop.
    pub hubs: UnboundedReceiver<HubKey>,
}

impl Board {
    /// An empty board and its wake-ups.
    #[must_use]
    pub fn new() -> (Self, Wakeups) {
        let (to_processes, processes) = unbounded();
        let (to_hubs, hubs) = unbounded();
        let board = Self { assignments: Mutex::default(), facts: Mutex::default(), to_processes, to_hubs };
        (board, Wakeups { processes, hubs })
    }

    /// Writes what the planner of a hub wants of a process, and wakes the process loop if that is new. Hub loop only.
    pub fn assign(&self, hub: &HubKey, process: &ProcessKey, assignment: Assignment) -> bool {
        let mut assignments = lock(&self.assignments);
        let of_hub = assignments.entry(hub.clone()).or_default();
        if of_hub.get(&process.uid) == Some(&assignment) {
            return false;
        }
        of_hub.insert(process.uid.clone(), assignment);
        drop(assignments);
        // The receiver is gone only while the operator ends.
        let _ = self.to_processes.unbounded_send(process.clone());
        true
    }

    /// Takes back what the planner of a hub said of processes that are none of its business any more. Hub loop only.
    pub fn withdraw(&self, hub: &HubKey, concerned: impl Fn(&ProcessUid) -> bool) {
        if let Some(of_hub) = lock(&self.assignments).get_mut(hub) {
            of_hub.retain(|process, _| concerned(process));
        }
    }

    /// What the planner of a hub wants of a process; `None` until it has been planned. Process loop.
    #[must_use]
    pub fn assignment(&self, hub: &HubKey, process: &ProcessUid) -> Option<Assignment> {
        lock(&self.assignments).get(hub)?.get(process).cloned()
    }

    /// Writes what was seen of a process, and wakes the hub loop if that is new: for its hub, the one that it is bound
    /// for, and one that it has left. Process loop only.
    pub fn report(&self, facts: ProcessFacts) -> bool {
        let mut all = lock(&self.facts);
        let mut concerned = Vec::new();
        match all.entry(facts.hub.clone()).or_default().get(&facts.key.uid) {
            Some(known) if *known == facts => return false,
            Some(_) => {}
            None => {
                concerned
                    .extend(all.iter_mut().filter_map(|(hub, processes)| {
                        processes.remove(&facts.key.uid).map(|_| hub.clone())
                    }));
            }
        }
        concerned.push(facts.hub.clone());
        let namespace = &facts.hub.namespace;
        let bound_for = facts.bound_for.clone().map(|name| HubKey { namespace: namespace.clone(), name });
        concerned.extend(bound_for);
        all.entry(facts.hub.clone()).or_default().insert(facts.key.uid.clone(), facts);
        drop(all);
        for hub in concerned {
            let _ = self.to_hubs.unbounded_send(hub);
        }
        true
    }

    /// What was seen of one process of a hub. Hub loop, of another hub that it is bound for.
    #[must_use]
    pub fn facts_in(&self, hub: &HubKey, process: &ProcessUid) -> Option<ProcessFacts> {
        lock(&self.facts).get(hub)?.get(process).cloned()
    }

    /// Everything that was seen of the processes of a hub, by UID. A process that is missing has not been observed
    /// since this operator started. Hub loop.
    #[must_use]
    pub fn facts_of(&self, hub: &HubKey) -> BTreeMap<ProcessUid, ProcessFacts> {
        lock(&self.facts).get(hub).cloned().unwrap_or_default()
    }

    /// Forgets a process whose object is gone. Process loop only.
    pub fn forget(&self, process: &ProcessUid) {
        self.retain(|known| known != process);
    }

    /// Forgets every process that `exists` does not know. Process loop only.
    pub fn retain(&self, exists: impl Fn(&ProcessUid) -> bool) {
        lock(&self.assignments).retain(|_, processes| {
            processes.retain(|process, _| exists(process));
            !processes.is_empty()
        });
        let mut woken = Vec::new();
        lock(&self.facts).retain(|hub, processes| {
            let before = processes.len();
            processes.retain(|process, _| exists(process));
            if processes.len() != before {
                woken.push(hub.clone());
            }
            !processes.is_empty()
        });
        for hub in woken {
            let _ = self.to_hubs.unbounded_send(hub);
        }
    }
}

/// A poisoned lock holds a whole map all the same: every change of it is one insertion or removal.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "assignments_tests.rs"]
mod tests;

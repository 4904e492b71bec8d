//! One state of the whole system.

use processhub_protocol::id::Epoch;
use processhub_protocol::replica::{Mark, Offer, Offered, Sealed, Shelf};

use crate::intern::Id;
use crate::names::{self, Slot};

/// How many incarnations may exist at once.
pub const PODS: usize = 6;
/// How many writes clients may make.
pub const WRITES: usize = 2;
/// How often time passes until a lease that is given now has certainly ended, and until a leader may be certain of that.
pub const FRESH: u8 = 2;
/// No slot.
pub const NOWHERE: Slot = u8::MAX;

/// Everything that decides what can happen next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The ledger at the API server, and the version of its object.
    pub ledger: Versioned,
    /// What the operator that lags behind believes the ledger to be.
    pub stale: Versioned,
    /// The incarnations.
    pub pods: [Pod; PODS],
    /// Commands and delayed API calls in flight.
    pub net: Bag,
    /// Where the stable address points.
    pub routed: Slot,
    /// A pod and its sidecar as the leader saw them once; it may decide on that together with newer observations.
    pub glimpse: Option<Glimpse>,
    /// What a person or the plan wants of the move under way.
    pub wish: Wish,
    /// Writes that a client got an answer for.
    pub acknowledged: u8,
    /// Acknowledged writes that the object says may be missing, or that nobody promised to carry.
    pub excused: u8,
    /// The sequence number of each acknowledged write.
    pub seqs: [u8; WRITES],
    /// The highest epoch ever taken.
    pub top: u8,
    /// How often time has passed since the owner was fenced; more than twice makes no difference.
    pub fenced: u8,
    /// What the holder of the replica has.
    pub replica: Replica,
    /// Whether the process's object was deleted. Operators may still go by what they knew of it.
    pub deleted: bool,
    /// What may still happen.
    pub budget: Budget,
}

/// What the holder of a replica has on its disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Replica {
    /// The highest epoch that it has seen.
    pub floor: u8,
    /// The epoch of the state that it has.
    pub epoch: u8,
    /// The writes in that state.
    pub writes: u8,
}

impl Replica {
    /// As the shipped judgement has it.
    pub fn shelf(self) -> Shelf {
        Shelf { floor: names::epoch(self.floor), newest: Some(self.mark()), exposed: false }
    }

    fn mark(self) -> Mark {
        Mark { epoch: names::epoch(self.epoch), number: u64::from(self.writes.count_ones()) }
    }

    /// It after an owner at `epoch` has offered a state with these writes; `None` when it is refused.
    pub fn offered(self, epoch: u8, writes: u8) -> Option<Self> {
        let offer = Offer {
            process: names::process(),
            mark: Self { epoch, writes, ..self }.mark(),
            state: Some(names::state(writes)),
            exposed: false,
            from: names::peer(0),
        };
        match self.shelf().judge_offer(&offer).ok()? {
            Offered::Held => Some(self),
            Offered::Take(next) => Some(Self { floor: names::small(next.floor), epoch, writes }),
        }
    }

    /// It after it was sealed for a recovery.
    pub fn sealed(self, epoch: Epoch) -> Self {
        self.shelf().sealed(epoch).map_or(self, |next| Self { floor: names::small(next.floor), ..self })
    }

    /// What it says then.
    pub fn answer(self) -> Sealed {
        Sealed {
            pod: names::holder().uid,
            process: names::process(),
            epoch: names::epoch(self.floor),
            newest: Some((self.mark(), names::state(self.writes))),
            exposed: false,
        }
    }
}

/// A ledger by number, with its object's version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Versioned {
    /// The ledger.
    pub ledger: Id,
    /// The object's version.
    pub version: u8,
}

/// What is wanted of the move under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Wish {
    /// Go on.
    #[default]
    Finish,
    /// A person's cancellation.
    Cancel,
    /// The move's deadline, or another time-out of the leader, has passed.
    Deadline,
    /// The plan no longer wants it.
    Withdraw,
}

/// One incarnation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Pod {
    /// What there is of it.
    pub phase: PodPhase,
    /// The epoch that it was created with.
    pub born: u8,
    /// How often its volume was lost.
    pub wipes: u8,
    /// Starts of its sidecar.
    pub boot: u8,
    /// The record on its disk.
    pub disk: Id,
    /// The record that its sidecar goes by. Differs from the disk only without rule 3.
    pub record: Id,
    /// Its worker.
    pub worker: Worker,
    /// The command that its sidecar works at.
    pub busy: Option<Busy>,
    /// The epoch of the freeze or import that failed, and how.
    pub failure: Option<(u8, Fault)>,
    /// Whether the bytes of the state in its record are on disk. Always true with rule 8.
    pub persisted: bool,
    /// The first sequence number that went missing when its worker crashed, as its sidecar reports it; 0 for none.
    /// On disk beside the record.
    pub lost: u8,
    /// How often time may yet pass before its lease has certainly ended: 2 for a fresh one, 0 for none.
    pub lease: u8,
    /// Whether its node is cut off: it runs and serves its clients, and hears nothing.
    pub cut: bool,
    /// Whether it was ever active.
    pub activated: bool,
    /// Whether a successor of it was ever active, or (cold swap) committed with the state persisted: a deletion that
    /// was decided then may come late.
    pub released: bool,
}

/// An incarnation as an operator sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Seen {
    /// Its slot.
    pub slot: Slot,
    /// What shows of it.
    pub pod: Pod,
    /// Whether it serves.
    pub serving: bool,
    /// Whether its sidecar answers the operator.
    pub answers: bool,
}

/// An observation that a leader goes by for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Glimpse {
    /// What it saw.
    pub seen: Seen,
    /// For how many more decisions.
    pub decisions: u8,
}

/// What there is of a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PodPhase {
    /// Nothing: the slot is free.
    #[default]
    Free,
    /// It runs.
    Running,
    /// It has a deletion timestamp and still runs.
    Deleting,
    /// Its object was deleted by force; it still runs.
    Orphan,
    /// Its node is down or cut off and it does not run, but nobody can prove that.
    Down,
    /// Proven dead; the object is still there.
    Dead,
    /// Proven dead, and the object is gone.
    Gone,
}

/// A worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Worker {
    /// What it does.
    pub mode: Mode,
    /// The writes that it holds.
    pub writes: u8,
    /// The highest epoch that it was told; it obeys no lower one.
    pub epoch: u8,
}

/// What a worker does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Its first start waits for the source's end.
    Gated,
    /// Waits.
    #[default]
    Standby,
    /// Answers.
    Active,
    /// Holds still.
    Suspended,
    /// Ended with its pod, before its sidecar.
    Ended,
}

/// A command that a sidecar works at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Busy {
    /// The message that it came in.
    pub message: Id,
    /// An import's bytes have arrived.
    pub fetched: bool,
}

/// How work failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The capture.
    Capture,
    /// The way of the bytes.
    Import,
}

/// How often what may still happen, so that the exploration ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    /// Planned moves.
    pub moves: u8,
    /// Clients' writes.
    pub writes: u8,
    /// Faults of all kinds together.
    pub faults: u8,
    /// Restarts of a sidecar.
    pub sidecar_restarts: u8,
    /// Restarts of a worker.
    pub worker_restarts: u8,
    /// Nodes that go down, with all that runs there.
    pub kills: u8,
    /// Volumes that are lost.
    pub wipes: u8,
    /// Effects of an operator that arrive late.
    pub late: u8,
    /// Times that the lagging operator reads the ledger again.
    pub refreshes: u8,
    /// Observations that a decision rests on long after.
    pub glimpses: u8,
    /// Cancellations and time-outs.
    pub cancels: u8,
    /// Freezes and imports that fail.
    pub failures: u8,
    /// Checkpoints by the keeper.
    pub checkpoints: u8,
    /// Deletions of the owner's pod by somebody else.
    pub evictions: u8,
    /// Deletions by force, which leave the pod running.
    pub forced: u8,
    /// Edits by somebody else that clear the migration from the status.
    pub edits: u8,
    /// Deletions of the process.
    pub deletions: u8,
    /// Nodes that are cut off.
    pub cuts: u8,
    /// Owners that are fenced, for good reason or not.
    pub fences: u8,
    /// Machines that were declared dead while they were off, and come back before their pods are collected.
    pub returns: u8,
}

/// Messages in flight, sorted, without repetition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bag {
    ids: [Id; Self::ROOM],
}

impl Default for Bag {
    fn default() -> Self {
        Self { ids: [Self::NONE; Self::ROOM] }
    }
}

impl Bag {
    const ROOM: usize = 20;
    const NONE: Id = Id::MAX;

    /// The messages.
    pub fn iter(&self) -> impl Iterator<Item = Id> + '_ {
        self.ids.iter().copied().take_while(|id| *id != Self::NONE)
    }

    /// Puts a message in; it may be there already.
    ///
    /// # Panics
    /// With more than 20 different messages in flight: the configuration is not bounded.
    pub fn insert(&mut self, id: Id) {
        match self.ids.binary_search(&id) {
            Ok(_) => {}
            Err(at) => {
                assert_eq!(
                    self.ids[Self::ROOM - 1],
                    Self::NONE,
                    "more messages in flight than there is room for"
                );
                self.ids[at..].rotate_right(1);
                self.ids[at] = id;
            }
        }
    }

    /// Keeps the messages that `keep` says yes to.
    pub fn retain(&mut self, mut keep: impl FnMut(Id) -> bool) {
        let mut kept = Self::default();
        for (at, id) in self.iter().filter(|id| keep(*id)).enumerate() {
            kept.ids[at] = id;
        }
        *self = kept;
    }
}

impl Pod {
    /// Whether its sidecar and worker run.
    pub fn runs(&self) -> bool {
        matches!(self.phase, PodPhase::Running | PodPhase::Deleting | PodPhase::Orphan)
    }

    /// Whether its sidecar is reached.
    pub fn heard(&self) -> bool {
        self.runs() && !self.cut
    }

    /// Whether it is proven that it never runs again.
    pub fn dead(&self) -> bool {
        matches!(self.phase, PodPhase::Dead | PodPhase::Gone)
    }

    /// Whether the API server lists it.
    pub fn listed(&self) -> bool {
        matches!(self.phase, PodPhase::Running | PodPhase::Deleting | PodPhase::Down | PodPhase::Dead)
    }
}

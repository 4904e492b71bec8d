//! Replicas: copies of an owner's newest checkpoint with sidecars of other nodes (`spec.checkpoint.replicas`), so that what
//! was acknowledged outlives the owner's node.
//!
//! *Write all, read one.* The ledger names the sets of holders under which something may have been acknowledged; the
//! operator writes a set there before it tells the owner of it. With `Sync` an owner answers when its state is with every
//! holder of the set that it was told last. Who recovers the process seals the holders first ([`Seal`]): one answer of each
//! set is enough to have everything that was acknowledged, and enough to keep a former owner from ever acknowledging
//! again, because a holder refuses every epoch below the highest that it has seen.

use serde::{Deserialize, Serialize};

use crate::id::{Epoch, PodUid, ProcessUid, StateId};
use crate::ledger::PodRef;
use crate::rules::{Rule, enforced};
use crate::wire::{Addressee, Grant, Peer, Refusal, RefusalCode};

/// How many sets a ledger names at most. They grow only while no set comes to hold everything before the next is chosen.
pub const MAX_SETS: usize = 6;

/// From the operator to an owner: these hold your replicas. Obeyed beside any other command, like a renewal; nothing of it
/// is in the record, so that an owner that starts anew is told again.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Replicate {
    /// Whom it is for.
    pub to: Addressee,
    /// The epoch that it serves at.
    pub epoch: Epoch,
    /// Freshness.
    pub grant: Grant,
    /// Which set of the process it is: they are counted, and no older one is obeyed.
    pub generation: u64,
    /// The set. Empty where there is no other node: then nobody is waited for.
    pub holders: Vec<Peer>,
}

/// From an owner to a holder: this is what I have. The holder fetches the state, if it has not got it, and answers 204 when
/// it is on its disk; 503 while it is at it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Offer {
    /// The owner's process.
    pub process: ProcessUid,
    /// Which of the owner's states it is.
    pub mark: Mark,
    /// The state; absent while it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<StateId>,
    /// Whether anything may have been answered, or will be, without waiting for the holders.
    pub exposed: bool,
    /// The owner.
    pub from: Peer,
}

/// The place of a state among all states of its process: the newest is the process's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mark {
    /// The epoch that its worker served at.
    pub epoch: Epoch,
    /// Counts up within the epoch; 0 for the state that its owner began with.
    pub number: u64,
}

/// From who recovers a process to a holder: refuse everything below this epoch from now on, and say what you have.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seal {
    /// The process.
    pub process: ProcessUid,
    /// The epoch of the recovery.
    pub epoch: Epoch,
}

/// What a holder has, once it refuses everything below `epoch`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sealed {
    /// The holder's pod.
    pub pod: PodUid,
    /// The process.
    pub process: ProcessUid,
    /// The highest epoch that it has seen.
    pub epoch: Epoch,
    /// The newest state and its place; absent where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<(Mark, StateId)>,
    /// Whether more than that may have been answered.
    pub exposed: bool,
}

/// The replicas as their owner reports them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaView {
    /// The set that it was told of; absent while it was told of none since it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// Whether every holder of the set has had, at some moment since, all that had been acknowledged before.
    pub complete: bool,
    /// The holders.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holders: Vec<HolderView>,
}

/// One holder as the owner sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HolderView {
    /// Its pod.
    pub pod: PodUid,
    /// Whether it has the newest state that is on the owner's disk.
    pub current: bool,
    /// For how long it has not done as it was asked; absent while it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_milliseconds: Option<u64>,
}

/// What a holder must never forget of one process, beside the state itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Shelf {
    /// The highest epoch that it has seen; it takes nothing of a lower one.
    pub floor: Epoch,
    /// What it has.
    pub newest: Option<Mark>,
    /// Whether more than that may have been answered.
    pub exposed: bool,
}

/// What an offer comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// It is there already, or something newer of the same epoch is.
    Held,
    /// It is to be taken; then the shelf is this.
    Take(Shelf),
}

impl Shelf {
    /// Judges an offer. To be asked again when the state has been fetched: a seal may have overtaken it.
    ///
    /// # Errors
    /// A refusal: an epoch below the highest that was seen.
    pub fn judge_offer(&self, offer: &Offer) -> Result<Offered, Refusal> {
        if offer.mark.epoch < self.floor && enforced(Rule::ReplicaFloor) {
            return Err(self.stale("offer", offer.mark.epoch));
        }
        let newer = self.newest.is_some_and(|newest| newest > offer.mark);
        let same = self.newest == Some(offer.mark) && (self.exposed || !offer.exposed);
        if newer || same {
            return Ok(Offered::Held);
        }
        Ok(Offered::Take(Self {
            floor: self.floor.max(offer.mark.epoch),
            newest: Some(offer.mark),
            exposed: offer.exposed,
        }))
    }

    /// The shelf once it is sealed.
    ///
    /// # Errors
    /// A refusal: an epoch below the highest that was seen.
    pub fn sealed(&self, epoch: Epoch) -> Result<Self, Refusal> {
        if epoch < self.floor {
            return Err(self.stale("seal", epoch));
        }
        Ok(Self { floor: epoch, ..*self })
    }

    fn stale(&self, what: &str, epoch: Epoch) -> Refusal {
        Refusal {
            code: RefusalCode::StaleEpoch,
            message: format!(
                "{what}: epoch {epoch} is below {}, which this replica has seen; read the process again",
                self.floor
            ),
            floor: self.floor,
        }
    }
}

/// What the ledger says of the replicas of the owner, and keeps from one owner to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Replicas {
    /// Counts the sets.
    pub generation: u64,
    /// The sets under which something may have been acknowledged that is in no other; the last one is in force, or about to
    /// be. An empty one stands for a time in which nobody was waited for.
    pub sets: Vec<Vec<PodRef>>,
}

impl Replicas {
    /// The set that the owner is told.
    #[must_use]
    pub fn in_force(&self) -> Option<&[PodRef]> {
        self.sets.last().map(Vec::as_slice)
    }

    /// Every holder that is named, once.
    #[must_use]
    pub fn holders(&self) -> Vec<&PodRef> {
        let mut all: Vec<&PodRef> = self.sets.iter().flatten().collect();
        all.sort();
        all.dedup();
        all
    }

    /// With another set. The ones before stay until the new one is known to hold everything.
    #[must_use]
    pub fn with(&self, set: Vec<PodRef>) -> Self {
        let mut sets = self.sets.clone();
        if sets.len() >= MAX_SETS {
            // More than can be remembered: the oldest is forgotten, and that nobody can be sure of it is not.
            sets.drain(..2);
            sets.insert(0, Vec::new());
        }
        sets.push(set);
        Self { generation: self.generation + 1, sets }
    }

    /// Now that the set in force holds everything.
    #[must_use]
    pub fn settled(&self) -> Self {
        Self { generation: self.generation, sets: self.sets.last().cloned().into_iter().collect() }
    }

    /// Whether one of each set is among those who answered with a state: then nothing that waited for the holders is missing
    /// in the newest one.
    #[must_use]
    pub fn covered_by(&self, answered: impl Fn(&PodUid) -> bool) -> bool {
        !self.sets.is_empty() && self.sets.iter().all(|set| set.iter().any(|pod| answered(&pod.uid)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Digest;

    fn offer(epoch: u64, number: u64) -> Offer {
        Offer {
            process: "p".into(),
            mark: Mark { epoch: Epoch(epoch), number },
            state: Some(StateId { seq: number, digest: Digest(format!("{epoch}-{number}")), bytes: 1 }),
            exposed: false,
            from: Peer::of_this_hub("a".into(), "10.0.0.1".into(), 9710),
        }
    }

    fn taken(shelf: Shelf, offer: &Offer) -> Shelf {
        match shelf.judge_offer(offer).unwrap() {
            Offered::Take(next) => next,
            Offered::Held => panic!("held already: {shelf:?}"),
        }
    }

    #[test]
    fn a_holder_takes_what_is_newer_and_refuses_what_is_of_an_older_epoch() {
        let shelf = taken(taken(Shelf::default(), &offer(3, 1)), &offer(3, 2));
        assert_eq!(shelf.judge_offer(&offer(3, 2)), Ok(Offered::Held));
        assert_eq!(shelf.judge_offer(&offer(3, 1)), Ok(Offered::Held), "an answer that was late");
        let refused = shelf.judge_offer(&offer(2, 9)).unwrap_err();
        assert_eq!((refused.code, refused.floor), (RefusalCode::StaleEpoch, Epoch(3)));
        let next = taken(shelf, &offer(4, 0));
        assert_eq!(next.newest, Some(Mark { epoch: Epoch(4), number: 0 }));
    }

    #[test]
    fn a_sealed_holder_takes_nothing_of_the_owner_before_and_keeps_what_it_has() {
        let sealed = taken(Shelf::default(), &offer(3, 7)).sealed(Epoch(5)).unwrap();
        assert_eq!(sealed.newest, Some(Mark { epoch: Epoch(3), number: 7 }));
        assert_eq!(sealed.judge_offer(&offer(3, 8)).unwrap_err().code, RefusalCode::StaleEpoch);
        assert_eq!(sealed.sealed(Epoch(4)).unwrap_err().code, RefusalCode::StaleEpoch);
        assert_eq!(sealed.sealed(Epoch(5)), Ok(sealed), "the same again");
        taken(sealed, &offer(5, 0));
    }

    #[test]
    fn that_something_went_out_unsecured_is_news_of_a_state_that_is_there() {
        let shelf = taken(Shelf::default(), &offer(3, 1));
        let exposed = Offer { exposed: true, ..offer(3, 1) };
        let shelf = taken(shelf, &exposed);
        assert!(shelf.exposed);
        assert_eq!(shelf.judge_offer(&exposed), Ok(Offered::Held));
        assert!(!taken(shelf, &offer(4, 0)).exposed, "another owner");
    }

    fn pod(name: &str) -> PodRef {
        PodRef { name: name.into(), uid: name.into(), node: name.into() }
    }

    #[test]
    fn one_answer_of_each_set_is_enough() {
        let replicas = Replicas::default().with(vec![pod("a"), pod("b")]).with(vec![pod("b"), pod("c")]);
        let covered = |names: &[&str]| replicas.covered_by(|uid| names.contains(&uid.0.as_str()));
        assert!(covered(&["b"]) && covered(&["a", "c"]));
        assert!(!covered(&["a"]) && !covered(&["c"]) && !covered(&[]));
        assert!(!Replicas::default().covered_by(|_| true), "nobody ever held anything");
        assert!(!replicas.with(Vec::new()).covered_by(|_| true), "nobody was waited for in the end");
        assert_eq!(replicas.settled().sets, [[pod("b"), pod("c")]]);
        assert_eq!(replicas.holders(), [&pod("a"), &pod("b"), &pod("c")]);
    }

    #[test]
    fn what_cannot_be_remembered_is_not_vouched_for() {
        let many = (0..20).fold(Replicas::default(), |all, number| all.with(vec![pod(&number.to_string())]));
        assert_eq!((many.generation, many.sets.len()), (20, MAX_SETS));
        assert!(!many.covered_by(|_| true));
        assert!(many.settled().covered_by(|_| true));
    }
}

//! With whom the newest state of this pod is.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use processhub_protocol::id::{Digest, Epoch, PodUid, StateId};
use processhub_protocol::replica::{HolderView, ReplicaView, Replicate};
use processhub_protocol::wire::Peer;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::checkpoint::Progress;
use crate::keeper::Kept;

/// A holder that has said nothing for so long does not answer: one that is fetching says so sooner.
const SILENCE: Duration = Duration::from_secs(1);

/// The set of holders that this owner was told of. In memory: an owner that starts anew waits to be told.
#[derive(Debug, Default)]
pub(crate) struct Holders {
    told: Mutex<Option<Told>>,
    changed: watch::Sender<u64>,
}

#[derive(Debug)]
struct Told {
    epoch: Epoch,
    generation: u64,
    holders: Vec<Holder>,
}

#[derive(Debug)]
struct Holder {
    peer: Peer,
    /// The newest that it has, as it has said itself.
    held: Option<Newest>,
    /// Up to where that has everything.
    point: Option<Progress>,
    /// Since when it does not do as it is asked.
    failing: Option<Instant>,
    /// When it was asked what it has not answered yet.
    asked: Option<Instant>,
    /// What it may fetch now. Stays readable when it is not the newest any more.
    offered: Option<Kept>,
}

/// What an owner has to offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Newest {
    /// The epoch that it serves at.
    pub(crate) epoch: Epoch,
    /// The newest state on its disk.
    pub(crate) state: Option<StateId>,
    /// Whether anything may have been answered, or will be, that waits for no holder.
    pub(crate) exposed: bool,
}

/// A set by its number, and who is in it.
pub(crate) type Set = (u64, Vec<Peer>);

impl Holders {
    fn lock(&self) -> MutexGuard<'_, Option<Told>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another set is in force from now on; `false` when it is older than the one that is. What a holder of both is known to
    /// have is asked for anew, which costs it nothing.
    pub(crate) fn tell(&self, command: Replicate) -> bool {
        let mut told = self.lock();
        match told.as_ref() {
            Some(now) if now.epoch == command.epoch && now.generation > command.generation => return false,
            Some(now) if now.epoch == command.epoch && now.generation == command.generation => return true,
            Some(_) | None => {}
        }
        let holder =
            |peer| Holder { peer, held: None, point: None, failing: None, asked: None, offered: None };
        *told = Some(Told {
            epoch: command.epoch,
            generation: command.generation,
            holders: command.holders.into_iter().map(holder).collect(),
        });
        drop(told);
        self.poke();
        true
    }

    /// Sees each change of the set and of what is in it.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Something about them has changed.
    pub(crate) fn poke(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// The set in force at `epoch`.
    pub(crate) fn set(&self, epoch: Option<Epoch>) -> Option<Set> {
        let told = self.lock();
        let told = told.as_ref().filter(|told| Some(told.epoch) == epoch)?;
        Some((told.generation, told.holders.iter().map(|holder| holder.peer.clone()).collect()))
    }

    /// Changes one holder of a set, unless there is another set by now.
    fn with<T>(&self, generation: u64, pod: &PodUid, change: impl FnOnce(&mut Holder) -> T) -> Option<T> {
        let mut told = self.lock();
        let told = told.as_mut().filter(|told| told.generation == generation)?;
        told.holders.iter_mut().find(|holder| holder.peer.pod == *pod).map(change)
    }

    /// Whether this holder is known to have `newest`; then it has everything up to `point`.
    pub(crate) fn has(&self, generation: u64, pod: &PodUid, newest: &Newest, point: Progress) -> bool {
        let has = self.with(generation, pod, |holder| {
            let has = holder.held.as_ref() == Some(newest);
            if has {
                holder.point = Some(point);
            }
            has
        });
        has.unwrap_or(false)
    }

    /// It may fetch this from now on.
    pub(crate) fn offers(&self, generation: u64, pod: &PodUid, kept: Option<Kept>) {
        self.with(generation, pod, |holder| {
            holder.offered = kept;
            holder.asked = Some(Instant::now());
        });
    }

    /// What became of an offer.
    pub(crate) fn answered(&self, generation: u64, pod: &PodUid, answer: Answer) {
        self.with(generation, pod, |holder| {
            let asked = holder.asked.take();
            match answer {
                Answer::Holds(newest, point) => {
                    holder.held = Some(newest);
                    holder.point = Some(point);
                    holder.failing = None;
                    holder.offered = None;
                }
                Answer::Fetches => holder.failing = None,
                Answer::Fails => holder.failing = holder.failing.or(asked),
            }
        });
        self.poke();
    }

    /// The checkpoint with this digest, if a holder may fetch it at `epoch`.
    pub(crate) fn offered(&self, epoch: Epoch, digest: &Digest) -> Option<Kept> {
        let told = self.lock();
        let told = told.as_ref().filter(|told| told.epoch == epoch)?;
        let mut offered = told.holders.iter().filter_map(|holder| holder.offered.as_ref());
        offered.find(|kept| kept.manifest().state.digest == *digest).cloned()
    }

    /// How far the holders of the set in force at `epoch` have what `now` is about; `None` without a set.
    ///
    /// `now` is asked for when the points are known: what counts the workers that died must not be older than they are.
    pub(crate) fn secured(&self, epoch: Option<Epoch>, now: impl FnOnce() -> Progress) -> Progress {
        let told = self.lock();
        let Some(told) = told.as_ref().filter(|told| Some(told.epoch) == epoch) else {
            return now().nowhere();
        };
        let points: Option<Vec<Progress>> = told.holders.iter().map(|holder| holder.point).collect();
        let now = now();
        points.map_or_else(|| now.nowhere(), |points| now.within(points))
    }

    /// Whether every holder of the set in force at `epoch` knows that something is answered without waiting for it.
    pub(crate) fn know_of_exposure(&self, epoch: Option<Epoch>) -> bool {
        let told = self.lock();
        let knows = |holder: &Holder| holder.held.as_ref().is_some_and(|held| held.exposed);
        told.as_ref()
            .filter(|told| Some(told.epoch) == epoch)
            .is_some_and(|told| told.holders.iter().all(knows))
    }

    /// As it is reported by an owner at `epoch` whose newest is `newest`.
    pub(crate) fn view(&self, newest: Option<&Newest>) -> ReplicaView {
        let told = self.lock();
        let epoch = newest.map(|newest| newest.epoch);
        let Some(told) = told.as_ref().filter(|told| Some(told.epoch) == epoch) else {
            return ReplicaView { generation: None, complete: false, holders: Vec::new() };
        };
        let milliseconds = |since: Instant| u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        ReplicaView {
            generation: Some(told.generation),
            // Each was offered, after the set was told, what was the newest then.
            complete: told.holders.iter().all(|holder| holder.held.is_some()),
            holders: told
                .holders
                .iter()
                .map(|holder| HolderView {
                    pod: holder.peer.pod.clone(),
                    current: newest.is_some_and(|newest| {
                        holder.held.as_ref().is_some_and(|held| held.state == newest.state)
                    }),
                    failing_milliseconds: holder
                        .failing
                        .or(holder.asked.filter(|asked| asked.elapsed() > SILENCE))
                        .map(milliseconds),
                })
                .collect(),
        }
    }
}

/// What came of an offer.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// It has this, which has everything up to there.
    Holds(Newest, Progress),
    /// It is fetching it.
    Fetches,
    /// It does not answer, or will not have it.
    Fails,
}

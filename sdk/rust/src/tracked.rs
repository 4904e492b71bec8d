//! A state that knows what changed in it: captured while clients are served, as a whole or as a delta, for free.
//!
//! ```
//! use processhub_sdk::{Refusal, Table, Tables, Tracked, TrackedPart, Value};
//!
//! #[derive(Clone, Default)]
//! struct Shop {
//!     orders: Table<u64, String>,
//!     total: Value<u64>,
//! }
//!
//! impl Tables for Shop {
//!     fn parts(&mut self) -> Vec<(&'static str, &mut dyn TrackedPart)> {
//!         vec![("state", &mut self.total), ("table.orders", &mut self.orders)]
//!     }
//! }
//!
//! let shop = Tracked::new(Shop::default());
//! shop.change(|shop| {
//!     shop.orders.insert(7, "tea".to_owned());
//!     *shop.total += 1;
//! });
//! assert_eq!(shop.seq(), 1);
//! assert_eq!(shop.read(|shop| shop.orders.len()), 1);
//! assert_eq!(shop.seq(), 1, "a read is no change");
//! ```

mod blob;
mod lines;
mod table;
mod value;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use processhub_protocol::contract::MAX_INTEGER;
use processhub_protocol::id::Seq;

use crate::import::Imported;
use crate::part::{Part, PartSource};
use crate::worker::Refusal;

pub use blob::Blob;
pub(crate) use lines::{pieces_of, rows_of};
pub use table::{Key, Record, Table};
pub use value::Value;

/// What a tracked state consists of.
///
/// A copy (`Clone`) shares what it can: [`Table`], [`Value`] and [`Blob`] are copied in a time that does not depend on
/// their size. What a copy costs here, each capture costs while clients wait.
pub trait Tables: Clone + Default + Send + Sync + 'static {
    /// Its parts with their names, always the same ones: `state`, `dictionary`, `table.<name>` or any other
    /// `[a-z0-9._-]{1,63}`.
    fn parts(&mut self) -> Vec<(&'static str, &mut dyn TrackedPart)>;

    /// Whether a state that came in makes sense. It is not the worker's yet. `base`: the state that a delta was put on;
    /// what is the same there was checked before.
    ///
    /// # Errors
    /// What is told to the sidecar; [`Refusal::cannot_accept`] aborts the move and leaves the old owner in charge.
    fn check(&self, _base: Option<&Self>) -> Result<(), Refusal> {
        Ok(())
    }

    /// Takes in the state of another incarnation of the same process, after a division of the cluster (reason `Merge`).
    ///
    /// # Errors
    /// As [`Tables::check`]; the default refuses.
    fn merge(&mut self, _other: Self) -> Result<(), Refusal> {
        Err(Refusal::cannot_accept("this worker does not merge two states: implement `merge`"))
    }
}

/// [`Table`], [`Value`] or [`Blob`].
pub trait TrackedPart: part::Tracking {}

/// What the library sees of a tracked state; [`Tracked`] is the only one that has it.
pub trait Track: part::Seen {}

pub(crate) mod part {
    use super::{Arc, Imported, PartSource, Refusal, Seq, Snapshot};

    /// How a part keeps track of what changed in it.
    pub trait Tracking {
        /// Whether it changed since the last [`Tracking::tick`].
        fn touched(&self) -> bool;
        /// From now on changes have this number; 0 while the part is being made.
        fn tick(&mut self, now: Seq);
        /// What was told in the last [`Tracking::tick`].
        fn now(&self) -> Seq;
        /// Whether it still knows all that changed after `since`.
        fn reaches(&self, since: Seq) -> bool;
        /// All of it.
        fn whole(&self) -> Arc<dyn PartSource>;
        /// What changed after `since`, if anything did.
        fn delta(&self, since: Seq) -> Option<Arc<dyn PartSource>>;
        /// Takes what [`Tracking::whole`] wrote; says what is wrong with it.
        fn read(&mut self, source: &dyn PartSource) -> Result<(), Refusal>;
        /// Takes what [`Tracking::delta`] wrote.
        fn read_delta(&mut self, source: &dyn PartSource) -> Result<(), Refusal>;
    }

    /// Puts a staged state, with its number, in the place of the present one.
    pub type Install<'a> = Box<dyn FnOnce(Seq) + Send + 'a>;

    /// What the commands of the contract need of a tracked state.
    pub trait Seen: Send + Sync {
        fn number(&self) -> Seq;
        fn snapshot(&self, since: Option<Seq>) -> Result<Snapshot, Refusal>;
        fn stage(&self, state: &Imported, since: Option<Seq>, merge: bool) -> Result<Install<'_>, Refusal>;
        fn renew(&self);
    }
}

/// A state at one point in time.
pub struct Snapshot {
    pub(crate) seq: Seq,
    pub(crate) since: Option<Seq>,
    pub(crate) parts: Vec<Part>,
}

/// A state under a lock, with the number of its last change.
///
/// Give it to the library with [`crate::Worker::tracked`]: the worker then says `capture: Live`, answers captures and
/// deltas while it serves, numbers its answers by real changes, and takes deltas of its own version.
#[derive(Debug, Default)]
pub struct Tracked<T> {
    inner: RwLock<Inner<T>>,
    /// Written under the lock, read without it.
    seq: AtomicU64,
}

#[derive(Debug, Default)]
struct Inner<T> {
    data: T,
    /// The number at which the state came in as a whole: nothing is known of what was before.
    base: Seq,
}

impl<T: Tables> Tracked<T> {
    /// A state that nobody has changed yet: its number is 0.
    #[must_use]
    pub fn new(mut data: T) -> Self {
        tick(&mut data, 1);
        Self { inner: RwLock::new(Inner { data, base: 0 }), seq: AtomicU64::new(0) }
    }

    /// The number of the last change.
    #[must_use]
    pub fn seq(&self) -> Seq {
        self.seq.load(Ordering::Acquire)
    }

    /// Looks at the state. Others may look at the same time.
    pub fn read<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.shared().data)
    }

    /// Changes the state, alone. All that `work` does is one change: no capture shows half of it.
    pub fn change<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        let mut inner = self.alone();
        let result = work(&mut inner.data);
        self.count(&mut inner);
        result
    }

    /// As [`Tracked::change`], on a copy: after an error the state is what it was.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn try_change<R, E>(&self, work: impl FnOnce(&mut T) -> Result<R, E>) -> Result<R, E> {
        let mut inner = self.alone();
        let mut copy = inner.data.clone();
        let result = work(&mut copy)?;
        let old = std::mem::replace(&mut inner.data, copy);
        self.count(&mut inner);
        drop(inner);
        drop(old);
        Ok(result)
    }

    fn shared(&self) -> RwLockReadGuard<'_, Inner<T>> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn alone(&self) -> RwLockWriteGuard<'_, Inner<T>> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Numbers a change, if it is one.
    fn count(&self, inner: &mut Inner<T>) {
        let seq = self.seq.load(Ordering::Acquire) + 1;
        let parts = inner.data.parts();
        let touched = parts.iter().any(|(_, part)| part.touched());
        // Another table was put in a part's place: nobody knows what changed in it.
        let replaced = parts.iter().any(|(_, part)| part.now() != seq);
        if replaced {
            inner.base = seq;
        }
        if touched || replaced {
            tick(&mut inner.data, seq + 1);
            self.seq.store(seq, Ordering::Release);
        }
    }

    fn install(&self, mut data: T, seq: Seq, whole: bool) {
        tick(&mut data, seq + 1);
        let mut inner = self.alone();
        let old = std::mem::replace(&mut inner.data, data);
        if whole {
            inner.base = seq;
        }
        self.seq.store(seq, Ordering::Release);
        drop(inner);
        // Outside of the lock: a large state takes its time.
        drop(old);
    }
}

fn tick<T: Tables>(data: &mut T, now: Seq) {
    for (_, part) in data.parts() {
        part.tick(now);
    }
}

impl<T: Tables> Track for Tracked<T> {}

impl<T: Tables> part::Seen for Tracked<T> {
    fn number(&self) -> Seq {
        self.seq()
    }

    fn snapshot(&self, since: Option<Seq>) -> Result<Snapshot, Refusal> {
        let (mut copy, base, seq) = {
            let inner = self.shared();
            (inner.data.clone(), inner.base, self.seq())
        };
        let parts = copy.parts();
        let known =
            |since: &Seq| (base..=seq).contains(since) && parts.iter().all(|(_, part)| part.reaches(*since));
        let since = since.filter(known);
        let mut captured = Vec::with_capacity(parts.len());
        for (name, part) in parts {
            let source = match since {
                None => Some(part.whole()),
                Some(since) => part.delta(since),
            };
            if let Some(source) = source {
                captured.push(Part::of(name, source)?);
            }
        }
        Ok(Snapshot { seq, since, parts: captured })
    }

    fn stage(&self, state: &Imported, since: Option<Seq>, merge: bool) -> Result<part::Install<'_>, Refusal> {
        let base = since.map(|_| self.read(T::clone));
        let mut next = base.clone().unwrap_or_default();
        let mut unknown: BTreeSet<_> = state.names().map(ToString::to_string).collect();
        for (name, part) in next.parts() {
            let read = match (state.find(name), since) {
                (Some(source), None) => part.read(source),
                (Some(source), Some(_)) => part.read_delta(source),
                (None, Some(_)) => Ok(()),
                (None, None) => Err(Refusal::cannot_accept("is missing: add it in `code_change`")),
            };
            read.map_err(|refusal| refusal.about(&format!("part `{name}`")))?;
            unknown.remove(name);
        }
        if let Some(name) = unknown.first() {
            let message = format!("part `{name}` is not one of this worker's: remove it in `code_change`");
            return Err(Refusal::cannot_accept(&message));
        }
        next.check(base.as_ref())?;
        if merge {
            let mut own = self.read(T::clone);
            own.merge(next)?;
            next = own;
        }
        let whole = since.is_none();
        Ok(Box::new(move |seq| self.install(next, seq.min(MAX_INTEGER), whole)))
    }

    fn renew(&self) {
        let mut inner = self.alone();
        let seq = self.seq.load(Ordering::Acquire) + 1;
        tick(&mut inner.data, seq + 1);
        inner.base = seq;
        self.seq.store(seq, Ordering::Release);
    }
}

#[cfg(test)]
mod tests;

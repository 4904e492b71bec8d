//! An ordered table that knows which of its rows changed after which number.

use std::borrow::Borrow;
use std::fmt;
use std::io;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use processhub_protocol::id::Seq;
use rpds::RedBlackTreeMapSync;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::TrackedPart;
use super::lines::{self, Line};
use super::part::Tracking;
use crate::part::{PIECE, PartSource, Pieces};
use crate::worker::Refusal;

/// Changes of rows that are gone and still remembered, beside one for each two rows that are there. Beyond that the
/// oldest are forgotten, and a delta from before them becomes a whole state.
const REMEMBERED: usize = 4096;

/// What may be a key of a [`Table`].
pub trait Key: Ord + Clone + Serialize + DeserializeOwned + Send + Sync + 'static {}

impl<T: Ord + Clone + Serialize + DeserializeOwned + Send + Sync + 'static> Key for T {}

/// What may be a row of a [`Table`].
pub trait Record: Clone + Serialize + DeserializeOwned + Send + Sync + 'static {}

impl<T: Clone + Serialize + DeserializeOwned + Send + Sync + 'static> Record for T {}

/// An ordered map from keys to rows. A copy costs nothing and shares all rows that neither side changes afterwards.
///
/// It is written as lines of JSON, `[key,value]` for each row, so that other languages can read it.
pub struct Table<K: Key, V: Record> {
    rows: RedBlackTreeMapSync<K, Row<V>>,
    /// The rows that changed, in the order of their last change.
    log: RedBlackTreeMapSync<Mark, K>,
    live: usize,
    /// Changes up to this number are forgotten.
    floor: Seq,
    /// Where the next change stands.
    next: Mark,
    touched: bool,
}

/// The number of a change, and which of that change's rows it is.
type Mark = (Seq, u64);

#[derive(Debug)]
struct Row<V> {
    /// Its place in the log; none if it did not change since the whole came in.
    mark: Option<Mark>,
    /// None: it is gone.
    value: Option<Arc<V>>,
}

impl<V> Clone for Row<V> {
    fn clone(&self) -> Self {
        Self { mark: self.mark, value: self.value.clone() }
    }
}

impl<K: Key, V: Record> Default for Table<K, V> {
    fn default() -> Self {
        Self {
            rows: RedBlackTreeMapSync::new_sync(),
            log: RedBlackTreeMapSync::new_sync(),
            live: 0,
            floor: 0,
            next: (0, 0),
            touched: false,
        }
    }
}

impl<K: Key, V: Record> Clone for Table<K, V> {
    fn clone(&self) -> Self {
        Self { rows: self.rows.clone(), log: self.log.clone(), ..*self }
    }
}

impl<K: Key + fmt::Debug, V: Record + fmt::Debug> fmt::Debug for Table<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Key, V: Record + PartialEq> PartialEq for Table<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.live == other.live && self.iter().eq(other.iter())
    }
}

impl<K: Key, V: Record> FromIterator<(K, V)> for Table<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(rows: I) -> Self {
        let mut table = Self::default();
        for (key, value) in rows {
            table.insert(key, value);
        }
        table
    }
}

impl<K: Key, V: Record> Table<K, V> {
    /// The row of `key`.
    #[must_use]
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.rows.get(key).and_then(|row| row.value.as_deref())
    }

    /// Whether there is a row of `key`.
    #[must_use]
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// All rows, by their keys' order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.rows.iter().filter_map(|(key, row)| Some((key, row.value.as_deref()?)))
    }

    /// Puts a row in place of the one of that key, if there is one.
    pub fn insert(&mut self, key: K, value: V) {
        self.put(key, Some(Arc::new(value)));
    }

    /// The row of `key`, to be changed: it counts as changed.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let key = self.key(key)?;
        let mark = self.mark(&key);
        let row = self.rows.get_mut::<K>(&key)?;
        row.mark = mark;
        row.value.as_mut().map(Arc::make_mut)
    }

    /// Removes the row of `key`; false if there was none.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        let found = self.key(key);
        let removed = found.is_some();
        if let Some(key) = found {
            self.put(key, None);
        }
        removed
    }

    /// Removes every row.
    pub fn clear(&mut self) {
        let keys: Vec<K> = self.iter().map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.put(key, None);
        }
    }

    /// The key of a row that is there.
    fn key<Q: Ord + ?Sized>(&self, key: &Q) -> Option<K>
    where
        K: Borrow<Q>,
    {
        let (key, row) = self.rows.get_key_value(key)?;
        row.value.is_some().then(|| key.clone())
    }

    fn put(&mut self, key: K, value: Option<Arc<V>>) {
        let was = self.contains_key::<K>(&key);
        let mark = self.mark(&key);
        self.live = self.live - usize::from(was) + usize::from(value.is_some());
        if mark.is_none() && value.is_none() {
            self.rows.remove_mut::<K>(&key);
        } else {
            self.rows.insert_mut(key, Row { mark, value });
        }
        self.forget();
    }

    /// Notes that the row of `key` changes now. None while the table is being made: what is there is its base.
    fn mark(&mut self, key: &K) -> Option<Mark> {
        self.touched = true;
        if let Some(old) = self.rows.get::<K>(key).and_then(|row| row.mark) {
            self.log.remove_mut(&old);
        }
        let mark = self.next;
        if mark.0 == 0 {
            return None;
        }
        self.log.insert_mut(mark, key.clone());
        self.next.1 += 1;
        Some(mark)
    }

    fn forget(&mut self) {
        while self.log.size() > 2 * self.live + REMEMBERED {
            let Some((mark, key)) = self.log.first().map(|(mark, key)| (*mark, key.clone())) else { return };
            self.log.remove_mut(&mark);
            self.floor = self.floor.max(mark.0);
            let gone = match self.rows.get_mut::<K>(&key) {
                Some(row) => {
                    row.mark = None;
                    row.value.is_none()
                }
                None => false,
            };
            if gone {
                self.rows.remove_mut::<K>(&key);
            }
        }
    }
}

impl<K: Key, V: Record> TrackedPart for Table<K, V> {}

impl<K: Key, V: Record> Tracking for Table<K, V> {
    fn touched(&self) -> bool {
        self.touched
    }

    fn tick(&mut self, now: Seq) {
        self.next = (now, 0);
        self.touched = false;
    }

    fn now(&self) -> Seq {
        self.next.0
    }

    fn reaches(&self, since: Seq) -> bool {
        self.floor <= since
    }

    fn whole(&self) -> Arc<dyn PartSource> {
        Arc::new(Whole(self.clone()))
    }

    fn delta(&self, since: Seq) -> Option<Arc<dyn PartSource>> {
        let changed = self.log.last().is_some_and(|(mark, _)| mark.0 > since);
        changed.then(|| Arc::new(Delta { table: self.clone(), since }) as Arc<dyn PartSource>)
    }

    fn read(&mut self, source: &dyn PartSource) -> Result<(), Refusal> {
        lines::read(source, |Line { key, value }| {
            let value: V = value.ok_or_else(|| Refusal::cannot_accept("a row without a value"))?;
            if self.contains_key::<K>(&key) {
                return Err(Refusal::cannot_accept("a second row of the same key"));
            }
            self.insert(key, value);
            Ok(())
        })
    }

    fn read_delta(&mut self, source: &dyn PartSource) -> Result<(), Refusal> {
        lines::read(source, |Line { key, value }: Line<K, V>| {
            self.put(key, value.map(Arc::new));
            Ok(())
        })
    }
}

/// Every row of a table as it was.
struct Whole<K: Key, V: Record>(Table<K, V>);

/// Every row of a table that changed after a number.
struct Delta<K: Key, V: Record> {
    table: Table<K, V>,
    since: Seq,
}

/// Pieces of about [`PIECE`] bytes; `fill` writes one and says whether there is more.
fn pieces(mut fill: impl FnMut(&mut Vec<u8>) -> io::Result<bool> + Send + 'static) -> Pieces {
    let mut more = true;
    Box::new(std::iter::from_fn(move || {
        if !more {
            return None;
        }
        let mut piece = Vec::new();
        match fill(&mut piece) {
            Ok(rest) => more = rest,
            Err(error) => {
                more = false;
                return Some(Err(error));
            }
        }
        (!piece.is_empty()).then(|| Ok(Bytes::from(piece)))
    }))
}

impl<K: Key, V: Record> PartSource for Whole<K, V> {
    fn size(&self) -> Option<u64> {
        self.0.is_empty().then_some(0)
    }

    fn pieces(&self) -> Pieces {
        let rows = self.0.rows.clone();
        let mut last: Option<K> = None;
        pieces(move |piece| {
            let from = last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
            let mut end = None;
            for (key, row) in rows.range::<K, _>((from, Bound::Unbounded)) {
                if let Some(value) = row.value.as_deref() {
                    lines::write(piece, key, Some(value))?;
                }
                if piece.len() >= PIECE {
                    end = Some(key.clone());
                    break;
                }
            }
            last = end;
            Ok(last.is_some())
        })
    }
}

impl<K: Key, V: Record> PartSource for Delta<K, V> {
    fn size(&self) -> Option<u64> {
        None
    }

    fn pieces(&self) -> Pieces {
        let table = self.table.clone();
        let mut last: Mark = (self.since, u64::MAX);
        pieces(move |piece| {
            for (mark, key) in table.log.range((Bound::Excluded(last), Bound::Unbounded)) {
                lines::write(piece, key, table.get::<K>(key))?;
                if piece.len() >= PIECE {
                    last = *mark;
                    return Ok(true);
                }
            }
            Ok(false)
        })
    }
}

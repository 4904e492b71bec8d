//! One value that knows when it changed.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use bytes::Bytes;
use processhub_protocol::id::Seq;

use super::TrackedPart;
use super::part::Tracking;
use super::table::Record;
use crate::part::{PartSource, Pieces};
use crate::worker::Refusal;

/// One value, used as the `T` that it holds. It is written as JSON, in a delta too: for a value that is large and changes
/// in small places use a [`super::Table`].
#[derive(Clone, Debug, Default)]
pub struct Value<T> {
    value: Arc<T>,
    changed: Seq,
    now: Seq,
    touched: bool,
}

impl<T> Value<T> {
    /// Holds `value`.
    #[must_use]
    pub fn new(value: T) -> Self {
        Self { value: Arc::new(value), changed: 0, now: 0, touched: false }
    }
}

impl<T: PartialEq> PartialEq for Value<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T> Deref for Value<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Clone> DerefMut for Value<T> {
    /// It counts as changed.
    fn deref_mut(&mut self) -> &mut T {
        (self.changed, self.touched) = (self.now, true);
        Arc::make_mut(&mut self.value)
    }
}

impl<T: Record> TrackedPart for Value<T> {}

impl<T: Record> Tracking for Value<T> {
    fn touched(&self) -> bool {
        self.touched
    }

    fn tick(&mut self, now: Seq) {
        (self.now, self.touched) = (now, false);
    }

    fn now(&self) -> Seq {
        self.now
    }

    fn reaches(&self, _: Seq) -> bool {
        true
    }

    fn whole(&self) -> Arc<dyn PartSource> {
        Arc::new(Json(Arc::clone(&self.value)))
    }

    fn delta(&self, since: Seq) -> Option<Arc<dyn PartSource>> {
        (self.changed > since).then(|| self.whole())
    }

    fn read(&mut self, source: &dyn PartSource) -> Result<(), Refusal> {
        let bytes = source.pieces().collect::<Result<Vec<_>, _>>()?.concat();
        let value = serde_json::from_slice(&bytes).map_err(|error| {
            // Where, not what: serde's own message may quote the state.
            let (line, column) = (error.line(), error.column());
            let message = format!("is not as this version writes it, at line {line}, column {column}");
            Refusal::cannot_accept(&message)
        })?;
        (self.value, self.changed, self.touched) = (Arc::new(value), self.now, true);
        Ok(())
    }

    fn read_delta(&mut self, source: &dyn PartSource) -> Result<(), Refusal> {
        self.read(source)
    }
}

/// A value as it was, made into bytes when it is read.
struct Json<T>(Arc<T>);

impl<T: Record> PartSource for Json<T> {
    fn size(&self) -> Option<u64> {
        None
    }

    fn pieces(&self) -> Pieces {
        match serde_json::to_vec(self.0.as_ref()) {
            Ok(bytes) => Bytes::from(bytes).pieces(),
            Err(error) => Box::new(std::iter::once(Err(error.into()))),
        }
    }
}

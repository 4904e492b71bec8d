//! Bytes that know when they changed.

use std::sync::Arc;

use bytes::Bytes;
use processhub_protocol::id::Seq;

use super::TrackedPart;
use super::part::Tracking;
use crate::part::PartSource;
use crate::worker::Refusal;

/// Bytes in pieces, replaced as a whole, and written as they are.
#[derive(Clone, Debug, Default)]
pub struct Blob {
    pieces: Arc<Vec<Bytes>>,
    changed: Seq,
    now: Seq,
    touched: bool,
}

impl PartialEq for Blob {
    fn eq(&self, other: &Self) -> bool {
        self.pieces == other.pieces
    }
}

impl Blob {
    /// The bytes.
    #[must_use]
    pub fn pieces(&self) -> &Arc<Vec<Bytes>> {
        &self.pieces
    }

    /// Replaces them.
    pub fn set(&mut self, pieces: Vec<Bytes>) {
        (self.pieces, self.changed, self.touched) = (Arc::new(pieces), self.now, true);
    }
}

impl TrackedPart for Blob {}

impl Tracking for Blob {
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
        Arc::clone(&self.pieces) as Arc<dyn PartSource>
    }

    fn delta(&self, since: Seq) -> Option<Arc<dyn PartSource>> {
        (self.changed > since).then(|| self.whole())
    }

    fn read(&mut self, source: &dyn PartSource) -> Result<(), Refusal> {
        self.set(source.pieces().collect::<Result<_, _>>()?);
        Ok(())
    }

    fn read_delta(&mut self, source: &dyn PartSource) -> Result<(), Refusal> {
        self.read(source)
    }
}

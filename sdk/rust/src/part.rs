//! Parts of a state: named, opaque, readable as often as asked, in pieces of bounded size.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use processhub_protocol::contract::{BadName, PartName};
use serde::Serialize;

use crate::worker::Refusal;

/// Bytes that [`Bytes`] is cut into when it is read.
pub(crate) const PIECE: usize = 1 << 20;

/// The bytes of a part in order. It is iterated on a thread that may block.
pub type Pieces = Box<dyn Iterator<Item = io::Result<Bytes>> + Send>;

/// Where the bytes of a part come from. Each call of [`PartSource::pieces`] gives the same bytes, until the worker is
/// resumed or the capture is deleted.
pub trait PartSource: Send + Sync + 'static {
    /// Their number, if it is known without reading them.
    fn size(&self) -> Option<u64>;

    /// The bytes from the start, in pieces that fit in memory (about 1 MiB).
    fn pieces(&self) -> Pieces;
}

impl PartSource for Bytes {
    fn size(&self) -> Option<u64> {
        Some(self.len() as u64)
    }

    fn pieces(&self) -> Pieces {
        let mut rest = self.clone();
        Box::new(std::iter::from_fn(move || {
            (!rest.is_empty()).then(|| Ok(rest.split_to(rest.len().min(PIECE))))
        }))
    }
}

impl PartSource for Vec<Bytes> {
    fn size(&self) -> Option<u64> {
        Some(self.iter().map(|piece| piece.len() as u64).sum())
    }

    fn pieces(&self) -> Pieces {
        Box::new(self.clone().into_iter().map(Ok))
    }
}

/// One part of a captured state.
#[derive(Clone)]
pub struct Part {
    name: PartName,
    source: Arc<dyn PartSource>,
}

impl Part {
    /// A part named `name`, such as `state`, `dictionary` or `table.orders`.
    ///
    /// # Errors
    /// `Internal` for a name that is not `[a-z0-9._-]{1,63}`.
    pub fn new(name: &str, source: impl PartSource) -> Result<Self, Refusal> {
        let name =
            name.parse().map_err(|error: BadName| Refusal::internal(&format!("part `{name}`: {error}")))?;
        Ok(Self { name, source: Arc::new(source) })
    }

    /// A part that holds `value` as JSON.
    ///
    /// # Errors
    /// As [`Part::new`], and `Internal` for a value that JSON cannot hold.
    pub fn json<T: Serialize>(name: &str, value: &T) -> Result<Self, Refusal> {
        let bytes = serde_json::to_vec(value)
            .map_err(|error| Refusal::internal(&format!("part `{name}` cannot be written: {error}")))?;
        Self::new(name, Bytes::from(bytes))
    }

    /// A part that holds the rows of a [`crate::Table`]: for [`crate::Worker::code_change`].
    ///
    /// # Errors
    /// As [`Part::json`].
    pub fn rows<K: Serialize, V: Serialize>(
        name: &str,
        rows: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, Refusal> {
        let pieces = crate::tracked::pieces_of(rows)
            .map_err(|error| Refusal::internal(&format!("part `{name}` cannot be written: {error}")))?;
        Self::new(name, pieces)
    }

    pub(crate) fn of(name: &str, source: Arc<dyn PartSource>) -> Result<Self, Refusal> {
        Ok(Self { source, ..Self::new(name, Bytes::new())? })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &PartName {
        &self.name
    }

    /// Its bytes.
    #[must_use]
    pub fn source(&self) -> &Arc<dyn PartSource> {
        &self.source
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(source: &dyn PartSource) -> Vec<Bytes> {
        source.pieces().map(|piece| piece.unwrap()).collect()
    }

    #[test]
    fn bytes_are_read_in_pieces_and_again() {
        let bytes = Bytes::from(vec![7; 2 * PIECE + 1]);
        for _ in 0..2 {
            let lengths: Vec<_> = read(&bytes).iter().map(Bytes::len).collect();
            assert_eq!(lengths, [PIECE, PIECE, 1]);
        }
        assert!(read(&Bytes::new()).is_empty());
    }

    #[test]
    fn pieces_know_their_sum() {
        let pieces = vec![Bytes::from_static(b"ab"), Bytes::from_static(b"c")];
        assert_eq!(pieces.size(), Some(3));
        assert_eq!(read(&pieces).concat(), b"abc");
    }

    #[test]
    fn a_part_needs_a_name_of_the_contract() {
        assert!(Part::new("table.a", Bytes::new()).is_ok());
        assert!(Part::new("Table A", Bytes::new()).is_err());
    }
}

//! A state on its way in: slices become parts, parts become an [`Imported`] that the worker decodes.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use processhub_protocol::contract::assembly::{Assembly, Place};
use processhub_protocol::contract::{ErrorBody, ErrorCode, Name, PartName, PartSize};
use serde::de::DeserializeOwned;

use crate::part::{Part, PartSource};
use crate::worker::{Refusal, Worker};

/// Takes the bytes of one part, in order.
pub trait ImportSink: Send {
    /// Takes the next piece, of at most 8 MiB.
    ///
    /// # Errors
    /// What is told to the sidecar. What was written of the part is void; it starts over with a new sink.
    fn write(&mut self, piece: Bytes) -> Result<(), Refusal>;

    /// All bytes so far, to be read while the worker decodes them. May be called again, also after more pieces.
    ///
    /// # Errors
    /// What is told to the sidecar.
    fn source(&mut self) -> Result<Arc<dyn PartSource>, Refusal>;
}

/// Keeps a part in memory.
#[derive(Default)]
pub struct MemorySink(Vec<Bytes>);

impl ImportSink for MemorySink {
    fn write(&mut self, piece: Bytes) -> Result<(), Refusal> {
        self.0.push(piece);
        Ok(())
    }

    fn source(&mut self) -> Result<Arc<dyn PartSource>, Refusal> {
        Ok(Arc::new(self.0.clone()))
    }
}

/// A state that came in, or a delta of one.
#[derive(Default)]
pub struct Imported {
    parts: BTreeMap<PartName, Arc<dyn PartSource>>,
}

impl Imported {
    /// The names of its parts, in order.
    pub fn names(&self) -> impl Iterator<Item = &PartName> {
        self.parts.keys()
    }

    /// One part, to be read in pieces.
    ///
    /// # Errors
    /// `CannotAccept` if there is none of that name.
    pub fn part(&self, name: &str) -> Result<&dyn PartSource, Refusal> {
        self.find(name).ok_or_else(|| Refusal::cannot_accept(&format!("the state has no part `{name}`")))
    }

    pub(crate) fn find(&self, name: &str) -> Option<&dyn PartSource> {
        let found = self.parts.iter().find(|(known, _)| known.as_str() == name);
        found.map(|(_, source)| source.as_ref())
    }

    /// Puts a part in place of the one of that name, if there is one.
    pub fn set(&mut self, part: Part) {
        self.parts.insert(part.name().clone(), Arc::clone(part.source()));
    }

    /// Removes a part; false if there was none of that name.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.parts.len();
        self.parts.retain(|known, _| known.as_str() != name);
        self.parts.len() < before
    }

    /// The rows of a part that a [`crate::Table`] or [`Part::rows`] wrote, in memory.
    ///
    /// # Errors
    /// As [`Imported::json`].
    pub fn rows<K: DeserializeOwned, V: DeserializeOwned>(&self, name: &str) -> Result<Vec<(K, V)>, Refusal> {
        crate::tracked::rows_of(self.part(name)?).map_err(|refusal| refusal.about(&format!("part `{name}`")))
    }

    /// One part as a whole, in memory.
    ///
    /// # Errors
    /// As [`Imported::part`], and `Internal` if it cannot be read.
    pub fn bytes(&self, name: &str) -> Result<Bytes, Refusal> {
        let pieces = self.part(name)?.pieces().collect::<Result<Vec<_>, _>>()?;
        match pieces.as_slice() {
            [whole] => Ok(whole.clone()),
            pieces => Ok(Bytes::from(pieces.concat())),
        }
    }

    /// One part that [`crate::Part::json`] wrote.
    ///
    /// # Errors
    /// As [`Imported::bytes`], and `CannotAccept` if it is not the JSON of a `T`.
    pub fn json<T: DeserializeOwned>(&self, name: &str) -> Result<T, Refusal> {
        serde_json::from_slice(&self.bytes(name)?).map_err(|error| {
            // Where, not what: serde's own message may quote the state.
            let (line, column) = (error.line(), error.column());
            let message =
                format!("part `{name}` is not as this version writes it, at line {line}, column {column}");
            Refusal::cannot_accept(&message)
        })
    }
}

/// The one import that is under way. A slice of another import ends it: the sidecar only begins a new one when it gave
/// the old one up, and may have forgotten its name.
#[derive(Default)]
pub(crate) struct Import {
    open: Option<Open>,
}

struct Open {
    name: Name,
    assembly: Assembly,
    sinks: BTreeMap<PartName, Box<dyn ImportSink>>,
}

impl Import {
    /// Stores one slice.
    pub(crate) fn put<W: Worker>(
        &mut self,
        worker: &W,
        import: &Name,
        part: &PartName,
        offset: u64,
        slice: Bytes,
    ) -> Result<(), ErrorBody> {
        if self.open.as_ref().is_none_or(|open| &open.name != import) {
            // Checked before the old one goes: a stray slice in mid-part ends nothing.
            Assembly::default().place(part, offset, slice.len())?;
            self.open = None;
        }
        let open = self.open.get_or_insert_with(|| Open {
            name: import.clone(),
            assembly: Assembly::default(),
            sinks: BTreeMap::new(),
        });
        let length = slice.len();
        match open.assembly.place(part, offset, length)? {
            Place::Again => return Ok(()),
            Place::Start => {
                open.assembly.lost(part);
                let sink = worker.import(part).map_err(|refusal| refusal.0)?;
                open.sinks.insert(part.clone(), sink);
            }
            Place::Append => {}
        }
        let Some(sink) = open.sinks.get_mut(part) else {
            open.assembly.lost(part);
            return Err(ErrorBody::new(
                ErrorCode::Internal,
                "the part has no place to go: start it over at offset 0",
            ));
        };
        if let Err(refusal) = sink.write(slice) {
            open.assembly.lost(part);
            open.sinks.remove(part);
            return Err(refusal.0);
        }
        open.assembly.stored(part, offset, length);
        Ok(())
    }

    /// What came in, if it is exactly `expected`.
    pub(crate) fn complete(&mut self, import: &Name, expected: &[PartSize]) -> Result<Imported, ErrorBody> {
        let none = Assembly::default();
        let open = self.open.as_mut().filter(|open| &open.name == import);
        open.as_ref().map_or(&none, |open| &open.assembly).complete(expected)?;
        let mut parts = BTreeMap::new();
        if let Some(open) = open {
            for (name, sink) in &mut open.sinks {
                parts.insert(name.clone(), sink.source().map_err(|refusal| refusal.0)?);
            }
        }
        for part in expected {
            // A part of no bytes needs no slice.
            parts.entry(part.name.clone()).or_insert_with(|| Arc::new(Bytes::new()));
        }
        Ok(Imported { parts })
    }

    /// Forgets an import.
    pub(crate) fn delete(&mut self, import: &Name) {
        if self.open.as_ref().is_some_and(|open| &open.name == import) {
            self.open = None;
        }
    }

    /// Forgets whatever there is.
    pub(crate) fn clear(&mut self) {
        self.open = None;
    }
}

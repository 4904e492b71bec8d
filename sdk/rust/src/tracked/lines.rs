//! How a table is written: a line `[key,value]` of JSON for each row, and in a delta `[key]` for one that is gone.

use std::fmt;
use std::io;
use std::marker::PhantomData;

use bytes::Bytes;
use serde::de::{DeserializeOwned, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::part::{PIECE, PartSource};
use crate::worker::Refusal;

/// One line.
pub(super) struct Line<K, V> {
    pub(super) key: K,
    /// None: the row is gone.
    pub(super) value: Option<V>,
}

impl<'de, K: Deserialize<'de>, V: Deserialize<'de>> Deserialize<'de> for Line<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pair<K, V>(PhantomData<(K, V)>);
        impl<'de, K: Deserialize<'de>, V: Deserialize<'de>> Visitor<'de> for Pair<K, V> {
            type Value = Line<K, V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("[key] or [key, value]")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut pair: A) -> Result<Line<K, V>, A::Error> {
                let key = pair.next_element()?;
                let key = key.ok_or_else(|| serde::de::Error::invalid_length(0, &self))?;
                Ok(Line { key, value: pair.next_element()? })
            }
        }
        deserializer.deserialize_seq(Pair(PhantomData))
    }
}

/// Appends one line.
pub(super) fn write<K: Serialize, V: Serialize>(
    to: &mut Vec<u8>,
    key: &K,
    value: Option<&V>,
) -> io::Result<()> {
    match value {
        Some(value) => serde_json::to_writer(&mut *to, &(key, value))?,
        None => serde_json::to_writer(&mut *to, &(key,))?,
    }
    to.push(b'\n');
    Ok(())
}

/// Reads every line of a part, which may be cut anywhere, and gives each to `take`.
pub(super) fn read<K: DeserializeOwned, V: DeserializeOwned>(
    source: &dyn PartSource,
    mut take: impl FnMut(Line<K, V>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let mut rest = Vec::new();
    let mut number = 0_u64;
    for piece in source.pieces() {
        let piece = piece?;
        for line in piece.split_inclusive(|byte| *byte == b'\n') {
            rest.extend_from_slice(line);
            if line.last() == Some(&b'\n') {
                number += 1;
                // Where, not what: serde's own message may quote the state.
                let read = serde_json::from_slice(&rest).map_err(|_| {
                    Refusal::cannot_accept(&format!("line {number} is not as this version writes it"))
                })?;
                take(read).map_err(|refusal| refusal.about(&format!("line {number}")))?;
                rest.clear();
            }
        }
    }
    if rest.is_empty() { Ok(()) } else { Err(Refusal::cannot_accept("its last line is cut short")) }
}

/// Rows as the bytes of a part.
pub(crate) fn pieces_of<K: Serialize, V: Serialize>(
    rows: impl IntoIterator<Item = (K, V)>,
) -> io::Result<Vec<Bytes>> {
    let (mut pieces, mut piece) = (Vec::new(), Vec::new());
    for (key, value) in rows {
        write(&mut piece, &key, Some(&value))?;
        if piece.len() >= PIECE {
            pieces.push(Bytes::from(std::mem::take(&mut piece)));
        }
    }
    pieces.push(Bytes::from(piece));
    Ok(pieces)
}

/// The rows of a part, in memory.
pub(crate) fn rows_of<K: DeserializeOwned, V: DeserializeOwned>(
    source: &dyn PartSource,
) -> Result<Vec<(K, V)>, Refusal> {
    let mut rows = Vec::new();
    read(source, |Line { key, value }| {
        let value = value.ok_or_else(|| Refusal::cannot_accept("a row without a value"))?;
        rows.push((key, value));
        Ok(())
    })?;
    Ok(rows)
}

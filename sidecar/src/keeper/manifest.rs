//! What a state consists of; also what a target sidecar is told first.

use processhub_protocol::contract::{MAX_PARTS, MAX_TEXT, PartName, PartSize};
use processhub_protocol::id::{Digest, Seq, StateId};
use processhub_protocol::replica::Mark;
use serde::{Deserialize, Serialize};

/// Length of the pieces that have a checksum of their own, in bytes.
pub const CHUNK: usize = 1 << 20;

/// The parts of a state in order, and what it is known by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Its identity.
    pub state: StateId,
    /// Version of the code that wrote it.
    pub vsn: String,
    /// Its parts, in the order of the digest.
    pub parts: Vec<ManifestPart>,
    /// Which checkpoint it is; absent for a state that was captured for a move or came with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Mark>,
}

/// One part of a state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManifestPart {
    /// Its name.
    pub name: PartName,
    /// Its length.
    pub bytes: u64,
    /// The crc32c of each [`CHUNK`] bytes of it; the last one may be shorter.
    pub crc32c: Vec<u32>,
}

impl Manifest {
    /// Why this is no manifest that could be of a state, if so. It may have come from outside.
    ///
    /// # Errors
    /// The field that is wrong.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.parts.len() > MAX_PARTS {
            return Err("`parts` has too many entries");
        }
        if self.vsn.len() > MAX_TEXT {
            return Err("`vsn` is too long");
        }
        let mut total = 0u64;
        for (at, part) in self.parts.iter().enumerate() {
            if self.parts[..at].iter().any(|other| other.name == part.name) {
                return Err("`parts` names one part twice");
            }
            if part.crc32c.len() as u64 != part.bytes.div_ceil(CHUNK as u64) {
                return Err("`crc32c` does not have one entry per chunk");
            }
            total = total.checked_add(part.bytes).ok_or("`bytes` is too large")?;
        }
        if total != self.state.bytes {
            return Err("`state.bytes` is not the sum of the parts");
        }
        Ok(())
    }

    /// Names and lengths, as the worker's contract wants them.
    #[must_use]
    pub fn sizes(&self) -> Vec<PartSize> {
        self.parts.iter().map(|part| PartSize { name: part.name.clone(), bytes: part.bytes }).collect()
    }
}

/// The digest of a state: per part in order its name and length (both with their lengths in little endian), its bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Hasher(blake3::Hasher);

impl Hasher {
    pub(super) fn part(&mut self, name: &PartName, bytes: u64) {
        let name = name.as_str().as_bytes();
        // infallible: a part's name has at most 63 bytes
        self.0.update(&(name.len() as u32).to_le_bytes());
        self.0.update(name);
        self.0.update(&bytes.to_le_bytes());
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(super) fn state(&self, seq: Seq, bytes: u64) -> StateId {
        StateId { seq, digest: Digest(self.0.finalize().to_hex().to_string()), bytes }
    }
}

//! Reads a kept state back, piece by piece.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use processhub_protocol::contract::PartName;
use processhub_protocol::id::StateId;

use super::manifest::{CHUNK, Manifest};
use crate::fence::blocking;

const MAGIC: &[u8; 8] = b"phstate1";
/// Length of the manifest, its checksum, the magic.
const TRAILER: u64 = 4 + 4 + 8;
/// Largest manifest that is read; 64 MiB are the checksums of about 6 TiB.
const MAX_MANIFEST: u64 = 64 << 20;

/// A kept state: whole, and with the identity that it was asked for by. Stays readable while others are written or
/// removed.
#[derive(Clone, Debug)]
pub struct Kept {
    manifest: Arc<Manifest>,
    file: Arc<File>,
}

pub(super) fn write_manifest(file: &mut File, manifest: &Manifest) -> io::Result<()> {
    let json = serde_json::to_vec(manifest).map_err(io::Error::other)?;
    let length = u32::try_from(json.len()).map_err(io::Error::other)?;
    let mut tail = json;
    let checksum = crc32c::crc32c(&tail);
    tail.extend_from_slice(&length.to_le_bytes());
    tail.extend_from_slice(&checksum.to_le_bytes());
    tail.extend_from_slice(MAGIC);
    file.seek(SeekFrom::End(0))?;
    file.write_all(&tail)
}

impl Kept {
    pub(super) fn open(path: &Path, state: &StateId) -> io::Result<Self> {
        let kept = Self::open_any(path)?;
        if kept.manifest.state != *state {
            return Err(damaged("it is another state"));
        }
        Ok(kept)
    }

    /// Whatever state the file holds.
    pub(super) fn open_any(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        let manifest = read_manifest(&mut file, length).map_err(|()| damaged("its manifest is not whole"))?;
        manifest.check().map_err(damaged)?;
        Ok(Self { manifest: Arc::new(manifest), file: Arc::new(file) })
    }

    /// Reads it to its end, blocking: whether every byte is as it was written.
    pub(super) fn is_whole(&self) -> bool {
        self.manifest.parts.iter().all(|part| {
            (0..part.bytes).step_by(CHUNK).all(|offset| self.read_chunk(&part.name, offset).is_ok())
        })
    }

    /// What it consists of.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The chunk of `part` that begins at `offset`, a multiple of [`CHUNK`]; empty at the part's end.
    ///
    /// # Errors
    /// When the disk fails, or the bytes are not those that were written.
    pub async fn chunk(&self, part: &PartName, offset: u64) -> io::Result<Bytes> {
        let kept = self.clone();
        let part = part.clone();
        blocking(move || kept.read_chunk(&part, offset)).await
    }

    fn read_chunk(&self, name: &PartName, offset: u64) -> io::Result<Bytes> {
        let mut begin = 0;
        for part in &self.manifest.parts {
            if part.name != *name {
                begin += part.bytes;
                continue;
            }
            let Some(left) = part.bytes.checked_sub(offset).filter(|left| *left > 0) else {
                return Ok(Bytes::new());
            };
            let mut bytes = vec![0; left.min(CHUNK as u64) as usize];
            self.file.read_exact_at(&mut bytes, begin + offset)?;
            let index = usize::try_from(offset / CHUNK as u64).map_err(io::Error::other)?;
            if part.crc32c.get(index) != Some(&crc32c::crc32c(&bytes)) {
                return Err(damaged("a checksum differs"));
            }
            return Ok(bytes.into());
        }
        Err(io::Error::new(io::ErrorKind::NotFound, format!("the state has no part `{name}`")))
    }
}

fn read_manifest(file: &mut File, length: u64) -> Result<Manifest, ()> {
    let mut read = |begin: u64, length: u64| -> Option<Vec<u8>> {
        file.seek(SeekFrom::Start(begin)).ok()?;
        let mut bytes = vec![0; usize::try_from(length).ok()?];
        file.read_exact(&mut bytes).ok()?;
        Some(bytes)
    };
    let parse = |read: &mut dyn FnMut(u64, u64) -> Option<Vec<u8>>| -> Option<Manifest> {
        let end = length.checked_sub(TRAILER)?;
        let trailer = read(end, TRAILER)?;
        let (numbers, magic) = trailer.split_at_checked(8)?;
        let (size, checksum) = numbers.split_at_checked(4)?;
        let size = u64::from(u32::from_le_bytes(size.try_into().ok()?));
        let checksum = u32::from_le_bytes(checksum.try_into().ok()?);
        if magic != MAGIC || size > MAX_MANIFEST {
            return None;
        }
        let begin = end.checked_sub(size)?;
        let json = read(begin, size)?;
        if crc32c::crc32c(&json) != checksum {
            return None;
        }
        let manifest: Manifest = serde_json::from_slice(&json).ok()?;
        (manifest.state.bytes == begin).then_some(manifest)
    };
    parse(&mut read).ok_or(())
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the kept state is damaged: {what}"))
}

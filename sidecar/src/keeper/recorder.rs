//! Writes a state as it streams in: disk, digest and checksums on a thread of their own, memory bounded.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use processhub_protocol::contract::PartName;
use processhub_protocol::id::{Seq, StateId};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinHandle};

use super::manifest::{CHUNK, Hasher, Manifest, ManifestPart};
use super::{Keeper, Mark, reader};

/// Pieces that may wait for the disk, beside the one that is being written: each may be a whole chunk.
const QUEUE: usize = 1;

/// A state that is being written. Dropped before [`Recorder::finish`] it leaves nothing behind.
#[derive(Debug)]
pub struct Recorder {
    steps: mpsc::Sender<Step>,
    written: oneshot::Receiver<Manifest>,
    work: Work,
}

type Work = JoinHandle<Result<(), RecordError>>;

/// A state whose file is whole and has its name, but may not be on disk yet.
#[derive(Debug)]
pub struct Written {
    /// What it consists of.
    pub manifest: Manifest,
    work: Work,
}

impl Written {
    /// Waits until it is on disk.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn synced(self) -> Result<Manifest, RecordError> {
        ended(self.work.await)?;
        Ok(self.manifest)
    }
}

fn ended(result: Result<Result<(), RecordError>, JoinError>) -> Result<(), RecordError> {
    result.unwrap_or_else(|error| Err(RecordError::Disk(io::Error::other(error))))
}

/// Why a state could not be written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The disk failed.
    #[error("the state could not be written to disk: {0}")]
    Disk(#[from] io::Error),
    /// A part has another length than was announced.
    #[error("part `{part}` was announced with {announced} bytes and has {bytes}")]
    Length {
        /// The part.
        part: PartName,
        /// What was announced.
        announced: u64,
        /// What came.
        bytes: u64,
    },
}

#[derive(Debug)]
enum Step {
    Part(PartName, Option<u64>),
    Bytes(Bytes),
    Finish(Seq, String),
}

impl Recorder {
    pub(super) fn begin(path: PathBuf, keeper: Keeper, checkpoint: Option<Mark>) -> Self {
        let (steps, queue) = mpsc::channel(QUEUE);
        let (sender, written) = oneshot::channel();
        let work = tokio::task::spawn_blocking(move || {
            let created = Writer::create(&path, checkpoint);
            let result = created.and_then(|writer| writer.run(queue, &path, &keeper, sender));
            if result.is_err() {
                // It may not even exist; the next start removes what stays.
                let _ = fs::remove_file(&path);
            }
            result
        });
        Self { steps, written, work }
    }

    /// Begins the next part. With `bytes` its length is known beforehand and is held to.
    ///
    /// # Errors
    /// What went wrong before; also in the other calls.
    pub async fn part(&mut self, name: PartName, bytes: Option<u64>) -> Result<(), RecordError> {
        self.step(Step::Part(name, bytes)).await
    }

    /// Appends to the part that was begun last.
    ///
    /// # Errors
    /// As [`Recorder::part`].
    pub async fn bytes(&mut self, bytes: Bytes) -> Result<(), RecordError> {
        self.step(Step::Bytes(bytes)).await
    }

    /// Ends the state; its file can be read by its name when this returns, and is being synced.
    ///
    /// # Errors
    /// As [`Recorder::part`].
    pub async fn finish(mut self, seq: Seq, vsn: String) -> Result<Written, RecordError> {
        self.step(Step::Finish(seq, vsn)).await?;
        match self.written.await {
            Ok(manifest) => Ok(Written { manifest, work: self.work }),
            Err(_) => Err(failure(self.work.await)),
        }
    }

    async fn step(&mut self, step: Step) -> Result<(), RecordError> {
        if self.steps.send(step).await.is_ok() {
            return Ok(());
        }
        Err(failure((&mut self.work).await))
    }
}

/// Why the work ended before it was to.
fn failure(result: Result<Result<(), RecordError>, JoinError>) -> RecordError {
    match ended(result) {
        Err(error) => error,
        Ok(()) => RecordError::Disk(io::Error::other("the state has been ended already")),
    }
}

struct Writer {
    file: File,
    checkpoint: Option<Mark>,
    parts: Vec<ManifestPart>,
    announced: Option<u64>,
    crc: u32,
    hasher: Hasher,
    /// A part of unknown length stands before its bytes in the digest: then it is computed at the end, from disk.
    hash_later: bool,
}

impl Writer {
    fn create(path: &Path, checkpoint: Option<Mark>) -> Result<Self, RecordError> {
        Ok(Self {
            file: File::options().read(true).write(true).create(true).truncate(true).open(path)?,
            checkpoint,
            parts: Vec::new(),
            announced: None,
            crc: 0,
            hasher: Hasher::default(),
            hash_later: false,
        })
    }

    fn run(
        mut self,
        mut queue: mpsc::Receiver<Step>,
        path: &Path,
        keeper: &Keeper,
        written: oneshot::Sender<Manifest>,
    ) -> Result<(), RecordError> {
        while let Some(step) = queue.blocking_recv() {
            match step {
                Step::Part(name, bytes) => self.part(name, bytes)?,
                Step::Bytes(bytes) => self.append(&bytes)?,
                Step::Finish(seq, vsn) => {
                    self.end_part()?;
                    let manifest = self.manifest(seq, vsn)?;
                    reader::write_manifest(&mut self.file, &manifest)?;
                    let whole = keeper.path(&manifest.state);
                    fs::rename(path, &whole)?;
                    // Who asked for it may be gone by now; the file is whole all the same.
                    let _ = written.send(manifest);
                    return self.file.sync_all().map_err(|error| {
                        // What may not be on disk must not be found there.
                        let _ = fs::remove_file(whole);
                        error.into()
                    });
                }
            }
        }
        Err(RecordError::Disk(io::ErrorKind::Interrupted.into()))
    }

    fn part(&mut self, name: PartName, bytes: Option<u64>) -> Result<(), RecordError> {
        self.end_part()?;
        match bytes {
            Some(bytes) => self.hasher.part(&name, bytes),
            None => self.hash_later = true,
        }
        self.announced = bytes;
        self.parts.push(ManifestPart { name, bytes: 0, crc32c: Vec::new() });
        Ok(())
    }

    fn append(&mut self, mut bytes: &[u8]) -> Result<(), RecordError> {
        let Some(part) = self.parts.last_mut() else {
            return Err(RecordError::Disk(io::Error::other("bytes before the first part")));
        };
        if let Some(announced) = self.announced
            && part.bytes + bytes.len() as u64 > announced
        {
            let bytes = part.bytes + bytes.len() as u64;
            return Err(RecordError::Length { part: part.name.clone(), announced, bytes });
        }
        self.file.write_all(bytes)?;
        if !self.hash_later {
            self.hasher.bytes(bytes);
        }
        while !bytes.is_empty() {
            let filled = (part.bytes % CHUNK as u64) as usize;
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK - filled));
            self.crc = crc32c::crc32c_append(self.crc, now);
            part.bytes += now.len() as u64;
            if part.bytes.is_multiple_of(CHUNK as u64) {
                part.crc32c.push(std::mem::take(&mut self.crc));
            }
            bytes = later;
        }
        Ok(())
    }

    fn end_part(&mut self) -> Result<(), RecordError> {
        let Some(part) = self.parts.last_mut() else {
            return Ok(());
        };
        if let Some(announced) = self.announced.take()
            && announced != part.bytes
        {
            return Err(RecordError::Length { part: part.name.clone(), announced, bytes: part.bytes });
        }
        if !part.bytes.is_multiple_of(CHUNK as u64) {
            part.crc32c.push(std::mem::take(&mut self.crc));
        }
        Ok(())
    }

    fn manifest(&mut self, seq: Seq, vsn: String) -> Result<Manifest, RecordError> {
        let bytes = self.parts.iter().map(|part| part.bytes).sum();
        let state = if self.hash_later { self.hash_file(seq, bytes)? } else { self.hasher.state(seq, bytes) };
        let checkpoint = self.checkpoint;
        Ok(Manifest { state, vsn, parts: std::mem::take(&mut self.parts), checkpoint })
    }

    fn hash_file(&mut self, seq: Seq, bytes: u64) -> io::Result<StateId> {
        use std::io::{Seek, SeekFrom};
        self.file.seek(SeekFrom::Start(0))?;
        let mut hasher = Hasher::default();
        let mut buffer = vec![0; CHUNK];
        for part in &self.parts {
            hasher.part(&part.name, part.bytes);
            let mut left = part.bytes;
            while left > 0 {
                let length = left.min(CHUNK as u64) as usize;
                self.file.read_exact(&mut buffer[..length])?;
                hasher.bytes(&buffer[..length]);
                left -= length as u64;
            }
        }
        Ok(hasher.state(seq, bytes))
    }
}

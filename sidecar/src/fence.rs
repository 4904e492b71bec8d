//! The record on disk: what this sidecar must never forget.
//!
//! The file holds JSON and its checksum. It is replaced as a whole: written beside, synced, renamed, and the folder
//! synced, all before the caller goes on (rule 3). A file that is torn, corrupt or of another pod is a lost record: the
//! sidecar starts anew with a new [`RecordId`], so that nobody takes it for the one that made the old promises (rule 14).

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use processhub_protocol::fence::Record;
use processhub_protocol::ledger::Lost;
use processhub_protocol::wire::{Peer, Refusal, StartInfo};
use serde::{Deserialize, Serialize};

const FILE: &str = "record.json";
const NEW_FILE: &str = "record.json.new";

/// What is on disk: the record, and what is needed to carry its role out after a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stored {
    /// The record of the protocol.
    pub record: Record,
    /// What the worker is told when it becomes active; of the last activation.
    #[serde(default)]
    pub start: StartInfo,
    /// The sealed source that has not yet answered that it forwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Peer>,
    /// What may be missing since the last grant, because the worker crashed (rule 10).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Lost>,
    /// The worker has spoken the contract: should its port ever be refused, then it is down and not one without state.
    #[serde(default)]
    pub contract: bool,
}

impl Stored {
    /// A record without anything to carry out.
    #[must_use]
    pub fn new(record: Record) -> Self {
        Self { record, start: StartInfo::default(), source: None, lost: None, contract: false }
    }
}

/// Why the record was not changed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The change does not apply to the record as it is now.
    #[error("{}", .0.message)]
    Refused(Refusal),
    /// The disk failed; the record in force is the old one.
    #[error("the record could not be written: {0}")]
    Disk(#[from] io::Error),
}

/// Whether a record was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Yes: it is in force.
    Kept,
    /// There was none: this is the pod's first boot.
    First,
    /// There was one that cannot be believed; a new one was minted.
    Lost,
}

/// The record in memory and on disk; both are the same outside [`Fence::commit`].
#[derive(Debug)]
pub struct Fence {
    folder: PathBuf,
    stored: Mutex<Stored>,
    writing: tokio::sync::Mutex<()>,
}

impl Fence {
    /// Reads the record in `folder`, or writes `first` as its first. `believable` says whether what a record refers to is
    /// there.
    ///
    /// # Errors
    /// When `first` cannot be written.
    pub fn open(
        folder: &Path,
        first: Record,
        believable: impl Fn(&Record) -> bool,
    ) -> io::Result<(Arc<Self>, Found)> {
        fs::create_dir_all(folder)?;
        let (stored, found) = match fs::read(folder.join(FILE)) {
            Ok(bytes) => match parse(&bytes) {
                Some(stored)
                    if stored.record.process == first.process
                        && stored.record.pod == first.pod
                        && believable(&stored.record) =>
                {
                    (stored, Found::Kept)
                }
                _ => (Stored::new(first), Found::Lost),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => (Stored::new(first), Found::First),
            Err(_) => (Stored::new(first), Found::Lost),
        };
        if found != Found::Kept {
            replace(folder, &stored)?;
        }
        let fence = Self {
            folder: folder.to_owned(),
            stored: Mutex::new(stored),
            writing: tokio::sync::Mutex::default(),
        };
        Ok((Arc::new(fence), found))
    }

    /// What is in force.
    #[must_use]
    pub fn stored(&self) -> Stored {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The record in force.
    #[must_use]
    pub fn record(&self) -> Record {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner).record.clone()
    }

    /// Changes the record: `next` is asked with the one in force, its answer is on disk when this returns. Goes on to its
    /// end when the caller is dropped, one change at a time.
    ///
    /// # Errors
    /// What `next` refuses, or the disk's failure; then nothing has changed.
    pub async fn commit(
        self: &Arc<Self>,
        next: impl FnOnce(&Stored) -> Result<Stored, Refusal> + Send + 'static,
    ) -> Result<Stored, CommitError> {
        let fence = Arc::clone(self);
        let work = async move {
            let _one_at_a_time = fence.writing.lock().await;
            let current = fence.stored();
            let stored = next(&current).map_err(CommitError::Refused)?;
            if stored == current {
                return Ok(stored);
            }
            let (folder, durable) = (fence.folder.clone(), stored.clone());
            blocking(move || replace(&folder, &durable)).await?;
            *fence.stored.lock().unwrap_or_else(PoisonError::into_inner) = stored.clone();
            Ok(stored)
        };
        match tokio::spawn(work).await {
            Ok(result) => result,
            Err(error) => Err(CommitError::Disk(io::Error::other(error))),
        }
    }
}

/// Runs `work` where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(io::Error::other(error)),
    }
}

fn parse(bytes: &[u8]) -> Option<Stored> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (json, checksum) = text.strip_suffix('\n')?.rsplit_once('\n')?;
    let checksum = u32::from_str_radix(checksum, 16).ok()?;
    if checksum != crc32c::crc32c(json.as_bytes()) {
        return None;
    }
    serde_json::from_str(json).ok()
}

fn replace(folder: &Path, stored: &Stored) -> io::Result<()> {
    let json = serde_json::to_string(stored).map_err(io::Error::other)?;
    let checksum = crc32c::crc32c(json.as_bytes());
    let beside = folder.join(NEW_FILE);
    let mut file = File::create(&beside)?;
    file.write_all(format!("{json}\n{checksum:08x}\n").as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, folder.join(FILE))?;
    // Also makes durable the name of a state that was renamed into this folder before.
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use processhub_protocol::id::{Epoch, PodUid, ProcessUid, RecordId};

    use super::*;

    fn first(id: &str) -> Record {
        Record::first(RecordId::from(id), ProcessUid::from("p"), PodUid::from("u"), Epoch(1))
    }

    fn open(folder: &Path, id: &str) -> (Arc<Fence>, Found) {
        Fence::open(folder, first(id), |_| true).unwrap()
    }

    #[tokio::test]
    async fn a_record_survives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let (fence, found) = open(folder.path(), "one");
        assert_eq!(found, Found::First);
        let stored = fence
            .commit(|stored| {
                let mut stored = stored.clone();
                stored.record.floor.epoch = Epoch(7);
                stored.start.config = "{}".into();
                Ok(stored)
            })
            .await
            .unwrap();
        let (fence, found) = open(folder.path(), "two");
        assert_eq!((fence.stored(), found), (stored, Found::Kept));
    }

    #[test]
    fn a_record_that_cannot_be_believed_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path(), "one");
        let path = folder.path().join(FILE);
        let good = fs::read(&path).unwrap();
        for length in 0..good.len() {
            fs::write(&path, &good[..length]).unwrap();
            let (fence, found) = open(folder.path(), "new");
            assert_eq!((fence.record(), found), (first("new"), Found::Lost), "cut at {length}");
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, &bad).unwrap();
            assert_eq!(open(folder.path(), "new").1, Found::Lost, "bit flipped at {at}");
        }
        fs::write(&path, &good).unwrap();
        assert_eq!(Fence::open(folder.path(), first("new"), |_| false).unwrap().1, Found::Lost);
        let other = Record { pod: PodUid::from("other"), ..first("new") };
        fs::write(&path, &good).unwrap();
        assert_eq!(Fence::open(folder.path(), other, |_| true).unwrap().1, Found::Lost);
    }

    #[tokio::test]
    async fn a_refused_or_failed_change_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (fence, _) = open(folder.path(), "one");
        let before = fence.stored();
        let refusal = Refusal {
            code: processhub_protocol::wire::RefusalCode::WrongRole,
            message: "no".into(),
            floor: Epoch(0),
        };
        assert!(matches!(fence.commit(|_| Err(refusal)).await, Err(CommitError::Refused(_))));
        fs::create_dir(folder.path().join(NEW_FILE)).unwrap();
        let changed = fence.commit(|stored| {
            let mut stored = stored.clone();
            stored.record.floor.epoch = Epoch(9);
            Ok(stored)
        });
        assert!(matches!(changed.await, Err(CommitError::Disk(_))));
        assert_eq!(fence.stored(), before);
    }
}

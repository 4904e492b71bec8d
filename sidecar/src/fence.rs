//! The record on disk: what this sidecar must never forget.
//!
//! The file is a log: each change of the record appends one line, the record as JSON and its checksum, and is synced
//! before the caller goes on (rule 3): one sync, because a blackout waits for it. Each start of the sidecar begins a new
//! file with the last line, written beside, synced, renamed, and the folder synced.
//!
//! An end of the file that is no whole line is a change that was never answered: the line before is in force. Anything else
//! that is not as it was written, or is of another pod, is a lost record: the sidecar starts anew with a new
//! [`RecordId`](processhub_protocol::id::RecordId), so that nobody takes it for the one that made the old promises
//! (rule 14).
//!
//! One thing is in memory only until the next change is written: the state that an owner keeps against a crash of its
//! worker. It is found again by its own file ([`crate::keeper`]), so that a checkpoint costs no sync of this log.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use processhub_protocol::fence::Record;
use processhub_protocol::id::StateId;
use processhub_protocol::ledger::Lost;
use processhub_protocol::wire::{CodeChange, Peer, Refusal, StartInfo};
use serde::{Deserialize, Serialize};

const FILE: &str = "record";
const NEW_FILE: &str = "record.new";
/// Length of the file from which on a change begins a new one.
const LONG: u64 = 4 << 20;

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
    /// What may be missing since this pod was activated, because the worker crashed (rule 10).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Lost>,
    /// What the worker is told with a state that other code wrote, whenever it is given that state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreign: Option<Foreign>,
    /// The worker has spoken the contract: should its port ever be refused, then it is down and not one without state.
    #[serde(default)]
    pub contract: bool,
    /// Since this pod was activated an answer may have gone out whose change was in no state on disk. Not noted where the
    /// configuration says so for every answer.
    #[serde(default)]
    pub exposed: bool,
    /// Whether what was delivered came from another hub.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub transferred: bool,
}

/// A state that was imported from a source with other code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Foreign {
    /// The state.
    pub state: StateId,
    /// What is different.
    pub change: CodeChange,
}

impl Stored {
    /// A record without anything to carry out.
    #[must_use]
    pub fn new(record: Record) -> Self {
        Self {
            record,
            start: StartInfo::default(),
            source: None,
            lost: None,
            foreign: None,
            contract: false,
            exposed: false,
            transferred: false,
        }
    }

    /// What the worker is told of other code when it is given this state.
    #[must_use]
    pub fn change_with(&self, state: &StateId) -> Option<&CodeChange> {
        self.foreign.as_ref().filter(|foreign| foreign.state == *state).map(|foreign| &foreign.change)
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

/// The record in memory and on disk; both are the same outside [`Fence::commit`], but for a newer kept state.
#[derive(Debug)]
pub struct Fence {
    stored: Mutex<Stored>,
    log: Arc<tokio::sync::Mutex<Log>>,
}

impl Fence {
    /// Reads the record in `folder`, or writes `first` as its first. `believable` says whether what a record refers to is
    /// there.
    ///
    /// # Errors
    /// When the record cannot be written.
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
        let log = match Log::begin(folder, &stored) {
            // A full disk stops no process: the record is there, only the next change has to find room.
            Err(_) if found == Found::Kept => Log::go_on(folder)?,
            begun => begun?,
        };
        let fence = Self { stored: Mutex::new(stored), log: Arc::new(tokio::sync::Mutex::new(log)) };
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

    /// Takes over the record of an owner whose newest kept state was found beside it. Before anything else is done.
    pub fn adopt(&self, record: Record) {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner).record = record;
    }

    /// Changes in memory what an owner keeps. Its file is on disk, which is where it is found again; the next change of the
    /// record writes it down too.
    ///
    /// # Errors
    /// What `next` refuses; then nothing has changed.
    pub async fn keep(&self, next: impl FnOnce(&Record) -> Result<Record, Refusal>) -> Result<(), Refusal> {
        // No change of the record overtakes this one, and none that is being written is overtaken.
        let _log = self.log.lock().await;
        let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        stored.record = next(&stored.record)?;
        Ok(())
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
            let mut log = Arc::clone(&fence.log).lock_owned().await;
            let current = fence.stored();
            let stored = next(&current).map_err(CommitError::Refused)?;
            if stored == current {
                return Ok(stored);
            }
            let durable = stored.clone();
            // The lock comes back from the other thread: the next change must see this one.
            let (_log, appended) = blocking(move || {
                let appended = log.append(&durable);
                Ok((log, appended))
            })
            .await?;
            appended?;
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

#[derive(Debug)]
struct Log {
    folder: PathBuf,
    file: File,
    length: u64,
    /// An append failed half-way: what the file ends with is not known.
    doubtful: bool,
}

impl Log {
    fn begin(folder: &Path, stored: &Stored) -> io::Result<Self> {
        let line = line(stored)?;
        let beside = folder.join(NEW_FILE);
        let mut file = File::create(&beside)?;
        file.write_all(&line)?;
        file.sync_all()?;
        fs::rename(&beside, folder.join(FILE))?;
        File::open(folder)?.sync_all()?;
        Ok(Self { folder: folder.to_owned(), file, length: line.len() as u64, doubtful: false })
    }

    /// The file as it is; the next change begins a new one.
    fn go_on(folder: &Path) -> io::Result<Self> {
        let file = File::options().append(true).open(folder.join(FILE))?;
        Ok(Self { folder: folder.to_owned(), file, length: 0, doubtful: true })
    }

    fn append(&mut self, stored: &Stored) -> io::Result<()> {
        if self.doubtful || self.length > LONG {
            *self = Self::begin(&self.folder, stored)?;
            return Ok(());
        }
        let line = line(stored)?;
        self.doubtful = true;
        self.file.write_all(&line)?;
        self.file.sync_data()?;
        self.doubtful = false;
        self.length += line.len() as u64;
        Ok(())
    }
}

fn line(stored: &Stored) -> io::Result<Vec<u8>> {
    let json = serde_json::to_string(stored).map_err(io::Error::other)?;
    let checksum = crc32c::crc32c(json.as_bytes());
    Ok(format!("{json} {checksum:08x}\n").into_bytes())
}

/// The last whole line, if all lines are as they were written.
fn parse(bytes: &[u8]) -> Option<Stored> {
    let mut last = None;
    for line in std::str::from_utf8(bytes).ok()?.split_inclusive('\n') {
        match (parse_line(line.trim_end_matches('\n')), line.ends_with('\n')) {
            (Some(stored), true) => last = Some(stored),
            // Whole, but for a line's end that is gone or was changed.
            (Some(_), false) | (None, true) => return None,
            // A last byte that was changed makes an answered line look torn.
            (None, false) if line.get(..line.len() - 1).and_then(parse_line).is_some() => return None,
            (None, false) => {}
        }
    }
    last
}

fn parse_line(line: &str) -> Option<Stored> {
    let (json, checksum) = line.rsplit_once(' ')?;
    let sound =
        checksum.len() == 8 && u32::from_str_radix(checksum, 16).ok()? == crc32c::crc32c(json.as_bytes());
    if sound { serde_json::from_str(json).ok() } else { None }
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

    async fn raise(fence: &Arc<Fence>, epoch: u64) -> Result<Stored, CommitError> {
        let raised = fence.commit(move |stored| {
            let mut stored = stored.clone();
            stored.record.floor.epoch = Epoch(epoch);
            Ok(stored)
        });
        raised.await
    }

    #[tokio::test]
    async fn a_record_that_cannot_be_believed_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let (fence, _) = open(folder.path(), "one");
        let path = folder.path().join(FILE);
        let before = fs::read(&path).unwrap().len();
        raise(&fence, 7).await.unwrap();
        let good = fs::read(&path).unwrap();
        for length in 0..good.len() {
            let floor = parse(&good[..length]).map(|stored| stored.record.floor.epoch);
            // Cut in the second line: a change that was being written, and was never answered.
            let torn = length >= before && length < good.len() - 1;
            assert_eq!(floor, torn.then_some(Epoch(0)), "cut at {length}");
        }
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                // Upper and lower case of a checksum's letters are the same number.
                let floor = parse(&bad).map(|stored| stored.record.floor.epoch);
                assert!(floor.is_none_or(|floor| floor == Epoch(7)), "bit {bit} flipped at {at}");
            }
        }
        let mut bad = good.clone();
        bad[before + 9] ^= 1;
        fs::write(&path, &bad).unwrap();
        assert_eq!(open(folder.path(), "new").1, Found::Lost);
        fs::write(&path, []).unwrap();
        assert_eq!(open(folder.path(), "new").1, Found::Lost);
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
        fence.log.lock().await.doubtful = true;
        assert!(matches!(raise(&fence, 9).await, Err(CommitError::Disk(_))));
        assert_eq!(fence.stored(), before);
    }

    #[tokio::test]
    async fn a_disk_without_room_stops_no_record_that_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let (fence, _) = open(folder.path(), "one");
        raise(&fence, 2).await.unwrap();
        // What cannot be made stands for a disk without room.
        let blocked = folder.path().join(NEW_FILE);
        fs::create_dir(&blocked).unwrap();
        let (fence, found) = open(folder.path(), "two");
        assert_eq!((fence.record().floor.epoch, found), (Epoch(2), Found::Kept));
        assert!(raise(&fence, 3).await.is_err());
        fs::remove_dir(&blocked).unwrap();
        raise(&fence, 3).await.unwrap();
        assert_eq!(open(folder.path(), "three").0.record().floor.epoch, Epoch(3));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn no_change_overtakes_or_forgets_another() {
        let folder = tempfile::tempdir().unwrap();
        let (fence, _) = open(folder.path(), "one");
        let changes: Vec<_> = (0..50)
            .map(|_| {
                let fence = Arc::clone(&fence);
                tokio::spawn(async move {
                    let changed = fence.commit(|stored| {
                        let mut stored = stored.clone();
                        stored.record.floor.epoch = stored.record.floor.epoch.next();
                        Ok(stored)
                    });
                    changed.await.unwrap();
                })
            })
            .collect();
        for change in changes {
            change.await.unwrap();
        }
        assert_eq!(fence.record().floor.epoch, Epoch(50));
        assert_eq!(open(folder.path(), "two").0.record().floor.epoch, Epoch(50));
    }

    #[tokio::test]
    async fn a_long_log_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (fence, _) = open(folder.path(), "one");
        let path = folder.path().join(FILE);
        let one = fs::metadata(&path).unwrap().len();
        raise(&fence, 2).await.unwrap();
        assert!(fs::metadata(&path).unwrap().len() > one);
        fence.log.lock().await.length = LONG + 1;
        raise(&fence, 3).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), one);
        raise(&fence, 4).await.unwrap();
        assert_eq!(open(folder.path(), "two").0.record().floor.epoch, Epoch(4));
    }
}

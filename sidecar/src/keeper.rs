//! States on disk: one file each, with the parts one after the other and the manifest at the end.
//!
//! A state is written beside, renamed to the name of its digest, and synced, all before the record refers to it. The
//! folder is not synced: the file systems in use keep a renamed file's name with the file, and where one does not, the
//! record refers to a file that is not there, which makes it a lost record ([`crate::fence`]) and nothing worse.
//!
//! A checkpoint costs that one sync and no other: its file says of which epoch it is and the how many-th, and a sidecar
//! that starts as owner takes the newest one of its epoch ([`Keeper::newest`]) for what its record calls kept.

mod manifest;
mod reader;
mod recorder;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use processhub_protocol::id::{Epoch, StateId};

pub use manifest::{CHUNK, Manifest, ManifestPart};
pub use processhub_protocol::replica::Mark;
pub use reader::Kept;
pub use recorder::{RecordError, Recorder, Written};

const SUFFIX: &str = ".state";
const INCOMING: &str = ".incoming";

/// The folder of the kept states.
#[derive(Clone, Debug)]
pub struct Keeper {
    folder: Arc<Path>,
    next: Arc<AtomicU64>,
}

impl Keeper {
    /// Opens the folder and removes what an earlier start left half-written.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let keeper = Self { folder: folder.into(), next: Arc::default() };
        for path in keeper.files()? {
            if path.to_string_lossy().ends_with(INCOMING) {
                fs::remove_file(path)?;
            }
        }
        Ok(keeper)
    }

    /// Begins a new state.
    #[must_use]
    pub fn record(&self) -> Recorder {
        self.begin(None)
    }

    /// Begins a checkpoint.
    #[must_use]
    pub fn record_checkpoint(&self, mark: Mark) -> Recorder {
        self.begin(Some(mark))
    }

    fn begin(&self, checkpoint: Option<Mark>) -> Recorder {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Recorder::begin(self.folder.join(format!("{number}{INCOMING}")), self.clone(), checkpoint)
    }

    /// Opens a kept state: its manifest is read and has this identity, its length is right. Blocks for a small read.
    ///
    /// # Errors
    /// When it is not there, or not whole.
    pub fn find(&self, state: &StateId) -> io::Result<Kept> {
        Kept::open(&self.path(state), state)
    }

    /// What an owner at `epoch` is to give to its worker: its newest checkpoint that is whole, else `known`, what its
    /// record says. The number of the newest checkpoint is beside it. Blocks; where there is more than one candidate, until
    /// the newest was read.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn newest(&self, epoch: Epoch, known: Option<&StateId>) -> io::Result<(Option<StateId>, u64)> {
        let mut found = Vec::new();
        for path in self.files()?.iter().filter(|path| path.to_string_lossy().ends_with(SUFFIX)) {
            // What is no whole state is no candidate.
            if let Ok(kept) = Kept::open_any(path)
                && let Some(mark) = kept.manifest().checkpoint.filter(|mark| mark.epoch == epoch)
            {
                found.push((mark.number, kept));
            }
        }
        found.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
        let last = found.first().map_or(0, |(number, _)| *number);
        let others = known.is_some_and(|known| found.iter().all(|(_, kept)| kept.manifest().state != *known));
        let alone = found.len() == 1 && !others;
        let newest = found.into_iter().find(|(_, kept)| alone || kept.is_whole());
        let state = newest.map(|(_, kept)| kept.manifest().state.clone());
        Ok((state.or_else(|| known.cloned()), last))
    }

    /// The newest checkpoint of all epochs up to this one that is whole. Blocks until it was read.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn newest_up_to(&self, epoch: Epoch) -> io::Result<Option<(Mark, StateId)>> {
        let mut found = Vec::new();
        for path in self.files()?.iter().filter(|path| path.to_string_lossy().ends_with(SUFFIX)) {
            if let Ok(kept) = Kept::open_any(path)
                && let Some(mark) = kept.manifest().checkpoint.filter(|mark| mark.epoch <= epoch)
            {
                found.push((mark, kept));
            }
        }
        found.sort_by_key(|(mark, _)| std::cmp::Reverse(*mark));
        let newest = found.into_iter().find(|(_, kept)| kept.is_whole());
        Ok(newest.map(|(mark, kept)| (mark, kept.manifest().state.clone())))
    }

    /// Removes one state, if it is there.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn remove(&self, state: &StateId) -> io::Result<()> {
        match fs::remove_file(self.path(state)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Removes every state but these.
    ///
    /// # Errors
    /// When the folder cannot be read or a file not removed.
    pub fn retain(&self, states: &[&StateId]) -> io::Result<()> {
        let keep: Vec<PathBuf> = states.iter().map(|state| self.path(state)).collect();
        for path in self.files()? {
            if path.to_string_lossy().ends_with(SUFFIX) && !keep.contains(&path) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    fn path(&self, state: &StateId) -> PathBuf {
        // The digest comes over the wire: only what cannot lead out of the folder becomes part of a name.
        let digest: String = state.digest.0.chars().filter(char::is_ascii_alphanumeric).take(64).collect();
        self.folder.join(format!("{}-{digest}{SUFFIX}", state.seq))
    }

    fn files(&self) -> io::Result<Vec<PathBuf>> {
        fs::read_dir(&self.folder)?.map(|entry| entry.map(|entry| entry.path())).collect()
    }
}

#[cfg(test)]
mod tests;

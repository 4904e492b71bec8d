//! The replicas that are here, one folder for each process: its newest state as any kept state ([`crate::keeper`]), and a
//! file with the highest epoch that was seen. A state says itself which one of its epoch it is, so that taking the next one
//! costs its own sync and no other; the file is written only when something changes that no state says.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use processhub_protocol::id::{ProcessUid, StateId};
use processhub_protocol::replica::{Offer, Offered, Shelf};
use processhub_protocol::wire::{Refusal, RefusalCode};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::fence::blocking;
use crate::keeper::{Keeper, Kept};

const FOLDER: &str = "replicas";
const FILE: &str = "shelf";
const NEW_FILE: &str = "shelf.new";
/// Longest UID of a process, which names its folder.
const MAX_UID: usize = 64;

/// All replicas that are here.
#[derive(Debug)]
pub(crate) struct Shelves {
    folder: PathBuf,
    open: Mutex<HashMap<ProcessUid, Arc<Held>>>,
}

/// The replica of one process.
#[derive(Debug)]
pub(crate) struct Held {
    folder: PathBuf,
    pub(crate) keeper: Keeper,
    now: Mutex<OnDisk>,
    /// One change of the shelf at a time.
    turn: tokio::sync::Mutex<()>,
    pub(crate) fetching: Mutex<Option<Fetching>>,
}

/// A state that is being fetched.
#[derive(Debug)]
pub(crate) struct Fetching {
    /// What was offered.
    pub(crate) offer: Offer,
    /// What came of it.
    pub(crate) done: watch::Receiver<Option<Result<(), Refusal>>>,
    /// When its owner last asked for it.
    pub(crate) asked: Instant,
    pub(crate) abort: AbortHandle,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OnDisk {
    shelf: Shelf,
    /// The newest state; absent where its owner had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state: Option<StateId>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shelves {
    /// Those below `state_dir`. Each is read when it is first asked for.
    pub(crate) fn new(state_dir: &Path) -> Self {
        Self { folder: state_dir.join(FOLDER), open: Mutex::default() }
    }

    /// The replica of this process; an empty one where there is none.
    pub(crate) async fn of(&self, process: &ProcessUid) -> Result<Arc<Held>, Refusal> {
        let refuse = |code, message: String| Refusal { code, message, floor: Default::default() };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if process.0.is_empty() || process.0.len() > MAX_UID || !process.0.bytes().all(plain) {
            return Err(refuse(RefusalCode::BadRequest, "`process` is no UID".to_owned()));
        }
        if let Some(held) = lock(&self.open).get(process) {
            return Ok(Arc::clone(held));
        }
        let folder = self.folder.join(&process.0);
        let held = blocking(move || Held::open(folder)).await.map_err(|error| {
            refuse(RefusalCode::Busy, format!("the replica on this disk cannot be read: {error}"))
        })?;
        // Who opened it at the same time has changed nothing on disk.
        Ok(Arc::clone(lock(&self.open).entry(process.clone()).or_insert_with(|| Arc::new(held))))
    }
}

impl Held {
    fn open(folder: PathBuf) -> io::Result<Self> {
        let keeper = Keeper::open(&folder)?;
        let mut now = match fs::read(folder.join(FILE)) {
            Ok(bytes) => match parse(&bytes) {
                Some(now) => now,
                // What this disk has promised is not known: as if there had never been anything.
                None => {
                    tracing::error!(folder = %folder.display(), "a replica is damaged and is dropped");
                    keeper.retain(&[])?;
                    OnDisk::default()
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => OnDisk::default(),
            Err(error) => return Err(error),
        };
        // One of a higher epoch was never said to be here; a newer one of an epoch that was seen speaks for itself.
        match keeper.newest_up_to(now.shelf.floor)? {
            Some((mark, state)) if Some(mark) >= now.shelf.newest => {
                now.shelf.newest = Some(mark);
                now.state = Some(state);
            }
            Some(_) | None => now.state = now.state.filter(|state| keeper.find(state).is_ok()),
        }
        let (turn, fetching) = Default::default();
        Ok(Self { folder, keeper, now: Mutex::new(now), turn, fetching })
    }

    /// What is there.
    pub(crate) fn shelf(&self) -> Shelf {
        lock(&self.now).shelf
    }

    /// The newest state, if its owner had one.
    pub(crate) fn state(&self) -> Option<StateId> {
        lock(&self.now).state.clone()
    }

    /// The newest state, to be read.
    pub(crate) async fn kept(self: &Arc<Self>) -> io::Result<Kept> {
        let held = Arc::clone(self);
        blocking(move || {
            let state = held.state().ok_or(io::ErrorKind::NotFound)?;
            held.keeper.find(&state)
        })
        .await
    }

    /// Whether an offer's state has to be fetched for it.
    pub(crate) fn lacks(&self, offer: &Offer) -> bool {
        offer.state.is_some() && self.state() != offer.state
    }

    /// What was offered is on this disk as far as it is a state: it becomes the newest.
    pub(crate) async fn take(self: &Arc<Self>, offer: &Offer) -> Result<(), Refusal> {
        let (state, marked) = (offer.state.clone(), self.lacks(offer));
        let offer = offer.clone();
        self.change(move |shelf| match shelf.judge_offer(&offer)? {
            Offered::Held => Ok(None),
            Offered::Take(next) => {
                // The state's own file says this; anything else is written down.
                let plain = marked && next.floor == shelf.floor && next.exposed == shelf.exposed;
                Ok(Some((next, Some(state), !plain)))
            }
        })
        .await
    }

    /// Nothing below `epoch` is taken any more.
    pub(crate) async fn seal(self: &Arc<Self>, epoch: processhub_protocol::id::Epoch) -> Result<(), Refusal> {
        self.change(move |shelf| {
            let next = shelf.sealed(epoch)?;
            Ok((next != *shelf).then_some((next, None, true)))
        })
        .await
    }

    /// Changes the shelf: the file first, then what is in memory, then what is not needed any more goes.
    async fn change(
        self: &Arc<Self>,
        change: impl FnOnce(&Shelf) -> Result<Option<Change>, Refusal>,
    ) -> Result<(), Refusal> {
        let _turn = self.turn.lock().await;
        let shelf = self.shelf();
        let changed = change(&shelf);
        if let Ok(Some((shelf, state, written))) = &changed {
            let busy = |error: io::Error| Refusal {
                code: RefusalCode::Busy,
                message: format!("the replica could not be written; ask again: {error}"),
                floor: shelf.floor,
            };
            if let Some(Some(state)) = state.clone() {
                // Another change may have taken it for one that nobody needs.
                let keeper = self.keeper.clone();
                blocking(move || keeper.find(&state)).await.map_err(busy)?;
            }
            let next = OnDisk { shelf: *shelf, state: state.clone().unwrap_or_else(|| self.state()) };
            if *written {
                let (held, next) = (Arc::clone(self), next.clone());
                blocking(move || held.write(&next)).await.map_err(busy)?;
            }
            *lock(&self.now) = next;
        }
        let held = Arc::clone(self);
        let tidied = blocking(move || held.keeper.retain(&held.state().iter().collect::<Vec<_>>())).await;
        if let Err(error) = tidied {
            tracing::warn!(%error, "an older replica could not be removed");
        }
        changed.map(|_| ())
    }

    fn write(&self, next: &OnDisk) -> io::Result<()> {
        let json = serde_json::to_string(next).map_err(io::Error::other)?;
        let beside = self.folder.join(NEW_FILE);
        let mut file = File::create(&beside)?;
        file.write_all(format!("{json} {:08x}\n", crc32c::crc32c(json.as_bytes())).as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, self.folder.join(FILE))?;
        File::open(&self.folder)?.sync_all()
    }
}

/// The next shelf, another state if it has one, and whether the file has to say so.
type Change = (Shelf, Option<Option<StateId>>, bool);

fn parse(bytes: &[u8]) -> Option<OnDisk> {
    let line = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
    let (json, checksum) = line.rsplit_once(' ')?;
    let sound = u32::from_str_radix(checksum, 16).ok()? == crc32c::crc32c(json.as_bytes());
    if sound { serde_json::from_str(json).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use processhub_protocol::id::Epoch;
    use processhub_protocol::replica::Mark;
    use processhub_protocol::wire::Peer;

    fn mark(epoch: u64, number: u64) -> Mark {
        Mark { epoch: Epoch(epoch), number }
    }

    async fn offer(held: &Held, epoch: u64, number: u64, seq: u64) -> Offer {
        let mut recorder = held.keeper.record_checkpoint(mark(epoch, number));
        recorder.part("state".parse().unwrap(), Some(1)).await.unwrap();
        recorder.bytes(vec![seq as u8].into()).await.unwrap();
        let manifest = recorder.finish(seq, String::new()).await.unwrap().synced().await.unwrap();
        let from = Peer::of_this_hub("a".into(), "10.0.0.1".into(), 9710);
        let state = Some(manifest.state);
        Offer { process: "p".into(), mark: mark(epoch, number), state, exposed: false, from }
    }

    async fn shelf(folder: &Path) -> Arc<Held> {
        Shelves::new(folder).of(&ProcessUid::from("p")).await.unwrap()
    }

    #[tokio::test]
    async fn a_replica_and_its_floor_survive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let held = shelf(folder.path()).await;
        for (number, seq) in [(1, 4), (2, 5)] {
            let offer = offer(&held, 3, number, seq).await;
            held.take(&offer).await.unwrap();
        }
        let again = shelf(folder.path()).await;
        assert_eq!(again.shelf(), Shelf { floor: Epoch(3), newest: Some(mark(3, 2)), exposed: false });
        assert_eq!(again.kept().await.unwrap().manifest().state.seq, 5);
        again.seal(Epoch(5)).await.unwrap();
        let again = shelf(folder.path()).await;
        assert_eq!(again.shelf(), Shelf { floor: Epoch(5), newest: Some(mark(3, 2)), exposed: false });
        let late = offer(&again, 3, 3, 6).await;
        assert_eq!(again.take(&late).await.unwrap_err().code, RefusalCode::StaleEpoch);
        let again = shelf(folder.path()).await;
        assert_eq!(again.state().map(|state| state.seq), Some(5), "what was refused is gone");
    }

    #[tokio::test]
    async fn the_same_state_of_a_later_epoch_needs_no_fetching() {
        let folder = tempfile::tempdir().unwrap();
        let held = shelf(folder.path()).await;
        let first = offer(&held, 3, 1, 4).await;
        held.take(&first).await.unwrap();
        let thawed = Offer { mark: mark(5, 0), ..first };
        assert!(!held.lacks(&thawed));
        held.take(&thawed).await.unwrap();
        let again = shelf(folder.path()).await;
        assert_eq!((again.shelf().newest, again.state()), (Some(mark(5, 0)), thawed.state));
    }

    #[tokio::test]
    async fn an_owner_without_a_state_leaves_none() {
        let folder = tempfile::tempdir().unwrap();
        let held = shelf(folder.path()).await;
        let first = offer(&held, 3, 1, 4).await;
        held.take(&first).await.unwrap();
        held.take(&Offer { mark: mark(5, 0), state: None, exposed: true, ..first }).await.unwrap();
        let again = shelf(folder.path()).await;
        let shelf = Shelf { floor: Epoch(5), newest: Some(mark(5, 0)), exposed: true };
        assert_eq!((again.shelf(), again.state()), (shelf, None));
        assert!(again.kept().await.is_err());
    }

    #[tokio::test]
    async fn a_damaged_file_leaves_nothing_that_could_pass_for_a_replica() {
        let folder = tempfile::tempdir().unwrap();
        let held = shelf(folder.path()).await;
        let first = offer(&held, 3, 1, 4).await;
        held.take(&first).await.unwrap();
        let file = folder.path().join(FOLDER).join("p").join(FILE);
        let mut bytes = fs::read(&file).unwrap();
        bytes[5] ^= 1;
        fs::write(&file, bytes).unwrap();
        let again = shelf(folder.path()).await;
        assert_eq!((again.shelf(), again.state()), (Shelf::default(), None));
    }

    #[tokio::test]
    async fn what_is_no_uid_names_no_folder() {
        let folder = tempfile::tempdir().unwrap();
        for bad in ["", "..", "a/b", "a.b", &"a".repeat(65)] {
            let refused = Shelves::new(folder.path()).of(&ProcessUid::from(bad)).await.unwrap_err();
            assert_eq!(refused.code, RefusalCode::BadRequest, "{bad}");
        }
    }
}

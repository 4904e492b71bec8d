//! Holds replicas for other processes of the hub, whatever this pod's own role is.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use processhub_protocol::id::{Epoch, ProcessUid};
use processhub_protocol::replica::{Mark, Offer, Offered, Seal, Sealed};
use processhub_protocol::wire::{Refusal, RefusalCode};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::Instrument;

use super::shelves::{Fetching, Held};
use crate::keeper::Kept;
use crate::peer::{Place, Remote};
use crate::sidecar::Sidecar;

/// How long an offer waits for the state to be fetched before it says that it is at it: well before its owner takes it for
/// dead.
const PATIENCE: Duration = Duration::from_millis(500);
/// What its owner has not asked for so long is not fetched any more.
const FORGOTTEN: Duration = Duration::from_secs(10);

type Done = watch::Receiver<Option<Result<(), Refusal>>>;

impl Sidecar {
    /// Takes what is offered: it is on this disk when this returns.
    ///
    /// # Errors
    /// A refusal: an older epoch, or that it is being fetched still.
    pub(crate) async fn hold_replica(self: &Arc<Self>, offer: Offer) -> Result<(), Refusal> {
        let held = self.shelves.of(&offer.process).await?;
        if held.shelf().judge_offer(&offer)? == Offered::Held {
            return Ok(());
        }
        if !held.lacks(&offer) {
            return held.take(&offer).await;
        }
        let busy = |message: &str| Refusal {
            code: RefusalCode::Busy,
            message: message.to_owned(),
            floor: held.shelf().floor,
        };
        let Some(mut done) = self.fetch(&held, offer) else {
            return Err(busy("a newer state is being fetched"));
        };
        let outcome = tokio::time::timeout(PATIENCE, done.wait_for(Option::is_some)).await;
        match outcome {
            Ok(Ok(outcome)) => outcome.clone().unwrap_or(Ok(())),
            Ok(Err(_)) => Err(busy("the work was cut off; ask again")),
            Err(_) => Err(busy("the state is being fetched; ask again")),
        }
    }

    /// Begins to fetch, or joins who does. `None` when something newer is being fetched.
    fn fetch(self: &Arc<Self>, held: &Arc<Held>, offer: Offer) -> Option<Done> {
        let mut fetching = held.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(now) = fetching.as_mut().filter(|now| now.done.borrow().is_none()) {
            if now.offer == offer {
                now.asked = Instant::now();
                return Some(now.done.clone());
            }
            if now.offer.mark > offer.mark {
                return None;
            }
            now.abort.abort();
        }
        let (sender, done) = watch::channel(None);
        let (sidecar, shelf, wanted) = (Arc::clone(self), Arc::clone(held), offer.clone());
        let work = async move {
            let outcome = tokio::select! {
                outcome = sidecar.pull_replica(&shelf, &wanted) => outcome,
                () = forgotten(&shelf) => Err(sidecar.cannot("its owner does not ask for it any more")),
                () = sidecar.down.cancelled() => return,
            };
            sender.send_replace(Some(outcome));
        };
        let abort = tokio::spawn(work.in_current_span()).abort_handle();
        *fetching = Some(Fetching { offer, done: done.clone(), asked: Instant::now(), abort });
        Some(done)
    }

    async fn pull_replica(&self, held: &Arc<Held>, offer: &Offer) -> Result<(), Refusal> {
        let Some(state) = &offer.state else { return Ok(()) };
        let Mark { epoch, .. } = offer.mark;
        let remote = Remote { from: &offer.from, epoch, state, place: Place::Checkpoint };
        let pulled = self.peers.pull(remote, held.keeper.record_checkpoint(offer.mark)).await;
        let written = pulled.map_err(|error| self.cannot(&error.to_string()))?;
        written.synced().await.map_err(|error| self.cannot(&error.to_string()))?;
        held.take(offer).await
    }

    fn cannot(&self, why: &str) -> Refusal {
        let floor = self.fence.record().floor.epoch;
        Refusal { code: RefusalCode::WrongState, message: format!("the state was not fetched: {why}"), floor }
    }

    /// Refuses everything below the recovery's epoch from now on, and says what is here.
    ///
    /// # Errors
    /// A refusal: an epoch below the highest that was seen, or the disk's failure.
    pub(crate) async fn seal_replica(&self, command: &Seal) -> Result<Sealed, Refusal> {
        let held = self.shelves.of(&command.process).await?;
        held.seal(command.epoch).await?;
        let (shelf, state) = (held.shelf(), held.state());
        tracing::info!(process = %command.process, epoch = %command.epoch, "a replica is sealed");
        Ok(Sealed {
            pod: self.config.pod.clone(),
            process: command.process.clone(),
            epoch: shelf.floor,
            newest: shelf.newest.zip(state),
            exposed: shelf.exposed,
        })
    }

    /// The replica, for who recovers the process at `epoch`.
    ///
    /// # Errors
    /// A refusal: an older epoch, or there is none.
    pub(crate) async fn replica(&self, process: &ProcessUid, epoch: Epoch) -> Result<Kept, Refusal> {
        let held = self.shelves.of(process).await?;
        let floor = held.shelf().floor;
        let refuse = |code, message: String| Refusal { code, message, floor };
        if epoch < floor {
            return Err(refuse(RefusalCode::StaleEpoch, format!("epoch {epoch} is below {floor}")));
        }
        held.kept()
            .await
            .map_err(|error| refuse(RefusalCode::WrongState, format!("there is no replica here: {error}")))
    }
}

/// Waits until the owner does not ask any more for what is being fetched.
async fn forgotten(held: &Held) {
    loop {
        tokio::time::sleep(FORGOTTEN / 4).await;
        let fetching = held.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        if fetching.as_ref().is_none_or(|now| now.asked.elapsed() > FORGOTTEN) {
            return;
        }
    }
}

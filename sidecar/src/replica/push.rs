//! Offers each holder what is newest, again and again, each at its own pace.

use std::sync::Arc;
use std::time::Duration;

use processhub_protocol::fence::Role;
use processhub_protocol::id::{Digest, Epoch};
use processhub_protocol::replica::{Mark, Offer, ReplicaView, Replicate};
use processhub_protocol::wire::{Peer, Refusal, RefusalCode};
use tokio::task::JoinSet;
use tracing::Instrument;

use super::holders::{Answer, Newest};
use crate::checkpoint::{Progress, Vain};
use crate::commands::Outcome;
use crate::config::Protocol;
use crate::fence::blocking;
use crate::keeper::Kept;
use crate::peer::PeerError;
use crate::sidecar::Sidecar;

/// Pause before a holder that fails is asked again.
const PAUSE: Duration = Duration::from_millis(100);
/// How a holder says that it is still fetching.
const BUSY: u16 = 503;

impl Sidecar {
    /// Takes the word of who holds the replicas.
    ///
    /// # Errors
    /// A refusal: as [`processhub_protocol::fence::Record::judge_replicate`] has it, or an older set.
    pub(crate) fn replicate_to(&self, command: Replicate) -> Outcome {
        let record = self.fence.record();
        record.judge_replicate(&command, &self.now())?;
        let generation = command.generation;
        if self.holders.tell(command) {
            self.secure_progress();
            return Ok(());
        }
        Err(Refusal {
            code: RefusalCode::StaleGrant,
            message: format!(
                "replicate: set {generation} is older than the one in force; read the process again"
            ),
            floor: record.floor.epoch,
        })
    }

    /// What an owner has to offer; `None` of any other.
    fn newest(&self) -> Option<Newest> {
        let stored = self.fence.stored();
        let Role::Active { epoch, kept } = stored.record.role else { return None };
        let checkpoint = &self.config.checkpoint;
        let exposed = stored.exposed || checkpoint.exposes_all() || self.config.protocol == Protocol::Tcp;
        Some(Newest { epoch, state: kept, exposed })
    }

    /// The replicas as they are reported; none where none are wanted.
    pub(crate) fn replica_view(&self) -> Option<ReplicaView> {
        (self.config.checkpoint.replicas > 0).then(|| self.holders.view(self.newest().as_ref()))
    }

    /// The checkpoint that a holder was offered.
    pub(crate) fn offered(&self, epoch: Epoch, digest: &Digest) -> Result<Kept, Refusal> {
        self.holders.offered(epoch, digest).ok_or_else(|| Refusal {
            code: RefusalCode::WrongState,
            message: "this checkpoint is not offered (any more); wait for the next offer".to_owned(),
            floor: self.fence.record().floor.epoch,
        })
    }

    /// Lets answers wait for what the holders have, as of now.
    fn secure_progress(&self) {
        let epoch = self.fence.record().role.active();
        self.checkpoints.secure(self.holders.secured(epoch, || self.checkpoints.progress()));
    }

    /// Keeps the holders up to date. Runs until this sidecar ends.
    pub(crate) async fn replicate(self: Arc<Self>) {
        if self.config.checkpoint.replicas == 0 {
            return;
        }
        let mut wake = Wake::new(&self);
        let mut tasks = JoinSet::new();
        let mut at_work = None;
        loop {
            wake.mark();
            self.secure_progress();
            let epoch = self.fence.record().role.active();
            let set = self.holders.set(epoch).map(|(generation, peers)| (epoch, generation, peers));
            if set != at_work {
                tasks.abort_all();
                for peer in set.iter().flat_map(|(_, _, peers)| peers.clone()) {
                    let generation = set.as_ref().map_or(0, |(_, generation, _)| *generation);
                    let serve = Arc::clone(&self).serve_holder(generation, peer);
                    tasks.spawn(serve.in_current_span());
                }
                at_work = set;
            }
            tokio::select! {
                () = self.down.cancelled() => return,
                () = wake.wait() => {}
            }
        }
    }

    /// Brings one holder up to date, again and again.
    async fn serve_holder(self: Arc<Self>, generation: u64, peer: Peer) {
        let mut wake = Wake::new(&self);
        loop {
            wake.mark();
            // Before the record: what that says is kept is at least as new.
            let point = self.checkpoints.progress();
            let Some(newest) = self.newest() else { return };
            if self.holders.has(generation, &peer.pod, &newest, point) {
                self.secure_progress();
                wake.wait().await;
                continue;
            }
            if !self.offer_newest(generation, &peer, newest, point).await {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Whether it is worth while to go on at once.
    async fn offer_newest(&self, generation: u64, peer: &Peer, newest: Newest, point: Progress) -> bool {
        let kept = match &newest.state {
            None => None,
            Some(state) => {
                let (keeper, state) = (self.keeper.clone(), state.clone());
                match blocking(move || keeper.find(&state)).await {
                    Ok(kept) => Some(kept),
                    // Another one is the newest by now.
                    Err(_) => return false,
                }
            }
        };
        let mark = kept.as_ref().and_then(|kept| kept.manifest().checkpoint);
        let number = mark.filter(|mark| mark.epoch == newest.epoch).map_or(0, |mark| mark.number);
        let offer = Offer {
            process: self.config.process.clone(),
            mark: Mark { epoch: newest.epoch, number },
            state: newest.state.clone(),
            exposed: newest.exposed,
            from: self.as_peer(),
        };
        self.holders.offers(generation, &peer.pod, kept);
        let answer = match self.peers.offer(peer, &offer).await {
            Ok(()) => Answer::Holds(newest, point),
            Err(PeerError::Refused { status: BUSY, .. }) => Answer::Fetches,
            Err(error) => {
                tracing::warn!(holder = %peer.pod, %error, "a replica could not be brought up to date");
                Answer::Fails
            }
        };
        let goes_on = matches!(answer, Answer::Holds(..));
        self.holders.answered(generation, &peer.pod, answer);
        self.secure_progress();
        goes_on
    }

    /// Waits until every holder knows that more may be answered than it has: an answer goes out whose change waits for none.
    pub(crate) async fn holders_know_of_exposure(&self) -> Result<(), Vain> {
        let everything = self.config.checkpoint.exposes_all() || self.config.protocol == Protocol::Tcp;
        if self.config.checkpoint.replicas == 0 || everything {
            return Ok(());
        }
        self.holders.poke();
        let mut changes = self.holders.changes();
        let know = async {
            while !self.holders.know_of_exposure(self.fence.record().role.active()) {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(self.config.hold.time, know).await.map_err(|_| {
            tracing::warn!(
                "the holders of the replicas could not be told in time that an answer goes out unsecured"
            );
            Vain
        })
    }
}

/// Sees whatever an offer depends on.
struct Wake {
    progress: tokio::sync::watch::Receiver<Progress>,
    record: tokio::sync::watch::Receiver<u64>,
    holders: tokio::sync::watch::Receiver<u64>,
}

impl Wake {
    fn new(sidecar: &Sidecar) -> Self {
        Self {
            progress: sidecar.checkpoints.changes(),
            record: sidecar.changes(),
            holders: sidecar.holders.changes(),
        }
    }

    /// Whatever has happened up to now is known.
    fn mark(&mut self) {
        self.progress.mark_unchanged();
        self.record.mark_unchanged();
        self.holders.mark_unchanged();
    }

    /// The senders go only with the sidecar.
    async fn wait(&mut self) {
        tokio::select! {
            _ = self.progress.changed() => {}
            _ = self.record.changed() => {}
            _ = self.holders.changed() => {}
        }
    }
}

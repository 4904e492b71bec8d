//! Tells the sealed source that this pod serves, until the source answers: it then forwards what it held and what still
//! arrives there. The target does this, not the operator: the blackout does not wait for a third party.

use std::sync::Arc;
use std::time::Duration;

use processhub_protocol::fence::Role;
use processhub_protocol::id::Epoch;
use processhub_protocol::wire::{Forward, Peer};

use crate::fence::Stored;
use crate::peer::PeerError;
use crate::sidecar::Sidecar;

const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// After so many calls without any answer the source counts as gone: with the longest pause, after ten minutes.
const PATIENCE: u32 = 600;

impl Sidecar {
    /// Runs until this sidecar ends.
    pub(crate) async fn announce(self: Arc<Self>) {
        let mut changes = self.changes();
        let (mut pause, mut calls) = (FIRST_PAUSE, 0);
        loop {
            changes.mark_unchanged();
            if let Some((epoch, source)) = self.to_announce() {
                calls += 1;
                if self.tell(epoch, &source, calls >= PATIENCE).await {
                    (pause, calls) = (FIRST_PAUSE, 0);
                } else {
                    tokio::select! {
                        () = self.down.cancelled() => return,
                        () = tokio::time::sleep(pause) => {}
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                continue;
            }
            tokio::select! {
                () = self.down.cancelled() => return,
                changed = changes.changed() => if changed.is_err() { return },
            }
        }
    }

    fn to_announce(&self) -> Option<(Epoch, Peer)> {
        if !self.serving() {
            return None;
        }
        let stored = self.fence.stored();
        match stored.record.role {
            Role::Active { epoch, .. } => Some((epoch, stored.source?)),
            Role::Standby
            | Role::Delivered { .. }
            | Role::Frozen { .. }
            | Role::Forwarding { .. }
            | Role::Retired { .. } => None,
        }
    }

    /// Whether the source has answered for good, or this was the last call.
    async fn tell(&self, epoch: Epoch, source: &Peer, last: bool) -> bool {
        let to = self.addressee(&source.pod);
        match self.peers.forward(source, &Forward { to, epoch, peer: self.as_peer() }).await {
            Ok(report) => {
                self.metrics.blackout(report.blackout_microseconds);
                if report.blackout_microseconds.is_some() {
                    self.live().blackout_microseconds = report.blackout_microseconds;
                }
            }
            // It is not sealed (any more), or is another pod by now: nothing is held there.
            Err(error @ PeerError::Refused { .. }) if error.is_final() => {
                tracing::warn!(epoch = %epoch, pod = %source.pod, %error, "the source does not forward");
            }
            Err(error @ PeerError::Address(_)) => {
                tracing::warn!(epoch = %epoch, pod = %source.pod, %error, "the source cannot be told");
            }
            Err(error) if last => {
                tracing::warn!(epoch = %epoch, pod = %source.pod, %error, "the source is gone");
            }
            Err(_) => return false,
        }
        let source = source.clone();
        let told = self.fence.commit(move |stored| {
            let source = stored.source.clone().filter(|now| *now != source);
            Ok(Stored { source, ..stored.clone() })
        });
        told.await.is_ok()
    }
}

//! Serving by lease (`failover: OnLease`): nothing is acknowledged when the last lease has ended, whatever this sidecar
//! hears or does not hear. What is held meanwhile goes on with the next lease; what is in flight has an unknown outcome.

use std::sync::Arc;
use std::time::Duration;

use processhub_protocol::lease::{Lease, LeaseView};
use processhub_protocol::wire::{Challenge, Renew};

use crate::commands::Outcome;
use crate::sidecar::{Live, Sidecar};

/// How often the clock is looked at: it goes on while a machine is suspended, timers do not.
const LOOK: Duration = Duration::from_millis(250);

impl Sidecar {
    /// Whether what `live` holds lets this sidecar acknowledge now.
    pub(crate) fn holds_lease(&self, live: &Live) -> bool {
        !self.config.leased || self.lease_left(live) > 0
    }

    /// Looks at the clock: the flow may not have been turned yet, on a machine that stood still.
    pub(crate) fn may_acknowledge(&self) -> bool {
        self.holds_lease(&self.live())
    }

    fn lease_left(&self, live: &Live) -> u64 {
        live.lease.as_ref().map_or(0, |lease| lease.left(&self.now()))
    }

    /// The lease as it is reported; none where this pod serves without one.
    pub(crate) fn lease_view(&self, live: &Live) -> Option<LeaseView> {
        self.config.leased.then(|| LeaseView { left_milliseconds: self.lease_left(live) })
    }

    /// Takes a lease.
    ///
    /// # Errors
    /// A refusal, as [`processhub_protocol::fence::Record::judge_renew`] has it.
    pub(crate) fn renew(&self, command: &Renew) -> Outcome {
        self.fence.record().judge_renew(command, &self.now())?;
        self.lease(command.grant.challenge.clone());
        Ok(())
    }

    /// A grant was obeyed that answers this challenge.
    pub(crate) fn lease(&self, challenge: Challenge) {
        if self.config.leased {
            let now = self.now();
            self.change(|live| live.lease = Some(Lease::answering(challenge).or(live.lease.take(), &now)));
        }
    }

    /// Turns the flow when a lease ends. Runs until this sidecar ends.
    pub(crate) async fn watch_lease(self: Arc<Self>) {
        if !self.config.leased {
            return;
        }
        let mut changes = self.changes();
        loop {
            let (left, serving) = {
                let live = self.live();
                (self.lease_left(&live), live.serving_since.is_some())
            };
            if left == 0 && serving {
                tracing::warn!("the lease has ended: requests are held until the operator renews it");
                self.settle();
                self.hold.cut();
            }
            let end = async {
                match left {
                    0 => std::future::pending().await,
                    left => tokio::time::sleep(Duration::from_millis(left).min(LOOK)).await,
                }
            };
            tokio::select! {
                () = self.down.cancelled() => return,
                _ = changes.changed() => {}
                () = end => {}
            }
        }
    }
}

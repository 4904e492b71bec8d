//! What the kubelet asks: may the worker start, does this pod serve, does the sidecar run, may the worker be stopped.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use processhub_protocol::fence::Role;
use tokio::time::Instant;

use crate::sidecar::Sidecar;

/// Pause between two looks at a worker that ends.
const LOOK: Duration = Duration::from_millis(20);

impl Sidecar {
    /// `/startz`: 200 opens the gate for the worker's first start.
    pub(crate) fn start_probe(&self) -> StatusCode {
        if self.gated() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
    }

    /// `/readyz`: 200 while this pod serves its process.
    pub(crate) fn ready_probe(&self) -> StatusCode {
        if self.serving() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
    }

    /// Whether ending this pod's worker would take the process's state along.
    pub(crate) fn owns(&self) -> bool {
        match self.fence.record().role {
            // Frozen may still be thawed, and its state is fetched from here.
            Role::Active { .. } | Role::Frozen { .. } => true,
            Role::Standby | Role::Delivered { .. } | Role::Forwarding { .. } | Role::Retired { .. } => false,
        }
    }

    /// `/v1/prestop`: returns when the worker may be stopped. The report says meanwhile that it waits, which the operator
    /// takes as a hint to look at the pod.
    pub(crate) async fn pre_stop(self: &Arc<Self>) {
        let _waiting = Waiting::begin(self);
        let bound = Instant::now() + self.config.hook_bound;
        tokio::select! {
            () = self.until(|sidecar| !sidecar.owns()) => self.change(|live| live.released = true),
            () = tokio::time::sleep_until(bound) => {
                tracing::error!("the process was not handed over in time; its worker is stopped");
            }
            () = self.down.cancelled() => {}
        }
    }

    /// Whether the worker has ended with its pod. To be asked when the kubelet has told this sidecar to end: of a pod that
    /// ends it tells a native sidecar last, after every other container has ended. That the hook was answered before tells
    /// this from a restart of the sidecar alone; a worker that still listens has not ended, whatever was told.
    pub(crate) async fn worker_ends(&self) -> bool {
        if !self.live().released {
            return false;
        }
        while self.accepts(self.config.worker_control).await || self.accepts(self.config.worker_listen).await
        {
            tokio::time::sleep(LOOK).await;
        }
        true
    }

    async fn accepts(&self, address: SocketAddr) -> bool {
        self.net.connect(address).await.is_ok()
    }
}

struct Waiting(Arc<Sidecar>);

impl Waiting {
    fn begin(sidecar: &Arc<Sidecar>) -> Self {
        sidecar.change(|live| live.stopping += 1);
        Self(Arc::clone(sidecar))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.change(|live| live.stopping -= 1);
    }
}

//! What the kubelet asks: may the worker start, does this pod serve, does the sidecar run, may the worker be stopped.

use std::sync::Arc;

use http::StatusCode;
use processhub_protocol::fence::Role;
use tokio::time::Instant;

use crate::sidecar::Sidecar;

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
            Role::Standby | Role::Delivered { .. } | Role::Forwarding { .. } => false,
        }
    }

    /// `/v1/prestop`: returns when the worker may be stopped. The report says meanwhile that it waits, which the operator
    /// takes as a hint to look at the pod.
    pub(crate) async fn pre_stop(self: &Arc<Self>) {
        let _waiting = Waiting::begin(self);
        let bound = Instant::now() + self.config.hook_bound;
        tokio::select! {
            () = self.until(|sidecar| !sidecar.owns()) => {}
            () = tokio::time::sleep_until(bound) => {
                tracing::error!("the process was not handed over in time; its worker is stopped");
            }
            () = self.down.cancelled() => {}
        }
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

//! The operators of a site.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;

use super::{SYSTEM, Site};
use crate::wait::{Seen, until};

/// An operator by the name that it leads under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorPod(String);

impl OperatorPod {
    /// Name of its pod, or of its process on the embedded cluster.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl Site {
    /// The operator that holds the Lease.
    ///
    /// # Errors
    /// When none holds it.
    pub async fn leader(&self) -> Result<OperatorPod> {
        let leases: Api<Lease> = Api::namespaced(self.client(), SYSTEM);
        let lease = leases.get("processhub-operator-default").await?;
        let holder = lease.spec.and_then(|spec| spec.holder_identity).filter(|holder| !holder.is_empty());
        Ok(OperatorPod(holder.context("nobody holds the Lease")?))
    }

    /// Waits until an operator leads.
    pub(super) async fn ready(&self) -> Result<()> {
        until("an operator that leads", Duration::from_secs(60), async || {
            Ok(match self.leader().await {
                Ok(_) => Seen::Yes(()),
                Err(error) => Seen::NotYet(format!("{error:#}")),
            })
        })
        .await
    }
}

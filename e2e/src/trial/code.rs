//! Giving a trial's hub other code.

use anyhow::{Context, Result};
use processhub_crds::ProcessHub;
use serde_json::{Value, json};

use super::{HubOptions, Trial};
use crate::wait::{Seen, until};

impl HubOptions {
    /// With counters of that version, which take the state of another one as well.
    #[must_use]
    pub fn code(mut self, vsn: &str, accepts: &str) -> Self {
        self.spec["vsn"] = vsn.into();
        self.environment("COUNTER_VSN", vsn).environment("COUNTER_ACCEPTS_FROM", accepts)
    }
}

impl Trial<'_> {
    /// Gives the hub other code: a version, the one that it takes states from, and faults; empty for none.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn give_code(&self, hub: &str, vsn: &str, accepts: &str, faults: &str) -> Result<()> {
        let mut template = serde_json::to_value(self.hubs().get(hub).await?.spec.template)?;
        let environment =
            [("COUNTER_VSN", vsn), ("COUNTER_ACCEPTS_FROM", accepts), ("COUNTER_FAULTS", faults)];
        let given = template["spec"]["containers"][0]["env"].as_array_mut().context("no environment")?;
        given.retain(|variable: &Value| environment.iter().all(|(name, _)| variable["name"] != *name));
        let wanted = environment.iter().filter(|(_, value)| !value.is_empty());
        given.extend(wanted.map(|(name, value)| json!({"name": name, "value": value})));
        self.change(json!({"vsn": vsn, "template": template})).await
    }

    /// Waits until the hub has so many processes with its present code, as its status counts them.
    ///
    /// # Errors
    /// When that is not so within three minutes, and half a second for each process.
    pub async fn upgraded(&self, hub: &str, count: u32) -> Result<ProcessHub> {
        until(&format!("{count} processes of {hub} to run its code"), self.patience(), async || {
            let hub = self.hubs().get(hub).await?;
            let status = hub.status.clone().unwrap_or_default();
            let seen = hub.metadata.generation == status.observed_generation;
            let said = status.conditions.iter().find(|it| it.type_ == "Progressing");
            let said = said.map(|it| format!("{} {}", it.reason, it.message)).unwrap_or_default();
            Ok(if seen && status.upgraded == count {
                Seen::Yes(hub)
            } else {
                Seen::NotYet(format!("{} do: {said}", status.upgraded))
            })
        })
        .await
    }
}

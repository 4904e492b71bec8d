//! Pods that are asked to go.

use anyhow::{Result, ensure};

use super::Finding;
use crate::site::Site;
use crate::trial::{HubOptions, Trial};

pub(super) async fn a_deleted_owner_is_moved_first(site: &Site) -> Result<Finding> {
    let options = HubOptions::of("deleted", 3);
    let trial = Trial::begin(site, "deleted", options, None).await?;
    let owner = trial.owner("deleted-1").await?;
    site.delete_pod(trial.namespace(), &owner.pod, None).await?;
    trial.owned_by_another_pod("deleted-1", &owner.uid).await?;
    trial.settled().await?;
    trial.under_load(300).await?;
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    ensure!(
        verdict.moves.iter().any(|moved| moved.process == "deleted-1" && moved.is_swap()),
        "it was not moved: {:?}",
        verdict.moves
    );
    Ok(verdict.line())
}

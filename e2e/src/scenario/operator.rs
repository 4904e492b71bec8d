//! The operator dies, sleeps, or is not there.

use std::time::Duration;

use anyhow::{Result, ensure};
use processhub_crds::MigrationPhase;
use tokio::time::sleep;

use super::Finding;
use crate::site::{Signal, Site, SiteKind};
use crate::trial::{HubOptions, Trial};

/// The other one finishes what the dead one began.
pub(super) async fn the_leader_is_killed_in_mid_move(site: &Site) -> Result<Finding> {
    let options = HubOptions::of("led", 4).checkpointed().faults("hang=import:500");
    let trial = Trial::begin(site, "led", options, None).await?;
    let leader = site.leader().await?;
    let to = trial.wish_away("led-0").await?;
    trial.in_phase("led-0", MigrationPhase::Prepared).await?;
    site.kill_operator(&leader).await?;
    trial.owned_by("led-0", &to).await?;
    // The one that was killed may have come back first: that is a new leader too.
    let next = site.leader().await?;
    trial.settled().await?;
    trial.under_load(200).await?;
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    Ok(format!("{} finished it; {}", next.name(), verdict.line()))
}

/// A leader that is stopped for a minute still believes that it leads when it wakes up: it must not do anything.
pub(super) async fn a_stale_leader_wakes_up(site: &Site) -> Result<Finding> {
    let trial = Trial::begin(site, "stale", HubOptions::of("stale", 4).checkpointed(), None).await?;
    let stale = site.leader().await?;
    // On a kubelet it is ended by its liveness probe if it sleeps for longer.
    let nap = match site.kind() {
        SiteKind::Embedded => Duration::from_secs(60),
        SiteKind::Local | SiteKind::Kubeconfig => Duration::from_secs(20),
    };
    trial.wish_away("stale-0").await?;
    trial.in_phase("stale-0", MigrationPhase::Prepared).await?;
    site.signal_operator(&stale, Signal::STOP).await?;
    let began = tokio::time::Instant::now();
    let moved = async {
        let next = site.led_by_another(&stale).await?;
        trial.settled().await?;
        trial.wish_away("stale-1").await?;
        trial.wish_away("stale-2").await?;
        trial.settled().await?;
        anyhow::Ok(next)
    }
    .await;
    sleep((began + nap).saturating_duration_since(tokio::time::Instant::now())).await;
    site.signal_operator(&stale, Signal::CONT).await?;
    let next = moved?;
    sleep(Duration::from_secs(3)).await;
    trial.under_load(200).await?;
    let leader = site.leader().await?;
    ensure!(leader != stale, "{} leads again after it slept", stale.name());
    trial.settled().await?;
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    Ok(format!("{} led meanwhile; {}", next.name(), verdict.line()))
}

/// Without any operator, and then without an API server, processes serve.
pub(super) async fn processes_serve_without_operator_and_api_server(site: &Site) -> Result<Finding> {
    let trial = Trial::begin(site, "alone", HubOptions::of("alone", 4), None).await?;
    let operators = site.operators().await?;
    for operator in &operators {
        site.signal_operator(operator, Signal::STOP).await?;
    }
    site.serve_api(false).await?;
    let served = trial.under_load(500).await;
    site.serve_api(true).await?;
    for operator in &operators {
        site.signal_operator(operator, Signal::CONT).await?;
    }
    served?;
    site.ready().await?;
    let to = trial.wish_away("alone-0").await?;
    trial.owned_by("alone-0", &to).await?;
    trial.settled().await?;
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    Ok(verdict.line())
}

//! Pods that are asked to go, that do not start, or that hold a worker without a contract.

use anyhow::{Result, ensure};
use processhub_crds::{MigrationResult, MigrationTrigger};
use serde_json::json;

use super::Finding;
use crate::site::Site;
use crate::trial::{HubOptions, Trial, condition};

pub(super) async fn a_deleted_owner_is_moved_first(site: &Site) -> Result<Finding> {
    let trial = Trial::begin(site, "deleted", HubOptions::of("deleted", 3).checkpointed(), None).await?;
    let owner = trial.owner("deleted-1").await?;
    site.delete_pod(trial.namespace(), &owner.pod, None).await?;
    trial.owned_by_another_pod("deleted-1", &owner.uid).await?;
    trial.settled().await?;
    trial.under_load(300).await?;
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    let swaps: Vec<_> = verdict.moves.iter().filter(|moved| moved.is_swap()).collect();
    ensure!(
        matches!(swaps[..], [moved] if moved.process == "deleted-1"
            && moved.trigger == MigrationTrigger::PodDeleted
            && moved.blackout.is_some()),
        "not one move for the deleted pod, or without its blackout: {swaps:?}"
    );
    Ok(verdict.line())
}

/// A second of grace is too short to promise anything but that a loss is told.
pub(super) async fn an_owner_deleted_without_grace(site: &Site) -> Result<Finding> {
    forced(site, "graceless", Some(1)).await
}

/// By force: the object is gone at once, and the kubelet ends the pod whenever it sees that.
pub(super) async fn an_owner_deleted_by_force(site: &Site) -> Result<Finding> {
    forced(site, "forced", Some(0)).await
}

async fn forced(site: &Site, name: &str, grace: Option<u32>) -> Result<Finding> {
    // What is not proven otherwise is taken for dead when the kubelet has had grace period and half a minute: all that
    // makes the grace period long is made short.
    let options = HubOptions::of(name, 3).spec(json!({
        "migration": {"stateTTLMilliseconds": 2000, "stateQueryTimeoutMilliseconds": 1000},
        "worker": {"drainTimeoutMilliseconds": 500, "hold": {"milliseconds": 1000}},
        "template": {"spec": {"terminationGracePeriodSeconds": 1}},
    }));
    let trial = Trial::begin(site, name, options, None).await?;
    let victim = format!("{name}-1");
    let owner = trial.owner(&victim).await?;
    trial.under_load(100).await?;
    site.delete_pod(trial.namespace(), &owner.pod, grace).await?;
    trial.owned_by_another_pod(&victim, &owner.uid).await?;
    trial.settled().await?;
    trial.under_load(100).await?;
    let status = trial.processes().get(&victim).await?.status.unwrap_or_default();
    let said = status.may_miss.is_some();
    if said {
        trial.event(&victim, "StateLost").await?;
    }
    let verdict = trial.finish_excusing(&[&victim]).await?;
    verdict.check_planned()?;
    let lost = verdict.excused.lost;
    ensure!(lost == 0 || said, "{lost} lost and nobody says so");
    Ok(format!("{lost} lost by force, said: {said}; {}", verdict.line()))
}

/// A hub whose pods cannot start says why, and delays no other hub.
pub(super) async fn a_template_that_does_not_start(site: &Site) -> Result<Finding> {
    let trial = Trial::begin(site, "broken", HubOptions::of("whole", 2), None).await?;
    let mut broken = HubOptions::of("broken", 2);
    broken.spec = json!({"template": {"spec": {"containers": [{
        "name": "worker", "image": "localhost/no-such-image:1", "imagePullPolicy": "Never",
        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
    }]}}});
    trial.create_hub(&broken).await?;
    trial
        .becomes("broken-0", "waiting, with words about the image", |seen| {
            condition(seen, "Progressing").is_some_and(|said| said.message.contains("Image"))
        })
        .await?;
    // Meanwhile the other hub moves as ever.
    let to = trial.wish_away("whole-0").await?;
    trial.owned_by("whole-0", &to).await?;
    trial.settled().await?;
    let process = trial.processes().get("broken-0").await?;
    let ready = condition(&process, "Ready").map(|found| found.status.clone()).unwrap_or_default();
    ensure!(ready == "False", "Ready={ready} of a process that never started");
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    Ok(verdict.line())
}

/// A worker that speaks no contract runs and moves without state where nobody asked for hand-over...
pub(super) async fn a_worker_without_contract_moves_without_state(site: &Site) -> Result<Finding> {
    let options = HubOptions::of("mute", 2)
        .environment("COUNTER_NO_CONTRACT", "true")
        .spec(json!({"migration": {"handover": null}}));
    let trial = Trial::begin(site, "mute", options, None).await?;
    let capable = trial.says("mute-0", "HandoverCapable", "NoContract").await?;
    ensure!(capable.status == "False", "HandoverCapable={}", capable.status);
    trial.under_load(100).await?;
    let epoch = trial.epoch("mute-0").await?;
    let to = trial.wish_away("mute-0").await?;
    let moved = trial.swap_ended("mute-0", epoch).await?;
    ensure!(moved.result == MigrationResult::Succeeded && moved.to == Some(to), "{moved:?}");
    ensure!(moved.bytes.unwrap_or(0) == 0, "{:?} bytes of state from a worker that has none", moved.bytes);
    trial.settled().await?;
    trial.under_load(100).await?;
    let verdict = trial.finish_excusing(&["mute-0"]).await?;
    verdict.check_planned()?;
    ensure!(verdict.excused.errors == 0, "errors: {:?}", verdict.excused.error_samples);
    Ok(verdict.line())
}

/// ... and is not moved where hand-over was asked for.
pub(super) async fn a_worker_without_contract_keeps_its_place_with_handover(site: &Site) -> Result<Finding> {
    let options = HubOptions::of("stay", 2).environment("COUNTER_NO_CONTRACT", "true");
    let trial = Trial::create(site, "stay", options, None).await?;
    let said = trial.says("stay-0", "HandoverCapable", "NoContract").await?;
    ensure!(said.status == "False", "HandoverCapable={}", said.status);
    ensure!(trial.swaps().iter().all(|moved| !moved.succeeded()), "{:?}", trial.swaps());
    Ok(said.message)
}

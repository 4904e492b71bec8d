//! The hub changes while its processes serve.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use processhub_crds::MigrationPhase;
use serde_json::json;

use super::Finding;
use crate::site::Site;
use crate::trial::{HubOptions, Trial};
use crate::wait::{Seen, until};

/// By `/scale`, as `kubectl scale` does; the first processes serve through all of it.
pub(super) async fn a_hub_is_scaled(site: &Site) -> Result<Finding> {
    let trial =
        Trial::begin(site, "scale", HubOptions::of("scale", 20).driven(5).checkpointed(), None).await?;
    for replicas in [50, 5] {
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        trial.hubs().patch_scale("scale", &PatchParams::default(), &patch).await?;
        trial.settled().await?;
        let scale = trial.hubs().get_scale("scale").await?;
        ensure!(scale.spec.and_then(|spec| spec.replicas) == Some(replicas), "/scale says otherwise");
    }
    let left = trial.processes().list(&ListParams::default()).await?;
    let names: Vec<_> = left.iter().map(ResourceExt::name_any).collect();
    ensure!(names == ["scale-0", "scale-1", "scale-2", "scale-3", "scale-4"], "{names:?}");
    trial.under_load(200).await?;
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    Ok(verdict.line())
}

/// The last process is taken away in the middle of its move and wanted again.
pub(super) async fn a_hub_is_scaled_in_mid_move(site: &Site) -> Result<Finding> {
    let options = HubOptions::of("mid", 3).checkpointed().driven(2).faults("hang=import:1500");
    let trial = Trial::begin(site, "mid", options, None).await?;
    let old = trial.processes().get("mid-2").await?.uid();
    trial.wish_away("mid-2").await?;
    trial.in_phase("mid-2", MigrationPhase::Prepared).await?;
    trial.change(json!({"replicas": 2})).await?;
    until("mid-2 to be stopped", Duration::from_secs(60), async || {
        let there = trial.processes().get_opt("mid-2").await?;
        Ok(if there.and_then(|process| process.uid()) == old {
            Seen::NotYet("there".into())
        } else {
            Seen::Yes(())
        })
    })
    .await?;
    trial.change(json!({"replicas": 3})).await?;
    trial.settled().await?;
    let new = trial.processes().get("mid-2").await?;
    ensure!(new.uid() != old, "the same object came back");
    adopted_nothing(&trial, "mid-2").await?;
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    Ok(verdict.line())
}

/// A replica that somebody deletes is another process when its hub creates it again.
pub(super) async fn a_process_is_deleted_while_it_moves(site: &Site) -> Result<Finding> {
    let options = HubOptions::of("again", 3).driven(2).faults("hang=import:1500");
    let trial = Trial::begin(site, "again", options, None).await?;
    let old = trial.processes().get("again-2").await?.uid().context("a UID")?;
    trial.wish_away("again-2").await?;
    trial.in_phase("again-2", MigrationPhase::Prepared).await?;
    trial.processes().delete("again-2", &DeleteParams::default()).await?;
    until("again-2 to be created again", Duration::from_secs(60), async || {
        let there = trial.processes().get_opt("again-2").await?.and_then(|process| process.uid());
        Ok(if there.as_ref().is_some_and(|uid| *uid != old) {
            Seen::Yes(())
        } else {
            Seen::NotYet(format!("{there:?}"))
        })
    })
    .await?;
    trial.settled().await?;
    adopted_nothing(&trial, "again-2").await?;
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    Ok(verdict.line())
}

/// Every pod of the process belongs to the present object of that name.
async fn adopted_nothing(trial: &Trial<'_>, process: &str) -> Result<()> {
    let uid = trial.processes().get(process).await?.uid().unwrap_or_default();
    let owner = trial.owner(process).await?;
    let pods = trial.pods(process).await?;
    let pod = pods.iter().find(|pod| pod.uid().as_deref() == Some(&owner.uid)).context("the owner's pod")?;
    let of = pod.labels().get("processhub.io/process-uid").cloned().unwrap_or_default();
    ensure!(of == uid, "the owner's pod belongs to {of}, not to {uid}");
    Ok(())
}

/// Nothing of it is left, though moves were under way.
pub(super) async fn a_hub_is_deleted_while_it_rebalances(site: &Site) -> Result<Finding> {
    let options = HubOptions::of("doomed", 8).faults("hang=import:1000");
    let trial = Trial::begin(site, "doomed", options, None).await?;
    for index in 0..4 {
        trial.wish_away(&format!("doomed-{index}")).await?;
    }
    trial.in_phase("doomed-3", MigrationPhase::Prepared).await?;
    trial.hubs().delete("doomed", &DeleteParams::default()).await?;
    let pods: Api<Pod> = Api::namespaced(site.client(), trial.namespace());
    let services: Api<Service> = Api::namespaced(site.client(), trial.namespace());
    until("everything of the hub to be gone", Duration::from_secs(90), async || {
        let all = ListParams::default();
        let left = (
            pods.list(&all).await?.items.len(),
            services.list(&all).await?.items.len(),
            trial.processes().list(&all).await?.items.len(),
        );
        Ok(if left == (0, 0, 0) {
            Seen::Yes(())
        } else {
            Seen::NotYet(format!("{} pods, {} Services, {} processes", left.0, left.1, left.2))
        })
    })
    .await?;
    Ok("pods, Services and processes are gone".into())
}

/// Processes that somebody starts and stops by hand, and listed ones with a place of their own.
pub(super) async fn processes_are_started_by_hand_and_pinned(site: &Site) -> Result<Finding> {
    let nodes = site.nodes().await?;
    let (first, last) = (nodes[0].clone(), nodes[nodes.len() - 1].clone());
    let listed = |node: &str| json!([{"name": "till", "config": {"drawer": 1}, "labels": {"tier": "gold"}, "nodeName": node}]);
    let options = HubOptions::of("shop", 0).driven(2).spec(json!({
        "distribution": {"strategy": "Guided"}, "processes": listed(&first),
    }));
    let mut trial = Trial::create(site, "shop", options, None).await?;
    trial.start_child("guest", Some(&last)).await?;
    trial.settled().await?;
    trial.follow().await?;
    ensure!(trial.owner_node("till").await? == first, "the pin of the list was not followed");
    ensure!(trial.owner_node("guest").await? == last, "the pin of the object was not followed");
    ensure!(
        trial.processes().get("till").await?.labels().get("tier").map(String::as_str) == Some("gold"),
        "a label of the list is not on the object"
    );
    trial.change(json!({"processes": listed(&last)})).await?;
    trial.owned_by("till", &last).await?;
    trial.settled().await?;
    trial.change(json!({"processes": listed("no-such-node")})).await?;
    trial.says("till", "Progressing", "not_a_member").await?;
    ensure!(trial.owner_node("till").await? == last, "it left for a node that is none");
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    Ok(verdict.line())
}

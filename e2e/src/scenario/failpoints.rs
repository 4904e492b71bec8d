//! The operator dies, or loses an answer, at each of its effects.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Resource, ResourceExt};
use processhub_crds::{HubProcess, Tenure};
use serde_json::json;

use super::Finding;
use crate::site::{Signal, Site, SiteKind};
use crate::trial::{HubOptions, Trial};

/// What makes an operator come to an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// A process is moved.
    Move,
    /// A process is moved to a target that refuses its state.
    Refusal,
    /// A process is moved cold.
    ColdMove,
    /// The code of a hub changes.
    NewCode,
    /// An owner does not answer.
    Silence,
    /// A hub of its own is created.
    NewHub,
    /// One more process, and one less.
    Scale,
    /// A listed process changes.
    Listed,
    /// Somebody creates a process by hand.
    ByHand,
    /// A pod of an epoch that is over.
    Orphan,
    /// Owners serve by lease.
    Lease,
    /// An owner that serves by lease does not answer, and then does.
    ShortSilence,
    /// An owner that serves by lease does not answer until it was taken over.
    LongSilence,
    /// A hub whose states are with other nodes as well is created.
    NewReplicas,
}

/// Every effect that an operator has, as `processhub-operator failpoints` lists them, and what brings it about.
const EFFECTS: &[(&str, Cause)] = &[
    ("prepare", Cause::Move),
    ("create-pod", Cause::Move),
    ("trial", Cause::NewCode),
    ("freeze", Cause::Move),
    ("import", Cause::Move),
    ("commit", Cause::Move),
    ("activate", Cause::Move),
    ("route", Cause::Move),
    ("read-live", Cause::Move),
    ("delete-source", Cause::Move),
    ("end", Cause::Move),
    ("remove-wish", Cause::Move),
    ("abort", Cause::Refusal),
    ("thaw", Cause::Refusal),
    ("delete-target", Cause::Refusal),
    ("release-pod", Cause::ColdMove),
    ("hand-on", Cause::ColdMove),
    ("write-conditions", Cause::Silence),
    ("create-key", Cause::NewHub),
    ("create-process", Cause::Scale),
    ("delete-process", Cause::Scale),
    ("let-go", Cause::Scale),
    ("hub-status", Cause::Scale),
    ("update-process", Cause::Listed),
    ("adopt-process", Cause::ByHand),
    ("delete-orphan", Cause::Orphan),
    ("renew", Cause::Lease),
    ("fence", Cause::ShortSilence),
    ("unfence", Cause::ShortSilence),
    ("seal-replicas", Cause::LongSilence),
    ("choose-replicas", Cause::NewReplicas),
    ("replicate", Cause::NewReplicas),
    ("settle-replicas", Cause::NewReplicas),
];

/// Those that are tried on the local cluster as well, where everything takes longer.
const ALSO_LOCAL: &[&str] = &["create-pod", "freeze", "import", "commit", "activate", "delete-source"];

/// Every effect of the operator is among those that are tried.
pub(super) async fn every_effect_has_a_failpoint(site: &Site) -> Result<Finding> {
    let output = Command::new(site.program("processhub-operator")?).arg("failpoints").output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let listed = String::from_utf8(output.stdout)?;
    let mut listed: Vec<_> = listed.lines().collect();
    let mut tried: Vec<_> = EFFECTS.iter().map(|(name, _)| *name).collect();
    listed.sort_unstable();
    tried.sort_unstable();
    ensure!(listed == tried, "the operator has {listed:?}, tried are {tried:?}");
    Ok(format!("{} effects, each before, after and with its answer lost: {}", tried.len(), tried.join(" ")))
}

pub(super) async fn the_operator_dies_before_each_effect(site: &Site) -> Result<Finding> {
    at_each(site, "before").await
}

pub(super) async fn the_operator_dies_after_each_effect(site: &Site) -> Result<Finding> {
    at_each(site, "after").await
}

pub(super) async fn the_answer_of_each_effect_is_lost(site: &Site) -> Result<Finding> {
    at_each(site, "lost").await
}

/// Hubs under load: of the usual kind, with workers that take no state, cold, and by lease; an operator that is armed with one failpoint after the other.
async fn at_each(site: &Site, when: &str) -> Result<Finding> {
    let name = format!("fp-{when}");
    let listed = json!({"processes": [{"name": format!("{name}-listed"), "config": {"round": 0}}]});
    let trial = Trial::begin(site, &name, HubOptions::of(&name, 5).spec(listed), None).await?;
    let mut round = Round { trial, name: name.clone(), number: 0 };
    let refusing = HubOptions::of(&format!("{name}-no"), 1).faults("refuse=import");
    round.trial.create_hub(&refusing).await?;
    let cold =
        HubOptions::of(&format!("{name}-cold"), 1).spec(json!({"migration": {"strategy": "ColdSwap"}}));
    round.trial.create_hub(&cold).await?;
    round.trial.create_hub(&replicated(&format!("{name}-lease"), 3)).await?;
    for ordinal in 0..3 {
        let process = format!("{name}-lease-{ordinal}");
        round.trial.process_settled(&process).await?;
        round.trial.says(&process, "StateDurable", "Replicated").await?;
    }
    // A holder that moves while its owner is recovered takes the replica along (docs/protocol.md), and an operator that
    // has just begun to lead has not seen yet that an owner is silent.
    let paused = Patch::Merge(json!({"metadata": {"annotations": {"processhub.io/paused": "true"}}}));
    round.trial.hubs().patch(&format!("{name}-lease"), &PatchParams::default(), &paused).await?;
    round.trial.process_settled(&format!("{name}-no-0")).await?;
    round.trial.process_settled(&format!("{name}-cold-0")).await?;
    round.trial.follow().await?;
    site.one_operator().await?;
    let passed = round.all(site, when).await;
    site.all_operators().await?;
    let passed = passed?;
    round.trial.settled().await?;
    round.trial.under_load(200).await?;
    let verdict = round.trial.finish().await?;
    verdict.check()?;
    Ok(format!("{passed} effects; {}", verdict.line()))
}

/// A hub that survives the loss of a node by itself.
fn replicated(name: &str, replicas: u32) -> HubOptions {
    HubOptions::of(name, replicas)
        .spec(json!({"failover": "OnLease", "checkpoint": {"class": "Sync", "replicas": 1}}))
}

fn is_fenced(process: &HubProcess) -> bool {
    let owner = process.status.as_ref().and_then(|status| status.owner.as_ref());
    owner.is_some_and(|owner| owner.tenure == Some(Tenure::Fencing))
}

struct Round<'a> {
    trial: Trial<'a>,
    name: String,
    number: usize,
}

impl Round<'_> {
    async fn all(&mut self, site: &Site, when: &str) -> Result<usize> {
        let mut passed = 0;
        for (effect, cause) in EFFECTS {
            if site.kind() == SiteKind::Local && !ALSO_LOCAL.contains(effect) {
                continue;
            }
            let failpoint = format!("{effect}:{when}");
            self.one(site, &failpoint, *cause).await.with_context(|| failpoint.clone())?;
            passed += 1;
        }
        Ok(passed)
    }

    async fn one(&mut self, site: &Site, failpoint: &str, cause: Cause) -> Result<()> {
        self.number += 1;
        // The operator that is replaced is one end.
        let ends = site.operator_ends()? + 1;
        site.arm(failpoint).await?;
        let fires =
            async { if failpoint.ends_with(":lost") { Ok(()) } else { site.operator_ended(ends).await } };
        match cause {
            Cause::Move => {
                let process = format!("{}-{}", self.name, self.number % 5);
                self.trial.process_settled(&process).await?;
                let to = self.trial.wish_away(&process).await?;
                fires.await?;
                self.trial.owned_by(&process, &to).await
            }
            Cause::Refusal => {
                let process = format!("{}-no-0", self.name);
                self.trial.process_settled(&process).await?;
                let before = self.trial.epoch(&process).await?;
                self.trial.wish_away(&process).await?;
                fires.await?;
                self.trial.swap_aborted(&process, before).await.map(drop)
            }
            Cause::NewCode => {
                let hub = format!("{}-no", self.name);
                let process = format!("{hub}-0");
                self.trial.process_settled(&process).await?;
                let before = self.trial.epoch(&process).await?;
                let other = Patch::Merge(json!({"spec": {"vsn": format!("round-{}", self.number)}}));
                self.trial.hubs().patch(&hub, &PatchParams::default(), &other).await?;
                fires.await?;
                self.trial.swap_aborted(&process, before).await.map(drop)
            }
            Cause::ColdMove => {
                let process = format!("{}-cold-0", self.name);
                self.trial.process_settled(&process).await?;
                let to = self.trial.wish_away(&process).await?;
                fires.await?;
                self.trial.owned_by(&process, &to).await?;
                self.trial.process_settled(&process).await
            }
            Cause::Silence => {
                let process = format!("{}-0", self.name);
                self.trial.process_settled(&process).await?;
                let pod = self.trial.owner(&process).await?.pod;
                let namespace = self.trial.namespace();
                site.signal(namespace, &pod, "processhub-sidecar", Signal::STOP).await?;
                let told = async {
                    fires.await?;
                    self.trial.says(&process, "Ready", "OwnerUnreachable").await
                };
                let told = told.await;
                site.signal(namespace, &pod, "processhub-sidecar", Signal::CONT).await?;
                told?;
                self.trial.process_settled(&process).await
            }
            Cause::Lease => {
                fires.await?;
                self.trial.process_settled(&format!("{}-lease-0", self.name)).await
            }
            Cause::ShortSilence | Cause::LongSilence => {
                let process = format!("{}-lease-0", self.name);
                self.trial.process_settled(&process).await?;
                self.trial.says(&process, "StateDurable", "Replicated").await?;
                let owner = self.trial.owner(&process).await?;
                let namespace = self.trial.namespace();
                site.signal(namespace, &owner.pod, "processhub-sidecar", Signal::STOP).await?;
                // What comes of its answering can only come then.
                let (during, after) =
                    if failpoint.starts_with("unfence") { (None, Some(fires)) } else { (Some(fires), None) };
                let silent = async {
                    if let Some(fires) = during {
                        fires.await?;
                    }
                    if cause == Cause::LongSilence {
                        self.trial.owned_by_another_pod(&process, &owner.uid).await
                    } else {
                        self.trial.becomes(&process, "being fenced", is_fenced).await
                    }
                };
                let silent = silent.await;
                site.signal(namespace, &owner.pod, "processhub-sidecar", Signal::CONT).await?;
                silent?;
                if let Some(fires) = after {
                    fires.await?;
                }
                self.trial.process_settled(&process).await
            }
            Cause::NewReplicas => {
                let hub = format!("{}-r{}", self.name, self.number);
                self.trial.create_hub(&replicated(&hub, 2)).await?;
                fires.await?;
                for ordinal in 0..2 {
                    self.trial.says(&format!("{hub}-{ordinal}"), "StateDurable", "Replicated").await?;
                }
                self.trial.hubs().delete(&hub, &DeleteParams::default()).await?;
                Ok(())
            }
            Cause::NewHub => {
                let hub = format!("{}-key", self.name);
                self.trial.create_hub(&HubOptions::of(&hub, 1)).await?;
                fires.await?;
                self.trial.process_settled(&format!("{hub}-0")).await
            }
            Cause::Scale => {
                self.trial.change(json!({"replicas": 6})).await?;
                if !["delete-process", "let-go"].iter().any(|name| failpoint.starts_with(name)) {
                    fires.await?;
                    self.trial.settled().await?;
                    return self.scale_back().await;
                }
                self.trial.settled().await?;
                self.scale_back().await?;
                fires.await?;
                self.trial.settled().await
            }
            Cause::Listed => {
                let process = format!("{}-listed", self.name);
                let config = json!({"round": self.number});
                self.trial.change(json!({"processes": [{"name": process, "config": config}]})).await?;
                fires.await?;
                let number = self.number;
                self.trial
                    .becomes(&process, "of the new configuration", |seen| {
                        seen.spec.config.get("round") == Some(&json!(number))
                    })
                    .await
            }
            Cause::ByHand => {
                let process = format!("{}-hand", self.name);
                self.trial.start_child(&process, None).await?;
                fires.await?;
                self.trial.becomes(&process, "adopted", |seen| !seen.owner_references().is_empty()).await?;
                self.trial.process_settled(&process).await
            }
            Cause::Orphan => {
                let process = format!("{}-1", self.name);
                let orphan = self.orphan(&process).await?;
                fires.await?;
                crate::wait::until("the orphan to go", std::time::Duration::from_secs(60), async || {
                    let pods = self.trial.pods(&process).await?;
                    let there = pods
                        .iter()
                        .any(|pod| pod.name_any() == orphan && pod.metadata.deletion_timestamp.is_none());
                    Ok(if there {
                        crate::wait::Seen::NotYet("there".into())
                    } else {
                        crate::wait::Seen::Yes(())
                    })
                })
                .await
            }
        }
    }

    async fn scale_back(&self) -> Result<()> {
        self.trial.change(json!({"replicas": 5})).await?;
        self.trial.settled().await
    }

    /// A copy of the owner's pod as it might be left from a former epoch.
    async fn orphan(&self, process: &str) -> Result<String> {
        self.trial.process_settled(process).await?;
        let owner = self.trial.owner(process).await?;
        let pods: Api<Pod> = Api::namespaced(self.trial.site().client(), self.trial.namespace());
        let mut pod = pods.get(&owner.pod).await?;
        let name = format!("{process}-0");
        pod.meta_mut().name = Some(name.clone());
        pod.meta_mut().uid = None;
        pod.meta_mut().resource_version = None;
        pod.labels_mut().insert("processhub.io/epoch".into(), "0".into());
        pod.status = None;
        if let Some(spec) = &mut pod.spec {
            spec.node_name = None;
            // The API server gives it one of its own.
            if let Some(volumes) = &mut spec.volumes {
                volumes.retain(|volume| volume.projected.is_none());
            }
            for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
                if let Some(mounts) = &mut container.volume_mounts {
                    mounts.retain(|mount| !mount.mount_path.starts_with("/var/run/secrets"));
                }
            }
        }
        pods.create(&PostParams::default(), &pod).await?;
        Ok(name)
    }
}

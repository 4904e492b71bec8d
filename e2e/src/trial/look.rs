//! Looking at a trial's objects and waiting for them.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use processhub_crds::{HubProcess, MigrationPhase, MigrationResult, Owner, ProcessHub};

use super::Trial;
use crate::moves::Move;
use crate::wait::{Seen, until};

impl Trial<'_> {
    /// How long a whole hub may take to get anywhere on a busy machine.
    pub(super) fn patience(&self) -> Duration {
        Duration::from_secs(180) + self.options.replicas * Duration::from_millis(500)
    }

    /// Waits until as many processes as the hub wants serve, and none of them moves.
    ///
    /// # Errors
    /// When that is not so within three minutes, and half a second for each process.
    pub async fn settled(&self) -> Result<()> {
        until("the hub to be settled", self.patience(), async || {
            let spec = self.hubs().get(&self.options.name).await?.spec;
            let processes = self.list().await?;
            let own = processes.iter().filter(|process| process.spec.hub_name == self.options.name);
            let own: Vec<_> = own.collect();
            let wanted = spec.replicas as usize + spec.processes.len() + self.dynamic;
            let unsettled: Vec<_> =
                own.iter().filter(|process| !is_settled(process)).map(|process| describe(process)).collect();
            Ok(if own.len() == wanted && unsettled.is_empty() {
                Seen::Yes(())
            } else {
                Seen::NotYet(format!("{} of {wanted} processes; {}", own.len(), unsettled.join("; ")))
            })
        })
        .await
    }

    /// Waits until the hub is spread over every node, and says so.
    ///
    /// # Errors
    /// When that is not so within three minutes, and half a second for each process.
    pub async fn balanced(&self) -> Result<()> {
        until("the hub to be balanced over all nodes", self.patience(), async || {
            let nodes = self.site.nodes().await?;
            let status = self.hubs().get(&self.options.name).await?.status.unwrap_or_default();
            let missing: Vec<_> = nodes.iter().filter(|node| !status.members.names.contains(node)).collect();
            let rebalanced = status.conditions.iter().find(|found| found.type_ == "Rebalanced");
            Ok(match rebalanced {
                Some(said) if said.status == "True" && missing.is_empty() => Seen::Yes(()),
                said => Seen::NotYet(format!("not members: {missing:?}; {:?}", said.map(|it| &it.message))),
            })
        })
        .await
    }

    /// Waits until no process is on the node.
    ///
    /// # Errors
    /// When that is not so within three minutes, and half a second for each process.
    pub async fn evacuated(&self, node: &str) -> Result<()> {
        until(&format!("{node} to own nothing"), self.patience(), async || {
            let processes = self.list().await?;
            let there = processes.iter().filter(|process| owner_node(process) == Some(node));
            let there: Vec<_> = there.map(ResourceExt::name_any).collect();
            Ok(if there.is_empty() { Seen::Yes(()) } else { Seen::NotYet(there.join(", ")) })
        })
        .await
    }

    /// Waits until these nodes together own at least so many processes.
    ///
    /// # Errors
    /// When that is not so within three minutes, and half a second for each process.
    pub async fn owned_at_least(&self, nodes: &[String], count: usize) -> Result<()> {
        until(&format!("{nodes:?} to own {count} processes"), self.patience(), async || {
            let processes = self.list().await?;
            let there = processes.iter().filter_map(owner_node);
            let there = there.filter(|node| nodes.iter().any(|n| n == node)).count();
            Ok(if there >= count { Seen::Yes(()) } else { Seen::NotYet(format!("{there} there")) })
        })
        .await
    }

    /// Every process that is owned on the node, with its owner.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn owners_on(&self, node: &str) -> Result<Vec<(String, Owner)>> {
        let processes = self.list().await?.into_iter();
        let owned = processes.filter_map(|process| Some((process.name_any(), process.status?.owner?)));
        Ok(owned.filter(|(_, owner)| owner.node == node).collect())
    }

    /// The owner of a process.
    ///
    /// # Errors
    /// When there is no such process, or no owner.
    pub async fn owner(&self, process: &str) -> Result<Owner> {
        let status = self.processes().get(process).await?.status;
        status.and_then(|status| status.owner).with_context(|| format!("{process} has no owner"))
    }

    /// Node of the owner of a process.
    ///
    /// # Errors
    /// When there is no such process, or no owner.
    pub async fn owner_node(&self, process: &str) -> Result<String> {
        Ok(self.owner(process).await?.node)
    }

    /// A fit node that the process is not on.
    ///
    /// # Errors
    /// When there is none.
    pub async fn another_node(&self, process: &str) -> Result<String> {
        let here = self.owner_node(process).await?;
        let nodes = self.site.fit_nodes().await?;
        nodes.into_iter().find(|node| *node != here).context("no other node")
    }

    /// Waits until the process is owned on that node.
    ///
    /// # Errors
    /// When that is not so within two minutes.
    pub async fn owned_by(&self, process: &str, node: &str) -> Result<()> {
        self.becomes(process, &format!("owned on {node}"), |seen| {
            owner_node(seen).is_some_and(|owner| owner == node)
        })
        .await
    }

    /// Waits until the process is owned by another pod than the one with this UID.
    ///
    /// # Errors
    /// When that is not so within two minutes.
    pub async fn owned_by_another_pod(&self, process: &str, uid: &str) -> Result<()> {
        self.becomes(process, "owned by another pod", |seen| {
            let owner = seen.status.as_ref().and_then(|status| status.owner.as_ref());
            owner.is_some_and(|owner| owner.uid != uid)
        })
        .await
    }

    /// Waits until the process is settled in that hub.
    ///
    /// # Errors
    /// When that is not so within two minutes.
    pub async fn held_by(&self, process: &str, hub: &str) -> Result<()> {
        self.becomes(process, &format!("of hub {hub}"), |seen| {
            let owner = seen.status.as_ref().and_then(|status| status.owner.as_ref());
            is_settled(seen) && owner.is_some_and(|owner| owner.hub == hub)
        })
        .await
    }

    /// Waits until the process is settled.
    ///
    /// # Errors
    /// When that is not so within two minutes.
    pub async fn process_settled(&self, process: &str) -> Result<()> {
        self.becomes(process, "settled", is_settled).await
    }

    /// Waits until a move of the process is in that phase.
    ///
    /// # Errors
    /// When that is not so within two minutes.
    pub async fn in_phase(&self, process: &str, phase: MigrationPhase) -> Result<()> {
        self.becomes(process, &format!("in phase {phase}"), |seen| {
            let migration = seen.status.as_ref().and_then(|status| status.migration.as_ref());
            migration.is_some_and(|migration| migration.phase == phase)
        })
        .await
    }

    /// Waits until the object of the process is so.
    ///
    /// # Errors
    /// When that is not so within two minutes.
    pub async fn becomes(&self, process: &str, what: &str, is: impl Fn(&HubProcess) -> bool) -> Result<()> {
        until(&format!("{process} to be {what}"), Duration::from_secs(120), async || {
            let process = self.processes().get(process).await?;
            Ok(if is(&process) { Seen::Yes(()) } else { Seen::NotYet(describe(&process)) })
        })
        .await
    }

    /// Waits until a condition of the process has that reason; its message.
    ///
    /// # Errors
    /// When that is not so within two minutes.
    pub async fn says(&self, process: &str, type_: &str, reason: &str) -> Result<Condition> {
        until(&format!("{process} to say {type_} {reason}"), Duration::from_secs(120), async || {
            let process = self.processes().get(process).await?;
            let found = condition(&process, type_).filter(|condition| condition.reason == reason);
            Ok(found.cloned().map_or_else(|| Seen::NotYet(describe(&process)), Seen::Yes))
        })
        .await
    }

    /// Waits until a condition of the hub has that reason; its message.
    ///
    /// # Errors
    /// When that is not so within two minutes.
    pub async fn hub_says(&self, hub: &str, type_: &str, reason: &str) -> Result<Condition> {
        until(&format!("hub {hub} to say {type_} {reason}"), Duration::from_secs(120), async || {
            let conditions = self.hubs().get(hub).await?.status.map_or_else(Vec::new, |s| s.conditions);
            let found = conditions.iter().find(|found| found.type_ == type_ && found.reason == reason);
            Ok(found.cloned().map_or_else(|| Seen::NotYet(format!("{conditions:?}")), Seen::Yes))
        })
        .await
    }

    /// Waits until a swap of the process with a higher epoch than `after` has ended.
    ///
    /// # Errors
    /// When that is not so within two minutes.
    pub async fn swap_ended(&self, process: &str, after: u64) -> Result<Move> {
        until(&format!("a move of {process} to end"), Duration::from_secs(120), async || {
            let object = self.processes().get(process).await?;
            let ended = Move::all(process, &object);
            let ended = ended.into_iter().find(|moved| moved.is_swap() && moved.epoch > after);
            Ok(ended.map_or_else(|| Seen::NotYet(describe(&object)), Seen::Yes))
        })
        .await
    }

    /// Waits until a swap of the process that was begun now has been undone, and the process serves; the reason.
    ///
    /// # Errors
    /// When it succeeds, or does not end within two minutes.
    pub async fn swap_aborted(&self, process: &str, after: u64) -> Result<String> {
        let ended = self.swap_ended(process, after).await?;
        anyhow::ensure!(ended.result == MigrationResult::Aborted, "it was not aborted: {ended:?}");
        self.process_settled(process).await?;
        Ok(ended.reason.unwrap_or_default())
    }

    /// Highest epoch of the process.
    ///
    /// # Errors
    /// When there is no such process.
    pub async fn epoch(&self, process: &str) -> Result<u64> {
        Ok(self.processes().get(process).await?.status.map_or(0, |status| status.epoch))
    }

    /// The pods of a process.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn pods(&self, process: &str) -> Result<Vec<Pod>> {
        let pods: Api<Pod> = Api::namespaced(self.site.client(), &self.namespace);
        let of = ListParams::default().labels(&format!("processhub.io/process={process}"));
        Ok(pods.list(&of).await?.items)
    }

    /// Names of all processes.
    ///
    /// # Errors
    /// Those of the API server.
    pub async fn names(&self) -> Result<Vec<String>> {
        Ok(self.list().await?.iter().map(ResourceExt::name_any).collect())
    }

    /// How often the worker of the process was started again in the pod that owns it now, after that pod's name.
    ///
    /// # Errors
    /// When the process has no owner.
    pub async fn worker_restarts(&self, process: &str) -> Result<(String, i32)> {
        let owner = self.owner(process).await?.pod;
        let pods = self.pods(process).await?;
        let status = pods.into_iter().find(|pod| pod.name_any() == owner).and_then(|pod| pod.status);
        let containers = status.and_then(|status| status.container_statuses).unwrap_or_default();
        let worker = containers.iter().find(|container| container.name == "worker");
        Ok((owner, worker.map_or(0, |worker| worker.restart_count)))
    }

    /// Waits until a container of the target of the process's present move runs; the pod's name.
    ///
    /// # Errors
    /// When that is not so within two minutes.
    pub async fn target_runs(&self, process: &str, container: &str) -> Result<String> {
        until(
            &format!("{container} of the target of {process} to run"),
            Duration::from_secs(120),
            async || {
                let status = self.processes().get(process).await?.status.unwrap_or_default();
                let Some(migration) = status.migration else { return Ok(Seen::NotYet("no move".into())) };
                let pods = self.pods(process).await?;
                let pod = pods.iter().find(|pod| pod.name_any() == migration.target.pod);
                let running = pod.is_some_and(|pod| runs(pod, container));
                Ok(if running { Seen::Yes(migration.target.pod) } else { Seen::NotYet("it does not".into()) })
            },
        )
        .await
    }

    /// Reasons of the events about an object of that name.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn events(&self, object: &str) -> Result<Vec<String>> {
        let events: Api<Event> = Api::namespaced(self.site.client(), &self.namespace);
        let events = events.list(&ListParams::default()).await?;
        Ok(events
            .into_iter()
            .filter(|event| event.involved_object.name.as_deref() == Some(object))
            .filter_map(|event| event.reason)
            .collect())
    }

    /// Waits until there is an event of that reason about an object of that name.
    ///
    /// # Errors
    /// When there is none within half a minute.
    pub async fn event(&self, object: &str, reason: &str) -> Result<()> {
        until(&format!("an event {reason} about {object}"), Duration::from_secs(30), async || {
            let reasons = self.events(object).await?;
            let there = reasons.iter().any(|found| found == reason);
            Ok(if there { Seen::Yes(()) } else { Seen::NotYet(reasons.join(", ")) })
        })
        .await
    }

    pub(super) async fn list(&self) -> Result<Vec<HubProcess>> {
        Ok(self.processes().list(&ListParams::default()).await?.items)
    }

    /// The hubs of the trial's namespace.
    #[must_use]
    pub fn hubs(&self) -> Api<ProcessHub> {
        Api::namespaced(self.site.client(), &self.namespace)
    }

    /// The processes of the trial's namespace.
    #[must_use]
    pub fn processes(&self) -> Api<HubProcess> {
        Api::namespaced(self.site.client(), &self.namespace)
    }
}

/// A condition of the process.
#[must_use]
pub fn condition<'a>(process: &'a HubProcess, type_: &str) -> Option<&'a Condition> {
    process.status.as_ref()?.conditions.iter().find(|condition| condition.type_ == type_)
}

fn runs(pod: &Pod, container: &str) -> bool {
    let Some(status) = &pod.status else { return false };
    [&status.init_container_statuses, &status.container_statuses]
        .into_iter()
        .flatten()
        .flatten()
        .find(|status| status.name == container)
        .and_then(|status| status.state.as_ref())
        .is_some_and(|state| state.running.is_some())
}

fn is_settled(process: &HubProcess) -> bool {
    let Some(status) = &process.status else { return false };
    let ready = condition(process, "Ready").is_some_and(|condition| condition.status == "True");
    status.migration.is_none() && status.owner.is_some() && ready
}

fn describe(process: &HubProcess) -> String {
    let said: Vec<_> = ["Ready", "Progressing"]
        .into_iter()
        .filter_map(|type_| condition(process, type_))
        .map(|condition| format!("{}={} {}", condition.type_, condition.reason, condition.message))
        .collect();
    format!("{}: {}", process.name_any(), said.join(", "))
}

fn owner_node(process: &HubProcess) -> Option<&str> {
    Some(process.status.as_ref()?.owner.as_ref()?.node.as_str())
}

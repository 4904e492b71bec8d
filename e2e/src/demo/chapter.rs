//! What happens to the hub, one thing after another.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use clap::ValueEnum;
use k8s_openapi::api::core::v1::Node;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::site::{SIDECAR, Signal, Site, SiteKind};
use crate::trial::{HubOptions, Trial};
use crate::wait::{Seen, until};

/// Versions of the counters' code, before the change and after it.
const VSN: [&str; 2] = ["1.8", "1.9"];
/// How workers are ended, each another one. Others do not reach the first process of a container that does not handle them.
const ENDS: [(Signal, &str); 2] = [(Signal::KILL, "SIGKILL"), (Signal::TERM, "SIGTERM")];
/// A hub that a process goes to.
const OTHER: &str = "till";
/// How many sidecars are killed.
const SIDECARS: usize = 3;

/// One thing that happens.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chapter {
    /// Clients count without a pause
    Count,
    /// A node joins
    Join,
    /// A node is drained
    Drain,
    /// The hub's pods on a node are evicted
    Evict,
    /// A pod is deleted
    DeletePod,
    /// The leading operator is killed in the middle of a move
    KillOperator,
    /// Workers are killed
    KillWorkers,
    /// Sidecars are killed
    KillSidecars,
    /// All processes get other code, and their old code back
    ChangeCode,
    /// A process goes to another hub
    Transfer,
    /// A node loses its power
    KillNode,
    /// A node is cut off, runs on, and comes back
    CutNode,
}

/// What may be done to the cluster.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leave {
    /// Where the demonstration runs.
    pub(super) kind: SiteKind,
    /// Whether the operators were installed for it.
    pub(super) owns_operators: bool,
    /// Whether a node that is lost is taken over from without anybody saying that it is.
    pub(super) by_lease: bool,
}

/// What happens where, and what does not, with the reason.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) chapters: Vec<Chapter>,
    pub(super) left_out: Vec<String>,
}

impl Plan {
    /// All chapters that the cluster allows; a node loses its power only on demand.
    pub(super) fn of(leave: Leave, kill_node: bool) -> Self {
        let mut plan = Self::default();
        for &chapter in Chapter::value_variants() {
            let on_demand = match chapter {
                // Elsewhere a drain shows it.
                Chapter::Evict => leave.kind.owns_nodes(),
                Chapter::KillNode => !kill_node,
                Chapter::CutNode => !leave.by_lease,
                _ => false,
            };
            match chapter.forbidden(leave) {
                _ if on_demand => {}
                Some(why) => plan.left_out.push(format!("{}: {why}", chapter.name())),
                None => plan.chapters.push(chapter),
            }
        }
        plan
    }

    /// Only these, in the usual order.
    ///
    /// # Errors
    /// When the cluster does not allow one of them.
    pub(super) fn only(wanted: &[Chapter], leave: Leave) -> Result<Self> {
        for chapter in wanted {
            if let Some(why) = chapter.forbidden(leave) {
                bail!("--only {}: {why}", chapter.name());
            }
        }
        let all = Chapter::value_variants().iter().copied();
        Ok(Self { chapters: all.filter(|one| wanted.contains(one)).collect(), left_out: Vec::new() })
    }
}

/// What the demonstration's hub needs beyond the usual, so that everything can happen to it: nothing that was answered may be
/// missing after a crash, nor after the loss of a node where that is taken over from `by_lease`, and its code has a name.
pub(super) fn hub(options: HubOptions, by_lease: bool) -> HubOptions {
    let mut spec = json!({"checkpoint": {"class": "Sync"}, "upgrade": {"maxConcurrent": 6}});
    if by_lease {
        spec["failover"] = json!("OnLease");
        spec["checkpoint"]["replicas"] = json!(1);
    }
    options.spec(spec).code(VSN[0], VSN[1])
}

impl Chapter {
    /// As it is said on the command line.
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Why it cannot happen there, if it cannot.
    fn forbidden(self, leave: Leave) -> Option<&'static str> {
        let owns_nodes = leave.kind.owns_nodes();
        match self {
            Self::Join | Self::Drain | Self::KillNode => {
                (!owns_nodes).then_some("the nodes are not the demonstration's")
            }
            Self::KillOperator => (!leave.owns_operators).then_some("the operator was there before"),
            Self::KillWorkers | Self::KillSidecars => {
                (!owns_nodes).then_some("the processes of the pods are out of reach")
            }
            Self::CutNode if !leave.by_lease => {
                Some("without --failover OnLease nobody is taken over from it")
            }
            Self::CutNode => {
                (leave.kind != SiteKind::Local).then_some("the nodes have no cables of their own")
            }
            Self::Count | Self::Evict | Self::DeletePod | Self::ChangeCode | Self::Transfer => None,
        }
    }

    /// Lets it happen, and waits until the hub has settled again; the processes that it took the state from by force.
    pub(super) async fn run(self, number: usize, by_lease: bool, trial: &Trial<'_>) -> Result<Vec<String>> {
        let site = trial.site();
        let title = |title: String| println!("\n{number}. {title}");
        let mut robbed = Vec::new();
        match self {
            Self::Count => title("Clients count without a pause".into()),
            Self::Join => {
                title("A node joins".into());
                let joined = site.join().await?;
                println!("   {joined} is Ready");
                trial.owned_at_least(&[joined], 1).await?;
            }
            Self::Drain => {
                let node = trial.owner_node("cart-0").await?;
                title(format!("{node} is drained"));
                site.drain(&node).await?;
                trial.settled().await?;
                site.cordon(&node, false).await?;
                println!("   {node} is uncordoned");
                trial.balanced().await?;
            }
            Self::Evict => {
                let node = trial.owner_node("cart-0").await?;
                title(format!("The hub's pods on {node} are evicted, as a drain does it"));
                let owners = trial.owners_on(&node).await?;
                for (_, owner) in &owners {
                    site.evict(trial.namespace(), &owner.pod).await?;
                }
                for (process, owner) in &owners {
                    trial.owned_by_another_pod(process, &owner.uid).await?;
                }
            }
            Self::DeletePod => {
                let owner = trial.owner("cart-0").await?;
                title(format!("kubectl delete pod {}", owner.pod));
                site.delete_pod(trial.namespace(), &owner.pod, None).await?;
                trial.owned_by_another_pod("cart-0", &owner.uid).await?;
            }
            Self::KillOperator => {
                title("The leading operator is killed in the middle of a move".into());
                kill_leader_in_mid_move(site, trial).await?;
            }
            Self::KillWorkers => {
                title("Workers are killed".into());
                kill_workers(site, trial).await?;
            }
            Self::KillSidecars => {
                title("Sidecars are killed".into());
                kill_sidecars(site, trial).await?;
            }
            Self::ChangeCode => {
                title(format!("All processes get code {}, and {} back", VSN[1], VSN[0]));
                change_code(trial).await?;
            }
            Self::Transfer => {
                title(format!("A process goes to hub {OTHER}"));
                transfer(trial, by_lease).await?;
            }
            Self::KillNode if by_lease => {
                let node = trial.owner_node("cart-0").await?;
                title(format!("{node} loses its power, and nobody says so"));
                site.lose(&node).await?;
                taken_over(trial, &node).await?;
                Api::<Node>::all(site.client()).delete(&node, &DeleteParams::default()).await?;
            }
            Self::CutNode => {
                let node = trial.owner_node("cart-0").await?;
                title(format!("{node} is cut off, and runs on"));
                site.plug(&node, false).await?;
                taken_over(trial, &node).await?;
                site.plug(&node, true).await?;
                site.node_ready(&node).await?;
                println!("   {node} is back");
                trial.balanced().await?;
            }
            Self::KillNode => {
                let node = trial.owner_node("cart-0").await?;
                title(format!("{node} loses its power, and somebody says so by deleting its Node object"));
                robbed = trial.owners_on(&node).await?.into_iter().map(|(process, _)| process).collect();
                kill_node(site, trial, &node).await?;
            }
        }
        trial.settled().await?;
        Ok(robbed)
    }
}

async fn kill_leader_in_mid_move(site: &Site, trial: &Trial<'_>) -> Result<()> {
    let to = trial.another_node("cart-0").await?;
    let leader = site.leader().await?;
    trial.wish_for("cart-0", &to).await?;
    until("a move to be under way", Duration::from_secs(30), async || {
        let status = trial.processes().get("cart-0").await?.status.unwrap_or_default();
        Ok(if status.migration.is_some() { Seen::Yes(()) } else { Seen::NotYet("no migration".into()) })
    })
    .await?;
    site.kill_operator(&leader).await?;
    println!("   killed {}, the leader", leader.name());
    trial.owned_by("cart-0", &to).await?;
    println!("   {} finished it", site.leader().await?.name());
    Ok(())
}

async fn kill_workers(site: &Site, trial: &Trial<'_>) -> Result<()> {
    for ((signal, name), process) in ENDS.into_iter().zip(trial.names().await?) {
        let before = trial.worker_restarts(&process).await?;
        site.signal(trial.namespace(), &before.0, "worker", signal).await?;
        until("another start of the worker", Duration::from_secs(60), async || {
            let now = trial.worker_restarts(&process).await?;
            Ok(if now == before { Seen::NotYet(format!("{now:?}")) } else { Seen::Yes(()) })
        })
        .await?;
        trial.process_settled(&process).await?;
        println!("   the worker of {process} got {name}, and goes on with its state");
    }
    Ok(())
}

async fn kill_sidecars(site: &Site, trial: &Trial<'_>) -> Result<()> {
    for process in trial.names().await?.into_iter().rev().take(SIDECARS) {
        let owner = trial.owner(&process).await?;
        site.signal_children(trial.namespace(), &owner.pod, SIDECAR, Signal::KILL).await?;
        trial.under_load(100).await?;
        trial.process_settled(&process).await?;
        ensure!(trial.owner(&process).await?.uid == owner.uid, "{process} has another owner");
        println!("   the sidecar of {process} was killed, and goes on");
    }
    Ok(())
}

async fn change_code(trial: &Trial<'_>) -> Result<()> {
    let name = trial.hub();
    let count = trial.hubs().get(name).await?.spec.replicas;
    for [from, to] in [VSN, [VSN[1], VSN[0]]] {
        trial.give_code(name, to, from, "").await?;
        trial.upgraded(name, count).await?;
        trial.settled().await?;
        println!("   {count} processes run {to}");
    }
    Ok(())
}

/// The last replica: its hub does with one less.
async fn transfer(trial: &Trial<'_>, by_lease: bool) -> Result<()> {
    let last = trial.hubs().get(trial.hub()).await?.spec.replicas.saturating_sub(1);
    let process = format!("{}-{last}", trial.hub());
    trial.create_hub(&hub(HubOptions::of(OTHER, 0), by_lease)).await?;
    trial.transfer(&process, OTHER).await?;
    trial.change(json!({"replicas": last})).await?;
    trial.held_by(&process, OTHER).await?;
    println!("   {process} is of hub {OTHER}, with its state and its address");
    Ok(())
}

/// Waits until all that the node owned is owned elsewhere, with all that was acknowledged.
async fn taken_over(trial: &Trial<'_>, node: &str) -> Result<()> {
    let began = Instant::now();
    let there = trial.owners_on(node).await?.len();
    trial.evacuated(node).await?;
    trial.settled().await?;
    println!("   {there} processes were taken over after {:.1} s", began.elapsed().as_secs_f64());
    trial.under_load(200).await
}

async fn kill_node(site: &Site, trial: &Trial<'_>, node: &str) -> Result<()> {
    site.lose(node).await?;
    let nodes: Api<Node> = Api::all(site.client());
    nodes.delete(node, &DeleteParams::default()).await?;
    trial.evacuated(node).await?;
    trial.settled().await?;
    for process in trial.processes().list(&ListParams::default()).await? {
        if let Some(loss) = process.status.as_ref().and_then(|status| status.may_miss.as_ref()) {
            println!("   {}: changes from number {} may be missing", process.name_any(), loss.from);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Leave {
        Leave { kind: SiteKind::Embedded, owns_operators: true, by_lease: false }
    }

    fn installed() -> Leave {
        Leave { kind: SiteKind::Kubeconfig, owns_operators: true, by_lease: false }
    }

    #[test]
    fn on_a_cluster_that_exists_its_nodes_and_its_operator_are_left_alone() {
        let whole = Plan::of(own(), true);
        let usual = |chapter: &Chapter| !matches!(chapter, Chapter::Evict | Chapter::CutNode);
        let but_evict: Vec<_> = Chapter::value_variants().iter().copied().filter(usual).collect();
        assert_eq!((whole.chapters, whole.left_out), (but_evict, Vec::new()));
        assert!(!Plan::of(own(), false).chapters.contains(&Chapter::KillNode));
        use Chapter::{ChangeCode, Count, DeletePod, Evict, KillOperator, Transfer};
        let on_installed = Plan::of(installed(), false);
        assert_eq!(on_installed.chapters, [Count, Evict, DeletePod, KillOperator, ChangeCode, Transfer]);
        let found = Plan::of(Leave { owns_operators: false, ..installed() }, false);
        assert_eq!(found.chapters, [Count, Evict, DeletePod, ChangeCode, Transfer]);
        assert_eq!((on_installed.left_out.len(), found.left_out.len()), (4, 5));
    }

    #[test]
    fn a_node_with_a_cable_is_cut_off_where_it_is_taken_over_from() {
        let local = Leave { kind: SiteKind::Local, by_lease: true, ..own() };
        assert_eq!(Plan::of(local, false).chapters.last(), Some(&Chapter::CutNode));
        assert!(!Plan::of(Leave { by_lease: false, ..local }, false).chapters.contains(&Chapter::CutNode));
        let embedded = Plan::of(Leave { by_lease: true, ..own() }, false);
        assert_eq!(embedded.left_out, ["cut-node: the nodes have no cables of their own"]);
        let refused = Plan::only(&[Chapter::CutNode], own()).unwrap_err().to_string();
        assert!(refused.contains("--failover OnLease"), "{refused}");
    }

    #[test]
    fn only_what_is_asked_for_happens_in_the_usual_order_or_the_cluster_forbids_it_in_words() {
        let wanted = [Chapter::ChangeCode, Chapter::DeletePod];
        assert_eq!(Plan::only(&wanted, own()).unwrap().chapters, [Chapter::DeletePod, Chapter::ChangeCode]);
        let refused = Plan::only(&[Chapter::KillWorkers], installed()).unwrap_err().to_string();
        assert!(refused.starts_with("--only kill-workers: "), "{refused}");
    }
}

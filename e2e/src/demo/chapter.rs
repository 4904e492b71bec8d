//! What happens to the hub, one thing after another.

use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::core::v1::Node;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};

use crate::site::{Site, SiteKind};
use crate::trial::Trial;
use crate::wait::{Seen, until};

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chapter {
    Count,
    Join,
    Drain,
    Evict,
    DeletePod,
    KillOperator,
    KillNode,
}

/// What happens where, and what does not, with the reason.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) chapters: Vec<Chapter>,
    pub(super) left_out: Vec<&'static str>,
}

impl Plan {
    /// The operators can be killed only where they were installed for the demonstration.
    pub(super) fn of(kind: SiteKind, owns_operators: bool, kill_node: bool) -> Self {
        let mut plan = Self::default();
        plan.chapters.push(Chapter::Count);
        if kind.owns_nodes() {
            plan.chapters.extend([Chapter::Join, Chapter::Drain]);
        } else {
            plan.left_out.push("no node joins, is drained or is killed: they are not the demonstration's");
            plan.chapters.push(Chapter::Evict);
        }
        plan.chapters.push(Chapter::DeletePod);
        if owns_operators {
            plan.chapters.push(Chapter::KillOperator);
        } else {
            plan.left_out.push("no operator is killed: it was there before");
        }
        if kind.owns_nodes() && kill_node {
            plan.chapters.push(Chapter::KillNode);
        }
        plan
    }
}

impl Chapter {
    /// Lets it happen, and waits until the hub has settled again; the processes that it took the state from by force.
    pub(super) async fn run(self, number: usize, site: &Site, trial: &Trial<'_>) -> Result<Vec<String>> {
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

    #[test]
    fn on_a_cluster_that_exists_its_nodes_and_its_operator_are_left_alone() {
        use Chapter::{Count, DeletePod, Drain, Evict, Join, KillNode, KillOperator};
        let own = Plan::of(SiteKind::Embedded, true, true);
        assert_eq!(own.chapters, [Count, Join, Drain, DeletePod, KillOperator, KillNode]);
        assert!(own.left_out.is_empty());
        let installed = Plan::of(SiteKind::Kubeconfig, true, false);
        assert_eq!(installed.chapters, [Count, Evict, DeletePod, KillOperator]);
        let found = Plan::of(SiteKind::Kubeconfig, false, false);
        assert_eq!(found.chapters, [Count, Evict, DeletePod]);
        assert_eq!((installed.left_out.len(), found.left_out.len()), (1, 2));
    }
}

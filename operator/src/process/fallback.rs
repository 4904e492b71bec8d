//! A placement of last resort, for an operator that runs without its hub loop: the first node that fits. Pure.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use processhub_crds::vocabulary::{ProcessReason, annotation};
use processhub_crds::{MigrationStrategy, MigrationTrigger};
use processhub_protocol::ledger::Kind;

use super::observation::Observation;
use crate::assignments::{Assignment, Go, Held};

/// Where the process should go, by itself: a first start, a recovery, an owner that is going, a wish. Nothing else
/// moves, and no limit is kept.
#[must_use]
pub fn assignment(seen: &Observation, nodes: &[Arc<Node>]) -> Assignment {
    let wish = seen.annotation(annotation::MOVE_TO);
    let owner = seen.ledger.owner.as_ref();
    let dead = owner.is_some_and(|owner| seen.dead.contains_key(&owner.pod.uid));
    let going = seen.owner_pod().is_some_and(|pod| pod.facts.going());
    let (trigger, wanted) = match owner {
        None => (MigrationTrigger::Start, None),
        Some(_) if dead => (MigrationTrigger::Recovery, None),
        Some(_) if going => (MigrationTrigger::PodDeleted, None),
        Some(owner) => match wish {
            Some(wish) if wish != owner.pod.node && !seen.paused() => (MigrationTrigger::Wish, Some(wish)),
            Some(_) | None => return Assignment::default(),
        },
    };
    let mut fit: Vec<String> = nodes.iter().filter(|node| fits(node)).map(|node| node.name_any()).collect();
    fit.sort_unstable();
    let left = owner.map(|owner| owner.pod.node.as_str());
    let node = match wanted {
        Some(wanted) => fit.into_iter().find(|node| node == wanted),
        None => fit.into_iter().find(|node| Some(node.as_str()) != left),
    };
    let Some(node) = node else { return held(wanted, nodes) };
    let cold = seen.hub.spec.migration.strategy == MigrationStrategy::ColdSwap;
    let kind = if cold { Kind::ColdSwap } else { Kind::HotSwap };
    Assignment { go: Some(Go { kind, node, trigger, epoch: seen.ledger.epoch }), ..Assignment::default() }
}

fn held(wanted: Option<&str>, nodes: &[Arc<Node>]) -> Assignment {
    let (reason, message) = match wanted {
        Some(wanted) if nodes.iter().any(|node| node.name_any() == wanted) => {
            (ProcessReason::Draining, format!("{wanted} is cordoned or not ready"))
        }
        Some(wanted) => (ProcessReason::NotAMember, format!("there is no node {wanted}")),
        None => (ProcessReason::NoTargetNodes, "no other node is ready and schedulable".to_owned()),
    };
    Assignment { held: Some(Held { reason, message }), ..Assignment::default() }
}

fn fits(node: &Node) -> bool {
    let cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false);
    let tainted = node.spec.as_ref().and_then(|spec| spec.taints.as_ref()).is_some_and(|taints| {
        taints.iter().any(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"))
    });
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.is_some_and(|conditions| {
        conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    });
    ready && !cordoned && !tainted && node.metadata.deletion_timestamp.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::observation::tests::seen;
    use crate::process::record::tests::started;
    use serde_json::json;

    fn node(name: &str, ready: bool, cordoned: bool) -> Arc<Node> {
        let ready = if ready { "True" } else { "Unknown" };
        let node = json!({ "metadata": { "name": name }, "spec": { "unschedulable": cordoned },
            "status": { "conditions": [{ "type": "Ready", "status": ready }] } });
        Arc::new(serde_json::from_value(node).unwrap())
    }

    #[test]
    fn a_first_start_takes_the_first_node_that_is_ready_and_schedulable() {
        let nodes = [
            node("n1", false, false),
            node("n2", true, true),
            node("n4", true, false),
            node("n3", true, false),
        ];
        let go = assignment(&seen(&[], 0), &nodes).go.unwrap();
        assert_eq!((go.node.as_str(), go.trigger), ("n3", MigrationTrigger::Start));
    }

    #[test]
    fn a_wish_is_followed_or_refused_with_the_seeds_words() {
        let mut seen = seen(&started(), 0);
        let nodes = [node("n4", true, false), node("n5", true, false), node("n6", true, true)];
        assert_eq!(assignment(&seen, &nodes), Assignment::default(), "it stays where it is");
        let mut wish = |node: &str| {
            seen.object.annotations_mut().insert(annotation::MOVE_TO.into(), node.into());
            assignment(&seen, &nodes)
        };
        assert_eq!(wish("n5").go.unwrap().trigger, MigrationTrigger::Wish);
        assert_eq!(wish("n6").held.unwrap().reason, ProcessReason::Draining);
        assert_eq!(wish("n7").held.unwrap().reason, ProcessReason::NotAMember);
    }
}

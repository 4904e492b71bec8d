//! Nodes as the planner sees them.

use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use processhub_crds::limits;

use crate::plan::{Match, Node, Operator, Requirement, Taint, TaintEffect, Term, Toleration};

/// Drops what no loop reads of a node, so that a cluster of a thousand takes little memory, and so that the kubelet's
/// heartbeats, which change only times, are equal to each other.
pub fn trim(node: &mut v1::Node) {
    node.metadata.managed_fields = None;
    node.metadata.annotations = None;
    if let Some(status) = &mut node.status {
        status.images = None;
        status.volumes_attached = None;
        status.volumes_in_use = None;
        status.node_info = None;
        for condition in status.conditions.iter_mut().flatten() {
            condition.last_heartbeat_time = None;
        }
    }
}

/// What matters of a node.
pub(super) fn observed(node: &v1::Node) -> Node {
    let spec = node.spec.as_ref();
    let status = node.status.as_ref();
    let ready = status
        .and_then(|status| status.conditions.as_ref())
        .and_then(|conditions| conditions.iter().find(|condition| condition.type_ == "Ready"))
        .is_some_and(|condition| condition.status == "True");
    let pods = status.and_then(|status| status.allocatable.as_ref()).and_then(|all| all.get("pods"));
    Node {
        labels: node.metadata.labels.clone().unwrap_or_default(),
        ready,
        unschedulable: spec.and_then(|spec| spec.unschedulable).unwrap_or(false),
        deleting: node.metadata.deletion_timestamp.is_some(),
        taints: spec.and_then(|spec| spec.taints.as_ref()).into_iter().flatten().filter_map(taint).collect(),
        pods: pods.and_then(count),
    }
}

fn taint(taint: &v1::Taint) -> Option<Taint> {
    Some(Taint {
        key: taint.key.clone(),
        value: taint.value.clone().unwrap_or_default(),
        effect: effect(&taint.effect)?,
    })
}

/// `None` for an effect that this version does not know; a scheduler that does will say so by `NoRoom`.
fn effect(text: &str) -> Option<TaintEffect> {
    match text {
        "NoSchedule" => Some(TaintEffect::NoSchedule),
        "PreferNoSchedule" => Some(TaintEffect::PreferNoSchedule),
        "NoExecute" => Some(TaintEffect::NoExecute),
        _ => None,
    }
}

/// A template's toleration.
pub(super) fn toleration(toleration: &v1::Toleration) -> Toleration {
    let matches = match toleration.operator.as_deref() {
        Some("Exists") => Match::Exists,
        _ => Match::Equal(toleration.value.clone().unwrap_or_default()),
    };
    Toleration {
        key: toleration.key.clone().filter(|key| !key.is_empty()),
        matches,
        effect: toleration.effect.as_deref().and_then(effect),
    }
}

/// The node affinity that a pod's spec requires.
pub(super) fn affinity(spec: &v1::PodSpec) -> Option<Vec<Term>> {
    let nodes = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = nodes.required_during_scheduling_ignored_during_execution.as_ref()?;
    let requirements = |list: &Option<Vec<v1::NodeSelectorRequirement>>| {
        list.iter().flatten().map(requirement).collect::<Vec<_>>()
    };
    let term = |term: &v1::NodeSelectorTerm| Term {
        labels: requirements(&term.match_expressions),
        names: requirements(&term.match_fields),
    };
    Some(required.node_selector_terms.iter().map(term).collect())
}

fn requirement(requirement: &v1::NodeSelectorRequirement) -> Requirement {
    let values = requirement.values.clone().unwrap_or_default();
    let bound = || values.first().and_then(|value| value.parse().ok());
    let operator = match requirement.operator.as_str() {
        "In" => Operator::In(values),
        "NotIn" => Operator::NotIn(values),
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        "Gt" => bound().map_or(Operator::Never, Operator::Above),
        "Lt" => bound().map_or(Operator::Never, Operator::Below),
        _ => Operator::Never,
    };
    Requirement { key: requirement.key.clone(), operator }
}

/// A count of pods. A kubelet writes it plainly; what it would mean with a suffix is not worth a guess.
fn count(quantity: &Quantity) -> Option<u32> {
    quantity.0.parse().ok().map(|pods: u32| pods.min(limits::MAX_REPLICAS))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(value: serde_json::Value) -> v1::Node {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_node_is_ready_only_if_it_says_true() {
        for (status, ready) in [("True", true), ("False", false), ("Unknown", false)] {
            let node = node(json!({ "metadata": { "name": "n1" }, "status": {
                "conditions": [{ "type": "Ready", "status": status }] } }));
            assert_eq!(observed(&node).ready, ready, "{status}");
        }
        assert!(!observed(&node(json!({ "metadata": { "name": "n1" } }))).ready);
    }

    #[test]
    fn cordon_taints_deletion_and_room_are_seen() {
        let node = observed(&node(json!({
            "metadata": { "name": "n1", "deletionTimestamp": "2026-01-01T00:00:00Z", "labels": { "zone": "a" } },
            "spec": { "unschedulable": true, "taints": [
                { "key": "gpu", "value": "yes", "effect": "NoExecute" },
                { "key": "new", "effect": "NoSuchEffect" } ] },
            "status": { "allocatable": { "pods": "110" } },
        })));
        assert!(node.unschedulable && node.deleting);
        assert_eq!(node.taints.len(), 1, "an unknown effect is left to the scheduler");
        assert_eq!(node.taints[0].effect, TaintEffect::NoExecute);
        assert_eq!((node.pods, node.labels["zone"].as_str()), (Some(110), "a"));
    }

    #[test]
    fn heartbeats_leave_a_trimmed_node_as_it_was() {
        let at = |time: &str| {
            let mut node = node(json!({ "metadata": { "name": "n1" }, "status": {
                "images": [{ "names": ["a"] }],
                "conditions": [{ "type": "Ready", "status": "True", "lastHeartbeatTime": time }] } }));
            trim(&mut node);
            node
        };
        assert_eq!(at("2026-01-01T00:00:00Z"), at("2026-01-01T00:05:00Z"));
        assert!(observed(&at("2026-01-01T00:00:00Z")).ready);
    }

    #[test]
    fn a_toleration_without_operator_compares_and_with_an_empty_key_means_all() {
        let given: v1::Toleration = serde_json::from_value(json!({ "key": "gpu", "value": "yes" })).unwrap();
        assert_eq!(toleration(&given).matches, Match::Equal("yes".into()));
        let given: v1::Toleration =
            serde_json::from_value(json!({ "key": "", "operator": "Exists" })).unwrap();
        assert_eq!(toleration(&given), Toleration { key: None, matches: Match::Exists, effect: None });
    }

    #[test]
    fn the_required_affinity_is_read_and_the_preferred_one_is_not() {
        let spec = |affinity: serde_json::Value| -> v1::PodSpec {
            serde_json::from_value(json!({ "containers": [], "affinity": { "nodeAffinity": affinity } }))
                .unwrap()
        };
        let preferred = json!({ "preferredDuringSchedulingIgnoredDuringExecution": [
            { "weight": 1, "preference": { "matchExpressions": [{ "key": "disk", "operator": "Exists" }] } }] });
        assert_eq!(affinity(&spec(preferred)), None);
        let required = json!({ "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [
            { "matchExpressions": [{ "key": "gen", "operator": "Gt", "values": ["6"] }] },
            { "matchFields": [{ "key": "metadata.name", "operator": "In", "values": ["n1"] }] }] } });
        let terms = affinity(&spec(required)).unwrap();
        assert_eq!(terms[0].labels[0].operator, Operator::Above(6));
        assert_eq!(terms[1].names[0].operator, Operator::In(vec!["n1".into()]));
    }
}

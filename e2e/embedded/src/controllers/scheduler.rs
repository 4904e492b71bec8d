//! Gives pods their nodes.

use crate::api::error::{ApiError, Result};
use crate::api::handle::{Batch, Feed, Link};
use crate::api::object::{self, Key, flag, list, text};
use crate::api::registry::{Part, Registry, WriteOptions};
use crate::api::store::ResourceId;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Runs until it is aborted.
pub async fn run(link: Link) {
    let mut pods = link.feed(ResourceId::new("", "pods"));
    let mut nodes = link.feed(ResourceId::new("", "nodes"));
    loop {
        if !interesting(&mut pods, &mut nodes).await {
            continue;
        }
        if let Err(error) = link.call(place_all) {
            tracing::debug!(%error, "no scheduling");
        }
    }
}

/// Waits for a change after which a pod could be placed.
async fn interesting(pods: &mut Feed, nodes: &mut Feed) -> bool {
    let of_pod = |pod: &Value, gone: bool| gone || text(pod, "/spec/nodeName").is_empty();
    tokio::select! {
        batch = pods.next() => match batch {
            Batch::Snapshot(_) => true,
            Batch::Events(events) => events.iter().any(|e| {
                of_pod(&e.object, e.change == crate::api::store::Change::Deleted)
            }),
        },
        _ = nodes.next() => true,
    }
}

fn place_all(registry: &mut Registry) -> Result<()> {
    let kind = registry.catalog().find("", "v1", "pods").ok_or_else(ApiError::unavailable)?;
    let pods = registry.store().list(&kind.storage, None);
    let nodes = registry.store().list(&ResourceId::new("", "nodes"), None);
    let mut load: BTreeMap<String, usize> = BTreeMap::new();
    for pod in pods.iter().filter(|p| !["Succeeded", "Failed"].contains(&text(p, "/status/phase"))) {
        *load.entry(text(pod, "/spec/nodeName").to_owned()).or_default() += 1;
    }
    let waiting = |p: &&Arc<Value>| {
        text(p, "/spec/nodeName").is_empty()
            && !object::deleting(p)
            && text(p, "/spec/schedulerName") == "default-scheduler"
    };
    for pod in pods.iter().filter(waiting) {
        let key = Key::of(pod);
        match choose(pod, &nodes, &load) {
            Ok(node) => {
                registry.bind(&kind, &key, &node)?;
                *load.entry(node).or_default() += 1;
            }
            Err(message) => {
                let status = unschedulable(pod, &message, registry.now());
                if status != pod["status"] {
                    let mut new = (**pod).clone();
                    new["status"] = status;
                    registry.replace(&kind, &key, Part::Status, new, &WriteOptions::trusted())?;
                }
            }
        }
    }
    Ok(())
}

fn unschedulable(pod: &Value, message: &str, now: jiff::Timestamp) -> Value {
    let before = object::condition(pod, "PodScheduled");
    let since = before.map_or_else(
        || json!(now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
        |c| c["lastTransitionTime"].clone(),
    );
    let mut status = pod["status"].clone();
    status["conditions"] = json!([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
        "message": message, "lastProbeTime": null, "lastTransitionTime": since}]);
    status
}

/// The best node for a pod.
///
/// # Errors
/// Why none fits, in the scheduler's words.
pub fn choose(
    pod: &Value,
    nodes: &[Arc<Value>],
    load: &BTreeMap<String, usize>,
) -> std::result::Result<String, String> {
    let mut refusals: BTreeMap<String, usize> = BTreeMap::new();
    let mut best: Option<(i64, usize, &str)> = None;
    for node in nodes {
        let name = object::name(node);
        let pods = load.get(name).copied().unwrap_or_default();
        match refusal(pod, node, pods) {
            Some(why) => *refusals.entry(why).or_default() += 1,
            None => {
                let candidate = (-preference(pod, node), pods, name);
                if best.is_none_or(|b| candidate < b) {
                    best = Some(candidate);
                }
            }
        }
    }
    best.map(|(_, _, name)| name.to_owned()).ok_or_else(|| {
        let reasons: Vec<String> = refusals.iter().map(|(why, n)| format!("{n} {why}")).collect();
        let reasons = if reasons.is_empty() { "no nodes available".to_owned() } else { reasons.join(", ") };
        format!("0/{} nodes are available: {reasons}.", nodes.len())
    })
}

fn refusal(pod: &Value, node: &Value, pods: usize) -> Option<String> {
    if flag(node, "/spec/unschedulable")
        && !tolerates(pod, "node.kubernetes.io/unschedulable", "", "NoSchedule")
    {
        return Some("node(s) were unschedulable".to_owned());
    }
    for taint in list(node, "/spec/taints") {
        let (key, value, effect) = (text(taint, "/key"), text(taint, "/value"), text(taint, "/effect"));
        if ["NoSchedule", "NoExecute"].contains(&effect) && !tolerates(pod, key, value, effect) {
            return Some(format!("node(s) had untolerated taint {{{key}: {value}}}"));
        }
    }
    let labels = object::strings(node, "/metadata/labels");
    let selected = object::strings(pod, "/spec/nodeSelector").iter().all(|(k, v)| labels.get(k) == Some(v));
    let required = pod
        .pointer(
            "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms",
        )
        .and_then(Value::as_array);
    if !selected || required.is_some_and(|terms| !terms.iter().any(|t| term_matches(t, node))) {
        return Some("node(s) didn't match Pod's node affinity/selector".to_owned());
    }
    let capacity = text(node, "/status/allocatable/pods").parse().unwrap_or(usize::MAX);
    (pods >= capacity).then(|| "Too many pods".to_owned())
}

/// Whether the pod tolerates a taint.
pub fn tolerates(pod: &Value, key: &str, value: &str, effect: &str) -> bool {
    list(pod, "/spec/tolerations").iter().any(|t| toleration_matches(t, key, value, effect))
}

/// Whether one toleration covers a taint.
pub fn toleration_matches(toleration: &Value, key: &str, value: &str, effect: &str) -> bool {
    let (k, e) = (text(toleration, "/key"), text(toleration, "/effect"));
    (e.is_empty() || e == effect)
        && (k.is_empty() || k == key)
        && (text(toleration, "/operator") == "Exists"
            || (!k.is_empty() && text(toleration, "/value") == value))
}

fn term_matches(term: &Value, node: &Value) -> bool {
    let labels = object::strings(node, "/metadata/labels");
    let by_label =
        list(term, "/matchExpressions").iter().all(|e| holds(e, labels.get(text(e, "/key")).copied()));
    let field = |e: &Value| (text(e, "/key") == "metadata.name").then(|| object::name(node));
    let by_field = list(term, "/matchFields").iter().all(|e| holds(e, field(e)));
    let empty = list(term, "/matchExpressions").is_empty() && list(term, "/matchFields").is_empty();
    !empty && by_label && by_field
}

fn holds(expression: &Value, found: Option<&str>) -> bool {
    let among = list(expression, "/values").iter().any(|v| v.as_str() == found && found.is_some());
    match text(expression, "/operator") {
        "In" => among,
        "NotIn" => !among,
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        _ => false,
    }
}

fn preference(pod: &Value, node: &Value) -> i64 {
    list(pod, "/spec/affinity/nodeAffinity/preferredDuringSchedulingIgnoredDuringExecution")
        .iter()
        .filter(|p| term_matches(&p["preference"], node))
        .filter_map(|p| p["weight"].as_i64())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> Value {
        json!({"metadata": {"name": name, "labels": {"zone": name}}, "status": {"allocatable": {"pods": "2"}}})
    }

    fn pinned(name: &str) -> Value {
        json!({"spec": {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": [{"matchFields":
                [{"key": "metadata.name", "operator": "In", "values": [name]}]}]}}}}})
    }

    fn pick(pod: &Value, nodes: Vec<Value>, load: &[(&str, usize)]) -> std::result::Result<String, String> {
        let nodes: Vec<Arc<Value>> = nodes.into_iter().map(Arc::new).collect();
        choose(pod, &nodes, &load.iter().map(|(n, l)| ((*n).to_owned(), *l)).collect())
    }

    #[test]
    fn the_emptiest_node_or_the_one_of_the_affinity() {
        let nodes = || vec![node("a"), node("b")];
        assert_eq!(pick(&json!({}), nodes(), &[("a", 1)]).unwrap(), "b");
        assert_eq!(pick(&pinned("a"), nodes(), &[("a", 1)]).unwrap(), "a");
        let preferring = json!({"spec": {"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 5, "preference": {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}}]}}}});
        assert_eq!(pick(&preferring, nodes(), &[("a", 1)]).unwrap(), "a");
    }

    #[test]
    fn a_pod_that_fits_nowhere_is_told_why() {
        let mut cordoned = node("a");
        cordoned["spec"]["unschedulable"] = true.into();
        let mut tainted = node("b");
        tainted["spec"]["taints"] = json!([{"key": "k", "value": "v", "effect": "NoSchedule"}]);
        let refused =
            pick(&json!({}), vec![cordoned.clone(), tainted.clone(), node("c")], &[("c", 2)]).unwrap_err();
        assert_eq!(
            refused,
            "0/3 nodes are available: 1 Too many pods, 1 node(s) had untolerated taint {k: v}, 1 node(s) were \
             unschedulable."
        );
        let tolerant = json!({"spec": {"tolerations": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}});
        assert_eq!(pick(&tolerant, vec![cordoned, tainted], &[]).unwrap(), "b");
        assert!(pick(&pinned("z"), vec![node("a")], &[]).unwrap_err().contains("node affinity"));
    }
}

//! Watches over nodes: readiness by Lease, taints, eviction of what does not tolerate them, pods of deleted nodes.

use super::scheduler::toleration_matches;
use crate::api::error::{ApiError, Result};
use crate::api::handle::Link;
use crate::api::object::{self, Key, list, text};
use crate::api::registry::{DeleteOptions, Part, Registry, WriteOptions};
use crate::api::store::ResourceId;
use crate::options::Options;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};

const PERIOD: Duration = Duration::from_millis(250);
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
const OURS: [&str; 3] = [UNREACHABLE, NOT_READY, UNSCHEDULABLE];

/// What was observed, on this process's own clock.
#[derive(Debug, Default)]
struct Observed {
    leases: BTreeMap<String, (String, Instant)>,
    tainted: BTreeMap<(String, String), Instant>,
    orphaned: BTreeMap<String, Instant>,
}

/// Runs until it is aborted.
pub async fn run(mut link: Link, options: Arc<Options>) {
    let mut observed = Observed::default();
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let pause = Instant::now();
        link.opened().await;
        if pause.elapsed() > PERIOD {
            // Nobody could renew anything while the API server was away.
            observed.leases.values_mut().for_each(|(_, seen)| *seen = Instant::now());
        }
        let now = Instant::now();
        if let Err(error) = link.call(|registry| observed.pass(registry, &options, now)) {
            tracing::debug!(%error, "nodes were not looked after");
        }
    }
}

impl Observed {
    fn pass(&mut self, registry: &mut Registry, options: &Options, now: Instant) -> Result<()> {
        let nodes = registry.store().list(&ResourceId::new("", "nodes"), None);
        for node in &nodes {
            let lost = self.lost(registry, object::name(node), options.node_grace, now);
            judge(registry, node, lost)?;
        }
        let nodes = registry.store().list(&ResourceId::new("", "nodes"), None);
        self.evict(registry, &nodes, now)?;
        self.collect(registry, &nodes, options.orphan_grace, now)
    }

    /// Whether the node's Lease was not renewed for its grace.
    fn lost(&mut self, registry: &Registry, name: &str, grace: Duration, now: Instant) -> bool {
        let leases = ResourceId::new("coordination.k8s.io", "leases");
        let lease = registry.store().get(&leases, &Key::new("kube-node-lease", name));
        let renewed = lease.as_deref().map(|l| text(l, "/spec/renewTime").to_owned()).unwrap_or_default();
        let seen = self.leases.entry(name.to_owned()).or_insert_with(|| (renewed.clone(), now));
        if seen.0 != renewed {
            *seen = (renewed, now);
        }
        now.duration_since(seen.1) > grace
    }

    /// Deletes pods from nodes whose NoExecute taints they do not tolerate, or not that long.
    fn evict(&mut self, registry: &mut Registry, nodes: &[Arc<Value>], now: Instant) -> Result<()> {
        let pods = registry.catalog().find("", "v1", "pods").ok_or_else(ApiError::unavailable)?;
        let mut present = BTreeSet::new();
        for node in nodes {
            for taint in list(node, "/spec/taints").iter().filter(|t| text(t, "/effect") == "NoExecute") {
                let id = (object::uid(node).to_owned(), text(taint, "/key").to_owned());
                let since = *self.tainted.entry(id.clone()).or_insert(now);
                present.insert(id);
                let here = registry.store().list(&pods.storage, None);
                for pod in here.iter().filter(|p| text(p, "/spec/nodeName") == object::name(node)) {
                    let key = Key::of(pod);
                    if object::deleting(pod) {
                        if text(taint, "/key") == OUT_OF_SERVICE && !tolerated(pod, taint, Duration::ZERO) {
                            registry.delete(&pods, &key, &DeleteOptions::now(object::uid(pod)))?;
                        }
                    } else if !tolerated(pod, taint, now.duration_since(since)) {
                        disrupt(
                            registry,
                            pod,
                            "DeletionByTaintManager",
                            "Taint manager: deleting due to NoExecute taint",
                        )?;
                        registry.delete(&pods, &key, &DeleteOptions::of(object::uid(pod)))?;
                    }
                }
            }
        }
        self.tainted.retain(|id, _| present.contains(id));
        Ok(())
    }

    /// Removes pods of nodes that do not exist.
    fn collect(
        &mut self,
        registry: &mut Registry,
        nodes: &[Arc<Value>],
        grace: Duration,
        now: Instant,
    ) -> Result<()> {
        let kind = registry.catalog().find("", "v1", "pods").ok_or_else(ApiError::unavailable)?;
        let names: BTreeSet<&str> = nodes.iter().map(|n| object::name(n)).collect();
        let mut present = BTreeSet::new();
        for pod in registry.store().list(&kind.storage, None) {
            let node = text(&pod, "/spec/nodeName");
            if node.is_empty() || names.contains(node) {
                continue;
            }
            let since = *self.orphaned.entry(node.to_owned()).or_insert(now);
            present.insert(node.to_owned());
            if now.duration_since(since) >= grace {
                disrupt(registry, &pod, "DeletionByPodGC", "PodGC: node no longer exists")?;
                registry.delete(&kind, &Key::of(&pod), &DeleteOptions::now(object::uid(&pod)))?;
            }
        }
        self.orphaned.retain(|node, _| present.contains(node));
        Ok(())
    }
}

/// Whether the pod tolerates the taint after it has been there this long.
fn tolerated(pod: &Value, taint: &Value, age: Duration) -> bool {
    let (key, value) = (text(taint, "/key"), text(taint, "/value"));
    let mut matching = list(pod, "/spec/tolerations")
        .iter()
        .filter(|t| toleration_matches(t, key, value, "NoExecute"))
        .peekable();
    if matching.peek().is_none() {
        return false;
    }
    // The shortest of the tolerations that have an end decides.
    let seconds = matching.filter_map(|t| t["tolerationSeconds"].as_u64()).min();
    seconds.is_none_or(|s| age < Duration::from_secs(s))
}

/// Writes the node's condition and taints if they are not what they should be.
fn judge(registry: &mut Registry, node: &Value, lost: bool) -> Result<()> {
    let kind = registry.catalog().find("", "v1", "nodes").ok_or_else(ApiError::unavailable)?;
    let key = Key::of(node);
    let stamp = registry.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    if lost && object::condition(node, "Ready").is_none_or(|c| text(c, "/status") != "Unknown") {
        let mut new = node.clone();
        for condition in new["status"]["conditions"].as_array_mut().into_iter().flatten() {
            condition["status"] = "Unknown".into();
            condition["reason"] = "NodeStatusUnknown".into();
            condition["message"] = "Kubelet stopped posting node status.".into();
            condition["lastTransitionTime"] = stamp.clone().into();
        }
        registry.replace(&kind, &key, Part::Status, new, &WriteOptions::trusted())?;
        unready_pods(registry, &key.name, &stamp)?;
    }
    let node = registry.get(&kind, &key)?;
    let wanted = taints(&node, &stamp);
    if wanted.as_slice() != list(&node, "/spec/taints") {
        let mut new = (*node).clone();
        object::child(&mut new, "spec").insert("taints".into(), wanted.into());
        registry.replace(&kind, &key, Part::Main, new, &WriteOptions::trusted())?;
    }
    Ok(())
}

/// The taints that the node should have: those of others as they are, and ours by its condition.
fn taints(node: &Value, stamp: &str) -> Vec<Value> {
    let present = list(node, "/spec/taints");
    let mut wanted: Vec<Value> =
        present.iter().filter(|t| !OURS.contains(&text(t, "/key"))).cloned().collect();
    let mut want = |key: &str, effect: &str| {
        let same = present.iter().find(|t| text(t, "/key") == key && text(t, "/effect") == effect);
        let mut taint = json!({"key": key, "effect": effect});
        if effect == "NoExecute" {
            taint["timeAdded"] = stamp.into();
        }
        wanted.push(same.cloned().unwrap_or(taint));
    };
    match object::condition(node, "Ready").map(|c| text(c, "/status")) {
        Some("Unknown") => ["NoSchedule", "NoExecute"].map(|e| want(UNREACHABLE, e)),
        Some("False") => ["NoSchedule", "NoExecute"].map(|e| want(NOT_READY, e)),
        _ => [(), ()],
    };
    if object::flag(node, "/spec/unschedulable") {
        want(UNSCHEDULABLE, "NoSchedule");
    }
    wanted
}

fn unready_pods(registry: &mut Registry, node: &str, stamp: &str) -> Result<()> {
    let kind = registry.catalog().find("", "v1", "pods").ok_or_else(ApiError::unavailable)?;
    for pod in registry.store().list(&kind.storage, None) {
        if text(&pod, "/spec/nodeName") != node || !object::is_true(&pod, "Ready") {
            continue;
        }
        let mut new = (*pod).clone();
        for condition in new["status"]["conditions"].as_array_mut().into_iter().flatten() {
            if text(condition, "/type") == "Ready" {
                condition["status"] = "False".into();
                condition["reason"] = "NodeNotReady".into();
                condition["lastTransitionTime"] = stamp.into();
            }
        }
        registry.replace(&kind, &Key::of(&pod), Part::Status, new, &WriteOptions::trusted())?;
    }
    Ok(())
}

/// Says on the pod why it is disrupted, as the real controllers do before they delete.
fn disrupt(registry: &mut Registry, pod: &Value, reason: &str, message: &str) -> Result<()> {
    let kind = registry.catalog().find("", "v1", "pods").ok_or_else(ApiError::unavailable)?;
    let stamp = registry.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let mut new = pod.clone();
    let mut conditions: Vec<Value> = list(pod, "/status/conditions")
        .iter()
        .filter(|c| text(c, "/type") != "DisruptionTarget")
        .cloned()
        .collect();
    conditions
        .push(json!({"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message,
        "lastProbeTime": null, "lastTransitionTime": stamp}));
    new["status"]["conditions"] = conditions.into();
    registry.replace(&kind, &Key::of(pod), Part::Status, new, &WriteOptions::trusted()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::registry::tests::{kind, pod, registry};

    fn options() -> Options {
        Options {
            node_grace: Duration::from_secs(8),
            orphan_grace: Duration::from_secs(5),
            ..Options::default()
        }
    }

    /// A node `n1` with a renewed Lease and a ready pod that tolerates losing it for `seconds`.
    fn with_node(seconds: u64) -> Registry {
        let mut registry = registry();
        let plain = WriteOptions::default();
        let nodes = kind(&registry, "nodes");
        let node = json!({"metadata": {"name": "n1"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        registry.create(&nodes, "", node, &plain).unwrap();
        let leases = kind(&registry, "leases");
        let lease = json!({"metadata": {"name": "n1"}, "spec": {"renewTime": "2026-01-01T00:00:00.000000Z"}});
        registry.create(&leases, "kube-node-lease", lease, &plain).unwrap();
        let pods = kind(&registry, "pods");
        let mut given = pod("a");
        given["spec"]["nodeName"] = "n1".into();
        given["spec"]["tolerations"] = json!([{"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute",
            "tolerationSeconds": seconds}]);
        registry.create(&pods, "default", given, &plain).unwrap();
        let mut ready = (*registry.get(&pods, &Key::new("default", "a")).unwrap()).clone();
        ready["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
        registry.replace(&pods, &Key::new("default", "a"), Part::Status, ready, &plain).unwrap();
        registry
    }

    fn after(observed: &mut Observed, registry: &mut Registry, start: Instant, seconds: u64) {
        observed.pass(registry, &options(), start + Duration::from_secs(seconds)).unwrap();
    }

    #[tokio::test]
    async fn a_silent_node_is_unreachable_and_its_pods_go_when_their_toleration_ends() {
        let (mut registry, mut observed, start) = (with_node(5), Observed::default(), Instant::now());
        let (nodes, pods) = (kind(&registry, "nodes"), kind(&registry, "pods"));
        after(&mut observed, &mut registry, start, 0);
        after(&mut observed, &mut registry, start, 8);
        assert!(object::is_true(&registry.get(&nodes, &Key::cluster("n1")).unwrap(), "Ready"));
        after(&mut observed, &mut registry, start, 9);
        let node = registry.get(&nodes, &Key::cluster("n1")).unwrap();
        assert_eq!(text(object::condition(&node, "Ready").unwrap(), "/status"), "Unknown");
        let effects: Vec<&str> = list(&node, "/spec/taints").iter().map(|t| text(t, "/effect")).collect();
        assert_eq!(effects, ["NoSchedule", "NoExecute"]);
        let key = Key::new("default", "a");
        assert!(!object::is_true(&registry.get(&pods, &key).unwrap(), "Ready"));
        assert!(!object::deleting(&registry.get(&pods, &key).unwrap()));
        after(&mut observed, &mut registry, start, 14);
        let pod = registry.get(&pods, &key).unwrap();
        assert!(object::deleting(&pod));
        assert_eq!(
            text(object::condition(&pod, "DisruptionTarget").unwrap(), "/reason"),
            "DeletionByTaintManager"
        );
    }

    #[tokio::test]
    async fn taints_follow_cordon_and_recovery() {
        let (mut registry, mut observed, start) = (with_node(300), Observed::default(), Instant::now());
        let nodes = kind(&registry, "nodes");
        let key = Key::cluster("n1");
        let mut cordoned = (*registry.get(&nodes, &key).unwrap()).clone();
        object::child(&mut cordoned, "spec").insert("unschedulable".into(), true.into());
        let plain = WriteOptions::default();
        registry.replace(&nodes, &key, Part::Main, cordoned, &plain).unwrap();
        after(&mut observed, &mut registry, start, 0);
        let mut node = (*registry.get(&nodes, &key).unwrap()).clone();
        assert_eq!(text(&node, "/spec/taints/0/key"), UNSCHEDULABLE);
        object::child(&mut node, "spec").remove("unschedulable");
        registry.replace(&nodes, &key, Part::Main, node, &plain).unwrap();
        after(&mut observed, &mut registry, start, 1);
        assert!(list(&registry.get(&nodes, &key).unwrap(), "/spec/taints").is_empty());
    }

    #[tokio::test]
    async fn pods_of_a_deleted_node_are_removed() {
        let (mut registry, mut observed, start) = (with_node(300), Observed::default(), Instant::now());
        let (nodes, pods) = (kind(&registry, "nodes"), kind(&registry, "pods"));
        registry.delete(&nodes, &Key::cluster("n1"), &DeleteOptions::default()).unwrap();
        after(&mut observed, &mut registry, start, 0);
        assert!(registry.get(&pods, &Key::new("default", "a")).is_ok());
        after(&mut observed, &mut registry, start, 5);
        assert!(registry.get(&pods, &Key::new("default", "a")).is_err());
    }

    #[tokio::test]
    async fn an_out_of_service_node_lets_its_terminating_pods_go() {
        let (mut registry, mut observed, start) = (with_node(300), Observed::default(), Instant::now());
        let (nodes, pods) = (kind(&registry, "nodes"), kind(&registry, "pods"));
        let mut node = (*registry.get(&nodes, &Key::cluster("n1")).unwrap()).clone();
        node["spec"]["taints"] = json!([{"key": OUT_OF_SERVICE, "value": "x", "effect": "NoExecute"}]);
        registry.replace(&nodes, &Key::cluster("n1"), Part::Main, node, &WriteOptions::default()).unwrap();
        after(&mut observed, &mut registry, start, 0);
        assert!(object::deleting(&registry.get(&pods, &Key::new("default", "a")).unwrap()));
        after(&mut observed, &mut registry, start, 1);
        assert!(registry.get(&pods, &Key::new("default", "a")).is_err());
    }
}

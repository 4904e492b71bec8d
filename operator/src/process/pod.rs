//! Builds the pod of an incarnation from the hub's template. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, EnvVarSource,
    HTTPGetAction, Lifecycle, LifecycleHandler, NodeAffinity, NodeSelector, NodeSelectorRequirement,
    NodeSelectorTerm, ObjectFieldSelector, Pod, PodSpec, Probe, ResourceRequirements, SeccompProfile,
    SecretKeySelector, SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{Resource, ResourceExt};
use processhub_crds::vocabulary::{finalizer, label};
use processhub_crds::{
    CheckpointClass, Failover, HubProcess, Migration, MigrationStrategy, ProcessHub, UpgradeStrategy, Worker,
};
use processhub_protocol::id::Epoch;
use processhub_protocol::wire::{CONTROL_PORT, path};

use crate::{credentials, revision};

/// Name of our container.
pub const SIDECAR: &str = "processhub-sidecar";
/// Name of the user's container.
pub const WORKER: &str = "worker";
/// Tells the sidecar whether it serves by lease.
pub(crate) const LEASED: &str = "PROCESSHUB_LEASED";
const STATE_VOLUME: &str = "processhub-state";
const STATE_PATH: &str = "/var/lib/processhub";
/// Where the worker serves the contract.
const CONTRACT: &str = "127.0.0.1:9700";
/// What a template without a grace period has.
const DEFAULT_GRACE: Duration = Duration::from_secs(30);
/// How long an urgent move may take beside what the hub's own time-outs allow, where the template does not say how long a
/// pod may take to end: a drained node's processes all start elsewhere at once, where their image may have to be pulled
/// first. Nothing waits for the end of it: a pod ends as soon as it has handed over.
const HOOK_RESERVE: Duration = Duration::from_secs(300);
/// The least of it: a pod's start, and a crash of the leader. A template that gives its pods less time to end does not
/// mean that their state may be lost.
const LEAST_HOOK_RESERVE: Duration = Duration::from_secs(30);
/// Failures of the start-up probe before the kubelet restarts the sidecar: a day, because a cold-swap target waits
/// there for the source's end, and the operator's deadlines are shorter.
const START_FAILURES: i32 = 86_400;

/// What a pod is built from.
#[derive(Clone, Copy, Debug)]
pub struct Blueprint<'a> {
    /// The hub.
    pub hub: &'a ProcessHub,
    /// The process.
    pub process: &'a HubProcess,
    /// The pod's name.
    pub name: &'a str,
    /// Its node.
    pub node: &'a str,
    /// The epoch that it is created with.
    pub epoch: Epoch,
    /// Whether its worker waits for the source's end.
    pub gated: bool,
    /// Image of the sidecar.
    pub sidecar_image: &'a str,
}

/// The grace period of the template.
fn template_grace(hub: &ProcessHub) -> Option<Duration> {
    let own = hub.spec.template.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
    own.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs)
}

/// What the template's author gives a worker to stop.
fn worker_stop(hub: &ProcessHub) -> Duration {
    template_grace(hub).unwrap_or(DEFAULT_GRACE)
}

/// The longest that the worker's end may wait for an urgent move: the hub's own time-outs, and as long as the template
/// gives a pod to end, but at least 30 s; five minutes, if it does not say.
#[must_use]
pub fn hook_bound(hub: &ProcessHub) -> Duration {
    let Migration { state_query_timeout_milliseconds, .. } = hub.spec.migration;
    let Worker { drain_timeout_milliseconds, .. } = hub.spec.worker;
    let own = Duration::from_millis(drain_timeout_milliseconds + 2 * state_query_timeout_milliseconds);
    template_grace(hub).map_or(HOOK_RESERVE, |given| given.max(LEAST_HOOK_RESERVE)) + own
}

/// The pod's grace period: the longest that the hook may take, then the worker's own stop, then the retention.
#[must_use]
pub fn grace(hub: &ProcessHub) -> Duration {
    hook_bound(hub) + worker_stop(hub) + Duration::from_millis(hub.spec.migration.retention_milliseconds)
}

/// The pod.
#[must_use]
pub fn build(blueprint: &Blueprint<'_>) -> Pod {
    let Blueprint { hub, process, name, node, epoch, gated: _, sidecar_image: _ } = *blueprint;
    let template = &hub.spec.template;
    let given = template.metadata.clone().unwrap_or_default();
    let mut labels = given.labels.unwrap_or_default();
    labels.extend([
        (label::HUB.to_owned(), hub.name_any()),
        (label::PROCESS.to_owned(), process.name_any()),
        (label::PROCESS_UID.to_owned(), process.uid().unwrap_or_default()),
        (label::EPOCH.to_owned(), epoch.to_string()),
        (label::REVISION.to_owned(), revision::name(hub)),
    ]);
    let cold = hub.spec.migration.strategy == MigrationStrategy::ColdSwap
        || hub.spec.upgrade.strategy == Some(UpgradeStrategy::ColdSwap);
    let mut spec = template.spec.clone().unwrap_or_default();
    spec.affinity = Some(pinned(spec.affinity, node));
    spec.restart_policy = Some("Always".to_owned());
    spec.termination_grace_period_seconds = i64::try_from(grace(hub).as_secs()).ok();
    spec.init_containers.get_or_insert_default().insert(0, sidecar(blueprint));
    spec.volumes.get_or_insert_default().push(Volume {
        name: STATE_VOLUME.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..Volume::default()
    });
    equip_worker(&mut spec, blueprint);
    Pod {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: process.namespace(),
            labels: Some(labels),
            annotations: given.annotations,
            owner_references: process.controller_owner_ref(&()).map(|owner| vec![owner]),
            finalizers: cold.then(|| vec![finalizer::COLD_SWAP.to_owned()]),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        status: None,
    }
}

/// Through the scheduler, so that cordons, taints and room are respected. Terms are alternatives, and each of the
/// template's own has to hold on that node as well.
fn pinned(affinity: Option<Affinity>, node: &str) -> Affinity {
    let here = NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let mut affinity = affinity.unwrap_or_default();
    let nodes = affinity.node_affinity.get_or_insert_with(NodeAffinity::default);
    let required =
        nodes.required_during_scheduling_ignored_during_execution.get_or_insert_with(NodeSelector::default);
    if required.node_selector_terms.is_empty() {
        required.node_selector_terms.push(NodeSelectorTerm::default());
    }
    for term in &mut required.node_selector_terms {
        term.match_fields.get_or_insert_default().push(here.clone());
    }
    affinity
}

fn sidecar(blueprint: &Blueprint<'_>) -> Container {
    let small = |cpu: &str, memory: &str| -> BTreeMap<String, Quantity> {
        [("cpu".to_owned(), Quantity(cpu.to_owned())), ("memory".to_owned(), Quantity(memory.to_owned()))]
            .into()
    };
    Container {
        name: SIDECAR.to_owned(),
        image: Some(blueprint.sidecar_image.to_owned()),
        restart_policy: Some("Always".to_owned()),
        env: Some(environment(blueprint)),
        ports: Some(vec![ContainerPort {
            name: Some("processhub".to_owned()),
            container_port: i32::from(CONTROL_PORT),
            ..ContainerPort::default()
        }]),
        startup_probe: Some(probe(path::START, START_FAILURES)),
        readiness_probe: Some(probe(path::READY, 1)),
        liveness_probe: Some(Probe { period_seconds: Some(5), ..probe(path::LIVE, 6) }),
        resources: Some(ResourceRequirements {
            requests: Some(small("10m", "16Mi")),
            ..ResourceRequirements::default()
        }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                localhost_profile: None,
            }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(vec![VolumeMount {
            name: STATE_VOLUME.to_owned(),
            mount_path: STATE_PATH.to_owned(),
            ..VolumeMount::default()
        }]),
        ..Container::default()
    }
}

fn probe(path: &str, failures: i32) -> Probe {
    Probe {
        http_get: Some(http_get(path)),
        period_seconds: Some(1),
        failure_threshold: Some(failures),
        timeout_seconds: Some(1),
        ..Probe::default()
    }
}

fn http_get(path: &str) -> HTTPGetAction {
    HTTPGetAction {
        path: Some(path.to_owned()),
        port: IntOrString::Int(i32::from(CONTROL_PORT)),
        ..HTTPGetAction::default()
    }
}

fn environment(blueprint: &Blueprint<'_>) -> Vec<EnvVar> {
    let Blueprint { hub, process, epoch, gated, .. } = blueprint;
    let worker = &hub.spec.worker;
    let migration = &hub.spec.migration;
    // Also a first start and a recovery must not meet an older pod's worker.
    let gated = *gated || migration.strategy == MigrationStrategy::ColdSwap;
    let mut environment = identity(blueprint);
    environment.extend([
        value("PROCESSHUB_PROCESS_UID", process.uid().unwrap_or_default()),
        value("PROCESSHUB_EPOCH", epoch.to_string()),
        field("PROCESSHUB_POD_NAME", "metadata.name"),
        field("PROCESSHUB_POD_UID", "metadata.uid"),
        field("PROCESSHUB_POD_IP", "status.podIP"),
        value("PROCESSHUB_PORT", worker.port.to_string()),
        value("PROCESSHUB_PROTOCOL", worker.protocol.as_str().to_owned()),
        value("PROCESSHUB_CONTROL_PORT", CONTROL_PORT.to_string()),
        value("PROCESSHUB_GATED", gated.to_string()),
        value(LEASED, (hub.spec.failover == Failover::OnLease).to_string()),
        value("PROCESSHUB_STATE_DIR", STATE_PATH.to_owned()),
        value("PROCESSHUB_HOLD_REQUESTS", worker.hold.requests.to_string()),
        value("PROCESSHUB_HOLD_BYTES", worker.hold.bytes.to_string()),
        value("PROCESSHUB_HOLD_MILLISECONDS", worker.hold.milliseconds.to_string()),
        value("PROCESSHUB_RETENTION_MILLISECONDS", migration.retention_milliseconds.to_string()),
        value("PROCESSHUB_HOOK_MILLISECONDS", hook_bound(hub).as_millis().to_string()),
        value(
            "PROCESSHUB_CHECKPOINT_CLASS",
            hub.spec.checkpoint.class.map_or("Auto", CheckpointClass::as_str).to_owned(),
        ),
        value("PROCESSHUB_CHECKPOINT_REPLICAS", hub.spec.checkpoint.replicas.to_string()),
        value("PROCESSHUB_CHECKPOINT_MILLISECONDS", hub.spec.checkpoint.period_milliseconds.to_string()),
        EnvVar {
            name: "PROCESSHUB_KEY".to_owned(),
            value_from: Some(EnvVarSource {
                secret_key_ref: Some(SecretKeySelector {
                    name: credentials::secret_name(&hub.name_any()),
                    key: credentials::KEY_ENTRY.to_owned(),
                    optional: None,
                }),
                ..EnvVarSource::default()
            }),
            ..EnvVar::default()
        },
    ]);
    environment
}

/// What worker and sidecar both learn.
fn identity(blueprint: &Blueprint<'_>) -> Vec<EnvVar> {
    let Blueprint { hub, process, .. } = blueprint;
    vec![
        value("PROCESSHUB_NAMESPACE", process.namespace().unwrap_or_default()),
        value("PROCESSHUB_HUB", hub.name_any()),
        value("PROCESSHUB_PROCESS", process.name_any()),
        value("PROCESSHUB_CONTROL", CONTRACT.to_owned()),
        value("PROCESSHUB_LISTEN", format!("127.0.0.1:{}", hub.spec.worker.port)),
    ]
}

fn value(name: &str, value: String) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value), value_from: None }
}

fn field(name: &str, path: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector { field_path: path.to_owned(), api_version: None }),
            ..EnvVarSource::default()
        }),
    }
}

/// Gives the worker its environment, and the hook that keeps it running until its process has been handed over.
fn equip_worker(spec: &mut PodSpec, blueprint: &Blueprint<'_>) {
    let Some(worker) = spec.containers.iter_mut().find(|container| container.name == WORKER) else {
        return;
    };
    let ours = identity(blueprint);
    let given = worker.env.take().unwrap_or_default();
    let kept = given.into_iter().filter(|given| ours.iter().all(|ours| ours.name != given.name));
    worker.env = Some(ours.iter().cloned().chain(kept).collect());
    worker.lifecycle.get_or_insert_with(Lifecycle::default).pre_stop =
        Some(LifecycleHandler { http_get: Some(http_get(path::PRE_STOP)), ..LifecycleHandler::default() });
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;

    pub(crate) fn hub() -> ProcessHub {
        serde_json::from_value(json!({
            "apiVersion": "processhub.io/v1alpha1", "kind": "ProcessHub",
            "metadata": { "name": "cart", "namespace": "shop", "uid": "hub-uid" },
            "spec": { "template": {
                "metadata": { "labels": { "app": "cart" }, "annotations": { "note": "kept" } },
                "spec": { "containers": [{
                    "name": "worker", "image": "cart:1.8",
                    "env": [{ "name": "PROCESSHUB_LISTEN", "value": "wrong" }, { "name": "OWN", "value": "1" }],
                }] } } },
        }))
        .unwrap()
    }

    pub(crate) fn process() -> HubProcess {
        serde_json::from_value(json!({
            "apiVersion": "processhub.io/v1alpha1", "kind": "HubProcess",
            "metadata": { "name": "cart-3", "namespace": "shop", "uid": "process", "resourceVersion": "1",
                          "labels": { "team": "a" } },
            "spec": { "hubName": "cart", "config": { "size": 3 } },
        }))
        .unwrap()
    }

    fn blueprint<'a>(hub: &'a ProcessHub, process: &'a HubProcess) -> Blueprint<'a> {
        Blueprint {
            hub,
            process,
            name: "cart-3-18",
            node: "n4",
            epoch: Epoch(18),
            gated: false,
            sidecar_image: "sidecar:dev",
        }
    }

    #[test]
    fn the_pod_carries_our_labels_and_the_templates_and_is_owned_by_the_process() {
        let pod = build(&blueprint(&hub(), &process()));
        let labels = pod.labels();
        assert_eq!(labels[label::PROCESS_UID], "process");
        assert_eq!(labels[label::EPOCH], "18");
        assert_eq!(labels["app"], "cart");
        assert!(!labels.contains_key("team"), "labels of the process are not copied to its children");
        assert_eq!(pod.annotations()["note"], "kept");
        let owner = &pod.owner_references()[0];
        assert_eq!((owner.uid.as_str(), owner.controller), ("process", Some(true)));
        assert!(pod.finalizers().is_empty());
    }

    #[test]
    fn a_pod_of_a_cold_swap_hub_is_guarded_by_a_finalizer() {
        let mut hub = hub();
        hub.spec.migration.strategy = MigrationStrategy::ColdSwap;
        assert_eq!(build(&blueprint(&hub, &process())).finalizers(), [finalizer::COLD_SWAP]);
    }

    #[test]
    fn every_worker_of_a_cold_swap_hub_waits_at_its_gate() {
        let gated = |strategy| {
            let mut hub = hub();
            hub.spec.migration.strategy = strategy;
            let spec = build(&blueprint(&hub, &process())).spec.unwrap();
            let environment = spec.init_containers.unwrap()[0].env.clone().unwrap();
            environment.into_iter().find(|env| env.name == "PROCESSHUB_GATED").unwrap().value.unwrap()
        };
        assert_eq!(
            (gated(MigrationStrategy::HotSwap), gated(MigrationStrategy::ColdSwap)),
            ("false".into(), "true".into())
        );
    }

    #[test]
    fn the_sidecar_comes_first_as_a_native_one_and_is_restricted() {
        let spec = build(&blueprint(&hub(), &process())).spec.unwrap();
        let sidecar = &spec.init_containers.as_ref().unwrap()[0];
        assert_eq!((sidecar.name.as_str(), sidecar.restart_policy.as_deref()), (SIDECAR, Some("Always")));
        let security = sidecar.security_context.as_ref().unwrap();
        assert_eq!(security.run_as_non_root, Some(true));
        assert_eq!(security.allow_privilege_escalation, Some(false));
        let environment = sidecar.env.as_ref().unwrap();
        let key = environment.iter().find(|env| env.name == "PROCESSHUB_KEY").unwrap();
        let secret = key.value_from.as_ref().unwrap().secret_key_ref.as_ref().unwrap();
        assert_eq!(secret.name, "processhub-cart");
    }

    #[test]
    fn the_worker_gets_our_environment_before_its_own_and_the_hook() {
        let spec = build(&blueprint(&hub(), &process())).spec.unwrap();
        let worker = &spec.containers[0];
        let environment = worker.env.as_ref().unwrap();
        let listen: Vec<_> = environment.iter().filter(|env| env.name == "PROCESSHUB_LISTEN").collect();
        assert_eq!(listen.len(), 1);
        assert_eq!(listen[0].value.as_deref(), Some("127.0.0.1:8080"));
        assert_eq!(environment.last().unwrap().name, "OWN");
        let hook = worker.lifecycle.as_ref().unwrap().pre_stop.as_ref().unwrap().http_get.as_ref().unwrap();
        assert_eq!(hook.path.as_deref(), Some(path::PRE_STOP));
    }

    #[test]
    fn the_node_is_required_in_every_alternative_of_the_template() {
        let mut hub = hub();
        let given = json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{ "matchExpressions": [{ "key": "a", "operator": "Exists" }] },
                                  { "matchExpressions": [{ "key": "b", "operator": "Exists" }] }] } } });
        hub.spec.template.spec.as_mut().unwrap().affinity = Some(serde_json::from_value(given).unwrap());
        let spec = build(&blueprint(&hub, &process())).spec.unwrap();
        let required = spec.affinity.unwrap().node_affinity.unwrap();
        let terms = required.required_during_scheduling_ignored_during_execution.unwrap().node_selector_terms;
        assert_eq!(terms.len(), 2);
        for term in terms {
            assert!(term.match_expressions.is_some());
            assert_eq!(term.match_fields.unwrap()[0].values, Some(vec!["n4".to_owned()]));
        }
    }

    #[test]
    fn the_grace_period_holds_the_hook_the_workers_stop_and_the_retention() {
        let mut hub = hub();
        assert_eq!(grace(&hub), Duration::from_secs(300 + 30 + 5 + 10 + 5));
        hub.spec.template.spec.as_mut().unwrap().termination_grace_period_seconds = Some(2);
        assert_eq!(
            build(&blueprint(&hub, &process())).spec.unwrap().termination_grace_period_seconds,
            Some(52)
        );
        assert_eq!(hook_bound(&hub), Duration::from_secs(30 + 5 + 10), "a quick end leaves a move its time");
        hub.spec.template.spec.as_mut().unwrap().termination_grace_period_seconds = Some(600);
        assert_eq!(hook_bound(&hub), Duration::from_secs(600 + 5 + 10));
        assert_eq!(grace(&hub), Duration::from_secs(2 * 600 + 5 + 10 + 5));
    }
}

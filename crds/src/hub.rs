//! `ProcessHub`: what runs, where it may run and how it moves.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::partition::PartitionTolerance;
use crate::rules;
use crate::upgrade::{Revision, Upgrade};
use crate::vocabulary::vocabulary;

/// What a hub runs, where it may run and how it moves.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "processhub.io",
    version = "v1alpha1",
    kind = "ProcessHub",
    plural = "processhubs",
    shortname = "hub",
    namespaced,
    status = "ProcessHubStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "ProcessHub runs named stateful processes on the nodes of a cluster and moves them with their state.",
    validation = rules::hub_name(),
    validation = rules::worker_container(),
    validation = rules::handover_with_replication(),
    validation = rules::replication(),
    validation = rules::headless_retention(),
    validation = rules::upgrade_to_come(),
    validation = rules::upgrade_of_cold_swaps(),
    validation = rules::lease_of_cold_swaps(),
    validation = rules::quorum_size(),
    validation = rules::divergence(),
    validation = rules::sync_without_answers(),
    validation = rules::replicas_of_nothing(),
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".status.desired"),
    printcolumn(name = "Ready", type_ = "integer", json_path = ".status.ready"),
    printcolumn(name = "Moving", type_ = "integer", json_path = ".status.moving"),
    printcolumn(name = "Vsn", type_ = "string", json_path = ".spec.vsn"),
    printcolumn(name = "Upgraded", type_ = "integer", json_path = ".status.upgraded"),
    printcolumn(name = "Members", type_ = "integer", json_path = ".status.members.count"),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#
    ),
    printcolumn(
        name = "Detail",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Progressing")].reason"#
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = crate::schema::spec)]
pub struct ProcessHubSpec {
    /// The installation that owns the hub, where there are several in a cluster.
    #[serde(default = "default_class")]
    #[schemars(length(min = 1, max = 40), regex(pattern = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    pub class_name: String,
    /// How many processes named `<hub>-0`, `<hub>-1` and so on to run.
    #[serde(default)]
    #[schemars(range(min = 0, max = 100_000))]
    pub replicas: u32,
    /// Processes with names of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 512),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub processes: Vec<StaticProcess>,
    /// The pod of every process. It must have a container named `worker`.
    #[schemars(schema_with = "crate::schema::pod_template")]
    pub template: PodTemplateSpec,
    /// The version of the worker's code. A change of it, or of `template`, changes the code of every process.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64), regex(pattern = r"^([A-Za-z0-9]([-+._A-Za-z0-9]*[A-Za-z0-9])?)?$"))]
    pub vsn: String,
    /// How processes get to new code.
    #[serde(default)]
    pub upgrade: Upgrade,
    /// How requests reach the worker.
    #[serde(default)]
    pub worker: Worker,
    /// Which nodes the hub may use. Tolerations come from the template.
    #[serde(default)]
    pub members: Members,
    /// How processes are spread over the members.
    #[serde(default)]
    pub distribution: Distribution,
    /// How processes move.
    #[serde(default)]
    pub migration: Migration,
    /// How many copies of a process run.
    #[serde(default)]
    pub redundancy: Redundancy,
    /// When a process is taken over from a node that cannot be reached.
    #[serde(default)]
    pub failover: Failover,
    /// Who may take over from nodes that cannot be reached, where `failover` is `OnLease`.
    #[serde(default)]
    pub partition_tolerance: PartitionTolerance,
    /// How the state is kept against a crash of its worker.
    #[serde(default)]
    pub checkpoint: Checkpoint,
    /// How long joins and leaves of nodes are collected before they are acted upon.
    #[serde(default = "default_debounce")]
    #[schemars(range(min = 0, max = 60_000))]
    pub cluster_event_debounce_milliseconds: u64,
}

fn default_class() -> String {
    "default".to_owned()
}

const fn default_debounce() -> u64 {
    500
}

/// A process that the hub lists by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::reserved_labels())]
pub struct StaticProcess {
    /// The name of the process and of its `HubProcess`.
    #[schemars(length(min = 1, max = 40), regex(pattern = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Given to the worker when it is activated. At most 16 KiB as JSON.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::schema::config")]
    pub config: BTreeMap<String, Value>,
    /// Labels of the `HubProcess`: tags to find it by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::schema::string_map")]
    pub labels: BTreeMap<String, String>,
    /// Pins the process to a node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::node_name")]
    pub node_name: Option<String>,
}

/// How requests reach the worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Worker {
    /// The port of the process: clients use it, and the worker listens on it on its loopback address.
    #[schemars(range(min = 1, max = 65_535))]
    pub port: u16,
    /// What the worker speaks with its clients.
    pub protocol: Protocol,
    /// How clients find a process.
    pub service: ServiceKind,
    /// How much is held while a process moves.
    pub hold: Hold,
    /// How long requests that are under way at the freeze, or connections that are being closed, may take to end.
    #[schemars(range(min = 0, max = 600_000))]
    pub drain_timeout_milliseconds: u64,
    /// How often a worker that crashes again and again is started in a new pod.
    pub restarts: Restarts,
}

impl Default for Worker {
    fn default() -> Self {
        Self {
            port: 8080,
            protocol: Protocol::default(),
            service: ServiceKind::default(),
            hold: Hold::default(),
            drain_timeout_milliseconds: 5000,
            restarts: Restarts::default(),
        }
    }
}

/// How often a process whose worker crashes again and again is started in a new pod, which takes seconds, before it is left
/// to its kubelet, which waits longer each time, up to five minutes. More than `max` within `periodSeconds`, as a
/// supervisor of OTP counts, and no further one is started until the worker has run for that period, its process has been
/// moved by a wish or given new code, or `max` is raised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Restarts {
    /// How often within the period; 0 leaves every crash to the kubelet.
    #[schemars(range(min = 0, max = 100))]
    pub max: u32,
    /// The period.
    #[schemars(range(min = 1, max = 86_400))]
    pub period_seconds: u64,
}

impl Default for Restarts {
    fn default() -> Self {
        Self { max: 30, period_seconds: 600 }
    }
}

/// The bounds of what is held while a process moves. Beyond them a request gets 503 with `Retry-After`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Hold {
    /// Requests.
    #[schemars(range(min = 0, max = 65_536))]
    pub requests: u32,
    /// Bytes of their bodies.
    #[schemars(range(min = 0, max = 1_073_741_824))]
    pub bytes: u64,
    /// How long each waits.
    #[schemars(range(min = 0, max = 600_000))]
    pub milliseconds: u64,
}

impl Default for Hold {
    fn default() -> Self {
        Self { requests: 256, bytes: 8_388_608, milliseconds: 10_000 }
    }
}

vocabulary! {
    /// What the worker speaks with its clients.
    #[derive(Default)]
    Protocol {
        /// HTTP/1.1. While a process moves, requests wait and are answered by its new owner.
        #[default]
        HTTP = "HTTP",
        /// Anything over TCP. While a process moves, new connections wait; established ones are closed in an orderly way,
        /// and clients connect again.
        TCP = "TCP",
    }
}

vocabulary! {
    /// How clients find a process.
    #[derive(Default)]
    ServiceKind {
        /// A virtual address per process, which does not depend on DNS caches.
        #[default]
        ClusterIP = "ClusterIP",
        /// One headless Service per hub: `<process>.<hub>.<namespace>.svc`.
        Headless = "Headless",
    }
}

/// Which nodes the hub may use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Members {
    /// Labels that a node must have; empty: every schedulable node.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::schema::string_map")]
    pub node_selector: BTreeMap<String, String>,
}

/// How processes are spread over the members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Distribution {
    /// The strategy.
    pub strategy: DistributionStrategy,
}

vocabulary! {
    /// How processes are spread over the members.
    #[derive(Default)]
    DistributionStrategy {
        /// Sticky, balanced rendezvous hashing: as few moves as a change requires.
        #[default]
        ConsistentHashing = "ConsistentHashing",
        /// The `nodeName` of each process decides.
        Guided = "Guided",
    }
}

/// How processes move.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Migration {
    /// Whether the new incarnation runs beside the old one.
    pub strategy: MigrationStrategy,
    /// Whether state is carried. Absent: it is if the worker can; `true` refuses a worker that cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handover: Option<bool>,
    /// How long a captured state may wait; then the move is aborted and the source goes on.
    #[serde(rename = "stateTTLMilliseconds")]
    #[schemars(range(min = 100, max = 3_600_000))]
    pub state_ttl_milliseconds: u64,
    /// How long the worker may take to suspend and to capture; then the move is aborted and the source goes on.
    #[schemars(range(min = 100, max = 600_000))]
    pub state_query_timeout_milliseconds: u64,
    /// How long, at least, the old pod stays to forward stragglers.
    #[schemars(range(min = 2000, max = 600_000))]
    pub retention_milliseconds: u64,
    /// How many processes of the hub may move at once. A process whose pod is going to be killed waits for nobody.
    #[schemars(range(min = 1, max = 10_000))]
    pub max_concurrent: u32,
    /// How many of them may leave or enter one node.
    #[schemars(range(min = 1, max = 10_000))]
    pub max_concurrent_per_node: u32,
    /// How long a move may take before it is aborted, unless it is committed.
    #[schemars(range(min = 1, max = 86_400))]
    pub deadline_seconds: u64,
}

impl Default for Migration {
    fn default() -> Self {
        Self {
            strategy: MigrationStrategy::default(),
            handover: None,
            state_ttl_milliseconds: 30_000,
            state_query_timeout_milliseconds: 5000,
            retention_milliseconds: 5000,
            max_concurrent: 32,
            max_concurrent_per_node: 8,
            deadline_seconds: 600,
        }
    }
}

vocabulary! {
    /// Whether the new incarnation runs beside the old one.
    #[derive(Default)]
    MigrationStrategy {
        /// The new one is there before the old one goes.
        #[default]
        HotSwap = "HotSwap",
        /// The old worker has stopped before the new one starts: for what must never exist twice.
        ColdSwap = "ColdSwap",
    }
}

/// How many copies of a process run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Redundancy {
    /// The strategy.
    pub strategy: RedundancyStrategy,
}

vocabulary! {
    /// How many copies of a process run.
    #[derive(Default)]
    RedundancyStrategy {
        /// One.
        #[default]
        Singularity = "Singularity",
        /// Several. Known by name, so that it is refused with a reason: this version does not have it.
        Replication = "Replication",
    }
}

vocabulary! {
    /// When a process is taken over from a node that cannot be reached.
    #[derive(Default)]
    Failover {
        /// Once the old incarnation is proven dead. Until then a process serves as long as it runs.
        #[default]
        OnProof = "OnProof",
        /// Some twelve seconds after it was last heard. A process serves only while the operator renews its lease: one whose
        /// operators are gone for longer than that pauses.
        OnLease = "OnLease",
    }
}

/// How the state is kept against a crash of its worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Checkpoint {
    /// What an answer waits for. Absent: each answer decides, `Sync` if the worker numbers it (`ProcessHub-Seq`), else
    /// `Async`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<CheckpointClass>,
    /// The least time between two captures that no answer waits for.
    #[schemars(range(min = 20, max = 3_600_000))]
    pub period_milliseconds: u64,
    /// With how many sidecars of other nodes the newest one is kept as well, so that the loss of a node takes no more than a
    /// crash of the worker. With `Sync` an answer waits for them. Holds for pods that are started from now on.
    #[schemars(range(max = 2))]
    pub replicas: u32,
}

impl Default for Checkpoint {
    fn default() -> Self {
        Self { class: None, period_milliseconds: 1000, replicas: 0 }
    }
}

vocabulary! {
    /// What an answer to a client waits for, and so what a crash of the worker may take along.
    CheckpointClass {
        /// Nothing is captured but for moves: a crash takes what changed since the last one.
        None = "None",
        /// Nothing: a crash takes what changed since the last period.
        Async = "Async",
        /// A state on disk that contains its change: a crash takes nothing that was answered.
        Sync = "Sync",
    }
}

/// What is true of a hub.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = crate::schema::status)]
pub struct ProcessHubStatus {
    /// The generation of the spec that the rest was derived from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub observed_generation: Option<i64>,
    /// How many processes there should be: replicas, listed and dynamic ones.
    #[serde(default)]
    pub desired: u32,
    /// How many acknowledge requests.
    #[serde(default)]
    pub ready: u32,
    /// How many are moving.
    #[serde(default)]
    pub moving: u32,
    /// How many run the code of the present `vsn` and `template`.
    #[serde(default)]
    pub upgraded: u32,
    /// The codes that processes run, the present one, and some that were, oldest first. A change to an older one is a
    /// change down.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub revisions: Vec<Revision>,
    /// How many of `spec.replicas` exist; what `/scale` shows.
    #[serde(default)]
    pub replicas: u32,
    /// Selects the pods of the hub, for `/scale`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub selector: String,
    /// The nodes that the hub may use and that are fit to be a target.
    #[serde(default)]
    pub members: HubMembers,
    /// Accepted, Ready, Progressing, Rebalanced, Degraded, QuorumAvailable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// The nodes that a hub may use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HubMembers {
    /// How many.
    pub count: u32,
    /// The first 64 of their names, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 253)))]
    pub names: Vec<String>,
}

impl HubMembers {
    /// From all names: sorted, counted, and as many listed as the status may hold.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        let mut names: Vec<String> = names.into_iter().collect();
        names.sort_unstable();
        names.dedup();
        let count = u32::try_from(names.len()).unwrap_or(u32::MAX);
        names.truncate(crate::limits::MAX_MEMBER_NAMES);
        Self { count, names }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_sorted_and_counted_beyond_what_is_listed() {
        let members =
            HubMembers::new((0..70).rev().map(|index| format!("n{index:02}")).chain(["n00".into()]));
        assert_eq!(members.count, 70);
        assert_eq!(members.names.len(), crate::limits::MAX_MEMBER_NAMES);
        assert_eq!(members.names[..2], ["n00", "n01"]);
    }

    #[test]
    fn a_template_survives_the_way_through_the_type() {
        let template = serde_json::json!({
            "metadata": { "labels": { "a": "b" } },
            "spec": {
                "containers": [{ "name": "worker", "resources": { "limits": { "memory": "64Mi" } } }],
                "volumes": [{ "name": "v", "emptyDir": {} }],
                "terminationGracePeriodSeconds": 45,
            },
        });
        let spec: ProcessHubSpec =
            serde_json::from_value(serde_json::json!({ "template": template })).unwrap();
        assert_eq!(serde_json::to_value(spec).unwrap()["template"], template);
    }
}

//! The second look at a resource, in Rust: once, at the edge of the operator.
//!
//! The API server has refused most of what is wrong already (schema and [`rules`]). This finds what
//! rules cannot, or may not for their cost, and finds the rest again, should an object have got in some other way. What
//! comes out has defaults applied, durations for milliseconds and nothing left to be checked.

mod labels;
mod names;
mod template;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use kube::ResourceExt;
use serde_json::Value;

use crate::limits::{
    MAX_CONFIG_BYTES, MAX_HUB_NAME, MAX_PROCESS_NAME, MAX_REPLICAS, MAX_STATE_REPLICAS, RESERVED_PORTS,
};
use crate::vocabulary::HubReason;
use crate::{
    CheckpointClass, DistributionStrategy, Failover, HubProcess, Migration, MigrationStrategy,
    PartitionStrategy, PartitionTolerance, ProcessHub, ProcessHubSpec, Protocol, RedundancyStrategy,
    ServiceKind, StaticProcess, Upgrade, UpgradeStrategy, Worker, rules,
};

/// One thing that is wrong with a resource.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.text())]
pub struct FieldError {
    /// The reason that belongs on the condition `Accepted=False`.
    pub reason: HubReason,
    /// The field, as a path from the object's root.
    pub field: String,
    /// What is wrong and what to do about it.
    pub message: String,
}

impl FieldError {
    fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { reason: HubReason::InvalidConfig, field: field.into(), message: message.into() }
    }

    fn because(mut self, reason: HubReason) -> Self {
        self.reason = reason;
        self
    }

    fn text(&self) -> String {
        match self.reason {
            HubReason::HandoverWithReplicationNotSupported => rules::HANDOVER_WITH_REPLICATION.to_owned(),
            _ => format!("invalid_config: {}: {}", self.field, self.message),
        }
    }
}

/// All that is wrong with a resource; never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.text())]
pub struct Invalid {
    errors: Vec<FieldError>,
}

impl Invalid {
    /// Everything that was found.
    pub fn errors(&self) -> &[FieldError] {
        &self.errors
    }

    /// The reason for the condition: that of the first finding.
    pub fn reason(&self) -> HubReason {
        self.errors.first().map_or(HubReason::InvalidConfig, |error| error.reason)
    }

    fn text(&self) -> String {
        self.errors.iter().map(FieldError::text).collect::<Vec<_>>().join("; ")
    }
}

fn ok_or_invalid<T>(value: T, errors: Vec<FieldError>) -> Result<T, Invalid> {
    if errors.is_empty() { Ok(value) } else { Err(Invalid { errors }) }
}

/// A hub that can be acted upon.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidatedHub {
    /// Its name, short enough for `<hub>-<ordinal>`.
    pub name: String,
    /// The installation that owns it.
    pub class_name: String,
    /// How many replicas it wants.
    pub replicas: u32,
    /// The processes that it lists; no two have one name, and none has the name of a replica.
    pub processes: Vec<ValidatedProcess>,
    /// The template as it was given. It has exactly one container named `worker`.
    pub template: PodTemplateSpec,
    /// How requests reach the worker.
    pub worker: WorkerConfig,
    /// Labels that a member must have.
    pub node_selector: BTreeMap<String, String>,
    /// How processes are spread.
    pub distribution: DistributionStrategy,
    /// How processes move.
    pub migration: MigrationConfig,
    /// How long joins and leaves are collected.
    pub debounce: Duration,
}

impl ValidatedHub {
    /// The processes that the hub itself asks for: its replicas by ordinal, then the listed ones.
    pub fn wanted(&self) -> Vec<ValidatedProcess> {
        let replicas = (0..self.replicas).map(|ordinal| ValidatedProcess {
            name: names::replica(&self.name, ordinal),
            config: BTreeMap::new(),
            labels: BTreeMap::new(),
            node_name: None,
        });
        replicas.chain(self.processes.iter().cloned()).collect()
    }
}

/// A process that can be acted upon.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidatedProcess {
    /// Its name: a DNS label of at most 40 characters that begins with a letter.
    pub name: String,
    /// What its worker is activated with.
    pub config: BTreeMap<String, Value>,
    /// Its tags; the operator's own labels are not among them.
    pub labels: BTreeMap<String, String>,
    /// The node that it is pinned to.
    pub node_name: Option<String>,
}

/// How requests reach the worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerConfig {
    /// The port of the process; none of ours.
    pub port: u16,
    /// What the worker speaks with its clients.
    pub protocol: Protocol,
    /// How clients find a process.
    pub service: ServiceKind,
    /// Most requests that are held.
    pub hold_requests: u32,
    /// Most bytes of bodies that are held.
    pub hold_bytes: u64,
    /// How long each request is held.
    pub hold_time: Duration,
    /// How long requests that are under way at the freeze may take to end.
    pub drain_timeout: Duration,
}

/// How processes move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrationConfig {
    /// Whether the new incarnation runs beside the old one.
    pub strategy: MigrationStrategy,
    /// Whether state is carried.
    pub handover: Handover,
    /// How long a captured state may wait.
    pub state_ttl: Duration,
    /// How long the worker may take to suspend and to capture.
    pub state_query_timeout: Duration,
    /// How long, at least, the old pod stays.
    pub retention: Duration,
    /// How many processes may move at once.
    pub max_concurrent: u32,
    /// How many may leave or enter one node at once.
    pub max_concurrent_per_node: u32,
    /// How long a move may take before it is aborted.
    pub deadline: Duration,
}

/// Whether state is carried (`spec.migration.handover`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handover {
    /// Absent: if the worker can.
    IfCapable,
    /// `true`: a worker that cannot is not moved.
    Required,
    /// `false`: no state is carried; what is dropped is said on the object.
    Never,
}

/// There has to be something that can be replicated.
fn check_replicas(spec: &ProcessHubSpec, errors: &mut Vec<FieldError>) {
    const FIELD: &str = "spec.checkpoint.replicas";
    if spec.checkpoint.replicas > MAX_STATE_REPLICAS {
        errors.push(FieldError::new(FIELD, format!("at most {MAX_STATE_REPLICAS}; lower it")));
    }
    if spec.checkpoint.replicas > 0 && spec.checkpoint.class == Some(CheckpointClass::None) {
        errors.push(FieldError::new(
            FIELD,
            "with spec.checkpoint.class None there is nothing to replicate; use Sync or Async",
        ));
    }
}

/// Looks at a whole hub.
///
/// # Errors
/// Everything that is wrong with it, each with field and remedy.
pub fn validate(hub: &ProcessHub) -> Result<ValidatedHub, Invalid> {
    let spec = &hub.spec;
    let name = hub.name_any();
    let mut errors = Vec::new();
    if !names::is_name(&name, MAX_HUB_NAME) {
        errors.push(FieldError::new("metadata.name", names::remedy(MAX_HUB_NAME)));
    }
    if spec.replicas > MAX_REPLICAS {
        errors.push(FieldError::new("spec.replicas", format!("at most {MAX_REPLICAS}; lower it")));
    }
    check_redundancy(spec, &mut errors);
    check_worker(spec, &mut errors);
    check_upgrade(spec, &mut errors);
    check_partition(&spec.partition_tolerance, &mut errors);
    if spec.worker.protocol == Protocol::TCP && spec.checkpoint.class == Some(CheckpointClass::Sync) {
        errors.push(FieldError::new(
            "spec.checkpoint.class",
            "with spec.worker.protocol TCP no answer can wait for its checkpoint; use Async or None",
        ));
    }
    check_replicas(spec, &mut errors);
    labels::check("spec.members.nodeSelector", &spec.members.node_selector, &mut errors);
    let processes = check_processes(&name, &spec.processes, &mut errors);
    template::check(&spec.template, spec.worker.port, &mut errors);
    ok_or_invalid((), errors)?;
    Ok(ValidatedHub {
        name,
        class_name: spec.class_name.clone(),
        replicas: spec.replicas,
        processes,
        template: spec.template.clone(),
        worker: worker_config(&spec.worker),
        node_selector: spec.members.node_selector.clone(),
        distribution: spec.distribution.strategy,
        migration: migration_config(&spec.migration),
        debounce: Duration::from_millis(spec.cluster_event_debounce_milliseconds),
    })
}

/// Looks at a process by itself; whether its hub exists and takes it is another question.
///
/// # Errors
/// Everything that is wrong with it, each with field and remedy.
pub fn validate_process(process: &HubProcess) -> Result<ValidatedProcess, Invalid> {
    let name = process.name_any();
    let mut errors = Vec::new();
    if !names::is_name(&name, MAX_PROCESS_NAME) {
        errors.push(FieldError::new("metadata.name", names::remedy(MAX_PROCESS_NAME)));
    }
    check_config("spec.config", &process.spec.config, &mut errors);
    let labels = process.labels().iter().filter(|(key, _)| !labels::is_reserved(key));
    let validated = ValidatedProcess {
        name,
        config: process.spec.config.clone(),
        labels: labels.map(|(key, value)| (key.clone(), value.clone())).collect(),
        node_name: process.spec.node_name.clone(),
    };
    ok_or_invalid(validated, errors)
}

fn check_redundancy(spec: &ProcessHubSpec, errors: &mut Vec<FieldError>) {
    match (spec.redundancy.strategy, spec.migration.handover) {
        (RedundancyStrategy::Singularity, _) => {}
        (RedundancyStrategy::Replication, Some(true)) => errors.push(
            FieldError::new(
                "spec.migration.handover",
                "copies have no single state to hand over; use Singularity or remove handover",
            )
            .because(HubReason::HandoverWithReplicationNotSupported),
        ),
        (RedundancyStrategy::Replication, _) => errors.push(FieldError::new(
            "spec.redundancy.strategy",
            "Replication is not available in this version; use Singularity",
        )),
    }
}

fn check_worker(spec: &ProcessHubSpec, errors: &mut Vec<FieldError>) {
    let Worker { port, service, .. } = &spec.worker;
    if *port == 0 || RESERVED_PORTS.contains(port) {
        errors.push(FieldError::new(
            "spec.worker.port",
            format!("{port} is not free in the pod (0 and {RESERVED_PORTS:?} are taken); use another port"),
        ));
    }
    if *service == ServiceKind::Headless && spec.migration.retention_milliseconds < 30_000 {
        errors.push(FieldError::new(
            "spec.migration.retentionMilliseconds",
            "a Headless service needs at least 30000, because clients keep DNS answers that long; raise it or use \
             ClusterIP",
        ));
    }
}

fn check_upgrade(spec: &ProcessHubSpec, errors: &mut Vec<FieldError>) {
    let Upgrade { strategy, extra, .. } = &spec.upgrade;
    if spec.migration.strategy == MigrationStrategy::ColdSwap && *strategy == Some(UpgradeStrategy::HotSwap) {
        errors.push(FieldError::new(
            "spec.upgrade.strategy",
            "would run the new worker beside the old one, which migration.strategy ColdSwap rules out; remove it or \
             use ColdSwap",
        ));
    }
    if matches!(strategy, Some(UpgradeStrategy::InPlace | UpgradeStrategy::Live)) {
        errors.push(FieldError::new(
            "spec.upgrade.strategy",
            "InPlace and Live are not available in this version; use HotSwap or ColdSwap",
        ));
    }
    let cold = spec.migration.strategy == MigrationStrategy::ColdSwap
        || *strategy == Some(UpgradeStrategy::ColdSwap);
    if cold && spec.failover == Failover::OnLease {
        errors.push(FieldError::new(
            "spec.failover",
            "OnLease starts a worker beside one that may run on and only acknowledges nothing, which ColdSwap rules out; \
             use OnProof or HotSwap",
        ));
    }
    check_config("spec.upgrade.extra", extra, errors);
}

fn check_partition(partition: &PartitionTolerance, errors: &mut Vec<FieldError>) {
    let size = partition.quorum_size;
    let fits = match partition.strategy {
        PartitionStrategy::MajorityQuorum | PartitionStrategy::Divergence => true,
        PartitionStrategy::StaticQuorum => size.is_some_and(|size| size >= 1),
        PartitionStrategy::DynamicQuorum => size.is_some_and(|size| (1..=100).contains(&size)),
    };
    if !fits {
        errors.push(FieldError::new(
            "spec.partitionTolerance.quorumSize",
            "StaticQuorum needs a number of nodes, DynamicQuorum a percentage of at most 100; set it",
        ));
    }
    if partition.strategy == PartitionStrategy::Divergence {
        errors.push(FieldError::new(
            "spec.partitionTolerance.strategy",
            "Divergence is not available in this version; use MajorityQuorum, StaticQuorum or DynamicQuorum",
        ));
    }
}

fn check_processes(
    hub: &str,
    listed: &[StaticProcess],
    errors: &mut Vec<FieldError>,
) -> Vec<ValidatedProcess> {
    let mut seen = BTreeSet::new();
    for (index, process) in listed.iter().enumerate() {
        let field = |name: &str| format!("spec.processes[{index}].{name}");
        if !names::is_name(&process.name, MAX_PROCESS_NAME) {
            errors.push(FieldError::new(field("name"), names::remedy(MAX_PROCESS_NAME)));
        }
        if names::is_replica(hub, &process.name) {
            errors.push(FieldError::new(
                field("name"),
                format!(
                    "{} is the name of a replica; choose a name that is not {hub}-<number>",
                    process.name
                ),
            ));
        }
        if !seen.insert(process.name.as_str()) {
            errors.push(FieldError::new(
                field("name"),
                format!("{} is listed twice; every process has a name of its own", process.name),
            ));
        }
        check_config(&field("config"), &process.config, errors);
        labels::check_unreserved(&field("labels"), &process.labels, errors);
    }
    let validated = |process: &StaticProcess| ValidatedProcess {
        name: process.name.clone(),
        config: process.config.clone(),
        labels: process.labels.clone(),
        node_name: process.node_name.clone(),
    };
    listed.iter().map(validated).collect()
}

fn check_config(field: &str, config: &BTreeMap<String, Value>, errors: &mut Vec<FieldError>) {
    let bytes = serde_json::to_vec(config).map_or(usize::MAX, |json| json.len());
    if bytes > MAX_CONFIG_BYTES {
        errors.push(FieldError::new(
            field,
            format!("{bytes} bytes as JSON, at most {MAX_CONFIG_BYTES}; mount a ConfigMap for more"),
        ));
    }
}

fn worker_config(worker: &Worker) -> WorkerConfig {
    // How often it is restarted is bounded by the schema and has no other form.
    let Worker { port, protocol, service, hold, drain_timeout_milliseconds, restarts: _ } = worker;
    WorkerConfig {
        port: *port,
        protocol: *protocol,
        service: *service,
        hold_requests: hold.requests,
        hold_bytes: hold.bytes,
        hold_time: Duration::from_millis(hold.milliseconds),
        drain_timeout: Duration::from_millis(*drain_timeout_milliseconds),
    }
}

fn migration_config(migration: &Migration) -> MigrationConfig {
    let Migration {
        strategy,
        handover,
        state_ttl_milliseconds,
        state_query_timeout_milliseconds,
        retention_milliseconds,
        max_concurrent,
        max_concurrent_per_node,
        deadline_seconds,
    } = migration;
    MigrationConfig {
        strategy: *strategy,
        handover: match handover {
            None => Handover::IfCapable,
            Some(true) => Handover::Required,
            Some(false) => Handover::Never,
        },
        state_ttl: Duration::from_millis(*state_ttl_milliseconds),
        state_query_timeout: Duration::from_millis(*state_query_timeout_milliseconds),
        retention: Duration::from_millis(*retention_milliseconds),
        max_concurrent: *max_concurrent,
        max_concurrent_per_node: *max_concurrent_per_node,
        deadline: Duration::from_secs(*deadline_seconds),
    }
}

#[cfg(test)]
mod tests;

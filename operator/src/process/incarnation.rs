//! A pod of a process, cut down to what decisions rest on. Pure.

use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod, PodSpec, PodStatus};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use processhub_crds::vocabulary::{finalizer, label};
use processhub_protocol::id::{Epoch, PodUid, ProcessUid};

use super::pod::{LEASED, SIDECAR, WORKER};

/// A container that has crashed so often does not come up by being started again.
const CRASHES: i32 = 3;
/// A kubelet forgets earlier crashes of a container that has run for so long, in seconds.
const AT_ONCE_AFTER: u64 = 600;

/// One pod that carries our labels, as last seen. About half a kilobyte, where the pod itself has ten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFacts {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: PodUid,
    /// UID of the process that it was created for.
    pub process: ProcessUid,
    /// Name of that process.
    pub process_name: String,
    /// Name of its hub.
    pub hub: String,
    /// The epoch that it was created with.
    pub epoch: Epoch,
    /// Node that it is bound to.
    pub node: Option<String>,
    /// Its address.
    pub ip: Option<String>,
    /// When it was asked to go, the end of its grace period.
    pub going_until: Option<Timestamp>,
    /// Its grace period in seconds.
    pub grace_seconds: i64,
    /// Its `Ready` condition.
    pub ready: bool,
    /// Whether the kubelet reported that every container has ended and will not be started again.
    pub ended: bool,
    /// Whether it carries the finalizer of cold swap.
    pub guarded: bool,
    /// Whether it serves by lease.
    pub leased: bool,
    /// Whether the worker has crashed again, so that the kubelet waits before it starts it.
    pub backing_off: Option<BackingOff>,
    /// What keeps it from starting, in the words of scheduler or kubelet.
    pub trouble: Option<Trouble>,
}

/// A worker that has ended and that its kubelet does not start at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackingOff {
    /// How long it had run.
    pub ran_seconds: u64,
}

/// Whether its sidecar was told that it serves by lease.
fn leased(spec: &PodSpec) -> bool {
    let sidecars = spec.init_containers.iter().flatten().filter(|container| container.name == SIDECAR);
    let mut environment = sidecars.flat_map(|sidecar| sidecar.env.iter().flatten());
    environment.any(|variable| variable.name == LEASED && variable.value.as_deref() == Some("true"))
}

/// What keeps a pod from starting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// How grave it is.
    pub gravity: Gravity,
    /// Reason and message.
    pub words: String,
}

/// How grave a pod's trouble is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gravity {
    /// It has no node because none has room or fits.
    Unschedulable,
    /// It may end by itself: an image that cannot be pulled just now, a first crash.
    Passing,
    /// Waiting changes nothing: it was not admitted, its image can never be had, it has crashed again and again.
    Lasting,
}

impl PodFacts {
    /// From a pod; `None` if it does not carry our labels.
    #[must_use]
    pub fn of(pod: &Pod) -> Option<Self> {
        let labels = pod.labels();
        let status = pod.status.as_ref();
        let spec = pod.spec.as_ref();
        let going_until = pod.metadata.deletion_timestamp.as_ref().map(|time| time.0);
        Some(Self {
            namespace: pod.namespace()?,
            name: pod.name_any(),
            uid: PodUid(pod.uid()?),
            process: ProcessUid(labels.get(label::PROCESS_UID)?.clone()),
            process_name: labels.get(label::PROCESS)?.clone(),
            hub: labels.get(label::HUB)?.clone(),
            epoch: Epoch(labels.get(label::EPOCH)?.parse().ok()?),
            node: spec.and_then(|spec| spec.node_name.clone()),
            ip: status.and_then(|status| status.pod_ip.clone()).filter(|ip| !ip.is_empty()),
            going_until,
            grace_seconds: pod
                .metadata
                .deletion_grace_period_seconds
                .or_else(|| spec.and_then(|spec| spec.termination_grace_period_seconds))
                .unwrap_or(30),
            ready: status.is_some_and(|status| condition(status, "Ready").is_some_and(|(holds, _)| holds)),
            ended: status.is_some_and(|status| ended(status, going_until.is_some())),
            guarded: pod.finalizers().iter().any(|name| name == finalizer::COLD_SWAP),
            leased: spec.is_some_and(leased),
            backing_off: status.and_then(backing_off),
            trouble: status.and_then(trouble),
        })
    }

    /// A pod that carries none of our labels but has a name that we wanted.
    #[must_use]
    pub fn stranger(pod: &Pod) -> Self {
        Self {
            namespace: pod.namespace().unwrap_or_default(),
            name: pod.name_any(),
            uid: PodUid(pod.uid().unwrap_or_default()),
            process: ProcessUid(String::new()),
            process_name: String::new(),
            hub: String::new(),
            epoch: Epoch(0),
            node: None,
            ip: None,
            going_until: pod.metadata.deletion_timestamp.as_ref().map(|time| time.0),
            grace_seconds: 0,
            ready: false,
            ended: false,
            guarded: false,
            leased: false,
            backing_off: None,
            trouble: None,
        }
    }

    /// Whether it has a deletion timestamp.
    #[must_use]
    pub fn going(&self) -> bool {
        self.going_until.is_some()
    }
}

fn condition<'a>(status: &'a PodStatus, type_: &str) -> Option<(bool, &'a str)> {
    let condition = status.conditions.as_ref()?.iter().find(|condition| condition.type_ == type_)?;
    Some((condition.status == "True", condition.message.as_deref().unwrap_or("")))
}

fn containers(status: &PodStatus) -> impl Iterator<Item = &ContainerStatus> {
    status.init_container_statuses.iter().chain(&status.container_statuses).flatten()
}

/// Only what the kubelet wrote counts: others (pod garbage collection, taint manager) may set the phase of a pod whose
/// containers run on, but never a container's state. A pod that stays may start an ended container again.
fn ended(status: &PodStatus, going: bool) -> bool {
    let phase = status.phase.as_deref();
    let over = going || matches!(phase, Some("Failed" | "Succeeded"));
    let reported = status.container_statuses.as_ref().is_some_and(|list| !list.is_empty());
    let all_terminated =
        containers(status).all(|one| one.state.as_ref().is_some_and(|state| state.terminated.is_some()));
    // A pod that its kubelet did not admit has no containers; the kubelet gives the reason.
    let not_admitted = phase == Some("Failed")
        && !reported
        && status.reason.as_ref().is_some_and(|reason| !reason.is_empty());
    over && ((reported && all_terminated) || not_admitted)
}

/// A kubelet starts a container that has ended at once only the first time, and when it had run for long.
fn backing_off(status: &PodStatus) -> Option<BackingOff> {
    let worker = status.container_statuses.iter().flatten().find(|one| one.name == WORKER)?;
    let state = worker.state.as_ref()?;
    let waiting = state.waiting.as_ref().and_then(|waiting| waiting.reason.as_deref());
    if waiting == Some("CrashLoopBackOff") {
        let last = worker.last_state.as_ref().and_then(|last| last.terminated.as_ref());
        return Some(BackingOff { ran_seconds: last.map_or(0, ran) });
    }
    let ran_seconds = ran(state.terminated.as_ref()?);
    (worker.restart_count > 0 && ran_seconds < AT_ONCE_AFTER).then_some(BackingOff { ran_seconds })
}

fn ran(ended: &ContainerStateTerminated) -> u64 {
    let (Some(started), Some(finished)) = (&ended.started_at, &ended.finished_at) else { return 0 };
    u64::try_from(finished.0.duration_since(started.0).as_secs()).unwrap_or(0)
}

fn trouble(status: &PodStatus) -> Option<Trouble> {
    if let Some((false, message)) = condition(status, "PodScheduled")
        && !message.is_empty()
    {
        return Some(Trouble { gravity: Gravity::Unschedulable, words: message.to_owned() });
    }
    let waiting = containers(status).find_map(|one| {
        let waiting = one.state.as_ref()?.waiting.as_ref()?;
        let reason = waiting.reason.as_deref()?;
        // The way that every container goes.
        let usual = matches!(reason, "PodInitializing" | "ContainerCreating");
        let lasting = match reason {
            "InvalidImageName" | "ErrImageNeverPull" => true,
            "CrashLoopBackOff" => one.restart_count >= CRASHES,
            _ => false,
        };
        let words = match waiting.message.as_deref() {
            Some(message) => format!("container {}: {reason}: {message}", one.name),
            None => format!("container {}: {reason}", one.name),
        };
        let gravity = if lasting { Gravity::Lasting } else { Gravity::Passing };
        (!usual).then_some(Trouble { gravity, words })
    });
    let failed = || {
        (status.phase.as_deref() == Some("Failed")).then(|| {
            let reason = status.reason.as_deref().unwrap_or("Failed");
            let words = format!("{reason}: {}", status.message.as_deref().unwrap_or("no message"));
            Trouble { gravity: Gravity::Lasting, words }
        })
    };
    waiting.or_else(failed)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::{Value, json};

    pub(crate) fn pod(status: Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {
                "name": "cart-3-18", "namespace": "shop", "uid": "pod-18",
                "labels": {
                    "processhub.io/process": "cart-3", "processhub.io/process-uid": "process",
                    "processhub.io/hub": "cart", "processhub.io/epoch": "18",
                },
            },
            "spec": { "nodeName": "n4", "terminationGracePeriodSeconds": 80, "containers": [] },
            "status": status,
        }))
        .unwrap()
    }

    fn facts(status: Value) -> PodFacts {
        PodFacts::of(&pod(status)).unwrap()
    }

    fn terminated(name: &str) -> Value {
        json!({ "name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": { "terminated": { "exitCode": 0 } } })
    }

    #[test]
    fn a_worker_whose_kubelet_waits_is_told_from_one_that_it_starts_at_once() {
        let worker = |name: &str, restarts: u32, state: Value| {
            facts(json!({ "containerStatuses": [
                { "name": name, "image": "", "imageID": "", "ready": false, "restartCount": restarts, "state": state },
            ] }))
            .backing_off
        };
        let ran = |until: &str| json!({ "terminated": { "exitCode": 137, "startedAt": "2026-01-01T00:00:00Z", "finishedAt": until } });
        let briefly = ran("2026-01-01T00:00:07Z");
        assert_eq!(worker("worker", 0, briefly.clone()), None, "the first time it is started at once");
        assert_eq!(worker("worker", 1, briefly.clone()), Some(BackingOff { ran_seconds: 7 }));
        assert_eq!(worker("worker", 5, ran("2026-01-01T00:10:00Z")), None, "its crashes are forgotten");
        let waiting = json!({ "waiting": { "reason": "CrashLoopBackOff" } });
        assert_eq!(worker("worker", 1, waiting), Some(BackingOff { ran_seconds: 0 }));
        assert_eq!(worker("worker", 1, json!({ "running": {} })), None);
        assert_eq!(worker("other", 4, briefly), None, "another container is none of ours");
    }

    fn running(name: &str) -> Value {
        json!({ "name": name, "image": "", "imageID": "", "ready": true, "restartCount": 0,
                "state": { "running": {} } })
    }

    #[test]
    fn a_pod_without_our_labels_is_none_of_ours() {
        let mut pod = pod(json!({}));
        pod.metadata.labels = None;
        assert_eq!(PodFacts::of(&pod), None);
    }

    #[test]
    fn a_running_pod_is_known_by_node_address_and_readiness() {
        let facts = facts(json!({ "phase": "Running", "podIP": "10.0.0.7",
            "conditions": [{ "type": "Ready", "status": "True" }],
            "containerStatuses": [running("worker")] }));
        assert_eq!(facts.ip.as_deref(), Some("10.0.0.7"));
        assert_eq!(facts.node.as_deref(), Some("n4"));
        assert_eq!(facts.epoch, Epoch(18));
        assert!(facts.ready && !facts.ended && !facts.going());
    }

    #[test]
    fn ended_means_that_the_kubelet_reported_every_container_terminated() {
        let both = json!({ "phase": "Failed", "initContainerStatuses": [terminated("processhub-sidecar")],
            "containerStatuses": [terminated("worker")] });
        assert!(facts(both).ended);
        let sidecar_runs = json!({ "phase": "Failed", "initContainerStatuses": [running("processhub-sidecar")],
            "containerStatuses": [terminated("worker")] });
        assert!(!facts(sidecar_runs).ended);
        // Both crashed at once, and will be started again.
        let crashed = json!({ "phase": "Running", "initContainerStatuses": [terminated("processhub-sidecar")],
            "containerStatuses": [terminated("worker")] });
        assert!(!facts(crashed).ended);
        // The pod garbage collector sets the phase and nothing else.
        assert!(!facts(json!({ "phase": "Failed" })).ended);
        assert!(facts(json!({ "phase": "Failed", "reason": "OutOfcpu" })).ended);
    }

    #[test]
    fn trouble_is_told_in_the_words_of_kubelet_and_scheduler() {
        let image = facts(json!({ "phase": "Pending", "containerStatuses": [{
            "name": "worker", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": { "waiting": { "reason": "ErrImagePull", "message": "no such tag" } } }] }));
        assert_eq!(image.trouble.unwrap().words, "container worker: ErrImagePull: no such tag");
        let full = facts(json!({ "phase": "Pending", "conditions": [
            { "type": "PodScheduled", "status": "False", "message": "0/3 nodes are available" }] }));
        assert_eq!(full.trouble.unwrap().gravity, Gravity::Unschedulable);
        let starting = facts(json!({ "phase": "Pending", "containerStatuses": [{
            "name": "worker", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": { "waiting": { "reason": "PodInitializing" } } }] }));
        assert_eq!(starting.trouble, None);
    }

    #[test]
    fn trouble_that_passes_is_told_from_trouble_that_lasts() {
        let waits = |reason: &str, restarts: i32| {
            let pod = facts(json!({ "phase": "Running", "containerStatuses": [{
                "name": "worker", "image": "", "imageID": "", "ready": false, "restartCount": restarts,
                "state": { "waiting": { "reason": reason } } }] }));
            pod.trouble.unwrap().gravity
        };
        assert_eq!(waits("ImagePullBackOff", 0), Gravity::Passing);
        assert_eq!(waits("ErrImageNeverPull", 0), Gravity::Lasting);
        assert_eq!(waits("CrashLoopBackOff", 1), Gravity::Passing);
        assert_eq!(waits("CrashLoopBackOff", 3), Gravity::Lasting);
        let refused = facts(json!({ "phase": "Failed", "reason": "OutOfcpu" }));
        assert_eq!(refused.trouble.unwrap().gravity, Gravity::Lasting);
    }
}

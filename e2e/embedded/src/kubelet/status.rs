//! A pod's status as the kubelet reports it.

use super::machine::Machine;
use super::model::{Container, Exit, State};
use super::spec::Role;
use crate::api::object::{list, text};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::net::Ipv4Addr;

/// What of a pod's status the machine does not know.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The pod's address.
    pub address: Ipv4Addr,
    /// The node's address.
    pub host: Ipv4Addr,
    /// When the kubelet took the pod.
    pub start: Timestamp,
    /// The UID, for the containers' ids.
    pub uid: String,
}

const OURS: [&str; 4] = ["PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"];

/// The pod's status; `current` is the one that the API server has, whose other conditions are kept.
pub fn status(machine: &Machine, facts: &Facts, pod: &Value, now: Timestamp) -> Value {
    let phase = phase(machine);
    let mut conditions: Vec<Value> = list(pod, "/status/conditions")
        .iter()
        .filter(|c| !OURS.contains(&text(c, "/type")))
        .cloned()
        .collect();
    for (kind, holds, reason, message) in wanted(machine, pod, phase) {
        conditions.push(condition(pod, kind, holds, reason, &message, now));
    }
    let statuses = |main: bool| -> Vec<Value> {
        machine
            .containers
            .iter()
            .filter(|c| (c.spec.role == Role::Main) == main)
            .map(|c| container_status(machine, c, &facts.uid, now))
            .collect()
    };
    let mut status = json!({
        "phase": phase, "conditions": conditions, "hostIP": facts.host, "hostIPs": [{"ip": facts.host}],
        "podIP": facts.address, "podIPs": [{"ip": facts.address}], "startTime": stamp(facts.start),
        "qosClass": "BestEffort", "containerStatuses": statuses(true),
    });
    if let Some(generation) = pod.pointer("/metadata/generation") {
        status["observedGeneration"] = generation.clone();
    }
    let init = statuses(false);
    if !init.is_empty() {
        status["initContainerStatuses"] = init.into();
    }
    status
}

fn phase(machine: &Machine) -> &'static str {
    let mut mains = machine.containers.iter().filter(|c| c.spec.role == Role::Main);
    let ended = |c: &Container| matches!(c.state, State::Ended(_));
    let final_end = |c: &Container| machine.over(c) || (machine.terminating() && ended(c));
    if machine.initialized && mains.clone().all(final_end) {
        let failed = mains.any(|c| matches!(&c.state, State::Ended(exit) if exit.code != 0));
        return if failed { "Failed" } else { "Succeeded" };
    }
    let ever_ran = |c: &Container| ended(c) || matches!(c.state, State::Running { .. }) || c.last.is_some();
    if machine.initialized && mains.all(ever_ran) { "Running" } else { "Pending" }
}

type Wanted = (&'static str, bool, &'static str, String);

fn wanted(machine: &Machine, pod: &Value, phase: &str) -> Vec<Wanted> {
    let over = phase == "Succeeded";
    let not_ready: Vec<&str> = machine
        .containers
        .iter()
        .filter(|c| c.spec.role != Role::Init && !c.ready)
        .map(|c| c.spec.name.as_str())
        .collect();
    let unready = format!("containers with unready status: [{}]", not_ready.join(" "));
    let containers = not_ready.is_empty();
    let gates: Vec<&str> =
        list(pod, "/spec/readinessGates").iter().map(|g| text(g, "/conditionType")).collect();
    let closed = gates.iter().find(|g| !crate::api::object::is_true(pod, g));
    let reason = if over { "PodCompleted" } else { "ContainersNotReady" };
    let unready = if over { String::new() } else { unready };
    let ready: Wanted = match (containers, closed) {
        (true, None) => ("Ready", true, "", String::new()),
        (true, Some(gate)) => (
            "Ready",
            false,
            "ReadinessGatesNotReady",
            format!("corresponding condition of pod readiness gate {gate:?} does not exist."),
        ),
        (false, _) => ("Ready", false, reason, unready.clone()),
    };
    let waiting: Vec<&str> = machine
        .containers
        .iter()
        .filter(|c| c.spec.role != Role::Main && !matches!(&c.state, State::Ended(e) if e.code == 0))
        .map(|c| c.spec.name.as_str())
        .collect();
    let initialized: Wanted = match machine.initialized {
        true => ("Initialized", true, "", String::new()),
        false => {
            let message = format!("containers with incomplete status: [{}]", waiting.join(" "));
            ("Initialized", false, "ContainersNotInitialized", message)
        }
    };
    let containers_ready: Wanted = match containers {
        true => ("ContainersReady", true, "", String::new()),
        false => ("ContainersReady", false, reason, unready),
    };
    let sandbox = ("PodReadyToStartContainers", true, "", String::new());
    vec![sandbox, initialized, ready, containers_ready]
}

fn condition(pod: &Value, kind: &str, holds: bool, reason: &str, message: &str, now: Timestamp) -> Value {
    let status = if holds { "True" } else { "False" };
    let before = crate::api::object::condition(pod, kind);
    let since = match before.filter(|c| text(c, "/status") == status) {
        Some(same) => same["lastTransitionTime"].clone(),
        None => stamp(now).into(),
    };
    let mut condition =
        json!({"type": kind, "status": status, "lastProbeTime": null, "lastTransitionTime": since});
    if !reason.is_empty() {
        condition["reason"] = reason.into();
        condition["message"] = message.into();
    }
    condition
}

fn container_status(machine: &Machine, c: &Container, uid: &str, now: Timestamp) -> Value {
    let id = format!("process://{uid}/{}/{}", c.spec.name, c.run);
    let terminated = |exit: &Exit| {
        let reason = if exit.code == 0 { "Completed" } else { "Error" };
        json!({"terminated": {"exitCode": exit.code, "reason": reason, "startedAt": stamp(exit.started),
            "finishedAt": stamp(exit.finished), "containerID": id}})
    };
    let mut last = c.last.as_ref().map(terminated).unwrap_or_else(|| json!({}));
    let state = match &c.state {
        State::Waiting(waiting) => {
            let reason = match waiting.reason {
                "PodInitializing" if machine.initialized => "ContainerCreating",
                "ErrImagePull" if c.run > 1 => "ImagePullBackOff",
                reason => reason,
            };
            let mut state = json!({"reason": reason});
            if !waiting.message.is_empty() {
                state["message"] = waiting.message.clone().into();
            }
            json!({"waiting": state})
        }
        State::Starting => json!({"waiting": {"reason": "ContainerCreating"}}),
        State::Running { since } => json!({"running": {"startedAt": stamp(*since)}}),
        State::Ended(exit) if c.backing_off(now) && !machine.over(c) && !machine.terminating() => {
            last = terminated(exit);
            let message = format!("back-off restarting failed container={} pod={uid}", c.spec.name);
            json!({"waiting": {"reason": "CrashLoopBackOff", "message": message}})
        }
        State::Ended(exit) => terminated(exit),
    };
    let init_done = c.spec.role == Role::Init && matches!(&c.state, State::Ended(e) if e.code == 0);
    json!({
        "name": c.spec.name, "image": c.spec.image, "imageID": c.spec.image,
        "containerID": if c.run > 0 { id.as_str() } else { "" },
        "state": state, "lastState": last, "ready": c.ready || init_done, "started": c.started,
        "restartCount": c.restarts,
    })
}

fn stamp(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::super::model::{BackOff, Input, Waiting};
    use super::super::spec::Pod;
    use super::*;
    use std::time::Duration;

    fn pod() -> Value {
        json!({"metadata": {"generation": 2}, "spec": {"containers": [{"name": "worker", "image": "w"}],
            "readinessGates": [{"conditionType": "gate"}]},
            "status": {"conditions": [{"type": "PodScheduled", "status": "True"}]}})
    }

    fn machine() -> (Machine, Timestamp) {
        let back_off = BackOff {
            first: Duration::from_secs(10),
            limit: Duration::from_secs(60),
            reset: Duration::from_secs(600),
        };
        let mut machine = Machine::new(Pod::of(&pod()), &|_| 0, back_off);
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        machine.tick(now);
        (machine, now)
    }

    fn render(machine: &Machine, pod: &Value, now: Timestamp) -> Value {
        let facts = Facts {
            address: Ipv4Addr::new(127, 0, 1, 1),
            host: Ipv4Addr::new(127, 3, 0, 1),
            start: now,
            uid: "u".into(),
        };
        json!({"status": status(machine, &facts, pod, now)})
    }

    #[test]
    fn a_running_pod_is_ready_when_its_gate_opens() {
        let (mut machine, now) = machine();
        assert_eq!(text(&render(&machine, &pod(), now), "/status/phase"), "Pending");
        machine.handle(0, 1, Input::Started, now);
        let shown = render(&machine, &pod(), now);
        assert_eq!(text(&shown, "/status/phase"), "Running");
        assert_eq!(shown["status"]["observedGeneration"], 2);
        assert!(crate::api::object::is_true(&shown, "ContainersReady"));
        assert!(crate::api::object::is_true(&shown, "PodScheduled"), "others' conditions are kept");
        assert_eq!(
            text(crate::api::object::condition(&shown, "Ready").unwrap(), "/reason"),
            "ReadinessGatesNotReady"
        );
        let mut open = pod();
        open["status"]["conditions"] = json!([{"type": "gate", "status": "True"}]);
        assert!(crate::api::object::is_true(&render(&machine, &open, now), "Ready"));
    }

    #[test]
    fn a_crash_loop_shows_the_last_end() {
        let (mut machine, now) = machine();
        for run in 1..=2 {
            machine.handle(0, run, Input::Started, now);
            machine.handle(0, run, Input::Exited(3), now);
        }
        let shown = render(&machine, &pod(), now);
        let container = &shown["status"]["containerStatuses"][0];
        assert_eq!(text(container, "/state/waiting/reason"), "CrashLoopBackOff");
        assert_eq!(container["lastState"]["terminated"]["exitCode"], 3);
        assert_eq!(container["restartCount"], 1);
        assert_eq!(text(&shown, "/status/phase"), "Running");
    }

    #[test]
    fn an_image_that_cannot_be_had_is_named() {
        let (mut machine, now) = machine();
        let waiting = Waiting { reason: "ErrImagePull", message: "no image w".into() };
        machine.handle(0, 1, Input::Refused(waiting), now);
        let shown = render(&machine, &pod(), now);
        assert_eq!(text(&shown, "/status/containerStatuses/0/state/waiting/reason"), "ErrImagePull");
        assert_eq!(text(&shown, "/status/phase"), "Pending");
    }
}

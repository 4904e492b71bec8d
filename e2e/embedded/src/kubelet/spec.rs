//! A pod's containers as the kubelet sees them.

use crate::api::object::{list, text};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// What part a container plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Runs to its end before the next one starts.
    Init,
    /// Starts before the containers after it and ends after all main ones (a native sidecar).
    Sidecar,
    /// Runs when every one before has started or ended.
    Main,
}

/// Whether an ended container starts again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Always.
    Always,
    /// Unless it ended with 0.
    OnFailure,
    /// Never.
    Never,
}

/// What a probe or a hook does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// An HTTP GET; 200 to 399 is success.
    Http {
        /// Host, or the pod's address.
        host: Option<String>,
        /// Port number.
        port: u16,
        /// Path with query.
        path: String,
        /// Further headers.
        headers: Vec<(String, String)>,
    },
    /// A TCP connection.
    Tcp {
        /// Host, or the pod's address.
        host: Option<String>,
        /// Port number.
        port: u16,
    },
    /// A command that ends with 0.
    Exec(Vec<String>),
    /// Waiting.
    Sleep(Duration),
}

/// One probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What is tried.
    pub action: Action,
    /// Before the first try.
    pub delay: Duration,
    /// Between tries.
    pub period: Duration,
    /// For one try.
    pub timeout: Duration,
    /// Successes in a row to count as such.
    pub success: u32,
    /// Failures in a row to count as such.
    pub failure: u32,
}

/// One container.
#[derive(Clone, Debug, PartialEq)]
pub struct Container {
    /// Name.
    pub name: String,
    /// Its part.
    pub role: Role,
    /// Image name.
    pub image: String,
    /// Gates the containers after it, and its other probes.
    pub startup: Option<Probe>,
    /// Decides whether it is ready.
    pub readiness: Option<Probe>,
    /// Decides whether it is restarted.
    pub liveness: Option<Probe>,
    /// Called before it is told to stop.
    pub pre_stop: Option<Action>,
    /// Everything else, as in the pod.
    pub raw: Value,
}

/// What the kubelet needs to know of a pod beside its containers.
#[derive(Clone, Debug, PartialEq)]
pub struct Pod {
    /// In the order in which they start: initialisation in its order, then main.
    pub containers: Vec<Container>,
    /// Of the main containers.
    pub restart: Restart,
    /// Between the wish to stop and SIGKILL.
    pub grace: Duration,
}

impl Pod {
    /// Reads a pod that the API server has accepted.
    pub fn of(pod: &Value) -> Self {
        let restart = match text(pod, "/spec/restartPolicy") {
            "Never" => Restart::Never,
            "OnFailure" => Restart::OnFailure,
            _ => Restart::Always,
        };
        let init = list(pod, "/spec/initContainers").iter().map(|c| {
            let role = if text(c, "/restartPolicy") == "Always" { Role::Sidecar } else { Role::Init };
            container(c, role)
        });
        let main = list(pod, "/spec/containers").iter().map(|c| container(c, Role::Main));
        let grace = pod.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_u64).unwrap_or(30);
        Self { containers: init.chain(main).collect(), restart, grace: Duration::from_secs(grace) }
    }
}

fn container(raw: &Value, role: Role) -> Container {
    let ports = ports(raw);
    let probe = |name: &str| raw.get(name).and_then(|p| probe(p, &ports));
    Container {
        name: text(raw, "/name").to_owned(),
        role,
        image: text(raw, "/image").to_owned(),
        startup: probe("startupProbe"),
        readiness: probe("readinessProbe"),
        liveness: probe("livenessProbe"),
        pre_stop: raw.pointer("/lifecycle/preStop").and_then(|h| action(h, &ports)),
        raw: raw.clone(),
    }
}

fn ports(container: &Value) -> BTreeMap<String, u16> {
    list(container, "/ports")
        .iter()
        .filter_map(|p| {
            Some((text(p, "/name").to_owned(), u16::try_from(p["containerPort"].as_u64()?).ok()?))
        })
        .collect()
}

fn probe(raw: &Value, ports: &BTreeMap<String, u16>) -> Option<Probe> {
    let seconds = |field: &str, otherwise: u64| {
        Duration::from_secs(raw.get(field).and_then(Value::as_u64).unwrap_or(otherwise))
    };
    let count = |field: &str, otherwise: u32| {
        raw.get(field).and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok()).unwrap_or(otherwise)
    };
    Some(Probe {
        action: action(raw, ports)?,
        delay: seconds("initialDelaySeconds", 0),
        period: seconds("periodSeconds", 10),
        timeout: seconds("timeoutSeconds", 1),
        success: count("successThreshold", 1),
        failure: count("failureThreshold", 3),
    })
}

fn action(raw: &Value, ports: &BTreeMap<String, u16>) -> Option<Action> {
    let port = |value: &Value| match value {
        Value::Number(n) => n.as_u64().and_then(|n| u16::try_from(n).ok()),
        Value::String(name) => ports.get(name).copied().or_else(|| name.parse().ok()),
        _ => None,
    };
    let host = |value: &Value| {
        value.get("host").and_then(Value::as_str).filter(|h| !h.is_empty()).map(str::to_owned)
    };
    if let Some(http) = raw.get("httpGet") {
        let headers = list(http, "/httpHeaders");
        return Some(Action::Http {
            host: host(http),
            port: port(&http["port"])?,
            path: http.get("path").and_then(Value::as_str).unwrap_or("/").to_owned(),
            headers: headers
                .iter()
                .map(|h| (text(h, "/name").to_owned(), text(h, "/value").to_owned()))
                .collect(),
        });
    }
    if let Some(tcp) = raw.get("tcpSocket") {
        return Some(Action::Tcp { host: host(tcp), port: port(&tcp["port"])? });
    }
    if let Some(exec) = raw.get("exec") {
        return Some(Action::Exec(
            list(exec, "/command").iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        ));
    }
    let seconds = raw.pointer("/sleep/seconds").and_then(Value::as_u64)?;
    Some(Action::Sleep(Duration::from_secs(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_with_a_native_sidecar() {
        let pod = Pod::of(&json!({"spec": {"terminationGracePeriodSeconds": 5, "restartPolicy": "Always",
            "initContainers": [{"name": "setup", "image": "i"},
                {"name": "sidecar", "image": "s", "restartPolicy": "Always",
                 "ports": [{"name": "control", "containerPort": 9000}],
                 "startupProbe": {"httpGet": {"port": "control", "path": "/started"}, "periodSeconds": 1}}],
            "containers": [{"name": "worker", "image": "w",
                "lifecycle": {"preStop": {"httpGet": {"port": 9000, "path": "/stop"}}}}]}}));
        let roles: Vec<Role> = pod.containers.iter().map(|c| c.role).collect();
        assert_eq!(roles, [Role::Init, Role::Sidecar, Role::Main]);
        let startup = pod.containers[1].startup.as_ref().unwrap();
        assert!(matches!(&startup.action, Action::Http { port: 9000, path, .. } if path == "/started"));
        assert_eq!((startup.period, startup.failure), (Duration::from_secs(1), 3));
        assert!(matches!(&pod.containers[2].pre_stop, Some(Action::Http { port: 9000, .. })));
        assert_eq!(pod.grace, Duration::from_secs(5));
    }
}

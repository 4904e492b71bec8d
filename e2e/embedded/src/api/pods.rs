//! Defaults and validation of pods.

use super::builtin::or;
use super::error::Cause;
use super::object::{self, list, text};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

const CONTAINER_LISTS: [&str; 2] = ["initContainers", "containers"];

/// Fills in what the API server fills in; on creation also what its admission adds.
pub fn default(pod: &mut Value, fresh: bool) {
    let spec = object::child(pod, "spec");
    for (field, value) in [
        ("restartPolicy", json!("Always")),
        ("terminationGracePeriodSeconds", json!(30)),
        ("dnsPolicy", json!("ClusterFirst")),
        ("schedulerName", json!("default-scheduler")),
        ("serviceAccountName", json!("default")),
        ("enableServiceLinks", json!(true)),
        ("securityContext", json!({})),
    ] {
        or(spec, field, value);
    }
    if fresh {
        tolerate_lost_nodes(spec);
    }
    for field in CONTAINER_LISTS {
        for container in spec.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Value::Object(container) = container {
                default_container(container);
            }
        }
    }
    for volume in spec.get_mut("volumes").and_then(Value::as_array_mut).into_iter().flatten() {
        for source in ["secret", "configMap", "downwardAPI", "projected"] {
            if let Some(Value::Object(source)) = volume.get_mut(source) {
                or(source, "defaultMode", json!(0o644));
            }
        }
    }
}

fn tolerate_lost_nodes(spec: &mut Map<String, Value>) {
    or(spec, "tolerations", json!([]));
    let Some(Value::Array(tolerations)) = spec.get_mut("tolerations") else { return };
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerated = tolerations.iter().any(|t| {
            (text(t, "/key") == key || text(t, "/key").is_empty())
                && ["", "NoExecute"].contains(&text(t, "/effect"))
        });
        if !tolerated {
            tolerations.push(
                json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}),
            );
        }
    }
}

fn default_container(container: &mut Map<String, Value>) {
    let tagged = container.get("image").and_then(Value::as_str).is_some_and(|i| {
        i.rsplit('/').next().is_some_and(|last| last.contains(':') && !last.ends_with(":latest"))
    });
    or(container, "imagePullPolicy", json!(if tagged { "IfNotPresent" } else { "Always" }));
    or(container, "terminationMessagePath", json!("/dev/termination-log"));
    or(container, "terminationMessagePolicy", json!("File"));
    or(container, "resources", json!({}));
    for port in container.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Value::Object(port) = port {
            or(port, "protocol", json!("TCP"));
        }
    }
    for variable in container.get_mut("env").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(Value::Object(field)) = variable.pointer_mut("/valueFrom/fieldRef") {
            or(field, "apiVersion", json!("v1"));
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(Value::Object(probe)) = container.get_mut(probe) {
            for (field, value) in [
                ("timeoutSeconds", 1),
                ("periodSeconds", 10),
                ("successThreshold", 1),
                ("failureThreshold", 3),
            ] {
                or(probe, field, json!(value));
            }
            default_http(probe);
        }
    }
    for hook in ["preStop", "postStart"] {
        if let Some(Value::Object(hook)) = container.get_mut("lifecycle").and_then(|l| l.get_mut(hook)) {
            default_http(hook);
        }
    }
}

fn default_http(handler: &mut Map<String, Value>) {
    if let Some(Value::Object(http)) = handler.get_mut("httpGet") {
        or(http, "path", json!("/"));
        or(http, "scheme", json!("HTTP"));
    }
}

/// Everything that is wrong with the pod; `old` is what it replaces.
pub fn check(pod: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    if let Some(old) = old {
        check_immutable(pod, old, &mut causes);
        return causes;
    }
    if list(pod, "/spec/containers").is_empty() {
        causes.push(Cause::required("spec.containers", ""));
    }
    let policy = &pod["spec"]["restartPolicy"];
    let policies = [json!("Always"), json!("OnFailure"), json!("Never")];
    if !policies.contains(policy) {
        causes.push(Cause::unsupported("spec.restartPolicy", policy, &policies));
    }
    let volumes: BTreeSet<&str> = list(pod, "/spec/volumes").iter().map(|v| text(v, "/name")).collect();
    let mut names = BTreeSet::new();
    for field in CONTAINER_LISTS {
        for (index, container) in list(pod, &format!("/spec/{field}")).iter().enumerate() {
            let path = format!("spec.{field}[{index}]");
            check_container(container, &path, &volumes, &mut causes);
            if !names.insert(text(container, "/name")) {
                causes.push(Cause::duplicate(format!("{path}.name"), &container["name"]));
            }
        }
    }
    causes
}

fn check_container(container: &Value, path: &str, volumes: &BTreeSet<&str>, causes: &mut Vec<Cause>) {
    for field in ["name", "image"] {
        if text(container, &format!("/{field}")).is_empty() {
            causes.push(Cause::required(format!("{path}.{field}"), ""));
        }
    }
    for (index, port) in list(container, "/ports").iter().enumerate() {
        if !(1..=65535).contains(&port["containerPort"].as_i64().unwrap_or_default()) {
            let field = format!("{path}.ports[{index}].containerPort");
            causes.push(Cause::invalid(
                field,
                &port["containerPort"],
                "must be between 1 and 65535, inclusive",
            ));
        }
    }
    for (index, mount) in list(container, "/volumeMounts").iter().enumerate() {
        if !volumes.contains(text(mount, "/name")) {
            causes.push(Cause {
                reason: "FieldValueNotFound",
                field: format!("{path}.volumeMounts[{index}].name"),
                message: format!("Not found: {}", mount["name"]),
            });
        }
    }
    for (index, variable) in list(container, "/env").iter().enumerate() {
        if text(variable, "/name").is_empty() {
            causes.push(Cause::required(format!("{path}.env[{index}].name"), ""));
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe_value) = container.get(probe) else { continue };
        if !["httpGet", "tcpSocket", "exec", "grpc"].iter().any(|h| probe_value.get(h).is_some()) {
            causes.push(Cause::required(format!("{path}.{probe}"), "must specify a handler type"));
        }
    }
}

fn check_immutable(pod: &Value, old: &Value, causes: &mut Vec<Cause>) {
    let frozen = |pod: &Value| {
        let mut spec = pod["spec"].clone();
        for field in CONTAINER_LISTS {
            for container in spec[field].as_array_mut().into_iter().flatten() {
                container["image"] = Value::Null;
                container["imagePullPolicy"] = Value::Null;
            }
        }
        if let Some(spec) = spec.as_object_mut() {
            for field in ["tolerations", "activeDeadlineSeconds", "terminationGracePeriodSeconds"] {
                spec.remove(field);
            }
            spec.retain(|_, value| !value.is_null());
        }
        spec
    };
    if frozen(pod) != frozen(old) {
        causes.push(Cause::forbidden(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`,\
             `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to \
             existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously \
             negative)",
        ));
    }
    let (before, after) = (list(old, "/spec/tolerations"), list(pod, "/spec/tolerations"));
    if !before.iter().all(|t| after.contains(t)) {
        causes.push(Cause::forbidden(
            "spec.tolerations",
            "existing toleration can not be modified except its tolerationSeconds",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Value {
        json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "worker", "image": "x:1",
            "readinessProbe": {"httpGet": {"port": 80}}}]}})
    }

    #[test]
    fn defaults_are_those_of_the_real_server() {
        let mut pod = pod();
        default(&mut pod, true);
        assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], 30);
        assert_eq!(pod["spec"]["tolerations"].as_array().map(Vec::len), Some(2));
        let container = &pod["spec"]["containers"][0];
        assert_eq!(container["imagePullPolicy"], "IfNotPresent");
        assert_eq!(container["readinessProbe"]["periodSeconds"], 10);
        assert_eq!(container["readinessProbe"]["httpGet"]["scheme"], "HTTP");
        assert!(check(&pod, None).is_empty());
    }

    #[test]
    fn a_wrong_template_is_refused_with_its_field() {
        let mut bad = json!({"spec": {"containers": [
            {"name": "a", "volumeMounts": [{"name": "v", "mountPath": "/v"}], "livenessProbe": {}}, {"name": "a", "image": "x"}]}});
        default(&mut bad, true);
        let fields: Vec<String> = check(&bad, None).into_iter().map(|c| c.field).collect();
        assert_eq!(
            fields,
            [
                "spec.containers[0].image",
                "spec.containers[0].volumeMounts[0].name",
                "spec.containers[0].livenessProbe",
                "spec.containers[1].name"
            ]
        );
    }

    #[test]
    fn only_images_and_more_tolerations_may_change() {
        let mut old = pod();
        default(&mut old, true);
        let mut new = old.clone();
        new["spec"]["containers"][0]["image"] = "x:2".into();
        assert!(check(&new, Some(&old)).is_empty());
        new["spec"]["containers"][0]["env"] = json!([{"name": "A"}]);
        assert_eq!(check(&new, Some(&old))[0].field, "spec");
    }
}

//! EndpointSlices of Services that have a selector, from the readiness of their pods.

use crate::api::error::{ApiError, Result};
use crate::api::handle::Link;
use crate::api::object::{self, Key, flag, list, text};
use crate::api::registry::{DeleteOptions, Part, Registry, WriteOptions};
use crate::api::selector::Labels;
use crate::api::store::ResourceId;
use serde_json::{Value, json};
use std::sync::Arc;

const MANAGER: &str = "endpointslice.kubernetes.io/managed-by";
const OURS: &str = "endpointslice-controller.k8s.io";
/// The label that says which Service a slice belongs to.
const SERVICE: &str = "kubernetes.io/service-name";

/// Runs until it is aborted.
pub async fn run(link: Link) {
    let mut pods = link.feed(ResourceId::new("", "pods"));
    let mut services = link.feed(ResourceId::new("", "services"));
    loop {
        tokio::select! {
            _ = pods.next() => {}
            _ = services.next() => {}
        }
        if let Err(error) = link.call(write_all) {
            tracing::debug!(%error, "endpoints were not written");
        }
    }
}

fn write_all(registry: &mut Registry) -> Result<()> {
    let kind = registry
        .catalog()
        .find("discovery.k8s.io", "v1", "endpointslices")
        .ok_or_else(ApiError::unavailable)?;
    let services = registry.store().list(&ResourceId::new("", "services"), None);
    for service in services.iter().filter(|s| !object::strings(s, "/spec/selector").is_empty()) {
        let pods = registry.store().list(&ResourceId::new("", "pods"), Some(object::namespace(service)));
        let wanted = slice(service, &pods);
        let key = Key::of(&wanted);
        match registry.get(&kind, &key) {
            Err(_) => {
                registry.create(&kind, &key.namespace, wanted, &WriteOptions::trusted())?;
            }
            Ok(present)
                if present["endpoints"] == wanted["endpoints"] && present["ports"] == wanted["ports"] => {}
            Ok(present) => {
                let mut new = (*present).clone();
                for field in ["endpoints", "ports"] {
                    new[field] = wanted[field].clone();
                }
                registry.replace(&kind, &key, Part::Main, new, &WriteOptions::trusted())?;
            }
        }
    }
    // A Service that lost its selector keeps no slice of ours; one that is gone takes it along as its owner.
    for slice in registry.store().list(&kind.storage, None) {
        if text(&slice, "/metadata/labels/endpointslice.kubernetes.io~1managed-by") != OURS {
            continue;
        }
        let of = service_of(&slice);
        let selects =
            services.iter().any(|s| Key::of(s) == of && !object::strings(s, "/spec/selector").is_empty());
        if !selects {
            registry.delete(&kind, &Key::of(&slice), &DeleteOptions::default())?;
        }
    }
    Ok(())
}

/// The Service that a slice belongs to.
pub fn service_of(slice: &Value) -> Key {
    Key::new(object::namespace(slice), text(slice, "/metadata/labels/kubernetes.io~1service-name"))
}

/// The slice of a Service with a selector.
pub fn slice(service: &Value, pods: &[Arc<Value>]) -> Value {
    let selector = Labels::equal_to(&service["spec"]["selector"]);
    let publish = flag(service, "/spec/publishNotReadyAddresses");
    let chosen: Vec<&Arc<Value>> = pods
        .iter()
        .filter(|p| selector.matches(p) && !text(p, "/status/podIP").is_empty())
        .filter(|p| !["Succeeded", "Failed"].contains(&text(p, "/status/phase")))
        .collect();
    let endpoints: Vec<Value> = chosen
        .iter()
        .map(|pod| {
            let (serving, terminating) = (object::is_true(pod, "Ready"), object::deleting(pod));
            json!({
                "addresses": [text(pod, "/status/podIP")],
                "conditions": {"ready": publish || (serving && !terminating), "serving": serving,
                    "terminating": terminating},
                "nodeName": text(pod, "/spec/nodeName"),
                "targetRef": {"kind": "Pod", "namespace": object::namespace(pod), "name": object::name(pod),
                    "uid": object::uid(pod)},
            })
        })
        .collect();
    let ports: Vec<Value> = list(service, "/spec/ports")
        .iter()
        .filter_map(|port| {
            let number = match &port["targetPort"] {
                Value::Number(n) => n.as_u64()?,
                Value::String(name) => chosen.iter().find_map(|p| named_port(p, name))?,
                _ => port["port"].as_u64()?,
            };
            Some(json!({"name": text(port, "/name"), "port": number, "protocol": text(port, "/protocol")}))
        })
        .collect();
    let name = object::name(service);
    let owner = json!({"apiVersion": "v1", "kind": "Service", "name": name, "uid": object::uid(service),
        "controller": true, "blockOwnerDeletion": true});
    json!({
        "metadata": {"name": format!("{name}-pods"), "namespace": object::namespace(service),
            "labels": {SERVICE: name, MANAGER: OURS}, "ownerReferences": [owner]},
        "addressType": "IPv4", "endpoints": endpoints, "ports": ports,
    })
}

fn named_port(pod: &Value, name: &str) -> Option<u64> {
    ["/spec/containers", "/spec/initContainers"]
        .into_iter()
        .flat_map(|p| list(pod, p))
        .flat_map(|c| list(c, "/ports"))
        .find(|p| text(p, "/name") == name)?["containerPort"]
        .as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, ready: &str) -> Arc<Value> {
        Arc::new(json!({"metadata": {"name": name, "namespace": "d", "labels": {"app": "x"}},
            "spec": {"containers": [{"ports": [{"name": "http", "containerPort": 8080}]}]},
            "status": {"podIP": "127.0.1.1", "conditions": [{"type": "Ready", "status": ready}]}}))
    }

    #[test]
    fn pods_are_ready_serving_and_terminating() {
        let service = json!({"metadata": {"name": "s", "namespace": "d"}, "spec": {"selector": {"app": "x"},
            "ports": [{"port": 80, "targetPort": "http", "protocol": "TCP"}]}});
        let mut going = (*pod("c", "True")).clone();
        going["metadata"]["deletionTimestamp"] = "2027-01-01T00:00:00Z".into();
        let other = Arc::new(json!({"metadata": {"labels": {"app": "y"}}, "status": {"podIP": "127.0.1.9"}}));
        let slice = slice(&service, &[pod("a", "True"), pod("b", "False"), Arc::new(going), other]);
        let conditions: Vec<(bool, bool, bool)> = list(&slice, "/endpoints")
            .iter()
            .map(|e| {
                let c = |name: &str| flag(e, &format!("/conditions/{name}"));
                (c("ready"), c("serving"), c("terminating"))
            })
            .collect();
        assert_eq!(conditions, [(true, true, false), (false, false, false), (false, true, true)]);
        assert_eq!(slice["ports"], json!([{"name": "", "port": 8080, "protocol": "TCP"}]));
    }
}

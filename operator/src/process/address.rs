//! The stable address of a process: a Service without selector, and the one EndpointSlice that says where it points.

use k8s_openapi::api::core::v1::{ObjectReference, Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use processhub_crds::vocabulary::label;
use processhub_crds::{HubProcess, ProcessHub, Protocol, ServiceKind};
use processhub_protocol::ledger::PodRef;
use serde_json::json;

use crate::call::{self, CallError};

const SERVICE_LABEL: &str = "kubernetes.io/service-name";
const MANAGED_BY: (&str, &str) = ("endpointslice.kubernetes.io/managed-by", "processhub-operator");
/// kube-proxy leaves the slices of headless Services alone when they say so.
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

/// Points the address of `process` at `pod`, which answers at `ip`; makes the Service on first use. The slice is
/// changed by one write and is never empty in between.
///
/// # Errors
/// Those of the API server. The same call again is safe.
pub async fn point(
    client: &Client,
    hub: &ProcessHub,
    process: &HubProcess,
    pod: &PodRef,
    ip: &str,
) -> Result<EndpointSlice, CallError> {
    let namespace = process.namespace().unwrap_or_default();
    let services = Api::<Service>::namespaced(client.clone(), &namespace);
    let service = service(hub, process);
    match call::optional(call::api("read Service", services.get_metadata(&service.name_any())).await)? {
        None => match call::api("create Service", services.create(&PostParams::default(), &service)).await {
            // Made by an operator that led a moment ago, or by another process of the hub.
            Ok(_) | Err(CallError::Exists { .. }) => {}
            Err(error) => return Err(error),
        },
        // It came from another hub. Clients know its port, which stays: the slice says where that leads.
        Some(known) if known.labels().get(label::HUB) != service.labels().get(label::HUB) => {
            let patch = json!({ "metadata": { "uid": known.uid(), "labels": service.labels() } });
            let (name, parameters, patch) =
                (service.name_any(), PatchParams::default(), Patch::Merge(&patch));
            call::api("label Service", services.patch_metadata(&name, &parameters, &patch)).await?;
        }
        Some(_) => {}
    }
    let slices = Api::<EndpointSlice>::namespaced(client.clone(), &namespace);
    let slice = slice(hub, process, pod, ip);
    let (name, parameters, patch) = (slice.name_any(), PatchParams::default(), Patch::Merge(&slice));
    let patched = slices.patch(&name, &parameters, &patch);
    match call::optional(call::api("write EndpointSlice", patched).await)? {
        Some(written) => Ok(written),
        None => call::api("create EndpointSlice", slices.create(&PostParams::default(), &slice)).await,
    }
}

/// Service meshes take the protocol from it.
fn port_name(hub: &ProcessHub) -> &'static str {
    match hub.spec.worker.protocol {
        Protocol::HTTP => "http",
        Protocol::TCP => "tcp",
    }
}

fn service(hub: &ProcessHub, process: &HubProcess) -> Service {
    let headless = hub.spec.worker.service == ServiceKind::Headless;
    let owner = if headless { hub.controller_owner_ref(&()) } else { process.controller_owner_ref(&()) };
    let port = i32::from(hub.spec.worker.port);
    Service {
        metadata: ObjectMeta {
            name: Some(if headless { hub.name_any() } else { process.name_any() }),
            namespace: process.namespace(),
            labels: Some([(label::HUB.to_owned(), hub.name_any())].into()),
            owner_references: owner.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            cluster_ip: headless.then(|| "None".to_owned()),
            ports: Some(vec![ServicePort {
                name: Some(port_name(hub).to_owned()),
                port,
                target_port: Some(IntOrString::Int(port)),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

fn slice(hub: &ProcessHub, process: &HubProcess, pod: &PodRef, ip: &str) -> EndpointSlice {
    let headless = hub.spec.worker.service == ServiceKind::Headless;
    let service = if headless { hub.name_any() } else { process.name_any() };
    let mut labels = std::collections::BTreeMap::from([
        (SERVICE_LABEL.to_owned(), service),
        (MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned()),
        (label::HUB.to_owned(), hub.name_any()),
        (label::PROCESS.to_owned(), process.name_any()),
    ]);
    if headless {
        labels.insert(HEADLESS_LABEL.to_owned(), String::new());
    }
    EndpointSlice {
        metadata: ObjectMeta {
            name: Some(process.name_any()),
            namespace: process.namespace(),
            labels: Some(labels),
            owner_references: process.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        address_type: if ip.contains(':') { "IPv6" } else { "IPv4" }.to_owned(),
        endpoints: Some(vec![Endpoint {
            addresses: vec![ip.to_owned()],
            conditions: Some(EndpointConditions {
                ready: Some(true),
                serving: Some(true),
                terminating: Some(false),
            }),
            hostname: headless.then(|| process.name_any()),
            node_name: Some(pod.node.clone()),
            target_ref: Some(ObjectReference {
                kind: Some("Pod".to_owned()),
                namespace: process.namespace(),
                name: Some(pod.name.clone()),
                uid: Some(pod.uid.0.clone()),
                ..ObjectReference::default()
            }),
            ..Endpoint::default()
        }]),
        ports: Some(vec![EndpointPort {
            name: Some(port_name(hub).to_owned()),
            port: Some(i32::from(hub.spec.worker.port)),
            protocol: Some("TCP".to_owned()),
            ..EndpointPort::default()
        }]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::pod::tests::{hub, process};

    fn pod() -> PodRef {
        PodRef { name: "cart-3-18".into(), uid: "pod-18".into(), node: "n4".into() }
    }

    #[test]
    fn the_address_is_the_processs_own_and_points_at_one_pod() {
        let service = service(&hub(), &process());
        assert_eq!(service.name_any(), "cart-3");
        assert_eq!(service.owner_references()[0].uid, "process");
        assert_eq!(service.spec.unwrap().selector, None);
        let slice = slice(&hub(), &process(), &pod(), "10.0.0.2");
        assert_eq!(slice.labels()[SERVICE_LABEL], "cart-3");
        let endpoint = &slice.endpoints.unwrap()[0];
        assert_eq!(endpoint.addresses, ["10.0.0.2"]);
        assert_eq!(endpoint.target_ref.as_ref().unwrap().uid.as_deref(), Some("pod-18"));
        assert_eq!(endpoint.hostname, None);
        assert_eq!(slice.ports.unwrap()[0].name.as_deref(), Some("http"));
    }

    #[test]
    fn a_port_is_named_after_what_is_spoken_there() {
        let mut hub = hub();
        hub.spec.worker.protocol = Protocol::TCP;
        let ports = service(&hub, &process()).spec.unwrap().ports.unwrap();
        assert_eq!(ports[0].name.as_deref(), Some("tcp"));
    }

    #[test]
    fn a_headless_hub_has_one_service_and_a_host_name_for_each_process() {
        let mut hub = hub();
        hub.spec.worker.service = ServiceKind::Headless;
        let service = service(&hub, &process());
        assert_eq!(
            (service.name_any(), service.owner_references()[0].uid.clone()),
            ("cart".into(), "hub-uid".into())
        );
        assert_eq!(service.spec.unwrap().cluster_ip.as_deref(), Some("None"));
        let slice = slice(&hub, &process(), &pod(), "fd00::2");
        assert_eq!(slice.labels()[SERVICE_LABEL], "cart");
        assert_eq!(slice.address_type, "IPv6");
        assert_eq!(slice.endpoints.unwrap()[0].hostname.as_deref(), Some("cart-3"));
    }
}

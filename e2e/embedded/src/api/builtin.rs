//! Built-in kinds: decoding, defaults and the few validations that users of this cluster meet.

use super::error::Cause;
use super::object::{self, list, metadata, text};
use super::pods;
use super::store::ResourceId;
use k8s_openapi::ByteString;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

/// Decodes the object as its kind's type and returns the paths of fields that the type does not have, which are
/// removed.
///
/// # Errors
/// What cannot be decoded, in words.
pub fn decode(storage: &ResourceId, object: &mut Value) -> Result<Vec<String>, String> {
    let known = match (storage.group.as_str(), storage.plural.as_str()) {
        ("", "namespaces") => through::<core::Namespace>(object),
        ("", "pods") => through::<core::Pod>(object),
        ("", "nodes") => through::<core::Node>(object),
        ("", "services") => through::<core::Service>(object),
        ("", "secrets") => through::<core::Secret>(object),
        ("", "configmaps") => through::<core::ConfigMap>(object),
        ("", "serviceaccounts") => through::<core::ServiceAccount>(object),
        ("coordination.k8s.io", "leases") => through::<Lease>(object),
        ("discovery.k8s.io", "endpointslices") => through::<EndpointSlice>(object),
        ("policy", "poddisruptionbudgets") => through::<PodDisruptionBudget>(object),
        ("apiextensions.k8s.io", "customresourcedefinitions") => through::<CustomResourceDefinition>(object),
        // Events are stored in the older form but sent in both: fields of either are kept.
        _ => return Ok(Vec::new()),
    }?;
    let mut unknown = Vec::new();
    drop_unknown(object, &known, "", &mut unknown);
    Ok(unknown)
}

fn through<T: DeserializeOwned + Serialize>(object: &Value) -> Result<Value, String> {
    let decoded: T = serde_json::from_value(object.clone()).map_err(|e| e.to_string())?;
    serde_json::to_value(decoded).map_err(|e| e.to_string())
}

fn drop_unknown(given: &mut Value, known: &Value, path: &str, unknown: &mut Vec<String>) {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => given.retain(|field, value| {
            let below = if path.is_empty() { field.clone() } else { format!("{path}.{field}") };
            match known.get(field) {
                Some(known) => drop_unknown(value, known, &below, unknown),
                // The types write no null.
                None if value.is_null() => return false,
                None => {
                    unknown.push(below);
                    return false;
                }
            }
            true
        }),
        (Value::Array(given), Value::Array(known)) => {
            for (index, (given, known)) in given.iter_mut().zip(known).enumerate() {
                drop_unknown(given, known, &format!("{path}[{index}]"), unknown);
            }
        }
        _ => {}
    }
}

/// Fills in defaults; `fresh` is true on creation.
pub fn default(storage: &ResourceId, object: &mut Value, fresh: bool) {
    match (storage.group.as_str(), storage.plural.as_str()) {
        ("", "pods") => pods::default(object, fresh),
        ("", "namespaces") => {
            let name = object::name(object).to_owned();
            object::child(&mut object["metadata"], "labels")
                .insert("kubernetes.io/metadata.name".into(), name.into());
            or(object::child(object, "spec"), "finalizers", json!(["kubernetes"]));
            or(object::child(object, "status"), "phase", json!("Active"));
        }
        ("", "nodes") => {
            object::child(object, "spec");
        }
        ("", "secrets") => secret(object),
        ("", "services") => service(object),
        ("discovery.k8s.io", "endpointslices") => {
            for port in object["ports"].as_array_mut().into_iter().flatten() {
                if let Some(port) = port.as_object_mut() {
                    or(port, "protocol", json!("TCP"));
                    or(port, "name", json!(""));
                }
            }
        }
        _ => {}
    }
}

fn secret(object: &mut Value) {
    let Some(map) = object.as_object_mut() else { return };
    or(map, "type", json!("Opaque"));
    let Some(Value::Object(plain)) = map.remove("stringData") else { return };
    let data = object::child(object, "data");
    for (key, value) in plain {
        let bytes = ByteString(value.as_str().unwrap_or_default().as_bytes().to_vec());
        data.insert(key, json!(bytes));
    }
}

fn service(object: &mut Value) {
    let spec = object::child(object, "spec");
    or(spec, "type", json!("ClusterIP"));
    or(spec, "sessionAffinity", json!("None"));
    or(spec, "internalTrafficPolicy", json!("Cluster"));
    or(spec, "ipFamilies", json!(["IPv4"]));
    or(spec, "ipFamilyPolicy", json!("SingleStack"));
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        let number = port["port"].clone();
        if let Some(port) = port.as_object_mut() {
            or(port, "protocol", json!("TCP"));
            or(port, "targetPort", number);
        }
    }
    or(object::child(object, "status"), "loadBalancer", json!({}));
}

pub(super) fn or(map: &mut Map<String, Value>, field: &str, value: Value) {
    if map.get(field).is_none_or(Value::is_null) {
        map.insert(field.to_owned(), value);
    }
}

/// Everything that is wrong with the object; `old` is what it replaces.
pub fn check(storage: &ResourceId, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    match (storage.group.as_str(), storage.plural.as_str()) {
        ("", "pods") => pods::check(object, old),
        ("", "services") => check_service(object, old),
        ("discovery.k8s.io", "endpointslices") => check_slice(object, old),
        ("apiextensions.k8s.io", "customresourcedefinitions") => super::crd::check(object),
        _ => Vec::new(),
    }
}

fn check_service(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let ports = list(object, "/spec/ports");
    let ip = &object["spec"]["clusterIP"];
    if ports.is_empty() && ip != "None" && text(object, "/spec/type") != "ExternalName" {
        causes.push(Cause::required("spec.ports", ""));
    }
    for (index, port) in ports.iter().enumerate() {
        let path = format!("spec.ports[{index}].port");
        let number = port["port"].as_i64().unwrap_or_default();
        if !(1..=65535).contains(&number) {
            causes.push(Cause::invalid(path, &port["port"], "must be between 1 and 65535, inclusive"));
        }
        if ports.len() > 1 && text(port, "/name").is_empty() {
            causes.push(Cause::required(format!("spec.ports[{index}].name"), ""));
        }
    }
    if let Some(old) = old
        && old["spec"]["clusterIP"] != *ip
        && !text(old, "/spec/clusterIP").is_empty()
    {
        let value = json!(object["spec"]["clusterIP"]);
        causes.push(Cause::invalid("spec.clusterIPs[0]", &value, "may not change once set"));
    }
    causes
}

fn check_slice(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let family = &object["addressType"];
    let families = [json!("FQDN"), json!("IPv4"), json!("IPv6")];
    if text(object, "/addressType").is_empty() {
        causes.push(Cause::required("addressType", ""));
    } else if !families.contains(family) {
        causes.push(Cause::unsupported("addressType", family, &families));
    }
    if old.is_some_and(|old| old["addressType"] != *family) {
        causes.push(Cause::invalid("addressType", family, "field is immutable"));
    }
    let endpoints = list(object, "/endpoints");
    if endpoints.len() > 1000 {
        causes.push(Cause::too_many("endpoints", endpoints.len(), 1000));
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        let path = format!("endpoints[{index}].addresses");
        let addresses = list(endpoint, "/addresses");
        if addresses.is_empty() {
            causes.push(Cause::required(path, "must contain at least 1 address"));
        }
    }
    causes
}

/// What the server resets on creation: clients do not decide the status of these kinds.
pub fn reset_status(storage: &ResourceId, object: &mut Value) {
    match (storage.group.as_str(), storage.plural.as_str()) {
        ("", "pods") => {
            object["status"] = json!({"phase": "Pending", "qosClass": "BestEffort"});
        }
        // A node brings its own status; a namespace and a definition get theirs from the server.
        ("", "nodes") => {}
        _ => {
            if let Some(map) = object.as_object_mut() {
                map.remove("status");
            }
        }
    }
}

/// Whether a name is acceptable: services and namespaces are DNS labels, everything else a DNS subdomain.
pub fn check_name(storage: &ResourceId, name: &str) -> Option<Cause> {
    let value = Value::from(name);
    let label = |text: &str| {
        !text.is_empty()
            && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
            && !text.starts_with('-')
            && !text.ends_with('-')
    };
    let labels_only =
        storage.group.is_empty() && ["services", "namespaces"].contains(&storage.plural.as_str());
    if labels_only {
        (name.len() > 63 || !label(name)).then(|| {
            Cause::invalid(
                "metadata.name",
                &value,
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
                 start and end with an alphanumeric character",
            )
        })
    } else {
        (name.len() > 253 || !name.split('.').all(label)).then(|| {
            Cause::invalid(
                "metadata.name",
                &value,
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and \
                 must start and end with an alphanumeric character",
            )
        })
    }
}

/// Removes what only the server writes.
pub fn clear_server_fields(object: &mut Value) {
    let metadata = metadata(object);
    for field in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "selfLink",
        "managedFields",
    ] {
        metadata.remove(field);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_a_type_does_not_have_are_named() {
        let pods = ResourceId::new("", "pods");
        let mut pod = json!({"metadata": {"name": "a", "creationTimestamp": null}, "spec": {"containers": [
            {"name": "w", "imagee": "x"}], "volumes": []}});
        assert_eq!(decode(&pods, &mut pod).unwrap(), ["spec.containers[0].imagee"]);
        let mut wrong = json!({"spec": {"containers": "x"}});
        assert!(decode(&pods, &mut wrong).is_err());
    }

    #[test]
    fn text_of_a_secret_becomes_data() {
        let mut secret = json!({"stringData": {"a": "hello"}});
        default(&ResourceId::new("", "secrets"), &mut secret, true);
        assert_eq!(secret, json!({"type": "Opaque", "data": {"a": "aGVsbG8="}}));
    }

    #[test]
    fn names_are_checked_by_kind() {
        let (pods, services) = (ResourceId::new("", "pods"), ResourceId::new("", "services"));
        assert!(check_name(&pods, "a.b-1").is_none());
        assert!(check_name(&services, "a.b").is_some());
        assert!(check_name(&pods, "A").is_some());
    }

    #[test]
    fn services_and_slices_are_checked() {
        let services = ResourceId::new("", "services");
        assert_eq!(check(&services, &json!({"spec": {}}), None)[0].field, "spec.ports");
        assert!(check(&services, &json!({"spec": {"clusterIP": "None"}}), None).is_empty());
        let slices = ResourceId::new("discovery.k8s.io", "endpointslices");
        let slice = json!({"addressType": "IPv4", "endpoints": [{"addresses": []}]});
        assert_eq!(check(&slices, &slice, None)[0].field, "endpoints[0].addresses");
    }
}

//! Discovery and the OpenAPI documents that kubectl asks for before it writes.

use super::kinds::{Catalog, Kind};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

fn groups(catalog: &Catalog) -> BTreeMap<&str, BTreeMap<&str, Vec<&Arc<Kind>>>> {
    let mut groups: BTreeMap<&str, BTreeMap<&str, Vec<&Arc<Kind>>>> = BTreeMap::new();
    for kind in catalog.all() {
        groups.entry(&kind.group).or_default().entry(&kind.version).or_default().push(kind);
    }
    groups
}

/// `/api` (core) or `/apis` (the rest) in the aggregated form.
pub fn aggregated(catalog: &Catalog, core: bool) -> Value {
    let items: Vec<Value> = groups(catalog)
        .into_iter()
        .filter(|(group, _)| group.is_empty() == core)
        .map(|(group, versions)| {
            let versions: Vec<Value> = versions
                .into_iter()
                .map(|(version, kinds)| {
                    let resources: Vec<Value> = kinds.into_iter().map(|k| aggregated_resource(k)).collect();
                    json!({"version": version, "resources": resources, "freshness": "Current"})
                })
                .collect();
            json!({"metadata": {"name": group, "creationTimestamp": null}, "versions": versions})
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn response_kind(kind: &Kind, subresource: Option<&str>) -> Value {
    match subresource {
        Some("scale") => json!({"group": "autoscaling", "version": "v1", "kind": "Scale"}),
        Some("eviction") => json!({"group": "policy", "version": "v1", "kind": "Eviction"}),
        Some("binding") => json!({"group": "", "version": "v1", "kind": "Binding"}),
        _ => json!({"group": kind.group, "version": kind.version, "kind": kind.kind}),
    }
}

fn subresource_verbs(subresource: &str) -> Value {
    match subresource {
        "eviction" | "binding" => json!(["create"]),
        "log" => json!(["get"]),
        _ => json!(["get", "patch", "update"]),
    }
}

fn aggregated_resource(kind: &Kind) -> Value {
    let subresources: Vec<Value> = kind
        .subresources()
        .into_iter()
        .map(|s| json!({"subresource": s, "responseKind": response_kind(kind, Some(s)), "verbs": subresource_verbs(s)}))
        .collect();
    let mut resource = json!({
        "resource": kind.plural,
        "responseKind": response_kind(kind, None),
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": VERBS,
    });
    for (field, value) in [
        ("shortNames", json!(kind.short_names)),
        ("categories", json!(kind.categories)),
        ("subresources", json!(subresources)),
    ] {
        if value.as_array().is_some_and(|a| !a.is_empty()) {
            resource[field] = value;
        }
    }
    resource
}

/// `/apis` in the older form.
pub fn group_list(catalog: &Catalog) -> Value {
    let groups: Vec<Value> = groups(catalog)
        .into_iter()
        .filter(|(group, _)| !group.is_empty())
        .map(|(group, versions)| group_entry(group, versions.keys().copied()))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/{group}`.
pub fn group(catalog: &Catalog, name: &str) -> Option<Value> {
    let groups = groups(catalog);
    let versions = groups.get(name)?;
    let mut entry = group_entry(name, versions.keys().copied());
    entry["kind"] = "APIGroup".into();
    entry["apiVersion"] = "v1".into();
    Some(entry)
}

fn group_entry<'a>(group: &str, versions: impl Iterator<Item = &'a str>) -> Value {
    let versions: Vec<Value> =
        versions.map(|v| json!({"groupVersion": format!("{group}/{v}"), "version": v})).collect();
    json!({"name": group, "preferredVersion": versions.first(), "versions": versions})
}

/// `/api/v1` or `/apis/{group}/{version}`.
pub fn resources(catalog: &Catalog, group: &str, version: &str) -> Option<Value> {
    let groups = groups(catalog);
    let kinds = groups.get(group)?.get(version)?;
    let mut resources = Vec::new();
    for kind in kinds {
        resources.push(json!({
            "name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced, "kind": kind.kind,
            "verbs": VERBS, "shortNames": kind.short_names, "categories": kind.categories,
        }));
        for subresource in kind.subresources() {
            let mut entry = response_kind(kind, Some(subresource));
            entry["name"] = format!("{}/{subresource}", kind.plural).into();
            entry["singularName"] = "".into();
            entry["namespaced"] = kind.namespaced.into();
            entry["verbs"] = subresource_verbs(subresource);
            resources.push(entry);
        }
    }
    let version = super::kinds::api_version(group, version);
    Some(
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources}),
    )
}

/// `/openapi/v3`: where each group's document is.
pub fn openapi_index(catalog: &Catalog) -> Value {
    let mut paths = Map::new();
    for (group, versions) in groups(catalog) {
        for version in versions.keys() {
            let path = openapi_path(group, version);
            let url = format!("/openapi/v3/{path}");
            paths.insert(path, json!({"serverRelativeURL": url}));
        }
    }
    json!({"paths": paths})
}

fn openapi_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// The document of one group: enough for kubectl to see that the server validates fields and does dry runs.
pub fn openapi(catalog: &Catalog, path: &str) -> Option<Value> {
    let mut paths = Map::new();
    let parameter =
        |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}});
    let mut schemas = Map::new();
    for kind in catalog.all().filter(|k| openapi_path(&k.group, &k.version) == path) {
        let place = if kind.namespaced { "namespaces/{namespace}/" } else { "" };
        let url = format!("/{path}/{place}{}/{{name}}", kind.plural);
        let gvk = json!({"group": kind.group, "version": kind.version, "kind": kind.kind});
        let patch = json!({
            "parameters": [parameter("dryRun"), parameter("fieldManager"), parameter("fieldValidation")],
            "x-kubernetes-action": "patch",
            "x-kubernetes-group-version-kind": gvk,
            "responses": {"200": {"description": "OK"}},
        });
        paths.insert(url, json!({"patch": patch}));
        let mut schema = match &kind.custom {
            Some(custom) => custom.schema().clone(),
            None => json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
        };
        schema["x-kubernetes-group-version-kind"] = json!([gvk]);
        schemas.insert(format!("{}.{}.{}", kind.group, kind.version, kind.kind), schema);
    }
    (!paths.is_empty()).then(|| {
        json!({"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "embedded"}, "paths": paths,
            "components": {"schemas": schemas}})
    })
}

/// `/version`.
pub fn version() -> Value {
    json!({"major": "1", "minor": "35", "gitVersion": "v1.35.0+embedded", "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "none", "compiler": "rustc", "platform": "linux/amd64"})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drain_finds_the_eviction_subresource_both_ways() {
        let catalog = Catalog::builtin();
        let core = resources(&catalog, "", "v1").unwrap();
        let eviction =
            core["resources"].as_array().unwrap().iter().find(|r| r["name"] == "pods/eviction").unwrap();
        assert_eq!((&eviction["group"], &eviction["kind"]), (&json!("policy"), &json!("Eviction")));
        let list = aggregated(&catalog, true);
        assert_eq!(list["items"][0]["versions"][0]["version"], "v1");
        assert!(group(&catalog, "policy").is_some());
    }

    #[test]
    fn every_group_has_a_document_with_field_validation() {
        let catalog = Catalog::builtin();
        let index = openapi_index(&catalog);
        for path in index["paths"].as_object().unwrap().keys() {
            let text = openapi(&catalog, path).unwrap().to_string();
            assert!(text.contains("fieldValidation"), "{path}");
        }
    }
}

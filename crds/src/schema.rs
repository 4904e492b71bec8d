//! Turns what schemars generates into what the API server should be given.

use k8s_openapi::api::core::v1::PodSpec;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use crate::limits;

/// Tidies the schema of a spec: integers get a format and bounds that the API server knows, and no field is nullable.
///
/// A field that is not nullable is pruned when it is null, so that `has()` in a rule means that there is a value.
pub(crate) fn spec(schema: &mut Schema) {
    visit(schema, &mut |node| {
        bound_integer(node);
        drop_null(node);
    });
}

/// As [`spec`], and without defaults: the API server must not put back what somebody removed from a status.
pub(crate) fn status(schema: &mut Schema) {
    spec(schema);
    visit(schema, &mut |node| {
        node.remove("default");
    });
}

/// Calls `change` on every schema below `schema` and on itself, children first.
fn visit(schema: &mut Schema, change: &mut dyn FnMut(&mut Map<String, Value>)) {
    if let Some(node) = schema.as_object_mut() {
        visit_node(node, change);
    }
}

/// As [`visit`], for a schema that is plain JSON.
pub(crate) fn visit_node(node: &mut Map<String, Value>, change: &mut dyn FnMut(&mut Map<String, Value>)) {
    if let Some(Value::Object(properties)) = node.get_mut("properties") {
        for child in properties.values_mut().filter_map(Value::as_object_mut) {
            visit_node(child, change);
        }
    }
    for key in ["items", "additionalProperties"] {
        if let Some(Value::Object(child)) = node.get_mut(key) {
            visit_node(child, change);
        }
    }
    for key in ["anyOf", "oneOf", "allOf"] {
        if let Some(Value::Array(children)) = node.get_mut(key) {
            for child in children.iter_mut().filter_map(Value::as_object_mut) {
                visit_node(child, change);
            }
        }
    }
    change(node);
}

/// `uint32` and the like are unknown to the API server, and what a `u64` can hold JSON cannot.
fn bound_integer(node: &mut Map<String, Value>) {
    let unsigned =
        node.get("format").and_then(Value::as_str).is_some_and(|format| format.starts_with("uint"));
    if unsigned {
        node.insert("format".into(), "int64".into());
        node.entry("minimum").or_insert(json!(0));
        node.entry("maximum").or_insert(json!(limits::MAX_INTEGER));
    }
}

/// `Option<T>` arrives as `type: [t, null]` or as `anyOf: [t, null]`; both become the schema of `T`.
fn drop_null(node: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = node.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            node.insert("type".into(), only);
        }
    }
    if let Some(Value::Array(choices)) = node.get_mut("anyOf") {
        choices.retain(|choice| choice.get("type") != Some(&json!("null")));
        if let [Value::Object(only)] = choices.as_slice() {
            let only = only.clone();
            node.remove("anyOf");
            for (key, value) in only {
                node.entry(key).or_insert(value);
            }
        }
    }
}

/// A worker's configuration: any object, kept as it is.
pub(crate) fn config(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 64,
        "x-kubernetes-preserve-unknown-fields": true,
    })
}

/// A template that was accepted once, kept as it is.
pub(crate) fn kept_template(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

/// Labels or a node selector: at most 32 entries with values of at most 63 characters.
pub(crate) fn string_map(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": { "type": "string", "maxLength": 63 },
    })
}

/// The name of a node.
pub(crate) fn node_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": 253,
        "pattern": "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
    })
}

/// Conditions, merged by type, with bounded messages.
pub(crate) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "reason", "message", "lastTransitionTime"],
            "properties": {
                "type": { "type": "string", "maxLength": 64 },
                "status": { "type": "string", "enum": ["True", "False", "Unknown"] },
                "reason": { "type": "string", "minLength": 1, "maxLength": 64 },
                "message": { "type": "string", "maxLength": limits::MAX_MESSAGE },
                "lastTransitionTime": { "type": "string", "format": "date-time" },
                "observedGeneration": {
                    "type": "integer", "format": "int64", "minimum": 0, "maximum": limits::MAX_INTEGER,
                },
            },
        },
    })
}

/// What the rules read is bounded: without it the API server takes the worst case for their cost.
fn bound_containers(spec: &mut Schema) {
    for list in ["containers", "initContainers"] {
        if let Some(containers) =
            spec.pointer_mut(&format!("/properties/{list}")).and_then(Value::as_object_mut)
        {
            containers.insert("maxItems".into(), json!(32));
        }
        if let Some(name) = spec
            .pointer_mut(&format!("/properties/{list}/items/properties/name"))
            .and_then(Value::as_object_mut)
        {
            name.insert("maxLength".into(), json!(63));
        }
    }
}

/// A pod template: the whole structural schema of a pod's spec without its descriptions (with them the YAML would
/// exceed what a client-side `kubectl apply` can store), and of its metadata what a template can mean.
pub(crate) fn pod_template(generator: &mut SchemaGenerator) -> Schema {
    let mut spec = generator.subschema_for::<PodSpec>();
    visit(&mut spec, &mut |node| {
        node.remove("description");
    });
    // A template cannot have them: they are added to pods that run.
    if let Some(fields) = spec.pointer_mut("/properties").and_then(Value::as_object_mut) {
        fields.remove("ephemeralContainers");
    }
    bound_containers(&mut spec);
    let text_map = |values: usize| {
        json!({
            "type": "object",
            "maxProperties": 64,
            "additionalProperties": { "type": "string", "maxLength": values },
        })
    };
    json_schema!({
        "type": "object",
        "required": ["spec"],
        "properties": {
            "metadata": {
                "type": "object",
                "properties": { "labels": text_map(63), "annotations": text_map(4096) },
            },
            "spec": spec,
        },
    })
}

//! Custom resource definitions: accepting one, and what its objects are held to.

use super::error::Cause;
use super::kinds::{self, Column, Kind, Scale};
use super::object::{flag, list, text};
use super::schema;
use super::store::ResourceId;
use kube_cel::{CompiledSchema, RootContext, Validator, compile_schema};
use serde_json::{Value, json};
use std::fmt;
use std::sync::Arc;

/// What the real server adds where the schema's errors keep it from looking at the rules.
const UNCHECKED: &str = "some validation rules were not checked because the object was invalid; correct the existing \
                         errors to complete validation";

/// Schema and rules of one version of a custom kind.
pub struct Custom {
    schema: Value,
    has_rules: bool,
    compiled: CompiledSchema,
    validator: Validator,
    context: RootContext,
}

impl fmt::Debug for Custom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Custom").field("kind", &self.context.kind).finish_non_exhaustive()
    }
}

impl Custom {
    fn new(schema: Value, group: &str, version: &str, kind: &str) -> Self {
        let context = RootContext {
            api_version: kinds::api_version(group, version),
            api_group: group.to_owned(),
            kind: kind.to_owned(),
        };
        let has_rules = schema.to_string().contains("\"x-kubernetes-validations\"");
        Self { compiled: compile_schema(&schema), validator: Validator::new(), schema, has_rules, context }
    }

    /// The schema as it was defined.
    pub fn schema(&self) -> &Value {
        &self.schema
    }

    /// Removes unknown fields, fills in defaults, and returns the paths of what was removed.
    pub fn normalize(&self, object: &mut Value) -> Vec<String> {
        let removed = schema::prune(&self.schema, object);
        schema::default(&self.schema, object);
        removed
    }

    /// Everything in which the object breaks its schema or, if it does not, its rules; `old` is what it replaces.
    pub fn check(&self, object: &Value, old: Option<&Value>) -> Vec<Cause> {
        let mut causes = schema::check(&self.schema, object, "");
        if causes.iter().any(Cause::blocks_rules) {
            if self.has_rules {
                causes.push(Cause::invalid("<nil>", &Value::Null, UNCHECKED));
            }
            return causes;
        }
        let checked =
            self.validator.validate_compiled_with_context(&self.compiled, object, old, Some(&self.context));
        if let Err(errors) = checked {
            causes.extend(errors.iter().map(|e| rule_cause(object, e)));
        }
        causes
    }
}

fn rule_cause(object: &Value, error: &kube_cel::ValidationError) -> Cause {
    let field = error.field_path.trim_start_matches('.').to_owned();
    let pointer = format!("/{}", field.replace(['.', '['], "/").replace(']', ""));
    let value = if field.is_empty() { Some(object) } else { object.pointer(&pointer) };
    match error.reason.as_deref() {
        Some("FieldValueForbidden") => Cause::forbidden(field, &error.message),
        Some("FieldValueRequired") => Cause::required(field, &error.message),
        Some("FieldValueDuplicate") => Cause::duplicate(field, value.unwrap_or(&Value::Null)),
        _ => Cause::invalid(field, value.unwrap_or(&Value::Null), &error.message),
    }
}

/// Fills in what a definition may leave out, and the status of an accepted one.
pub fn complete(definition: &mut Value, now: &str) {
    let kind = text(definition, "/spec/names/kind").to_owned();
    let names = super::object::child(&mut definition["spec"], "names");
    names.entry("singular").or_insert_with(|| kind.to_lowercase().into());
    names.entry("listKind").or_insert_with(|| format!("{kind}List").into());
    let names = definition["spec"]["names"].clone();
    if definition["spec"].get("conversion").is_none() {
        definition["spec"]["conversion"] = json!({"strategy": "None"});
    }
    if definition.get("status").is_none_or(|s| s.get("conditions").is_none()) {
        let condition = |kind: &str, reason: &str, message: &str| json!({"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": now});
        let stored: Vec<&str> = list(definition, "/spec/versions")
            .iter()
            .filter(|v| flag(v, "/storage"))
            .map(|v| text(v, "/name"))
            .collect();
        let status = json!({
            "acceptedNames": names,
            "storedVersions": stored,
            "conditions": [
                condition("NamesAccepted", "NoConflicts", "no conflicts found"),
                condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
            ],
        });
        definition["status"] = status;
    }
}

/// What is wrong with a definition.
pub fn check(definition: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let (group, plural) = (text(definition, "/spec/group"), text(definition, "/spec/names/plural"));
    for (field, value) in [
        ("spec.group", group),
        ("spec.names.plural", plural),
        ("spec.names.kind", text(definition, "/spec/names/kind")),
    ] {
        if value.is_empty() {
            causes.push(Cause::required(field, ""));
        }
    }
    let name = super::object::name(definition);
    if name != format!("{plural}.{group}") {
        let value = Value::from(name);
        causes.push(Cause::invalid("metadata.name", &value, "must be spec.names.plural+\".\"+spec.group"));
    }
    let scope = &definition["spec"]["scope"];
    if ![json!("Namespaced"), json!("Cluster")].contains(scope) {
        causes.push(Cause::unsupported("spec.scope", scope, &[json!("Cluster"), json!("Namespaced")]));
    }
    let versions = list(definition, "/spec/versions");
    if versions.iter().filter(|v| flag(v, "/storage")).count() != 1 {
        let value = definition["spec"]["versions"].clone();
        causes.push(Cause::invalid(
            "spec.versions",
            &value,
            "must have exactly one version marked as storage version",
        ));
    }
    for (index, version) in versions.iter().enumerate() {
        let path = format!("spec.versions[{index}].schema.openAPIV3Schema");
        match version.pointer("/schema/openAPIV3Schema") {
            None => causes.push(Cause::required(path, "schemas are required")),
            Some(schema) => {
                structural(schema, &path, &mut causes);
                rules(&compile_schema(schema), &path, &mut causes);
            }
        }
    }
    causes
}

fn structural(schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    let typed = schema.get("type").is_some()
        || flag(schema, "/x-kubernetes-int-or-string")
        || flag(schema, "/x-kubernetes-preserve-unknown-fields");
    if !typed {
        causes.push(Cause::required(format!("{path}.type"), "must not be empty for specified object fields"));
    }
    for (field, inner) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        structural(inner, &format!("{path}.properties[{field}]"), causes);
    }
    if let Some(items) = schema.get("items") {
        structural(items, &format!("{path}.items"), causes);
    }
    if let Some(rest @ Value::Object(_)) = schema.get("additionalProperties") {
        structural(rest, &format!("{path}.additionalProperties"), causes);
    }
}

fn rules(compiled: &CompiledSchema, path: &str, causes: &mut Vec<Cause>) {
    for error in compiled.compilation_errors() {
        let path = format!("{path}.x-kubernetes-validations");
        causes.push(Cause::invalid(path, &Value::Null, format!("compilation failed: {error}")));
    }
    for (field, inner) in &compiled.properties {
        rules(inner, &format!("{path}.properties[{field}]"), causes);
    }
    if let Some(items) = &compiled.items {
        rules(items, &format!("{path}.items"), causes);
    }
}

/// What an accepted definition stores its objects under.
pub fn storage(definition: &Value) -> ResourceId {
    ResourceId::new(text(definition, "/spec/group"), text(definition, "/spec/names/plural"))
}

/// The kinds that an accepted definition serves.
pub fn kinds(definition: &Value) -> Vec<Kind> {
    let storage = storage(definition);
    let words = |pointer: &str| {
        list(definition, pointer).iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let served = list(definition, "/spec/versions").iter().filter(|v| flag(v, "/served"));
    served
        .map(|version| {
            let (name, kind) = (text(version, "/name"), text(definition, "/spec/names/kind"));
            let schema = version.pointer("/schema/openAPIV3Schema").cloned().unwrap_or_default();
            let custom = Arc::new(Custom::new(schema, &storage.group, name, kind));
            Kind {
                kind: kind.to_owned(),
                singular: text(definition, "/spec/names/singular").to_owned(),
                short_names: words("/spec/names/shortNames"),
                categories: words("/spec/names/categories"),
                namespaced: text(definition, "/spec/scope") == "Namespaced",
                status: version.pointer("/subresources/status").is_some(),
                scale: version.pointer("/subresources/scale").map(scale),
                generation: true,
                columns: columns(version),
                selectable: list(version, "/selectableFields")
                    .iter()
                    .map(|f| text(f, "/jsonPath").trim_start_matches('.').to_owned())
                    .collect(),
                ..kinds::custom(&storage.group, name, &storage.plural, custom)
            }
        })
        .collect()
}

fn scale(scale: &Value) -> Scale {
    let pointer = |field: &str| text(scale, field).replace('.', "/");
    Scale {
        spec: pointer("/specReplicasPath"),
        status: pointer("/statusReplicasPath"),
        selector: pointer("/labelSelectorPath"),
    }
}

fn columns(version: &Value) -> Vec<Column> {
    let defined = list(version, "/additionalPrinterColumns");
    if defined.is_empty() {
        let path = ".metadata.creationTimestamp".to_owned();
        return vec![Column { name: "Age".to_owned(), kind: "date".to_owned(), path, priority: 0 }];
    }
    defined
        .iter()
        .map(|c| Column {
            name: text(c, "/name").to_owned(),
            kind: text(c, "/type").to_owned(),
            path: text(c, "/jsonPath").to_owned(),
            priority: c.get("priority").and_then(Value::as_i64).unwrap_or_default(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition() -> Value {
        json!({"metadata": {"name": "things.x.io"}, "spec": {"group": "x.io", "scope": "Namespaced",
            "names": {"plural": "things", "kind": "Thing"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas",
                    "statusReplicasPath": ".status.replicas"}},
                "selectableFields": [{"jsonPath": ".spec.hub"}],
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": {
                        "hub": {"type": "string"}, "replicas": {"type": "integer"},
                        "handover": {"type": "boolean"}},
                        "x-kubernetes-validations": [
                            {"rule": "!has(self.handover) || !self.handover || !has(self.hub)",
                             "message": "not_supported", "reason": "FieldValueForbidden", "fieldPath": ".handover"},
                            {"rule": "!has(oldSelf.hub) || self.hub == oldSelf.hub", "message": "hub is immutable"}]},
                    "status": {"type": "object"}}}}}]}})
    }

    #[test]
    fn a_definition_becomes_a_served_kind() {
        let mut definition = definition();
        complete(&mut definition, "2026-01-01T00:00:00Z");
        assert!(check(&definition).is_empty());
        assert!(super::super::object::is_true(&definition, "Established"));
        let kinds = kinds(&definition);
        assert_eq!(kinds[0].singular, "thing");
        assert_eq!(kinds[0].selectable, ["spec.hub"]);
        assert_eq!(kinds[0].scale.as_ref().unwrap().spec, "/spec/replicas");
        assert_eq!(kinds[0].subresources(), ["status", "scale"]);
    }

    #[test]
    fn rules_refuse_on_create_and_on_update() {
        let kinds = kinds(&definition());
        let custom = kinds[0].custom.as_ref().unwrap();
        let refused = custom.check(&json!({"spec": {"hub": "a", "handover": true}}), None);
        assert_eq!(refused, [Cause::forbidden("spec.handover", "not_supported")]);
        let old = json!({"spec": {"hub": "a"}});
        let moved = custom.check(&json!({"spec": {"hub": "b"}}), Some(&old));
        assert_eq!(moved.len(), 1);
        assert!(moved[0].message.ends_with("hub is immutable"), "{moved:?}");
        assert!(custom.check(&old, Some(&old)).is_empty());
    }

    #[test]
    fn a_bad_definition_is_refused_with_its_fields() {
        let mut bad = definition();
        bad["metadata"]["name"] = "other".into();
        bad["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["x-kubernetes-validations"] =
            json!([{"rule": "self.("}]);
        bad["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"] = json!({});
        let fields: Vec<String> = check(&bad).into_iter().map(|c| c.field).collect();
        assert_eq!(fields[0], "metadata.name");
        assert!(fields[1].ends_with("properties[status].type"), "{fields:?}");
        assert!(fields[2].ends_with("properties[spec].x-kubernetes-validations"), "{fields:?}");
    }
}

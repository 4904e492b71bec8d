//! The YAML that a person applies, from the types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Map, Number, Value};

use crate::schema::visit_node;
use crate::{HubProcess, ProcessHub};

/// Why the YAML could not be generated.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// A type's schema is not JSON that Kubernetes knows.
    #[error("the schema of {kind}: {source}")]
    Schema {
        /// The resource.
        kind: String,
        /// What serde says.
        source: serde_json::Error,
    },
    /// The writer of YAML failed.
    #[error("YAML of {kind}: {source}")]
    Yaml {
        /// The resource.
        kind: String,
        /// What the writer says.
        source: serde_saphyr::ser::Error,
    },
}

/// The definitions of both resources as JSON, exactly as they are written to the YAML files: keys sorted, no field
/// nullable.
pub fn crds() -> Result<Vec<Value>, GenerateError> {
    [ProcessHub::crd(), HubProcess::crd()].iter().map(definition).collect()
}

/// File names and contents of the generated YAML, the same for the same types.
pub fn crd_yaml() -> Result<Vec<(String, String)>, GenerateError> {
    crds()?.iter().map(file).collect()
}

fn definition(crd: &CustomResourceDefinition) -> Result<Value, GenerateError> {
    let mut value = serde_json::to_value(crd)
        .map_err(|source| GenerateError::Schema { kind: crd.spec.names.kind.clone(), source })?;
    // kube makes the status and optional quantities nullable. A null would satisfy `has()` in a rule and then have no
    // fields; where a field is not nullable the API server prunes it.
    for version in value.pointer_mut("/spec/versions").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(Value::Object(root)) = version.pointer_mut("/schema/openAPIV3Schema") {
            visit_node(root, &mut |node| {
                node.remove("nullable");
            });
        }
    }
    Ok(canonical(value))
}

/// Sorts the keys, whatever map serde_json was built with, and writes whole numbers (the bounds of a schema are
/// floating point) as such.
fn canonical(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.into_iter().map(|(key, value)| (key, canonical(value))).collect();
            fields.sort_by(|(a, _), (b, _)| a.cmp(b));
            Value::Object(fields.into_iter().collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(canonical).collect()),
        Value::Number(number) => Value::Number(whole(number)),
        other => other,
    }
}

fn whole(number: Number) -> Number {
    match number.as_f64() {
        Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 9.1e15 => {
            // infallible: a whole number of this size converts exactly.
            #[allow(clippy::cast_possible_truncation)]
            Number::from(float as i64)
        }
        _ => number,
    }
}

fn file(crd: &Value) -> Result<(String, String), GenerateError> {
    let text = |pointer: &str| crd.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let yaml = serde_saphyr::to_string(crd)
        .map_err(|source| GenerateError::Yaml { kind: text("/spec/names/kind").to_owned(), source })?;
    let name = format!("{}.yaml", text("/metadata/name"));
    Ok((name, format!("{HEADER}{yaml}")))
}

const HEADER: &str = "# Generated from the types of processhub-crds by `cargo xtask generate`.\n";

//! The cases, judged without a cluster: the schema by the few keywords that ours use, the rules by the same CEL.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use kube_cel::Validator;
use serde_json::json;

use super::*;
use crate::generate::crds;

/// The schema of a kind. kube-cel knows of a root's metadata what the schema says, the API server always the name.
fn schema(kind: &Value) -> &'static Value {
    static SCHEMAS: LazyLock<Vec<(Value, Value)>> = LazyLock::new(|| {
        let schema = |crd: &Value| {
            let mut schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
            schema["properties"]["metadata"] =
                json!({ "type": "object", "properties": { "name": { "type": "string" } } });
            (crd["spec"]["names"]["kind"].clone(), schema)
        };
        crds().unwrap().iter().map(schema).collect()
    });
    &SCHEMAS.iter().find(|(of, _)| of == kind).unwrap().1
}

/// What the API server would say, line by line.
fn refusals(case: &Case) -> Vec<String> {
    let schema = schema(&case.new["kind"]);
    let mut found = Vec::new();
    judge(schema, &case.new, "", &mut found);
    if found.is_empty()
        && let Err(errors) = Validator::new().validate(schema, &case.new, case.old.as_ref())
    {
        found.extend(errors.iter().map(ToString::to_string));
    }
    found
}

fn check(case: &Case) {
    let found = refusals(case);
    match &case.expect {
        Expect::Accepted => assert!(found.is_empty(), "{}: {found:?}", case.name),
        Expect::Refused(words) => {
            assert!(
                found.iter().any(|line| line.contains(words.as_str())),
                "{}: {words} in {found:?}",
                case.name
            );
        }
    }
}

#[test]
fn every_rule_accepts_and_refuses_what_it_should() {
    for case in rules() {
        check(&case);
    }
}

#[test]
fn every_rule_has_a_case_that_it_alone_refuses() {
    let refused: BTreeSet<String> =
        rules().iter().map(refusals).filter(|found| found.len() == 1).flatten().collect();
    let mut count = 0;
    for crd in crds().unwrap() {
        let schema = crd.pointer("/spec/versions/0/schema/openAPIV3Schema").unwrap();
        let root = schema["x-kubernetes-validations"].as_array().unwrap().clone();
        let items = schema.pointer("/properties/spec/properties/processes/items/x-kubernetes-validations");
        for rule in root.iter().chain(items.and_then(Value::as_array).into_iter().flatten()) {
            let message = rule["message"].as_str().unwrap();
            assert!(refused.iter().any(|line| line.contains(message)), "no case for: {message}");
            count += 1;
        }
    }
    assert_eq!(count, 17);
}

#[test]
fn every_field_beyond_its_bounds_is_refused_by_name() {
    let cases = beyond_bounds().unwrap();
    assert!(cases.len() > 200, "{}", cases.len());
    for case in cases {
        check(&case);
    }
}

#[test]
fn the_replication_refusal_is_the_seeds_word_and_nothing_else() {
    let case = rules().into_iter().find(|case| case.name == "replication with hand-over").unwrap();
    assert_eq!(refusals(&case), [".spec.migration.handover: handover_with_replication_not_supported"]);
}

/// The part of a structural schema that ours use. Null is left to the pruning of the API server.
fn judge(schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    let mut say = |what: &str| found.push(format!("{path}: {what}"));
    let number = |key: &str| schema.get(key).and_then(Value::as_i64);
    if value.is_null() {
        return;
    }
    let right_type = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("boolean") => value.is_boolean(),
        _ => true,
    };
    if !right_type {
        return say("wrong type");
    }
    if let Some(words) = schema["enum"].as_array()
        && !words.contains(value)
    {
        say("unsupported value");
    }
    if let Some(integer) = value.as_i64() {
        if number("minimum").is_some_and(|minimum| integer < minimum) {
            say("too small");
        }
        if number("maximum").is_some_and(|maximum| integer > maximum) {
            say("too large");
        }
    }
    let length = match value {
        Value::String(text) => Some(("minLength", "maxLength", text.chars().count())),
        Value::Array(items) => Some(("minItems", "maxItems", items.len())),
        Value::Object(fields) => Some(("minProperties", "maxProperties", fields.len())),
        _ => None,
    };
    if let Some((least, most, length)) = length {
        let length = i64::try_from(length).unwrap();
        if number(least).is_some_and(|least| length < least) || number(most).is_some_and(|most| length > most)
        {
            say("wrong length");
        }
    }
    if let (Some(pattern), Some(text)) = (schema["pattern"].as_str(), value.as_str())
        && !regex::Regex::new(pattern).unwrap().is_match(text)
    {
        say("wrong characters");
    }
    judge_children(schema, value, path, found);
}

fn judge_children(schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if value.get(name).is_none() {
            found.push(format!("{}: required", below(name)));
        }
    }
    let open =
        schema.get("x-kubernetes-preserve-unknown-fields").is_some() || schema.get("properties").is_none();
    for (name, child) in value.as_object().into_iter().flatten() {
        let known = schema["properties"].get(name).or(schema.get("additionalProperties"));
        match known {
            Some(schema) => judge(schema, child, &below(name), found),
            None if open
                || (path.is_empty() && ["apiVersion", "kind", "metadata"].contains(&name.as_str())) => {}
            None => found.push(format!("{}: unknown field", below(name))),
        }
    }
    let mut keys = BTreeSet::new();
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        judge(&schema["items"], item, &format!("{path}[{index}]"), found);
        let key = schema["x-kubernetes-list-map-keys"][0].as_str();
        if key.is_some_and(|key| !keys.insert(item[key].to_string())) {
            found.push(format!("{path}[{index}]: Duplicate value"));
        }
    }
}

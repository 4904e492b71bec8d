//! Structural schemas of custom kinds: unknown fields, defaults, and the OpenAPI checks.

use super::error::{Cause, type_name};
use regex::Regex;
use serde_json::{Map, Value};

/// Removes what the schema does not know and returns the paths of what was removed.
pub fn prune(schema: &Value, object: &mut Value) -> Vec<String> {
    let mut removed = Vec::new();
    walk(schema, object, "", true, &mut removed);
    removed
}

fn walk(schema: &Value, value: &mut Value, path: &str, resource: bool, removed: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            let resource = resource || is_set(schema, "x-kubernetes-embedded-resource");
            let open = is_set(schema, "x-kubernetes-preserve-unknown-fields");
            let properties = schema.get("properties").and_then(Value::as_object);
            let additional = schema.get("additionalProperties");
            map.retain(|field, inner| {
                let below = join(path, field);
                if resource && ["apiVersion", "kind", "metadata"].contains(&field.as_str()) {
                    return true;
                }
                match (properties.and_then(|p| p.get(field)), additional) {
                    (Some(known), _) => walk(known, inner, &below, false, removed),
                    (None, Some(Value::Bool(true))) => {}
                    (None, Some(rest @ Value::Object(_))) => walk(rest, inner, &below, false, removed),
                    (None, _) if open => {}
                    (None, _) => {
                        removed.push(below);
                        return false;
                    }
                }
                true
            });
        }
        Value::Array(items) => {
            if let Some(schema) = schema.get("items") {
                for (index, item) in items.iter_mut().enumerate() {
                    walk(schema, item, &format!("{path}[{index}]"), false, removed);
                }
            }
        }
        _ => {}
    }
}

/// Fills in the defaults of absent fields, outermost first. A null counts as absent where the schema does not allow it.
pub fn default(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (field, known) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
                if !is_set(known, "nullable") && map.get(field).is_some_and(Value::is_null) {
                    map.remove(field);
                }
                if let Some(value) = known.get("default")
                    && !map.contains_key(field)
                {
                    map.insert(field.clone(), value.clone());
                }
                if let Some(inner) = map.get_mut(field) {
                    default(known, inner);
                }
            }
            if let Some(rest @ Value::Object(_)) = schema.get("additionalProperties") {
                map.values_mut().for_each(|inner| default(rest, inner));
            }
        }
        Value::Array(items) => {
            if let Some(schema) = schema.get("items") {
                items.iter_mut().for_each(|item| default(schema, item));
            }
        }
        _ => {}
    }
}

/// Everything in which the value breaks its schema.
pub fn check(schema: &Value, value: &Value, path: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    check_into(schema, value, path, &mut causes);
    causes
}

fn check_into(schema: &Value, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    if value.is_null() && is_set(schema, "nullable") {
        return;
    }
    if is_set(schema, "x-kubernetes-int-or-string") {
        if !value.is_string() && !value.is_i64() && !value.is_u64() {
            causes.push(Cause::wrong_type(path, value, "integer or string"));
        }
    } else if let Some(expected) = schema.get("type").and_then(Value::as_str)
        && !has_type(value, expected)
    {
        causes.push(Cause::wrong_type(path, value, expected));
        return;
    }
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        causes.push(Cause::unsupported(path, value, allowed));
    }
    match value {
        Value::Number(_) => number(schema, value, path, causes),
        Value::String(text) => string(schema, value, text, path, causes),
        Value::Array(items) => array(schema, value, items, path, causes),
        Value::Object(map) => object(schema, value, map, path, causes),
        Value::Null | Value::Bool(_) => {}
    }
    combinations(schema, value, path, causes);
}

fn has_type(value: &Value, expected: &str) -> bool {
    match (expected, type_name(value)) {
        ("number", "integer") => true,
        ("integer", "number") => value.as_f64().is_some_and(|f| f.fract() == 0.0),
        (expected, found) => expected == found,
    }
}

fn number(schema: &Value, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    let Some(n) = value.as_f64() else { return };
    let shown = |bound: &Value| bound.as_i64().map_or_else(|| bound.to_string(), |b| b.to_string());
    if let Some(bound) = schema.get("minimum")
        && let Some(least) = bound.as_f64()
    {
        let exclusive = is_set(schema, "exclusiveMinimum");
        if n < least || (exclusive && n <= least) {
            let words =
                if exclusive { "should be greater than" } else { "should be greater than or equal to" };
            causes.push(Cause::invalid(path, value, format!("{path} in body {words} {}", shown(bound))));
        }
    }
    if let Some(bound) = schema.get("maximum")
        && let Some(most) = bound.as_f64()
    {
        let exclusive = is_set(schema, "exclusiveMaximum");
        if n > most || (exclusive && n >= most) {
            let words = if exclusive { "should be less than" } else { "should be less than or equal to" };
            causes.push(Cause::invalid(path, value, format!("{path} in body {words} {}", shown(bound))));
        }
    }
    let range = match schema.get("format").and_then(Value::as_str) {
        Some("int32") => i64::from(i32::MIN)..=i64::from(i32::MAX),
        _ => i64::MIN..=i64::MAX,
    };
    if value.as_i64().is_some_and(|i| !range.contains(&i)) {
        causes.push(Cause::invalid(
            path,
            value,
            format!("{path} in body must be of type int32: \"integer\""),
        ));
    }
    if let Some(step) = schema.get("multipleOf").and_then(Value::as_f64)
        && (n / step).fract() != 0.0
    {
        causes.push(Cause::invalid(path, value, format!("{path} in body should be a multiple of {step}")));
    }
}

fn string(schema: &Value, value: &Value, text: &str, path: &str, causes: &mut Vec<Cause>) {
    let length = text.chars().count() as u64;
    if let Some(most) = bound(schema, "maxLength")
        && length > most
    {
        causes.push(Cause::too_long(path, most));
    }
    if let Some(least) = bound(schema, "minLength")
        && length < least
    {
        let words = format!("{path} in body should be at least {least} chars long");
        causes.push(Cause::invalid(path, value, words));
    }
    if let Some(pattern) = schema.get("pattern").and_then(Value::as_str)
        && !Regex::new(pattern).is_ok_and(|r| r.is_match(text))
    {
        causes.push(Cause::invalid(path, value, format!("{path} in body should match '{pattern}'")));
    }
    if schema.get("format").and_then(Value::as_str) == Some("date-time")
        && text.parse::<jiff::Timestamp>().is_err()
    {
        causes.push(Cause::invalid(
            path,
            value,
            format!("{path} in body must be of type date-time: \"{text}\""),
        ));
    }
}

fn array(schema: &Value, value: &Value, items: &[Value], path: &str, causes: &mut Vec<Cause>) {
    if let Some(most) = bound(schema, "maxItems")
        && items.len() as u64 > most
    {
        causes.push(Cause::too_many(path, items.len(), most));
    }
    if let Some(least) = bound(schema, "minItems")
        && (items.len() as u64) < least
    {
        let words = format!("{path} in body should have at least {least} items");
        causes.push(Cause::invalid(path, value, words));
    }
    let keys: Option<Vec<&str>> = match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("set") => Some(Vec::new()),
        Some("map") => {
            let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
            Some(keys.into_iter().flatten().filter_map(Value::as_str).collect())
        }
        _ => None,
    };
    if let Some(keys) = keys {
        for (index, item) in items.iter().enumerate() {
            let same = |other: &Value| match keys.as_slice() {
                [] => other == item,
                keys => keys.iter().all(|k| other.get(k) == item.get(k)),
            };
            if items.iter().take(index).any(same) {
                let key: Map<String, Value> =
                    keys.iter().filter_map(|&k| item.get(k).map(|v| (k.to_owned(), v.clone()))).collect();
                let shown = if keys.is_empty() {
                    item.clone()
                } else {
                    Value::String(Value::Object(key).to_string())
                };
                causes.push(Cause::duplicate(format!("{path}[{index}]"), &shown));
            }
        }
    }
    if let Some(schema) = schema.get("items") {
        for (index, item) in items.iter().enumerate() {
            check_into(schema, item, &format!("{path}[{index}]"), causes);
        }
    }
}

fn object(schema: &Value, value: &Value, map: &Map<String, Value>, path: &str, causes: &mut Vec<Cause>) {
    for field in
        schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
    {
        if !map.contains_key(field) {
            causes.push(Cause::required(join(path, field), ""));
        }
    }
    if let Some(most) = bound(schema, "maxProperties")
        && map.len() as u64 > most
    {
        causes.push(Cause::too_many(path, map.len(), most));
    }
    if let Some(least) = bound(schema, "minProperties")
        && (map.len() as u64) < least
    {
        let words = format!("{path} in body should have at least {least} properties");
        causes.push(Cause::invalid(path, value, words));
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    let additional = schema.get("additionalProperties").filter(|a| a.is_object());
    for (field, inner) in map {
        if let Some(schema) = properties.and_then(|p| p.get(field)).or(additional) {
            check_into(schema, inner, &join(path, field), causes);
        }
    }
}

fn combinations(schema: &Value, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    let branches = |word: &str| schema.get(word).and_then(Value::as_array);
    let holds = |schema: &Value| check(schema, value, path).is_empty();
    for branch in branches("allOf").into_iter().flatten() {
        check_into(branch, value, path, causes);
    }
    if branches("anyOf").is_some_and(|list| !list.iter().any(holds)) {
        causes.push(Cause::invalid(
            path,
            value,
            format!("{path} in body must validate at least one schema (anyOf)"),
        ));
    }
    if branches("oneOf").is_some_and(|list| list.iter().filter(|s| holds(s)).count() != 1) {
        causes.push(Cause::invalid(
            path,
            value,
            format!("{path} in body must validate one and only one schema (oneOf)"),
        ));
    }
    if schema.get("not").is_some_and(holds) {
        causes.push(Cause::invalid(
            path,
            value,
            format!("{path} in body must not validate the schema (not)"),
        ));
    }
}

fn is_set(schema: &Value, word: &str) -> bool {
    schema.get(word).and_then(Value::as_bool).unwrap_or_default()
}

fn bound(schema: &Value, word: &str) -> Option<u64> {
    schema.get(word).and_then(Value::as_u64)
}

fn join(path: &str, field: &str) -> String {
    if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schema() -> Value {
        json!({"type": "object", "required": ["spec"], "properties": {"spec": {
        "type": "object", "required": ["name"],
        "properties": {
            "name": {"type": "string", "maxLength": 4, "pattern": "^[a-z]+$"},
            "replicas": {"type": "integer", "minimum": 0, "maximum": 3, "default": 1},
            "mode": {"type": "string", "enum": ["A", "B"]},
            "items": {"type": "array", "maxItems": 2, "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "properties": {"name": {"type": "string"}}}},
            "config": {"type": "object", "additionalProperties": {"type": "string"}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "port": {"x-kubernetes-int-or-string": true}
        }}}})
    }

    #[test]
    fn a_null_that_is_not_allowed_is_an_absent_field() {
        let mut object = json!({"spec": {"name": "a", "replicas": null, "mode": null}});
        default(&schema(), &mut object);
        assert_eq!(object, json!({"spec": {"name": "a", "replicas": 1}}));
    }

    fn refusals(spec: Value) -> Vec<String> {
        let causes = check(&schema(), &json!({"spec": spec}), "");
        causes.into_iter().map(|c| format!("{}: {}", c.field, c.message)).collect()
    }

    #[test]
    fn unknown_fields_are_removed_and_named() {
        let mut object = json!({"apiVersion": "a", "kind": "k", "metadata": {"name": "x"}, "top": 1,
            "spec": {"name": "a", "x": 1, "free": {"y": 1}, "config": {"z": "1"}, "items": [{"name": "a", "q": 1}]}});
        assert_eq!(prune(&schema(), &mut object), ["spec.items[0].q", "spec.x", "top"]);
        assert_eq!(object["spec"]["free"]["y"], 1);
        assert!(object["spec"].get("x").is_none());
    }

    #[test]
    fn defaults_fill_absent_fields_only() {
        let mut object = json!({"spec": {"name": "a"}});
        default(&schema(), &mut object);
        assert_eq!(object["spec"]["replicas"], 1);
        let mut set = json!({"spec": {"replicas": 3}});
        default(&schema(), &mut set);
        assert_eq!(set["spec"]["replicas"], 3);
    }

    #[test]
    fn every_check_refuses_with_the_servers_words() {
        assert!(refusals(json!({"name": "ab", "port": "http"})).is_empty());
        assert_eq!(refusals(json!({})), ["spec.name: Required value"]);
        for (spec, expected) in [
            (json!({"name": "abcde"}), "spec.name: Too long: may not be more than 4 bytes"),
            (
                json!({"name": "A"}),
                "spec.name: Invalid value: \"A\": spec.name in body should match '^[a-z]+$'",
            ),
            (
                json!({"name": "a", "replicas": 4}),
                "spec.replicas: Invalid value: 4: spec.replicas in body should be less than or equal to 3",
            ),
            (
                json!({"name": "a", "replicas": "1"}),
                "spec.replicas: Invalid value: \"1\": spec.replicas in body must be of type integer: \"string\"",
            ),
            (
                json!({"name": "a", "mode": "C"}),
                "spec.mode: Unsupported value: \"C\": supported values: \"A\", \"B\"",
            ),
            (
                json!({"name": "a", "items": [{}, {}, {}]}),
                "spec.items: Too many: 3: must have at most 2 items",
            ),
        ] {
            assert!(refusals(spec).contains(&expected.to_owned()), "{expected}");
        }
    }

    #[test]
    fn entries_of_a_map_list_are_unique() {
        let found = refusals(json!({"name": "a", "items": [{"name": "x"}, {"name": "x"}]}));
        assert_eq!(found, [r#"spec.items[1]: Duplicate value: "{\"name\":\"x\"}""#]);
    }
}

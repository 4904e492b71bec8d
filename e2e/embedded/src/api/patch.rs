//! The four kinds of patches, as functions from an object to an object.

use super::error::{ApiError, Reason, Result};
use serde_json::{Map, Value};

/// The kinds of patches, by their content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    /// RFC 6902.
    Json,
    /// RFC 7386.
    Merge,
    /// Merge with lists merged by key; for built-in kinds only.
    Strategic,
    /// Server-side apply.
    Apply,
}

impl PatchKind {
    /// The kind that a content type names.
    ///
    /// # Errors
    /// 415 for any other content type.
    pub fn of(content_type: &str) -> Result<Self> {
        match content_type.split(';').next().unwrap_or_default().trim() {
            "application/json-patch+json" => Ok(Self::Json),
            "application/merge-patch+json" => Ok(Self::Merge),
            "application/strategic-merge-patch+json" => Ok(Self::Strategic),
            "application/apply-patch+yaml" => Ok(Self::Apply),
            other => Err(ApiError::new(
                Reason::UnsupportedMediaType,
                format!(
                    "the body of the request was in an unknown format - accepted media types include: \
                     application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml, \
                     got {other:?}"
                ),
            )),
        }
    }
}

/// Which fields identify the entries of a list, given the path of field names that leads to it; `None`: the list is one
/// value. An empty answer means a set of scalars.
pub type MergeKeys<'a> = &'a dyn Fn(&[&str], &[Value]) -> Option<Vec<String>>;

/// Applies a JSON patch.
///
/// # Errors
/// 400 for what is no patch, 422 for an operation that does not apply, a failed `test` included.
pub fn json(object: &Value, patch: &Value) -> Result<Value> {
    let patch: json_patch::Patch = serde_json::from_value(patch.clone())
        .map_err(|e| ApiError::bad_request(format!("error decoding patch: {e}")))?;
    let mut object = object.clone();
    json_patch::patch(&mut object, &patch).map_err(|e| {
        let words = format!("the server rejected our request due to an error in our request: {e}");
        ApiError::new(Reason::Invalid, words)
    })?;
    Ok(object)
}

/// Applies a JSON merge patch.
pub fn merge(object: &Value, patch: &Value) -> Value {
    let mut object = object.clone();
    json_patch::merge(&mut object, patch);
    object
}

/// Applies a strategic merge patch: a merge patch in which lists with keys are merged by entry, with the directives
/// `$patch`, `$deleteFromPrimitiveList`, `$setElementOrder` and `$retainKeys`.
pub fn strategic(object: &Value, patch: &Value, keys: MergeKeys<'_>) -> Value {
    combine(object.clone(), patch, &mut Vec::new(), keys)
}

fn combine<'p>(object: Value, patch: &'p Value, path: &mut Vec<&'p str>, keys: MergeKeys<'_>) -> Value {
    let Value::Object(changes) = patch else { return patch.clone() };
    let mut target = match object {
        Value::Object(map) if changes.get("$patch").and_then(Value::as_str) != Some("replace") => map,
        _ => Map::new(),
    };
    if let Some(retained) = changes.get("$retainKeys").and_then(Value::as_array) {
        target.retain(|key, _| retained.iter().any(|r| r.as_str() == Some(key)));
    }
    for (key, change) in changes {
        if let Some(field) = key.strip_prefix("$deleteFromPrimitiveList/") {
            let gone = change.as_array().map(Vec::as_slice).unwrap_or_default();
            if let Some(Value::Array(items)) = target.get_mut(field) {
                items.retain(|item| !gone.contains(item));
            }
            continue;
        }
        if key.starts_with('$') {
            continue;
        }
        path.push(key);
        match change {
            Value::Null => {
                target.remove(key);
            }
            Value::Array(entries) => {
                let present = match target.remove(key) {
                    Some(Value::Array(items)) => items,
                    _ => Vec::new(),
                };
                target.insert(key.clone(), Value::Array(combine_lists(present, entries, path, keys)));
            }
            Value::Object(fields) if fields.get("$patch").and_then(Value::as_str) == Some("delete") => {
                target.remove(key);
            }
            other => {
                let present = target.remove(key).unwrap_or(Value::Null);
                target.insert(key.clone(), combine(present, other, path, keys));
            }
        }
        path.pop();
    }
    Value::Object(target)
}

fn combine_lists<'p>(
    mut present: Vec<Value>,
    entries: &'p [Value],
    path: &mut Vec<&'p str>,
    keys: MergeKeys<'_>,
) -> Vec<Value> {
    let sample: &[Value] = if entries.is_empty() { &present } else { entries };
    let directive = |entry: &Value| entry.get("$patch").and_then(Value::as_str).map(str::to_owned);
    let plain = || entries.iter().filter(|e| directive(e).is_none()).cloned();
    let Some(fields) = keys(path, sample) else { return plain().collect() };
    if entries.iter().any(|e| directive(e).as_deref() == Some("replace")) {
        return plain().collect();
    }
    if fields.is_empty() {
        for entry in entries {
            if !present.contains(entry) {
                present.push(entry.clone());
            }
        }
        return present;
    }
    for entry in entries {
        let same = |item: &Value| fields.iter().all(|f| item.get(f) == entry.get(f));
        let position = present.iter().position(same);
        match (directive(entry).as_deref(), position) {
            (Some("delete"), Some(index)) => {
                present.remove(index);
            }
            (Some("delete"), None) => {}
            (_, Some(index)) => {
                let item = std::mem::take(&mut present[index]);
                present[index] = combine(item, entry, path, keys);
            }
            (_, None) => present.push(combine(Value::Null, entry, path, keys)),
        }
    }
    present
}

/// Server-side apply without ownership of fields: what the manager applied before and leaves out now is removed, the
/// rest is merged by the lists' keys. Conflicts between managers are not detected: the last one wins.
pub fn apply(object: &Value, before: Option<&Value>, now: &Value, keys: MergeKeys<'_>) -> Value {
    let mut base = object.clone();
    if let Some(before) = before {
        remove_dropped(&mut base, before, now, &mut Vec::new(), keys);
    }
    strategic(&base, now, keys)
}

fn remove_dropped<'p>(
    object: &mut Value,
    before: &'p Value,
    now: &Value,
    path: &mut Vec<&'p str>,
    keys: MergeKeys<'_>,
) {
    let (Value::Object(object), Value::Object(before)) = (object, before) else { return };
    for (field, old) in before {
        path.push(field);
        match (now.get(field), object.get_mut(field)) {
            (_, None) => {}
            // Other managers may own fields below: only what this one had set goes.
            (None, Some(present)) if present.is_object() && old.is_object() => {
                remove_dropped(present, old, &Value::Null, path, keys);
                if present.as_object().is_some_and(Map::is_empty) {
                    object.remove(field);
                }
            }
            (None, Some(_)) => {
                object.remove(field);
            }
            (Some(new), Some(Value::Array(items))) => {
                let (old, new) = (old.as_array(), new.as_array());
                if let (Some(old), Some(new)) = (old, new)
                    && let Some(fields) = keys(path, old)
                {
                    let same = |a: &Value, b: &Value| match fields.is_empty() {
                        true => a == b,
                        false => fields.iter().all(|f| a.get(f) == b.get(f)),
                    };
                    let dropped = |item: &Value| {
                        old.iter().any(|o| same(o, item)) && !new.iter().any(|n| same(n, item))
                    };
                    items.retain(|item| !dropped(item));
                }
            }
            (Some(new), Some(present)) => remove_dropped(present, old, new, path, keys),
        }
        path.pop();
    }
}

/// The merge keys of the built-in kinds' lists.
pub fn builtin_keys(path: &[&str], entries: &[Value]) -> Option<Vec<String>> {
    let has = |field: &str| entries.iter().any(|e| e.get(field).is_some());
    let key = match path.last().copied()? {
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "volumes"
        | "env"
        | "imagePullSecrets"
        | "secrets" => "name",
        "ports" if has("containerPort") => "containerPort",
        "ports" => "port",
        "volumeMounts" => "mountPath",
        "conditions" | "addresses" => "type",
        "taints" => "key",
        "ownerReferences" => "uid",
        "hostAliases" | "podIPs" => "ip",
        "topologySpreadConstraints" => "topologyKey",
        "finalizers" => return Some(Vec::new()),
        _ => return None,
    };
    Some(vec![key.to_owned()])
}

/// The merge keys that a custom resource's schema declares (`x-kubernetes-list-type`).
pub fn schema_keys(schema: &Value, path: &[&str], entries: &[Value]) -> Option<Vec<String>> {
    if path.first() == Some(&"metadata") {
        return builtin_keys(path, entries);
    }
    let mut node = schema;
    for field in path {
        if let Some(items) = node.get("items") {
            node = items;
        }
        node = node.pointer(&format!("/properties/{field}")).or_else(|| node.get("additionalProperties"))?;
    }
    match node.get("x-kubernetes-list-type")?.as_str()? {
        "map" => {
            let keys = node.get("x-kubernetes-list-map-keys")?.as_array()?;
            Some(keys.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        }
        "set" => Some(Vec::new()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_failed_test_of_a_json_patch_is_invalid() {
        let patch = json!([{"op": "test", "path": "/a", "value": 1}]);
        assert_eq!(super::json(&json!({"a": 2}), &patch).unwrap_err().reason, Reason::Invalid);
    }

    #[test]
    fn strategic_patches_merge_lists_by_key() {
        let object = json!({"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}],
            "tolerations": [{"key": "x"}]}});
        let patch = json!({"spec": {
            "$setElementOrder/containers": [{"name": "a"}, {"name": "c"}],
            "containers": [{"name": "a", "image": "2"}, {"name": "b", "$patch": "delete"}, {"name": "c"}],
            "tolerations": [{"key": "y"}]}});
        assert_eq!(
            strategic(&object, &patch, &builtin_keys),
            json!({"spec": {"containers": [{"name": "a", "image": "2"}, {"name": "c"}],
                "tolerations": [{"key": "y"}]}})
        );
    }

    #[test]
    fn directives_for_maps_and_scalars() {
        let object = json!({"metadata": {"finalizers": ["a", "b"]}, "x": {"a": 1, "b": 2}});
        let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]},
            "x": {"$patch": "replace", "c": 3}});
        assert_eq!(
            strategic(&object, &patch, &builtin_keys),
            json!({"metadata": {"finalizers": ["b", "c"]}, "x": {"c": 3}})
        );
    }

    #[test]
    fn apply_removes_what_the_manager_dropped_and_keeps_what_others_set() {
        let before = json!({"spec": {"a": 1, "b": 1}, "metadata": {"labels": {"mine": "1"}}});
        let object =
            json!({"spec": {"a": 1, "b": 1, "c": 1}, "metadata": {"labels": {"mine": "1", "other": "1"}}});
        let now = json!({"spec": {"a": 2}, "metadata": {"labels": {}}});
        assert_eq!(
            apply(&object, Some(&before), &now, &builtin_keys),
            json!({"spec": {"a": 2, "c": 1}, "metadata": {"labels": {"other": "1"}}})
        );
    }

    #[test]
    fn a_schema_names_the_keys_of_its_lists() {
        let schema = json!({"properties": {"status": {"properties": {"conditions": {
            "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"], "items": {}}}}}});
        assert_eq!(schema_keys(&schema, &["status", "conditions"], &[]), Some(vec!["type".to_owned()]));
        assert_eq!(schema_keys(&schema, &["status", "history"], &[]), None);
    }
}

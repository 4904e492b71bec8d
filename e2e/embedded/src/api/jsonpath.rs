//! The JSON paths of printer columns: fields, indices, `[*]`, and filters that compare one field with a text.

use serde_json::Value;

/// The values at a path such as `.status.conditions[?(@.type=="Ready")].reason`; none where nothing is found.
pub fn find<'a>(root: &'a Value, path: &str) -> Vec<&'a Value> {
    let mut found = vec![root];
    let mut rest = path.trim_start_matches('{').trim_end_matches('}').trim_start_matches('$');
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let Some(end) = after.find(']') else { return Vec::new() };
            found = select(&found, &after[..end]);
            rest = &after[end + 1..];
        } else {
            let after = rest.trim_start_matches('.');
            let end = field_end(after);
            let name = after[..end].replace('\\', "");
            found = found.into_iter().filter_map(|v| v.get(&name)).collect();
            rest = &after[end..];
        }
    }
    found
}

fn field_end(text: &str) -> usize {
    let mut escaped = false;
    for (index, c) in text.char_indices() {
        match c {
            '\\' => escaped = true,
            '.' | '[' if !escaped => return index,
            _ => escaped = false,
        }
    }
    text.len()
}

fn select<'a>(found: &[&'a Value], inside: &str) -> Vec<&'a Value> {
    if inside == "*" {
        let items = found.iter().flat_map(|v| v.as_array().into_iter().flatten());
        return items.collect();
    }
    if let Some(filter) = inside.strip_prefix("?(").and_then(|f| f.strip_suffix(')')) {
        let Some((left, right)) = filter.split_once("==") else { return Vec::new() };
        let wanted = right.trim().trim_matches(['"', '\'']);
        let path = left.trim().trim_start_matches('@');
        let items = found.iter().flat_map(|v| v.as_array().into_iter().flatten());
        return items.filter(|item| find(item, path).iter().any(|v| shown(v) == wanted)).collect();
    }
    if let Ok(index) = inside.parse::<usize>() {
        return found.iter().filter_map(|v| v.get(index)).collect();
    }
    let name = inside.trim_matches(['"', '\'']);
    found.iter().filter_map(|v| v.get(name)).collect()
}

/// A value as a cell shows it.
pub fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_of_printer_columns() {
        let object = json!({"metadata": {"labels": {"a.b/c": "x"}}, "status": {"list": [1, 2],
            "conditions": [{"type": "A", "reason": "no"}, {"type": "Ready", "reason": "Serving"}]}});
        let text = |path: &str| find(&object, path).into_iter().map(shown).collect::<Vec<_>>();
        assert_eq!(text(".status.conditions[?(@.type==\"Ready\")].reason"), ["Serving"]);
        assert_eq!(text(".status.conditions[?(@.type=='A')].reason"), ["no"]);
        assert_eq!(text(".status.list[*]"), ["1", "2"]);
        assert_eq!(text(".status.list[1]"), ["2"]);
        assert_eq!(text(".metadata.labels['a.b/c']"), ["x"]);
        assert_eq!(text(r".metadata.labels.a\.b/c"), ["x"]);
        assert!(text(".status.none.deeper").is_empty());
    }
}

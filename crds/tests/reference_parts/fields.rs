//! The fields of a resource, from its definition.

use std::collections::BTreeMap;

use processhub_crds::generate::crds;
use serde_json::Value;

use super::{head, line, row};

/// What the API server knows about below these is described by Kubernetes.
const NOT_OURS: [&str; 2] = ["spec.template", "conditions"];

/// Spec and status of a kind, then the rules that span fields.
pub fn table(kind: &str) -> String {
    let crd = crds().unwrap().into_iter().find(|crd| crd["spec"]["names"]["kind"] == kind).unwrap();
    let version = &crd["spec"]["versions"][0];
    let root = &version["schema"]["openAPIV3Schema"];
    let mut table =
        Table { text: head(&["field", "type and bounds", "default", "meaning"]), ..Table::default() };
    for part in ["spec", "status"] {
        table.walk(&root["properties"][part], part, false);
    }
    let Table { mut text, mut rules, .. } = table;
    collect_rules(root, &mut rules);
    text.push_str("\nRefused by the API server, beside values out of their bounds:\n\n");
    for rule in rules {
        text.push_str(&format!("* {}\n", line(&rule)));
    }
    let columns = version["additionalPrinterColumns"].as_array().unwrap();
    let names: Vec<_> =
        columns.iter().map(|column| column["name"].as_str().unwrap().to_uppercase()).collect();
    text.push_str(&format!("\nColumns of `kubectl get`: {}.\n", names.join(", ")));
    if let Some(fields) = version["selectableFields"].as_array() {
        let fields: Vec<_> = fields
            .iter()
            .map(|field| format!("`{}`", field["jsonPath"].as_str().unwrap().trim_start_matches('.')))
            .collect();
        text.push_str(&format!("\nFields for `--field-selector`: {}.\n", fields.join(", ")));
    }
    text
}

#[derive(Default)]
struct Table {
    text: String,
    rules: Vec<String>,
    /// Objects that have rows already, by what they are made of.
    known: BTreeMap<String, String>,
}

impl Table {
    fn walk(&mut self, node: &Value, path: &str, required: bool) {
        let known = match node.get("properties") {
            Some(properties) => self.known.get(&properties.to_string()).cloned(),
            None => None,
        };
        if path != "spec" && path != "status" {
            let kind = match &known {
                Some(other) => format!("object, as `{other}`"),
                None => bounds(node),
            };
            let default = if required { "required".to_owned() } else { default(node) };
            let description = node["description"].as_str().unwrap_or_default();
            self.text.push_str(&row(&[&format!("`{path}`"), &kind, &default, &line(description)]));
        }
        if known.is_some() || NOT_OURS.iter().any(|end| path.ends_with(end)) {
            return;
        }
        if let Some(properties) = node.get("properties") {
            self.known.insert(properties.to_string(), path.to_owned());
        }
        collect_rules(node, &mut self.rules);
        let (node, path) = match node.get("items") {
            Some(items) => (items, format!("{path}[]")),
            None => (node, path.to_owned()),
        };
        if path.ends_with("[]") {
            collect_rules(node, &mut self.rules);
        }
        let must: Vec<_> =
            node["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for (name, child) in node["properties"].as_object().into_iter().flatten() {
            // In a status, required says what the operator always writes, which is nobody's duty.
            let required = path.starts_with("spec") && must.contains(&name.as_str());
            self.walk(child, &format!("{path}.{name}"), required);
        }
    }
}

fn collect_rules(node: &Value, rules: &mut Vec<String>) {
    let found = node["x-kubernetes-validations"].as_array().into_iter().flatten();
    rules.extend(found.filter_map(|rule| rule["message"].as_str()).map(|message| format!("`{message}`")));
}

/// An object's default is made of its fields' own, which have rows of their own.
fn default(node: &Value) -> String {
    match node.get("default") {
        None | Some(Value::Object(_)) => String::new(),
        Some(Value::String(text)) => format!("`{text}`"),
        Some(other) => format!("`{other}`"),
    }
}

fn bounds(node: &Value) -> String {
    let kind = node["type"].as_str().unwrap();
    let number = |key: &str| node.get(key).and_then(Value::as_u64);
    if let Some(words) = node["enum"].as_array() {
        if words.len() > 8 {
            return "one of the reasons below".to_owned();
        }
        let words: Vec<_> = words.iter().map(|word| format!("`{}`", word.as_str().unwrap())).collect();
        return words.join(", ");
    }
    let range = |unit: &str, low: Option<u64>, high: Option<u64>| match (low, high) {
        (Some(low), Some(high)) if low > 0 => format!(", {low} to {high}{unit}"),
        (_, Some(high)) => format!(", at most {high}{unit}"),
        (_, None) => String::new(),
    };
    let bounds = match kind {
        "string" => range(" characters", number("minLength"), number("maxLength")),
        "array" => range(" entries", number("minItems"), number("maxItems")),
        "object" => range(" entries", None, number("maxProperties")),
        "integer" if number("maximum") == Some((1 << 53) - 1) => ", at least 0".to_owned(),
        "integer" => format!(", {} to {}", number("minimum").unwrap(), number("maximum").unwrap()),
        _ => String::new(),
    };
    let pattern = node["pattern"].as_str().map_or_else(String::new, |pattern| format!(", `{pattern}`"));
    let time = if node["format"] == "date-time" { ", a time" } else { "" };
    format!("{kind}{bounds}{pattern}{time}")
}

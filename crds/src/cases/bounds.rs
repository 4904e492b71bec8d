//! Every field beyond its bounds, one at a time, derived from the schema.

use serde_json::{Map, Value, json};

use super::{Case, Expect, hub, process};
use crate::generate::{GenerateError, crds};

/// An object with every field, for each kind, and for each field every way to leave its bounds: too small, too large,
/// too long, too many, empty, not a word of the enum, not of the type, unknown.
///
/// Unknown fields are refused where the request says `fieldValidation=Strict`, as `kubectl` does.
///
/// # Errors
/// When the schemas cannot be generated.
pub fn beyond_bounds() -> Result<Vec<Case>, GenerateError> {
    let mut cases = Vec::new();
    for (crd, whole, smallest) in crds()?
        .iter()
        .zip([hub::whole(), process::whole()])
        .zip([hub::smallest(), process::smallest()])
        .map(|((crd, whole), smallest)| (crd, whole, smallest))
    {
        let Some(schema) = crd.pointer("/spec/versions/0/schema/openAPIV3Schema") else { continue };
        for part in ["spec", "status"] {
            let probe = Probe { whole: &whole, smallest: &smallest, status: part == "status" };
            probe.descend(&schema["properties"][part], &mut vec![Step::Field(part.to_owned())], &mut cases);
        }
    }
    Ok(cases)
}

#[derive(Clone)]
enum Step {
    Field(String),
    /// The first of a list; the field is named with its index.
    First,
}

struct Probe<'a> {
    whole: &'a Value,
    smallest: &'a Value,
    status: bool,
}

impl Probe<'_> {
    fn descend(&self, schema: &Value, path: &mut Vec<Step>, cases: &mut Vec<Case>) {
        for (what, wrong) in wrong_values(schema) {
            self.push(path, what, wrong, cases);
        }
        if schema.get("x-kubernetes-preserve-unknown-fields").is_some() || is_template(path) {
            return;
        }
        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            path.push(Step::Field("unknownField".to_owned()));
            self.push(path, "an unknown field", json!(1), cases);
            path.pop();
            for (name, child) in properties {
                path.push(Step::Field(name.clone()));
                self.descend(child, path, cases);
                path.pop();
            }
        }
        if let Some(items) = schema.get("items") {
            path.push(Step::First);
            self.descend(items, path, cases);
            path.pop();
        }
    }

    fn push(&self, path: &[Step], what: &str, wrong: Value, cases: &mut Vec<Case>) {
        let mut new = self.whole.clone();
        if let Some(place) = at(&mut new, path) {
            *place = wrong;
            cases.push(Case {
                name: format!("{}: {what}", text(path)),
                old: self.status.then(|| self.smallest.clone()),
                new,
                status: self.status,
                expect: Expect::Refused(text(path)),
            });
        }
    }
}

/// The pods that the API server dry-runs are the measure of a template's own fields.
fn is_template(path: &[Step]) -> bool {
    matches!(path, [.., Step::Field(template), Step::Field(spec)] if template == "template" && spec == "spec")
}

fn at<'a>(object: &'a mut Value, path: &[Step]) -> Option<&'a mut Value> {
    path.iter().try_fold(object, |value, step| match step {
        Step::Field(name) => Some(value.as_object_mut()?.entry(name).or_insert(Value::Null)),
        Step::First => value.get_mut(0),
    })
}

fn text(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Field(name) if text.is_empty() => text.push_str(name),
            Step::Field(name) => text.push_str(&format!(".{name}")),
            Step::First => text.push_str("[0]"),
        }
    }
    text
}

fn wrong_values(schema: &Value) -> Vec<(&'static str, Value)> {
    let bound = |key: &str| schema.get(key).and_then(Value::as_i64);
    let size =
        |key: &str| schema.get(key).and_then(Value::as_u64).and_then(|size| usize::try_from(size).ok());
    let mut wrong = vec![("another type", another_type(schema))];
    if let Some(minimum) = bound("minimum") {
        wrong.push(("too small", json!(minimum - 1)));
    }
    if let Some(maximum) = bound("maximum") {
        wrong.push(("too large", json!(maximum + 1)));
    }
    if let Some(longest) = size("maxLength") {
        wrong.push(("too long", json!("x".repeat(longest + 1))));
    }
    if size("minLength").is_some_and(|shortest| shortest > 0) {
        wrong.push(("empty", json!("")));
    }
    if schema.get("pattern").is_some() {
        wrong.push(("of other characters", json!("a b")));
    }
    if schema.get("enum").is_some() {
        wrong.push(("not one of the words", json!("Nonsense")));
    }
    if let Some(most) = size("maxProperties") {
        let many: Map<_, _> = (0..=most).map(|index| (format!("k{index}"), json!("v"))).collect();
        wrong.push(("too many entries", Value::Object(many)));
    }
    if let Some(most) = size("maxItems") {
        let item = |index: usize| example(&schema["items"], index);
        wrong.push(("too many items", (0..=most).map(item).collect()));
    }
    wrong
}

fn another_type(schema: &Value) -> Value {
    match schema["type"].as_str() {
        Some("string") => json!(true),
        _ => json!("text"),
    }
}

/// A value that the schema accepts; different ones for different indexes where text can differ.
fn example(schema: &Value, index: usize) -> Value {
    match schema["type"].as_str() {
        Some("object") => {
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            required.map(|name| (name.to_owned(), example(&schema["properties"][name], index))).collect()
        }
        Some("integer") => schema.get("minimum").cloned().unwrap_or(json!(0)),
        Some("boolean") => json!(false),
        _ if schema["format"] == "date-time" => json!("2026-01-01T00:00:00Z"),
        _ => schema["enum"].get(0).cloned().unwrap_or_else(|| json!(format!("x{index}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The schema's fields that an object does not have, as paths.
    fn missing(schema: &Value, value: Option<&Value>, path: &str, found: &mut Vec<String>) {
        let Some(value) = value else { return found.push(path.to_owned()) };
        if path.ends_with(".template.spec") {
            return;
        }
        for (name, child) in schema["properties"].as_object().into_iter().flatten() {
            missing(child, value.get(name), &format!("{path}.{name}"), found);
        }
        if let Some(items) = schema.get("items") {
            missing(items, value.get(0), &format!("{path}[0]"), found);
        }
    }

    #[test]
    fn the_whole_objects_have_every_field_so_that_every_field_is_probed() {
        for (crd, whole) in crds().unwrap().iter().zip([hub::whole(), process::whole()]) {
            let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
            let mut found = Vec::new();
            for part in ["spec", "status"] {
                missing(&schema[part], whole.get(part), part, &mut found);
            }
            assert_eq!(found, Vec::<String>::new());
        }
    }
}

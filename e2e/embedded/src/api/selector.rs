//! Label and field selectors of lists and watches.

use super::error::{ApiError, Result};
use super::object::{self, Key};
use serde_json::Value;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Term {
    Equals(String, String),
    Differs(String, String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Missing(String),
}

/// A parsed label selector; the empty one matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(Vec<Term>);

impl Labels {
    /// Parses `a=b,c!=d,e in (f,g),h notin (i),j,!k`.
    ///
    /// # Errors
    /// A term that is none of these.
    pub fn parse(text: &str) -> Result<Self> {
        split_outside_parentheses(text)
            .map(str::trim)
            .filter(|t| !t.is_empty())
            .map(term)
            .collect::<Result<_>>()
            .map(Self)
    }

    /// The selector of a `matchLabels` map.
    pub fn equal_to(labels: &Value) -> Self {
        let terms = labels.as_object().into_iter().flatten();
        Self(terms.map(|(k, v)| Term::Equals(k.clone(), v.as_str().unwrap_or_default().to_owned())).collect())
    }

    /// Whether nothing is selected by it in particular.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the object's labels satisfy every term.
    pub fn matches(&self, object: &Value) -> bool {
        self.0.is_empty() || {
            let labels = object::strings(object, "/metadata/labels");
            self.0.iter().all(|term| match term {
                Term::Equals(key, value) => labels.get(key.as_str()) == Some(&value.as_str()),
                Term::Differs(key, value) => labels.get(key.as_str()) != Some(&value.as_str()),
                Term::In(key, values) => {
                    labels.get(key.as_str()).is_some_and(|v| values.iter().any(|x| x == v))
                }
                Term::NotIn(key, values) => {
                    !labels.get(key.as_str()).is_some_and(|v| values.iter().any(|x| x == v))
                }
                Term::Exists(key) => labels.contains_key(key.as_str()),
                Term::Missing(key) => !labels.contains_key(key.as_str()),
            })
        }
    }
}

fn split_outside_parentheses(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_usize;
    text.split(move |c| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
}

fn term(text: &str) -> Result<Term> {
    if let Some((key, value)) = text.split_once("!=") {
        return Ok(Term::Differs(key.trim().to_owned(), value.trim().to_owned()));
    }
    if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return Ok(Term::Equals(key.trim().to_owned(), value.trim().to_owned()));
    }
    if let Some(key) = text.strip_prefix('!') {
        return Ok(Term::Missing(key.trim().to_owned()));
    }
    let mut words = text.split_whitespace();
    match (words.next(), words.next()) {
        (Some(key), None) => Ok(Term::Exists(key.to_owned())),
        (Some(key), Some(word)) => {
            let values = text
                .split_once('(')
                .and_then(|(_, rest)| rest.strip_suffix(')'))
                .ok_or_else(|| ApiError::bad_request(format!("unable to parse requirement: {text:?}")))?;
            let values = values.split(',').map(|v| v.trim().to_owned()).collect();
            match word.split('(').next() {
                Some("in") => Ok(Term::In(key.to_owned(), values)),
                Some("notin") => Ok(Term::NotIn(key.to_owned(), values)),
                _ => Err(ApiError::bad_request(format!("unable to parse requirement: {text:?}"))),
            }
        }
        (None, _) => Err(ApiError::bad_request("unable to parse requirement: it is empty")),
    }
}

/// A parsed field selector; the empty one matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(Vec<(String, bool, String)>);

impl Fields {
    /// Parses `a.b=c,d!=e`; `selectable` says which paths the kind offers beyond name and namespace.
    ///
    /// # Errors
    /// A path that the kind does not offer, or a term without a value.
    pub fn parse(text: &str, selectable: &[String]) -> Result<Self> {
        let terms = text.split(',').map(str::trim).filter(|t| !t.is_empty());
        terms
            .map(|term| {
                let (path, equal, value) = if let Some((path, value)) = term.split_once("!=") {
                    (path, false, value)
                } else if let Some((path, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
                    (path, true, value)
                } else {
                    return Err(ApiError::bad_request(format!(
                        "invalid selector: '{term}'; can't understand '{term}'"
                    )));
                };
                let known = ["metadata.name", "metadata.namespace"].contains(&path);
                if !known && !selectable.iter().any(|s| s == path) {
                    return Err(ApiError::bad_request(format!("field label not supported: {path}")));
                }
                Ok((path.to_owned(), equal, value.to_owned()))
            })
            .collect::<Result<_>>()
            .map(Self)
    }

    /// Whether the object's fields satisfy every term.
    pub fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|(path, equal, value)| (field(object, path) == *value) == *equal)
    }

    /// The key, where the selector names exactly one object.
    pub fn single(&self, namespace: &str) -> Option<Key> {
        self.0
            .iter()
            .find(|(path, equal, _)| path == "metadata.name" && *equal)
            .map(|(_, _, name)| Key::new(namespace, name))
    }
}

fn field(object: &Value, path: &str) -> String {
    let pointer = format!("/{}", path.replace('.', "/"));
    match object.pointer(&pointer) {
        None | Some(Value::Null) => match path {
            // The API server shows the zero value of a flag that is not set.
            "spec.unschedulable" => "false".to_owned(),
            _ => String::new(),
        },
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object() -> Value {
        json!({"metadata": {"name": "a", "labels": {"app": "x", "tier": "1"}}, "spec": {"nodeName": "n1"}})
    }

    #[test]
    fn label_terms() {
        for (selector, expected) in [
            ("", true),
            ("app=x", true),
            ("app==x,tier=1", true),
            ("app!=x", false),
            ("zone!=x", true),
            ("app in (x, y),tier", true),
            ("app notin (x)", false),
            ("zone notin (x)", true),
            ("!app", false),
            ("!zone", true),
        ] {
            assert_eq!(Labels::parse(selector).unwrap().matches(&object()), expected, "{selector}");
        }
        assert!(Labels::parse("a b c").is_err());
    }

    #[test]
    fn field_terms_are_checked_against_what_the_kind_offers() {
        let selectable = vec!["spec.nodeName".to_owned()];
        let matches = |text: &str| Fields::parse(text, &selectable).unwrap().matches(&object());
        assert!(matches("spec.nodeName=n1,metadata.name!=b"));
        assert!(!matches("spec.nodeName="));
        let refused = Fields::parse("spec.hub=x", &selectable).unwrap_err();
        assert_eq!(refused.message, "field label not supported: spec.hub");
    }
}

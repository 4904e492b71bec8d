//! What the API server answers when it refuses: the `Status` object that kubectl and kube-rs understand.

use serde_json::{Value, json};

/// Why a request was refused; the closed vocabulary of `Status.reason` that this server uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The object, namespace or path does not exist (404).
    NotFound,
    /// Another object has the name (409).
    AlreadyExists,
    /// The object is not what the request was decided on (409).
    Conflict,
    /// The object breaks its schema or a rule (422).
    Invalid,
    /// The request itself is wrong (400).
    BadRequest,
    /// The asked-for version has left the event window (410).
    Expired,
    /// The verb is not served here (405).
    MethodNotAllowed,
    /// The kind of patch is not served here (415).
    UnsupportedMediaType,
    /// What was asked for is not permitted now (403).
    Forbidden,
    /// The server is stopped or cut off from the asker (503).
    ServiceUnavailable,
    /// A fault of this server (500).
    InternalError,
}

impl Reason {
    /// The HTTP status that goes with the reason.
    pub fn code(self) -> u16 {
        match self {
            Self::NotFound => 404,
            Self::AlreadyExists | Self::Conflict => 409,
            Self::Invalid => 422,
            Self::BadRequest => 400,
            Self::Expired => 410,
            Self::MethodNotAllowed => 405,
            Self::UnsupportedMediaType => 415,
            Self::Forbidden => 403,
            Self::ServiceUnavailable => 503,
            Self::InternalError => 500,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::NotFound => "NotFound",
            Self::AlreadyExists => "AlreadyExists",
            Self::Conflict => "Conflict",
            Self::Invalid => "Invalid",
            Self::BadRequest => "BadRequest",
            Self::Expired => "Expired",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::UnsupportedMediaType => "UnsupportedMediaType",
            Self::Forbidden => "Forbidden",
            Self::ServiceUnavailable => "ServiceUnavailable",
            Self::InternalError => "InternalError",
        }
    }
}

/// One refused field of an object, as it appears in `details.causes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// The class, for example `FieldValueRequired`.
    pub reason: &'static str,
    /// Path of the field, for example `spec.replicas`.
    pub field: String,
    /// What is wrong, already beginning with its class in words.
    pub message: String,
}

impl Cause {
    /// Whether an object with this fault is not looked at by the kind's rules, because they might rely on the schema.
    pub fn blocks_rules(&self) -> bool {
        [
            "FieldValueRequired",
            "FieldValueNotSupported",
            "FieldValueTooLong",
            "FieldValueTooMany",
            "FieldValueTypeInvalid",
        ]
        .contains(&self.reason)
    }

    /// A field that has to be there and is not.
    pub fn required(field: impl Into<String>, detail: &str) -> Self {
        let message =
            if detail.is_empty() { "Required value".to_owned() } else { format!("Required value: {detail}") };
        Self { reason: "FieldValueRequired", field: field.into(), message }
    }

    /// A value that is out of bounds; `value` is shown.
    pub fn invalid(field: impl Into<String>, value: &Value, detail: impl AsRef<str>) -> Self {
        let message = format!("Invalid value: {}: {}", shown(value), detail.as_ref());
        Self { reason: "FieldValueInvalid", field: field.into(), message }
    }

    /// A value of the wrong JSON type.
    pub fn wrong_type(field: impl Into<String>, value: &Value, expected: &str) -> Self {
        let field = field.into();
        let found = type_name(value);
        let message = format!(
            "Invalid value: {}: {field} in body must be of type {expected}: \"{found}\"",
            shown(value)
        );
        Self { reason: "FieldValueTypeInvalid", field, message }
    }

    /// A value outside an enumeration.
    pub fn unsupported(field: impl Into<String>, value: &Value, supported: &[Value]) -> Self {
        let list: Vec<String> = supported.iter().map(shown).collect();
        let message = format!("Unsupported value: {}: supported values: {}", shown(value), list.join(", "));
        Self { reason: "FieldValueNotSupported", field: field.into(), message }
    }

    /// The same key twice in a list that is a map or a set.
    pub fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Self {
            reason: "FieldValueDuplicate",
            field: field.into(),
            message: format!("Duplicate value: {}", shown(value)),
        }
    }

    /// Something that must not be changed or set.
    pub fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        Self { reason: "FieldValueForbidden", field: field.into(), message: format!("Forbidden: {detail}") }
    }

    /// A list or map with too many entries.
    pub fn too_many(field: impl Into<String>, have: usize, most: u64) -> Self {
        Self {
            reason: "FieldValueTooMany",
            field: field.into(),
            message: format!("Too many: {have}: must have at most {most} items"),
        }
    }

    /// A string beyond its length.
    pub fn too_long(field: impl Into<String>, most: u64) -> Self {
        Self {
            reason: "FieldValueTooLong",
            field: field.into(),
            message: format!("Too long: may not be more than {most} bytes"),
        }
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Object(_) => "\"object\"".to_owned(),
        Value::Array(_) => "\"array\"".to_owned(),
        other => other.to_string(),
    }
}

/// The name of a value's JSON type as the API server spells it.
pub fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// A refused request.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The class of the refusal.
    pub reason: Reason,
    /// The words for a person.
    pub message: String,
    details: Option<Value>,
}

/// What the operations of this server return.
pub type Result<T> = std::result::Result<T, ApiError>;

impl ApiError {
    /// A refusal without details.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), details: None }
    }

    /// A request that is wrong in itself.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Reason::BadRequest, message)
    }

    /// The object `name` of `resource` (plural, with its group) does not exist.
    pub fn not_found(group: &str, plural: &str, name: &str) -> Self {
        Self::about(Reason::NotFound, group, plural, name, "not found".to_owned())
    }

    /// The name is taken.
    pub fn already_exists(group: &str, plural: &str, name: &str) -> Self {
        Self::about(Reason::AlreadyExists, group, plural, name, "already exists".to_owned())
    }

    /// The object has changed since the version that the request carries.
    pub fn modified(group: &str, plural: &str, name: &str) -> Self {
        Self::conflict(
            group,
            plural,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// The request contradicts the object as it is.
    pub fn conflict(group: &str, plural: &str, name: &str, why: &str) -> Self {
        let resource = qualified(group, plural);
        Self {
            reason: Reason::Conflict,
            message: format!("Operation cannot be fulfilled on {resource} \"{name}\": {why}"),
            details: Some(details(group, plural, name)),
        }
    }

    /// The object breaks its schema or rules; `causes` must not be empty.
    pub fn invalid(group: &str, kind: &str, name: &str, causes: Vec<Cause>) -> Self {
        let list: Vec<String> =
            causes
                .iter()
                .map(|c| {
                    if c.field.is_empty() { c.message.clone() } else { format!("{}: {}", c.field, c.message) }
                })
                .collect();
        let text = if list.len() == 1 { list.concat() } else { format!("[{}]", list.join(", ")) };
        let mut details = details(group, kind, name);
        details["causes"] = causes
            .into_iter()
            .map(|c| json!({"reason": c.reason, "message": c.message, "field": c.field}))
            .collect();
        Self {
            reason: Reason::Invalid,
            message: format!("{} \"{name}\" is invalid: {text}", qualified(group, kind)),
            details: Some(details),
        }
    }

    /// The server cannot be reached by the asker.
    pub fn unavailable() -> Self {
        Self::new(Reason::ServiceUnavailable, "the API server is stopped or cut off")
    }

    fn about(reason: Reason, group: &str, plural: &str, name: &str, what: String) -> Self {
        Self {
            reason,
            message: format!("{} \"{name}\" {what}", qualified(group, plural)),
            details: Some(details(group, plural, name)),
        }
    }

    /// The `Status` object to answer with.
    pub fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason.text(), "code": self.reason.code(),
        });
        if let Some(details) = &self.details {
            status["details"] = details.clone();
        }
        status
    }
}

fn details(group: &str, kind: &str, name: &str) -> Value {
    if group.is_empty() {
        json!({"name": name, "kind": kind})
    } else {
        json!({"name": name, "group": group, "kind": kind})
    }
}

fn qualified(group: &str, name: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_resource_and_object_as_the_real_server_does() {
        let status = ApiError::not_found("processhub.io", "hubprocesses", "a").status();
        assert_eq!(status["message"], "hubprocesses.processhub.io \"a\" not found");
        assert_eq!(status["code"], 404);
        assert_eq!(status["details"], json!({"name": "a", "group": "processhub.io", "kind": "hubprocesses"}));
    }

    #[test]
    fn an_invalid_object_lists_every_field() {
        let causes = vec![Cause::required("spec.a", ""), Cause::forbidden("spec.b", "why")];
        let error = ApiError::invalid("g", "Kind", "x", causes);
        assert_eq!(
            error.message,
            "Kind.g \"x\" is invalid: [spec.a: Required value, spec.b: Forbidden: why]"
        );
        assert_eq!(error.status()["details"]["causes"][1]["field"], "spec.b");
    }
}

//! Answers: JSON objects, tables, metadata only.

use super::{Call, protobuf};
use crate::api::error::ApiError;
use crate::api::table::{self, Include};
use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use std::borrow::Cow;

/// In which form the client wants objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As they are.
    Object,
    /// As rows of a table.
    Table(Include),
    /// Their metadata.
    Partial,
}

impl Form {
    /// The form that the request's `Accept` asks for.
    pub fn of(call: &Call) -> Self {
        let accept = call.headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
        if accept.contains("as=Table") {
            Self::Table(match call.query.text("includeObject") {
                "None" => Include::None,
                "Object" => Include::Object,
                _ => Include::Metadata,
            })
        } else if accept.contains("as=PartialObjectMetadata") {
            Self::Partial
        } else {
            Self::Object
        }
    }

    /// One object in this form.
    pub fn object<'a>(self, call: &Call, object: &'a Value, now: jiff::Timestamp) -> Cow<'a, Value> {
        match self {
            Self::Object => Cow::Borrowed(object),
            Self::Partial => Cow::Owned(table::partial(object)),
            Self::Table(include) => {
                let version = crate::api::object::resource_version(object);
                Cow::Owned(table::table(&call.kind, &[object], include, version, now))
            }
        }
    }
}

/// A JSON answer.
pub fn json(code: StatusCode, value: &Value) -> Response {
    let mut response = typed("application/json", value);
    *response.status_mut() = code;
    response
}

/// A JSON answer with a content type of its own.
pub fn typed(content_type: &'static str, value: &Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// An object, in the form that was asked for, with warnings.
pub fn written(call: &Call, code: StatusCode, object: &Value, warnings: &[String]) -> Response {
    let now = call.api.with(|r| r.now());
    let mut response = json(code, &Form::of(call).object(call, object, now));
    for warning in warnings {
        let text = format!("299 - \"{}\"", warning.replace('\\', "\\\\").replace('"', "\\\""));
        if let Ok(value) = HeaderValue::from_str(&text) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
    response
}

/// The `Status` that answers a finished deletion.
pub fn success(call: &Call, object: &Value) -> Value {
    let mut details = json!({"name": crate::api::object::name(object), "kind": call.kind.plural,
        "uid": crate::api::object::uid(object)});
    if !call.kind.group.is_empty() {
        details["group"] = call.kind.group.clone().into();
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

/// The body of the request as an object, from JSON, YAML or kubectl's protobuf.
pub fn body(call: &Call) -> Result<Value, ApiError> {
    if protobuf::is_envelope(&call.body) {
        return protobuf::decode(&call.body);
    }
    if let Ok(value) = serde_json::from_slice(&call.body) {
        return Ok(value);
    }
    let unreadable = |why: String| {
        ApiError::bad_request(format!("the body of the request is neither JSON nor YAML: {why}"))
    };
    let text = std::str::from_utf8(&call.body).map_err(|e| unreadable(e.to_string()))?;
    serde_saphyr::from_str(text).map_err(|e| unreadable(e.to_string()))
}

//! Writing objects.

use super::Call;
use super::read::Selection;
use super::render;
use crate::api::error::{ApiError, Result};
use crate::api::object::Key;
use crate::api::patch::PatchKind;
use crate::api::registry::{DeleteOptions, Deleted, Part, Propagation, Written};
use axum::response::Response;
use http::{StatusCode, header};
use serde_json::{Value, json};

fn part(call: &Call) -> Part {
    if call.path.subresource.is_some() { Part::Status } else { Part::Main }
}

fn answer(call: &Call, written: &Written) -> Response {
    let code = if written.created { StatusCode::CREATED } else { StatusCode::OK };
    render::written(call, code, &call.kind.served(&written.object), &written.warnings)
}

/// POST to a collection.
pub fn create(call: &Call) -> Result<Response> {
    let (object, options) = (render::body(call)?, call.query.write_options()?);
    if call.kind.namespaced && call.path.namespace.is_none() {
        return Err(ApiError::bad_request("an empty namespace may not be set during creation"));
    }
    let namespace = call.path.namespace.clone().unwrap_or_default();
    let written = call.api.with(|r| r.create(&call.kind, &namespace, object, &options))?;
    Ok(answer(call, &written))
}

/// PUT of an object or its status.
pub fn replace(call: &Call) -> Result<Response> {
    let (object, options) = (render::body(call)?, call.query.write_options()?);
    let written = call.api.with(|r| r.replace(&call.kind, &call.path.key(), part(call), object, &options))?;
    Ok(answer(call, &written))
}

/// PATCH of an object or its status.
pub fn patch(call: &Call) -> Result<Response> {
    let content_type =
        call.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let how = PatchKind::of(content_type)?;
    let (body, options) = (render::body(call)?, call.query.write_options()?);
    let written =
        call.api.with(|r| r.patch(&call.kind, &call.path.key(), part(call), (how, body), &options))?;
    Ok(answer(call, &written))
}

/// The options are in the body; the query counts only where there is none.
fn delete_options(call: &Call) -> Result<DeleteOptions> {
    if !call.body.is_empty() {
        return serde_json::from_value(render::body(call)?)
            .map_err(|e| ApiError::bad_request(format!("the body is no DeleteOptions: {e}")));
    }
    Ok(DeleteOptions {
        grace_period_seconds: call.query.text("gracePeriodSeconds").parse().ok(),
        propagation_policy: match call.query.text("propagationPolicy") {
            "Foreground" => Some(Propagation::Foreground),
            "Orphan" => Some(Propagation::Orphan),
            "Background" => Some(Propagation::Background),
            _ => None,
        },
        dry_run: call.query.dry_run().then(|| vec!["All".to_owned()]),
        preconditions: None,
    })
}

/// DELETE of an object.
pub fn delete(call: &Call) -> Result<Response> {
    let options = delete_options(call)?;
    let answer = match call.api.with(|r| r.delete(&call.kind, &call.path.key(), &options))? {
        Deleted::Gone(object) if call.kind.is("", "pods") => (*call.kind.served(&object)).clone(),
        Deleted::Gone(object) => render::success(call, &object),
        Deleted::Going(object) => (*call.kind.served(&object)).clone(),
    };
    Ok(render::json(StatusCode::OK, &answer))
}

/// DELETE of a collection.
pub fn delete_collection(call: &Call) -> Result<Response> {
    let options = delete_options(call)?;
    let (objects, _) = Selection::of(call)?.list(call);
    let mut items: Vec<Value> = Vec::new();
    for object in objects {
        // Another request may have been faster: what is gone is gone.
        let deleted = call.api.with(|r| r.delete(&call.kind, &Key::of(&object), &options));
        if let Ok(Deleted::Gone(object) | Deleted::Going(object)) = deleted {
            items.push((*call.kind.served(&object)).clone());
        }
    }
    let list = json!({"kind": format!("{}List", call.kind.kind), "apiVersion": call.kind.api_version(),
        "metadata": {}, "items": items});
    Ok(render::json(StatusCode::OK, &list))
}

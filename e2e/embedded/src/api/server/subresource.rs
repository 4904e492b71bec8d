//! Subresources other than the status: scale, eviction, binding, log, finalize.

use super::render;
use super::write;
use super::{Call, path};
use crate::api::audit::Verb;
use crate::api::error::{ApiError, Result};
use crate::api::kinds::Scale;
use crate::api::object::{self, list, text};
use crate::api::patch::{self, PatchKind};
use crate::api::registry::{DeleteOptions, Part};
use axum::body::Body;
use axum::response::Response;
use http::{StatusCode, header};
use serde_json::{Value, json};

/// Answers a request for a subresource.
pub async fn answer(verb: Verb, call: &Call) -> Result<Response> {
    let name = call.path.subresource.as_deref().unwrap_or_default();
    if !call.kind.subresources().contains(&name) {
        return Err(path::unknown());
    }
    match (name, verb) {
        ("scale", Verb::Get | Verb::Update | Verb::Patch) => scale(verb, call),
        ("eviction", Verb::Create) => evict(call),
        ("binding", Verb::Create) => bind(call),
        ("log", Verb::Get) => log(call).await,
        ("finalize", Verb::Update) => write::replace(call),
        _ => Err(path::unknown()),
    }
}

fn scale_of(object: &Value, scale: &Scale) -> Value {
    let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64).unwrap_or_default();
    let mut status = json!({"replicas": number(&scale.status)});
    if !scale.selector.is_empty() {
        status["selector"] = text(object, &scale.selector).into();
    }
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": object::name(object), "namespace": object::namespace(object), "uid": object::uid(object),
            "resourceVersion": object::resource_version(object),
            "creationTimestamp": object["metadata"]["creationTimestamp"],
        },
        "spec": {"replicas": number(&scale.spec)},
        "status": status,
    })
}

fn scale(verb: Verb, call: &Call) -> Result<Response> {
    let scale = call.kind.scale.as_ref().ok_or_else(path::unknown)?;
    let current = call.api.with(|r| r.get(&call.kind, &call.path.key()))?;
    let shown = scale_of(&current, scale);
    let wished = match verb {
        Verb::Get => return Ok(render::json(StatusCode::OK, &shown)),
        Verb::Patch => {
            let content_type = call.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
            match PatchKind::of(content_type.unwrap_or_default())? {
                PatchKind::Json => patch::json(&shown, &render::body(call)?)?,
                PatchKind::Merge | PatchKind::Strategic | PatchKind::Apply => {
                    patch::merge(&shown, &render::body(call)?)
                }
            }
        }
        _ => render::body(call)?,
    };
    let replicas = wished.pointer("/spec/replicas").cloned().unwrap_or(json!(0));
    let mut change = json!(replicas);
    for field in scale.spec.split('/').skip(1).collect::<Vec<_>>().into_iter().rev() {
        change = json!({field: change});
    }
    let version = object::resource_version(&wished);
    if !version.is_empty() {
        change["metadata"]["resourceVersion"] = version.into();
    }
    let options = call.query.write_options()?;
    let change = (PatchKind::Merge, change);
    let written = call.api.with(|r| r.patch(&call.kind, &call.path.key(), Part::Main, change, &options))?;
    Ok(render::json(StatusCode::OK, &scale_of(&written.object, scale)))
}

fn evict(call: &Call) -> Result<Response> {
    let body = render::body(call)?;
    let given = body.get("deleteOptions").cloned().unwrap_or_else(|| json!({}));
    let mut options: DeleteOptions =
        serde_json::from_value(given).map_err(|e| ApiError::bad_request(format!("deleteOptions: {e}")))?;
    if call.query.dry_run() {
        options.dry_run = Some(vec!["All".to_owned()]);
    }
    call.api.with(|r| r.delete(&call.kind, &call.path.key(), &options))?;
    Ok(render::json(
        StatusCode::CREATED,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}),
    ))
}

fn bind(call: &Call) -> Result<Response> {
    let node = text(&render::body(call)?, "/target/name").to_owned();
    call.api.with(|r| r.bind(&call.kind, &call.path.key(), &node))?;
    Ok(render::json(
        StatusCode::CREATED,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}),
    ))
}

async fn log(call: &Call) -> Result<Response> {
    let key = call.path.key();
    let pod = call.api.with(|r| r.get(&call.kind, &key))?;
    let asked = call.query.text("container");
    let container = if asked.is_empty() { text(&pod, "/spec/containers/0/name") } else { asked };
    let known = ["/spec/containers", "/spec/initContainers"]
        .into_iter()
        .flat_map(|p| list(&pod, p))
        .any(|c| text(c, "/name") == container);
    if !known {
        let words = format!("container {container} is not valid for pod {}", key.name);
        return Err(ApiError::bad_request(words));
    }
    let runs = call.api.log_files(&key, container);
    let back = usize::from(call.query.flag("previous"));
    let Some(file) = runs.len().checked_sub(1 + back).and_then(|i| runs.get(i)) else {
        let words = format!("container {container:?} in pod {:?} is waiting to start", key.name);
        return Err(ApiError::bad_request(words));
    };
    let bytes = tokio::fs::read(file).await.unwrap_or_default();
    let mut response = Response::new(Body::from(bytes));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain"));
    Ok(response)
}

//! The HTTP side: thin routes that parse, call the registry, and render.

mod path;
mod protobuf;
mod query;
mod read;
mod render;
mod subresource;
mod watch;
mod write;

use super::audit::{Entry, Verb};
use super::discovery;
use super::error::{ApiError, Reason, Result};
use super::handle::Api;
use super::kinds::Kind;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use path::Path;
use query::Query;
use serde_json::{Value, json};
use std::sync::Arc;

const BODY_LIMIT: usize = 3 << 20;

/// The API server as a service; how it is bound to a socket is the caller's.
pub fn router(api: Arc<Api>) -> Router {
    Router::new().fallback(entry).with_state(api)
}

/// One request for a resource, parsed.
struct Call {
    api: Arc<Api>,
    kind: Arc<Kind>,
    path: Path,
    query: Query,
    headers: HeaderMap,
    body: Bytes,
}

async fn entry(State(api): State<Arc<Api>>, request: Request<Body>) -> Response {
    match answer(api, request).await {
        Ok(response) => response,
        Err(error) => failure(&error),
    }
}

async fn answer(api: Arc<Api>, request: Request<Body>) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let route = parts.uri.path().to_owned();
    if let Some(response) = fixed(&api, &route, &parts.headers)? {
        return Ok(response);
    }
    let path = Path::parse(&route)?;
    let query = Query::parse(&parts.uri)?;
    let found = api.with(|r| r.catalog().find(&path.group, &path.version, &path.plural));
    let kind = found.ok_or_else(path::unknown)?;
    let verb = verb(&parts.method, &path, &query)?;
    let body = axum::body::to_bytes(body, BODY_LIMIT)
        .await
        .map_err(|e| ApiError::bad_request(format!("the body of the request could not be read: {e}")))?;
    let user_agent = parts.headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let entry = Entry {
        sequence: 0,
        verb,
        group: path.group.clone(),
        resource: path.plural.clone(),
        subresource: path.subresource.clone().unwrap_or_default(),
        namespace: path.namespace.clone().unwrap_or_default(),
        name: path.name.clone().unwrap_or_default(),
        user_agent: user_agent.to_owned(),
        code: 0,
    };
    let call = Call { api: api.clone(), kind, path, query, headers: parts.headers, body };
    let result = dispatch(verb, call).await;
    let code = match &result {
        Ok(response) => response.status().as_u16(),
        Err(error) => error.reason.code(),
    };
    api.audit().record(Entry { code, ..entry });
    result
}

async fn dispatch(verb: Verb, call: Call) -> Result<Response> {
    if call.path.subresource.as_deref().is_some_and(|s| s != "status") {
        return subresource::answer(verb, &call).await;
    }
    match verb {
        Verb::Get => read::get(&call),
        Verb::List => read::list(&call),
        Verb::Watch => watch::follow(&call),
        Verb::Create => write::create(&call),
        Verb::Update => write::replace(&call),
        Verb::Patch => write::patch(&call),
        Verb::Delete => write::delete(&call),
        Verb::DeleteCollection => write::delete_collection(&call),
    }
}

fn verb(method: &Method, path: &Path, query: &Query) -> Result<Verb> {
    let one = path.name.is_some();
    match *method {
        Method::GET if query.flag("watch") => Ok(Verb::Watch),
        Method::GET if one => Ok(Verb::Get),
        Method::GET => Ok(Verb::List),
        Method::POST if !one || path.subresource.is_some() => Ok(Verb::Create),
        Method::PUT if one => Ok(Verb::Update),
        Method::PATCH if one => Ok(Verb::Patch),
        Method::DELETE if one => Ok(Verb::Delete),
        Method::DELETE => Ok(Verb::DeleteCollection),
        _ => Err(ApiError::new(
            Reason::MethodNotAllowed,
            "the server does not allow this method on the requested resource",
        )),
    }
}

/// Paths that are not resources.
fn fixed(api: &Api, route: &str, headers: &HeaderMap) -> Result<Option<Response>> {
    let parts: Vec<&str> = route.split('/').filter(|p| !p.is_empty()).collect();
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let aggregated = accept.contains("as=APIGroupDiscoveryList") && accept.contains("v=v2");
    let found =
        |value: Option<Value>| value.map(|v| render::json(StatusCode::OK, &v)).ok_or_else(path::unknown);
    match parts.as_slice() {
        ["healthz" | "livez" | "readyz", ..] => Ok(Some(Response::new(Body::from("ok")))),
        ["version"] => found(Some(discovery::version())).map(Some),
        [root @ ("api" | "apis")] if aggregated => {
            let list = api.with(|r| discovery::aggregated(r.catalog(), *root == "api"));
            Ok(Some(render::typed(
                "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
                &list,
            )))
        }
        ["api"] => found(Some(json!({"kind": "APIVersions", "versions": ["v1"]}))).map(Some),
        ["apis"] => found(Some(api.with(|r| discovery::group_list(r.catalog())))).map(Some),
        ["apis", group] => found(api.with(|r| discovery::group(r.catalog(), group))).map(Some),
        ["api", version] => found(api.with(|r| discovery::resources(r.catalog(), "", version))).map(Some),
        ["apis", group, version] => {
            found(api.with(|r| discovery::resources(r.catalog(), group, version))).map(Some)
        }
        ["openapi", "v3"] => found(Some(api.with(|r| discovery::openapi_index(r.catalog())))).map(Some),
        ["openapi", "v3", rest @ ..] => {
            let path = rest.join("/");
            found(api.with(|r| discovery::openapi(r.catalog(), &path))).map(Some)
        }
        _ => Ok(None),
    }
}

fn failure(error: &ApiError) -> Response {
    let code = StatusCode::from_u16(error.reason.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    render::json(code, &error.status())
}

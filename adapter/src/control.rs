//! The contract's routes. Who may call them: the sidecar of the same pod, and nobody else, because they are served on
//! the pod's loopback only.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequest, Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use axum::{Json, Router};
use processhub_protocol::contract::{
    ActivateRequest, ApplyRequest, CaptureRequest, CaptureSummary, ErrorBody, ErrorCode, Info,
    MAX_CONTROL_REQUEST, MAX_SLICE, Name, PartName, ResumeRequest, SuspendRequest, Violation,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::core::Core;

/// A refusal as an answer.
struct Refused(ErrorBody);

impl From<ErrorBody> for Refused {
    fn from(body: ErrorBody) -> Self {
        Self(body)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        // infallible: every code has a valid status; the fallback keeps a new one from panicking.
        let status = StatusCode::from_u16(self.0.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(self.0)).into_response()
    }
}

fn refused(code: ErrorCode, message: &str) -> Refused {
    Refused(ErrorBody::new(code, message))
}

/// A body within its bounds.
struct Checked<T>(T);

trait Check: DeserializeOwned + Send {
    fn check(&self) -> Result<(), Violation>;
}

macro_rules! checked {
    ($($body:ty),*) => {
        $(impl Check for $body {
            fn check(&self) -> Result<(), Violation> {
                Self::check(self)
            }
        })*
    };
}

checked!(SuspendRequest, ResumeRequest, CaptureRequest, ApplyRequest, ActivateRequest);

impl<T: Check, S: Send + Sync> FromRequest<S> for Checked<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refused> {
        let bytes = to_bytes(request.into_body(), MAX_CONTROL_REQUEST).await.map_err(|_| {
            let message = format!("the body was cut short or is longer than {MAX_CONTROL_REQUEST} bytes");
            refused(ErrorCode::TooLarge, &message)
        })?;
        let body: T = serde_json::from_slice(&bytes)
            .map_err(|error| refused(ErrorCode::BadRequest, &format!("body: {error}")))?;
        body.check().map_err(|violation| refused(ErrorCode::BadRequest, &violation.to_string()))?;
        Ok(Self(body))
    }
}

#[derive(Deserialize)]
struct Offset {
    offset: u64,
}

type Adapter = State<Arc<Core>>;
type Done = Result<StatusCode, Refused>;

/// The routes.
pub fn routes(core: Arc<Core>) -> Router {
    Router::new()
        .route("/v1/info", get(info))
        .route("/v1/suspend", post(suspend))
        .route("/v1/resume", post(resume))
        .route("/v1/capture", post(capture))
        .route("/v1/capture/{id}", delete(delete_capture))
        .route("/v1/capture/{id}/{part}", get(read_part))
        .route("/v1/import/{id}", delete(delete_import))
        .route("/v1/import/{id}/apply", post(apply))
        .route("/v1/import/{id}/{part}", put(put_part))
        .route("/v1/activate", post(activate))
        .method_not_allowed_fallback(async || {
            let message = "this call has another method in version 1 of the contract";
            (StatusCode::METHOD_NOT_ALLOWED, Json(ErrorBody::new(ErrorCode::NotFound, message)))
        })
        .fallback(async || refused(ErrorCode::NotFound, "no such call in version 1 of the contract"))
        .with_state(core)
}

async fn info(State(core): Adapter) -> Json<Info> {
    Json(core.info())
}

async fn suspend(State(core): Adapter, Checked(body): Checked<SuspendRequest>) -> Done {
    core.suspend(body).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn resume(State(core): Adapter, Checked(body): Checked<ResumeRequest>) -> Done {
    core.resume(body).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn capture(State(core): Adapter, Checked(body): Checked<CaptureRequest>) -> Result<Response, Refused> {
    Ok(match core.capture(body).await? {
        Some(answer) => Json(answer).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    })
}

async fn read_part(
    State(core): Adapter,
    Path((id, part)): Path<(String, String)>,
) -> Result<Response, Refused> {
    let body = core.read(&name(&id)?, &part_name(&part)?)?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], body).into_response())
}

async fn delete_capture(
    State(core): Adapter,
    Path(id): Path<String>,
) -> Result<Json<CaptureSummary>, Refused> {
    Ok(Json(core.delete_capture(&name(&id)?)?))
}

async fn put_part(
    State(core): Adapter,
    Path((id, part)): Path<(String, String)>,
    query: Result<Query<Offset>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Done {
    let (import, part) = (name(&id)?, part_name(&part)?);
    let Query(Offset { offset }) = query
        .map_err(|_| refused(ErrorCode::BadRequest, "`offset` is missing or no number: send ?offset=N"))?;
    core.upload()?;
    let declared =
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let length = declared.ok_or_else(|| {
        refused(ErrorCode::BadRequest, "a slice needs a Content-Length: send its bytes at once")
    })?;
    if length > MAX_SLICE {
        let message =
            format!("the slice has {length} bytes, at most {MAX_SLICE} are taken: send smaller slices");
        return Err(refused(ErrorCode::TooLarge, &message));
    }
    let slice = to_bytes(body, length)
        .await
        .map_err(|_| refused(ErrorCode::BadRequest, "the slice was cut short: send it again"))?;
    core.put(import, part, offset, slice).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn apply(State(core): Adapter, Path(id): Path<String>, Checked(body): Checked<ApplyRequest>) -> Done {
    core.apply(name(&id)?, body).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn delete_import(State(core): Adapter, Path(id): Path<String>) -> Done {
    core.delete_import(name(&id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn activate(State(core): Adapter, Checked(body): Checked<ActivateRequest>) -> Done {
    core.activate(body).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn name(text: &str) -> Result<Name, Refused> {
    text.parse().map_err(|error| refused(ErrorCode::NotFound, &format!("`{text}`: {error}")))
}

fn part_name(text: &str) -> Result<PartName, Refused> {
    text.parse().map_err(|error| refused(ErrorCode::BadRequest, &format!("part `{text}`: {error}")))
}

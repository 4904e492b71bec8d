//! The contract's routes. Who may call them: the sidecar of the same pod, and nobody else, because they are served on
//! the pod's loopback only.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequest, Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use processhub_protocol::contract::{
    ActivateRequest, ApplyRequest, CaptureAnswer, CaptureRequest, CaptureSummary, CodeChangeRequest,
    ConsentAnswer, ConsentRequest, ErrorBody, ErrorCode, Info, MAX_CONTROL_REQUEST, MAX_SLICE, Name,
    PartName, ResumeRequest, SuspendRequest, Violation,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::core::Core;
use crate::worker::Worker;

/// A refusal as an answer.
pub(crate) struct Refused(ErrorBody);

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

fn bad_request(message: &str) -> Refused {
    Refused(ErrorBody::new(ErrorCode::BadRequest, message))
}

/// A body within its bounds.
pub(crate) struct Checked<T>(T);

pub(crate) trait Check: DeserializeOwned + Send {
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

checked!(
    ConsentRequest,
    SuspendRequest,
    ResumeRequest,
    CaptureRequest,
    ApplyRequest,
    CodeChangeRequest,
    ActivateRequest
);

impl<T: Check, S: Send + Sync> FromRequest<S> for Checked<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refused> {
        let bytes = to_bytes(request.into_body(), MAX_CONTROL_REQUEST).await.map_err(|_| {
            let message = format!("the body was cut short or is longer than {MAX_CONTROL_REQUEST} bytes");
            Refused(ErrorBody::new(ErrorCode::TooLarge, &message))
        })?;
        let body: T =
            serde_json::from_slice(&bytes).map_err(|error| bad_request(&format!("body: {error}")))?;
        body.check().map_err(|violation| bad_request(&violation.to_string()))?;
        Ok(Self(body))
    }
}

#[derive(Deserialize)]
struct Offset {
    offset: u64,
}

/// The routes of the contract for one worker.
pub(crate) fn routes<W: Worker>(core: Arc<Core<W>>) -> Router {
    Router::new()
        .route("/v1/info", get(info::<W>))
        .route("/v1/consent", post(consent::<W>))
        .route("/v1/suspend", post(suspend::<W>))
        .route("/v1/resume", post(resume::<W>))
        .route("/v1/capture", post(capture::<W>))
        .route("/v1/capture/{id}", axum::routing::delete(delete_capture::<W>))
        .route("/v1/capture/{id}/{part}", get(read_part::<W>))
        .route("/v1/import/{id}", axum::routing::delete(delete_import::<W>))
        .route("/v1/import/{id}/apply", post(apply::<W>).put(put_part_named_apply::<W>))
        .route("/v1/import/{id}/{part}", put(put_part::<W>))
        .route("/v1/code-change", post(change_code::<W>))
        .route("/v1/activate", post(activate::<W>))
        .method_not_allowed_fallback(async || {
            let message = "this call has another method in version 1 of the contract";
            (StatusCode::METHOD_NOT_ALLOWED, Json(ErrorBody::new(ErrorCode::NotFound, message)))
        })
        .fallback(async || {
            Refused(ErrorBody::new(ErrorCode::NotFound, "no such call in version 1 of the contract"))
        })
        .with_state(core)
}

/// What the worker is and does. In every state, within one second.
#[cfg_attr(test, utoipa::path(get, path = "/v1/info", responses((status = 200, description = "As asked", body = Info))))]
async fn info<W: Worker>(State(core): State<Arc<Core<W>>>) -> Json<Info> {
    Json(core.info())
}

/// Asks whether the process may be moved now. Only for a worker whose info says `consent`; no answer means Defer.
#[cfg_attr(test, utoipa::path(post, path = "/v1/consent", request_body = ConsentRequest, responses(
    (status = 200, description = "Ready or Defer", body = ConsentAnswer),
    (status = 404, description = "This worker does not ask to be asked", body = ErrorBody),
    (status = 409, description = "WrongState", body = ErrorBody))))]
async fn consent<W: Worker>(
    State(core): State<Arc<Core<W>>>,
    Checked(body): Checked<ConsentRequest>,
) -> Result<Json<ConsentAnswer>, Refused> {
    Ok(Json(core.consent(body).await?))
}

/// Stops serving. 204 once the state can no longer change.
#[cfg_attr(test, utoipa::path(post, path = "/v1/suspend", request_body = SuspendRequest, responses(
    (status = 204, description = "Done, or done before"), (status = 409, description = "StaleEpoch, WrongState", body = ErrorBody))))]
async fn suspend<W: Worker>(
    State(core): State<Arc<Core<W>>>,
    Checked(body): Checked<SuspendRequest>,
) -> Result<StatusCode, Refused> {
    core.suspend(body).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Serves again. Calls off a suspend that is not through yet.
#[cfg_attr(test, utoipa::path(post, path = "/v1/resume", request_body = ResumeRequest, responses(
    (status = 204, description = "Done, or done before"), (status = 409, description = "StaleEpoch, WrongState", body = ErrorBody))))]
async fn resume<W: Worker>(
    State(core): State<Arc<Core<W>>>,
    Checked(body): Checked<ResumeRequest>,
) -> Result<StatusCode, Refused> {
    core.resume(body).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes the state as it is now, at one point in time over all parts.
#[cfg_attr(test, utoipa::path(post, path = "/v1/capture", request_body = CaptureRequest, responses(
    (status = 200, description = "The state, or the changes after `since`", body = CaptureAnswer), (status = 204, description = "Unchanged since `unlessSeq`"),
    (status = 409, description = "StaleEpoch, WrongState", body = ErrorBody),
    (status = 501, description = "This worker has no state", body = ErrorBody))))]
async fn capture<W: Worker>(
    State(core): State<Arc<Core<W>>>,
    Checked(body): Checked<CaptureRequest>,
) -> Result<Response, Refused> {
    Ok(match core.capture(body).await? {
        Some(answer) => Json::<CaptureAnswer>(answer).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    })
}

/// The bytes of one part, as often as asked.
#[cfg_attr(test, utoipa::path(get, path = "/v1/capture/{id}/{part}",
    params(("id" = Name, Path), ("part" = PartName, Path)), responses(
    (status = 200, description = "The part's bytes", content_type = "application/octet-stream"),
    (status = 404, description = "NotFound", body = ErrorBody))))]
async fn read_part<W: Worker>(
    State(core): State<Arc<Core<W>>>,
    Path((id, part)): Path<(String, String)>,
) -> Result<Response, Refused> {
    let body = core.read(&capture_name(&id)?, &part_name(&part)?)?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], Body::new(body)).into_response())
}

/// Forgets a capture and says how long its parts were.
#[cfg_attr(test, utoipa::path(delete, path = "/v1/capture/{id}", params(("id" = Name, Path)), responses(
    (status = 200, description = "As asked", body = CaptureSummary), (status = 404, description = "NotFound", body = ErrorBody))))]
async fn delete_capture<W: Worker>(
    State(core): State<Arc<Core<W>>>,
    Path(id): Path<String>,
) -> Result<Json<CaptureSummary>, Refused> {
    Ok(Json(core.delete_capture(&capture_name(&id)?)?))
}

/// Takes one slice of a part, of at most 8 MiB and with Content-Length. Offset 0 starts the part over.
#[cfg_attr(test, utoipa::path(put, path = "/v1/import/{id}/{part}",
    params(("id" = Name, Path), ("part" = PartName, Path), ("offset" = u64, Query)),
    request_body(content_type = "application/octet-stream"), responses(
    (status = 204, description = "Done, or done before"), (status = 409, description = "WrongState, WrongOffset", body = ErrorBody),
    (status = 413, description = "TooLarge", body = ErrorBody))))]
async fn put_part<W: Worker>(
    State(core): State<Arc<Core<W>>>,
    Path((id, part)): Path<(String, String)>,
    query: Result<Query<Offset>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Refused> {
    let (import, part) = (capture_name(&id)?, part_name(&part)?);
    let Query(Offset { offset }) =
        query.map_err(|_| bad_request("`offset` is missing or no number: send ?offset=N"))?;
    core.upload()?;
    let declared =
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let length =
        declared.ok_or_else(|| bad_request("a slice needs a Content-Length: send its bytes at once"))?;
    if length > MAX_SLICE {
        let message =
            format!("the slice has {length} bytes, at most {MAX_SLICE} are taken: send smaller slices");
        return Err(Refused(ErrorBody::new(ErrorCode::TooLarge, &message)));
    }
    let slice =
        to_bytes(body, length).await.map_err(|_| bad_request("the slice was cut short: send it again"))?;
    core.put(import, part, offset, slice).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `apply` is a fine name for a part; only POST means the call of that name.
async fn put_part_named_apply<W: Worker>(
    core: State<Arc<Core<W>>>,
    Path(id): Path<String>,
    query: Result<Query<Offset>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Refused> {
    put_part(core, Path((id, "apply".to_owned())), query, headers, body).await
}

/// Makes what was uploaded the worker's state, whole or not at all.
#[cfg_attr(test, utoipa::path(post, path = "/v1/import/{id}/apply", params(("id" = Name, Path)),
    request_body = ApplyRequest, responses((status = 204, description = "Done, or done before"),
    (status = 409, description = "StaleEpoch, WrongState, Incomplete, WrongBase", body = ErrorBody),
    (status = 422, description = "This worker cannot take this state", body = ErrorBody))))]
async fn apply<W: Worker>(
    State(core): State<Arc<Core<W>>>,
    Path(id): Path<String>,
    Checked(body): Checked<ApplyRequest>,
) -> Result<StatusCode, Refused> {
    core.apply(capture_name(&id)?, body).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Forgets what was uploaded.
#[cfg_attr(test, utoipa::path(delete, path = "/v1/import/{id}", params(("id" = Name, Path)),
    responses((status = 204, description = "Done, or done before"))))]
async fn delete_import<W: Worker>(
    State(core): State<Arc<Core<W>>>,
    Path(id): Path<String>,
) -> Result<StatusCode, Refused> {
    core.delete_import(capture_name(&id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes up other code in the running, suspended worker. A worker need not have this call (404, 405, 501).
#[cfg_attr(test, utoipa::path(post, path = "/v1/code-change", request_body = CodeChangeRequest, responses(
    (status = 204, description = "Done, or done before"), (status = 409, description = "StaleEpoch, WrongState", body = ErrorBody),
    (status = 404, description = "This worker cannot change its code while it runs", body = ErrorBody),
    (status = 422, description = "Refused; code and state are what they were", body = ErrorBody))))]
async fn change_code<W: Worker>(
    State(core): State<Arc<Core<W>>>,
    Checked(body): Checked<CodeChangeRequest>,
) -> Result<StatusCode, Refused> {
    core.change_code(body).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Begins to serve; on a worker that does, renews the epoch.
#[cfg_attr(test, utoipa::path(post, path = "/v1/activate", request_body = ActivateRequest, responses(
    (status = 204, description = "Done, or done before"), (status = 409, description = "StaleEpoch, WrongState, InitialMismatch", body = ErrorBody))))]
async fn activate<W: Worker>(
    State(core): State<Arc<Core<W>>>,
    Checked(body): Checked<ActivateRequest>,
) -> Result<StatusCode, Refused> {
    core.activate(body).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn capture_name(text: &str) -> Result<Name, Refused> {
    text.parse().map_err(|error| bad_request(&format!("`{}`: {error}", text.escape_default())))
}

fn part_name(text: &str) -> Result<PartName, Refused> {
    text.parse().map_err(|error| bad_request(&format!("`{}`: {error}", text.escape_default())))
}

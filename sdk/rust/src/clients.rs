//! The clients' side: lets requests in while the worker is active and counts them until their answer is out.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Router, body::Bytes};
use http_body::{Frame, SizeHint};
use processhub_protocol::contract::{HEADER_SEQ, HEADER_STATE, WorkerState};

use crate::gate::{Admitted, Gate};

#[derive(Clone)]
struct Door {
    gate: Arc<Gate>,
    probe_paths: Arc<[String]>,
}

/// `clients`, behind the gate.
pub(crate) fn guarded(clients: Router, gate: Arc<Gate>, probe_paths: &[String]) -> Router {
    let door = Door { gate, probe_paths: probe_paths.into() };
    // A fallback, so that the layer also covers paths that the author's router does not know.
    Router::new().fallback_service(clients).layer(middleware::from_fn_with_state(door, pass))
}

async fn pass(State(door): State<Door>, request: Request, next: Next) -> Response {
    if door.probe_paths.iter().any(|path| path == request.uri().path()) {
        return next.run(request).await;
    }
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let admitted = match door.gate.admit(changes) {
        Ok(admitted) => admitted,
        Err(state) => return not_executed(state),
    };
    let mut response = next.run(request).await;
    // A handler that knows the number of its own change may say a lower one, and its answer waits for less.
    response.headers_mut().entry(HEADER_SEQ).or_insert(HeaderValue::from(admitted.answered()));
    response.map(|inner| Body::new(Counted { inner, admitted: Some(admitted) }))
}

fn not_executed(state: WorkerState) -> Response {
    let headers = [(HEADER_STATE, state.as_str()), (header::RETRY_AFTER.as_str(), "1")];
    let text = "this worker does not serve now; the request was not executed\n";
    (StatusCode::SERVICE_UNAVAILABLE, headers, text).into_response()
}

/// A body whose request counts as running until it is out, or dropped.
struct Counted {
    inner: Body,
    admitted: Option<Admitted>,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(cx);
        if matches!(frame, Poll::Ready(None | Some(Err(_)))) {
            self.admitted = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

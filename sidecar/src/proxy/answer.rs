//! Answers to clients: relayed ones, and the sidecar's own.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::client::{Body, BoxError, full};
use crate::hold::{Permit, Refused};

/// Seconds after which a refused client may come again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// The worker's body as it comes.
pub(super) fn relayed(body: Incoming) -> Body {
    body.map_err(BoxError::from).boxed_unsync()
}

/// An answer of the own worker: in flight until its last byte is relayed, and cut when the drain is over.
pub(super) fn guarded(answer: Response<Body>, permit: Permit) -> Response<Body> {
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS || answer.body().is_end_stream() {
        return answer;
    }
    answer.map(|inner| {
        let cut = Box::pin(permit.cut().clone().cancelled_owned());
        Guarded { inner, cut, permit: Some(permit) }.boxed_unsync()
    })
}

struct Guarded {
    inner: Body,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    permit: Option<Permit>,
}

impl http_body::Body for Guarded {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if this.permit.is_some() && this.cut.as_mut().poll(cx).is_ready() {
            this.permit = None;
            // The client sees a body that broke off, and never one that looks whole.
            return Poll::Ready(Some(Err("cut at the end of the drain".into())));
        }
        let frame = ready!(Pin::new(&mut this.inner).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) || this.inner.is_end_stream() {
            this.permit = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// 502: the request may or may not have been executed.
pub(super) fn outcome_unknown() -> Response<Body> {
    let message = "the answer was lost after the request had reached the worker; it is not sent again, because it may \
                   have been executed: ask the process whether it was";
    error(StatusCode::BAD_GATEWAY, "outcome_unknown", message)
}

/// 503: the request was not executed.
pub(super) fn refusal(refused: Refused) -> Response<Body> {
    let message = match refused {
        Refused::NotServing => "this pod does not serve the process; ask at the process's stable address",
        Refused::HoldFull => "the process is moving and too many requests wait for it; ask again",
        Refused::HoldExpired => "the process did not come back in time; ask again",
        Refused::ForwardedOnce => "the process has moved on; ask again at its stable address",
        Refused::Stopping => "this pod ends; ask again",
    };
    let mut answer = error(StatusCode::SERVICE_UNAVAILABLE, refused.code(), message);
    answer.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
    answer
}

/// An answer with a JSON body of code and message.
pub(super) fn error(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    let body = serde_json::json!({ "code": code, "message": message }).to_string();
    let mut answer = Response::new(full(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// An answer of a few words.
pub(super) fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut answer = Response::new(full(text));
    *answer.status_mut() = status;
    answer
}

//! One call, bounded in time and size, with everything that came back: the checks judge it, so nothing is interpreted.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Limited};
use processhub_protocol::contract::{ErrorBody, ErrorCode, MAX_CONTROL_ANSWER, MAX_MESSAGE};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::client::{CallError, Client, full};

/// Largest part that is verified, in bytes.
const MAX_PART: usize = 256 << 20;

/// A worker's addresses, and how long it may take.
#[derive(Clone)]
pub(super) struct Caller {
    pub(super) client: Client,
    pub(super) control: SocketAddr,
    pub(super) listen: SocketAddr,
    pub(super) patience: Duration,
}

/// What came back.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    call: String,
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Nothing usable came back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Silence {
    /// Nobody listens.
    #[error("{0}: {1}")]
    Connect(String, String),
    /// Not in time.
    #[error("{0}: no answer within {1} ms")]
    Timeout(String, u128),
    /// The connection ended before the answer did, or the answer is larger than it may be.
    #[error("{0}: the answer broke off, or is larger than {1} bytes: {2}")]
    Broken(String, usize, String),
}

impl Caller {
    /// A call of the contract without a body.
    pub(super) async fn ask(&self, method: &str, path: &str) -> Result<Answer, Silence> {
        self.call(self.control, method, path, Bytes::new(), MAX_CONTROL_ANSWER, self.patience).await
    }

    /// `GET /v1/info`, which has one second.
    pub(super) async fn info(&self) -> Result<Answer, Silence> {
        let second = Duration::from_secs(1);
        self.call(self.control, "GET", "/v1/info", Bytes::new(), MAX_CONTROL_ANSWER, second).await
    }

    /// A call of the contract with a JSON body.
    pub(super) async fn command<T: Serialize>(&self, path: &str, body: &T) -> Result<Answer, Silence> {
        let body = serde_json::to_vec(body).unwrap_or_default();
        self.call(self.control, "POST", path, Bytes::from(body), MAX_CONTROL_ANSWER, self.patience).await
    }

    /// `POST` with any bytes.
    pub(super) async fn post(&self, path: &str, body: &'static str) -> Result<Answer, Silence> {
        self.call(self.control, "POST", path, Bytes::from(body), MAX_CONTROL_ANSWER, self.patience).await
    }

    /// The bytes of a part.
    pub(super) async fn read(&self, path: &str) -> Result<Answer, Silence> {
        self.call(self.control, "GET", path, Bytes::new(), MAX_PART, self.patience).await
    }

    /// One slice.
    pub(super) async fn put(&self, path: &str, slice: Bytes) -> Result<Answer, Silence> {
        self.call(self.control, "PUT", path, slice, MAX_CONTROL_ANSWER, self.patience).await
    }

    /// A client's request.
    pub(super) async fn client(&self, method: &str, path: &str, body: &str) -> Result<Answer, Silence> {
        let body = Bytes::copy_from_slice(body.as_bytes());
        self.call(self.listen, method, path, body, MAX_PART, self.patience).await
    }

    async fn call(
        &self,
        to: SocketAddr,
        method: &str,
        path: &str,
        body: Bytes,
        limit: usize,
        patience: Duration,
    ) -> Result<Answer, Silence> {
        let call = format!("{method} {path}");
        let broken = |error: String| Silence::Broken(call.clone(), limit, error);
        let exchange = async {
            let mut request = Request::builder().method(method).uri(path);
            if body.first() == Some(&b'{') {
                request = request.header("content-type", "application/json");
            }
            let request = request.body(full(body)).map_err(|error| broken(error.to_string()))?;
            let answer = self.client.send(to, request).await.map_err(|error| match error {
                CallError::Unreachable(_) => Silence::Connect(call.clone(), error.to_string()),
                error => broken(error.to_string()),
            })?;
            let (head, body) = answer.into_parts();
            let body =
                Limited::new(body, limit).collect().await.map_err(|error| broken(error.to_string()))?;
            let (status, headers) = (head.status.as_u16(), head.headers);
            Ok(Answer { call: call.clone(), status, headers, body: body.to_bytes() })
        };
        let late = Silence::Timeout(call.clone(), patience.as_millis());
        timeout(patience, exchange).await.unwrap_or(Err(late))
    }
}

impl Answer {
    /// Whether it is a success without a body's worth of meaning.
    pub(super) fn done(&self) -> Result<(), String> {
        if self.status == 204 { Ok(()) } else { Err(self.but("204")) }
    }

    /// Whether it is this refusal, in the contract's form.
    pub(super) fn refused(&self, code: ErrorCode) -> Result<ErrorBody, String> {
        let expected = format!("{} {{\"code\": \"{code:?}\"}}", code.status());
        if self.status != code.status() {
            return Err(self.but(&expected));
        }
        let body: ErrorBody = serde_json::from_slice(&self.body).map_err(|_| self.but(&expected))?;
        if body.message.len() > MAX_MESSAGE {
            return Err(format!(
                "{}: `message` has {} bytes, at most {MAX_MESSAGE} are shown",
                self.call,
                body.message.len()
            ));
        }
        if body.code == code { Ok(body) } else { Err(self.but(&expected)) }
    }

    /// Its body, if it is a 200 with one of that form.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, String> {
        if self.status != 200 {
            return Err(self.but("200 with a JSON body"));
        }
        serde_json::from_slice(&self.body)
            .map_err(|error| format!("{}: the answer cannot be read: {error}", self.call))
    }

    /// What was answered where `expected` was to be.
    pub(super) fn but(&self, expected: &str) -> String {
        let start: String = String::from_utf8_lossy(&self.body).chars().take(120).collect();
        let start = if start.is_empty() { String::new() } else { format!(" `{}`", start.escape_debug()) };
        format!("{} answered {}{start}, expected {expected}", self.call, self.status)
    }
}

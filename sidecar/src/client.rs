//! The HTTP client for the worker, the successor and other sidecars: kept-alive connections, bounded answers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::net::{Dial, Net};

/// Any error of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// A body of either direction.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// Below the idle time-out of common servers (5 s), so that a request is not written into a connection that the other
/// side is just closing: its outcome would be unknown.
const IDLE: Duration = Duration::from_secs(4);
const IDLE_CONNECTIONS: usize = 256;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No connection came about: nothing was sent.
    #[error("{0} does not accept connections")]
    Unreachable(SocketAddr),
    /// The time was up.
    #[error("no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// The answer is longer than it may be.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    /// The connection broke after something was sent.
    #[error("the connection broke: {0}")]
    Broken(String),
}

/// A client; clones share its connections.
#[derive(Clone)]
pub struct Client {
    inner: legacy::Client<Dial, Body>,
}

impl Client {
    /// A client on these sockets.
    #[must_use]
    pub fn new(net: Arc<dyn Net>) -> Self {
        let inner = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .build(Dial(net));
        Self { inner }
    }

    /// Sends `request` to `address` and waits for the head of the answer, without a limit of time.
    ///
    /// # Errors
    /// [`CallError::Unreachable`] means that no byte was sent.
    pub async fn send(
        &self,
        address: SocketAddr,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, CallError> {
        *request.uri_mut() = target(address, request.uri())?;
        self.inner.request(request).await.map_err(|error| {
            if error.is_connect() {
                CallError::Unreachable(address)
            } else {
                CallError::Broken(chain(&error))
            }
        })
    }

    /// One call with a bounded answer.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call(&self, call: Call<'_>) -> Result<(StatusCode, Bytes), CallError> {
        let limit = call.time;
        let work = async {
            let (address, longest) = (call.address, call.longest);
            let response = self.send(address, call.request()).await?;
            let status = response.status();
            match Limited::new(response.into_body(), longest).collect().await {
                Ok(body) => Ok((status, body.to_bytes())),
                Err(error) if error.is::<LengthLimitError>() => Err(CallError::TooLong(longest)),
                Err(error) => Err(CallError::Broken(error.to_string())),
            }
        };
        tokio::time::timeout(limit, work).await.unwrap_or(Err(CallError::TimedOut(limit)))
    }
}

/// A call with a small body.
pub struct Call<'a> {
    /// To whom.
    pub address: SocketAddr,
    /// How.
    pub method: Method,
    /// Path and query.
    pub path: &'a str,
    /// Headers beside the usual ones.
    pub headers: HeaderMap,
    /// Body; JSON if not empty and `json`.
    pub body: Bytes,
    /// Whether the body is JSON.
    pub json: bool,
    /// How long it may take.
    pub time: Duration,
    /// Longest answer that is read, in bytes.
    pub longest: usize,
}

impl Call<'_> {
    fn request(self) -> Request<Body> {
        let mut request = Request::new(full(self.body.clone()));
        *request.method_mut() = self.method;
        *request.uri_mut() = self.path.parse().unwrap_or_default();
        *request.headers_mut() = self.headers;
        if !self.body.is_empty() {
            let kind = if self.json { "application/json" } else { "application/octet-stream" };
            request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        request
    }
}

/// A body that is at hand.
#[must_use]
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

fn target(address: SocketAddr, uri: &Uri) -> Result<Uri, CallError> {
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    Uri::builder()
        .scheme("http")
        .authority(address.to_string())
        .path_and_query(path)
        .build()
        .map_err(|error| CallError::Broken(error.to_string()))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

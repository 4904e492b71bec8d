//! The operator's side of the control connection to a sidecar: kept alive, one time-out per call, no retries.

use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use processhub_protocol::replica::{Replicate, Seal, Sealed};
use processhub_protocol::wire::{
    Activate, Freeze, HandOn, Import, LetGo, Refusal, Renew, Report, TOKEN_HEADER, Thaw, Trial, path,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

type Bytes = axum::body::Bytes;

/// How long a connection may take to be made. A sidecar that is up answers within the pod network's round trip.
const CONNECT: Duration = Duration::from_millis(500);
/// How long an idle connection is kept: longer than the slow resync, so that a move meets an open one.
const IDLE: Duration = Duration::from_secs(90);
/// A report is about 1 KiB; a refusal's message is bounded to as much.
const MAX_ANSWER: usize = 64 * 1024;

/// Why a sidecar gave no report.
#[derive(Debug, thiserror::Error)]
pub enum SidecarError {
    /// No connection, or it broke. What was asked for may have been done.
    #[error("sidecar {address}{path}: {reason}")]
    Unreachable {
        /// Its address.
        address: String,
        /// What was asked for.
        path: &'static str,
        /// Why.
        reason: String,
    },
    /// No answer in time. What was asked for goes on; the same command again joins it.
    #[error("sidecar {address}{path}: no answer within {milliseconds} ms; the command goes on")]
    TimedOut {
        /// Its address.
        address: String,
        /// What was asked for.
        path: &'static str,
        /// How long was waited.
        milliseconds: u128,
    },
    /// It refused. Nothing was changed.
    #[error("sidecar {address}{path}: refused, {code:?}: {message}", code = refusal.code, message = refusal.message)]
    Refused {
        /// Its address.
        address: String,
        /// What was asked for.
        path: &'static str,
        /// Its refusal.
        refusal: Box<Refusal>,
    },
    /// Its answer cannot be understood: another version, or not a sidecar at all.
    #[error("sidecar {address}{path}: status {status}, not an answer of this protocol: {reason}")]
    Unreadable {
        /// Its address.
        address: String,
        /// What was asked for.
        path: &'static str,
        /// HTTP status.
        status: StatusCode,
        /// What is wrong with the body.
        reason: String,
    },
}

/// Where a sidecar is, and what proves to it that the caller may command it.
#[derive(Clone)]
pub struct Address {
    /// The pod's address.
    pub ip: String,
    /// Port of its control endpoints.
    pub port: u16,
    /// Value of the token header for that pod. A secret: never logged.
    pub token: String,
}

impl Address {
    fn authority(&self) -> String {
        if self.ip.contains(':') {
            format!("[{}]:{}", self.ip, self.port)
        } else {
            format!("{}:{}", self.ip, self.port)
        }
    }
}

/// A client of all sidecars; cheap to clone, clones share the connections.
#[derive(Clone, Debug)]
pub struct SidecarClient {
    http: Client<HttpConnector, Full<Bytes>>,
}

impl Default for SidecarClient {
    fn default() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT));
        connector.set_nodelay(true);
        let http = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_timer(TokioTimer::new())
            .build(connector);
        Self { http }
    }
}

impl SidecarClient {
    /// What the sidecar says of itself, with a fresh challenge.
    ///
    /// # Errors
    /// [`SidecarError`].
    pub async fn report(&self, to: &Address, patience: Duration) -> Result<Report, SidecarError> {
        self.call(Method::GET, to, path::REPORT, Bytes::new(), patience).await
    }

    /// Commands a freeze; answers with the report after it.
    ///
    /// # Errors
    /// [`SidecarError`].
    pub async fn freeze(
        &self,
        to: &Address,
        command: &Freeze,
        patience: Duration,
    ) -> Result<Report, SidecarError> {
        self.command(to, path::FREEZE, command, patience).await
    }

    /// Commands an import; answers with the report after it.
    ///
    /// # Errors
    /// [`SidecarError`].
    pub async fn import(
        &self,
        to: &Address,
        command: &Import,
        patience: Duration,
    ) -> Result<Report, SidecarError> {
        self.command(to, path::IMPORT, command, patience).await
    }

    /// Commands to offer the worker a copy of the source's state; answers with the report after it.
    ///
    /// # Errors
    /// [`SidecarError`].
    pub async fn trial(
        &self,
        to: &Address,
        command: &Trial,
        patience: Duration,
    ) -> Result<Report, SidecarError> {
        self.command(to, path::TRIAL, command, patience).await
    }

    /// Commands to serve; answers with the report after it.
    ///
    /// # Errors
    /// [`SidecarError`].
    pub async fn activate(
        &self,
        to: &Address,
        command: &Activate,
        patience: Duration,
    ) -> Result<Report, SidecarError> {
        self.command(to, path::ACTIVATE, command, patience).await
    }

    /// Commands to serve again; answers with the report after it.
    ///
    /// # Errors
    /// [`SidecarError`].
    pub async fn thaw(
        &self,
        to: &Address,
        command: &Thaw,
        patience: Duration,
    ) -> Result<Report, SidecarError> {
        self.command(to, path::THAW, command, patience).await
    }

    /// Gives an owner another lease; answers with the report after it.
    ///
    /// # Errors
    /// [`SidecarError`].
    pub async fn renew(
        &self,
        to: &Address,
        command: &Renew,
        patience: Duration,
    ) -> Result<Report, SidecarError> {
        self.command(to, path::RENEW, command, patience).await
    }

    /// Tells an owner who holds its replicas; answers with the report after it.
    ///
    /// # Errors
    /// [`SidecarError`].
    pub async fn replicate(
        &self,
        to: &Address,
        command: &Replicate,
        patience: Duration,
    ) -> Result<Report, SidecarError> {
        self.command(to, path::REPLICATE, command, patience).await
    }

    /// Has a holder refuse what is older than a recovery, and say what it has.
    ///
    /// # Errors
    /// [`SidecarError`].
    pub async fn seal_replica(
        &self,
        to: &Address,
        command: &Seal,
        patience: Duration,
    ) -> Result<Sealed, SidecarError> {
        self.command(to, path::SEAL, command, patience).await
    }

    /// Commands a sealed source to forward to a successor that does not serve yet; answers with the report after it.
    ///
    /// # Errors
    /// [`SidecarError`].
    pub async fn hand_on(
        &self,
        to: &Address,
        command: &HandOn,
        patience: Duration,
    ) -> Result<Report, SidecarError> {
        self.command(to, path::HAND_ON, command, patience).await
    }

    /// Tells an owner that its process was deleted; answers with the report after it.
    ///
    /// # Errors
    /// [`SidecarError`].
    pub async fn let_go(
        &self,
        to: &Address,
        command: &LetGo,
        patience: Duration,
    ) -> Result<Report, SidecarError> {
        self.command(to, path::LET_GO, command, patience).await
    }

    async fn command<T: DeserializeOwned>(
        &self,
        to: &Address,
        path: &'static str,
        command: &impl Serialize,
        patience: Duration,
    ) -> Result<T, SidecarError> {
        let body = serde_json::to_vec(command).map_err(|error| unreachable(to, path, &error))?;
        self.call(Method::POST, to, path, body.into(), patience).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        to: &Address,
        path: &'static str,
        body: Bytes,
        patience: Duration,
    ) -> Result<T, SidecarError> {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", to.authority()))
            .header(TOKEN_HEADER, &to.token)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| unreachable(to, path, &error))?;
        let exchange = async {
            let answer = self.http.request(request).await.map_err(|error| unreachable(to, path, &error))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_ANSWER);
            let body = body.collect().await.map_err(|error| unreachable(to, path, &*error))?.to_bytes();
            understand(to, path, status, &body)
        };
        timeout(patience, exchange).await.unwrap_or_else(|_| {
            Err(SidecarError::TimedOut { address: to.ip.clone(), path, milliseconds: patience.as_millis() })
        })
    }
}

fn understand<T: DeserializeOwned>(
    to: &Address,
    path: &'static str,
    status: StatusCode,
    body: &[u8],
) -> Result<T, SidecarError> {
    let unreadable = |error: serde_json::Error| SidecarError::Unreadable {
        address: to.ip.clone(),
        path,
        status,
        reason: error.to_string(),
    };
    if status.is_success() {
        return serde_json::from_slice(body).map_err(unreadable);
    }
    let refusal = serde_json::from_slice(body).map_err(unreadable)?;
    Err(SidecarError::Refused { address: to.ip.clone(), path, refusal: Box::new(refusal) })
}

fn unreachable(to: &Address, path: &'static str, error: &(dyn std::error::Error + 'static)) -> SidecarError {
    // hyper's own words are "client error (Connect)"; what a person needs is the innermost cause.
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    SidecarError::Unreachable { address: to.ip.clone(), path, reason: cause.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::http::HeaderMap;
    use axum::routing::get;

    async fn serve(router: Router) -> Address {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Address { ip: "127.0.0.1".into(), port, token: "secret".into() }
    }

    const PATIENCE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_refusal_arrives_as_a_refusal_and_the_token_is_sent() {
        let answer = |headers: HeaderMap| async move {
            assert_eq!(headers[TOKEN_HEADER], "secret");
            (StatusCode::CONFLICT, r#"{"code":"StaleEpoch","message":"at or below","floor":7}"#)
        };
        let to = serve(Router::new().route(path::REPORT, get(answer))).await;
        let error = SidecarClient::default().report(&to, PATIENCE).await.unwrap_err();
        let SidecarError::Refused { refusal, .. } = error else { panic!("{error}") };
        assert_eq!(refusal.floor.0, 7);
    }

    #[tokio::test]
    async fn an_answer_of_something_else_is_not_taken_for_a_report() {
        let to = serve(Router::new().route(path::REPORT, get(|| async { "hello" }))).await;
        let error = SidecarClient::default().report(&to, PATIENCE).await.unwrap_err();
        assert!(matches!(error, SidecarError::Unreadable { status: StatusCode::OK, .. }), "{error}");
    }

    #[tokio::test]
    async fn a_sidecar_that_does_not_listen_is_unreachable_with_the_innermost_cause() {
        let to = Address { ip: "127.0.0.1".into(), port: 1, token: String::new() };
        let error = SidecarClient::default().report(&to, PATIENCE).await.unwrap_err();
        assert!(error.to_string().contains("refused"), "{error}");
    }

    #[test]
    fn an_ipv6_address_is_bracketed() {
        let to = Address { ip: "fd00::1".into(), port: 9710, token: String::new() };
        assert_eq!(to.authority(), "[fd00::1]:9710");
    }
}

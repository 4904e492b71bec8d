//! The client of the worker's contract: bounded answers, time-outs, refusals as data.

mod give;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use hyper::body::Incoming;
use processhub_protocol::contract::{
    self, ActivateRequest, ApplyRequest, CaptureAnswer, CaptureRequest, CaptureSummary, Disposition,
    ErrorBody, ErrorCode, Info, MAX_CONTROL_ANSWER, Name, PartName, ResumeRequest, SuspendRequest, Violation,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::client::{Call, CallError, Client, full};

pub use give::{Given, PassError};

/// How long `GET /v1/info` may take.
const INFO_TIME: Duration = Duration::from_secs(1);
/// How long small calls that are not bounded by the hub may take.
const SMALL_TIME: Duration = Duration::from_secs(5);

/// The worker of this pod.
#[derive(Clone)]
pub struct Worker {
    client: Client,
    control: SocketAddr,
}

/// Why a call did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// No answer.
    #[error("the worker: {0}")]
    Call(#[from] CallError),
    /// It refused.
    #[error("the worker answered {status}: {}", .body.message)]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What it said, cleaned.
        body: ErrorBody,
    },
    /// It speaks another version of the contract.
    #[error("the worker speaks version {0} of the contract, this sidecar {ours}", ours = contract::CONTRACT_VERSION)]
    Foreign(u32),
    /// It answered something that the contract does not allow.
    #[error("the worker's answer breaks the contract: {0}")]
    Malformed(String),
}

impl From<Violation> for WorkerError {
    fn from(violation: Violation) -> Self {
        match violation {
            Violation::Version(version) => Self::Foreign(version),
            violation => Self::Malformed(violation.to_string()),
        }
    }
}

impl WorkerError {
    /// Whether the time was up.
    #[must_use]
    pub fn timed_out(&self) -> bool {
        matches!(self, Self::Call(CallError::TimedOut(_)))
    }

    /// Whether no connection came about.
    #[must_use]
    pub fn unreachable(&self) -> bool {
        matches!(self, Self::Call(CallError::Unreachable(_)))
    }

    /// What is to be done about it; `capture` for `POST /v1/capture`.
    #[must_use]
    pub fn disposition(&self, capture: bool) -> Disposition {
        match self {
            Self::Refused { status, .. } => Disposition::of(*status, capture),
            Self::Call(_) | Self::Foreign(_) | Self::Malformed(_) => Disposition::Retry,
        }
    }

    /// The code of a refusal.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused { body, .. } => Some(body.code),
            Self::Call(_) | Self::Foreign(_) | Self::Malformed(_) => None,
        }
    }
}

type Answer<T> = Result<T, WorkerError>;

impl Worker {
    /// The worker whose contract is served at `control`.
    #[must_use]
    pub fn new(client: Client, control: SocketAddr) -> Self {
        Self { client, control }
    }

    /// `GET /v1/info`.
    ///
    /// # Errors
    /// See [`WorkerError`]; so in the other calls.
    pub async fn info(&self) -> Answer<Info> {
        let (_, body) = self.ask(Method::GET, contract::PATH_INFO, Bytes::new(), INFO_TIME).await?;
        let info: Info = parse(&body)?;
        info.check()?;
        Ok(info)
    }

    /// `POST /v1/suspend`.
    ///
    /// # Errors
    /// See [`WorkerError`].
    pub async fn suspend(&self, request: &SuspendRequest, time: Duration) -> Answer<()> {
        self.post(contract::PATH_SUSPEND, request, time).await.map(drop)
    }

    /// `POST /v1/resume`.
    ///
    /// # Errors
    /// See [`WorkerError`].
    pub async fn resume(&self, request: &ResumeRequest) -> Answer<()> {
        self.post(contract::PATH_RESUME, request, SMALL_TIME).await.map(drop)
    }

    /// `POST /v1/activate`.
    ///
    /// # Errors
    /// See [`WorkerError`].
    pub async fn activate(&self, request: &ActivateRequest, time: Duration) -> Answer<()> {
        self.post(contract::PATH_ACTIVATE, request, time).await.map(drop)
    }

    /// `POST /v1/capture`; `None` when nothing changed since `unlessSeq`.
    ///
    /// # Errors
    /// See [`WorkerError`].
    pub async fn capture(&self, request: &CaptureRequest, time: Duration) -> Answer<Option<CaptureAnswer>> {
        let (status, body) = self.post(contract::PATH_CAPTURE, request, time).await?;
        if status == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        let answer: CaptureAnswer = parse(&body)?;
        answer.check()?;
        Ok(Some(answer))
    }

    /// `GET /v1/capture/{id}/{part}`: the bytes as they come.
    ///
    /// # Errors
    /// See [`WorkerError`].
    pub async fn part(&self, capture: &Name, part: &PartName, time: Duration) -> Answer<Incoming> {
        let mut request = Request::new(full(Bytes::new()));
        *request.uri_mut() = path(&contract::path_capture_part(capture, part));
        let answer = tokio::time::timeout(time, self.client.send(self.control, request));
        let response = answer.await.unwrap_or(Err(CallError::TimedOut(time)))?;
        if response.status() == StatusCode::OK {
            return Ok(response.into_body());
        }
        let status = response.status().as_u16();
        let message = format!("part `{part}` of the capture could not be read");
        Err(WorkerError::Refused { status, body: ErrorBody::new(ErrorCode::Other, &message) })
    }

    /// `DELETE /v1/capture/{id}`.
    ///
    /// # Errors
    /// See [`WorkerError`].
    pub async fn end_capture(&self, capture: &Name) -> Answer<CaptureSummary> {
        let path = contract::path_capture(capture);
        let (_, body) = self.ask(Method::DELETE, &path, Bytes::new(), SMALL_TIME).await?;
        let summary: CaptureSummary = parse(&body)?;
        summary.check()?;
        Ok(summary)
    }

    async fn slice(&self, import: &Name, part: &PartName, offset: u64, bytes: Bytes) -> Answer<()> {
        let call = Call {
            address: self.control,
            method: Method::PUT,
            path: &contract::path_import_part(import, part, offset),
            headers: HeaderMap::new(),
            body: bytes,
            json: false,
            time: SMALL_TIME,
            longest: MAX_CONTROL_ANSWER,
        };
        self.done(call).await.map(drop)
    }

    async fn apply(&self, import: &Name, request: &ApplyRequest, time: Duration) -> Answer<()> {
        self.post(&contract::path_apply(import), request, time).await.map(drop)
    }

    async fn end_import(&self, import: &Name) -> Answer<()> {
        self.ask(Method::DELETE, &contract::path_import(import), Bytes::new(), SMALL_TIME).await.map(drop)
    }

    async fn post(&self, path: &str, body: &impl Serialize, time: Duration) -> Answer<(StatusCode, Bytes)> {
        let body = serde_json::to_vec(body).map_err(|error| WorkerError::Malformed(error.to_string()))?;
        self.ask(Method::POST, path, body.into(), time).await
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        time: Duration,
    ) -> Answer<(StatusCode, Bytes)> {
        let (address, headers, longest) = (self.control, HeaderMap::new(), MAX_CONTROL_ANSWER);
        self.done(Call { address, method, path, headers, body, json: true, time, longest }).await
    }

    async fn done(&self, call: Call<'_>) -> Answer<(StatusCode, Bytes)> {
        let (status, body) = self.client.call(call).await?;
        if status.is_success() {
            return Ok((status, body));
        }
        let body = serde_json::from_slice::<ErrorBody>(&body)
            .map_or_else(|_| ErrorBody::new(ErrorCode::Other, "no further description"), ErrorBody::cleaned);
        Err(WorkerError::Refused { status: status.as_u16(), body })
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Answer<T> {
    // serde's message names the place, never the content.
    serde_json::from_slice(body).map_err(|error| {
        WorkerError::Malformed(format!(
            "its JSON is not what was asked for at line {} column {}",
            error.line(),
            error.column()
        ))
    })
}

fn path(text: &str) -> http::Uri {
    // Names were checked where they came in: they are one segment each.
    text.parse().unwrap_or_default()
}

//! One client of one process: sends one request after another, never the same one twice.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::history::{Operation, Outcome};
use super::remote::{Answer, Call};

/// How often, and after which pause, a network without a way to the address is tried again: a second in all.
const UNREACHABLE_TRIES: u32 = 100;
const UNREACHABLE_PAUSE: Duration = Duration::from_millis(10);

/// Which of the example workers a client talks to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Speech {
    /// The counter.
    #[default]
    Counter,
    /// The account, of any version.
    Account,
}

impl Speech {
    /// As the argument of a command line.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Account => "account",
        }
    }

    /// The path and the body that ask for one more, numbered by the client.
    fn one_more(self, client: &str, number: u64) -> (&'static str, serde_json::Value) {
        match self {
            Self::Counter => ("/increment", json!({ "client": client, "number": number })),
            Self::Account => ("/deposit", json!({ "amount": 1, "id": format!("{client}/{number}") })),
        }
    }

    /// The value in the answer.
    fn value(self, answer: &serde_json::Value) -> Option<u64> {
        match self {
            Self::Counter => answer["value"].as_u64(),
            Self::Account => answer.as_u64().or_else(|| answer["salary"].as_u64()),
        }
    }
}

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// To which worker.
    pub speech: Speech,
    /// Name, unique in a run.
    pub name: String,
    /// The process that it talks to.
    pub process: String,
    /// The process's stable address: all that it knows.
    pub address: SocketAddr,
    /// Whether each request gets a connection of its own.
    pub fresh: bool,
    /// Pause between two requests.
    pub pause: Duration,
    /// How long it waits for an answer before the outcome is unknown.
    pub patience: Duration,
}

/// A client with its connection.
pub struct Client {
    options: ClientOptions,
    connection: Option<SendRequest<Full<Bytes>>>,
    number: u64,
}

impl Client {
    /// A client that has sent nothing yet.
    #[must_use]
    pub fn new(options: ClientOptions) -> Self {
        Self { options, connection: None, number: 0 }
    }

    /// Pause between two requests.
    #[must_use]
    pub fn pause(&self) -> Duration {
        self.options.pause
    }

    /// Sends the next request and waits for its outcome.
    pub async fn step(&mut self) -> Operation {
        self.number += 1;
        let sent = now();
        let outcome = match timeout(self.options.patience, self.exchange()).await {
            Ok(outcome) => outcome,
            Err(_) => Outcome::Unknown { message: "no answer in time".into() },
        };
        if self.options.fresh || !matches!(outcome, Outcome::Acknowledged { .. }) {
            self.connection = None;
        }
        Operation {
            process: self.options.process.clone(),
            client: self.options.name.clone(),
            number: self.number,
            fresh: self.options.fresh,
            sent,
            done: now(),
            outcome,
        }
    }

    async fn exchange(&mut self) -> Outcome {
        let mut connection = match self.connect().await {
            Ok(connection) => connection,
            Err(error) => return Outcome::Refused { status: 0, message: format!("connect: {error}") },
        };
        let outcome = match connection.send_request(self.request()).await {
            // Not one byte of it was written: the server had closed the idle connection.
            Err(error) if error.is_canceled() => {
                return Outcome::Refused {
                    status: 0,
                    message: format!("closed before it was sent: {error}"),
                };
            }
            Err(error) => return Outcome::Unknown { message: error.to_string() },
            Ok(response) => {
                let status = response.status();
                match response.into_body().collect().await {
                    Ok(body) => judge(self.options.speech, status, &body.to_bytes()),
                    Err(error) => Outcome::Unknown { message: format!("answer cut short: {error}") },
                }
            }
        };
        self.connection = Some(connection);
        outcome
    }

    /// The kept connection, if it is still open, or a new one. Nothing has been sent at this point, so a new
    /// connection is no retry.
    async fn connect(&mut self) -> std::io::Result<SendRequest<Full<Bytes>>> {
        if let Some(mut kept) = self.connection.take()
            && kept.ready().await.is_ok()
        {
            return Ok(kept);
        }
        let stream = reach(self.options.address).await?;
        stream.set_nodelay(true)?;
        let (mut sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
        tokio::spawn(connection);
        sender.ready().await.map_err(std::io::Error::other)?;
        Ok(sender)
    }

    fn request(&self) -> http::Request<Full<Bytes>> {
        let (path, body) = self.options.speech.one_more(&self.options.name, self.number);
        let mut request = http::Request::new(Full::new(Bytes::from(body.to_string())));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = http::Uri::from_static(path);
        let headers = request.headers_mut();
        if let Ok(host) = http::HeaderValue::from_str(&self.options.address.to_string()) {
            headers.insert(http::header::HOST, host);
        }
        headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
        request
    }
}

/// Connects. While the proxy of the clients' own network replaces its rules, a Service's address has no way out of that
/// network for some milliseconds, which tells nothing of who serves there: an address without endpoints refuses, and a
/// pod that is gone resets or is silent, and those are errors. The wait counts in the client's gap.
async fn reach(address: SocketAddr) -> std::io::Result<TcpStream> {
    for _ in 0..UNREACHABLE_TRIES {
        match TcpStream::connect(address).await {
            Err(error) if error.kind() == std::io::ErrorKind::NetworkUnreachable => {
                tokio::time::sleep(UNREACHABLE_PAUSE).await;
            }
            connected => return connected,
        }
    }
    TcpStream::connect(address).await
}

/// `GET path` on a connection of its own; the body as text.
///
/// # Errors
/// When there is no answer within ten seconds, or its status is not a success.
pub async fn fetch(address: SocketAddr, path: &str) -> Result<String> {
    let call = Call {
        address,
        method: "GET".into(),
        path: path.to_owned(),
        headers: Vec::new(),
        body: String::new(),
    };
    let Answer { status, body } =
        timeout(Duration::from_secs(10), send(&call)).await.context("no answer within 10 s")??;
    if !(200..300).contains(&status) {
        bail!("{status}: {body}");
    }
    Ok(body)
}

/// Sends one request on a connection of its own.
///
/// # Errors
/// When there is no connection, or no whole answer.
pub async fn send(call: &Call) -> Result<Answer> {
    let stream = TcpStream::connect(call.address).await?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut request = http::Request::builder()
        .method(call.method.as_str())
        .uri(&call.path)
        .header(http::header::HOST, call.address.to_string())
        .header(http::header::CONTENT_TYPE, "application/json");
    for (name, value) in &call.headers {
        request = request.header(name, value);
    }
    let response = sender.send_request(request.body(Full::new(Bytes::from(call.body.clone())))?).await?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await?.to_bytes();
    Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned() })
}

fn judge(speech: Speech, status: http::StatusCode, body: &[u8]) -> Outcome {
    if status.is_success() {
        let answer = serde_json::from_slice::<serde_json::Value>(body).ok();
        return match answer.and_then(|answer| speech.value(&answer)) {
            Some(value) => Outcome::Acknowledged { value },
            None => Outcome::Unknown { message: "an answer without a value".into() },
        };
    }
    let message: String = String::from_utf8_lossy(body).chars().take(200).collect();
    if status == http::StatusCode::BAD_GATEWAY {
        Outcome::Unknown { message }
    } else {
        Outcome::Refused { status: status.as_u16(), message }
    }
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_micros()).unwrap_or(u64::MAX))
}

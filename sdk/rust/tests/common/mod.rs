//! A worker on loopback, and a sidecar's hands to reach it with.
#![allow(dead_code, reason = "each test file uses its share")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::routing::{get, post};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, StatusCode};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use processhub_sdk::{
    Activation, ApplyContext, Config, Imported, Part, Reason, Refusal, RunError, Server, Worker,
};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;

/// A worker whose state is a list of words, and that tells what was asked of it.
pub struct Words {
    pub words: Mutex<Vec<String>>,
    pub calls: Mutex<Vec<String>>,
    pub decoded: AtomicUsize,
    /// What a hook answers instead of success.
    pub fail: Mutex<BTreeMap<&'static str, Refusal>>,
    /// Each `POST /slow` waits for one permit.
    pub slow: Semaphore,
    /// It says that it can be captured while it serves.
    pub live: bool,
}

impl Default for Words {
    fn default() -> Self {
        Self {
            words: Mutex::default(),
            calls: Mutex::default(),
            decoded: AtomicUsize::new(0),
            fail: Mutex::default(),
            slow: Semaphore::new(0),
            live: false,
        }
    }
}

impl Words {
    fn called(&self, hook: &'static str, detail: String) -> Result<(), Refusal> {
        self.calls.lock().unwrap().push(format!("{hook}{detail}"));
        self.fail.lock().unwrap().get(hook).cloned().map_or(Ok(()), Err)
    }

    pub fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    pub fn words(&self) -> Vec<String> {
        self.words.lock().unwrap().clone()
    }

    pub fn fail(&self, hook: &'static str, refusal: Refusal) {
        self.fail.lock().unwrap().insert(hook, refusal);
    }

    pub fn mend(&self) {
        self.fail.lock().unwrap().clear();
    }
}

impl Worker for Words {
    type State = Vec<String>;

    fn vsn(&self) -> String {
        "2".into()
    }

    fn accepts_from(&self) -> Vec<String> {
        vec!["1".into()]
    }

    fn load(&self) -> u64 {
        3
    }

    fn captured_live(&self) -> bool {
        self.live
    }

    fn capture(&self) -> Result<Vec<Part>, Refusal> {
        self.called("capture", String::new())?;
        let words = self.words.lock().unwrap();
        let table = Bytes::from(words.join("\n"));
        Ok(vec![Part::json("state", &words.len())?, Part::new("table.words", vec![table])?])
    }

    fn decode(&self, state: &Imported, context: &ApplyContext) -> Result<Vec<String>, Refusal> {
        self.decoded.fetch_add(1, Ordering::SeqCst);
        self.called("decode", format!(" {}", context.vsn))?;
        let text = String::from_utf8(state.bytes("table.words")?.to_vec())
            .map_err(|_| Refusal::cannot_accept("table.words is not text"))?;
        let words: Vec<String> =
            text.split('\n').filter(|word| !word.is_empty()).map(str::to_owned).collect();
        if state.json::<usize>("state")? != words.len() {
            return Err(Refusal::cannot_accept("the count in `state` differs from table.words"));
        }
        Ok(words)
    }

    fn install(&self, state: Vec<String>) {
        *self.words.lock().unwrap() = state;
    }

    fn initial(&self, _: &Activation) -> Result<(), Refusal> {
        self.called("initial", String::new())
    }

    fn activate(&self, activation: &Activation) -> Result<(), Refusal> {
        self.called("activate", format!(" {} {}", activation.epoch, activation.process.config))
    }

    fn suspend(&self, reason: Reason) -> Result<(), Refusal> {
        self.called("suspend", format!(" {reason:?}"))
    }

    fn resume(&self) {
        let _ = self.called("resume", String::new());
    }
}

pub fn clients(words: Arc<Words>) -> Router {
    async fn add(State(words): State<Arc<Words>>, Path(word): Path<String>) -> String {
        let mut words = words.words.lock().unwrap();
        words.push(word);
        words.len().to_string()
    }
    async fn slow(State(words): State<Arc<Words>>, Path(word): Path<String>) -> String {
        words.slow.acquire().await.unwrap().forget();
        words.words.lock().unwrap().push(word);
        "done".into()
    }
    async fn list(State(words): State<Arc<Words>>) -> String {
        words.words().join(",")
    }
    Router::new()
        .route("/add/{word}", post(add))
        .route("/slow/{word}", post(slow))
        .route("/list", get(list))
        .route("/healthz", get(async || "ok"))
        .with_state(words)
}

/// Two loopback addresses that nobody else uses, with ports that no outgoing connection takes.
pub async fn bind() -> Server {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let process = std::process::id() % 128;
    loop {
        let [high, low] = NEXT.fetch_add(1, Ordering::SeqCst).to_be_bytes();
        let address = |port: u16| SocketAddr::from(([127, 64 + process as u8 / 2, high, low], port));
        let mut config = Config::from_lookup(|_| None).unwrap().probes(["/healthz"]);
        (config.control, config.listen) = (address(9700), address(8080));
        config.shutdown_grace = Duration::from_secs(600);
        match Server::bind(config).await {
            Ok(server) => return server,
            Err(RunError::Bind { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
}

pub struct Running {
    pub control: SocketAddr,
    pub listen: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    pub served: JoinHandle<Result<(), RunError>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.served.abort();
    }
}

impl Running {
    pub async fn of<W: Worker>(worker: Arc<W>, clients: Router) -> Self {
        let server = bind().await;
        let (control, listen) = (server.control_address().unwrap(), server.listen_address().unwrap());
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(server.serve(worker, clients, async {
            let _ = stopped.await;
        }));
        Self { control, listen, stop: Some(stop), served }
    }

    pub async fn words() -> (Self, Arc<Words>) {
        let words = Arc::new(Words::default());
        (Self::of(Arc::clone(&words), clients(Arc::clone(&words))).await, words)
    }

    pub fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    /// A call of the contract with a JSON body, or none for null.
    pub async fn call(&self, method: &str, path: &str, body: Value) -> Answer {
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        send(self.control, method, path, body).await
    }

    pub async fn put(&self, path: &str, bytes: impl Into<Bytes>) -> Answer {
        send(self.control, "PUT", path, bytes.into()).await
    }

    pub async fn client(&self, method: &str, path: &str) -> Answer {
        send(self.listen, method, path, Bytes::new()).await
    }

    pub async fn info(&self) -> Value {
        self.call("GET", "/v1/info", Value::Null).await.json()
    }

    pub async fn state(&self) -> String {
        self.info().await["state"].as_str().unwrap().to_owned()
    }

    pub async fn activate(&self, epoch: u64, initial: bool) -> Answer {
        let body =
            json!({"epoch": epoch, "reason": "Start", "initial": initial, "process": {"config": {"a": 1}}});
        self.call("POST", "/v1/activate", body).await
    }

    pub async fn suspend(&self, epoch: u64) -> Answer {
        self.call("POST", "/v1/suspend", json!({"epoch": epoch, "reason": "Handover"})).await
    }

    pub async fn resume(&self, epoch: u64) -> Answer {
        self.call("POST", "/v1/resume", json!({"epoch": epoch})).await
    }

    pub async fn capture(&self, epoch: u64) -> Answer {
        self.call("POST", "/v1/capture", json!({"epoch": epoch, "purpose": "Handover"})).await
    }

    pub async fn apply(&self, import: &str, body: Value) -> Answer {
        self.call("POST", &format!("/v1/import/{import}/apply"), body).await
    }

    /// Uploads the state of [`Words`] and gives the body of its `apply`.
    pub async fn upload(&self, import: &str, words: &[&str]) -> Value {
        let (state, table) = (words.len().to_string(), words.join("\n"));
        self.put(&format!("/v1/import/{import}/state?offset=0"), state.clone()).await.expect(204);
        self.put(&format!("/v1/import/{import}/table.words?offset=0"), table.clone()).await.expect(204);
        json!({
            "epoch": 1, "reason": "Handover", "vsn": "2", "direction": "Up", "extra": null, "seq": 40,
            "parts": [{"name": "state", "bytes": state.len()}, {"name": "table.words", "bytes": table.len()}],
        })
    }

    /// Brings a fresh worker into the state of that name.
    pub async fn bring_to(&self, state: &str) {
        if state != "Standby" {
            self.activate(1, true).await.expect(204);
        }
        if state == "Suspended" {
            self.suspend(2).await.expect(204);
        }
        assert_eq!(self.state().await, state);
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        self
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    #[track_caller]
    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }
}

pub async fn send(to: SocketAddr, method: &str, path: &str, body: Bytes) -> Answer {
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(HttpConnector::new());
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let request =
        Request::builder().method(method).uri(format!("http://{to}{path}")).body(Full::new(body)).unwrap();
    let (head, body) = client.request(request).await.unwrap().into_parts();
    Answer { status: head.status, headers: head.headers, body: body.collect().await.unwrap().to_bytes() }
}

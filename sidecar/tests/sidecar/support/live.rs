//! A worker without any SDK that is captured while it serves: it counts, and keeps what it was told.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use axum::{Json, Router};
use processhub_protocol::contract::HEADER_SEQ;
use serde_json::{Value, json};

use super::Pod;

static STARTS: AtomicU64 = AtomicU64::new(0);

/// What the worker does, and what a test sees of it.
#[derive(Clone)]
pub struct Live {
    /// Its answers have numbers, and its captures too.
    pub counts: bool,
    /// It is captured while it serves.
    pub live: bool,
    /// It breaks the contract: captured in Standby, it gives what it begins with.
    pub hasty: bool,
    /// A capture that was read is not ended while this is so.
    pub hangs: Arc<AtomicBool>,
    /// How long a capture takes.
    pub slow: Duration,
    /// Captures that gave a state.
    pub captures: Arc<AtomicU64>,
    /// What it was told at its last activation.
    pub told: Arc<Mutex<Value>>,
}

impl Live {
    pub fn counting() -> Self {
        Self {
            counts: true,
            live: true,
            hasty: false,
            hangs: Arc::default(),
            slow: Duration::ZERO,
            captures: Arc::default(),
            told: Arc::default(),
        }
    }

    pub fn captures(&self) -> u64 {
        self.captures.load(Ordering::SeqCst)
    }

    /// Starts it in the pod.
    pub fn start(&self, pod: &Pod) {
        pod.start_worker(self.clone().run(pod.config.worker_control, pod.config.worker_listen));
    }

    async fn run(self, control: SocketAddr, listen: SocketAddr) {
        let start = STARTS.fetch_add(1, Ordering::SeqCst);
        let worker = Arc::new(Worker {
            options: self,
            instance: format!("i{}-{start}", std::process::id()),
            inner: Mutex::default(),
        });
        let clients = Router::new()
            .route("/told/{word}", post(tell))
            .route("/words", get(words))
            .with_state(Arc::clone(&worker));
        tokio::join!(serve(control, contract(worker)), serve(listen, clients));
    }
}

/// Tells a program of [`start_process`] where to serve.
const ADDRESSES: &str = "LIVE_WORKER_ADDRESSES";

/// A counting worker in a process of its own, which is this very program: a signal ends it, and only it.
pub fn start_process(pod: &Pod) -> Process {
    let program = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "support::live::worker_process", "--ignored", "--nocapture"])
        .env(ADDRESSES, format!("{} {}", pod.config.worker_control, pod.config.worker_listen))
        .stdout(Stdio::null())
        .spawn();
    Process(program.unwrap())
}

/// Ends with its test.
pub struct Process(Child);

impl Process {
    /// Ends it by `signal`, as in `-KILL`.
    pub fn end(mut self, signal: &str) {
        let id = self.0.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
        assert!(!self.0.wait().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "no test: the program of a worker process"]
fn worker_process() {
    let Ok(addresses) = std::env::var(ADDRESSES) else { return };
    let (control, listen) = addresses.split_once(' ').unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(Live::counting().run(control.parse().unwrap(), listen.parse().unwrap()));
}

async fn serve(address: SocketAddr, router: Router) {
    // Its predecessor may be going still.
    let listener = loop {
        match tokio::net::TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    axum::serve(listener, router).await.unwrap();
}

struct Worker {
    options: Live,
    instance: String,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    active: bool,
    suspended: bool,
    epoch: u64,
    words: Vec<String>,
    captured: (u64, Vec<u8>),
    import: Vec<u8>,
    applied: bool,
}

type Shared = State<Arc<Worker>>;

impl Worker {
    fn seq(&self, inner: &Inner) -> u64 {
        if self.options.counts { inner.words.len() as u64 } else { 0 }
    }

    fn answer(&self, inner: &Inner, body: String) -> Response {
        if !inner.active || inner.suspended {
            return (StatusCode::SERVICE_UNAVAILABLE, [("processhub-state", "Standby")]).into_response();
        }
        if self.options.counts {
            ([(HEADER_SEQ, self.seq(inner).to_string())], body).into_response()
        } else {
            body.into_response()
        }
    }
}

async fn tell(State(worker): Shared, Path(word): Path<String>) -> Response {
    let mut inner = worker.inner.lock().unwrap();
    if inner.active && !inner.suspended {
        inner.words.push(word.clone());
    }
    let place = inner.words.len();
    worker.answer(&inner, place.to_string())
}

async fn words(State(worker): Shared) -> Response {
    let inner = worker.inner.lock().unwrap();
    worker.answer(&inner, json!(inner.words).to_string())
}

fn contract(worker: Arc<Worker>) -> Router {
    Router::new()
        .route("/v1/info", get(info))
        .route("/v1/activate", post(activate))
        .route("/v1/suspend", post(suspend))
        .route("/v1/resume", post(resume))
        .route("/v1/capture", post(capture))
        .route("/v1/capture/{id}/state", get(read))
        .route("/v1/capture/{id}", delete(end))
        .route("/v1/import/{id}/state", put(take))
        .route("/v1/import/{id}/apply", post(apply))
        .with_state(worker)
}

async fn info(State(worker): Shared) -> Json<Value> {
    let inner = worker.inner.lock().unwrap();
    let state = match (inner.active, inner.suspended) {
        (_, true) => "Suspended",
        (true, false) => "Active",
        (false, false) => "Standby",
    };
    let capture = if worker.options.live { "Live" } else { "Suspended" };
    Json(json!({
        "contract": 1, "instance": worker.instance, "state": state, "epoch": inner.epoch,
        "seq": worker.seq(&inner), "capture": capture,
    }))
}

async fn activate(State(worker): Shared, Json(told): Json<Value>) -> StatusCode {
    let mut inner = worker.inner.lock().unwrap();
    assert_eq!(told["initial"].as_bool(), Some(!inner.applied), "initial does not fit what was applied");
    inner.epoch = told["epoch"].as_u64().unwrap();
    inner.active = true;
    *worker.options.told.lock().unwrap() = told;
    StatusCode::NO_CONTENT
}

async fn suspend(State(worker): Shared, Json(body): Json<Value>) -> StatusCode {
    let mut inner = worker.inner.lock().unwrap();
    (inner.suspended, inner.epoch) = (true, body["epoch"].as_u64().unwrap());
    StatusCode::NO_CONTENT
}

async fn resume(State(worker): Shared, Json(body): Json<Value>) -> StatusCode {
    let mut inner = worker.inner.lock().unwrap();
    (inner.suspended, inner.epoch) = (false, body["epoch"].as_u64().unwrap());
    StatusCode::NO_CONTENT
}

async fn capture(State(worker): Shared, Json(body): Json<Value>) -> Response {
    let answer = {
        let mut inner = worker.inner.lock().unwrap();
        if !inner.active && !worker.options.hasty {
            return (StatusCode::CONFLICT, Json(json!({ "code": "WrongState", "message": "Standby" })))
                .into_response();
        }
        let seq = worker.seq(&inner);
        if body["unlessSeq"].as_u64() == Some(seq) {
            return StatusCode::NO_CONTENT.into_response();
        }
        let number = worker.options.captures.fetch_add(1, Ordering::SeqCst);
        inner.captured = (number, serde_json::to_vec(&inner.words).unwrap());
        json!({
            "capture": format!("c{number}"), "seq": seq,
            "parts": [{ "name": "state", "bytes": inner.captured.1.len() }],
        })
    };
    tokio::time::sleep(worker.options.slow).await;
    Json(answer).into_response()
}

async fn read(State(worker): Shared, Path(id): Path<String>) -> Result<Vec<u8>, StatusCode> {
    let inner = worker.inner.lock().unwrap();
    let (number, bytes) = &inner.captured;
    if id == format!("c{number}") { Ok(bytes.clone()) } else { Err(StatusCode::NOT_FOUND) }
}

async fn end(State(worker): Shared, Path(id): Path<String>) -> Result<Json<Value>, StatusCode> {
    while worker.options.hangs.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let bytes = read(State(worker), Path(id)).await?.len();
    Ok(Json(json!({ "parts": [{ "name": "state", "bytes": bytes }] })))
}

async fn take(State(worker): Shared, body: Bytes) -> StatusCode {
    worker.inner.lock().unwrap().import = body.to_vec();
    StatusCode::NO_CONTENT
}

async fn apply(State(worker): Shared) -> StatusCode {
    let mut inner = worker.inner.lock().unwrap();
    inner.words = serde_json::from_slice(&inner.import).unwrap();
    inner.applied = true;
    StatusCode::NO_CONTENT
}

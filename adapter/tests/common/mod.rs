//! An adapter in front of an application, called as a sidecar calls it, without sockets in between.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use clap::Parser;
use http_body_util::BodyExt;
use processhub_adapter::application::Ended;
use processhub_adapter::args::{Arguments, Command};
use processhub_adapter::control;
use processhub_adapter::core::Core;
use processhub_adapter::plan::Plan;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc::UnboundedReceiver;
use tower::ServiceExt;

/// An adapter with its folders.
pub struct Pod {
    pub core: Arc<Core>,
    pub ends: UnboundedReceiver<Ended>,
    router: Router,
    folder: TempDir,
}

/// The plan of a command line; `{}` in it stands for the pod's folder.
pub fn plan(folder: &Path, options: &[&str]) -> Plan {
    let work = folder.join("work").display().to_string();
    let words: Vec<String> = ["processhub-adapter", "run", "--work", &work]
        .iter()
        .chain(options)
        .map(|word| word.replace("{}", &folder.display().to_string()))
        .collect();
    match Arguments::try_parse_from(words).unwrap().command {
        Command::Run(arguments) => Plan::new(*arguments).unwrap(),
        Command::Install { .. } => panic!("not asked for"),
    }
}

impl Pod {
    pub async fn start(options: &[&str]) -> Self {
        Self::at("127.0.0.1:9".parse().unwrap(), options).await
    }

    /// With the application's address.
    pub async fn at(listen: SocketAddr, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("data")).unwrap();
        Self::of(folder, listen, options).await
    }

    async fn of(folder: TempDir, listen: SocketAddr, options: &[&str]) -> Self {
        let (core, ends) = Core::open(plan(folder.path(), options), listen).await.unwrap();
        Self { router: control::routes(Arc::clone(&core)), core, ends, folder }
    }

    /// The container is killed and started again; its folders stay.
    pub async fn restart(self, options: &[&str]) -> Self {
        self.core.end().await;
        Self::of(self.folder, "127.0.0.1:9".parse().unwrap(), options).await
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    pub fn text(&self, below: &str) -> String {
        std::fs::read_to_string(self.path(below)).unwrap_or_default()
    }

    async fn call(&self, method: Method, path: &str, body: Vec<u8>) -> (StatusCode, Vec<u8>) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_LENGTH, body.len())
            .body(Body::from(body))
            .unwrap();
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let status = answer.status();
        (status, answer.into_body().collect().await.unwrap().to_bytes().to_vec())
    }

    pub async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        let (status, body) = self.call(Method::POST, path, body.to_string().into_bytes()).await;
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    /// A command that has to be answered 204.
    pub async fn done(&self, path: &str, body: Value) {
        let (status, answer) = self.post(path, body).await;
        assert_eq!(status, 204, "{path}: {answer}");
    }

    /// A command that has to be refused; the message.
    pub async fn refused(&self, status: u16, path: &str, body: Value) -> String {
        let (seen, answer) = self.post(path, body).await;
        assert_eq!(seen, status, "{path}: {answer}");
        answer["message"].as_str().unwrap().to_owned()
    }

    pub async fn begin(&self, epoch: u64) {
        self.done("/v1/activate", json!({"epoch": epoch, "reason": "Start", "initial": true})).await;
    }

    pub async fn suspend(&self, epoch: u64) {
        self.done("/v1/suspend", json!({"epoch": epoch, "reason": "Handover"})).await;
    }

    pub async fn captured(&self, epoch: u64) -> (StatusCode, Value) {
        self.post("/v1/capture", json!({"epoch": epoch, "purpose": "Handover"})).await
    }

    /// The bytes of the one part, and what the deletion of the capture says.
    pub async fn read(&self, capture: &Value) -> (Vec<u8>, StatusCode, Value) {
        let (id, part) =
            (capture["capture"].as_str().unwrap(), capture["parts"][0]["name"].as_str().unwrap());
        let (status, bytes) = self.call(Method::GET, &format!("/v1/capture/{id}/{part}"), Vec::new()).await;
        assert_eq!(status, 200);
        let (status, summary) = self.call(Method::DELETE, &format!("/v1/capture/{id}"), Vec::new()).await;
        (bytes, status, serde_json::from_slice(&summary).unwrap())
    }

    /// Suspends, and takes the whole state.
    pub async fn take(&self, epoch: u64) -> State {
        self.suspend(epoch).await;
        let (status, capture) = self.captured(epoch).await;
        assert_eq!(status, 200, "{capture}");
        let (bytes, status, summary) = self.read(&capture).await;
        assert_eq!(status, 200, "{summary}");
        assert_eq!(summary["parts"][0]["bytes"].as_u64(), Some(bytes.len() as u64));
        let part = capture["parts"][0]["name"].as_str().unwrap().to_owned();
        State { part, bytes, seq: capture["seq"].as_u64().unwrap() }
    }

    /// Uploads a state in slices and asks for it to be applied.
    pub async fn give(&self, epoch: u64, state: &State, reason: &str) -> (StatusCode, Value) {
        let mut offset = 0;
        for slice in state.bytes.chunks(1 << 20) {
            let path = format!("/v1/import/i/{}?offset={offset}", state.part);
            let (status, answer) = self.call(Method::PUT, &path, slice.to_vec()).await;
            if status != 204 {
                return (status, serde_json::from_slice(&answer).unwrap());
            }
            offset += slice.len();
        }
        let parts = json!([{"name": state.part, "bytes": state.bytes.len()}]);
        let body = json!({"epoch": epoch, "reason": reason, "seq": state.seq, "parts": parts});
        self.post("/v1/import/i/apply", body).await
    }

    pub async fn apply(&self, epoch: u64, state: &State) {
        let (status, answer) = self.give(epoch, state, "Handover").await;
        assert_eq!(status, 204, "{answer}");
    }

    pub async fn go_on(&self, epoch: u64) {
        self.done("/v1/activate", json!({"epoch": epoch, "reason": "Handover", "initial": false})).await;
    }
}

/// A state on its way.
pub struct State {
    pub part: String,
    pub bytes: Vec<u8>,
    pub seq: u64,
}

/// Waits for something that another process does.
pub async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} did not happen");
}

//! Clients' requests against suspend, resume and stop.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use common::{Running, Words, send};
use http_body_util::channel::Channel;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Mutex;

/// Waits until `condition` holds; a test that hangs here has failed.
async fn until<F: Future<Output = bool>>(condition: impl Fn() -> F) {
    while !condition().await {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn only_an_active_worker_serves_and_probes_are_answered_always() {
    for (state, told) in [("Standby", Some("Standby")), ("Active", None), ("Suspended", Some("Suspended"))] {
        let (worker, words) = Running::words().await;
        worker.bring_to(state).await;
        let before = words.words();
        let answer = worker.client("POST", "/add/x").await;
        assert_eq!(answer.headers.get("processhub-state").map(|value| value.to_str().unwrap()), told);
        assert_eq!(answer.status.as_u16(), if told.is_some() { 503 } else { 200 });
        if told.is_some() {
            assert_eq!(words.words(), before, "not executed in {state}");
            worker.client("GET", "/no-such-path").await.expect(503);
        }
        worker.client("GET", "/healthz").await.expect(200);
    }
}

#[tokio::test]
async fn answers_are_numbered() {
    let (worker, _) = Running::words().await;
    worker.bring_to("Active").await;
    let mut last = 0;
    for word in ["a", "b"] {
        let answer = worker.client("POST", &format!("/add/{word}")).await;
        let number: u64 = answer.headers["processhub-seq"].to_str().unwrap().parse().unwrap();
        assert!(number > last);
        last = number;
    }
    worker.suspend(2).await.expect(204);
    assert!(worker.capture(2).await.json()["seq"].as_u64().unwrap() >= last);
}

/// A request that runs: it was let in and waits for its permit.
async fn begin_slow(worker: &Running) -> tokio::task::JoinHandle<common::Answer> {
    let listen = worker.listen;
    let request = tokio::spawn(async move { send(listen, "POST", "/slow/late", Bytes::new()).await });
    until(async || running(worker).await).await;
    request
}

/// Whether the slow request was let in.
async fn running(worker: &Running) -> bool {
    worker.client("GET", "/started").await.text() == "1"
}

async fn slow_worker() -> (Running, Arc<Words>) {
    let words = Arc::new(Words::default());
    let started = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = Arc::clone(&started);
    let counted = common::clients(Arc::clone(&words)).layer(axum::middleware::from_fn(
        move |request: axum::extract::Request, next: axum::middleware::Next| {
            if request.uri().path().starts_with("/slow") {
                count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
            next.run(request)
        },
    ));
    let router = counted.route(
        "/started",
        get(move || async move { started.load(std::sync::atomic::Ordering::SeqCst).to_string() }),
    );
    let worker = Running::of(Arc::clone(&words), router).await;
    worker.bring_to("Active").await;
    (worker, words)
}

#[tokio::test]
async fn suspend_answers_when_the_last_request_is_done_and_its_effect_is_in_the_capture() {
    let (worker, words) = slow_worker().await;
    let request = begin_slow(&worker).await;
    let control = worker.control;
    let suspend = tokio::spawn(async move {
        let body = Bytes::from(json!({"epoch": 2, "reason": "Handover"}).to_string());
        send(control, "POST", "/v1/suspend", body).await
    });
    until(async || worker.client("GET", "/list").await.status == 503).await;
    assert!(!suspend.is_finished());
    assert_eq!(worker.state().await, "Active", "its state can still change");
    assert_eq!(worker.capture(2).await.expect(409).code(), "WrongState");
    words.slow.add_permits(1);
    suspend.await.unwrap().expect(204);
    assert_eq!(request.await.unwrap().expect(200).text(), "done");
    let capture = worker.capture(2).await.expect(200).json();
    let path = format!("/v1/capture/{}/table.words", capture["capture"].as_str().unwrap());
    assert_eq!(worker.call("GET", &path, json!(null)).await.text(), "late");
}

#[tokio::test]
async fn a_suspend_that_timed_out_is_called_off_by_a_resume_and_cannot_come_late() {
    let (worker, words) = slow_worker().await;
    let request = begin_slow(&worker).await;
    // A sidecar that gives up: it sends the suspend and hangs up.
    let mut stream = TcpStream::connect(worker.control).await.unwrap();
    let body = json!({"epoch": 2, "reason": "Handover"}).to_string();
    let head =
        format!("POST /v1/suspend HTTP/1.1\r\nHost: w\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    until(async || worker.client("GET", "/list").await.status == 503).await;
    drop(stream);
    worker.resume(3).await.expect(204);
    worker.client("POST", "/add/served").await.expect(200);
    words.slow.add_permits(1);
    request.await.unwrap().expect(200);
    assert_eq!(worker.suspend(2).await.expect(409).code(), "StaleEpoch");
    worker.client("POST", "/add/still").await.expect(200);
    assert_eq!(words.words(), ["served", "late", "still"]);
}

#[tokio::test]
async fn a_suspend_whose_caller_hung_up_is_taken_up_by_its_repeat() {
    let (worker, words) = slow_worker().await;
    let request = begin_slow(&worker).await;
    let suspend = tokio::spawn({
        let control = worker.control;
        async move {
            let body = Bytes::from(json!({"epoch": 2, "reason": "Handover"}).to_string());
            send(control, "POST", "/v1/suspend", body).await
        }
    });
    until(async || worker.client("GET", "/list").await.status == 503).await;
    suspend.abort();
    words.slow.add_permits(1);
    request.await.unwrap().expect(200);
    worker.suspend(2).await.expect(204);
    assert_eq!(worker.state().await, "Suspended");
}

#[tokio::test]
async fn an_answer_that_still_streams_is_a_request_that_runs() {
    let (sender, body) = Channel::<Bytes, axum::Error>::new(1);
    let body = Arc::new(Mutex::new(Some(body)));
    let router = Router::new().route(
        "/stream",
        get(move || {
            let body = Arc::clone(&body);
            async move { Body::new(body.lock().await.take().unwrap()) }
        }),
    );
    let worker = Running::of(Arc::new(Words::default()), router).await;
    worker.bring_to("Active").await;
    let listen = worker.listen;
    let request = tokio::spawn(async move { send(listen, "GET", "/stream", Bytes::new()).await });
    let mut sender = sender;
    sender.send_data(Bytes::from_static(b"one ")).await.unwrap();
    sender.send_data(Bytes::from_static(b"two ")).await.unwrap();
    let control = worker.control;
    let suspend = tokio::spawn(async move {
        let body = Bytes::from(json!({"epoch": 2, "reason": "Handover"}).to_string());
        send(control, "POST", "/v1/suspend", body).await
    });
    until(async || worker.client("GET", "/x").await.status == 503).await;
    assert!(!suspend.is_finished());
    sender.send_data(Bytes::from_static(b"three")).await.unwrap();
    drop(sender);
    suspend.await.unwrap().expect(204);
    assert_eq!(request.await.unwrap().text(), "one two three");
}

#[tokio::test]
async fn a_client_that_leaves_holds_up_no_suspend() {
    let (worker, words) = slow_worker().await;
    let request = begin_slow(&worker).await;
    request.abort();
    let _ = request.await;
    worker.suspend(2).await.expect(204);
    assert!(words.words().is_empty());
}

#[tokio::test]
async fn a_stop_lets_requests_that_run_finish() {
    let (mut worker, words) = slow_worker().await;
    let request = begin_slow(&worker).await;
    worker.stop();
    until(async || TcpStream::connect(worker.listen).await.is_err()).await;
    assert_eq!(worker.info().await["state"], "Active", "the contract is answered to the end");
    words.slow.add_permits(1);
    assert_eq!(request.await.unwrap().expect(200).text(), "done");
    (&mut worker.served).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_answer_is_complete_byte_for_byte() {
    let router = Router::new().route("/big", get(async || vec![7_u8; 3 << 20]));
    let worker = Running::of(Arc::new(Words::default()), router).await;
    worker.bring_to("Active").await;
    let answer = worker.client("GET", "/big").await.expect(200);
    assert_eq!(answer.headers["content-length"], (3 << 20).to_string().as_str());
    assert_eq!(answer.body.len(), 3 << 20);
}

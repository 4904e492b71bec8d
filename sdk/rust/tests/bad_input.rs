//! What a worker does with calls that are not the contract's.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::sync::Arc;

use bytes::Bytes;
use common::{Running, send};
use processhub_sdk::{Part, Refusal, Worker};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn a_body_that_is_not_the_contracts_is_refused_by_its_field() {
    let (worker, words) = Running::words().await;
    for (path, body, says) in [
        ("/v1/suspend", "", "EOF"),
        ("/v1/suspend", "not json", "expected"),
        ("/v1/suspend", r#"{"epoch": 1}"#, "reason"),
        ("/v1/suspend", r#"{"epoch": -1, "reason": "Handover"}"#, "-1"),
        ("/v1/suspend", r#"{"epoch": 9007199254740992, "reason": "Handover"}"#, "`epoch`"),
        ("/v1/suspend", r#"{"epoch": 1, "reason": "Whim"}"#, "Whim"),
        ("/v1/activate", r#"{"epoch": 1, "reason": "Start"}"#, "initial"),
        ("/v1/capture", r#"{"epoch": 1}"#, "purpose"),
        (
            "/v1/import/i/apply",
            r#"{"epoch": 1, "reason": "Start", "seq": 1, "parts": [{"name": "A", "bytes": 1}]}"#,
            "a-z",
        ),
        (
            "/v1/import/i/apply",
            r#"{"epoch": 1, "reason": "Start", "seq": 1, "parts": [{"name": "a", "bytes": 1}, {"name": "a", "bytes": 1}]}"#,
            "`a` twice",
        ),
    ] {
        let refusal = send(worker.control, "POST", path, Bytes::from(body)).await.expect(400).json();
        assert_eq!(refusal["code"], "BadRequest");
        assert!(refusal["message"].as_str().unwrap().contains(says), "{path} {body}: {refusal}");
    }
    assert!(words.calls().is_empty());
    assert_eq!(worker.info().await["epoch"], 0);
}

#[tokio::test]
async fn a_body_without_end_is_cut() {
    let (worker, _) = Running::words().await;
    let body = Bytes::from(vec![b' '; (1 << 20) + 1]);
    assert_eq!(send(worker.control, "POST", "/v1/suspend", body).await.expect(413).code(), "TooLarge");
}

#[tokio::test]
async fn an_unknown_call_is_not_found_and_names_are_checked() {
    let (worker, _) = Running::words().await;
    assert_eq!(worker.call("POST", "/v2/suspend", json!({})).await.expect(404).code(), "NotFound");
    assert_eq!(worker.call("GET", "/v1/suspend", Value::Null).await.expect(405).code(), "NotFound");
    for path in
        ["/v1/import/i/State?offset=0", "/v1/import/i.j/state?offset=0", "/v1/import/i/%2e%2e?offset=0"]
    {
        assert_eq!(worker.put(path, "x").await.expect(400).code(), "BadRequest", "{path}");
    }
    for path in ["/v1/import/i/state", "/v1/import/i/state?offset=-1"] {
        assert!(worker.put(path, "x").await.expect(400).text().contains("`offset`"), "{path}");
    }
}

#[tokio::test]
async fn a_part_may_be_named_like_a_call() {
    let (worker, _) = Running::words().await;
    worker.put("/v1/import/i/apply?offset=0", "x").await.expect(204);
    assert_eq!(worker.put("/v1/import/i/apply?offset=9", "x").await.expect(409).json()["have"], 1);
}

#[tokio::test]
async fn a_slice_that_is_too_large_or_of_unknown_length_is_refused_before_it_is_read() {
    let (worker, _) = Running::words().await;
    let ask = async |headers: &str| {
        let mut stream = TcpStream::connect(worker.control).await.unwrap();
        let head = format!("PUT /v1/import/i/state?offset=0 HTTP/1.1\r\nHost: w\r\n{headers}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 512];
        let length = stream.read(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer[..length]).into_owned()
    };
    assert!(ask("Content-Length: 8388609").await.starts_with("HTTP/1.1 413"));
    assert!(ask("Transfer-Encoding: chunked").await.starts_with("HTTP/1.1 400"));
}

struct Panics;

impl Worker for Panics {
    type State = ();

    fn capture(&self) -> Result<Vec<Part>, Refusal> {
        panic!("in capture")
    }
}

#[tokio::test]
async fn a_method_that_panics_is_a_failed_call_and_no_more() {
    let worker = Running::of(Arc::new(Panics), axum::Router::new()).await;
    worker.bring_to("Suspended").await;
    assert_eq!(worker.capture(2).await.expect(500).code(), "Internal");
    worker.resume(3).await.expect(204);
}

struct Twins;

impl Worker for Twins {
    type State = ();

    fn capture(&self) -> Result<Vec<Part>, Refusal> {
        Ok(vec![Part::new("state", Bytes::new())?, Part::new("state", Bytes::new())?])
    }
}

#[tokio::test]
async fn two_parts_of_one_name_are_the_workers_mistake() {
    let worker = Running::of(Arc::new(Twins), axum::Router::new()).await;
    worker.bring_to("Suspended").await;
    assert!(worker.capture(2).await.expect(500).text().contains("two parts named `state`"));
}

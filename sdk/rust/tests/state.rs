//! A state on its way out of one worker and into another.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use bytes::Bytes;
use common::{Running, Words, clients, send};
use processhub_sdk::{Part, PartSource, Pieces, Refusal, Worker};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Moves the state as a sidecar does, in slices of `slice` bytes.
async fn hand_over(source: &Running, target: &Running, slice: usize) {
    source.suspend(10).await.expect(204);
    let capture = source.capture(10).await.expect(200).json();
    let id = capture["capture"].as_str().unwrap();
    let mut parts = Vec::new();
    for part in capture["parts"].as_array().unwrap() {
        let name = part["name"].as_str().unwrap();
        let bytes =
            source.call("GET", &format!("/v1/capture/{id}/{name}"), Value::Null).await.expect(200).body;
        assert_eq!(part["bytes"], bytes.len());
        for (n, piece) in bytes.chunks(slice).enumerate() {
            let path = format!("/v1/import/h1/{name}?offset={}", n * slice);
            target.put(&path, Bytes::copy_from_slice(piece)).await.expect(204);
        }
        parts.push(json!({"name": name, "bytes": bytes.len()}));
    }
    let summary = source.call("DELETE", &format!("/v1/capture/{id}"), Value::Null).await.expect(200).json();
    assert_eq!(summary, json!({"parts": parts}));
    let body = json!({"epoch": 11, "reason": "Handover", "vsn": capture["vsn"], "seq": capture["seq"], "parts": parts});
    target.apply("h1", body).await.expect(204);
    target.activate(11, false).await.expect(204);
}

#[tokio::test]
async fn what_was_acknowledged_arrives_and_goes_on() {
    let ((source, _), (target, _)) = (Running::words().await, Running::words().await);
    source.activate(1, true).await.expect(204);
    for word in ["a", "b", "long-word"] {
        source.client("POST", &format!("/add/{word}")).await.expect(200);
    }
    hand_over(&source, &target, 3).await;
    assert_eq!(target.client("GET", "/list").await.text(), "a,b,long-word");
    assert_eq!(target.client("POST", "/add/d").await.expect(200).text(), "4");
    assert_eq!(target.info().await["epoch"], 11);
    source.client("GET", "/list").await.expect(503);
}

#[tokio::test]
async fn the_number_of_the_state_travels_with_it() {
    let ((source, _), (target, _)) = (Running::words().await, Running::words().await);
    source.activate(1, true).await.expect(204);
    source.client("POST", "/add/a").await.expect(200);
    hand_over(&source, &target, 100).await;
    let (then, now) = (source.info().await["seq"].as_u64(), target.info().await["seq"].as_u64());
    assert!(then.unwrap() > 0);
    assert_eq!(then, now);
}

#[tokio::test]
async fn an_interrupted_upload_goes_on_where_it_was_told() {
    let (worker, words) = Running::words().await;
    worker.put("/v1/import/i/state?offset=0", "2").await.expect(204);
    worker.put("/v1/import/i/table.words?offset=0", "ab").await.expect(204);
    let refusal = worker.put("/v1/import/i/table.words?offset=4", "\ncd").await.expect(409).json();
    assert_eq!((&refusal["code"], &refusal["have"]), (&json!("WrongOffset"), &json!(2)));
    for _ in 0..2 {
        worker.put("/v1/import/i/table.words?offset=2", "\ncd").await.expect(204);
    }
    let parts = json!([{"name": "state", "bytes": 1}, {"name": "table.words", "bytes": 5}]);
    let body = json!({"epoch": 1, "reason": "Crash", "vsn": "1", "seq": 2, "parts": parts});
    worker.apply("i", body).await.expect(204);
    assert_eq!(words.words(), ["ab", "cd"]);
}

#[tokio::test]
async fn offset_zero_and_another_import_start_over() {
    let (worker, words) = Running::words().await;
    worker.upload("i", &["wrong", "state"]).await;
    worker.upload("i", &["right"]).await;
    // A stray slice of another import in mid-part ends nothing.
    assert_eq!(worker.put("/v1/import/j/state?offset=5", "x").await.expect(409).json()["have"], 0);
    let body = worker.upload("i", &["right"]).await;
    worker.apply("i", body).await.expect(204);
    assert_eq!(words.words(), ["right"]);
    let body = worker.upload("j", &["newer"]).await;
    worker.apply("j", body).await.expect(204);
    assert_eq!(words.words(), ["newer"]);
    assert_eq!(worker.apply("i", worker_body(&["right"])).await.expect(409).code(), "Incomplete");
}

fn worker_body(words: &[&str]) -> Value {
    let parts = json!([{"name": "table.words", "bytes": words.join("\n").len()}]);
    json!({"epoch": 1, "reason": "Handover", "vsn": "2", "seq": 1, "parts": parts})
}

#[tokio::test]
async fn a_slice_that_was_cut_short_leaves_nothing() {
    let (worker, _) = Running::words().await;
    let mut stream = TcpStream::connect(worker.control).await.unwrap();
    let head = "PUT /v1/import/i/state?offset=0 HTTP/1.1\r\nHost: w\r\nContent-Length: 100\r\n\r\nhalf";
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(worker.put("/v1/import/i/state?offset=4", "x").await.expect(409).json()["have"], 0);
}

#[tokio::test]
async fn a_state_that_is_not_exactly_what_was_announced_is_not_applied() {
    let (worker, words) = Running::words().await;
    let body = worker.upload("i", &["a", "b"]).await;
    let mut short = body.clone();
    short["parts"][1]["bytes"] = json!(2);
    assert_eq!(worker.apply("i", short).await.expect(409).code(), "Incomplete");
    let mut fewer = body.clone();
    fewer["parts"].as_array_mut().unwrap().pop();
    assert_eq!(worker.apply("i", fewer).await.expect(409).code(), "Incomplete");
    assert!(words.words().is_empty());
    assert_eq!(words.decoded.load(Ordering::SeqCst), 0);
    worker.apply("i", body).await.expect(204);
    assert_eq!(words.words(), ["a", "b"]);
}

#[tokio::test]
async fn a_refused_state_changes_nothing() {
    let (worker, words) = Running::words().await;
    let first = worker.upload("i", &["kept"]).await;
    worker.apply("i", first).await.expect(204);
    worker.put("/v1/import/j/state?offset=0", "7").await.expect(204);
    worker.put("/v1/import/j/table.words?offset=0", "x").await.expect(204);
    let parts = json!([{"name": "state", "bytes": 1}, {"name": "table.words", "bytes": 1}]);
    let body = json!({"epoch": 1, "reason": "Handover", "vsn": "2", "seq": 2, "parts": parts});
    let refusal = worker.apply("j", body).await.expect(422).json();
    assert_eq!(refusal["code"], "CannotAccept");
    assert!(refusal["message"].as_str().unwrap().contains("table.words"));
    assert_eq!(words.words(), ["kept"]);
    worker.activate(1, false).await.expect(204);
}

#[tokio::test]
async fn a_trial_decodes_and_changes_nothing() {
    let (worker, words) = Running::words().await;
    let mut body = worker.upload("i", &["a"]).await;
    body["dryRun"] = json!(true);
    worker.apply("i", body.clone()).await.expect(204);
    assert_eq!((words.decoded.load(Ordering::SeqCst), words.words().len()), (1, 0));
    assert_eq!(worker.activate(1, false).await.expect(409).code(), "InitialMismatch");
    words.fail("decode", Refusal::cannot_accept("unknown key money"));
    assert!(worker.apply("i", body.clone()).await.expect(422).text().contains("unknown key money"));
    words.mend();
    body["dryRun"] = json!(false);
    worker.apply("i", body).await.expect(204);
    assert_eq!(words.words(), ["a"]);
}

#[tokio::test]
async fn an_apply_that_comes_again_decodes_once() {
    let (worker, words) = Running::words().await;
    let body = worker.upload("i", &["a"]).await;
    for _ in 0..2 {
        worker.apply("i", body.clone()).await.expect(204);
    }
    worker.call("DELETE", "/v1/import/i", Value::Null).await.expect(204);
    worker.apply("i", body).await.expect(204);
    assert_eq!(words.decoded.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_delta_and_an_unknown_version_are_refused_with_the_remedy() {
    let (worker, words) = Running::words().await;
    let mut delta = worker.upload("i", &["a"]).await;
    delta["since"] = json!(3);
    assert_eq!(worker.apply("i", delta).await.expect(409).code(), "WrongBase");
    let mut foreign = worker.upload("i", &["a"]).await;
    foreign["vsn"] = json!("9");
    let refusal = worker.apply("i", foreign).await.expect(422).json();
    assert!(refusal["message"].as_str().unwrap().contains("accepts [1]"), "{refusal}");
    assert_eq!(words.decoded.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_empty_state_never_passes_for_the_process_s() {
    let (worker, _) = Running::words().await;
    assert_eq!(worker.activate(1, false).await.expect(409).code(), "InitialMismatch");
    let body = worker.upload("i", &["a"]).await;
    worker.apply("i", body).await.expect(204);
    assert_eq!(worker.activate(1, true).await.expect(409).code(), "InitialMismatch");
    worker.activate(1, false).await.expect(204);
}

#[tokio::test]
async fn a_capture_ends_with_its_deletion_or_with_the_resume() {
    let (worker, words) = Running::words().await;
    worker.bring_to("Suspended").await;
    let capture = worker.capture(2).await.expect(200).json();
    let path = format!("/v1/capture/{}", capture["capture"].as_str().unwrap());
    for _ in 0..2 {
        worker.call("GET", &format!("{path}/state"), Value::Null).await.expect(200);
    }
    assert_eq!(worker.call("GET", &format!("{path}/none"), Value::Null).await.expect(404).code(), "NotFound");
    let summary = worker.call("DELETE", &path, Value::Null).await.expect(200).json();
    assert_eq!(worker.call("DELETE", &path, Value::Null).await.expect(200).json(), summary);
    worker.call("GET", &format!("{path}/state"), Value::Null).await.expect(404);
    let second = worker.capture(2).await.expect(200).json();
    assert_ne!(second["capture"], capture["capture"]);
    assert_eq!(words.calls().iter().filter(|call| *call == "capture").count(), 2);
    worker.resume(3).await.expect(204);
    let path = format!("/v1/capture/{}/state", second["capture"].as_str().unwrap());
    worker.call("GET", &path, Value::Null).await.expect(404);
}

#[tokio::test]
async fn who_says_so_is_captured_while_it_serves() {
    for live in [false, true] {
        let words = Arc::new(Words { live, ..Words::default() });
        let worker = Running::of(Arc::clone(&words), clients(Arc::clone(&words))).await;
        worker.bring_to("Active").await;
        worker.client("POST", "/add/x").await.expect(200);
        let capture = worker.capture(1).await;
        if live {
            assert_eq!(worker.info().await["capture"], "Live");
            assert_eq!(capture.expect(200).json()["parts"][0]["name"], "state");
        } else {
            assert_eq!(capture.expect(409).code(), "WrongState");
        }
    }
}

#[tokio::test]
async fn a_state_that_did_not_change_is_not_captured_again() {
    let (worker, words) = Running::words().await;
    worker.bring_to("Suspended").await;
    let seq = worker.capture(2).await.expect(200).json()["seq"].clone();
    let again = json!({"epoch": 2, "purpose": "Checkpoint", "unlessSeq": seq});
    worker.call("POST", "/v1/capture", again.clone()).await.expect(204);
    worker.resume(3).await.expect(204);
    worker.client("POST", "/add/x").await.expect(200);
    worker.suspend(4).await.expect(204);
    let mut later = again;
    later["epoch"] = json!(4);
    worker.call("POST", "/v1/capture", later).await.expect(200);
    assert_eq!(words.calls().iter().filter(|call| *call == "capture").count(), 2);
}

/// A part of unknown length that is made while it is read, and that may break off.
struct Stream {
    pieces: usize,
    breaks: bool,
}

impl PartSource for Stream {
    fn size(&self) -> Option<u64> {
        None
    }

    fn pieces(&self) -> Pieces {
        let end = self.breaks.then(|| Err(io::Error::other("the disk is gone")));
        Box::new((0..self.pieces).map(|n| Ok(Bytes::from(vec![n as u8; 1 << 20]))).chain(end))
    }
}

struct Large {
    breaks: bool,
}

impl Worker for Large {
    type State = ();

    fn capture(&self) -> Result<Vec<Part>, Refusal> {
        Ok(vec![Part::new("state", Stream { pieces: 24, breaks: self.breaks })?])
    }
}

#[tokio::test]
async fn a_large_part_of_unknown_length_is_streamed_and_counted() {
    let worker = Running::of(Arc::new(Large { breaks: false }), Router::new()).await;
    worker.bring_to("Suspended").await;
    let capture = worker.capture(2).await.expect(200).json();
    assert_eq!(capture["parts"], json!([{"name": "state"}]));
    let path = format!("/v1/capture/{}", capture["capture"].as_str().unwrap());
    let bytes = worker.call("GET", &format!("{path}/state"), Value::Null).await.expect(200).body;
    assert_eq!((bytes.len(), bytes[23 << 20]), (24 << 20, 23));
    let summary = worker.call("DELETE", &path, Value::Null).await.expect(200).json();
    assert_eq!(summary, json!({"parts": [{"name": "state", "bytes": 24 << 20}]}));
}

#[tokio::test]
async fn an_export_that_breaks_off_is_seen_as_broken() {
    let worker = Running::of(Arc::new(Large { breaks: true }), Router::new()).await;
    worker.bring_to("Suspended").await;
    let id = worker.capture(2).await.expect(200).json()["capture"].as_str().unwrap().to_owned();
    let mut stream = TcpStream::connect(worker.control).await.unwrap();
    let head = format!("GET /v1/capture/{id}/state HTTP/1.1\r\nHost: w\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!answer.ends_with(b"0\r\n\r\n"), "no last chunk: the reader knows that it is not all");
}

struct Stateless;

impl Worker for Stateless {
    type State = ();
}

#[tokio::test]
async fn a_worker_without_a_state_says_so_and_moves_without() {
    let worker = Running::of(Arc::new(Stateless), Router::new()).await;
    worker.bring_to("Suspended").await;
    assert_eq!(worker.capture(2).await.expect(501).code(), "NoState");
    worker.resume(3).await.expect(204);
    send(worker.listen, "GET", "/nowhere", Bytes::new()).await.expect(404);
}

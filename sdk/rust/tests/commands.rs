//! Every call of the contract in every state; epochs; repeats.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{Answer, Running, Words, clients};
use processhub_sdk::Refusal;
use serde_json::{Value, json};
use std::sync::Arc;

/// What comes of each call in each state: a status, and for a refusal its code.
const TABLE: [(&str, [(u16, &str); 3]); 12] = [
    ("info", [(200, ""), (200, ""), (200, "")]),
    ("suspend", [(409, "WrongState"), (204, ""), (204, "")]),
    ("resume", [(409, "WrongState"), (204, ""), (204, "")]),
    ("activate", [(204, ""), (204, ""), (409, "WrongState")]),
    ("capture", [(409, "WrongState"), (409, "WrongState"), (200, "")]),
    ("read", [(404, "NotFound"), (404, "NotFound"), (404, "NotFound")]),
    ("put", [(204, ""), (409, "WrongState"), (409, "WrongState")]),
    ("apply", [(409, "Incomplete"), (409, "WrongState"), (409, "WrongState")]),
    ("delete import", [(204, ""), (204, ""), (204, "")]),
    ("consent", [(404, "NotFound"), (404, "NotFound"), (404, "NotFound")]),
    ("code-change", [(409, "WrongState"), (409, "WrongState"), (404, "NotFound")]),
    ("delete capture", [(404, "NotFound"), (404, "NotFound"), (404, "NotFound")]),
];

async fn call(worker: &Running, name: &str) -> Answer {
    match name {
        "info" => worker.call("GET", "/v1/info", Value::Null).await,
        "suspend" => worker.suspend(7).await,
        "resume" => worker.resume(7).await,
        "activate" => worker.activate(7, true).await,
        "capture" => worker.capture(7).await,
        "read" => worker.call("GET", "/v1/capture/none/state", Value::Null).await,
        "put" => worker.put("/v1/import/i/state?offset=0", "x").await,
        "apply" => {
            let parts = json!([{"name": "state", "bytes": 1}]);
            worker
                .apply("i", json!({"epoch": 7, "reason": "Handover", "vsn": "2", "seq": 1, "parts": parts}))
                .await
        }
        "consent" => worker.call("POST", "/v1/consent", json!({"reason": "Handover"})).await,
        "code-change" => {
            worker.call("POST", "/v1/code-change", json!({"epoch": 7, "from": "2", "to": "3"})).await
        }
        "delete import" => worker.call("DELETE", "/v1/import/i", Value::Null).await,
        "delete capture" => worker.call("DELETE", "/v1/capture/none", Value::Null).await,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn every_call_in_every_state() {
    for (name, answers) in TABLE {
        for (state, (status, code)) in ["Standby", "Active", "Suspended"].into_iter().zip(answers) {
            let (worker, words) = Running::words().await;
            words.fail("decode", Refusal::cannot_accept("not reached"));
            worker.bring_to(state).await;
            let first = call(&worker, name).await;
            assert_eq!(first.status.as_u16(), status, "{name} in {state}: {}", first.text());
            if !code.is_empty() {
                assert_eq!(first.code(), code, "{name} in {state}");
            }
            let second = call(&worker, name).await;
            assert_eq!(
                (second.status, second.body),
                (first.status, first.body),
                "{name} in {state}, repeated"
            );
        }
    }
}

#[tokio::test]
async fn info_says_all_that_the_contract_asks_for() {
    let (worker, _) = Running::words().await;
    let info = worker.info().await;
    let expected = json!({
        "contract": 1, "instance": info["instance"], "vsn": "2", "state": "Standby", "epoch": 0, "seq": 0,
        "capture": "Suspended", "acceptsFrom": ["1"], "load": 3, "consent": false,
    });
    assert_eq!(info, expected);
}

#[tokio::test]
async fn a_restart_is_a_new_instance_in_standby() {
    let words = Arc::new(Words::default());
    let mut seen = Vec::new();
    for _ in 0..2 {
        let worker = Running::of(Arc::clone(&words), clients(Arc::clone(&words))).await;
        let info = worker.info().await;
        assert_eq!((&info["state"], &info["epoch"]), (&json!("Standby"), &json!(0)));
        seen.push(info["instance"].as_str().unwrap().to_owned());
        worker.activate(5, true).await.expect(204);
    }
    assert_ne!(seen[0], seen[1]);
}

#[tokio::test]
async fn a_lower_epoch_is_stale_in_every_command() {
    let (worker, words) = Running::words().await;
    worker.activate(5, true).await.expect(204);
    let calls = words.calls();
    for refusal in [worker.suspend(4).await, worker.resume(4).await, worker.capture(4).await, {
        let body = json!({"epoch": 4, "reason": "Handover", "seq": 1, "parts": []});
        worker.apply("i", body).await
    }] {
        let refusal = refusal.expect(409).json();
        assert_eq!(
            (&refusal["code"], &refusal["state"], &refusal["epoch"]),
            (&json!("StaleEpoch"), &json!("Active"), &json!(5))
        );
    }
    assert_eq!(worker.activate(4, true).await.expect(409).code(), "StaleEpoch");
    assert_eq!(words.calls(), calls, "no hook ran");
}

#[tokio::test]
async fn each_hook_runs_once_however_often_the_command_comes() {
    let (worker, words) = Running::words().await;
    for _ in 0..2 {
        worker.activate(1, true).await.expect(204);
    }
    for _ in 0..2 {
        worker.suspend(2).await.expect(204);
    }
    let first = worker.capture(2).await.expect(200).json();
    assert_eq!(worker.capture(2).await.expect(200).json(), first);
    for _ in 0..2 {
        worker.resume(3).await.expect(204);
    }
    let expected = ["initial", "activate 1 {\"a\":1}", "suspend Handover", "capture", "resume"];
    assert_eq!(words.calls(), expected);
}

#[tokio::test]
async fn an_epoch_serves_one_command_only() {
    let (worker, _) = Running::words().await;
    worker.activate(1, true).await.expect(204);
    worker.suspend(2).await.expect(204);
    assert_eq!(worker.resume(2).await.expect(409).code(), "StaleEpoch");
    worker.resume(3).await.expect(204);
    assert_eq!(worker.suspend(3).await.expect(409).code(), "StaleEpoch");
    assert_eq!(worker.state().await, "Active");
}

#[tokio::test]
async fn an_active_worker_takes_a_new_epoch_without_starting_again() {
    let (worker, words) = Running::words().await;
    worker.activate(1, true).await.expect(204);
    worker.activate(4, false).await.expect(204);
    assert_eq!(worker.info().await["epoch"], 4);
    assert_eq!(words.calls().len(), 2, "initial and activate, once: {:?}", words.calls());
}

#[tokio::test]
async fn a_worker_that_fails_to_activate_stays_in_standby_and_is_asked_again() {
    let (worker, words) = Running::words().await;
    words.fail("activate", Refusal::busy("the lock is taken"));
    let refusal = worker.activate(1, true).await.expect(503).json();
    assert_eq!(refusal, json!({"code": "Busy", "message": "the lock is taken"}));
    assert_eq!(worker.state().await, "Standby");
    worker.client("GET", "/list").await.expect(503);
    words.mend();
    worker.activate(1, true).await.expect(204);
    worker.client("GET", "/list").await.expect(200);
}

#[tokio::test]
async fn a_worker_that_fails_to_suspend_serves_on() {
    let (worker, words) = Running::words().await;
    worker.activate(1, true).await.expect(204);
    words.fail("suspend", Refusal::internal("a timer does not stop"));
    assert_eq!(worker.suspend(2).await.expect(500).code(), "Internal");
    worker.client("POST", "/add/a").await.expect(200);
    words.mend();
    worker.suspend(2).await.expect(204);
    worker.client("POST", "/add/b").await.expect(503);
}

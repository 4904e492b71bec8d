//! A state that comes in when the code changes: from which version it is converted, and when it is taken as it is.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::sync::{Arc, Mutex};

use axum::Router;
use bytes::Bytes;
use common::{Answer, Running};
use processhub_sdk::{ApplyContext, Imported, OldVsn, Part, Refusal, Steps, Worker};
use serde_json::{Value, json};

/// A text of version 3, which says where it came through.
struct Text {
    text: Mutex<String>,
    asked: Mutex<Vec<OldVsn>>,
    steps: Steps,
}

fn add(word: &'static str) -> impl Fn(Imported, &Value) -> Result<Imported, Refusal> + Send + Sync {
    move |mut state, extra| {
        let old: String = state.json("state")?;
        state.set(Part::json("state", &format!("{old}{word}{extra}"))?);
        Ok(state)
    }
}

impl Worker for Text {
    type State = String;

    fn vsn(&self) -> String {
        "3".into()
    }

    fn accepts_from(&self) -> Vec<String> {
        self.steps.accepts_from()
    }

    fn code_change(&self, from: &OldVsn, state: Imported, extra: &Value) -> Result<Imported, Refusal> {
        self.asked.lock().unwrap().push(from.clone());
        self.steps.convert(from, state, extra)
    }

    fn decode(&self, state: &Imported, _: &ApplyContext) -> Result<String, Refusal> {
        state.json("state")
    }

    fn install(&self, state: String) {
        *self.text.lock().unwrap() = state;
    }
}

async fn give(to: &Running, vsn: &str, direction: &str) -> Answer {
    let (import, bytes) = (format!("from-{vsn}"), Bytes::from_static(br#""begun""#));
    let parts = json!([{"name": "state", "bytes": bytes.len()}]);
    to.put(&format!("/v1/import/{import}/state?offset=0"), bytes).await.expect(204);
    let body = json!({
        "epoch": 1, "reason": "CodeChange", "vsn": vsn, "direction": direction, "extra": 7, "seq": 4, "parts": parts,
    });
    to.apply(&import, body).await
}

#[tokio::test]
async fn a_state_of_its_own_version_is_taken_as_it_is_and_others_come_step_by_step() {
    let steps = Steps::to("3").step("1", "2", add(" two ")).step("2", "3", add(" three ")).step(
        "4",
        "3",
        add(" back "),
    );
    let text = Arc::new(Text { text: Mutex::default(), asked: Mutex::default(), steps });
    let worker = Running::of(Arc::clone(&text), Router::new()).await;
    assert_eq!(worker.info().await["acceptsFrom"], json!(["2", "4", "1"]));

    give(&worker, "3", "Up").await.expect(204);
    assert_eq!(*text.text.lock().unwrap(), "begun");
    assert_eq!(*text.asked.lock().unwrap(), Vec::<OldVsn>::new(), "there is nothing to convert");

    give(&worker, "1", "Up").await.expect(204);
    assert_eq!(*text.text.lock().unwrap(), "begun two 7 three 7");
    give(&worker, "4", "Down").await.expect(204);
    assert_eq!(*text.text.lock().unwrap(), "begun back 7");
    assert_eq!(*text.asked.lock().unwrap(), [OldVsn::Up("1".into()), OldVsn::Down("4".into())]);

    let refusal = give(&worker, "9", "Up").await.expect(422).json();
    assert!(refusal["message"].as_str().unwrap().contains("accepts [2, 4, 1]"), "{refusal}");
}

//! A tracked worker: live captures, deltas, numbers, code changes and consent, as a sidecar sees them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::{get, post};
use bytes::Bytes;
use common::{Answer, Running};
use processhub_sdk::{
    ApplyContext, CapturePurpose, CodeChange, Consent, ConsentRequest, Imported, OldVsn, Part, Reason,
    Refusal, Table, Tables, Track, Tracked, TrackedPart, Value as Held, Worker,
};
use serde_json::{Value, json};

/// An account: version 1 keeps `money`, version 2 `salary`, as in the article about hot code swapping.
#[derive(Clone, Default)]
struct Account {
    amount: Held<Value>,
    entries: Table<u64, String>,
}

impl Tables for Account {
    fn parts(&mut self) -> Vec<(&'static str, &mut dyn TrackedPart)> {
        vec![("state", &mut self.amount), ("table.entries", &mut self.entries)]
    }
}

struct Bank {
    account: Tracked<Account>,
    vsn: Mutex<String>,
    refuses: AtomicBool,
    defers: AtomicBool,
    purposes: Mutex<Vec<CapturePurpose>>,
}

impl Bank {
    fn new(vsn: &str) -> Arc<Self> {
        let account = Account { amount: Held::new(json!({})), ..Account::default() };
        Arc::new(Self {
            account: Tracked::new(account),
            vsn: Mutex::new(vsn.into()),
            refuses: AtomicBool::new(false),
            defers: AtomicBool::new(false),
            purposes: Mutex::default(),
        })
    }

    fn key(&self) -> &'static str {
        if *self.vsn.lock().unwrap() == "1" { "money" } else { "salary" }
    }
}

fn rename(state: &mut Value, from: &str, to: &str) -> Result<(), Refusal> {
    let held = state.as_object_mut().and_then(|state| state.remove(from));
    let held = held.ok_or_else(|| Refusal::cannot_accept(&format!("the account has no `{from}`")))?;
    state[to] = held;
    Ok(())
}

impl Worker for Bank {
    type State = ();

    fn tracked(&self) -> Option<&dyn Track> {
        Some(&self.account)
    }

    fn vsn(&self) -> String {
        self.vsn.lock().unwrap().clone()
    }

    fn accepts_from(&self) -> Vec<String> {
        vec!["1".into(), "2".into()]
    }

    fn before_capture(&self, purpose: CapturePurpose) -> Result<(), Refusal> {
        self.purposes.lock().unwrap().push(purpose);
        Ok(())
    }

    fn accept(&self, context: &ApplyContext) -> Result<(), Refusal> {
        match context.reason {
            Reason::Transfer => Err(Refusal::cannot_accept("this account is not for sale")),
            _ => Ok(()),
        }
    }

    fn code_change(&self, from: &OldVsn, mut state: Imported, extra: &Value) -> Result<Imported, Refusal> {
        let (old, new) = match from {
            OldVsn::Up(_) => ("money", "salary"),
            OldVsn::Down(_) => ("salary", "money"),
        };
        let mut account: Value = state.json("state")?;
        rename(&mut account, old, new)?;
        account["extra"] = extra.clone();
        state.set(Part::json("state", &account)?);
        let rows = state.rows::<u64, String>("table.entries")?;
        state.set(Part::rows("table.entries", rows.into_iter().map(|(key, row)| (key, format!("{row}!"))))?);
        Ok(state)
    }

    fn change_code(&self, change: &CodeChange) -> Result<(), Refusal> {
        let (old, new) = match change.from {
            OldVsn::Up(_) => ("money", "salary"),
            OldVsn::Down(_) => ("salary", "money"),
        };
        self.account.try_change(|account| rename(&mut account.amount, old, new))?;
        *self.vsn.lock().unwrap() = change.to.clone();
        Ok(())
    }

    fn asks_consent(&self) -> bool {
        !self.refuses.load(Ordering::SeqCst)
    }

    fn consent(&self, ask: &ConsentRequest) -> Consent {
        let defers = self.defers.load(Ordering::SeqCst) && ask.reason == Reason::Handover;
        if defers { Consent::Defer } else { Consent::Ready }
    }
}

async fn start(bank: &Arc<Bank>) -> Running {
    async fn pay(State(bank): State<Arc<Bank>>, Path(amount): Path<u64>) -> String {
        let key = bank.key();
        bank.account.change(|account| {
            let number = account.entries.len() as u64;
            account.entries.insert(number, format!("paid {amount}"));
            let held = account.amount[key].as_u64().unwrap_or_default();
            account.amount[key] = json!(held + amount);
        });
        "paid".into()
    }
    async fn look(State(bank): State<Arc<Bank>>) -> String {
        let key = bank.key();
        bank.account.read(|account| format!("{key} {}", account.amount[key]))
    }
    let clients = Router::new()
        .route("/pay/{amount}", post(pay))
        .route("/look", get(look).post(look))
        .with_state(Arc::clone(bank));
    Running::of(Arc::clone(bank), clients).await
}

fn number(answer: &Answer) -> u64 {
    answer.headers["processhub-seq"].to_str().unwrap().parse().unwrap()
}

async fn capture(worker: &Running, epoch: u64, more: Value) -> Answer {
    let mut body = json!({"epoch": epoch, "purpose": "Checkpoint"});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    worker.call("POST", "/v1/capture", body).await
}

/// Reads a capture and gives it to another worker, as a sidecar does.
async fn give(from: &Running, captured: &Value, to: &Running, import: &str, more: Value) -> Answer {
    let id = captured["capture"].as_str().unwrap();
    let mut parts = Vec::new();
    for part in captured["parts"].as_array().unwrap() {
        let name = part["name"].as_str().unwrap();
        let bytes = from.call("GET", &format!("/v1/capture/{id}/{name}"), Value::Null).await.expect(200).body;
        if !bytes.is_empty() {
            to.put(&format!("/v1/import/{import}/{name}?offset=0"), bytes.clone()).await.expect(204);
        }
        parts.push(json!({"name": name, "bytes": bytes.len()}));
    }
    let mut body = json!({"epoch": 9, "reason": "Handover", "vsn": captured["vsn"], "seq": captured["seq"], "parts": parts});
    if !captured["since"].is_null() {
        body["since"] = captured["since"].clone();
    }
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    to.apply(import, body).await
}

#[tokio::test]
async fn a_tracked_worker_says_what_it_can() {
    let worker = start(&Bank::new("1")).await;
    let info = worker.info().await;
    assert_eq!((&info["capture"], &info["deltaFrom"]), (&json!("Live"), &json!(["1"])));
    assert_eq!(info["consent"], true);
}

#[tokio::test]
async fn answers_carry_the_number_of_real_changes() {
    let worker = start(&Bank::new("1")).await;
    worker.activate(1, true).await.expect(204);
    assert_eq!(
        number(&worker.client("POST", "/look").await),
        0,
        "a request that changes nothing is no change"
    );
    assert_eq!(number(&worker.client("POST", "/pay/5").await), 1);
    assert_eq!(number(&worker.client("POST", "/pay/5").await), 2);
    assert_eq!(number(&worker.client("GET", "/look").await), 2, "what a read shows is in that state");
    assert_eq!(worker.info().await["seq"], 2);
}

#[tokio::test]
async fn it_is_captured_while_it_serves_and_only_if_it_changed() {
    let bank = Bank::new("1");
    let worker = start(&bank).await;
    assert_eq!(capture(&worker, 1, json!({})).await.expect(409).code(), "WrongState");
    worker.activate(1, true).await.expect(204);
    worker.client("POST", "/pay/5").await.expect(200);
    let first = capture(&worker, 1, json!({})).await.expect(200).json();
    assert_eq!((&first["seq"], first.get("since")), (&json!(1), None));
    assert_eq!(
        capture(&worker, 1, json!({})).await.expect(200).json(),
        first,
        "the same state, the same capture"
    );
    capture(&worker, 1, json!({"unlessSeq": 1})).await.expect(204);
    assert_eq!(capture(&worker, 0, json!({})).await.expect(409).code(), "StaleEpoch");
    worker.client("POST", "/pay/5").await.expect(200);
    let second = capture(&worker, 1, json!({"unlessSeq": 1, "since": 1})).await.expect(200).json();
    assert_eq!((&second["seq"], &second["since"]), (&json!(2), &json!(1)));
    let id = second["capture"].as_str().unwrap();
    let table = worker.call("GET", &format!("/v1/capture/{id}/table.entries"), Value::Null).await.text();
    assert_eq!(table, "[1,\"paid 5\"]\n");
    assert!(bank.purposes.lock().unwrap().iter().all(|purpose| *purpose == CapturePurpose::Checkpoint));
}

#[tokio::test]
async fn a_checkpoint_and_a_move_read_their_captures_side_by_side() {
    let worker = start(&Bank::new("1")).await;
    worker.activate(1, true).await.expect(204);
    worker.client("POST", "/pay/5").await.expect(200);
    let handover = worker.capture(1).await.expect(200).json();
    worker.client("POST", "/pay/7").await.expect(200);
    let checkpoint = capture(&worker, 1, json!({})).await.expect(200).json();
    let read = async |capture: &Value| {
        let id = capture["capture"].as_str().unwrap();
        worker.call("GET", &format!("/v1/capture/{id}/state"), Value::Null).await.expect(200).text()
    };
    assert_eq!(
        (read(&handover).await, read(&checkpoint).await),
        (r#"{"money":5}"#.into(), r#"{"money":12}"#.into())
    );
    for captured in [&handover, &checkpoint] {
        let path = format!("/v1/capture/{}", captured["capture"].as_str().unwrap());
        let counts = worker.call("DELETE", &path, Value::Null).await.expect(200).json();
        assert_eq!(worker.call("DELETE", &path, Value::Null).await.expect(200).json(), counts);
    }
}

#[tokio::test]
async fn base_and_deltas_arrive_before_the_freeze_and_only_the_last_one_within() {
    let (source, target) = (start(&Bank::new("1")).await, start(&Bank::new("1")).await);
    source.activate(1, true).await.expect(204);
    source.client("POST", "/pay/5").await.expect(200);
    let base = source.capture(1).await.expect(200).json();
    give(&source, &base, &target, "b", json!({})).await.expect(204);
    source.client("POST", "/pay/1").await.expect(200);
    let ask = |since: &Value| json!({"epoch": 2, "purpose": "Handover", "since": since});
    source.suspend(2).await.expect(204);
    let last = source.call("POST", "/v1/capture", ask(&base["seq"])).await.expect(200).json();
    assert_eq!(last["since"], base["seq"]);
    let mut wrong = last.clone();
    wrong["since"] = json!(0);
    let refusal = give(&source, &wrong, &target, "w", json!({})).await.expect(409).json();
    assert_eq!(refusal["code"], "WrongBase", "{refusal}");
    give(&source, &last, &target, "d", json!({"dryRun": true})).await.expect(204);
    assert_eq!(target.info().await["seq"], base["seq"], "a trial");
    give(&source, &last, &target, "d", json!({})).await.expect(204);
    target.activate(9, false).await.expect(204);
    assert_eq!(target.client("GET", "/look").await.text(), "money 6");
    assert_eq!(number(&target.client("GET", "/look").await), 2);
}

#[tokio::test]
async fn a_delta_on_nothing_or_of_another_version_is_told_to_send_a_whole_state() {
    let (source, target) = (start(&Bank::new("1")).await, start(&Bank::new("2")).await);
    source.activate(1, true).await.expect(204);
    source.client("POST", "/pay/5").await.expect(200);
    let delta = capture(&source, 1, json!({"since": 0})).await.expect(200).json();
    let foreign = start(&Bank::new("1")).await;
    let refusal = give(&source, &delta, &foreign, "d", json!({})).await.expect(409).json();
    assert!(refusal["message"].as_str().unwrap().contains("holds no state yet"), "{refusal}");
    let whole = source.capture(1).await.expect(200).json();
    give(&source, &whole, &target, "w", json!({"reason": "CodeChange"})).await.expect(204);
    let mut delta = delta;
    delta["since"] = whole["seq"].clone();
    let refusal = give(&source, &delta, &target, "d", json!({})).await.expect(409).json();
    assert!(refusal["message"].as_str().unwrap().contains("version `1`"), "{refusal}");
}

#[tokio::test]
async fn code_changes_up_and_down_with_a_trial_before() {
    let (old, new) = (start(&Bank::new("1")).await, start(&Bank::new("2")).await);
    old.activate(1, true).await.expect(204);
    old.client("POST", "/pay/5").await.expect(200);
    let state = capture(&old, 1, json!({})).await.expect(200).json();
    let change = json!({"reason": "CodeChange", "direction": "Up", "extra": {"raise": 1}});
    let mut trial = change.clone();
    trial["dryRun"] = json!(true);
    give(&old, &state, &new, "t", trial).await.expect(204);
    assert_eq!(new.activate(9, false).await.expect(409).code(), "InitialMismatch");
    give(&old, &state, &new, "c", change).await.expect(204);
    new.activate(9, false).await.expect(204);
    assert_eq!(new.client("GET", "/look").await.text(), "salary 5");
    new.client("POST", "/pay/2").await.expect(200);
    let state = capture(&new, 9, json!({})).await.expect(200).json();
    let id = state["capture"].as_str().unwrap();
    let table = new.call("GET", &format!("/v1/capture/{id}/table.entries"), Value::Null).await.text();
    assert_eq!(table, "[0,\"paid 5!\"]\n[1,\"paid 2\"]\n", "its rows were converted");
    let back = start(&Bank::new("1")).await;
    give(&new, &state, &back, "d", json!({"reason": "CodeChange", "direction": "Down"})).await.expect(204);
    back.activate(9, false).await.expect(204);
    assert_eq!(back.client("GET", "/look").await.text(), "money 7");
}

#[tokio::test]
async fn a_code_change_that_fails_leaves_the_new_worker_without_a_state() {
    let (old, new) = (start(&Bank::new("1")).await, start(&Bank::new("2")).await);
    old.activate(1, true).await.expect(204);
    let empty = capture(&old, 1, json!({})).await.expect(200).json();
    let refusal = give(&old, &empty, &new, "c", json!({"reason": "CodeChange"})).await.expect(422).json();
    assert_eq!(refusal["message"], "the account has no `money`");
    assert_eq!(new.activate(9, false).await.expect(409).code(), "InitialMismatch");
}

#[tokio::test]
async fn a_worker_may_refuse_for_a_reason_and_merges_only_if_it_says_how() {
    let (source, target) = (start(&Bank::new("1")).await, start(&Bank::new("1")).await);
    source.activate(1, true).await.expect(204);
    let state = capture(&source, 1, json!({})).await.expect(200).json();
    let refusal = give(&source, &state, &target, "t", json!({"reason": "Transfer"})).await.expect(422).json();
    assert_eq!(refusal["message"], "this account is not for sale");
    let merge = json!({"reason": "Merge"});
    let refusal = give(&source, &state, &target, "m", merge.clone()).await.expect(409).json();
    assert_eq!(refusal["code"], "WrongBase", "nothing to merge with");
    give(&source, &state, &target, "o", json!({})).await.expect(204);
    let refusal = give(&source, &state, &target, "m", merge).await.expect(422).json();
    assert!(refusal["message"].as_str().unwrap().contains("does not merge"), "{refusal}");
}

#[tokio::test]
async fn code_changes_in_the_running_worker() {
    let worker = start(&Bank::new("1")).await;
    let body = |epoch: u64, from: &str, to: &str| json!({"epoch": epoch, "from": from, "to": to});
    let change = async |body: Value| worker.call("POST", "/v1/code-change", body).await;
    worker.activate(1, true).await.expect(204);
    worker.client("POST", "/pay/5").await.expect(200);
    assert_eq!(change(body(1, "1", "2")).await.expect(409).code(), "WrongState");
    worker.suspend(2).await.expect(204);
    assert_eq!(change(body(1, "1", "2")).await.expect(409).code(), "StaleEpoch");
    let refusal = change(body(2, "7", "2")).await.expect(422).json();
    assert!(refusal["message"].as_str().unwrap().contains("this worker is `1`"), "{refusal}");
    let before = worker.capture(2).await.expect(200).json();
    for _ in 0..2 {
        change(body(2, "1", "2")).await.expect(204);
    }
    let info = worker.info().await;
    assert_eq!((&info["vsn"], &info["deltaFrom"]), (&json!("2"), &json!(["2"])));
    let ask = json!({"epoch": 2, "purpose": "Handover", "unlessSeq": before["seq"], "since": before["seq"]});
    let after = worker.call("POST", "/v1/capture", ask).await.expect(200).json();
    assert_eq!(
        (&after["vsn"], after.get("since")),
        (&json!("2"), None),
        "another code's state is another state"
    );
    worker.resume(3).await.expect(204);
    assert_eq!(worker.client("GET", "/look").await.text(), "salary 5");
    worker.suspend(4).await.expect(204);
    let mut down = body(4, "2", "1");
    down["direction"] = json!("Down");
    change(down).await.expect(204);
    worker.resume(5).await.expect(204);
    assert_eq!(worker.client("GET", "/look").await.text(), "money 5");
}

#[tokio::test]
async fn a_refused_code_change_leaves_code_and_state() {
    let worker = start(&Bank::new("1")).await;
    worker.activate(1, true).await.expect(204);
    worker.suspend(2).await.expect(204);
    let body = json!({"epoch": 2, "from": "1", "to": "2"});
    let refusal = worker.call("POST", "/v1/code-change", body).await.expect(422).json();
    assert_eq!(refusal["message"], "the account has no `money`");
    assert_eq!(worker.info().await["vsn"], "1");
    worker.resume(3).await.expect(204);
    assert_eq!(worker.client("GET", "/look").await.text(), "money null");
}

#[tokio::test]
async fn a_worker_is_asked_for_consent_while_it_serves() {
    let bank = Bank::new("1");
    let worker = start(&bank).await;
    let ask = async |reason: &str| worker.call("POST", "/v1/consent", json!({"reason": reason})).await;
    assert_eq!(ask("Handover").await.expect(409).code(), "WrongState");
    worker.activate(1, true).await.expect(204);
    assert_eq!(ask("Handover").await.expect(200).json(), json!({"answer": "Ready"}));
    bank.defers.store(true, Ordering::SeqCst);
    assert_eq!(ask("Handover").await.expect(200).json(), json!({"answer": "Defer"}));
    assert_eq!(ask("CodeChange").await.expect(200).json(), json!({"answer": "Ready"}));
    worker.suspend(2).await.expect(204);
    assert_eq!(ask("Handover").await.expect(409).code(), "WrongState");
    bank.refuses.store(true, Ordering::SeqCst);
    assert_eq!(ask("Handover").await.expect(404).code(), "NotFound");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_is_in_every_capture_of_at_least_its_number() {
    let worker = Arc::new(start(&Bank::new("1")).await);
    worker.activate(1, true).await.expect(204);
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let worker = Arc::clone(&worker);
            tokio::spawn(async move {
                for _ in 0..50 {
                    let answered = number(&worker.client("POST", "/pay/1").await.expect(200));
                    let captured = capture(&worker, 1, json!({"unlessSeq": 0})).await.expect(200).json();
                    assert!(captured["seq"].as_u64().unwrap() >= answered);
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    // Every change is one payment of 1: a capture whose parts differ in time would not add up.
    let captured = capture(&worker, 1, json!({})).await.expect(200).json();
    let id = captured["capture"].as_str().unwrap();
    let read = async |part: &str| {
        worker.call("GET", &format!("/v1/capture/{id}/{part}"), Value::Null).await.expect(200)
    };
    assert_eq!(read("state").await.json(), json!({"money": 200}));
    assert_eq!(read("table.entries").await.text().lines().count(), 200);
}

#[test]
fn bytes_of_no_row_are_an_empty_table() {
    assert_eq!(Part::rows::<u64, u64>("table.a", []).unwrap().source().size(), Some(0));
    assert!(Part::new("table.a", Bytes::new()).is_ok());
}

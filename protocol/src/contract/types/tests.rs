use serde_json::json;

use super::*;
use crate::contract::{MAX_INTEGER, MAX_PARTS, MAX_TEXT, MAX_VERSIONS, Violation};

fn info() -> Info {
    serde_json::from_value(json!({
        "contract": 1, "instance": "a1", "state": "Standby", "epoch": 0, "capture": "Suspended",
    }))
    .unwrap()
}

fn part(name: &str, bytes: u64) -> PartSize {
    PartSize { name: name.parse().unwrap(), bytes }
}

fn apply(parts: Vec<PartSize>) -> ApplyRequest {
    ApplyRequest {
        epoch: Epoch(3),
        reason: Reason::Handover,
        vsn: "1.8".into(),
        direction: Direction::Up,
        extra: Value::Null,
        seq: 7,
        since: None,
        parts,
        dry_run: false,
    }
}

#[test]
fn the_shortest_info_of_a_worker_is_enough() {
    let info = info();
    assert_eq!(info.check(), Ok(()));
    assert_eq!((info.seq, info.load, info.consent), (0, 0, false));
}

#[test]
fn names_on_the_wire_are_those_of_the_contract() {
    let request = ApplyRequest { since: Some(4), dry_run: true, ..apply(vec![part("state", 9)]) };
    assert_eq!(
        serde_json::to_value(&request).unwrap(),
        json!({
            "epoch": 3, "reason": "Handover", "vsn": "1.8", "direction": "Up", "extra": null, "seq": 7, "since": 4,
            "parts": [{"name": "state", "bytes": 9}], "dryRun": true,
        })
    );
    let request = ActivateRequest {
        epoch: Epoch(3),
        reason: Reason::Crash,
        initial: false,
        process: ProcessInfo::default(),
        may_miss: Some(12),
    };
    assert_eq!(
        serde_json::to_value(&request).unwrap(),
        json!({"epoch": 3, "reason": "Crash", "initial": false, "process": {"config": null}, "mayMiss": 12})
    );
    let request = CaptureRequest {
        epoch: Epoch(3),
        purpose: CapturePurpose::Handover,
        since: None,
        unless_seq: Some(2),
    };
    assert_eq!(
        serde_json::to_value(&request).unwrap(),
        json!({"epoch": 3, "purpose": "Handover", "unlessSeq": 2})
    );
}

#[test]
fn another_version_is_refused_by_name() {
    let info = Info { contract: 2, ..info() };
    assert_eq!(info.check(), Err(Violation::Version(2)));
    assert!(info.check().unwrap_err().to_string().contains("`contract` is 2"));
}

#[test]
fn every_bound_of_info_is_checked() {
    let long = "x".repeat(MAX_TEXT + 1);
    let cases = [
        (Info { instance: String::new(), ..info() }, Violation::Empty("instance")),
        (Info { instance: long.clone(), ..info() }, Violation::Text("instance")),
        (Info { vsn: long.clone(), ..info() }, Violation::Text("vsn")),
        (Info { epoch: Epoch(MAX_INTEGER + 1), ..info() }, Violation::Integer("epoch")),
        (Info { seq: MAX_INTEGER + 1, ..info() }, Violation::Integer("seq")),
        (Info { load: u64::MAX, ..info() }, Violation::Integer("load")),
        (Info { accepts_from: vec![long], ..info() }, Violation::Text("acceptsFrom")),
        (
            Info { delta_from: vec!["1".into(); MAX_VERSIONS + 1], ..info() },
            Violation::List { field: "deltaFrom", max: MAX_VERSIONS },
        ),
    ];
    for (info, violation) in cases {
        assert_eq!(info.check(), Err(violation));
    }
}

#[test]
fn every_bound_of_a_command_is_checked() {
    let beyond = Epoch(MAX_INTEGER + 1);
    let epoch = Err(Violation::Integer("epoch"));
    assert_eq!(SuspendRequest { epoch: beyond, reason: Reason::Handover }.check(), epoch);
    assert_eq!(ResumeRequest { epoch: beyond }.check(), epoch);
    assert_eq!(ApplyRequest { epoch: beyond, ..apply(vec![]) }.check(), epoch);
    let capture = CaptureRequest {
        epoch: Epoch(1),
        purpose: CapturePurpose::Checkpoint,
        since: None,
        unless_seq: None,
    };
    assert_eq!(capture.check(), Ok(()));
    assert_eq!(CaptureRequest { epoch: beyond, ..capture.clone() }.check(), epoch);
    assert_eq!(
        CaptureRequest { unless_seq: Some(u64::MAX), ..capture.clone() }.check(),
        Err(Violation::Integer("unlessSeq"))
    );
    assert_eq!(CaptureRequest { since: Some(u64::MAX), ..capture }.check(), Err(Violation::Integer("since")));
    let activate = ActivateRequest {
        epoch: Epoch(1),
        reason: Reason::Start,
        initial: true,
        process: ProcessInfo::default(),
        may_miss: Some(u64::MAX),
    };
    assert_eq!(activate.check(), Err(Violation::Integer("mayMiss")));
    assert_eq!(ActivateRequest { epoch: beyond, may_miss: None, ..activate }.check(), epoch);
}

#[test]
fn every_bound_of_the_optional_calls_is_checked() {
    let ask =
        ConsentRequest { reason: Reason::Handover, forced_at_time: Some("2026-11-21T12:00:00Z".into()) };
    assert_eq!(ask.check(), Ok(()));
    let long = "x".repeat(MAX_TEXT + 1);
    let ask = ConsentRequest { forced_at_time: Some(long.clone()), ..ask };
    assert_eq!(ask.check(), Err(Violation::Text("forcedAtTime")));
    let change: CodeChangeRequest = serde_json::from_value(json!({"epoch": 4, "to": "2"})).unwrap();
    assert_eq!((change.check(), change.direction, &change.extra), (Ok(()), Direction::Up, &Value::Null));
    let beyond = CodeChangeRequest { epoch: Epoch(MAX_INTEGER + 1), ..change.clone() };
    assert_eq!(beyond.check(), Err(Violation::Integer("epoch")));
    let wordy = CodeChangeRequest { from: long.clone(), ..change.clone() };
    assert_eq!(wordy.check(), Err(Violation::Text("from")));
    assert_eq!(CodeChangeRequest { to: long, ..change }.check(), Err(Violation::Text("to")));
}

#[test]
fn whatever_is_not_a_clear_yes_defers() {
    let answer = |text: &str| serde_json::from_str::<ConsentAnswer>(text).map(|body| body.answer).ok();
    assert_eq!(answer(r#"{"answer": "Ready"}"#), Some(Consent::Ready));
    for text in [r#"{"answer": "Defer"}"#, r#"{"answer": "ready"}"#, r#"{"answer": "InAMinute"}"#] {
        assert_eq!(answer(text), Some(Consent::Defer), "{text}");
    }
    assert_eq!(answer("{}"), None);
    assert_eq!(
        serde_json::to_value(ConsentAnswer { answer: Consent::Defer }).unwrap(),
        json!({"answer": "Defer"})
    );
}

#[test]
fn a_delta_is_the_one_that_was_asked_for_and_leads_forwards() {
    let ask = |since| CaptureRequest {
        epoch: Epoch(1),
        purpose: CapturePurpose::Checkpoint,
        since,
        unless_seq: None,
    };
    let answer = |since, seq| CaptureAnswer {
        capture: "c1".parse().unwrap(),
        seq,
        vsn: String::new(),
        since,
        parts: vec![],
    };
    assert_eq!(answer(Some(4), 9).check_for(&ask(Some(4))), Ok(()));
    assert_eq!(answer(None, 9).check_for(&ask(Some(4))), Ok(()), "a whole state will do");
    assert_eq!(answer(Some(4), 9).check_for(&ask(None)), Err(Violation::Since(4)));
    assert_eq!(answer(Some(3), 9).check_for(&ask(Some(4))), Err(Violation::Since(3)));
    let backwards = Violation::Backwards { seq: 3, since: 4 };
    assert_eq!(answer(Some(4), 3).check(), Err(backwards.clone()));
    let delta = ApplyRequest { since: Some(4), seq: 3, ..apply(vec![]) };
    assert_eq!(delta.check(), Err(backwards));
}

#[test]
fn parts_are_bounded_and_named_once() {
    let twice = apply(vec![part("state", 1), part("table.a", 2), part("state", 1)]);
    assert_eq!(twice.check(), Err(Violation::Duplicate("state".parse().unwrap())));
    let many: Vec<_> = (0..=MAX_PARTS).map(|n| part(&format!("table.{n}"), 1)).collect();
    assert_eq!(apply(many.clone()).check(), Err(Violation::List { field: "parts", max: MAX_PARTS }));
    assert_eq!(apply(many[1..].to_vec()).check(), Ok(()));
    assert_eq!(apply(vec![part("state", u64::MAX)]).check(), Err(Violation::Integer("parts.bytes")));
    let summary = CaptureSummary { parts: vec![part("state", 1), part("state", 1)] };
    assert_eq!(summary.check(), Err(Violation::Duplicate("state".parse().unwrap())));
    let answer = CaptureAnswer {
        capture: "c1".parse().unwrap(),
        seq: 1,
        vsn: String::new(),
        since: None,
        parts: vec![CapturePart { name: "state".parse().unwrap(), bytes: Some(u64::MAX) }],
    };
    assert_eq!(answer.check(), Err(Violation::Integer("parts.bytes")));
}

#[test]
fn a_body_that_is_not_the_contracts_is_not_read() {
    for bad in [
        json!({"epoch": -1, "reason": "Handover"}),
        json!({"epoch": 1.5, "reason": "Handover"}),
        json!({"epoch": "1", "reason": "Handover"}),
        json!({"epoch": 1, "reason": "Whim"}),
        json!({"reason": "Handover"}),
    ] {
        assert!(serde_json::from_value::<SuspendRequest>(bad.clone()).is_err(), "{bad}");
    }
    let newer = json!({"epoch": 1, "reason": "Handover", "fromTheFuture": true});
    assert!(serde_json::from_value::<SuspendRequest>(newer).is_ok());
}

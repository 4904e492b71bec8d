//! Other code is offered a copy of the state while the source serves, and is told so again with the state itself.

use bytes::Bytes;
use counter::faults::Faults;
use http::Method;
use processhub_protocol::contract::CaptureAnswer;
use processhub_protocol::contract::Direction;
use processhub_protocol::fence::Role;
use processhub_protocol::id::Epoch;
use processhub_protocol::wire::{
    CodeChange, FailureKind, Import, ImportReason, Report, Trial, WorkerState, path,
};

use crate::support::Pod;
use crate::support::load::{audit, increment};
use crate::support::operator::{Operator, parse};

/// A pod with a counter of version 2, which takes states of version 1.
fn newer(name: &str, born: u64) -> (Pod, Faults) {
    let faults = Faults::default();
    let pod = Pod::new(name, born);
    pod.start_sidecar();
    let theirs = faults.clone();
    pod.start_counter(move |config| {
        config.faults = theirs;
        config.options.vsn = "2".into();
        config.options.accepts_from = vec!["1".into()];
    });
    (pod, faults)
}

fn change() -> CodeChange {
    CodeChange { from: "1".into(), direction: Direction::Up, extra: r#"{"a":1}"#.into() }
}

async fn try_on(operator: &Operator, target: &Pod, source: &Pod, milliseconds: u64) -> Report {
    operator.worker(target, WorkerState::Standby).await;
    let trial = Trial {
        to: target.addressee(),
        epoch: Epoch(2),
        from: source.peer(),
        timeout_milliseconds: milliseconds,
        code_change: change(),
    };
    operator.command(target, path::TRIAL, &trial).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_tried_while_the_source_serves_and_leaves_nothing_behind() {
    let operator = Operator::new();
    let source = Pod::running("a", 1);
    operator.start(&source, 1).await;
    increment(&operator, source.config.data, "one", 1).await;
    let (control, token) = (source.config.control, operator.token(&source));
    let asked = operator.ask(control, Method::POST, "/v1/copy?epoch=2", token.clone(), Bytes::new()).await;
    let (status, body) = asked.unwrap();
    assert_eq!(status, 200, "{body:?}");
    let copy: CaptureAnswer = parse(&body);
    let part = format!("/v1/copy/{}/state?epoch=2", copy.capture);
    let (status, body) = operator.get(control, &part, token).await;
    assert_eq!(status, 200, "{body:?}");
    let (target, _) = newer("b", 2);
    let report = try_on(&operator, &target, &source, 20_000).await;
    assert_eq!((report.tried, &report.failure), (Some(Epoch(2)), &None));
    assert_eq!((report.role, report.floor), (Role::Standby, Epoch(0)), "nothing of it is in the record");
    let report = operator.report(&source).await;
    assert!(report.serving && report.held == 0, "{report:#?}");
    assert_eq!(increment(&operator, source.config.data, "one", 2).await.0, 200);

    // The move itself: the state as it is by then.
    let state = operator.seal(&source, 2).await;
    let import = Import {
        to: target.addressee(),
        epoch: Epoch(2),
        state: state.clone(),
        from: source.peer(),
        replica: false,
        timeout_milliseconds: 20_000,
        reason: ImportReason::Handover,
        code_change: Some(change()),
    };
    operator.command(&target, path::IMPORT, &import).await.unwrap();
    let report = operator.activate(&target, 2, Some(state), Some(&source)).await.unwrap();
    assert!(report.serving, "{report:#?}");
    assert_eq!(audit(&operator, &target).await.value, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn code_that_refuses_the_copy_or_hangs_on_it_says_so_before_anything_is_frozen() {
    let operator = Operator::new();
    let source = Pod::running("a", 1);
    operator.start(&source, 1).await;
    increment(&operator, source.config.data, "one", 1).await;
    for (fault, milliseconds, kind) in [
        ("refuse=import", 20_000, FailureKind::ImportRefused),
        ("mangle=put:missing", 20_000, FailureKind::ImportRefused),
        ("hang=import:5000", 300, FailureKind::ImportFailed),
    ] {
        let (target, faults) = newer("b", 2);
        operator.worker(&target, WorkerState::Standby).await;
        faults.set([fault.parse().unwrap()]);
        let report = try_on(&operator, &target, &source, milliseconds).await;
        let failure = report.failure.unwrap_or_else(|| panic!("{fault} did not fail"));
        assert_eq!((failure.kind, failure.epoch, report.tried), (kind, Epoch(2), None), "{fault}");
        assert!(failure.message.starts_with("a copy of the state was tried: "), "{}", failure.message);
        assert!(operator.report(&source).await.serving, "{fault}");
    }
    assert_eq!(increment(&operator, source.config.data, "one", 2).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_copy_can_be_had_nothing_is_tried() {
    let operator = Operator::new();
    let source = Pod::running("a", 1);
    operator.worker(&source, WorkerState::Standby).await;
    let (target, _) = newer("b", 2);
    let report = try_on(&operator, &target, &source, 20_000).await;
    assert_eq!((report.tried, report.failure), (Some(Epoch(2)), None), "it owns nothing");
}

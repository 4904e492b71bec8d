//! Workers that refuse, hang, die or talk nonsense: a move fails with its reason, and nothing is lost.

use std::time::Duration;

use counter::faults::Faults;
use processhub_protocol::fence::Role;
use processhub_protocol::ledger::Lost;
use processhub_protocol::wire::{FailureKind, Report, WorkerState, path};

use crate::support::Pod;
use crate::support::load::{audit, increment};
use crate::support::operator::Operator;

fn faulty(name: &str, born: u64) -> (Pod, Faults) {
    let faults = Faults::default();
    let pod = Pod::new(name, born);
    pod.start_sidecar();
    let theirs = faults.clone();
    pod.start_counter(move |config| config.faults = theirs);
    (pod, faults)
}

fn set(faults: &Faults, text: &str) {
    faults.set(text.split_whitespace().map(|fault| fault.parse().unwrap()));
}

fn failure(report: &Report) -> FailureKind {
    report.failure.as_ref().unwrap_or_else(|| panic!("it worked: {report:#?}")).kind
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_that_fails_is_said_and_undone() {
    let operator = Operator::new();
    let (pod, faults) = faulty("a", 1);
    operator.start(&pod, 1).await;
    let mut epoch = 1;
    for (fault, kind) in [
        ("refuse=capture", FailureKind::CaptureFailed),
        ("refuse=suspend", FailureKind::CaptureFailed),
        ("hang=suspend:5000", FailureKind::StateQueryTimeout),
        ("hang=capture:5000", FailureKind::StateQueryTimeout),
        ("mangle=suspend:too-large", FailureKind::CaptureFailed),
        ("mangle=suspend:cut-short", FailureKind::CaptureFailed),
        ("mangle=capture:too-large", FailureKind::CaptureFailed),
        ("mangle=capture:cut-short", FailureKind::CaptureFailed),
        ("mangle=capture:not-json", FailureKind::CaptureFailed),
        ("mangle=capture:pretended", FailureKind::CaptureFailed),
        ("mangle=read:cut-short", FailureKind::CaptureFailed),
        ("mangle=read:missing", FailureKind::CaptureFailed),
    ] {
        let number = epoch;
        assert_eq!(increment(&operator, pod.config.data, "one", number).await.0, 200, "{fault}");
        set(&faults, fault);
        epoch += 1;
        let mut freeze = operator.freeze_command(&pod, epoch);
        freeze.state_query_timeout_milliseconds = 300;
        let report = operator.command(&pod, path::FREEZE, &freeze).await.unwrap();
        assert_eq!(failure(&report), kind, "{fault}: {:?}", report.failure);
        assert!(matches!(report.role, Role::Active { .. }), "{fault}");
        assert!(!report.serving, "{fault}: only the operator lets it serve again (rule 6)");
        set(&faults, "");
        epoch += 1;
        let report = operator.thaw(&pod, epoch).await.unwrap();
        assert!(report.serving, "{fault}: {report:#?}");
    }
    let audit = audit(&operator, &pod).await;
    assert_eq!((audit.value, audit.duplicates), (12, 0));
    assert_eq!(operator.report(&pod).await.lost, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_dead_when_it_is_frozen_leaves_what_is_kept_and_says_so() {
    let operator = Operator::new();
    let (source, target) = (Pod::running("a", 1), Pod::running("b", 2));
    operator.start(&source, 1).await;
    operator.hand_over(&source, &target, 2).await;
    let pod = target;
    assert_eq!(increment(&operator, pod.config.data, "one", 1).await.0, 200);
    pod.kill_worker();
    // Nobody can capture a dead worker, and the counter has no checkpoints: the state of the last move is what leaves.
    let report = operator.freeze(&pod, 3).await.unwrap();
    assert!(report.failure.is_none(), "{report:#?}");
    let Role::Frozen { state: Some(state), .. } = &report.role else { panic!("{report:#?}") };
    let missing = Some(Lost { from: state.seq + 1 });
    assert_eq!(report.lost, missing);
    pod.start_counter(|_| {});
    let report = operator.thaw(&pod, 4).await.unwrap();
    assert!(report.serving, "{report:#?}");
    assert_eq!((report.lost, audit(&operator, &pod).await.value), (missing, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_refuses_the_state_says_so() {
    let operator = Operator::new();
    let source = Pod::running("a", 1);
    operator.start(&source, 1).await;
    increment(&operator, source.config.data, "one", 1).await;
    let state = operator.seal(&source, 2).await;
    for (fault, kind) in [
        ("refuse=import", FailureKind::ImportRefused),
        ("mangle=put:missing", FailureKind::ImportRefused),
        ("mangle=put:too-large", FailureKind::ImportFailed),
        ("mangle=put:cut-short", FailureKind::ImportFailed),
        ("mangle=apply:cut-short", FailureKind::ImportFailed),
    ] {
        let (target, faults) = faulty("b", 2);
        operator.worker(&target, WorkerState::Standby).await;
        set(&faults, fault);
        let report = operator.import(&target, &source, 2, &state).await.unwrap();
        assert_eq!(failure(&report), kind, "{fault}: {:?}", report.failure);
        assert_eq!(report.role, Role::Standby, "{fault}");
    }
    assert!(operator.thaw(&source, 3).await.unwrap().serving);
    assert_eq!(audit(&operator, &source).await.value, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_has_an_end() {
    let operator = Operator::new();
    let (source, target) = (Pod::running("a", 1), Pod::new("b", 2));
    target.start_sidecar();
    operator.start(&source, 1).await;
    let state = operator.seal(&source, 2).await;
    // No worker ever comes up at the target.
    let import = processhub_protocol::wire::Import {
        to: target.addressee(),
        epoch: processhub_protocol::id::Epoch(2),
        state,
        from: source.peer(),
        replica: false,
        timeout_milliseconds: 200,
        reason: processhub_protocol::wire::ImportReason::Handover,
        code_change: None,
    };
    let report = operator.command(&target, path::IMPORT, &import).await.unwrap();
    assert_eq!(failure(&report), FailureKind::ImportFailed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_is_not_the_announced_one_is_not_taken() {
    let operator = Operator::new();
    let (source, target) = (Pod::running("a", 1), Pod::running("b", 2));
    operator.start(&source, 1).await;
    operator.worker(&target, WorkerState::Standby).await;
    let mut state = operator.seal(&source, 2).await;
    state.digest = "00".into();
    let report = operator.import(&target, &source, 2, &state).await.unwrap();
    assert_eq!(failure(&report), FailureKind::ImportFailed);
    assert_eq!(report.role, Role::Standby);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_activation_is_repeated_until_the_worker_takes_it() {
    let operator = Operator::new();
    let source = Pod::running("a", 1);
    let (target, faults) = faulty("b", 2);
    operator.start(&source, 1).await;
    increment(&operator, source.config.data, "one", 1).await;
    operator.worker(&target, WorkerState::Standby).await;
    let state = operator.seal(&source, 2).await;
    operator.import(&target, &source, 2, &state).await.unwrap();
    set(&faults, "refuse=activate");
    let (report, ()) = tokio::join!(operator.activate(&target, 2, Some(state), Some(&source)), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        set(&faults, "");
    });
    assert!(report.unwrap().serving);
    assert_eq!(audit(&operator, &target).await.value, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_state_moves_without() {
    let operator = Operator::new();
    let (source, faults) = faulty("a", 1);
    let target = Pod::running("b", 2);
    operator.start(&source, 1).await;
    set(&faults, "mangle=capture:missing");
    let report = operator.freeze(&source, 2).await.unwrap();
    assert!(matches!(report.role, Role::Frozen { state: None, .. }), "{report:#?}");
    assert_eq!(report.worker.can_hand_over, Some(false));
    operator.worker(&target, WorkerState::Standby).await;
    assert!(operator.activate(&target, 2, None, Some(&source)).await.unwrap().serving);
    assert_eq!(increment(&operator, source.config.data, "one", 1).await.0, 200, "the source forwards");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_knows_no_contract_runs_and_moves_without_state() {
    let operator = Operator::new();
    let plain = |name: &str, born| {
        let pod = Pod::new(name, born);
        pod.start_sidecar();
        pod.start_counter(|config| config.contract = false);
        pod
    };
    let (source, target) = (plain("a", 1), plain("b", 2));
    let report = operator.worker(&source, WorkerState::Standby).await;
    assert_eq!(report.worker.can_hand_over, Some(false));
    operator.start(&source, 1).await;
    assert_eq!(increment(&operator, source.config.data, "one", 1).await.0, 200);
    // Its restart is waited for as any other's.
    source.kill_worker();
    source.start_counter(|config| config.contract = false);
    assert_eq!(increment(&operator, source.config.data, "one", 2).await.0, 200);
    let mut freeze = operator.freeze_command(&source, 2);
    freeze.capture = false;
    let report = operator.command(&source, path::FREEZE, &freeze).await.unwrap();
    assert!(matches!(report.role, Role::Frozen { state: None, .. }), "{report:#?}");
    operator.worker(&target, WorkerState::Standby).await;
    assert!(operator.activate(&target, 2, None, Some(&source)).await.unwrap().serving);
    assert_eq!(increment(&operator, source.config.data, "one", 3).await.0, 200);
    assert_eq!(audit(&operator, &target).await.value, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gated_target_takes_the_state_and_starts_its_worker_last() {
    let operator = Operator::new();
    let source = Pod::running("a", 1);
    let mut target = Pod::new("b", 2);
    target.config.gated = true;
    target.start_sidecar();
    let gate =
        async |pod: &Pod| operator.get(pod.config.control, path::START, http::HeaderMap::new()).await.0;
    operator.start(&source, 1).await;
    increment(&operator, source.config.data, "one", 1).await;
    operator.worker(&target, WorkerState::Gated).await;
    let state = operator.seal(&source, 2).await;
    let report = operator.import(&target, &source, 2, &state).await.unwrap();
    assert!(matches!(report.role, Role::Delivered { .. }) && report.worker.state == WorkerState::Gated);
    assert_eq!(gate(&target).await, 503);
    let (report, ()) = tokio::join!(operator.activate(&target, 2, Some(state), Some(&source)), async {
        while gate(&target).await != 200 {
            tokio::task::yield_now().await;
        }
        target.start_counter(|_| {});
    });
    let report = report.unwrap();
    assert!(report.serving && report.lost.is_none(), "{report:#?}");
    assert_eq!(audit(&operator, &target).await.value, 1);
}

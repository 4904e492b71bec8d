//! Sidecars and workers that die in every role.

use std::time::Duration;

use processhub_protocol::contract::{PATH_SUSPEND, Reason, SuspendRequest};
use processhub_protocol::fence::Role;
use processhub_protocol::id::Epoch;
use processhub_protocol::wire::{RefusalCode, WorkerState};

use http::{HeaderMap, Method};

use crate::support::Pod;
use crate::support::load::{audit, increment};
use crate::support::operator::Operator;

async fn count(operator: &Operator, pod: &Pod, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        let (status, body) = increment(operator, pod.config.data, "one", number).await;
        assert_eq!(status, 200, "{number}: {body:?}");
    }
}

async fn value(operator: &Operator, pod: &Pod) -> u64 {
    audit(operator, pod).await.value
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_whose_sidecar_restarts_goes_on() {
    let operator = Operator::new();
    let pod = Pod::running("a", 1);
    operator.start(&pod, 1).await;
    count(&operator, &pod, 1..=5).await;
    let before = operator.report(&pod).await;
    pod.kill_sidecar();
    pod.start_sidecar();
    let after = operator.until(&pod, "serving", |report| report.serving).await;
    assert_eq!((after.record, after.role, after.lost), (before.record, before.role, None));
    count(&operator, &pod, 6..=7).await;
    assert_eq!(value(&operator, &pod).await, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_whose_sidecar_restarts_is_the_same_incarnation() {
    let operator = Operator::new();
    let pod = Pod::running("a", 1);
    let before = operator.worker(&pod, WorkerState::Standby).await;
    pod.kill_sidecar();
    pod.start_sidecar();
    let after = operator.worker(&pod, WorkerState::Standby).await;
    assert_eq!((after.record, after.role), (before.record, Role::Standby));
    operator.start(&pod, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_delivered_outlives_sidecar_and_worker() {
    let operator = Operator::new();
    for worker_too in [false, true] {
        let (source, target) = (Pod::running("a", 1), Pod::running("b", 2));
        operator.start(&source, 1).await;
        count(&operator, &source, 1..=5).await;
        operator.worker(&target, WorkerState::Standby).await;
        let state = operator.seal(&source, 2).await;
        operator.import(&target, &source, 2, &state).await.unwrap();
        target.kill_sidecar();
        if worker_too {
            target.kill_worker();
            target.start_counter(|_| {});
        }
        target.start_sidecar();
        let report = operator.worker(&target, WorkerState::Standby).await;
        assert_eq!(report.role, Role::Delivered { epoch: Epoch(2), state: state.clone() });
        let report = operator.activate(&target, 2, Some(state), Some(&source)).await.unwrap();
        assert!(report.serving, "{report:#?}");
        assert_eq!(value(&operator, &target).await, 5);
        if !worker_too {
            assert_eq!(report.lost, None);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_restarts_after_the_delivery_is_given_the_state_again() {
    let operator = Operator::new();
    let (source, target) = (Pod::running("a", 1), Pod::running("b", 2));
    operator.start(&source, 1).await;
    count(&operator, &source, 1..=5).await;
    operator.worker(&target, WorkerState::Standby).await;
    let state = operator.seal(&source, 2).await;
    operator.import(&target, &source, 2, &state).await.unwrap();
    target.kill_worker();
    target.start_counter(|_| {});
    let report = operator.activate(&target, 2, Some(state), Some(&source)).await.unwrap();
    assert!(report.serving, "{report:#?}");
    assert_eq!((value(&operator, &target).await, operator.report(&target).await.lost), (5, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_source_stays_sealed_over_restarts_of_both() {
    let operator = Operator::new();
    let (source, target) = (Pod::running("a", 1), Pod::running("b", 2));
    operator.start(&source, 1).await;
    count(&operator, &source, 1..=5).await;
    let state = operator.seal(&source, 2).await;
    source.kill_sidecar();
    source.kill_worker();
    source.start_sidecar();
    source.start_counter(|_| {});
    let report = operator.worker(&source, WorkerState::Standby).await;
    assert!(!report.serving && matches!(report.role, Role::Frozen { .. }), "{report:#?}");
    // The state is still to be had by a target at this epoch.
    operator.worker(&target, WorkerState::Standby).await;
    operator.import(&target, &source, 2, &state).await.unwrap();
    // And by the source itself, when the move is undone; nothing was acknowledged since.
    let report = operator.thaw(&source, 3).await.unwrap();
    assert!(report.serving && report.lost.is_none(), "{report:#?}");
    assert_eq!(value(&operator, &source).await, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forwarding_source_goes_on_forwarding() {
    let operator = Operator::new();
    let (source, target) = (Pod::running("a", 1), Pod::running("b", 2));
    operator.start(&source, 1).await;
    operator.hand_over(&source, &target, 2).await;
    operator.until(&source, "forwarding", |report| matches!(report.role, Role::Forwarding { .. })).await;
    source.kill_sidecar();
    source.kill_worker();
    source.start_sidecar();
    count(&operator, &source, 1..=3).await;
    assert_eq!(value(&operator, &target).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_that_died_in_the_middle_of_a_freeze_does_not_resume_by_itself() {
    let operator = Operator::new();
    let pod = Pod::running("a", 1);
    operator.start(&pod, 1).await;
    count(&operator, &pod, 1..=5).await;
    pod.kill_sidecar();
    let suspend = SuspendRequest { epoch: Epoch(2), reason: Reason::Handover };
    let body = serde_json::to_vec(&suspend).unwrap().into();
    let answer =
        operator.ask(pod.config.worker_control, Method::POST, PATH_SUSPEND, HeaderMap::new(), body).await;
    assert_eq!(answer.unwrap().0, 204);
    pod.start_sidecar();
    let report = operator.worker(&pod, WorkerState::Suspended).await;
    assert!(matches!(report.role, Role::Active { .. }));
    // Longer than it takes to look at the worker a few times.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!operator.report(&pod).await.serving, "rule 6");
    // The operator goes on, either way.
    operator.seal(&pod, 2).await;
    assert!(operator.thaw(&pod, 3).await.unwrap().serving);
    assert_eq!(value(&operator, &pod).await, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thaw_that_was_recorded_is_carried_out_after_a_restart() {
    let operator = Operator::new();
    let pod = Pod::running("a", 1);
    operator.start(&pod, 1).await;
    count(&operator, &pod, 1..=5).await;
    operator.seal(&pod, 2).await;
    // The worker does not answer `resume`, so the thaw gets no further than the record.
    pod.kill_worker();
    let (thaw, _) = tokio::join!(
        tokio::time::timeout(Duration::from_millis(300), operator.thaw(&pod, 3)),
        operator.until(&pod, "the record", |report| matches!(report.role, Role::Active { .. }))
    );
    assert!(thaw.is_err() && !operator.report(&pod).await.serving);
    pod.kill_sidecar();
    pod.start_sidecar();
    pod.start_counter(|_| {});
    operator.until(&pod, "serving", |report| report.serving).await;
    assert_eq!(value(&operator, &pod).await, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_crashes_is_given_its_newest_kept_state_and_the_loss_is_said() {
    let operator = Operator::new();
    let (source, target) = (Pod::running("a", 1), Pod::running("b", 2));
    operator.start(&source, 1).await;
    count(&operator, &source, 1..=5).await;
    operator.hand_over(&source, &target, 2).await;
    let Role::Active { kept: Some(kept), .. } = operator.report(&target).await.role else {
        panic!("it keeps what was handed over")
    };
    count(&operator, &target, 6..=8).await;
    target.kill_worker();
    target.start_counter(|_| {});
    let report = operator.until(&target, "the loss", |report| report.serving && report.lost.is_some()).await;
    assert_eq!(report.lost.unwrap().from, kept.seq + 1);
    assert_eq!(value(&operator, &target).await, 5, "the state of the hand-over, and not an empty one");
    // The loss stays said, also over an aborted move and a restart of the sidecar.
    operator.seal(&target, 3).await;
    operator.thaw(&target, 4).await.unwrap();
    target.kill_sidecar();
    target.start_sidecar();
    let report = operator.until(&target, "serving", |report| report.serving).await;
    assert_eq!(report.lost.unwrap().from, kept.seq + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_crashes_before_anything_was_kept_begins_anew_and_says_so() {
    let operator = Operator::new();
    let pod = Pod::running("a", 1);
    operator.start(&pod, 1).await;
    count(&operator, &pod, 1..=5).await;
    pod.kill_worker();
    pod.start_counter(|_| {});
    let report = operator.until(&pod, "the loss", |report| report.serving && report.lost.is_some()).await;
    assert_eq!(report.lost.unwrap().from, 1);
    assert_eq!(value(&operator, &pod).await, 0);
    // The operator may not have heard of it before it undoes a move.
    let thawed = operator.thaw(&pod, 2).await.unwrap();
    assert_eq!(thawed.lost.unwrap().from, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_state_that_is_damaged_is_a_loss_and_not_the_end() {
    let operator = Operator::new();
    let (source, target) = (Pod::running("a", 1), Pod::running("b", 2));
    operator.start(&source, 1).await;
    count(&operator, &source, 1..=5).await;
    operator.hand_over(&source, &target, 2).await;
    for entry in std::fs::read_dir(&target.config.state_dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "state") {
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[3] ^= 1;
            std::fs::write(path, bytes).unwrap();
        }
    }
    target.kill_worker();
    target.start_counter(|_| {});
    let report = operator.until(&target, "the loss", |report| report.serving && report.lost.is_some()).await;
    assert_eq!(report.lost.unwrap().from, 1);
    assert_eq!(value(&operator, &target).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_wait_while_the_worker_restarts() {
    let operator = Operator::new();
    let pod = Pod::running("a", 1);
    operator.start(&pod, 1).await;
    pod.kill_worker();
    let at = pod.config.data;
    let waiting = tokio::spawn({
        let operator = operator.clone();
        async move { increment(&operator, at, "one", 1).await }
    });
    operator.until(&pod, "a held request", |report| report.held == 1).await;
    pod.start_counter(|_| {});
    assert_eq!(waiting.await.unwrap().0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_lost_its_volume_is_another_one() {
    let operator = Operator::new();
    for torn in [false, true] {
        let pod = Pod::running("a", 1);
        operator.start(&pod, 1).await;
        operator.seal(&pod, 2).await;
        let before = operator.report(&pod).await;
        pod.kill_sidecar();
        if torn {
            let record = pod.config.state_dir.join("record");
            let mut bytes = std::fs::read(&record).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(&record, &bytes).unwrap();
        } else {
            std::fs::remove_dir_all(&pod.config.state_dir).unwrap();
        }
        pod.start_sidecar();
        let after = operator.report(&pod).await;
        assert_ne!(after.record, before.record);
        assert_eq!(after.role, Role::Standby);
        assert!(!after.serving);
        let mut grant = operator.grant(&pod).await;
        grant.record = before.record;
        let refusal = operator.thaw_with(&pod, 3, grant.clone()).await.unwrap_err();
        assert_eq!(refusal.code, RefusalCode::WrongRecord);
        let refusal = operator.activate_with(&pod, 3, None, None, grant).await.unwrap_err();
        assert_eq!(refusal.code, RefusalCode::WrongRecord, "empty state never passes as owner");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_pod_whose_state_file_is_gone_has_lost_its_record() {
    let operator = Operator::new();
    let pod = Pod::running("a", 1);
    operator.start(&pod, 1).await;
    operator.seal(&pod, 2).await;
    let before = operator.report(&pod).await;
    pod.kill_sidecar();
    for entry in std::fs::read_dir(&pod.config.state_dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "state") {
            std::fs::remove_file(path).unwrap();
        }
    }
    pod.start_sidecar();
    assert_ne!(operator.report(&pod).await.record, before.record);
}

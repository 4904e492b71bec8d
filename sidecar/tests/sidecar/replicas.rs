//! What an owner acknowledges is with its holders, and comes back from them.

use std::time::Duration;

use http::Method;
use processhub_protocol::fence::Role;
use processhub_protocol::id::{Epoch, ProcessUid};
use processhub_protocol::replica::Sealed;
use processhub_protocol::wire::{
    CheckpointClass, Import, ImportReason, RefusalCode, Report, WorkerState, path,
};
use processhub_sidecar::config::Checkpoint;

use crate::checkpoints::{NEVER, SOON, ask, words};
use crate::support::live::Live;
use crate::support::operator::Operator;
use crate::support::{PATIENCE, Pod};

/// A pod of the process `p` that wants replicas.
fn wanting(name: &str, born: u64, class: Option<CheckpointClass>, worker: &Live) -> Pod {
    let mut pod = Pod::new(name, born);
    let period = if class == Some(CheckpointClass::Async) { SOON } else { NEVER };
    pod.config.checkpoint = Checkpoint { class, period, replicas: 1 };
    pod.start_sidecar();
    worker.start(&pod);
    pod
}

fn owner(class: Option<CheckpointClass>) -> Pod {
    wanting("owner", 1, class, &Live::counting())
}

fn sync() -> Pod {
    owner(Some(CheckpointClass::Sync))
}

/// A pod of another process.
fn holder(name: &str) -> Pod {
    let mut pod = Pod::new(name, 1);
    pod.config.process = ProcessUid::from(format!("process-of-{name}").as_str());
    pod.start_sidecar();
    pod
}

async fn tell(operator: &Operator, pod: &Pod, word: &str) -> u16 {
    ask(operator, pod, Method::POST, &format!("/told/{word}")).await.0
}

/// Whether this gets no answer for now.
async fn waits<T>(answer: impl Future<Output = T>) -> bool {
    tokio::time::timeout(Duration::from_millis(300), answer).await.is_err()
}

fn complete(report: &Report) -> bool {
    report.replicas.as_ref().is_some_and(|replicas| replicas.complete)
}

fn seq(sealed: &Sealed) -> Option<u64> {
    sealed.newest.as_ref().map(|(_, state)| state.seq)
}

/// An owner that was told three words, and who holds its replica.
async fn three_told() -> (Operator, Pod, Pod) {
    let operator = Operator::new();
    let (pod, holder) = (sync(), holder("holder"));
    operator.start(&pod, 1).await;
    operator.replicate(&pod, 1, 1, &[&holder]).await.unwrap();
    for word in ["one", "two", "three"] {
        assert_eq!(tell(&operator, &pod, word).await, 200);
    }
    (operator, pod, holder)
}

#[tokio::test(flavor = "multi_thread")]
async fn with_sync_an_answer_waits_until_its_state_is_with_every_holder() {
    let operator = Operator::new();
    let (pod, near, far) = (sync(), holder("near"), holder("far"));
    operator.start(&pod, 1).await;
    assert!(waits(tell(&operator, &pod, "one")).await, "nobody has said where the holders are");
    let holders = [&near, &far];
    let (status, told) = tokio::join!(tell(&operator, &pod, "two"), operator.replicate(&pod, 1, 1, &holders));
    assert_eq!((status, told.is_ok()), (200, true));
    operator.until(&pod, "a whole set", complete).await;
    for (number, word) in (3..).zip(["three", "four", "five"]) {
        assert_eq!(tell(&operator, &pod, word).await, 200);
        for holder in [&near, &far] {
            let sealed = operator.seal_replica(holder, &pod, 1).await.unwrap();
            assert_eq!((seq(&sealed), sealed.exposed), (Some(number), false));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_waits_for_a_holder_that_is_gone_until_another_set_is_in_force() {
    let operator = Operator::new();
    let (pod, first, second) = (sync(), holder("first"), holder("second"));
    operator.start(&pod, 1).await;
    operator.replicate(&pod, 1, 1, &[&first]).await.unwrap();
    assert_eq!(tell(&operator, &pod, "one").await, 200);
    first.kill_sidecar();
    let (status, ()) = tokio::join!(tell(&operator, &pod, "two"), async {
        let failing = |report: &Report| {
            let holders = report.replicas.iter().flat_map(|replicas| &replicas.holders);
            holders.into_iter().any(|holder| holder.failing_milliseconds.is_some() && !holder.current)
        };
        operator.until(&pod, "that the holder fails", failing).await;
        operator.replicate(&pod, 1, 2, &[&second]).await.unwrap();
    });
    assert_eq!(status, 200);
    assert_eq!(seq(&operator.seal_replica(&second, &pod, 1).await.unwrap()), Some(2));
    let older = operator.replicate(&pod, 1, 1, &[&first]).await.unwrap_err();
    assert_eq!(older.code, RefusalCode::StaleGrant, "a set is never taken back");
    operator.replicate(&pod, 1, 3, &[]).await.unwrap();
    assert_eq!(tell(&operator, &pod, "three").await, 200, "there is no other node: nobody is waited for");
    assert_eq!(seq(&operator.seal_replica(&second, &pod, 1).await.unwrap()), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_starts_anew_has_what_it_had_and_refuses_what_it_refused() {
    let (operator, pod, holder) = three_told().await;
    let restart = || {
        holder.kill_sidecar();
        holder.start_sidecar();
    };
    restart();
    assert_eq!(tell(&operator, &pod, "four").await, 200, "it goes on where it was");
    assert_eq!(seq(&operator.seal_replica(&holder, &pod, 2).await.unwrap()), Some(4));
    for _ in 0..2 {
        assert!(waits(tell(&operator, &pod, "never")).await, "the owner may not acknowledge any more");
        let sealed = operator.seal_replica(&holder, &pod, 2).await.unwrap();
        assert_eq!((seq(&sealed), sealed.epoch), (Some(4), Epoch(2)));
        let older = operator.seal_replica(&holder, &pod, 1).await.unwrap_err();
        assert_eq!((older.code, older.floor), (RefusalCode::StaleEpoch, Epoch(2)));
        restart();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_comes_back_from_a_holder_when_the_owner_is_lost() {
    let (operator, pod, holder) = three_told().await;
    drop(pod);
    let worker = Live::counting();
    let target = wanting("target", 2, Some(CheckpointClass::Sync), &worker);
    operator.worker(&target, WorkerState::Standby).await;
    let sealed = operator.seal_replica(&holder, &target, 2).await.unwrap();
    let (_, state) = sealed.newest.unwrap();
    let import = Import {
        to: target.addressee(),
        epoch: Epoch(2),
        state: state.clone(),
        from: holder.peer(),
        replica: true,
        timeout_milliseconds: 20_000,
        reason: ImportReason::Crash,
        code_change: None,
    };
    let report = operator.command(&target, path::IMPORT, &import).await.unwrap();
    assert!(matches!(report.role, Role::Delivered { .. }), "{report:#?}");
    let report = operator.activate(&target, 2, Some(state), None).await.unwrap();
    assert!(report.serving && !complete(&report), "{report:#?}");
    operator.replicate(&target, 2, 1, &[&holder]).await.unwrap();
    assert_eq!(words(&operator, &target).await, ["one", "two", "three"]);
    assert_eq!(tell(&operator, &target, "four").await, 200);
    let sealed = operator.seal_replica(&holder, &target, 2).await.unwrap();
    assert_eq!((seq(&sealed), sealed.epoch), (Some(4), Epoch(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_starts_anew_waits_to_be_told_again() {
    let operator = Operator::new();
    let (pod, holder) = (sync(), holder("holder"));
    operator.start(&pod, 1).await;
    operator.replicate(&pod, 1, 1, &[&holder]).await.unwrap();
    assert_eq!(tell(&operator, &pod, "one").await, 200);
    pod.kill_sidecar();
    pod.start_sidecar();
    let report = operator.until(&pod, "serving", |report| report.serving).await;
    assert_eq!(report.replicas.and_then(|replicas| replicas.generation), None);
    assert!(waits(tell(&operator, &pod, "two")).await);
    operator.replicate(&pod, 1, 1, &[&holder]).await.unwrap();
    assert_eq!(tell(&operator, &pod, "three").await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_async_nobody_waits_and_the_holder_knows_that_more_may_have_been_said() {
    let operator = Operator::new();
    let (pod, holder) = (owner(Some(CheckpointClass::Async)), holder("holder"));
    operator.start(&pod, 1).await;
    assert_eq!(tell(&operator, &pod, "one").await, 200);
    operator.replicate(&pod, 1, 1, &[&holder]).await.unwrap();
    let begin = std::time::Instant::now();
    loop {
        let sealed = operator.seal_replica(&holder, &pod, 1).await.unwrap();
        if seq(&sealed) == Some(1) {
            assert!(sealed.exposed);
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "{sealed:?}");
        tokio::time::sleep(SOON).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_first_answer_that_waits_for_nobody_the_holders_know_of_it() {
    let operator = Operator::new();
    let worker = Live { counts: false, ..Live::counting() };
    let pod = wanting("owner", 1, None, &worker);
    let holder = holder("holder");
    operator.start(&pod, 1).await;
    operator.replicate(&pod, 1, 1, &[&holder]).await.unwrap();
    operator.until(&pod, "a whole set", complete).await;
    assert!(!operator.seal_replica(&holder, &pod, 1).await.unwrap().exposed);
    assert_eq!(tell(&operator, &pod, "one").await, 200);
    assert!(operator.seal_replica(&holder, &pod, 1).await.unwrap().exposed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thawed_owner_is_told_at_its_new_epoch() {
    let operator = Operator::new();
    let (pod, holder) = (sync(), holder("holder"));
    operator.start(&pod, 1).await;
    operator.replicate(&pod, 1, 1, &[&holder]).await.unwrap();
    assert_eq!(tell(&operator, &pod, "one").await, 200);
    operator.seal(&pod, 2).await;
    assert!(operator.thaw(&pod, 3).await.unwrap().serving);
    assert!(waits(tell(&operator, &pod, "two")).await);
    let stale = operator.replicate(&pod, 1, 1, &[&holder]).await.unwrap_err();
    assert_eq!(stale.code, RefusalCode::WrongRole);
    operator.replicate(&pod, 3, 1, &[&holder]).await.unwrap();
    assert_eq!(tell(&operator, &pod, "three").await, 200);
    let sealed = operator.seal_replica(&holder, &pod, 3).await.unwrap();
    assert_eq!((seq(&sealed), sealed.newest.map(|(mark, _)| mark.epoch)), (Some(3), Some(Epoch(3))));
}

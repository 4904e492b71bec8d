//! What a crash takes along, by class of checkpoint.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::{HeaderMap, Method};
use processhub_protocol::fence::Role;
use processhub_protocol::id::{Seq, StateId};
use processhub_protocol::ledger::Lost;
use processhub_protocol::wire::{CheckpointClass, Report, WorkerState};
use processhub_sidecar::config::Checkpoint;

use crate::support::live::Live;
use crate::support::operator::{Operator, parse};
use crate::support::{PATIENCE, Pod};

/// Longer than any test: no capture but those that answers wait for.
pub const NEVER: Duration = Duration::from_secs(3600);
pub const SOON: Duration = Duration::from_millis(20);

fn pod(class: Option<CheckpointClass>, period: Duration, worker: &Live) -> Pod {
    let mut pod = Pod::new("a", 1);
    pod.config.checkpoint = Checkpoint { class, period, ..Checkpoint::default() };
    pod.start_sidecar();
    worker.start(&pod);
    pod
}

pub async fn ask(operator: &Operator, pod: &Pod, method: Method, path: &str) -> (u16, String) {
    match operator.ask(pod.config.data, method, path, HeaderMap::new(), Vec::new().into()).await {
        Ok((status, body)) => (status.as_u16(), String::from_utf8_lossy(&body).into_owned()),
        Err(_) => (0, String::new()),
    }
}

async fn tell(operator: &Operator, pod: &Pod, word: &str) -> u16 {
    ask(operator, pod, Method::POST, &format!("/told/{word}")).await.0
}

pub async fn words(operator: &Operator, pod: &Pod) -> Vec<String> {
    let (status, body) = ask(operator, pod, Method::GET, "/words").await;
    assert_eq!(status, 200, "{body}");
    parse(body.as_bytes())
}

fn kept(report: &Report) -> Option<StateId> {
    match &report.role {
        Role::Active { kept, .. } => kept.clone(),
        _ => panic!("not active: {report:#?}"),
    }
}

async fn keeps(operator: &Operator, pod: &Pod, seq: Seq) {
    operator.until(pod, "a checkpoint", |report| kept(report).is_some_and(|kept| kept.seq >= seq)).await;
}

async fn restart_worker(operator: &Operator, pod: &Pod, worker: &Live) -> Report {
    pod.kill_worker();
    operator.until(pod, "that the worker is gone", |report| !report.serving).await;
    worker.start(pod);
    operator.until(pod, "serving", |report| report.serving).await
}

#[tokio::test(flavor = "multi_thread")]
async fn with_sync_a_crash_takes_nothing_that_was_answered() {
    let operator = Operator::new();
    // Without a choice a worker that numbers its answers has Sync.
    for class in [Some(CheckpointClass::Sync), None] {
        let worker = Live::counting();
        let pod = pod(class, NEVER, &worker);
        operator.start(&pod, 1).await;
        let mut answered = Vec::new();
        for round in 0..3 {
            for number in 0..4 {
                let word = format!("{round}-{number}");
                assert_eq!(tell(&operator, &pod, &word).await, 200);
                answered.push(word);
            }
            let report = restart_worker(&operator, &pod, &worker).await;
            assert_eq!(report.lost, None, "{report:#?}");
            assert_eq!(words(&operator, &pod).await, answered);
            let told = worker.told.lock().unwrap().clone();
            assert_eq!((&told["reason"], &told["mayMiss"]), (&"Crash".into(), &serde_json::Value::Null));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_capture_serves_many_answers() {
    let operator = Operator::new();
    let worker = Live { slow: Duration::from_millis(30), ..Live::counting() };
    let pod = pod(Some(CheckpointClass::Sync), NEVER, &worker);
    operator.start(&pod, 1).await;
    let before = worker.captures();
    let all = (0..40).map(|number| {
        let (operator, pod) = (&operator, &pod);
        async move { tell(operator, pod, &number.to_string()).await }
    });
    let statuses = futures::future::join_all(all).await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    assert!(worker.captures() - before < 20, "{} captures for 40 answers", worker.captures() - before);
    restart_worker(&operator, &pod, &worker).await;
    assert_eq!(words(&operator, &pod).await.len(), 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_whose_state_died_with_the_worker_is_not_given() {
    let operator = Operator::new();
    let worker = Live { slow: Duration::from_millis(500), ..Live::counting() };
    let pod = pod(Some(CheckpointClass::Sync), NEVER, &worker);
    operator.start(&pod, 1).await;
    assert_eq!(tell(&operator, &pod, "one").await, 200);
    let captures = worker.captures();
    let (status, ()) = tokio::join!(tell(&operator, &pod, "two"), async {
        while worker.captures() == captures {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        pod.kill_worker();
    });
    assert_eq!(status, 502, "its change was in the worker alone");
    let next = Live { slow: Duration::ZERO, ..worker.clone() };
    next.start(&pod);
    let report = operator.until(&pod, "serving", |report| report.serving).await;
    assert_eq!((words(&operator, &pod).await, report.lost), (vec!["one".to_owned()], None));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_a_state_that_died_with_the_worker() {
    let operator = Operator::new();
    let worker = Live::counting();
    let mut pod = Pod::new("a", 1);
    pod.config.checkpoint = Checkpoint { class: Some(CheckpointClass::Sync), period: NEVER, replicas: 0 };
    // No deadline helps.
    pod.config.hold.time = NEVER;
    pod.start_sidecar();
    worker.start(&pod);
    operator.start(&pod, 1).await;
    assert_eq!(tell(&operator, &pod, "one").await, 200);
    worker.hangs.store(true, Ordering::SeqCst);
    let captures = worker.captures();
    let cut = async {
        while worker.captures() == captures {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        pod.kill_worker();
        // Its sidecar is told of the death by another request, and nothing is captured from then on.
        let unanswered = tokio::time::timeout(SOON, tell(&operator, &pod, "three")).await;
        assert!(unanswered.is_err(), "{unanswered:?}");
    };
    let both = async { tokio::join!(tell(&operator, &pod, "two"), cut) };
    let (status, ()) = tokio::time::timeout(PATIENCE, both).await.expect("the answer waits for ever");
    assert_eq!(status, 502, "what came of it is not known");
    let state = operator.seal(&pod, 2).await;
    assert_eq!(state.seq, 1, "what was kept leaves");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_does_not_number_its_answers_is_captured_after_each_change() {
    let operator = Operator::new();
    let worker = Live { counts: false, ..Live::counting() };
    let pod = pod(Some(CheckpointClass::Sync), NEVER, &worker);
    operator.start(&pod, 1).await;
    for number in 1..=3 {
        assert_eq!(tell(&operator, &pod, &number.to_string()).await, 200);
        assert_eq!(worker.captures(), number);
        words(&operator, &pod).await;
        assert_eq!(worker.captures(), number, "a GET changes nothing");
    }
    let report = restart_worker(&operator, &pod, &worker).await;
    assert_eq!(
        (words(&operator, &pod).await, report.lost),
        (["1", "2", "3"].map(str::to_owned).into(), None)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn with_async_a_crash_takes_what_the_report_says() {
    let operator = Operator::new();
    let worker = Live::counting();
    let pod = pod(Some(CheckpointClass::Async), SOON, &worker);
    operator.start(&pod, 1).await;
    for word in ["one", "two"] {
        assert_eq!(tell(&operator, &pod, word).await, 200);
    }
    keeps(&operator, &pod, 2).await;
    let report = restart_worker(&operator, &pod, &worker).await;
    assert_eq!((words(&operator, &pod).await.len(), report.lost), (2, None), "everything was kept");
    // In a new life of the sidecar nobody knows what was answered before, until the next capture.
    pod.kill_worker();
    pod.kill_sidecar();
    pod.start_sidecar();
    worker.start(&pod);
    let report = operator.until(&pod, "serving", |report| report.serving).await;
    assert_eq!((words(&operator, &pod).await.len(), report.lost), (2, Some(Lost { from: 3 })));
    assert_eq!(worker.told.lock().unwrap()["mayMiss"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_at_rest_is_not_captured_again() {
    let operator = Operator::new();
    for counts in [true, false] {
        let worker = Live { counts, ..Live::counting() };
        let pod = pod(Some(CheckpointClass::Async), SOON, &worker);
        operator.start(&pod, 1).await;
        tell(&operator, &pod, "one").await;
        let counted = |report: &Report| report.checkpoint.is_some_and(|checkpoint| checkpoint.current);
        operator.until(&pod, "a checkpoint of everything", |r| counted(r) && kept(r).is_some()).await;
        let captures = worker.captures();
        tokio::time::sleep(SOON * 10).await;
        assert_eq!(worker.captures(), captures);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_captured_live_has_no_checkpoints_and_says_so() {
    let operator = Operator::new();
    for (class, live) in [(Some(CheckpointClass::None), true), (Some(CheckpointClass::Sync), false)] {
        let worker = Live { live, ..Live::counting() };
        let pod = pod(class, SOON, &worker);
        operator.start(&pod, 1).await;
        assert_eq!(tell(&operator, &pod, "one").await, 200);
        tokio::time::sleep(SOON * 5).await;
        let report = operator.report(&pod).await;
        assert_eq!((kept(&report), worker.captures()), (None, 0));
        let checkpoint = report.checkpoint.unwrap();
        assert_eq!((checkpoint.live, checkpoint.current), (Some(live), false));
        let report = restart_worker(&operator, &pod, &worker).await;
        assert_eq!(report.lost, Some(Lost { from: 1 }));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_die_in_either_order() {
    let operator = Operator::new();
    for order in ["worker first", "sidecar first", "worker first, and the sidecar comes back first"] {
        let worker = Live::counting();
        let pod = pod(Some(CheckpointClass::Sync), NEVER, &worker);
        operator.start(&pod, 1).await;
        for number in 1..=5 {
            assert_eq!(tell(&operator, &pod, &number.to_string()).await, 200);
        }
        match order {
            "sidecar first" => {
                pod.kill_sidecar();
                pod.kill_worker();
                worker.start(&pod);
                pod.start_sidecar();
            }
            "worker first" => {
                pod.kill_worker();
                pod.kill_sidecar();
                worker.start(&pod);
                pod.start_sidecar();
            }
            _ => {
                pod.kill_worker();
                pod.kill_sidecar();
                pod.start_sidecar();
                operator.worker(&pod, WorkerState::Unreachable).await;
                worker.start(&pod);
            }
        }
        let report = operator.until(&pod, "serving", |report| report.serving).await;
        assert_eq!((words(&operator, &pod).await.len(), report.lost), (5, None), "{order}");
        assert_eq!(tell(&operator, &pod, "6").await, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_does_not_wait_for_a_checkpoint() {
    let operator = Operator::new();
    let worker = Live { slow: Duration::from_secs(5), ..Live::counting() };
    let mut source = Pod::new("a", 1);
    source.config.checkpoint = Checkpoint { class: Some(CheckpointClass::Async), period: SOON, replicas: 0 };
    source.start_sidecar();
    worker.start(&source);
    operator.start(&source, 1).await;
    tell(&operator, &source, "one").await;
    while worker.captures() == 0 {
        tokio::time::sleep(SOON).await;
    }
    // The capture that is under way is cut off; the freeze asks for its own, which this worker is as slow about.
    let captures = worker.captures();
    let target = Pod::new("b", 2);
    target.start_sidecar();
    Live::counting().start(&target);
    let mut command = operator.freeze_command(&source, 2);
    command.state_query_timeout_milliseconds = 20_000;
    let report = operator.command(&source, processhub_protocol::wire::path::FREEZE, &command).await.unwrap();
    let Role::Frozen { state: Some(state), .. } = report.role else { panic!("{report:#?}") };
    assert_eq!(worker.captures(), captures + 1, "the freeze had a capture of its own");
    operator.worker(&target, WorkerState::Standby).await;
    operator.import(&target, &source, 2, &state).await.unwrap();
    let report = operator.activate(&target, 2, Some(state), Some(&source)).await.unwrap();
    assert!(report.serving, "{report:#?}");
    assert_eq!(words(&operator, &target).await, ["one"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_wait_for_their_state_are_given_before_a_freeze() {
    let operator = Operator::new();
    let worker = Live { slow: Duration::from_millis(200), ..Live::counting() };
    let pod = pod(Some(CheckpointClass::Sync), NEVER, &worker);
    operator.start(&pod, 1).await;
    let (status, state) = tokio::join!(tell(&operator, &pod, "one"), async {
        while worker.captures() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        operator.seal(&pod, 2).await
    });
    assert_eq!((status, state.seq), (200, 1));
    let report = operator.thaw(&pod, 3).await.unwrap();
    assert_eq!(kept(&report).map(|kept| kept.seq), Some(1));
    assert_eq!(tell(&operator, &pod, "two").await, 200);
    let report = restart_worker(&operator, &pod, &worker).await;
    assert_eq!((words(&operator, &pod).await.len(), report.lost), (2, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_workers_newest_checkpoint_is_what_moves() {
    let operator = Operator::new();
    let answered = 3;
    for class in [CheckpointClass::Sync, CheckpointClass::Async] {
        let worker = Live::counting();
        let source = pod(Some(class), Duration::from_millis(400), &worker);
        operator.start(&source, 1).await;
        keeps(&operator, &source, 0).await;
        for number in 0..answered {
            assert_eq!(tell(&operator, &source, &number.to_string()).await, 200);
        }
        source.kill_worker();
        let target = Pod::new("b", 2);
        target.start_sidecar();
        Live::counting().start(&target);
        operator.worker(&target, WorkerState::Standby).await;
        let report = operator.freeze(&source, 2).await.unwrap();
        let Role::Frozen { state: Some(state), .. } = report.role else { panic!("{report:#?}") };
        match class {
            CheckpointClass::Sync => assert_eq!((state.seq, report.lost), (answered, None)),
            // How far the checkpoints came is a matter of time; what they do not contain is said.
            _ if state.seq == answered => assert_eq!(report.lost, None),
            _ => assert_eq!(report.lost, Some(Lost { from: state.seq + 1 })),
        }
        operator.import(&target, &source, 2, &state).await.unwrap();
        let report = operator.activate(&target, 2, Some(state.clone()), Some(&source)).await.unwrap();
        assert!(report.serving, "{report:#?}");
        assert_eq!(words(&operator, &target).await.len() as u64, state.seq);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_started_anew_is_not_captured_before_it_has_its_state() {
    let operator = Operator::new();
    let worker = Live { counts: false, hasty: true, ..Live::counting() };
    let pod = pod(Some(CheckpointClass::Async), Duration::from_millis(200), &worker);
    operator.start(&pod, 1).await;
    tell(&operator, &pod, "one").await;
    let counted = |report: &Report| report.checkpoint.is_some_and(|checkpoint| checkpoint.current);
    operator.until(&pod, "a checkpoint of everything", |r| counted(r) && kept(r).is_some()).await;
    tell(&operator, &pod, "two").await;
    // Nobody asks it anything: the next checkpoint is what meets the new one.
    pod.kill_worker();
    worker.start(&pod);
    let begin = Instant::now();
    while worker.told.lock().unwrap()["reason"] != "Crash" {
        assert!(begin.elapsed() < PATIENCE, "it is not activated again");
        tokio::time::sleep(SOON).await;
    }
    let report = operator.until(&pod, "serving", |report| report.serving).await;
    let words = words(&operator, &pod).await;
    assert_eq!(words[0], "one", "what it begins with was taken for the process's state");
    assert!(words.len() == 2 || report.lost.is_some(), "{report:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_is_no_checkpoint_before_it_is_known_to_be_whole() {
    let operator = Operator::new();
    let worker = Live::counting();
    let pod = pod(Some(CheckpointClass::Async), SOON, &worker);
    operator.start(&pod, 1).await;
    tell(&operator, &pod, "one").await;
    keeps(&operator, &pod, 1).await;
    worker.hangs.store(true, Ordering::SeqCst);
    let captures = worker.captures();
    tell(&operator, &pod, "two").await;
    while worker.captures() == captures {
        tokio::time::sleep(SOON).await;
    }
    // All of it has arrived; whether that was all, the worker has not said.
    tokio::time::sleep(SOON * 10).await;
    pod.kill_sidecar();
    pod.kill_worker();
    worker.hangs.store(false, Ordering::SeqCst);
    worker.start(&pod);
    pod.start_sidecar();
    let report = operator.until(&pod, "serving", |report| report.serving).await;
    assert_eq!((words(&operator, &pod).await.len(), report.lost), (1, Some(Lost { from: 2 })));
}

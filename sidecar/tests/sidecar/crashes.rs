//! Workers, each a process of its own, that are killed again and again under load.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use processhub_protocol::id::Seq;
use processhub_protocol::ledger::Lost;
use processhub_protocol::wire::CheckpointClass;
use processhub_sidecar::config::Checkpoint;

use crate::checkpoints::{NEVER, SOON, ask, words};
use crate::support::live::start_process;
use crate::support::operator::Operator;
use crate::support::{PATIENCE, Pod};

/// What a client was told: its word, and the place that it got.
type Told = Vec<(String, Seq)>;

/// Ways in which a program is ended from outside. Those that a test runner may have had ignored are not among them, nor
/// those of which Rust's run time takes the first for a fault of its own.
const SIGNALS: [&str; 6] = ["-KILL", "-TERM", "-ABRT", "-FPE", "-ILL", "-USR1"];
const CLIENTS: usize = 4;

/// Clients that never repeat a word, while the worker, a process of its own, is killed again and again, each time after
/// some answers, and is started again at once. What they were told, what is there in the end, and what the sidecar says is
/// missing.
async fn under_fire(operator: &Operator, pod: &Pod, kills: usize) -> (Told, Vec<String>, Option<Lost>) {
    let mut worker = start_process(pod);
    operator.start(pod, 1).await;
    let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let clients = (0..CLIENTS).map(|client| {
        let (stop, answered) = (&stop, &answered);
        async move {
            let mut told = Told::new();
            for number in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let word = format!("{client}-{number}");
                let (status, place) = ask(operator, pod, Method::POST, &format!("/told/{word}")).await;
                match status {
                    200 => {
                        told.push((word, place.parse().unwrap()));
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                    // Its change may be there or not.
                    502 => assert!(place.contains("outcome_unknown"), "{place}"),
                    _ => panic!("{word}: {status} {place}"),
                }
            }
            told
        }
    });
    let fire = async {
        for kill in 0..=kills {
            // More than its predecessor can have given.
            let wanted = answered.load(Ordering::Relaxed) + CLIENTS + 1 + kill % 5;
            let begin = Instant::now();
            while answered.load(Ordering::Relaxed) < wanted {
                assert!(begin.elapsed() < PATIENCE, "nothing is answered after {kill} crashes");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            if kill < kills {
                worker.end(SIGNALS[kill % SIGNALS.len()]);
                worker = start_process(pod);
            }
        }
        stop.store(true, Ordering::Relaxed);
        worker
    };
    let (told, _worker) = tokio::join!(futures::future::join_all(clients), fire);
    (told.concat(), words(operator, pod).await, operator.report(pod).await.lost)
}

fn idle(class: CheckpointClass, period: Duration) -> Pod {
    let mut pod = Pod::new("a", 1);
    pod.config.checkpoint = Checkpoint { class: Some(class), period, replicas: 0 };
    pod.start_sidecar();
    pod
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_crashes_under_load_take_nothing_with_sync() {
    let operator = Operator::new();
    let pod = idle(CheckpointClass::Sync, NEVER);
    let (told, words, lost) = under_fire(&operator, &pod, 50).await;
    assert_eq!(lost, None);
    for (word, place) in told {
        // Also in its place: what was answered was never taken back.
        assert_eq!(words.get(usize::try_from(place).unwrap() - 1), Some(&word));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_crashes_under_load_take_only_what_is_said_with_async() {
    let operator = Operator::new();
    let pod = idle(CheckpointClass::Async, SOON);
    let (told, words, lost) = under_fire(&operator, &pod, 50).await;
    for (word, place) in told {
        if words.get(usize::try_from(place).unwrap() - 1) != Some(&word) {
            assert!(
                lost.is_some_and(|lost| lost.from <= place),
                "{word} at {place} is missing; said: {lost:?}"
            );
        }
    }
}

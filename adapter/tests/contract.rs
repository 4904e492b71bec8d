//! Applications that know nothing of the contract keep it, with the adapter in front of them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::fs;

use common::{Pod, State, plan, until};
use processhub_adapter::core::Core;
use serde_json::json;

/// Writes a line at each start and one at its end, and does nothing else.
const SERVER: &str = "echo start >>$ADAPTER_DIRECTORY/log; trap 'echo stop >>$ADAPTER_DIRECTORY/log; exit 0' TERM; \
                      while :; do sleep 0.02; done";
const DIRECTORY: [&str; 8] =
    ["--directory", "{}/data", "--ready", "grep -q start {}/data/log", "--", "sh", "-c", SERVER];
/// State in a file, with commands that take and replace it.
const DUMP: &str = "cat {}/state";
const LOAD: &str = "cat >{}/state";

fn commands(more: &[&'static str]) -> Vec<&'static str> {
    let mut options = vec!["--dump", DUMP, "--load", LOAD, "--ready", "true"];
    options.extend(more);
    options
}

#[tokio::test]
async fn a_directory_moves_with_what_its_application_wrote() {
    let source = Pod::start(&DIRECTORY).await;
    assert_eq!(source.text("data/log"), "", "it is not started in Standby");
    source.begin(1).await;
    fs::write(source.path("data/more"), vec![5; 3 << 20]).unwrap();
    let state = source.take(2).await;
    assert_eq!(source.text("data/log"), "start\nstop\n", "nothing changes the files any more");
    let target = Pod::start(&DIRECTORY).await;
    target.apply(3, &state).await;
    target.go_on(3).await;
    until("the target's start", || target.text("data/log") == "start\nstop\nstart\n").await;
    assert_eq!(fs::read(target.path("data/more")).unwrap(), vec![5; 3 << 20]);
    assert_eq!(target.core.info().seq, state.seq);
    target.core.end().await;
    assert!(target.text("data/log").ends_with("start\nstop\n"), "it is asked to end");
}

#[tokio::test]
async fn a_move_that_is_called_off_lets_the_application_go_on() {
    let pod = Pod::start(&DIRECTORY).await;
    pod.begin(1).await;
    pod.take(2).await;
    pod.done("/v1/resume", json!({"epoch": 3})).await;
    until("the next start", || pod.text("data/log") == "start\nstop\nstart\n").await;
    assert!(!pod.refused(409, "/v1/capture", json!({"epoch": 3, "purpose": "Handover"})).await.is_empty());
    pod.core.end().await;
}

#[tokio::test]
async fn stale_and_repeated_commands_are_told_apart() {
    let pod = Pod::start(&DIRECTORY).await;
    pod.begin(5).await;
    pod.begin(5).await;
    assert!(!pod.refused(409, "/v1/suspend", json!({"epoch": 4, "reason": "Handover"})).await.is_empty());
    pod.suspend(6).await;
    pod.suspend(6).await;
    let (_, first) = pod.captured(6).await;
    let (_, again) = pod.captured(6).await;
    assert_eq!(first, again);
    let before = pod.core.info();
    pod.refused(409, "/v1/activate", json!({"epoch": 7, "reason": "Handover", "initial": false})).await;
    assert_eq!(pod.core.info().state, before.state);
    pod.core.end().await;
}

#[tokio::test]
async fn a_file_that_changes_under_a_suspended_application_ends_the_capture() {
    let pod = Pod::start(&DIRECTORY).await;
    pod.begin(1).await;
    pod.suspend(2).await;
    let (_, capture) = pod.captured(2).await;
    fs::write(pod.path("data/log"), "somebody else writes here").unwrap();
    let (_, status, answer) = pod.read(&capture).await;
    assert_eq!(status, 500);
    assert!(answer["message"].as_str().unwrap().contains("log changed while it was captured"), "{answer}");
}

#[tokio::test]
async fn commands_carry_a_state_from_one_application_to_the_other() {
    let quiet = ["--quiesce", "touch {}/still", "--resume", "rm {}/still", "--", "sleep", "600"];
    let source = Pod::start(&commands(&quiet)).await;
    fs::write(source.path("state"), "").unwrap();
    source.begin(1).await;
    fs::write(source.path("state"), "all of it").unwrap();
    let state = source.take(2).await;
    assert_eq!((state.part.as_str(), state.bytes.as_slice()), ("dump", b"all of it".as_slice()));
    assert!(source.path("still").exists());
    let target = Pod::start(&commands(&quiet)).await;
    target.apply(3, &state).await;
    target.apply(3, &state).await;
    target.go_on(3).await;
    assert_eq!(target.text("state"), "all of it");
    source.done("/v1/resume", json!({"epoch": 4})).await;
    assert!(!source.path("still").exists());
    source.core.end().await;
    target.core.end().await;
}

#[tokio::test]
async fn a_state_of_no_bytes_is_a_state() {
    let pod = Pod::start(&commands(&["--", "sleep", "600"])).await;
    fs::write(pod.path("state"), "old").unwrap();
    pod.apply(1, &State { part: "dump".into(), bytes: Vec::new(), seq: 4 }).await;
    pod.go_on(1).await;
    assert_eq!(fs::read(pod.path("state")).unwrap(), b"");
    pod.core.end().await;
}

#[tokio::test]
async fn a_dump_that_fails_is_shown_and_the_application_goes_on() {
    for (dump, limit, status, words) in [
        ("echo half; echo disk is gone >&2; exit 3", "4500", 500, "--dump ended with exit code 3"),
        ("no-such-tool", "4500", 500, "exit code 127 (no such program)"),
        ("sleep 600", "200", 500, "--dump was not done within 200 ms"),
        ("cat /dev/zero", "4500", 413, "--dump wrote more than --max-state-bytes 1000"),
    ] {
        let options = [
            "--dump",
            dump,
            "--load",
            "cat",
            "--ready",
            "true",
            "--time-limit",
            limit,
            "--max-state-bytes",
            "1000",
        ];
        let pod = Pod::start(&[&options[..], &["--", "sleep", "600"]].concat()).await;
        pod.begin(1).await;
        pod.suspend(2).await;
        let (seen, answer) = pod.captured(2).await;
        let message = answer["message"].as_str().unwrap();
        assert!(seen == status && message.contains(words), "{dump}: {seen} {message}");
        pod.done("/v1/resume", json!({"epoch": 3})).await;
        pod.core.end().await;
    }
}

#[tokio::test]
async fn a_quiesce_that_fails_leaves_the_worker_active() {
    let quiet = ["--quiesce", "echo not now >&2; exit 1", "--resume", "touch {}/woken", "--", "sleep", "600"];
    let pod = Pod::start(&commands(&quiet)).await;
    pod.begin(1).await;
    let message = pod.refused(500, "/v1/suspend", json!({"epoch": 2, "reason": "Handover"})).await;
    assert!(
        message.contains("--quiesce ended with exit code 1") && message.ends_with("not now"),
        "{message}"
    );
    assert_eq!(pod.core.state().as_str(), "Active");
    assert!(pod.path("woken").exists(), "what may be half-way still is woken");
    pod.core.end().await;
}

#[tokio::test]
async fn a_load_that_fails_is_a_refusal_and_the_next_meets_a_fresh_application() {
    let load =
        "read first; echo $first >>{}/loads; [ $first = good ] || { echo cannot read $first >&2; exit 2; }";
    let options = [
        "--dump",
        "true",
        "--load",
        load,
        "--ready",
        "true",
        "--",
        "sh",
        "-c",
        "echo run >>{}/runs; exec sleep 600",
    ];
    let pod = Pod::start(&options).await;
    let state = |text: &str| State { part: "dump".into(), bytes: text.as_bytes().to_vec(), seq: 1 };
    let (status, answer) = pod.give(1, &state("bad\n"), "Handover").await;
    let message = answer["message"].as_str().unwrap();
    assert!(status == 422 && message.contains("--load ended with exit code 2"), "{status} {message}");
    assert!(message.ends_with("cannot read bad"), "{message}");
    pod.refused(409, "/v1/activate", json!({"epoch": 1, "reason": "Handover", "initial": false})).await;
    pod.apply(2, &state("good\n")).await;
    pod.go_on(2).await;
    assert_eq!(pod.text("loads"), "bad\ngood\n");
    until("the second run", || pod.text("runs") == "run\nrun\n").await;
    pod.core.end().await;
}

#[tokio::test]
async fn states_of_other_workers_versions_and_sizes_are_refused() {
    let options =
        [&["--vsn", "2", "--accepts-from", "1", "--max-state-bytes", "10"][..], &DIRECTORY[..]].concat();
    let pod = Pod::start(&options).await;
    let give = async |part: &str, bytes: Vec<u8>| {
        pod.give(1, &State { part: part.into(), bytes, seq: 1 }, "Handover").await
    };
    let (status, answer) = give("dump", vec![1]).await;
    assert!(
        status == 422 && answer["message"].as_str().unwrap().contains("--directory, or --dump"),
        "{answer}"
    );
    let (status, answer) = give("directory", vec![1; 11]).await;
    assert!(
        status == 413 && answer["message"].as_str().unwrap().contains("--max-state-bytes 10"),
        "{answer}"
    );
    // The version of this state is the empty one.
    let (status, answer) = give("directory", vec![1]).await;
    assert!(status == 422 && answer["message"].as_str().unwrap().contains("--accepts-from"), "{answer}");
    let pod = Pod::start(&DIRECTORY).await;
    let garbage = State { part: "directory".into(), bytes: vec![1; 2000], seq: 1 };
    let (status, answer) = pod.give(1, &garbage, "Handover").await;
    assert!(status == 422 && answer["message"].as_str().unwrap().contains("is not whole"), "{answer}");
}

#[tokio::test]
async fn two_states_are_not_merged() {
    let pod = Pod::start(&commands(&[])).await;
    let state = State { part: "dump".into(), bytes: b"mine".to_vec(), seq: 1 };
    pod.apply(1, &state).await;
    let (status, answer) = pod.give(1, &State { bytes: b"other".to_vec(), seq: 2, ..state }, "Merge").await;
    assert!(status == 422 && answer["message"].as_str().unwrap().contains("cannot merge"), "{answer}");
    assert_eq!(pod.text("state"), "mine");
}

#[tokio::test]
async fn what_the_plan_needs_has_to_be_there() {
    let folder = tempfile::tempdir().unwrap();
    let listen = "127.0.0.1:9".parse().unwrap();
    for (options, words) in [
        (&["--directory", "{}/none", "--", "sleep", "1"][..], "--directory"),
        (&["--dump", "d", "--load", "l", "--", "no-such-server"][..], "`no-such-server` is not there"),
        (&["--dump", "d", "--load", "l", "--", "/etc/passwd"][..], "may not be run"),
    ] {
        let error = Core::open(plan(folder.path(), options), listen).await.err().unwrap();
        assert!(format!("{error:#}").contains(words), "{error:#}");
    }
}

#[tokio::test]
async fn an_application_that_does_not_serve_is_told_so() {
    let options =
        ["--directory", "{}/data", "--ready-time-limit", "300", "--ready", "exit 4", "--", "sleep", "600"];
    let pod = Pod::start(&options).await;
    let start = json!({"epoch": 1, "reason": "Start", "initial": true});
    let message = pod.refused(500, "/v1/activate", start.clone()).await;
    assert!(message.contains("did not serve within 300 ms") && message.contains("exit code 4"), "{message}");
    let pod = Pod::start(&["--directory", "{}/data", "--ready", "false", "--", "sh", "-c", "exit 7"]).await;
    let message = pod.refused(500, "/v1/activate", start).await;
    assert!(message.contains("ended with exit code 7 before it served"), "{message}");
}

#[tokio::test]
async fn a_crash_leaves_the_directory_and_takes_what_was_in_memory() {
    let mut pod = Pod::start(&DIRECTORY).await;
    pod.begin(1).await;
    fs::write(pod.path("data/written"), "after the start").unwrap();
    let old = State { part: "directory".into(), bytes: Vec::new(), seq: 1 };
    // The container restarts, and the sidecar gives back what it has kept: the directory is newer.
    pod = pod.restart(&DIRECTORY).await;
    let (status, answer) = pod.give(2, &old, "Crash").await;
    assert_eq!(status, 204, "{answer}");
    pod.go_on(2).await;
    assert_eq!(pod.text("data/written"), "after the start");
    // A hand-over replaces it all the same.
    pod = pod.restart(&DIRECTORY).await;
    let (status, answer) = pod.give(3, &old, "Handover").await;
    assert!(status == 422, "an archive of no bytes is none: {answer}");

    let mut pod = Pod::start(&commands(&["--", "sh", "-c", "sleep 0.1; exit 5"])).await;
    pod.begin(1).await;
    let end = pod.ends.recv().await.unwrap();
    let error = pod.core.ended(end).await.unwrap_err().to_string();
    assert!(error.contains("exit code 5, and its state with it"), "{error}");
}

#[tokio::test]
async fn an_application_that_ends_by_itself_is_started_again_on_its_directory_a_few_times() {
    let server = "echo start >>$ADAPTER_DIRECTORY/log; sleep 0.3; exit 1";
    let mut pod = Pod::start(&["--directory", "{}/data", "--ready", "true", "--", "sh", "-c", server]).await;
    pod.begin(1).await;
    for runs in 2..=4 {
        let end = pod.ends.recv().await.unwrap();
        pod.core.ended(end).await.unwrap();
        until("a start", || pod.text("data/log").lines().count() == runs).await;
    }
    let end = pod.ends.recv().await.unwrap();
    let error = pod.core.ended(end).await.unwrap_err().to_string();
    assert!(error.contains("3 times before"), "{error}");
}

//! `processhub-sidecar verify` on the counter: everything is right, and each fault is found and named.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use processhub_sidecar::verify::{Arguments, ClientCall, Report, Rule, Verdict, run};
use tokio::sync::Semaphore;

/// Verifies the counter with these faults.
async fn verify(faults: &str) -> Report {
    verify_with(&[("COUNTER_FAULTS", faults)], |_| {}).await
}

async fn verify_with(environment: &[(&str, &str)], change: impl FnOnce(&mut Arguments)) -> Report {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [_, _, a, b] = std::process::id().to_be_bytes();
    let host = [127, 192 | (a >> 2), b, NEXT.fetch_add(1, Ordering::SeqCst)];
    let mut arguments = Arguments::new(vec![env!("CARGO_BIN_EXE_counter").to_owned()]);
    arguments.control = SocketAddr::from((host, 9700));
    arguments.listen = SocketAddr::from((host, 8080));
    arguments.change = Some(ClientCall::parse(r#"POST /increment {"client": "v", "number": 1}"#).unwrap());
    arguments.read = Some(ClientCall::parse("GET /audit").unwrap());
    arguments.environment = environment
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(n, v)| ((*n).into(), (*v).into()))
        .collect();
    arguments.code_change = Some("2".into());
    for (name, value) in [("STATE_SIZE", "100000"), ("COUNTER_BECOMES", "2"), ("COUNTER_CONSENT", "ready")] {
        arguments.environment.push((name.into(), value.into()));
    }
    change(&mut arguments);
    run(arguments).await.unwrap()
}

/// What is wrong, in order.
fn wrong(report: &Report) -> Vec<&'static str> {
    let wrong = report.findings.iter().filter(|finding| matches!(finding.verdict, Verdict::Wrong { .. }));
    wrong.map(|finding| finding.what).collect()
}

#[tokio::test]
async fn the_counter_keeps_every_rule() {
    let report = verify("").await;
    assert!(report.is_right(), "{report}");
    assert!(
        report.findings.iter().all(|finding| finding.verdict == Verdict::Right),
        "nothing is skipped: {report}"
    );
    assert!(report.findings.len() > 60, "{}", report.findings.len());
}

#[tokio::test]
async fn without_clients_requests_less_is_checked_and_it_says_so() {
    let report = verify_with(&[], |arguments| {
        arguments.change = None;
        arguments.read = None;
    })
    .await;
    assert!(report.is_right(), "{report}");
    assert!(report.to_string().contains("give --change"), "{report}");
}

#[tokio::test]
async fn a_worker_without_the_contract_is_told_what_that_means() {
    let short = |arguments: &mut Arguments| arguments.patience = Duration::from_millis(300);
    let report = verify_with(&[("COUNTER_NO_CONTRACT", "true")], short).await;
    assert_eq!(wrong(&report), ["the worker answers GET /v1/info"]);
    assert!(report.to_string().contains("moves without state"), "{report}");
}

#[tokio::test]
async fn a_program_that_is_not_there_cannot_be_verified() {
    let error = run(Arguments::new(vec!["./no-such-worker".into()])).await.unwrap_err();
    assert!(error.to_string().contains("./no-such-worker"), "{error}");
}

#[tokio::test]
async fn a_program_that_ends_at_once_is_told_so() {
    let report = verify_with(&[], |arguments| arguments.command.push("--no-such-option".into())).await;
    assert!(report.to_string().contains("the worker ended with exit status"), "{report}");
}

/// Each fault, the rule that it breaks, and the finding that names it.
const FAULTS: [(&str, Rule, &str); 40] = [
    ("mangle=info:other-version", Rule::Info, "GET /v1/info is version 1 and within its bounds"),
    ("mangle=info:not-json", Rule::Info, "GET /v1/info is version 1 and within its bounds"),
    ("mangle=info:too-large", Rule::Info, "the worker answers GET /v1/info"),
    ("mangle=info:cut-short", Rule::Info, "the worker answers GET /v1/info"),
    ("mangle=info:same-instance", Rule::Restart, "a restarted worker is another instance"),
    ("mangle=suspend:always-yes", Rule::States, "suspend is refused in Standby"),
    ("mangle=suspend:pretended", Rule::Freeze, "after suspend's 204 no request of a client succeeds"),
    ("mangle=suspend:missing", Rule::States, "suspend is 204"),
    ("mangle=suspend:once", Rule::Idempotence, "suspend again is 204"),
    ("mangle=resume:always-yes", Rule::Epoch, "resume with a lower epoch is refused"),
    ("mangle=resume:not-json", Rule::States, "resume is 204"),
    ("mangle=resume:once", Rule::Idempotence, "resume again is 204"),
    ("mangle=resume:strict", Rule::Errors, "a field that is not known is ignored"),
    ("mangle=activate:always-yes", Rule::Epoch, "activate with a lower epoch is refused"),
    ("mangle=activate:pretended", Rule::States, "an active worker says so, with the epoch"),
    ("mangle=activate:once", Rule::Idempotence, "activate again is 204"),
    (
        "mangle=activate:no-may-miss",
        Rule::Restart,
        "a worker that comes back after a crash is activated with mayMiss",
    ),
    ("mangle=capture:too-large", Rule::Time, "every call is answered in time and to the end"),
    ("mangle=capture:not-json", Rule::Parts, "capture names its parts"),
    ("mangle=capture:other-since", Rule::PreCopy, "a delta is on the number that was asked for"),
    ("mangle=checkpoint:wrong-state", Rule::PreCopy, "a worker that says Live is captured while it serves"),
    ("mangle=checkpoint:unchanged", Rule::Sync, "a changed state is not called unchanged"),
    ("mangle=read:cut-short", Rule::Time, "every call is answered in time and to the end"),
    ("mangle=read:not-json", Rule::Parts, "each part reads the same twice and is as long as was said"),
    ("mangle=read:fickle", Rule::Parts, "a live capture stays as it was while the state changes"),
    ("mangle=put:always-yes", Rule::Parts, "a slice with a gap before it is told where to go on"),
    ("mangle=apply:always-yes", Rule::Errors, "a state that cannot be read is refused with 422"),
    ("mangle=apply:always-yes", Rule::PreCopy, "a delta on another state is refused"),
    ("mangle=apply:once", Rule::Idempotence, "a delta that comes again is 204"),
    ("mangle=apply:delta-pretended", Rule::PreCopy, "base and delta make the state that clients saw"),
    ("number=ahead", Rule::Sync, "info has at least the number of every answer"),
    ("number=stuck", Rule::Sync, "each change has a higher number than the one before"),
    ("number=text", Rule::Sync, "ProcessHub-Seq is the number of a state"),
    ("crash=hangup", Rule::Caller, "a caller that goes away in the middle of a call changes nothing"),
    ("mangle=consent:missing", Rule::Consent, "consent is answered Ready or Defer"),
    ("mangle=consent:not-json", Rule::Consent, "consent is answered Ready or Defer"),
    (
        "mangle=code-change:always-yes",
        Rule::CodeChange,
        "a change to code that is not there is refused with 422",
    ),
    ("mangle=code-change:pretended", Rule::CodeChange, "after a code change the worker is the other version"),
    ("refuse=code-change", Rule::CodeChange, "after a code change the worker is the other version"),
    ("refuse=import", Rule::Parts, "apply of its own state is 204"),
];

#[test]
fn every_rule_has_a_wrong_worker() {
    for rule in Rule::ALL {
        assert!(FAULTS.iter().any(|(_, broken, _)| *broken == rule), "no fault breaks {rule:?}: add one");
    }
}

#[tokio::test]
async fn each_fault_is_found_and_comes_with_its_remedy() {
    // As many workers at a time as a small machine starts in time, with patience for a busy one.
    let turns = Arc::new(Semaphore::new(8));
    let patient = |arguments: &mut Arguments| arguments.patience = Duration::from_secs(20);
    let mut runs = tokio::task::JoinSet::new();
    for (fault, rule, what) in FAULTS {
        let turns = Arc::clone(&turns);
        runs.spawn(async move {
            let _turn = turns.acquire_owned().await.unwrap();
            let mut report = verify_with(&[("COUNTER_FAULTS", fault)], patient).await;
            // The second that GET /v1/info has is real: a machine that is too busy for it says nothing of the fault.
            for _ in 0..3 {
                if !report.to_string().contains("no answer within 1000 ms") {
                    break;
                }
                report = verify_with(&[("COUNTER_FAULTS", fault)], patient).await;
            }
            (fault, rule, what, report)
        });
    }
    while let Some(run) = runs.join_next().await {
        let (fault, rule, what, report) = run.unwrap();
        let found = report.findings.iter().find(|finding| finding.what == what && finding.rule == rule);
        let wrong = found.is_some_and(|finding| matches!(finding.verdict, Verdict::Wrong { .. }));
        assert!(wrong, "{fault} is not `{what}`:\n{report}");
        assert!(!report.is_right() && report.to_string().contains("mend:"), "{report}");
    }
}

#[tokio::test]
async fn a_worker_that_is_too_slow_or_dies_ends_its_group_of_checks_only() {
    let short = |arguments: &mut Arguments| arguments.patience = Duration::from_millis(1500);
    let report = verify_with(&[("COUNTER_FAULTS", "hang=capture:60000")], short).await;
    assert!(wrong(&report).contains(&"every call is answered in time and to the end"), "{report}");
    let report = verify("crash=capture").await;
    assert!(wrong(&report).contains(&"every call is answered in time and to the end"), "{report}");
    assert!(!wrong(&report).contains(&"suspend is 204"), "{report}");
}

#[tokio::test]
async fn a_worker_without_a_state_moves_without() {
    let report = verify("mangle=capture:missing").await;
    assert!(report.is_right(), "{report}");
    assert!(report.to_string().contains("this worker has none"), "{report}");
}

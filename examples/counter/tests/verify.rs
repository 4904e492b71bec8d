//! `processhub-sidecar verify` on the counter: everything is right, and each fault is found and named.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use processhub_sidecar::verify::{Arguments, ClientCall, Report, Verdict, run};

/// Verifies the counter with these faults.
async fn verify(faults: &str) -> Report {
    verify_with(&[("COUNTER_FAULTS", faults)], |_| {}).await
}

async fn verify_with(environment: &[(&str, &str)], change: impl FnOnce(&mut Arguments)) -> Report {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [_, _, a, b] = std::process::id().to_be_bytes();
    let host = [127, 192 | (a >> 2), b, NEXT.fetch_add(1, Ordering::SeqCst)];
    let call = |method: &str, path: &str, body: &str| ClientCall {
        method: method.into(),
        path: path.into(),
        body: body.into(),
    };
    let mut arguments = Arguments::new(vec![env!("CARGO_BIN_EXE_counter").to_owned()]);
    arguments.control = SocketAddr::from((host, 9700));
    arguments.listen = SocketAddr::from((host, 8080));
    arguments.change = Some(call("POST", "/increment", r#"{"client": "v", "number": 1}"#));
    arguments.read = Some(call("GET", "/audit", ""));
    arguments.environment = environment
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(n, v)| ((*n).into(), (*v).into()))
        .collect();
    arguments.environment.push(("STATE_SIZE".into(), "100000".into()));
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
    assert!(report.findings.len() > 40, "{}", report.findings.len());
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

/// Each fault, and a finding that names it.
const FAULTS: [(&str, &str); 18] = [
    ("mangle=info:other-version", "GET /v1/info is version 1 and within its bounds"),
    ("mangle=info:not-json", "GET /v1/info is version 1 and within its bounds"),
    ("mangle=info:too-large", "the worker answers GET /v1/info"),
    ("mangle=info:cut-short", "the worker answers GET /v1/info"),
    ("mangle=suspend:always-yes", "suspend is refused in Standby"),
    ("mangle=suspend:pretended", "after suspend's 204 no request of a client succeeds"),
    ("mangle=suspend:missing", "suspend is 204"),
    ("mangle=resume:always-yes", "resume with a lower epoch is refused"),
    ("mangle=resume:not-json", "resume is 204"),
    ("mangle=activate:always-yes", "activate with a lower epoch is refused"),
    ("mangle=activate:pretended", "an active worker says so, with the epoch"),
    ("mangle=capture:too-large", "every call is answered in time and to the end"),
    ("mangle=capture:not-json", "capture names its parts"),
    ("mangle=read:cut-short", "every call is answered in time and to the end"),
    ("mangle=read:not-json", "each part reads the same twice and is as long as was said"),
    ("mangle=put:always-yes", "a slice with a gap before it is told where to go on"),
    ("mangle=apply:always-yes", "a state that cannot be read is refused with 422"),
    ("refuse=import", "apply of its own state is 204"),
];

#[tokio::test]
async fn each_fault_is_found_and_comes_with_its_remedy() {
    let mut runs = tokio::task::JoinSet::new();
    for (fault, what) in FAULTS {
        runs.spawn(async move { (fault, what, verify(fault).await) });
    }
    while let Some(run) = runs.join_next().await {
        let (fault, what, report) = run.unwrap();
        assert!(wrong(&report).contains(&what), "{fault} is not `{what}`:\n{report}");
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

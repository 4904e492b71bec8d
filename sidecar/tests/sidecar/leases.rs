//! What an owner does that serves by lease.

use std::time::Duration;

use http::Method;
use processhub_protocol::fence::Role;
use processhub_protocol::id::Epoch;
use processhub_protocol::lease;
use processhub_protocol::wire::{RefusalCode, Renew, path};

use crate::checkpoints::ask;
use crate::support::Pod;
use crate::support::live::Live;
use crate::support::operator::Operator;

fn leased(worker: &Live) -> Pod {
    let mut pod = Pod::new("a", 1);
    pod.config.leased = true;
    pod.start_sidecar();
    worker.start(&pod);
    pod
}

async fn tell(operator: &Operator, pod: &Pod, word: &str) -> u16 {
    ask(operator, pod, Method::POST, &format!("/told/{word}")).await.0
}

/// Whether a request gets no answer for now.
async fn held(operator: &Operator, pod: &Pod) -> bool {
    tokio::time::timeout(Duration::from_millis(100), tell(operator, pod, "held")).await.is_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_holds_its_requests_when_its_lease_has_ended() {
    let operator = Operator::new();
    let pod = leased(&Live::counting());
    operator.start(&pod, 1).await;
    let report = operator.report(&pod).await;
    assert!(
        report.lease.is_some_and(|lease| lease.left_milliseconds > 0),
        "an activation gives the first one: {report:#?}"
    );
    assert_eq!(tell(&operator, &pod, "one").await, 200);
    pod.time_passes(lease::DURATION);
    let report = operator.until(&pod, "held", |report| !report.serving).await;
    assert_eq!(report.lease.map(|lease| lease.left_milliseconds), Some(0));
    assert!(matches!(report.role, Role::Active { .. }), "it is the owner all the same");
    let (status, ()) = tokio::join!(tell(&operator, &pod, "two"), async {
        assert!(held(&operator, &pod).await);
        assert!(operator.renew(&pod, 1).await.unwrap().serving);
    });
    assert_eq!(status, 200, "what waited goes on with the next lease");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_renewed_does_not_end() {
    let operator = Operator::new();
    let pod = leased(&Live::counting());
    operator.start(&pod, 1).await;
    for word in 0..5 {
        pod.time_passes(lease::RENEWAL);
        let report = operator.renew(&pod, 1).await.unwrap();
        assert!(report.lease.is_some_and(|lease| lease.left_milliseconds > lease::DURATION - lease::RENEWAL));
        assert_eq!(tell(&operator, &pod, &word.to_string()).await, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_flight_when_the_lease_ends_is_not_answered() {
    let operator = Operator::new();
    let worker = Live { slow: Duration::from_millis(400), ..Live::counting() };
    let mut pod = Pod::new("a", 1);
    pod.config.leased = true;
    // Its answers wait for captures, which are slow.
    pod.config.checkpoint.class = Some(processhub_protocol::wire::CheckpointClass::Sync);
    pod.config.checkpoint.period = crate::checkpoints::NEVER;
    pod.start_sidecar();
    worker.start(&pod);
    operator.start(&pod, 1).await;
    let (status, ()) = tokio::join!(tell(&operator, &pod, "one"), async {
        while worker.captures() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        pod.time_passes(lease::DURATION);
    });
    assert_eq!(status, 502, "somebody else may have acknowledged since");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_fresh_grant_to_the_owner_renews() {
    let operator = Operator::new();
    let pod = leased(&Live::counting());
    let standby = operator.renew(&pod, 1).await.unwrap_err();
    assert_eq!(standby.code, RefusalCode::WrongRole);
    operator.start(&pod, 1).await;
    let other = operator.renew(&pod, 2).await.unwrap_err();
    assert_eq!(other.code, RefusalCode::WrongRole, "it serves at another epoch");
    let late = Renew { to: pod.addressee(), epoch: Epoch(1), grant: operator.grant(&pod).await };
    pod.time_passes(lease::DURATION);
    let refused = operator.command(&pod, path::RENEW, &late).await.unwrap_err();
    assert_eq!(refused.code, RefusalCode::StaleGrant);
    operator.until(&pod, "held", |report| !report.serving).await;
    assert!(operator.renew(&pod, 1).await.unwrap().serving);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_that_starts_anew_holds_no_lease() {
    let operator = Operator::new();
    let pod = leased(&Live::counting());
    operator.start(&pod, 1).await;
    pod.kill_sidecar();
    pod.start_sidecar();
    let report = operator.report(&pod).await;
    assert_eq!(report.lease.map(|lease| lease.left_milliseconds), Some(0));
    assert!(held(&operator, &pod).await);
    operator.renew(&pod, 1).await.unwrap();
    assert_eq!(tell(&operator, &pod, "one").await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thaw_gives_a_lease_too() {
    let operator = Operator::new();
    let pod = leased(&Live::counting());
    operator.start(&pod, 1).await;
    operator.seal(&pod, 2).await;
    pod.time_passes(lease::DURATION);
    assert!(operator.thaw(&pod, 3).await.unwrap().serving);
    assert_eq!(tell(&operator, &pod, "one").await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_serves_without_a_lease_needs_none() {
    let operator = Operator::new();
    let pod = Pod::new("a", 1);
    pod.start_sidecar();
    Live::counting().start(&pod);
    operator.start(&pod, 1).await;
    assert_eq!(operator.report(&pod).await.lease, None);
    pod.time_passes(10 * lease::DURATION);
    assert_eq!(tell(&operator, &pod, "one").await, 200);
}

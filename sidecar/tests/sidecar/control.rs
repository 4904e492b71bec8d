//! The control endpoints: who may call them, what is refused, what is joined.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use processhub_protocol::fence::Role;
use processhub_protocol::id::{Epoch, ProcessUid};
use processhub_protocol::wire::{
    Addressee, CommandKind, Freeze, LetGo, Refusal, RefusalCode, TOKEN_HEADER, WorkerState, path,
};

use crate::support::load::{audit, increment};
use crate::support::operator::{Operator, parse};
use crate::support::{PATIENCE, Pod};

#[tokio::test(flavor = "multi_thread")]
async fn only_who_holds_the_hubs_key_commands() {
    let operator = Operator::new();
    let (pod, other) = (Pod::running("a", 1), Pod::new("b", 1));
    let mut nonsense = HeaderMap::new();
    nonsense.insert(TOKEN_HEADER, "00ff".parse().unwrap());
    for headers in [HeaderMap::new(), nonsense, operator.token(&other)] {
        for (method, path) in [
            (Method::GET, path::REPORT),
            (Method::POST, path::FREEZE),
            (Method::POST, path::TRIAL),
            (Method::POST, path::COPY),
            (Method::GET, "/v1/copy/c/state?epoch=1"),
            (Method::POST, path::IMPORT),
            (Method::POST, path::ACTIVATE),
            (Method::POST, path::THAW),
            (Method::POST, path::FORWARD),
            (Method::POST, path::HAND_ON),
            (Method::POST, path::LET_GO),
            (Method::GET, path::STATE),
            (Method::GET, "/v1/state/state?epoch=1"),
        ] {
            let answer = operator.ask(pod.config.control, method, path, headers.clone(), Bytes::new()).await;
            let (status, body) = answer.unwrap();
            assert_eq!(status, 401, "{path}");
            let refusal: Refusal = parse(&body);
            assert_eq!(
                (refusal.code, refusal.floor),
                (RefusalCode::Unauthenticated, Epoch(0)),
                "says nothing else"
            );
        }
    }
    for path in [path::START, path::LIVE, path::METRICS] {
        assert_eq!(operator.get(pod.config.control, path, HeaderMap::new()).await.0, 200, "{path}");
    }
    assert_eq!(operator.get(pod.config.control, "/v1/nothing", HeaderMap::new()).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_astray_and_repeated_commands() {
    let operator = Operator::new();
    let pod = Pod::running("a", 3);
    operator.start(&pod, 3).await;
    let refused = |answer: Result<_, Refusal>| match answer {
        Ok(report) => panic!("expected a refusal: {report:#?}"),
        Err(refusal) => refusal.code,
    };
    for epoch in [1, 2, 3] {
        assert_eq!(refused(operator.freeze(&pod, epoch).await), RefusalCode::StaleEpoch, "{epoch}");
    }
    let mut astray = operator.freeze_command(&pod, 4);
    astray.to = Addressee { process: ProcessUid::from("another"), ..astray.to };
    assert_eq!(refused(operator.command(&pod, path::FREEZE, &astray).await), RefusalCode::WrongAddressee);
    let old = operator.grant(&pod).await;
    let state = operator.seal(&pod, 4).await;
    assert_eq!(operator.seal(&pod, 4).await, state, "the same command, the same answer");
    assert_eq!(refused(operator.activate(&pod, 5, Some(state), None).await), RefusalCode::WrongRole);
    let mut expired = old.clone();
    expired.valid_milliseconds = 0;
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(refused(operator.thaw_with(&pod, 5, expired).await), RefusalCode::StaleGrant);
    operator.thaw(&pod, 5).await.unwrap();
    operator.thaw(&pod, 5).await.unwrap();
    assert_eq!(refused(operator.freeze(&pod, 4).await), RefusalCode::StaleEpoch, "a late freeze");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_for_the_boot_before_is_void() {
    let operator = Operator::new();
    let pod = Pod::running("a", 1);
    operator.start(&pod, 1).await;
    operator.seal(&pod, 2).await;
    let grant = operator.grant(&pod).await;
    pod.kill_sidecar();
    pod.start_sidecar();
    let refusal = operator.thaw_with(&pod, 3, grant).await.unwrap_err();
    assert_eq!(refusal.code, RefusalCode::StaleGrant);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_command_is_refused_by_its_reason() {
    let operator = Operator::new();
    let pod = Pod::running("a", 1);
    for body in ["", "{", "[]", "{\"epoch\":-1}", "null"] {
        let answer = operator
            .ask(pod.config.control, Method::POST, path::FREEZE, operator.token(&pod), body.into())
            .await;
        let (status, answer) = answer.unwrap();
        assert_eq!(status, 400, "{body}");
        assert_eq!(parse::<Refusal>(&answer).code, RefusalCode::BadRequest);
    }
    let huge = Bytes::from(vec![b' '; 3 << 20]);
    let (hostile, operator) = (operator, Operator::new());
    let answer =
        hostile.ask(pod.config.control, Method::POST, path::FREEZE, operator.token(&pod), huge).await;
    // Refused while it is still being sent: the answer may be lost, the sidecar may not.
    assert!(answer.map_or(true, |(status, _)| status == 400));
    assert_eq!(operator.report(&pod).await.role, Role::Standby);
    for bad in ["?epoch=1&offset=1", "?epoch=x", ""] {
        let path = format!("/v1/state/state{bad}");
        let (status, _) = operator.get(pod.config.control, &path, operator.token(&pod)).await;
        assert_eq!(status, 400, "{bad}");
    }
    let (status, _) =
        operator.get(pod.config.control, "/v1/state/..%2Frecord.json?epoch=1", operator.token(&pod)).await;
    assert_eq!(status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_sealed_state_is_given_out_and_not_for_an_older_move() {
    let operator = Operator::new();
    let pod = Pod::running("a", 1);
    operator.start(&pod, 1).await;
    let status = async |query: &str| {
        operator.get(pod.config.control, &format!("/v1/state?epoch={query}"), operator.token(&pod)).await.0
    };
    assert_eq!(status("9").await, 409);
    operator.seal(&pod, 3).await;
    assert_eq!(status("2").await, 409);
    assert_eq!(status("3").await, 200);
    assert_eq!(status("4").await, 200, "a recovery comes at a later epoch");
    operator.thaw(&pod, 4).await.unwrap();
    assert_eq!(status("4").await, 409);
}

/// A freeze that waits for a request in flight.
async fn slow_freeze(operator: &Operator, pod: &Pod) -> (tokio::task::JoinHandle<u16>, Freeze) {
    let at = pod.config.data;
    let slow = tokio::spawn({
        let operator = operator.clone();
        async move {
            let body = serde_json::json!({ "client": "slow", "number": 1 }).to_string();
            let mut headers = HeaderMap::new();
            headers.insert("content-type", "application/json".parse().unwrap());
            let answer = operator.ask(at, Method::POST, "/increment?delay=400", headers, body.into()).await;
            answer.unwrap().0.as_u16()
        }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    (slow, operator.freeze_command(pod, 2))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_joined_and_outlives_its_caller() {
    let operator = Operator::new();
    let pod = Pod::running("a", 1);
    operator.start(&pod, 1).await;
    let (slow, freeze) = slow_freeze(&operator, &pod).await;
    // This caller gives up at once.
    let call = operator.command(&pod, path::FREEZE, &freeze);
    assert!(tokio::time::timeout(Duration::from_millis(50), call).await.is_err());
    let busy = operator.until(&pod, "the freeze", |report| report.busy.is_some()).await.busy.unwrap();
    assert_eq!((busy.command, busy.epoch), (CommandKind::Freeze, Epoch(2)));
    // Another command has to wait, the same one joins.
    let refusal = operator.freeze(&pod, 3).await.unwrap_err();
    assert_eq!(refusal.code, RefusalCode::Busy);
    let (first, second) = tokio::join!(
        operator.command(&pod, path::FREEZE, &freeze),
        operator.command(&pod, path::FREEZE, &freeze)
    );
    let (first, second) = (first.unwrap().role, second.unwrap().role);
    assert_eq!(first, second);
    assert!(matches!(first, Role::Frozen { epoch: Epoch(2), state: Some(_), .. }));
    assert_eq!(slow.await.unwrap(), 200, "what was in flight was awaited");
    assert_eq!(operator.report(&pod).await.busy, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thaw_overtakes_a_freeze() {
    let operator = Operator::new();
    let pod = Pod::running("a", 1);
    operator.start(&pod, 1).await;
    let (slow, freeze) = slow_freeze(&operator, &pod).await;
    let (frozen, thawed) = tokio::join!(operator.command(&pod, path::FREEZE, &freeze), async {
        operator.until(&pod, "the freeze", |report| report.busy.is_some()).await;
        operator.thaw(&pod, 3).await
    });
    assert!(thawed.unwrap().serving);
    assert!(matches!(frozen.unwrap().role, Role::Active { .. }));
    assert_eq!(slow.await.unwrap(), 200);
    let refusal = operator.command(&pod, path::FREEZE, &freeze).await.unwrap_err();
    assert_eq!(refusal.code, RefusalCode::StaleEpoch);
    assert_eq!(audit(&operator, &pod).await.value, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kubelet_sees_a_pod_ready_only_while_it_serves() {
    let operator = Operator::new();
    let (source, target) = (Pod::running("a", 1), Pod::running("b", 2));
    let ready = async |pod: &Pod| operator.get(pod.config.control, path::READY, HeaderMap::new()).await.0;
    operator.worker(&source, WorkerState::Standby).await;
    assert_eq!(ready(&source).await, StatusCode::SERVICE_UNAVAILABLE);
    operator.start(&source, 1).await;
    assert_eq!(ready(&source).await, StatusCode::OK);
    operator.hand_over(&source, &target, 2).await;
    assert_eq!(ready(&target).await, StatusCode::OK);
    assert_eq!(ready(&source).await, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stop_hook_returns_when_the_process_is_elsewhere() {
    let operator = Operator::new();
    let (source, target) = (Pod::running("a", 1), Pod::running("b", 2));
    let hook = async |pod: &Pod| operator.get(pod.config.control, path::PRE_STOP, HeaderMap::new()).await.0;
    assert_eq!(hook(&source).await, 200, "it owns nothing yet");
    operator.start(&source, 1).await;
    let waiting = tokio::spawn({
        let (operator, at) = (operator.clone(), source.config.control);
        async move { operator.get(at, path::PRE_STOP, HeaderMap::new()).await.0 }
    });
    operator.until(&source, "the hook", |report| report.stopping).await;
    assert_eq!(increment(&operator, source.config.data, "one", 1).await.0, 200, "it serves meanwhile");
    operator.seal(&source, 2).await;
    assert!(!waiting.is_finished(), "it may still be thawed");
    operator.thaw(&source, 3).await.unwrap();
    operator.hand_over(&source, &target, 4).await;
    assert_eq!(waiting.await.unwrap(), 200);
    operator.until(&source, "the hook's end", |report| !report.stopping).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_let_go_answers_nobody_and_holds_up_nothing() {
    let operator = Operator::new();
    let pod = Pod::running("a", 1);
    operator.start(&pod, 1).await;
    assert_eq!(increment(&operator, pod.config.data, "one", 1).await.0, 200);
    let (hook, slow) = {
        let (operator, at, data) = (operator.clone(), pod.config.control, pod.config.data);
        let hook = operator.clone();
        (
            tokio::spawn(async move { hook.get(at, path::PRE_STOP, HeaderMap::new()).await.0 }),
            tokio::spawn(async move {
                let body = r#"{"client":"slow","number":1}"#.into();
                let asked = operator.ask(data, Method::POST, "/increment?delay=300", HeaderMap::new(), body);
                asked.await.unwrap().0
            }),
        )
    };
    operator.until(&pod, "the hook", |report| report.stopping).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let let_go = LetGo {
        to: pod.addressee(),
        epoch: Epoch(2),
        drain_timeout_milliseconds: PATIENCE.as_millis() as u64,
    };
    let stale = LetGo { epoch: Epoch(0), ..let_go.clone() };
    assert_eq!(operator.command(&pod, path::LET_GO, &stale).await.unwrap_err().code, RefusalCode::StaleEpoch);
    let report = operator.command(&pod, path::LET_GO, &let_go).await.unwrap();
    assert!(matches!(report.role, Role::Retired { .. }) && !report.serving, "{report:#?}");
    assert_eq!(slow.await.unwrap(), 200, "what was in flight has finished");
    assert_eq!(hook.await.unwrap(), 200);
    assert_eq!(increment(&operator, pod.config.data, "one", 2).await.0, 503);
    // For good, over its restarts too.
    pod.kill_sidecar();
    pod.start_sidecar();
    assert!(matches!(
        operator.command(&pod, path::LET_GO, &let_go).await.unwrap().role,
        Role::Retired { .. }
    ));
    assert_eq!(operator.thaw(&pod, 3).await.unwrap_err().code, RefusalCode::WrongRole);
    assert_eq!(increment(&operator, pod.config.data, "one", 3).await.0, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stop_hook_is_bounded() {
    let operator = Operator::new();
    let mut pod = Pod::new("a", 1);
    pod.config.hook_bound = Duration::from_millis(50);
    pod.start_sidecar();
    pod.start_counter(|_| {});
    operator.start(&pod, 1).await;
    assert_eq!(operator.get(pod.config.control, path::PRE_STOP, HeaderMap::new()).await.0, 200);
    assert!(operator.report(&pod).await.serving);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_say_the_role_and_count_refusals() {
    let operator = Operator::new();
    let pod = Pod::running("a", 1);
    operator.start(&pod, 1).await;
    operator.get(pod.config.control, path::REPORT, HeaderMap::new()).await;
    let (_, text) = operator.get(pod.config.control, path::METRICS, HeaderMap::new()).await;
    let text = String::from_utf8(text.to_vec()).unwrap();
    for line in [
        "processhub_sidecar_role{role=\"Active\"} 1",
        "processhub_sidecar_serving 1",
        "processhub_sidecar_unauthenticated_total 1",
        "processhub_sidecar_requests_held 0",
    ] {
        assert!(text.contains(line), "{line} is not in:\n{text}");
    }
    assert!(!text.contains("role=\"Standby\""));
}

//! What clients see: held, refused, forwarded, cut, upgraded.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::any;
use http::{HeaderMap, Method};
use processhub_protocol::fence::Role;
use processhub_protocol::wire::{WorkerState, path};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::load::{audit, increment};
use crate::support::operator::{Operator, parse};
use crate::support::{PATIENCE, Pod};

/// A pod that is frozen, made with these bounds.
async fn frozen(operator: &Operator, change: impl FnOnce(&mut Pod)) -> Pod {
    let mut pod = Pod::new("a", 1);
    change(&mut pod);
    pod.start_sidecar();
    pod.start_counter(|_| {});
    operator.start(&pod, 1).await;
    operator.seal(&pod, 2).await;
    pod
}

fn spawn_increment(
    operator: &Operator,
    pod: &Pod,
    number: u64,
) -> tokio::task::JoinHandle<(u16, bytes::Bytes)> {
    let (operator, at) = (operator.clone(), pod.config.data);
    tokio::spawn(async move { increment(&operator, at, "one", number).await })
}

async fn held(operator: &Operator, pod: &Pod, count: u64) {
    operator.until(pod, "held requests", |report| report.held == count).await;
}

fn code(body: &[u8]) -> String {
    parse::<Value>(body)["code"].as_str().unwrap_or_default().to_owned()
}

/// Sends text and reads until the connection ends or the answer looks whole.
async fn raw(at: SocketAddr, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

async fn read_until(stream: &mut TcpStream, what: &str) -> String {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    while !String::from_utf8_lossy(&seen).contains(what) {
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await.unwrap().unwrap();
        if read == 0 {
            break;
        }
        seen.extend_from_slice(&buffer[..read]);
    }
    String::from_utf8(seen).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_the_bound_is_refused_at_once_and_the_rest_is_answered() {
    let operator = Operator::new();
    let pod = frozen(&operator, |pod| pod.config.hold.requests = 2).await;
    let first = spawn_increment(&operator, &pod, 1);
    held(&operator, &pod, 1).await;
    let second = spawn_increment(&operator, &pod, 2);
    held(&operator, &pod, 2).await;
    let (status, body) = increment(&operator, pod.config.data, "one", 3).await;
    assert_eq!((status, code(&body).as_str()), (503, "hold_full"));
    operator.thaw(&pod, 3).await.unwrap();
    assert_eq!((first.await.unwrap().0, second.await.unwrap().0), (200, 200));
    assert_eq!(audit(&operator, &pod).await.value, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_held_up_to_the_bound() {
    let operator = Operator::new();
    let pod = frozen(&operator, |pod| pod.config.hold.bytes = 10_000).await;
    let small = tokio::spawn({
        let operator = operator.clone();
        let at = pod.config.data;
        async move { operator.ask(at, Method::PUT, "/table/a", HeaderMap::new(), vec![b'a'; 6_000].into()).await }
    });
    held(&operator, &pod, 1).await;
    let large = operator
        .ask(pod.config.data, Method::PUT, "/table/b", HeaderMap::new(), vec![b'b'; 6_000].into())
        .await;
    let (status, body) = large.unwrap();
    assert_eq!((status.as_u16(), code(&body).as_str()), (503, "hold_full"));
    operator.thaw(&pod, 3).await.unwrap();
    assert_eq!(small.await.unwrap().unwrap().0, 204);
    let (_, body) = operator.get(pod.config.data, "/table/a", HeaderMap::new()).await;
    assert_eq!(body.len(), 6_000, "what was held arrived whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_held_for_longer_than_the_bound() {
    let operator = Operator::new();
    let pod = frozen(&operator, |pod| pod.config.hold.time = Duration::from_millis(50)).await;
    let mut stream = raw(pod.config.data, "GET /audit HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let answer = read_until(&mut stream, "}").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: 1"), "{answer}");
    assert!(answer.contains("hold_expired"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_request_whose_client_left_is_never_executed() {
    let operator = Operator::new();
    let pod = frozen(&operator, |_| {}).await;
    let body = r#"{"client":"gone","number":1}"#;
    let head = "POST /increment HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length";
    let stream = raw(pod.config.data, &format!("{head}: {}\r\n\r\n{body}", body.len())).await;
    held(&operator, &pod, 1).await;
    drop(stream);
    held(&operator, &pod, 0).await;
    operator.thaw(&pod, 3).await.unwrap();
    assert_eq!(audit(&operator, &pod).await.value, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_lost_is_said_to_be_and_never_asked_for_again() {
    let operator = Operator::new();
    let pod = Pod::running("a", 1);
    operator.start(&pod, 1).await;
    let at = pod.config.data;
    let waiting = tokio::spawn({
        let operator = operator.clone();
        async move {
            let mut headers = HeaderMap::new();
            headers.insert("content-type", "application/json".parse().unwrap());
            let body = r#"{"client":"one","number":1}"#.into();
            operator.ask(at, Method::POST, "/increment?delay=20000", headers, body).await.unwrap()
        }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    pod.kill_worker();
    let (status, body) = waiting.await.unwrap();
    assert_eq!((status.as_u16(), code(&body).as_str()), (502, "outcome_unknown"));
    pod.start_counter(|_| {});
    assert_eq!(audit(&operator, &pod).await.value, 0, "it was not sent again");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_still_in_flight_after_the_drain_is_cut() {
    let operator = Operator::new();
    let pod = Pod::new("a", 1);
    pod.start_sidecar();
    let (contract, address) = (pod.config.worker_control, pod.config.worker_listen);
    // A worker whose clients never get an answer, and which is suspended all the same.
    pod.start_worker(async move {
        let clients = Router::new().fallback(async || std::future::pending::<()>().await);
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        tokio::spawn(async move { axum::serve(listener, clients).await.unwrap() });
        let yes = Router::new().route("/v1/info", any(info)).fallback(async || StatusCode::NO_CONTENT);
        let listener = tokio::net::TcpListener::bind(contract).await.unwrap();
        axum::serve(listener, yes).await.unwrap();
    });
    async fn info() -> impl IntoResponse {
        r#"{"contract":1,"instance":"i","vsn":"","state":"Active","epoch":1,"seq":0,"capture":"Suspended"}"#
    }
    operator.worker(&pod, WorkerState::Active).await;
    operator.activate(&pod, 1, None, None).await.unwrap();
    let waiting = spawn_increment(&operator, &pod, 1);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut freeze = operator.freeze_command(&pod, 2);
    (freeze.capture, freeze.drain_timeout_milliseconds) = (false, 50);
    let report = operator.command(&pod, path::FREEZE, &freeze).await.unwrap();
    assert!(matches!(report.role, Role::Frozen { .. }), "{report:#?}");
    let (status, body) = waiting.await.unwrap();
    assert_eq!((status, code(&body).as_str()), (502, "outcome_unknown"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_forwards_to_a_pod_that_forwards_is_told_where_the_process_went() {
    let operator = Operator::new();
    let (first, second, third) = (Pod::running("a", 1), Pod::running("b", 2), Pod::running("c", 3));
    operator.start(&first, 1).await;
    operator.hand_over(&first, &second, 2).await;
    operator.hand_over(&second, &third, 3).await;
    operator.until(&second, "forwarding", |report| matches!(report.role, Role::Forwarding { .. })).await;
    assert_eq!(increment(&operator, second.config.data, "one", 1).await.0, 200);
    assert_eq!(increment(&operator, first.config.data, "one", 2).await.0, 200);
    assert_eq!(audit(&operator, &third).await.value, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_forwarded_twice() {
    let operator = Operator::new();
    let (first, second) = (Pod::running("a", 1), Pod::running("b", 2));
    operator.start(&first, 1).await;
    operator.hand_over(&first, &second, 2).await;
    operator.until(&first, "forwarding", |report| matches!(report.role, Role::Forwarding { .. })).await;
    let mut headers = operator.token(&first);
    headers.insert("processhub-forwarded", "1".parse().unwrap());
    let (status, body) = operator.get(first.config.data, "/audit", headers).await;
    assert_eq!((status.as_u16(), code(&body).as_str()), (503, "forwarded_once"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_was_forwarded_is_held_with_the_rest_when_the_process_moves_again() {
    let operator = Operator::new();
    let (first, second, third) = (Pod::running("a", 1), Pod::running("b", 2), Pod::running("c", 3));
    operator.start(&first, 1).await;
    operator.hand_over(&first, &second, 2).await;
    operator.until(&first, "forwarding", |report| matches!(report.role, Role::Forwarding { .. })).await;
    operator.worker(&third, WorkerState::Standby).await;
    let state = operator.seal(&second, 3).await;
    let waiting = spawn_increment(&operator, &first, 1);
    held(&operator, &second, 1).await;
    operator.import(&third, &second, 3, &state).await.unwrap();
    operator.activate(&third, 3, Some(state), Some(&second)).await.unwrap();
    assert_eq!(waiting.await.unwrap().0, 200);
    assert_eq!(audit(&operator, &third).await.value, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_refuses_clients_and_a_stranger_cannot_pose_as_its_source() {
    let operator = Operator::new();
    let pod = Pod::running("a", 1);
    operator.worker(&pod, WorkerState::Standby).await;
    let mut stranger = HeaderMap::new();
    stranger.insert("processhub-forwarded", "1".parse().unwrap());
    for headers in [HeaderMap::new(), stranger] {
        let (status, body) = operator.get(pod.config.data, "/audit", headers).await;
        assert_eq!((status.as_u16(), code(&body).as_str()), (503, "not_serving"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forwarding_pod_closes_its_connections() {
    let operator = Operator::new();
    let (source, target) = (Pod::running("a", 1), Pod::running("b", 2));
    operator.start(&source, 1).await;
    let get = "GET /audit HTTP/1.1\r\nhost: a\r\n\r\n";
    let mut stream = raw(source.config.data, get).await;
    let answer = read_until(&mut stream, "}}").await;
    assert!(answer.starts_with("HTTP/1.1 200") && !answer.contains("connection: close"), "{answer}");
    operator.hand_over(&source, &target, 2).await;
    operator.until(&source, "forwarding", |report| matches!(report.role, Role::Forwarding { .. })).await;
    stream.write_all(get.as_bytes()).await.unwrap();
    let answer = read_until(&mut stream, "nothing: the end").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_of_the_kubelet_never_kill_a_held_worker() {
    let operator = Operator::new();
    let pod = Pod::running("a", 1);
    let probe = async |path: &str| {
        let mut headers = HeaderMap::new();
        headers.insert("user-agent", "kube-probe/1.35".parse().unwrap());
        operator.get(pod.config.data, path, headers).await.0.as_u16()
    };
    assert_eq!(probe("/healthz").await, 200, "standby");
    operator.start(&pod, 1).await;
    assert_eq!(probe("/healthz").await, 200, "by the worker");
    assert_eq!(probe("/nothing").await, 404, "by the worker");
    operator.seal(&pod, 2).await;
    assert_eq!(probe("/nothing").await, 200, "held");
}

/// A pod whose worker is any web server: it shows what arrives.
async fn plain(operator: &Operator, clients: Router) -> Pod {
    let pod = Pod::new("a", 1);
    pod.start_sidecar();
    let address = pod.config.worker_listen;
    pod.start_worker(async move {
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        axum::serve(listener, clients).await.unwrap();
    });
    operator.start(&pod, 1).await;
    pod
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worker_sees_its_owner_and_nothing_that_a_client_made_up() {
    let operator = Operator::new();
    async fn show(request: Request) -> String {
        let mut lines: Vec<String> = request
            .headers()
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap_or("?")))
            .collect();
        lines.sort();
        lines.join("\n")
    }
    let pod = plain(&operator, Router::new().fallback(show)).await;
    let mut headers = HeaderMap::new();
    for (name, value) in
        [("processhub-epoch", "99"), ("processhub-other", "x"), ("host", "shop"), ("te", "trailers")]
    {
        headers.insert(name, value.parse().unwrap());
    }
    let (_, seen) = operator.get(pod.config.data, "/any?query=1", headers).await;
    assert_eq!(seen, "host: shop\nprocesshub-epoch: 1\nprocesshub-process: counter-0");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_stream_both_ways_with_chunks_and_continue() {
    let operator = Operator::new();
    async fn echo(request: Request) -> axum::body::Body {
        request.into_body()
    }
    let pod = plain(&operator, Router::new().fallback(echo)).await;
    let head = "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut stream = raw(pod.config.data, head).await;
    let mut answer = read_until(&mut stream, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 100"), "{answer}");
    stream.write_all(b"5\r\nfirst\r\n").await.unwrap();
    answer += &read_until(&mut stream, "first").await;
    assert!(answer.contains("HTTP/1.1 200"), "an answer before the request's end: {answer}");
    stream.write_all(b"4\r\nlast\r\n0\r\n\r\n").await.unwrap();
    assert!(read_until(&mut stream, "0\r\n\r\n").await.contains("last"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgraded_connection_passes_through_and_ends_with_the_freeze() {
    assert_eq!(upgraded("echo", b"ping").await, b"");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_is_told_to_come_again_when_the_process_moves() {
    let frame = [0x82, 2, b'h', b'i'];
    assert_eq!(upgraded("websocket", &frame).await, [0x88, 2, 3, 0xf4]);
}

/// Says `ping` on an upgraded connection to a worker that echoes it; what comes when the process is frozen then.
async fn upgraded(protocol: &'static str, ping: &[u8; 4]) -> Vec<u8> {
    let operator = Operator::new();
    let upgrade = move |mut request: Request| async move {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut io = hyper_util::rt::TokioIo::new(upgrade.await.unwrap());
            let mut buffer = [0; 4];
            while io.read_exact(&mut buffer).await.is_ok() {
                io.write_all(&buffer).await.unwrap();
            }
        });
        (StatusCode::SWITCHING_PROTOCOLS, [("connection", "upgrade"), ("upgrade", protocol)])
    };
    let pod = plain(&operator, Router::new().fallback(upgrade)).await;
    let head = format!("GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: {protocol}\r\n\r\n");
    let mut stream = raw(pod.config.data, &head).await;
    assert!(read_until(&mut stream, "\r\n\r\n").await.starts_with("HTTP/1.1 101"));
    stream.write_all(ping).await.unwrap();
    let mut echo = [0; 4];
    stream.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, ping);
    let mut freeze = operator.freeze_command(&pod, 2);
    freeze.capture = false;
    operator.command(&pod, path::FREEZE, &freeze).await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    rest
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_nonsense_harms_nobody() {
    let operator = Operator::new();
    let pod = Pod::running("a", 1);
    operator.start(&pod, 1).await;
    let long = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(100_000));
    for text in
        ["\0\0\0\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n", &long]
    {
        let mut stream = raw(pod.config.data, text).await;
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(Duration::from_millis(200), stream.read_to_end(&mut answer)).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 501"),
            "{answer}"
        );
    }
    assert_eq!(increment(&operator, pod.config.data, "one", 1).await.0, 200);
}

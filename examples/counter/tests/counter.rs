//! The counter over HTTP, as its clients and its sidecar see it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::HashSet;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use bytes::Bytes;
use counter::faults::Faults;
use counter::{Audit, Config, Increment, Options, Weight, serve};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

struct Running {
    control: SocketAddr,
    listen: SocketAddr,
    served: JoinHandle<anyhow::Result<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.served.abort();
    }
}

/// Addresses that no other test uses, with ports that no outgoing connection takes.
fn addresses() -> (SocketAddr, SocketAddr) {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let [high, low] = NEXT.fetch_add(1, Ordering::SeqCst).to_be_bytes();
    let [_, _, a, b] = std::process::id().to_be_bytes();
    let host = [127, 128 | (a >> 1), b ^ high, low];
    (SocketAddr::from((host, 9700)), SocketAddr::from((host, 8080)))
}

async fn start(change: impl FnOnce(&mut Config)) -> Running {
    let (control, listen) = addresses();
    let mut at = processhub_sdk::Config::from_lookup(|_| None).unwrap();
    (at.control, at.listen, at.process) = (control, listen, "counter-0".into());
    let mut config = Config::new(at);
    change(&mut config);
    let running = Running { control, listen, served: tokio::spawn(serve(config, std::future::pending())) };
    running.up().await;
    running
}

fn with(faults: &str) -> Faults {
    let switched_on = Faults::default();
    switched_on.set(faults.split(' ').map(|fault| fault.parse().unwrap()));
    switched_on
}

impl Running {
    async fn up(&self) {
        while tokio::net::TcpStream::connect(self.listen).await.is_err() {
            assert!(!self.served.is_finished());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn control(&self, method: &str, path: &str, body: Value) -> (u16, Bytes) {
        send(self.control, method, path, Bytes::from(body.to_string())).await
    }

    async fn client(&self, method: &str, path: &str, body: impl Into<Bytes>) -> (u16, Bytes) {
        send(self.listen, method, path, body.into()).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> T {
        let (status, body) = self.client("GET", path, "").await;
        assert_eq!(status, 200, "{body:?}");
        serde_json::from_slice(&body).unwrap()
    }

    async fn begin(self) -> Self {
        let body = json!({"epoch": 1, "reason": "Start", "initial": true});
        assert_eq!(self.control("POST", "/v1/activate", body).await.0, 204);
        self
    }

    async fn increment(&self, client: &str, number: u64) -> Increment {
        let body = json!({"client": client, "number": number}).to_string();
        let (status, body) = self.client("POST", "/increment", body).await;
        assert_eq!(status, 200, "{body:?}");
        serde_json::from_slice(&body).unwrap()
    }

    async fn suspend(&self, epoch: u64) -> u16 {
        self.control("POST", "/v1/suspend", json!({"epoch": epoch, "reason": "Handover"})).await.0
    }

    async fn capture(&self, epoch: u64) -> (u16, Bytes) {
        self.control("POST", "/v1/capture", json!({"epoch": epoch, "purpose": "Handover"})).await
    }

    /// Moves everything to another counter, after `change` has seen the bytes of each part; the status of the apply.
    async fn hand_over(&self, target: &Self, change: impl Fn(&str, &mut Vec<u8>)) -> (u16, Bytes) {
        assert_eq!(self.suspend(2).await, 204);
        let capture: Value = serde_json::from_slice(&self.capture(2).await.1).unwrap();
        let id = capture["capture"].as_str().unwrap();
        let mut parts = Vec::new();
        for part in capture["parts"].as_array().unwrap() {
            let name = part["name"].as_str().unwrap();
            let (_, bytes) = self.control("GET", &format!("/v1/capture/{id}/{name}"), Value::Null).await;
            let mut bytes = bytes.to_vec();
            change(name, &mut bytes);
            for (n, slice) in bytes.chunks(1 << 20).enumerate() {
                let path = format!("/v1/import/h/{name}?offset={}", n << 20);
                let (status, answer) =
                    send(target.control, "PUT", &path, Bytes::copy_from_slice(slice)).await;
                assert_eq!(status, 204, "{answer:?}");
            }
            parts.push(json!({"name": name, "bytes": bytes.len()}));
        }
        let body = json!({"epoch": 3, "reason": "Handover", "vsn": capture["vsn"], "seq": capture["seq"], "parts": parts});
        target.control("POST", "/v1/import/h/apply", body).await
    }
}

async fn send(to: SocketAddr, method: &str, path: &str, body: Bytes) -> (u16, Bytes) {
    try_send(to, method, path, body).await.unwrap()
}

async fn try_send(to: SocketAddr, method: &str, path: &str, body: Bytes) -> anyhow::Result<(u16, Bytes)> {
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(HttpConnector::new());
    let request = Request::builder().method(method).uri(format!("http://{to}{path}"));
    let request = request.header("content-type", "application/json").body(Full::new(body))?;
    let (head, body) = client.request(request).await?.into_parts();
    Ok((head.status.as_u16(), body.collect().await?.to_bytes()))
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_increments_get_values_of_their_own_and_are_all_in_the_audit() {
    let counter = std::sync::Arc::new(start(|_| {}).await.begin().await);
    let clients: Vec<_> = (0..4)
        .map(|client| {
            let counter = std::sync::Arc::clone(&counter);
            tokio::spawn(async move {
                let mut values = Vec::new();
                for number in 1..=25 {
                    values.push(counter.increment(&format!("c{client}"), number).await.value);
                }
                values
            })
        })
        .collect();
    let mut values = HashSet::new();
    for client in clients {
        values.extend(client.await.unwrap());
    }
    assert_eq!(values, (1..=100).collect());
    let audit: Audit = counter.get("/audit").await;
    assert_eq!((audit.value, audit.duplicates), (100, 0));
    assert!(audit.clients.values().all(|ranges| ranges == &[(1, 25)]), "{audit:?}");
}

#[tokio::test]
async fn everything_moves_and_goes_on() {
    let size = (3 << 20) + 17;
    let source = start(|config| config.options.state_size = size).await.begin().await;
    let target = start(|config| config.options.state_size = 5).await;
    source.increment("c", 1).await;
    source.increment("c", 7).await;
    assert!(source.increment("c", 7).await.duplicate);
    assert_eq!(source.client("PUT", "/table/colour", "blue").await.0, 204);
    let before: Weight = source.get("/ballast").await;
    let (status, answer) = source.hand_over(&target, |_, _| {}).await;
    assert_eq!(status, 204, "{answer:?}");
    assert_eq!(target.client("GET", "/audit", "").await.0, 503, "not before it is activated");
    let body = json!({"epoch": 3, "reason": "Handover", "initial": false});
    assert_eq!(target.control("POST", "/v1/activate", body).await.0, 204);
    let after: Weight = target.get("/ballast").await;
    assert_eq!((after.bytes, &after.digest, after.intact), (size, &before.digest, true));
    assert_eq!(target.client("GET", "/table/colour", "").await, (200, Bytes::from("blue")));
    assert_eq!(target.increment("c", 2).await, Increment { value: 4, duplicate: false });
    let audit: Audit = target.get("/audit").await;
    assert_eq!((audit.value, audit.duplicates), (4, 1));
    assert_eq!(audit.clients["c"], [(1, 2), (7, 7)]);
}

#[tokio::test]
async fn a_damaged_state_is_refused() {
    type Damage = fn(&mut Vec<u8>);
    let damage: [(&str, Damage); 4] = [
        ("table.ballast", |bytes| bytes[5] ^= 1),
        ("table.ballast", |bytes| bytes.truncate(9)),
        ("state", |bytes| bytes.truncate(9)),
        ("state", |bytes| *bytes = br#"{"value": 9, "duplicates": 0}"#.to_vec()),
    ];
    for (part, damage) in damage {
        let source = start(|config| config.options.state_size = 100).await.begin().await;
        let target = start(|_| {}).await;
        let change = |name: &str, bytes: &mut Vec<u8>| {
            if name == part {
                damage(bytes)
            }
        };
        let (status, answer) = source.hand_over(&target, change).await;
        assert_eq!(status, 422, "{answer:?}");
        assert!(String::from_utf8_lossy(&answer).contains(part), "{answer:?}");
    }
}

#[tokio::test]
async fn a_state_of_another_version_needs_to_be_accepted() {
    for (accepts_from, expected) in [(vec![], 422), (vec!["1".to_owned()], 204)] {
        let source = start(|_| {}).await.begin().await;
        let target =
            start(|config| config.options = Options { vsn: "2".into(), accepts_from, ..Options::default() })
                .await;
        assert_eq!(source.hand_over(&target, |_, _| {}).await.0, expected);
    }
}

#[tokio::test]
async fn requests_outside_the_bounds_are_refused() {
    let counter = start(|_| {}).await.begin().await;
    for body in [
        json!({"client": "", "number": 1}),
        json!({"client": "c", "number": 1_u64 << 53}),
        json!({"client": "x".repeat(129), "number": 1}),
    ] {
        assert_eq!(counter.client("POST", "/increment", body.to_string()).await.0, 400, "{body}");
    }
    assert_eq!(counter.client("POST", "/increment", "nonsense").await.0, 400);
    let one = json!({"client": "c", "number": 1}).to_string();
    assert_eq!(counter.client("POST", "/increment?delay=60001", one).await.0, 400);
    assert_eq!(counter.client("PUT", "/table/k", vec![b'x'; (64 << 10) + 1]).await.0, 413);
    assert_eq!(counter.client("PUT", &format!("/table/{}", "k".repeat(257)), "v").await.0, 400);
    assert_eq!(counter.client("GET", "/table/none", "").await.0, 404);
    assert_eq!(counter.client("PUT", "/faults", "refuse=import").await.0, 404, "not for everyone");
    let audit: Audit = counter.get("/audit").await;
    assert_eq!(audit.value, 0);
}

#[tokio::test]
async fn without_the_contract_it_serves_from_the_start() {
    let counter = start(|config| {
        config.contract = false;
        config.options.state_size = 9;
    })
    .await;
    assert_eq!(counter.increment("c", 1).await.value, 1);
    assert_eq!(counter.get::<Weight>("/ballast").await.bytes, 9);
    assert!(try_send(counter.control, "GET", "/v1/info", Bytes::new()).await.is_err());
}

#[tokio::test]
async fn health_is_answered_in_every_state() {
    let counter = start(|_| {}).await;
    assert_eq!(counter.client("GET", "/healthz", "").await.0, 200);
    let counter = counter.begin().await;
    assert_eq!(counter.client("GET", "/healthz", "").await.0, 200);
    assert_eq!(counter.suspend(2).await, 204);
    assert_eq!(counter.client("GET", "/healthz", "").await.0, 200);
}

#[tokio::test]
async fn faults_strike_where_they_are_switched_on() {
    let counter = start(|config| config.faults = with("refuse=capture refuse=increment")).await.begin().await;
    let one = json!({"client": "c", "number": 1}).to_string();
    assert_eq!(counter.client("POST", "/increment", one).await.0, 422);
    assert_eq!(counter.suspend(2).await, 204);
    assert_eq!(counter.capture(2).await.0, 422);

    let refuses = start(|config| config.faults = with("refuse=import")).await;
    let source = start(|_| {}).await.begin().await;
    assert_eq!(source.hand_over(&refuses, |_, _| {}).await.0, 422);
}

#[tokio::test]
async fn clients_may_switch_faults_where_it_is_allowed() {
    let counter = start(|config| config.faults_by_clients = true).await.begin().await;
    assert_eq!(counter.client("PUT", "/faults", "sulk").await.0, 400);
    assert_eq!(counter.client("PUT", "/faults", "refuse=suspend hang=capture:1").await.0, 204);
    assert_eq!(counter.suspend(2).await, 422);
    assert_eq!(counter.client("PUT", "/faults", "").await.0, 204);
    assert_eq!(counter.suspend(2).await, 204);
    assert_eq!(counter.capture(2).await.0, 200);
}

#[tokio::test]
async fn answers_of_the_contract_can_be_mangled() {
    let counter = start(|config| {
        config.faults = with(
            "mangle=info:other-version mangle=suspend:always-yes mangle=resume:not-json mangle=capture:too-large \
             mangle=activate:missing mangle=read:cut-short",
        );
    })
    .await;
    let (_, info) = counter.control("GET", "/v1/info", Value::Null).await;
    assert_eq!(serde_json::from_slice::<Value>(&info).unwrap()["contract"], 2);
    assert_eq!(counter.suspend(2).await, 204, "though it is in Standby");
    let (status, text) = counter.control("POST", "/v1/resume", json!({"epoch": 3})).await;
    assert!(status == 200 && serde_json::from_slice::<Value>(&text).is_err());
    assert!(counter.capture(2).await.1.len() >= 1 << 20);
    assert_eq!(counter.control("POST", "/v1/activate", Value::Null).await.0, 501);
    assert!(try_send(counter.control, "GET", "/v1/capture/a/state", Bytes::new()).await.is_err());
}

/// The program as the kubelet starts it.
fn program(control: SocketAddr, listen: SocketAddr, environment: &[(&str, &str)]) -> tokio::process::Child {
    tokio::process::Command::new(env!("CARGO_BIN_EXE_counter"))
        .env("PROCESSHUB_PROCESS", "counter-7")
        .env("PROCESSHUB_CONTROL", control.to_string())
        .env("PROCESSHUB_LISTEN", listen.to_string())
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

async fn terminate(child: &tokio::process::Child) {
    let pid = child.id().unwrap().to_string();
    let told = tokio::process::Command::new("sh").args(["-c", "kill -TERM $0", &pid]).status().await.unwrap();
    assert!(told.success());
}

#[tokio::test]
async fn the_program_takes_everything_from_its_environment() {
    let (control, listen) = addresses();
    let environment = [("STATE_SIZE", "1000"), ("COUNTER_VSN", "9"), ("COUNTER_FAULTS", "crash=answer")];
    let mut child = program(control, listen, &environment);
    let running = Running { control, listen, served: tokio::spawn(std::future::pending()) };
    running.up().await;
    let (_, info) = running.control("GET", "/v1/info", Value::Null).await;
    assert_eq!(serde_json::from_slice::<Value>(&info).unwrap()["vsn"], "9");
    let running = running.begin().await;
    assert_eq!(running.get::<Weight>("/ballast").await.bytes, 1000);
    let one = Bytes::from(json!({"client": "c", "number": 1}).to_string());
    assert!(try_send(listen, "POST", "/increment", one).await.is_err());
    assert_eq!(child.wait().await.unwrap().code(), Some(70));
}

#[tokio::test]
async fn the_program_ends_well_on_sigterm() {
    let (control, listen) = addresses();
    let mut child = program(control, listen, &[]);
    let running = Running { control, listen, served: tokio::spawn(std::future::pending()) };
    running.up().await;
    terminate(&child).await;
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn a_method_that_hangs_does_not_keep_the_program_from_ending() {
    let (control, listen) = addresses();
    let mut child = program(control, listen, &[("COUNTER_FAULTS", "hang=activate:600000")]);
    let running = Running { control, listen, served: tokio::spawn(std::future::pending()) };
    running.up().await;
    let activation = tokio::spawn(async move {
        let body = Bytes::from(json!({"epoch": 1, "reason": "Start", "initial": true}).to_string());
        try_send(control, "POST", "/v1/activate", body).await
    });
    // The epoch is seen before the hook is called.
    loop {
        let (_, info) = running.control("GET", "/v1/info", Value::Null).await;
        if serde_json::from_slice::<Value>(&info).unwrap()["epoch"] == 1 {
            break;
        }
    }
    terminate(&child).await;
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
    assert!(activation.await.unwrap().is_err());
}

//! The program itself: its memory, and how it ends.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use processhub_protocol::fence::Role;
use processhub_protocol::id::Epoch;
use processhub_protocol::wire::{HandOn, WorkerState, path};

use crate::support::load::{audit, increment};
use crate::support::operator::{Operator, parse};
use crate::support::{KEY, PATIENCE, Pod};

/// A sidecar as a program; killed when dropped.
struct Program(Child);

impl Program {
    /// The sidecar alone.
    fn start(pod: &Pod) -> Self {
        Self::start_with(pod, &["run"])
    }

    fn start_with(pod: &Pod, arguments: &[&str]) -> Self {
        let config = &pod.config;
        let child = Command::new(env!("CARGO_BIN_EXE_processhub-sidecar"))
            .args(arguments)
            .env_clear()
            .env("RUST_LOG", "warn")
            .env("PROCESSHUB_NAMESPACE", &config.namespace)
            .env("PROCESSHUB_HUB", &config.hub)
            .env("PROCESSHUB_PROCESS", &config.name)
            .env("PROCESSHUB_PROCESS_UID", &config.process.0)
            .env("PROCESSHUB_POD_UID", &config.pod.0)
            .env("PROCESSHUB_POD_IP", config.control.ip().to_string())
            .env("PROCESSHUB_EPOCH", config.born.to_string())
            .env("PROCESSHUB_PORT", config.data.port().to_string())
            .env("PROCESSHUB_CONTROL", config.worker_control.to_string())
            .env("PROCESSHUB_LISTEN", config.worker_listen.to_string())
            .env("PROCESSHUB_STATE_DIR", &config.state_dir)
            .env("PROCESSHUB_RETENTION_MILLISECONDS", config.retention.as_millis().to_string())
            .env("PROCESSHUB_KEY", KEY)
            .spawn()
            .unwrap();
        let begin = Instant::now();
        while std::net::TcpStream::connect(config.control).is_err() {
            assert!(begin.elapsed() < PATIENCE, "it does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        Self(child)
    }

    /// The most memory that it ever had, in KiB.
    fn peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    fn terminate(&self) {
        Command::new("kill").arg(self.0.id().to_string()).status().unwrap();
    }

    fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    fn ended(&mut self) -> std::process::ExitStatus {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(begin.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_does_not_depend_on_the_size_of_the_state() {
    const STATE: u64 = 64 << 20;
    let operator = Operator::new();
    let (source, target) = (Pod::new("a", 1), Pod::new("b", 2));
    let (from, to) = (Program::start(&source), Program::start(&target));
    for pod in [&source, &target] {
        pod.start_counter(|config| config.options.state_size = STATE);
    }
    operator.start(&source, 1).await;
    operator.worker(&target, WorkerState::Standby).await;
    let idle = (from.peak(), to.peak());
    operator.hand_over(&source, &target, 2).await;
    let peak = (from.peak(), to.peak());
    assert!(peak.0 - idle.0 < 12 << 10, "source: {} KiB idle, {} KiB at most", idle.0, peak.0);
    assert!(peak.1 - idle.1 < 12 << 10, "target: {} KiB idle, {} KiB at most", idle.1, peak.1);
    let (_, body) = operator.get(target.config.data, "/ballast", http::HeaderMap::new()).await;
    let weight: serde_json::Value = parse(&body);
    assert_eq!((weight["bytes"].as_u64(), weight["intact"].as_bool()), (Some(STATE), Some(true)));
}

/// A source that forwards to its target, whose worker has ended and which was told to end too.
async fn forwarding(operator: &Operator, retention: Duration) -> (Pod, Pod, Program) {
    let mut source = Pod::new("a", 1);
    source.config.retention = retention;
    let target = Pod::running("b", 2);
    let program = Program::start(&source);
    source.start_counter(|_| {});
    operator.start(&source, 1).await;
    operator.hand_over(&source, &target, 2).await;
    operator.until(&source, "forwarding", |report| matches!(report.role, Role::Forwarding { .. })).await;
    source.kill_worker();
    program.terminate();
    (source, target, program)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forwarding_pod_that_ends_forwards_for_the_retention() {
    let operator = Operator::new();
    let (source, target, mut program) = forwarding(&operator, Duration::from_millis(700)).await;
    assert_eq!(increment(&operator, source.config.data, "one", 1).await.0, 200);
    assert!(program.ended().success());
    assert_eq!(audit(&operator, &target).await.value, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_is_ended_answers_what_it_holds() {
    let operator = Operator::new();
    let pod = Pod::new("a", 1);
    let mut program = Program::start(&pod);
    pod.start_counter(|_| {});
    operator.start(&pod, 1).await;
    pod.kill_worker();
    let at = pod.config.data;
    let held = tokio::spawn({
        let operator = operator.clone();
        async move { increment(&operator, at, "one", 1).await }
    });
    operator.until(&pod, "a held request", |report| report.held == 1).await;
    program.terminate();
    let (status, body) = held.await.unwrap();
    assert_eq!((status, parse::<serde_json::Value>(&body)["code"].as_str()), (503, Some("stopping")));
    assert!(program.ended().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_pod_that_is_ended_waits_until_its_state_is_taken() {
    let operator = Operator::new();
    let (source, target) = (Pod::new("a", 1), Pod::running("b", 2));
    let mut program = Program::start(&source);
    source.start_counter(|_| {});
    operator.start(&source, 1).await;
    increment(&operator, source.config.data, "one", 1).await;
    operator.worker(&target, WorkerState::Standby).await;
    let state = operator.seal(&source, 2).await;
    source.kill_worker();
    program.terminate();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!program.has_ended());
    operator.import(&target, &source, 2, &state).await.unwrap();
    assert!(operator.activate(&target, 2, Some(state), Some(&source)).await.unwrap().serving);
    assert!(program.ended().success());
    assert_eq!(audit(&operator, &target).await.value, 1);
}

/// The order in which a kubelet ends a pod: the worker's hook, the worker, its sidecar.
#[tokio::test(flavor = "multi_thread")]
async fn a_cold_swaps_source_says_that_its_worker_has_ended_and_stays_for_its_clients() {
    let operator = Operator::new();
    let mut source = Pod::new("a", 1);
    // Shorter than what follows: it is not this that keeps the pod.
    source.config.retention = Duration::from_millis(100);
    let mut target = Pod::new("b", 2);
    target.config.gated = true;
    target.start_sidecar();
    let mut program = Program::start(&source);
    source.start_counter(|_| {});
    operator.start(&source, 1).await;
    let state = operator.seal(&source, 2).await;
    operator.import(&target, &source, 2, &state).await.unwrap();
    let hook = |pod: &Pod| {
        let (operator, at) = (operator.clone(), pod.config.control);
        tokio::spawn(async move { operator.get(at, path::PRE_STOP, http::HeaderMap::new()).await.0 })
    };
    let waiting = hook(&source);
    operator.until(&source, "the hook", |report| report.stopping).await;
    let hand_on = HandOn { to: source.addressee(), epoch: Epoch(2), peer: target.peer() };
    operator.command(&source, path::HAND_ON, &hand_on).await.unwrap();
    assert_eq!(waiting.await.unwrap(), 200);
    let at = source.config.data;
    let request = tokio::spawn({
        let operator = operator.clone();
        async move { increment(&operator, at, "one", 1).await.0 }
    });
    operator.until(&target, "the request", |report| report.held == 1).await;
    source.kill_worker();
    assert_ne!(operator.report(&source).await.worker.state, WorkerState::Ended, "it may be started again");
    program.terminate();
    operator.worker(&source, WorkerState::Ended).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!program.has_ended(), "a client waits");
    let (report, ()) = tokio::join!(operator.activate(&target, 2, Some(state), Some(&source)), async {
        target.start_counter(|_| {});
    });
    assert!(report.unwrap().serving);
    assert_eq!(request.await.unwrap(), 200);
    assert!(program.ended().success());
    assert_eq!(audit(&operator, &target).await.value, 1);
}

/// The kubelet restarts a sidecar alone as well: then nobody has asked its hook.
#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_that_is_ended_alone_does_not_say_that_its_worker_has_ended() {
    let operator = Operator::new();
    let (source, _target, mut program) = forwarding(&operator, Duration::from_secs(2)).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_ne!(operator.report(&source).await.worker.state, WorkerState::Ended);
    assert!(program.ended().success());
}

/// The processes that this one has started.
fn children(of: u32) -> Vec<u32> {
    let text = std::fs::read_to_string(format!("/proc/{of}/task/{of}/children")).unwrap_or_default();
    text.split_whitespace().map(|id| id.parse().unwrap()).collect()
}

fn signal(id: u32, signal: &str) {
    assert!(Command::new("kill").args([signal, &id.to_string()]).status().unwrap().success());
}

fn is_there(id: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_that_dies_in_its_container_is_back_at_once() {
    let mut operator = Operator::new();
    let pod = Pod::new("a", 1);
    let mut program = Program::start_with(&pod, &[]);
    pod.start_counter(|_| {});
    operator.start(&pod, 1).await;
    for number in 1..=8 {
        let at = pod.config.data;
        assert_eq!(increment(&operator, at, "one", number).await.0, 200);
        let [sidecar] = children(program.0.id())[..] else { panic!("not one sidecar") };
        signal(sidecar, if number % 2 == 0 { "-ABRT" } else { "-KILL" });
        let begin = Instant::now();
        // In this order: until its parent has collected it, the one that dies may still take a connection.
        let remains = std::path::PathBuf::from(format!("/proc/{sidecar}"));
        while remains.exists() || std::net::TcpStream::connect(pod.config.control).is_err() {
            assert!(begin.elapsed() < PATIENCE, "it does not come back");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Without connections to the one that died.
        operator = Operator::new();
        operator.until(&pod, "serving", |report| report.serving).await;
        // What counts as a failed start is over.
        tokio::time::sleep(Duration::from_millis(if number == 4 { 1100 } else { 0 })).await;
    }
    assert_eq!(audit(&operator, &pod).await.value, 8);
    program.terminate();
    assert!(program.ended().success());
}

#[test]
fn a_sidecar_does_not_outlive_its_container() {
    let pod = Pod::new("a", 1);
    let program = Program::start_with(&pod, &[]);
    let begin = Instant::now();
    let sidecar = loop {
        if let [sidecar] = children(program.0.id())[..] {
            break sidecar;
        }
        assert!(begin.elapsed() < PATIENCE, "no sidecar");
        std::thread::sleep(Duration::from_millis(5));
    };
    drop(program);
    let begin = Instant::now();
    while is_there(sidecar) {
        assert!(begin.elapsed() < PATIENCE, "it goes on without its container");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_is_missing_in_the_environment_is_named() {
    let program = Command::new(env!("CARGO_BIN_EXE_processhub-sidecar")).env_clear().output().unwrap();
    let message = String::from_utf8(program.stderr).unwrap();
    assert!(!program.status.success() && message.contains("PROCESSHUB_"), "{message}");
    let program = Command::new(env!("CARGO_BIN_EXE_processhub-sidecar")).arg("nonsense").output().unwrap();
    assert!(!program.status.success());
}

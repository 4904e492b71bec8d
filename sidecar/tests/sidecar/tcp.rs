//! Connections instead of requests: held, passed through, closed in an orderly way. The worker speaks HTTP, which its
//! sidecar does not know here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use processhub_protocol::wire::WorkerState;
use processhub_sidecar::config::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::load::{Route, audit, holds, increment};
use crate::support::operator::Operator;
use crate::support::{PATIENCE, Pod};

fn pod(name: &str, born: u64) -> Pod {
    let mut pod = Pod::new(name, born);
    pod.config.protocol = Protocol::Tcp;
    pod.start_sidecar();
    pod.start_counter(|_| {});
    pod
}

/// A connection on which one increment was asked for.
async fn ask(pod: &Pod, number: u64) -> TcpStream {
    let mut stream = TcpStream::connect(pod.config.data).await.unwrap();
    let body = format!(r#"{{"client":"raw","number":{number}}}"#);
    let head = "POST /increment HTTP/1.1\r\nhost: counter\r\ncontent-type: application/json";
    let request = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Reads until the answer looks whole, or the connection ends.
async fn answer(stream: &mut TcpStream) -> String {
    let (mut seen, mut buffer) = (String::new(), [0; 4096]);
    while !seen.contains("\"value\"") {
        let read = timeout(PATIENCE, stream.read(&mut buffer)).await.unwrap().unwrap();
        if read == 0 {
            break;
        }
        seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    seen
}

async fn at_its_end(stream: &mut TcpStream) -> bool {
    matches!(timeout(PATIENCE, stream.read(&mut [0; 16])).await.unwrap(), Ok(0))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_freeze_ends_connections_in_order_and_holds_new_ones() {
    let operator = Operator::new();
    let pod = pod("a", 1);
    operator.start(&pod, 1).await;
    let mut idle = ask(&pod, 1).await;
    assert!(answer(&mut idle).await.contains("200 OK"));
    operator.seal(&pod, 2).await;
    assert!(at_its_end(&mut idle).await, "an established connection ends, and is not reset");
    let mut held = ask(&pod, 2).await;
    let gone = ask(&pod, 3).await;
    operator.until(&pod, "two held connections", |report| report.held == 2).await;
    drop(gone);
    operator.until(&pod, "a client that left is dropped", |report| report.held == 1).await;
    operator.thaw(&pod, 3).await.unwrap();
    assert!(answer(&mut held).await.contains("200 OK"), "what it sent while it was held arrived");
    drop(held);
    let audit = audit(&Operator::new(), &pod).await;
    assert_eq!((audit.value, audit.duplicates), (2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_source_held_goes_on_to_the_target_and_so_does_what_comes_later() {
    let operator = Operator::new();
    let (source, target) = (pod("a", 1), pod("b", 2));
    operator.start(&source, 1).await;
    operator.worker(&target, WorkerState::Standby).await;
    let state = operator.seal(&source, 2).await;
    let mut held = ask(&source, 1).await;
    operator.until(&source, "a held connection", |report| report.held == 1).await;
    let mut early = ask(&target, 2).await;
    operator.until(&target, "a connection that waits at the target", |report| report.held == 1).await;
    operator.import(&target, &source, 2, &state).await.unwrap();
    operator.activate(&target, 2, Some(state), Some(&source)).await.unwrap();
    assert!(answer(&mut held).await.contains("200 OK"));
    assert!(answer(&mut early).await.contains("200 OK"));
    let mut late = ask(&source, 3).await;
    assert!(answer(&mut late).await.contains("200 OK"));
    let audit = audit(&Operator::new(), &target).await;
    assert_eq!((audit.value, audit.duplicates), (3, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_bounded_in_number_and_time() {
    let operator = Operator::new();
    let mut pod = Pod::new("a", 1);
    pod.config.protocol = Protocol::Tcp;
    pod.config.hold.requests = 1;
    pod.config.hold.time = Duration::from_millis(300);
    pod.start_sidecar();
    pod.start_counter(|_| {});
    operator.start(&pod, 1).await;
    operator.seal(&pod, 2).await;
    let mut first = ask(&pod, 1).await;
    operator.until(&pod, "a held connection", |report| report.held == 1).await;
    let mut second = TcpStream::connect(pod.config.data).await.unwrap();
    assert!(at_its_end(&mut second).await, "one more than the bound is closed at once");
    // It has sent something that nobody read, so that its system may call this a reset.
    assert!(!matches!(timeout(PATIENCE, first.read(&mut [0; 16])).await.unwrap(), Ok(1..)));
    operator.thaw(&pod, 3).await.unwrap();
    assert_eq!(audit(&Operator::new(), &pod).await.value, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_moves_under_load_and_nothing_acknowledged_is_lost() {
    let operator = Operator::new();
    let first = pod("a", 1);
    operator.start(&first, 1).await;
    let (route, stop) = (Route::to(&first), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..4)
        .map(|client| {
            let (route, stop) = (route.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let (name, mut told) = (format!("client-{client}"), Vec::new());
                for number in 1.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    // A connection of its own: what another one left open may be closed at any moment.
                    let (status, _) = increment(&Operator::new(), route.now(), &name, number).await;
                    told.push((number, status));
                }
                (name, told)
            })
        })
        .collect();
    let mut pods = vec![first];
    for epoch in 2..6 {
        let target = pod(&format!("pod-{epoch}"), epoch);
        operator.hand_over(pods.last().unwrap(), &target, epoch).await;
        route.turn(&target);
        pods.push(target);
    }
    stop.store(true, Ordering::Relaxed);
    let mut told = Vec::new();
    for client in clients {
        told.push(client.await.unwrap());
    }
    let audit = audit(&Operator::new(), pods.last().unwrap()).await;
    let (mut acknowledged, mut unknown) = (0, 0);
    for (client, told) in told {
        for (number, status) in told {
            match status {
                200 => {
                    assert!(holds(&audit, &client, number), "{client} {number} was acknowledged and is lost");
                    acknowledged += 1;
                }
                _ => unknown += 1,
            }
        }
    }
    assert_eq!(audit.duplicates, 0);
    assert!(
        (acknowledged..=acknowledged + unknown).contains(&audit.value),
        "{acknowledged} {unknown} {audit:?}"
    );
    assert!(acknowledged > 16, "the clients did next to nothing: {acknowledged}");
}

//! Clients that never retry and know only the stable address; what they were told is compared with what is there.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use tokio::task::JoinHandle;

use super::Pod;
use super::operator::{Operator, parse};

/// The stable address.
#[derive(Clone)]
pub struct Route(Arc<Mutex<SocketAddr>>);

impl Route {
    pub fn to(pod: &Pod) -> Self {
        Self(Arc::new(Mutex::new(pod.config.data)))
    }

    pub fn turn(&self, pod: &Pod) {
        *self.0.lock().unwrap() = pod.config.data;
    }

    pub fn now(&self) -> SocketAddr {
        *self.0.lock().unwrap()
    }
}

/// Clients that count up as fast as they can.
pub struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<(String, Vec<Told>)>>,
}

/// What one request was answered.
#[derive(Clone, Debug)]
pub struct Told {
    pub number: u64,
    /// The status, 0 for a broken connection.
    pub status: u16,
    pub body: Bytes,
}

impl Load {
    pub fn start(route: &Route, clients: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let clients = (0..clients)
            .map(|client| {
                let (route, stop) = (route.clone(), Arc::clone(&stop));
                tokio::spawn(async move {
                    let name = format!("client-{client}");
                    let http = Operator::new();
                    let mut told = Vec::new();
                    for number in 1.. {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        let (status, body) = increment(&http, route.now(), &name, number).await;
                        told.push(Told { number, status, body });
                        if status == 0 {
                            break;
                        }
                    }
                    (name, told)
                })
            })
            .collect();
        Self { stop, clients }
    }

    /// Stops the clients; what each was told.
    pub async fn stop(self) -> Vec<(String, Vec<Told>)> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for client in self.clients {
            all.push(client.await.unwrap());
        }
        all
    }
}

pub async fn increment(http: &Operator, at: SocketAddr, client: &str, number: u64) -> (u16, Bytes) {
    let body = serde_json::json!({ "client": client, "number": number }).to_string();
    let mut headers = HeaderMap::new();
    headers.insert("content-type", "application/json".parse().unwrap());
    match http.ask(at, Method::POST, "/increment", headers, body.into()).await {
        Ok((status, body)) => (status.as_u16(), body),
        Err(_) => (0, Bytes::new()),
    }
}

pub async fn audit(http: &Operator, pod: &Pod) -> counter::Audit {
    let (status, body) = http.get(pod.config.data, "/audit", HeaderMap::new()).await;
    assert_eq!(status, StatusCode::OK, "{body:?}");
    parse(&body)
}

pub fn holds(audit: &counter::Audit, client: &str, number: u64) -> bool {
    audit
        .clients
        .get(client)
        .is_some_and(|ranges| ranges.iter().any(|(from, to)| (*from..=*to).contains(&number)))
}

/// Every client got 200 for everything, all of it is there, nothing twice; how many requests that were.
pub async fn nothing_lost(http: &Operator, owner: &Pod, told: Vec<(String, Vec<Told>)>) -> u64 {
    let audit = audit(http, owner).await;
    assert_eq!(audit.duplicates, 0);
    let mut total = 0;
    for (client, told) in told {
        for told in told {
            assert_eq!(told.status, 200, "{client} {}: {:?}", told.number, told.body);
            assert!(
                holds(&audit, &client, told.number),
                "{client} {} was acknowledged and is lost",
                told.number
            );
            total += 1;
        }
    }
    assert_eq!(audit.value, total, "something was done that nobody was told of");
    total
}

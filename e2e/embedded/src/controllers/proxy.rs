//! The service proxy: listens at each Service's own address and carries connections to its endpoints.
//!
//! A Service without endpoints refuses connections, as kube-proxy's rules do. Established connections stay with their
//! endpoint until one side closes them, whatever becomes of the slice.

use super::endpoints::service_of;
use crate::api::handle::{Batch, Link};
use crate::api::object::{Key, list, text};
use crate::api::store::{Change, ResourceId};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

const BUFFER: usize = 64 << 10;

type Routes = BTreeMap<SocketAddr, Vec<SocketAddr>>;

/// Runs until it is aborted, which closes every listener and connection.
pub async fn run(link: Link) {
    let mut services = link.feed(ResourceId::new("", "services"));
    let mut slices = link.feed(ResourceId::new("discovery.k8s.io", "endpointslices"));
    let mut known = Known::default();
    let mut listeners: BTreeMap<SocketAddr, (watch::Sender<Vec<SocketAddr>>, tokio::task::AbortHandle)> =
        BTreeMap::new();
    let mut tasks = JoinSet::new();
    let (connections, mut accepted) = tokio::sync::mpsc::unbounded_channel::<(TcpStream, SocketAddr)>();
    loop {
        let touched = tokio::select! {
            batch = services.next() => known.services(batch),
            batch = slices.next() => known.slices(batch),
            Some((client, backend)) = accepted.recv() => {
                tasks.spawn(carry(client, backend));
                continue;
            }
            Some(_) = tasks.join_next() => continue,
        };
        for service in touched {
            for (address, backends) in known.update(&service) {
                if backends.is_empty() {
                    if let Some((_, task)) = listeners.remove(&address) {
                        task.abort();
                    }
                } else if let Some((sender, _)) = listeners.get(&address) {
                    sender.send_replace(backends);
                } else if let Ok(listener) = bind(address) {
                    let (sender, receiver) = watch::channel(backends);
                    let task = tasks.spawn(accept(listener, receiver, connections.clone()));
                    listeners.insert(address, (sender, task));
                }
            }
        }
    }
}

fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let bound = crate::serve::bind(address);
    if let Err(error) = &bound {
        tracing::warn!(%address, %error, "a service's address cannot be listened at");
    }
    bound
}

async fn accept(
    listener: TcpListener,
    backends: watch::Receiver<Vec<SocketAddr>>,
    connections: tokio::sync::mpsc::UnboundedSender<(TcpStream, SocketAddr)>,
) {
    let mut turn = 0_usize;
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        let backend = {
            let backends = backends.borrow();
            backends.get(turn.checked_rem(backends.len()).unwrap_or_default()).copied()
        };
        turn = turn.wrapping_add(1);
        let Some(backend) = backend else { continue };
        if connections.send((client, backend)).is_err() {
            return;
        }
    }
}

async fn carry(mut client: TcpStream, backend: SocketAddr) {
    let carried = async {
        let mut server = TcpStream::connect(backend).await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER, BUFFER).await
    };
    if carried.await.is_err() {
        // What the endpoint did abruptly, or refused, reaches the client as a reset and not as an orderly end.
        let _ = client.set_zero_linger();
    }
}

/// Services and slices, and what was last made of them.
#[derive(Debug, Default)]
struct Known {
    services: BTreeMap<Key, Arc<Value>>,
    slices: BTreeMap<Key, Arc<Value>>,
    routes: BTreeMap<Key, Routes>,
}

impl Known {
    fn services(&mut self, batch: Batch) -> BTreeSet<Key> {
        match batch {
            Batch::Snapshot(all) => {
                let mut touched: BTreeSet<Key> = self.services.keys().cloned().collect();
                self.services = all.into_iter().map(|s| (Key::of(&s), s)).collect();
                touched.extend(self.services.keys().cloned());
                touched
            }
            Batch::Events(events) => events
                .into_iter()
                .map(|event| {
                    let key = Key::of(&event.object);
                    match event.change {
                        Change::Deleted => self.services.remove(&key),
                        Change::Added | Change::Modified => {
                            self.services.insert(key.clone(), event.object.clone())
                        }
                    };
                    key
                })
                .collect(),
        }
    }

    fn slices(&mut self, batch: Batch) -> BTreeSet<Key> {
        match batch {
            Batch::Snapshot(all) => {
                let mut touched: BTreeSet<Key> = self.slices.values().map(|s| service_of(s)).collect();
                self.slices = all.into_iter().map(|s| (Key::of(&s), s)).collect();
                touched.extend(self.slices.values().map(|s| service_of(s)));
                touched
            }
            Batch::Events(events) => events
                .into_iter()
                .flat_map(|event| {
                    let key = Key::of(&event.object);
                    let before = match event.change {
                        Change::Deleted => self.slices.remove(&key),
                        Change::Added | Change::Modified => self.slices.insert(key, event.object.clone()),
                    };
                    [Some(service_of(&event.object)), before.map(|b| service_of(&b))]
                })
                .flatten()
                .collect(),
        }
    }

    /// What has changed for a Service: the endpoints of each of its addresses, empty where there are none any more.
    fn update(&mut self, service: &Key) -> Routes {
        let slices: Vec<&Value> = self
            .slices
            .range(Key::new(service.namespace.clone(), "")..)
            .take_while(|(key, _)| key.namespace == service.namespace)
            .map(|(_, slice)| &**slice)
            .filter(|slice| service_of(slice) == *service)
            .collect();
        let new = self.services.get(service).map(|s| routes(s, &slices)).unwrap_or_default();
        let old = self.routes.insert(service.clone(), new.clone()).unwrap_or_default();
        if new.is_empty() {
            self.routes.remove(service);
        }
        let gone = old.keys().filter(|a| !new.contains_key(a)).map(|a| (*a, Vec::new()));
        let mut changed: Routes = gone.collect();
        changed.extend(new.into_iter().filter(|(a, b)| old.get(a) != Some(b)));
        changed
    }
}

/// Where connections to each address of a Service go. Ready endpoints; if there are none, those that terminate and still
/// serve.
fn routes(service: &Value, slices: &[&Value]) -> Routes {
    let Ok(address) = text(service, "/spec/clusterIP").parse::<IpAddr>() else { return Routes::new() };
    let mut routes = Routes::new();
    for port in list(service, "/spec/ports").iter().filter(|p| ["", "TCP"].contains(&text(p, "/protocol"))) {
        let Some(number) = port["port"].as_u64().and_then(|n| u16::try_from(n).ok()) else { continue };
        let (mut ready, mut serving) = (Vec::new(), Vec::new());
        for slice in slices {
            let named = list(slice, "/ports").iter().find(|p| text(p, "/name") == text(port, "/name"));
            let Some(target) = named.and_then(|p| p["port"].as_u64()).and_then(|n| u16::try_from(n).ok())
            else {
                continue;
            };
            for endpoint in list(slice, "/endpoints") {
                let holds = |name: &str, otherwise: bool| {
                    endpoint
                        .pointer(&format!("/conditions/{name}"))
                        .and_then(Value::as_bool)
                        .unwrap_or(otherwise)
                };
                let Ok(ip) = text(endpoint, "/addresses/0").parse::<IpAddr>() else { continue };
                let backend = SocketAddr::new(ip, target);
                let is_ready = holds("ready", true);
                if is_ready {
                    ready.push(backend);
                } else if holds("serving", is_ready) && holds("terminating", false) {
                    serving.push(backend);
                }
            }
        }
        let backends = if ready.is_empty() { serving } else { ready };
        if !backends.is_empty() {
            routes.insert(SocketAddr::new(address, number), backends);
        }
    }
    routes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::store::Event;
    use serde_json::json;

    fn service() -> Value {
        json!({"metadata": {"name": "s", "namespace": "d"}, "spec": {"clusterIP": "127.2.0.1",
            "ports": [{"port": 80, "protocol": "TCP"}]}})
    }

    fn slice(conditions: Value) -> Value {
        json!({"metadata": {"name": "s-1", "namespace": "d", "labels": {"kubernetes.io/service-name": "s"}}, "ports": [{"port": 8080}],
            "endpoints": [{"addresses": ["127.0.1.1"], "conditions": conditions}]})
    }

    fn backends(conditions: Value) -> usize {
        routes(&service(), &[&slice(conditions)]).values().map(Vec::len).sum()
    }

    #[test]
    fn ready_endpoints_or_else_terminating_ones_that_serve() {
        assert_eq!(backends(json!({})), 1);
        assert_eq!(backends(json!({"ready": false})), 0);
        assert_eq!(backends(json!({"ready": false, "serving": true, "terminating": true})), 1);
        assert_eq!(backends(json!({"ready": false, "serving": false, "terminating": true})), 0);
        let mut headless = service();
        headless["spec"]["clusterIP"] = "None".into();
        assert!(routes(&headless, &[&slice(json!({}))]).is_empty());
    }

    #[test]
    fn only_what_has_changed_is_told() {
        let mut known = Known::default();
        let key = Key::new("d", "s");
        assert_eq!(known.services(Batch::Snapshot(vec![Arc::new(service())])), BTreeSet::from([key.clone()]));
        assert!(known.update(&key).is_empty());
        let event = |object: Value, change| {
            Batch::Events(vec![Arc::new(Event {
                revision: 1,
                change,
                object: Arc::new(object),
                previous: None,
            })])
        };
        known.slices(event(slice(json!({})), Change::Added));
        assert_eq!(known.update(&key).len(), 1);
        assert!(known.update(&key).is_empty());
        known.slices(event(slice(json!({})), Change::Deleted));
        assert_eq!(known.update(&key).values().next(), Some(&Vec::new()));
    }
}

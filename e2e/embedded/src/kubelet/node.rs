//! A node's kubelet: registers the node, renews its Lease, and has a worker for every pod that is bound to it.

use super::worker::{self, View};
use crate::api::error::{ApiError, Result};
use crate::api::handle::{Batch, Link};
use crate::api::object::{self, Key, text};
use crate::api::registry::{Part, Registry, WriteOptions};
use crate::api::store::{Change, ResourceId};
use crate::options::Options;
use crate::processes::{Groups, Pids};
use crate::subnet::Subnet;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

/// What every pod of a node shares.
#[derive(Debug)]
pub struct NodeContext {
    /// The node's name.
    pub name: String,
    /// Its number, from 1.
    pub number: u8,
    /// Its address.
    pub address: Ipv4Addr,
    /// Where its pods' files are.
    pub directory: PathBuf,
    /// The kubeconfig that pods get.
    pub kubeconfig: PathBuf,
    /// The way to the API server.
    pub link: Link,
    /// The cluster's options.
    pub options: Arc<Options>,
    /// The addresses.
    pub subnet: Arc<Subnet>,
    /// The process groups.
    pub groups: Arc<Groups>,
    /// Which process is which container.
    pub pids: Arc<Pids>,
    /// Whose turn it is to start a container.
    pub starts: Arc<Semaphore>,
}

struct Managed {
    views: watch::Sender<View>,
    address: u8,
}

struct Node {
    context: Arc<NodeContext>,
    pods: BTreeMap<String, Managed>,
    workers: JoinSet<String>,
    last_address: u8,
}

/// Runs the kubelet until its task is aborted, which is the node's loss of power.
pub async fn run(context: Arc<NodeContext>) {
    let mut node = Node { pods: BTreeMap::new(), workers: JoinSet::new(), last_address: 0, context };
    let mut feed = node.context.link.feed(ResourceId::new("", "pods"));
    let mut heartbeat = interval(node.context.options.lease_period);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut registered = false;
    loop {
        tokio::select! {
            _ = heartbeat.tick() => registered = node.heartbeat(registered),
            batch = feed.next(), if registered => node.take(batch),
            Some(over) = node.workers.join_next() => {
                if let Ok(uid) = over {
                    node.pods.remove(&uid);
                }
            }
        }
    }
}

impl Node {
    fn take(&mut self, batch: Batch) {
        match batch {
            Batch::Snapshot(pods) => {
                let mine: Vec<Arc<Value>> = pods.into_iter().filter(|p| self.is_mine(p)).collect();
                for (uid, managed) in &self.pods {
                    if !mine.iter().any(|p| object::uid(p) == uid) {
                        managed.views.send_replace(View::Removed);
                    }
                }
                for pod in mine {
                    self.see(pod);
                }
            }
            Batch::Events(events) => {
                for event in events {
                    if !self.is_mine(&event.object) {
                        continue;
                    }
                    match event.change {
                        Change::Added | Change::Modified => self.see(event.object.clone()),
                        Change::Deleted => {
                            if let Some(managed) = self.pods.get(object::uid(&event.object)) {
                                managed.views.send_replace(View::Removed);
                            }
                        }
                    }
                }
            }
        }
    }

    fn is_mine(&self, pod: &Value) -> bool {
        text(pod, "/spec/nodeName") == self.context.name
    }

    fn see(&mut self, pod: Arc<Value>) {
        let uid = object::uid(&pod).to_owned();
        if let Some(managed) = self.pods.get(&uid) {
            managed.views.send_replace(View::Present(pod));
            return;
        }
        let Some(address) = self.free_address() else {
            self.refuse(&pod);
            return;
        };
        let (views, receiver) = watch::channel(View::Present(pod.clone()));
        let ip = self.context.subnet.pod(self.context.number, address);
        let work = worker::run(self.context.clone(), pod, ip, receiver);
        self.pods.insert(uid.clone(), Managed { views, address });
        self.workers.spawn(async move {
            work.await;
            uid
        });
    }

    /// The next address that no pod has; addresses are not used again soon, so that late packets meet nobody.
    fn free_address(&mut self) -> Option<u8> {
        if self.pods.len() >= self.context.options.pods_per_node.min(254) {
            return None;
        }
        let next = |after: u8| if after >= 254 { 1 } else { after + 1 };
        let mut candidate = next(self.last_address);
        while self.pods.values().any(|m| m.address == candidate) {
            candidate = next(candidate);
        }
        self.last_address = candidate;
        Some(candidate)
    }

    fn refuse(&self, pod: &Value) {
        let status = json!({"phase": "Failed", "reason": "OutOfpods",
            "message": "Pod was rejected: Node didn't have enough resource: pods"});
        let key = Key::of(pod);
        let refused = self.context.link.call(|registry| {
            let kind = registry.catalog().find("", "v1", "pods").ok_or_else(ApiError::unavailable)?;
            let mut new = (*registry.get(&kind, &key)?).clone();
            new["status"] = status;
            registry.replace(&kind, &key, Part::Status, new, &WriteOptions::trusted())
        });
        if let Err(error) = refused {
            tracing::warn!(%key, %error, "a pod that has no room could not be refused");
        }
    }

    /// Renews the Lease and keeps the node's condition; returns whether the node is registered.
    fn heartbeat(&self, registered: bool) -> bool {
        let context = &self.context;
        let beat = context.link.call(|registry| {
            renew(registry, &context.name)?;
            report(registry, context, registered)
        });
        match beat {
            Ok(()) => true,
            // While the node is cut off it stays what it was.
            Err(error) => {
                tracing::debug!(node = context.name, %error, "no heartbeat");
                registered
            }
        }
    }
}

fn renew(registry: &mut Registry, name: &str) -> Result<()> {
    let kind =
        registry.catalog().find("coordination.k8s.io", "v1", "leases").ok_or_else(ApiError::unavailable)?;
    let key = Key::new("kube-node-lease", name);
    let time = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
    match registry.get(&kind, &key) {
        Ok(lease) => {
            let mut lease = (*lease).clone();
            lease["spec"]["renewTime"] = time.into();
            registry.replace(&kind, &key, Part::Main, lease, &WriteOptions::trusted()).map(drop)
        }
        Err(_) => {
            let lease = json!({"metadata": {"name": name, "namespace": key.namespace},
                "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": time}});
            registry.create(&kind, &key.namespace, lease, &WriteOptions::trusted()).map(drop)
        }
    }
}

/// Creates the node at the kubelet's start; afterwards only corrects its condition. A node that somebody deleted is not
/// registered again until its kubelet starts anew.
fn report(registry: &mut Registry, context: &NodeContext, registered: bool) -> Result<()> {
    let kind = registry.catalog().find("", "v1", "nodes").ok_or_else(ApiError::unavailable)?;
    let key = Key::cluster(context.name.clone());
    let wanted = status(context);
    match registry.get(&kind, &key) {
        Err(_) if registered => Ok(()),
        Err(_) => {
            let labels = json!({"kubernetes.io/hostname": context.name, "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64"});
            let node = json!({"metadata": {"name": context.name, "labels": labels}, "status": wanted});
            registry.create(&kind, "", node, &WriteOptions::trusted()).map(drop)
        }
        Ok(node) if registered && object::is_true(&node, "Ready") => Ok(()),
        Ok(node) => {
            let mut node = (*node).clone();
            node["status"] = wanted;
            registry.replace(&kind, &key, Part::Status, node, &WriteOptions::trusted()).map(drop)
        }
    }
}

fn status(context: &NodeContext) -> Value {
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let condition = |kind: &str, holds: &str, reason: &str, message: &str| {
        json!({"type": kind, "status": holds, "reason": reason, "message": message, "lastHeartbeatTime": now,
            "lastTransitionTime": now})
    };
    let capacity =
        json!({"cpu": "2", "memory": "8Gi", "pods": context.options.pods_per_node.min(254).to_string()});
    json!({
        "capacity": capacity, "allocatable": capacity,
        "addresses": [{"type": "InternalIP", "address": context.address}, {"type": "Hostname", "address": context.name}],
        "conditions": [
            condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            condition("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
        ],
        "nodeInfo": {"kubeletVersion": "v1.35.0+embedded", "kubeProxyVersion": "", "osImage": "processes of one machine",
            "kernelVersion": "", "containerRuntimeVersion": "process://1", "operatingSystem": "linux",
            "architecture": "amd64", "machineID": "", "systemUUID": "", "bootID": ""},
    })
}

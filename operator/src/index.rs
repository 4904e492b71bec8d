//! What the watches hold, found by process: its pods, and where its stable address points.
//!
//! kube's stores find an object by its own name only; with 100 000 processes a search through all pods for each of
//! them would be the slowest thing that the operator does. A cache may be late or wrong: nothing that destroys is
//! decided on it without a live read.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::runtime::watcher::Event;
use processhub_crds::vocabulary::label;
use processhub_protocol::id::PodUid;
use processhub_protocol::ledger::PodRef;

use crate::process::incarnation::PodFacts;

/// A process by namespace and name, whichever its UID.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessName {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// Values by their owner and name, kept up by a watch.
#[derive(Debug)]
struct Watched<V> {
    by_owner: HashMap<ProcessName, BTreeMap<String, V>>,
    /// During a new listing: what it has named so far.
    listed: Option<HashSet<(ProcessName, String)>>,
}

impl<V> Default for Watched<V> {
    fn default() -> Self {
        Self { by_owner: HashMap::new(), listed: None }
    }
}

impl<V> Watched<V> {
    fn put(&mut self, owner: ProcessName, name: String, value: V) {
        if let Some(listed) = &mut self.listed {
            listed.insert((owner.clone(), name.clone()));
        }
        self.by_owner.entry(owner).or_default().insert(name, value);
    }

    fn remove(&mut self, owner: &ProcessName, name: &str) {
        if let Some(of_owner) = self.by_owner.get_mut(owner) {
            of_owner.remove(name);
            if of_owner.is_empty() {
                self.by_owner.remove(owner);
            }
        }
    }

    fn begin_listing(&mut self) {
        self.listed = Some(HashSet::new());
    }

    /// Drops what the listing did not name, and says whose it was. `last` sees each before it goes.
    fn end_listing(&mut self, mut last: impl FnMut(&V)) -> Vec<ProcessName> {
        let listed = self.listed.take().unwrap_or_default();
        let mut changed = Vec::new();
        self.by_owner.retain(|owner, values| {
            let before = values.len();
            values.retain(|name, value| {
                let named = listed.contains(&(owner.clone(), name.clone()));
                if !named {
                    last(value);
                }
                named
            });
            if values.len() != before {
                changed.push(owner.clone());
            }
            !values.is_empty()
        });
        changed
    }
}

/// So many pods are remembered that had ended when their objects went.
const ENDED: usize = 4096;

/// The pods of all processes.
#[derive(Debug, Default)]
pub struct Pods(Mutex<Watched<Arc<PodFacts>>>, Mutex<Ended>);

/// Pods that are gone, and of which the kubelet had reported before that every container has ended: the newest of them.
#[derive(Debug, Default)]
struct Ended {
    known: HashSet<PodUid>,
    order: VecDeque<PodUid>,
}

impl Ended {
    fn note(&mut self, pod: &PodUid) {
        if self.known.insert(pod.clone()) {
            self.order.push_back(pod.clone());
        }
        if self.order.len() > ENDED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

impl Pods {
    /// Takes in what the watch says; returns the processes for which something changed.
    pub fn observe(&self, event: &Event<Pod>) -> Vec<ProcessName> {
        let mut pods = lock(&self.0);
        match event {
            Event::Apply(pod) | Event::InitApply(pod) => {
                let Some(facts) = PodFacts::of(pod) else { return Vec::new() };
                let owner = owner_of(&facts);
                let known = pods.by_owner.get(&owner).and_then(|of_owner| of_owner.get(&facts.name));
                // Most updates of a pod (a probe's time, a condition of others) change nothing here.
                let same = known.is_some_and(|known| **known == facts);
                pods.put(owner.clone(), facts.name.clone(), Arc::new(facts));
                if same { Vec::new() } else { vec![owner] }
            }
            Event::Delete(pod) => {
                let Some(facts) = PodFacts::of(pod) else { return Vec::new() };
                let owner = owner_of(&facts);
                let known = pods.by_owner.get(&owner).and_then(|of_owner| of_owner.get(&facts.name));
                // Only of a pod that was asked to go before: its kubelet knew, and starts nothing of it again. One that
                // is deleted by force may have been caught between two starts.
                if known.is_some_and(|known| {
                    known.uid == facts.uid && (known.ended || (known.going() && facts.ended))
                }) {
                    lock(&self.1).note(&facts.uid);
                }
                pods.remove(&owner, &facts.name);
                vec![owner]
            }
            Event::Init => {
                pods.begin_listing();
                Vec::new()
            }
            Event::InitDone => pods.end_listing(|known| {
                if known.ended {
                    lock(&self.1).note(&known.uid);
                }
            }),
        }
    }

    /// Whether this pod is gone, and its kubelet had reported before that every container has ended. Of some thousands
    /// of the newest; that it is not known proves nothing.
    #[must_use]
    pub fn had_ended(&self, pod: &PodUid) -> bool {
        lock(&self.1).known.contains(pod)
    }

    /// The pods that carry the name of this process, also those of an older object of that name.
    #[must_use]
    pub fn of(&self, process: &ProcessName) -> Vec<Arc<PodFacts>> {
        lock(&self.0).by_owner.get(process).map(|pods| pods.values().cloned().collect()).unwrap_or_default()
    }

    /// One pod that is known by name and UID.
    #[must_use]
    pub fn find(&self, namespace: &str, pod: &PodRef) -> Option<Arc<PodFacts>> {
        let (process, _) = pod.name.rsplit_once('-')?;
        let owner = ProcessName { namespace: namespace.to_owned(), name: process.to_owned() };
        let pods = lock(&self.0);
        pods.by_owner.get(&owner)?.get(&pod.name).filter(|facts| facts.uid == pod.uid).cloned()
    }

    /// All pods of a hub.
    #[must_use]
    pub fn of_hub(&self, namespace: &str, hub: &str) -> Vec<Arc<PodFacts>> {
        let pods = lock(&self.0);
        let all = pods.by_owner.values().flat_map(BTreeMap::values);
        all.filter(|facts| facts.namespace == namespace && facts.hub == hub).cloned().collect()
    }

    /// All pods that were asked to go.
    #[must_use]
    pub fn going(&self) -> Vec<Arc<PodFacts>> {
        let pods = lock(&self.0);
        pods.by_owner.values().flat_map(BTreeMap::values).filter(|facts| facts.going()).cloned().collect()
    }
}

/// Where the stable addresses point.
#[derive(Debug, Default)]
pub struct Routes(Mutex<Watched<Route>>);

#[derive(Clone, Debug)]
struct Route {
    to: Option<Routed>,
    version: u64,
}

/// Where a stable address points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routed {
    /// The pod.
    pub pod: PodUid,
    /// Its address, as it was then: a pod whose machine was started anew has another one.
    pub address: String,
}

impl Routes {
    /// Takes in what the watch says; returns the processes for which something changed.
    pub fn observe(&self, event: &Event<EndpointSlice>) -> Vec<ProcessName> {
        let mut routes = lock(&self.0);
        match event {
            Event::Apply(slice) | Event::InitApply(slice) => put_route(&mut routes, slice),
            Event::Delete(slice) => {
                let Some(owner) = route_owner(slice) else { return Vec::new() };
                routes.remove(&owner, &slice.name_any());
                vec![owner]
            }
            Event::Init => {
                routes.begin_listing();
                Vec::new()
            }
            Event::InitDone => routes.end_listing(|_| ()),
        }
    }

    /// Takes in the answer to a write of our own, which the watch may be behind of.
    pub fn written(&self, slice: &EndpointSlice) {
        put_route(&mut lock(&self.0), slice);
    }

    /// Where the stable address of this process points.
    #[must_use]
    pub fn of(&self, process: &ProcessName) -> Option<Routed> {
        lock(&self.0).by_owner.get(process)?.values().find_map(|route| route.to.clone())
    }
}

fn put_route(routes: &mut Watched<Route>, slice: &EndpointSlice) -> Vec<ProcessName> {
    let Some(owner) = route_owner(slice) else { return Vec::new() };
    let name = slice.name_any();
    let version = slice.resource_version().and_then(|version| version.parse().ok()).unwrap_or(u64::MAX);
    let known = routes.by_owner.get(&owner).and_then(|of_owner| of_owner.get(&name));
    if known.is_some_and(|known| known.version > version) {
        // Older than our own write; but it is there, and a listing must not drop it.
        let known = known.cloned();
        if let Some(known) = known {
            routes.put(owner, name, known);
        }
        return Vec::new();
    }
    let to = slice.endpoints.iter().flatten().find_map(|endpoint| {
        let pod = PodUid(endpoint.target_ref.as_ref()?.uid.clone()?);
        Some(Routed { pod, address: endpoint.addresses.first()?.clone() })
    });
    let same = known.is_some_and(|known| known.to == to);
    routes.put(owner.clone(), name, Route { to, version });
    if same { Vec::new() } else { vec![owner] }
}

fn route_owner(slice: &EndpointSlice) -> Option<ProcessName> {
    let name = slice.labels().get(label::PROCESS)?.clone();
    Some(ProcessName { namespace: slice.namespace()?, name })
}

fn owner_of(facts: &PodFacts) -> ProcessName {
    ProcessName { namespace: facts.namespace.clone(), name: facts.process_name.clone() }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::incarnation::tests::pod;
    use serde_json::json;

    fn cart() -> ProcessName {
        ProcessName { namespace: "shop".into(), name: "cart-3".into() }
    }

    fn slice(uid: &str, version: &str) -> EndpointSlice {
        serde_json::from_value(json!({
            "metadata": { "name": "cart-3", "namespace": "shop", "resourceVersion": version,
                          "labels": { "processhub.io/process": "cart-3" } },
            "addressType": "IPv4",
            "endpoints": [{ "addresses": ["10.0.0.1"], "targetRef": { "uid": uid } }],
        }))
        .unwrap()
    }

    #[test]
    fn pods_are_found_by_process_and_only_a_change_wakes_it() {
        let pods = Pods::default();
        let event = Event::Apply(pod(json!({ "phase": "Pending" })));
        assert_eq!(pods.observe(&event), [cart()]);
        assert_eq!(pods.observe(&event), []);
        assert_eq!(pods.of(&cart()).len(), 1);
        assert_eq!(pods.observe(&Event::Delete(pod(json!({})))), [cart()]);
        assert!(pods.of(&cart()).is_empty());
    }

    #[test]
    fn a_pod_that_a_new_listing_does_not_name_is_gone() {
        let pods = Pods::default();
        pods.observe(&Event::Apply(pod(json!({}))));
        pods.observe(&Event::Init);
        assert_eq!(pods.of(&cart()).len(), 1, "nothing is dropped while the listing is under way");
        assert_eq!(pods.observe(&Event::InitDone), [cart()]);
        assert!(pods.of(&cart()).is_empty());
    }

    #[test]
    fn what_the_kubelet_reported_of_a_pod_outlives_its_object() {
        let ended = json!({ "phase": "Succeeded", "containerStatuses": [{ "name": "worker", "image": "",
            "imageID": "", "ready": false, "restartCount": 0, "state": { "terminated": { "exitCode": 0 } } }] });
        let going = |status: serde_json::Value| {
            let mut pod = pod(status);
            pod.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
            pod
        };
        let uid = PodUid::from("pod-18");
        let after = |events: &[Event<Pod>]| {
            let pods = Pods::default();
            for event in events {
                pods.observe(event);
            }
            pods.had_ended(&uid)
        };
        assert!(after(&[Event::Apply(going(ended.clone())), Event::Delete(pod(json!({})))]));
        assert!(after(&[Event::Apply(going(json!({}))), Event::Delete(going(ended.clone()))]));
        assert!(after(&[Event::Apply(going(ended.clone())), Event::Init, Event::InitDone]));
        // By force, while it ran or between two starts of its containers.
        assert!(!after(&[Event::Apply(pod(json!({ "phase": "Running" }))), Event::Delete(pod(json!({})))]));
        let crashed = json!({ "phase": "Running", "containerStatuses": ended["containerStatuses"] });
        assert!(!after(&[Event::Apply(pod(crashed.clone())), Event::Delete(going(crashed))]));
        assert!(!after(&[Event::Apply(going(ended))]), "its object is there and says so itself");
    }

    #[test]
    fn only_the_newest_of_the_ended_pods_are_remembered() {
        let mut ended = Ended::default();
        for pod in 0..=ENDED {
            ended.note(&PodUid(pod.to_string()));
            ended.note(&PodUid(pod.to_string()));
        }
        assert_eq!((ended.known.len(), ended.order.len()), (ENDED, ENDED));
        assert!(!ended.known.contains(&PodUid::from("0")) && ended.known.contains(&PodUid::from("1")));
    }

    #[test]
    fn a_late_watch_event_does_not_undo_what_was_written_since() {
        let routes = Routes::default();
        routes.written(&slice("new", "12"));
        assert_eq!(routes.observe(&Event::Apply(slice("old", "11"))), []);
        assert_eq!(routes.of(&cart()), Some(Routed { pod: "new".into(), address: "10.0.0.1".into() }));
        assert_eq!(routes.observe(&Event::Apply(slice("newer", "13"))), [cart()]);
        assert_eq!(routes.observe(&Event::Delete(slice("newer", "14"))), [cart()]);
        assert_eq!(routes.of(&cart()), None);
    }
}

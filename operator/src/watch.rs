//! The watches: they fill stores and indexes, and name what has to be looked at again. They decide nothing.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::channel::mpsc::UnboundedSender;
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::core::DeserializeGuard;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher::{self, Config, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use processhub_crds::vocabulary::label;
use processhub_crds::{HubProcess, ProcessHub};
use processhub_protocol::id::ProcessUid;
use serde::de::DeserializeOwned;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::assignments::{HubKey, ProcessKey, Wakeups};
use crate::context::Context;
use crate::hub;
use crate::index::ProcessName;
use crate::process::incarnation::PodFacts;
use crate::process::{release, stop};
use crate::transfer;

/// How often pods that are going are looked at without an event.
const FAREWELL: Duration = Duration::from_secs(5);
const FAREWELLS_AT_ONCE: usize = 16;

/// Where the names of what has to be looked at go. They coalesce in the queues of the loops.
#[derive(Clone, Debug)]
pub(crate) struct Wake {
    /// To the process loop.
    pub processes: UnboundedSender<ProcessName>,
    /// To the hub loop.
    pub hubs: UnboundedSender<HubKey>,
}

impl Wake {
    fn process(&self, process: ProcessName) {
        // A loop that is gone is one that was told to stop.
        let _ = self.processes.unbounded_send(process);
    }

    fn hub(&self, hub: HubKey) {
        let _ = self.hubs.unbounded_send(hub);
    }

    /// Everything that is known: after leadership was acquired.
    pub(crate) fn all(&self, context: &Context) {
        for process in context.stores.processes.state() {
            self.process(named(&*process));
        }
        self.all_hubs(context);
    }

    fn all_hubs(&self, context: &Context) {
        for hub in context.stores.hubs.state() {
            let ProcessName { namespace, name } = named(&*hub);
            self.hub(HubKey { namespace, name });
        }
    }

    /// Passes on what the two loops tell each other.
    pub(crate) async fn relay(self, wakeups: Wakeups) {
        let Wakeups { processes, hubs } = wakeups;
        let processes = processes.for_each(|ProcessKey { uid: _, namespace, name }| {
            self.process(ProcessName { namespace, name });
            std::future::ready(())
        });
        let hubs = hubs.for_each(|hub| {
            self.hub(hub);
            std::future::ready(())
        });
        futures::join!(processes, hubs);
    }
}

fn named<K: Resource>(object: &K) -> ProcessName {
    ProcessName { namespace: object.namespace().unwrap_or_default(), name: object.name_any() }
}

/// The events of a watch for ever, with pauses after errors. An object that cannot be read is left out and named: one
/// of them keeps no other from being seen.
fn readable<K>(client: &Client) -> BoxStream<'static, Event<K>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let api = Api::<DeserializeGuard<K>>::all(client.clone());
    let events = watcher(api, Config::default()).default_backoff();
    events.filter_map(|event| std::future::ready(event.map_or_else(failed, read))).boxed()
}

/// As [`readable`], of a built-in kind, with our label of that name.
fn labelled<K>(client: &Client, label: &str) -> BoxStream<'static, Event<K>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let events = watcher(Api::<K>::all(client.clone()), Config::default().labels(label)).default_backoff();
    events.filter_map(|event| std::future::ready(event.map_or_else(failed, Some))).boxed()
}

fn failed<K: Resource<DynamicType = ()>>(error: watcher::Error) -> Option<Event<K>> {
    tracing::warn!(kind = %K::kind(&()), %error, "a watch failed; it is begun again");
    None
}

fn read<K: Resource<DynamicType = ()>>(event: Event<DeserializeGuard<K>>) -> Option<Event<K>> {
    let readable = |DeserializeGuard(object): DeserializeGuard<K>| match object {
        Ok(mut object) => {
            object.meta_mut().managed_fields = None;
            Some(object)
        }
        Err(unreadable) => {
            let name = unreadable.metadata.name.as_deref().unwrap_or("?");
            tracing::error!(kind = %K::kind(&()), name, error = unreadable.error, "an object cannot be read");
            None
        }
    };
    match event {
        Event::Apply(object) => readable(object).map(Event::Apply),
        Event::InitApply(object) => readable(object).map(Event::InitApply),
        Event::Delete(object) => readable(object).map(Event::Delete),
        Event::Init => Some(Event::Init),
        Event::InitDone => Some(Event::InitDone),
    }
}

/// The object that an event is about.
fn touched<K>(event: &Event<K>) -> Option<&K> {
    match event {
        Event::Apply(object) | Event::InitApply(object) | Event::Delete(object) => Some(object),
        Event::Init | Event::InitDone => None,
    }
}

/// Watches hubs.
pub(crate) async fn hubs(context: Arc<Context>, mut writer: Writer<ProcessHub>, wake: Wake) {
    let mut events = readable::<ProcessHub>(&context.client);
    while let Some(event) = events.next().await {
        let new = touched(&event).is_some_and(|hub| {
            let known = context.stores.hubs.get(&ObjectRef::from_obj(hub));
            known.is_none_or(|known| known.metadata.uid != hub.metadata.uid)
        });
        writer.apply_watcher_event(&event);
        let Some(ProcessName { namespace, name }) = touched(&event).map(named) else { continue };
        if new || matches!(event, Event::Delete(_)) {
            // Processes may have been made before their hub, and be to go to one that is gone.
            let of_hub = |process: &HubProcess| {
                (process.spec.hub_name == name || transfer::holder(process) == name)
                    && process.metadata.namespace.as_ref() == Some(&namespace)
            };
            for process in context.stores.processes.state_filter(of_hub) {
                wake.process(named(&*process));
            }
        }
        wake.hub(HubKey { namespace, name });
    }
}

/// Watches processes.
pub(crate) async fn processes(context: Arc<Context>, mut writer: Writer<HubProcess>, wake: Wake) {
    let mut events = readable::<HubProcess>(&context.client);
    while let Some(event) = events.next().await {
        let known =
            touched(&event).and_then(|process| context.stores.processes.get(&ObjectRef::from_obj(process)));
        writer.apply_watcher_event(&event);
        if let Event::Delete(process) = &event {
            if context.leadership.valid() {
                stop::tell(&context, process);
            }
            context.forget(&ProcessUid(process.uid().unwrap_or_default()));
        }
        if matches!(event, Event::InitDone) {
            context.forget_the_gone();
        }
        let Some(process) = touched(&event) else { continue };
        let ProcessName { namespace, name } = named(process);
        // Also the hub that it has left, or is not to come to any more.
        let concerned: BTreeSet<&str> = [Some(process), known.as_deref()]
            .into_iter()
            .flatten()
            .flat_map(|process| [process.spec.hub_name.as_str(), transfer::holder(process)])
            .collect();
        for name in concerned {
            wake.hub(HubKey { namespace: namespace.clone(), name: name.to_owned() });
        }
        wake.process(ProcessName { namespace, name });
    }
}

/// Watches nodes.
pub(crate) async fn nodes(context: Arc<Context>, mut writer: Writer<Node>, wake: Wake) {
    let events = watcher(Api::<Node>::all(context.client.clone()), Config::default()).default_backoff();
    let mut events = events.filter_map(|event| std::future::ready(event.map_or_else(failed, Some))).boxed();
    while let Some(mut event) = events.next().await {
        if let Event::Apply(node) | Event::InitApply(node) | Event::Delete(node) = &mut event {
            hub::trim_node(node);
        }
        let changed = touched(&event).is_some_and(|node| {
            let known = context.stores.nodes.get(&ObjectRef::from_obj(node));
            matches!(event, Event::Delete(_)) || known.is_none_or(|known| !same(&known, node))
        });
        writer.apply_watcher_event(&event);
        if changed {
            wake.all_hubs(&context);
        }
    }
}

/// Whether two versions of a node differ in nothing but the heartbeat that made them two.
fn same(one: &Node, other: &Node) -> bool {
    (&one.metadata.uid, &one.metadata.labels, &one.metadata.deletion_timestamp, &one.spec, &one.status)
        == (
            &other.metadata.uid,
            &other.metadata.labels,
            &other.metadata.deletion_timestamp,
            &other.spec,
            &other.status,
        )
}

/// Watches the pods of processes. `listed` is cancelled when all of them are known.
pub(crate) async fn pods(context: Arc<Context>, listed: CancellationToken, wake: Wake) {
    let mut events = labelled::<Pod>(&context.client, label::PROCESS_UID);
    while let Some(event) = events.next().await {
        for process in context.pods.observe(&event) {
            wake.process(process);
        }
        if let Event::Apply(pod) | Event::InitApply(pod) = &event
            && let Some(facts) = PodFacts::of(pod)
            && facts.going()
        {
            // Beside the watch: an API server that is slow for one pod delays no event of another.
            let context = context.clone();
            tokio::spawn(async move { farewell(&context, &facts).await });
        }
        if matches!(event, Event::InitDone) {
            listed.cancel();
        }
    }
}

/// Looks again at every pod that is going: what happens to its node, or to the object of its process, is no event of
/// its own.
pub(crate) async fn farewells(context: Arc<Context>) {
    loop {
        sleep(FAREWELL).await;
        if context.leadership.valid() {
            let going = context.pods.going();
            futures::stream::iter(going)
                .for_each_concurrent(FAREWELLS_AT_ONCE, |facts| {
                    let context = &context;
                    async move { farewell(context, &facts).await }
                })
                .await;
        }
    }
}

async fn farewell(context: &Context, facts: &PodFacts) {
    release::release(context, facts).await;
    stop::let_go(context, facts).await;
}

/// Watches the stable addresses. `listed` is cancelled when all of them are known.
pub(crate) async fn routes(context: Arc<Context>, listed: CancellationToken, wake: Wake) {
    let mut events = labelled::<EndpointSlice>(&context.client, label::PROCESS);
    while let Some(event) = events.next().await {
        for process in context.routes.observe(&event) {
            wake.process(process);
        }
        if matches!(event, Event::InitDone) {
            listed.cancel();
        }
    }
}

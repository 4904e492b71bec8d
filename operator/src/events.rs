//! Events on objects, with fixed reasons. They are told in the background: nothing waits for one.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use processhub_crds::conditions::bounded;
use processhub_crds::vocabulary::EventReason;
use tokio::sync::mpsc;
use xxhash_rust::xxh3::xxh3_64;

use crate::call;

/// How many may wait to be told. Beyond that they are dropped: the API server has more urgent work then.
const QUEUE: usize = 1024;
/// The API server's bound of a note, in bytes.
const MAX_NOTE: usize = 1024;
const CONTROLLER: &str = "processhub-operator";

/// Tells events. Clones share one queue.
#[derive(Clone, Debug)]
pub struct Events(mpsc::Sender<(Event, ObjectReference)>);

impl Events {
    /// A teller named `instance`, and the work that it does; to be spawned.
    pub fn new(client: Client, instance: String) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (sender, mut queue) = mpsc::channel::<(Event, ObjectReference)>(QUEUE);
        let reporter = Reporter { controller: CONTROLLER.to_owned(), instance: Some(instance) };
        let recorder = Recorder::new(client, reporter);
        let work = async move {
            while let Some((event, about)) = queue.recv().await {
                if let Err(error) = call::api("tell event", recorder.publish(&event, &about)).await {
                    tracing::debug!(%error, reason = event.reason, "an event could not be told");
                }
            }
        };
        (Self(sender), work)
    }

    /// Tells that something went as it should.
    pub fn normal(&self, about: ObjectReference, reason: EventReason, note: &str) {
        self.tell(EventType::Normal, about, reason, note);
    }

    /// Tells that something needs attention.
    pub fn warning(&self, about: ObjectReference, reason: EventReason, note: &str) {
        self.tell(EventType::Warning, about, reason, note);
    }

    // Events that are equal but for their notes are counted as one, with the first note. What they say is in the
    // notes, so that each note is an action of its own.
    fn tell(&self, type_: EventType, about: ObjectReference, reason: EventReason, note: &str) {
        let event = Event {
            type_,
            reason: reason.to_string(),
            note: Some(bounded(note, MAX_NOTE).to_owned()),
            action: format!("{reason}-{:016x}", xxh3_64(note.as_bytes())),
            secondary: None,
        };
        if self.0.try_send((event, about)).is_err() {
            tracing::warn!(%reason, "the queue of events is full; one is dropped");
        }
    }
}

//! Watches: one line of JSON per event, from a revision on, with bookmarks and streamed initial lists.

use super::Call;
use super::read::Selection;
use super::render::Form;
use crate::api::error::{ApiError, Reason, Result};
use crate::api::store::{Change, Event};
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, header};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// How often an idle watch says how far it is.
const BOOKMARK_PERIOD: Duration = Duration::from_secs(60);
/// The longest watch that a client gets without asking for a time.
const LONGEST: u64 = 3600;

struct Watch {
    call: Call,
    selection: Selection,
    form: Form,
    revision: u64,
    bookmarks: bool,
    pending: Vec<Bytes>,
    changes: tokio::sync::watch::Receiver<u64>,
    until: Instant,
    bookmark_at: Instant,
    over: bool,
}

/// GET with `watch`.
pub fn follow(call: &Call) -> Result<Response> {
    let selection = Selection::of(call)?;
    let asked = call.query.text("resourceVersion");
    let streaming = call.query.flag("sendInitialEvents");
    if streaming && call.query.text("resourceVersionMatch") != "NotOlderThan" {
        return Err(ApiError::new(
            Reason::Invalid,
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: sendInitialEvents requires \
             setting resourceVersionMatch to NotOlderThan",
        ));
    }
    let since: u64 = match asked {
        "" => 0,
        // The real server answers so, too.
        text => text.parse().map_err(|e| {
            ApiError::new(Reason::InternalError, format!("resourceVersion: Invalid value: {text:?}: {e}"))
        })?,
    };
    let seconds = call.query.text("timeoutSeconds").parse().unwrap_or(LONGEST);
    let now = Instant::now();
    let mut watch = Watch {
        form: Form::of(call),
        selection,
        revision: since,
        bookmarks: call.query.flag("allowWatchBookmarks"),
        pending: Vec::new(),
        changes: call.api.changes(),
        until: now + Duration::from_secs(seconds),
        bookmark_at: now + BOOKMARK_PERIOD,
        over: false,
        call: Call {
            api: call.api.clone(),
            kind: call.kind.clone(),
            path: call.path.clone(),
            query: call.query.clone(),
            headers: call.headers.clone(),
            body: Bytes::new(),
        },
    };
    let without_list = !asked.is_empty() && asked != "0" && !streaming;
    if !without_list && call.query.text("sendInitialEvents") != "false" {
        watch.begin_with_list(streaming);
    }
    let body = Body::from_stream(stream::unfold(watch, |mut watch| async move {
        let bytes = watch.next().await?;
        Some((Ok::<_, Infallible>(bytes), watch))
    }));
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

impl Watch {
    fn begin_with_list(&mut self, streaming: bool) {
        let (objects, revision) = self.selection.list(&self.call);
        self.revision = revision;
        for object in &objects {
            let line = self.line(Change::Added, object);
            self.pending.push(line);
        }
        if streaming {
            let line = self.bookmark(json!({"k8s.io/initial-events-end": "true"}));
            self.pending.push(line);
        }
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if !self.pending.is_empty() {
                return Some(std::mem::take(&mut self.pending).concat().into());
            }
            if self.over {
                return None;
            }
            self.changes.borrow_and_update();
            self.collect();
            if !self.pending.is_empty() {
                continue;
            }
            tokio::select! {
                changed = self.changes.changed() => changed.ok()?,
                () = sleep_until(self.until) => self.over = true,
                () = sleep_until(self.bookmark_at) => {
                    self.bookmark_at += BOOKMARK_PERIOD;
                    if self.bookmarks {
                        let line = self.bookmark(json!({}));
                        self.pending.push(line);
                    }
                }
            }
        }
    }

    fn collect(&mut self) {
        let (events, now) = self.call.api.with(|registry| {
            let store = registry.store();
            (store.events_since(&self.call.kind.storage, self.revision), store.revision())
        });
        match events {
            Ok(events) => {
                self.revision = self.revision.max(now);
                for event in events {
                    if let Some((change, object)) = self.seen(&event) {
                        let line = self.line(change, &object);
                        self.pending.push(line);
                    }
                }
            }
            Err(old) => {
                let status = ApiError::new(Reason::Expired, old.to_string()).status();
                self.pending.push(encode("ERROR", &status));
                self.over = true;
            }
        }
    }

    /// How the event looks through the selection: an object that leaves it is deleted, one that enters is added.
    fn seen(&self, event: &Event) -> Option<(Change, Arc<Value>)> {
        let before = event.previous.as_ref().is_some_and(|o| self.selection.matches(o));
        let after = event.change != Change::Deleted && self.selection.matches(&event.object);
        match (before, after) {
            (false, false) => None,
            (false, true) => Some((Change::Added, event.object.clone())),
            (true, true) => Some((Change::Modified, event.object.clone())),
            (true, false) => {
                let mut last = event.previous.as_deref().cloned().unwrap_or_default();
                last["metadata"]["resourceVersion"] = event.revision.to_string().into();
                Some((Change::Deleted, Arc::new(last)))
            }
        }
    }

    fn line(&self, change: Change, object: &Arc<Value>) -> Bytes {
        let word = match change {
            Change::Added => "ADDED",
            Change::Modified => "MODIFIED",
            Change::Deleted => "DELETED",
        };
        let served = self.call.kind.served(object);
        let now = self.call.api.with(|r| r.now());
        encode(word, &self.form.object(&self.call, &served, now))
    }

    fn bookmark(&self, annotations: Value) -> Bytes {
        let kind = &self.call.kind;
        let mut metadata = json!({"resourceVersion": self.revision.to_string()});
        if annotations.as_object().is_some_and(|a| !a.is_empty()) {
            metadata["annotations"] = annotations;
        }
        let object = match self.form {
            Form::Object => {
                json!({"kind": kind.kind, "apiVersion": kind.api_version(), "metadata": metadata})
            }
            Form::Partial => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
            }
            Form::Table(_) => json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1",
                "metadata": {"resourceVersion": self.revision.to_string()}, "columnDefinitions": [], "rows": []}),
        };
        encode("BOOKMARK", &object)
    }
}

fn encode(word: &str, object: &Value) -> Bytes {
    let mut line = format!("{{\"type\":\"{word}\",\"object\":");
    line.push_str(&object.to_string());
    line.push_str("}\n");
    line.into()
}

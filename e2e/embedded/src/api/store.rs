//! The synchronous core: objects by kind, one revision counter, and a bounded window of events per kind.
//!
//! No clock, no sockets, no randomness: what is stored is what it is given. The rules of the API (conflicts, finalizers,
//! generations) are [`super::registry`]'s.

use super::object::{self, Key};
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// What a kind is stored under: several served versions of one resource share it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceId {
    /// API group, empty for the core group.
    pub group: String,
    /// Plural name.
    pub plural: String,
}

impl ResourceId {
    /// The resource `plural` of `group`.
    pub fn new(group: &str, plural: &str) -> Self {
        Self { group: group.to_owned(), plural: plural.to_owned() }
    }
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Added,
    /// It is different.
    Modified,
    /// It is gone.
    Deleted,
}

/// One change, in the order of revisions.
#[derive(Clone, Debug)]
pub struct Event {
    /// The revision that the change made.
    pub revision: u64,
    /// What happened.
    pub change: Change,
    /// The object after the change; of a deletion: the last state, with the revision of the deletion.
    pub object: Arc<Value>,
    /// The object before the change.
    pub previous: Option<Arc<Value>>,
}

#[derive(Debug, Default)]
struct Table {
    objects: BTreeMap<Key, Arc<Value>>,
    events: VecDeque<Arc<Event>>,
    /// The newest revision that has left the window.
    forgotten: u64,
}

/// The asked-for revision has left the window; a watcher must list again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too old resource version: {asked} ({oldest})")]
pub struct TooOld {
    /// What was asked for.
    pub asked: u64,
    /// The oldest revision from which events are complete.
    pub oldest: u64,
}

/// All objects.
#[derive(Debug)]
pub struct Store {
    revision: u64,
    window: usize,
    tables: BTreeMap<ResourceId, Table>,
}

impl Store {
    /// An empty store that keeps the last `window` events of each kind.
    pub fn new(window: usize) -> Self {
        Self { revision: 1, window: window.max(1), tables: BTreeMap::new() }
    }

    /// The revision of the newest change.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The object, if it exists.
    pub fn get(&self, resource: &ResourceId, key: &Key) -> Option<Arc<Value>> {
        self.tables.get(resource)?.objects.get(key).cloned()
    }

    /// All objects of a kind in the order of their keys; `namespace: None` means every namespace.
    pub fn list(&self, resource: &ResourceId, namespace: Option<&str>) -> Vec<Arc<Value>> {
        let Some(table) = self.tables.get(resource) else { return Vec::new() };
        match namespace {
            None => table.objects.values().cloned().collect(),
            Some(namespace) => table
                .objects
                .range(Key::new(namespace, "")..)
                .take_while(|(key, _)| key.namespace == namespace)
                .map(|(_, object)| object.clone())
                .collect(),
        }
    }

    /// Every resource that holds or held objects.
    pub fn resources(&self) -> impl Iterator<Item = &ResourceId> {
        self.tables.keys()
    }

    /// Stores the object under its own key with the next revision as its `resourceVersion`.
    pub fn put(&mut self, resource: &ResourceId, mut value: Value) -> Arc<Value> {
        self.revision += 1;
        let revision = self.revision;
        object::metadata(&mut value).insert("resourceVersion".into(), revision.to_string().into());
        let value = Arc::new(value);
        let table = self.tables.entry(resource.clone()).or_default();
        let previous = table.objects.insert(Key::of(&value), value.clone());
        let change = if previous.is_some() { Change::Modified } else { Change::Added };
        table.record(Event { revision, change, object: value.clone(), previous }, self.window);
        value
    }

    /// Removes the object and returns its last state with the revision of the removal.
    pub fn remove(&mut self, resource: &ResourceId, key: &Key) -> Option<Arc<Value>> {
        let table = self.tables.get_mut(resource)?;
        let previous = table.objects.remove(key)?;
        self.revision += 1;
        let revision = self.revision;
        let mut last = (*previous).clone();
        object::metadata(&mut last).insert("resourceVersion".into(), revision.to_string().into());
        let last = Arc::new(last);
        let event =
            Event { revision, change: Change::Deleted, object: last.clone(), previous: Some(previous) };
        table.record(event, self.window);
        Some(last)
    }

    /// The events of a kind after `revision`, oldest first.
    ///
    /// # Errors
    /// [`TooOld`] when events after `revision` have left the window.
    pub fn events_since(&self, resource: &ResourceId, revision: u64) -> Result<Vec<Arc<Event>>, TooOld> {
        let Some(table) = self.tables.get(resource) else { return Ok(Vec::new()) };
        if revision < table.forgotten {
            return Err(TooOld { asked: revision, oldest: table.forgotten });
        }
        let first = table.events.partition_point(|event| event.revision <= revision);
        Ok(table.events.range(first..).cloned().collect())
    }

    /// Empties the event windows, as a compaction of etcd does: every older watch must list again.
    pub fn compact(&mut self) {
        for table in self.tables.values_mut() {
            table.events.clear();
            table.forgotten = self.revision;
        }
    }
}

impl Table {
    fn record(&mut self, event: Event, window: usize) {
        self.events.push_back(Arc::new(event));
        while self.events.len() > window {
            if let Some(old) = self.events.pop_front() {
                self.forgotten = old.revision;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pods() -> ResourceId {
        ResourceId::new("", "pods")
    }

    fn pod(name: &str) -> Value {
        json!({"metadata": {"namespace": "d", "name": name}})
    }

    #[test]
    fn one_counter_numbers_all_changes_of_all_kinds() {
        let mut store = Store::new(10);
        let a = store.put(&pods(), pod("a"));
        let b = store.put(&ResourceId::new("", "secrets"), pod("b"));
        let gone = store.remove(&pods(), &Key::new("d", "a")).unwrap();
        let versions: Vec<&str> = [&a, &b, &gone].map(|o| object::resource_version(o)).to_vec();
        assert_eq!(versions, ["2", "3", "4"]);
        assert_eq!(store.revision(), 4);
    }

    #[test]
    fn events_come_in_order_with_what_was_before() {
        let mut store = Store::new(10);
        store.put(&pods(), pod("a"));
        store.put(&pods(), pod("a"));
        store.remove(&pods(), &Key::new("d", "a"));
        let events = store.events_since(&pods(), 1).unwrap();
        let changes: Vec<Change> = events.iter().map(|e| e.change).collect();
        assert_eq!(changes, [Change::Added, Change::Modified, Change::Deleted]);
        assert_eq!(object::resource_version(events[2].previous.as_ref().unwrap()), "3");
        assert_eq!(store.events_since(&pods(), 3).unwrap().len(), 1);
    }

    #[test]
    fn a_watcher_behind_the_window_is_told_to_list_again() {
        let mut store = Store::new(2);
        for _ in 0..4 {
            store.put(&pods(), pod("a"));
        }
        assert_eq!(store.events_since(&pods(), 2).unwrap_err(), TooOld { asked: 2, oldest: 3 });
        assert_eq!(store.events_since(&pods(), 3).unwrap().len(), 2);
    }

    #[test]
    fn compaction_makes_every_older_watch_too_old() {
        let mut store = Store::new(10);
        store.put(&pods(), pod("a"));
        store.compact();
        assert!(store.events_since(&pods(), 1).is_err());
        assert!(store.events_since(&pods(), store.revision()).unwrap().is_empty());
    }

    #[test]
    fn a_namespace_lists_only_its_own() {
        let mut store = Store::new(10);
        for namespace in ["a", "a-b", "b"] {
            store.put(&pods(), json!({"metadata": {"namespace": namespace, "name": "x"}}));
        }
        assert_eq!(store.list(&pods(), Some("a")).len(), 1);
        assert_eq!(store.list(&pods(), None).len(), 3);
    }
}

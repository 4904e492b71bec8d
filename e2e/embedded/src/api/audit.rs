//! What was asked of the API server, by whom: tests count writes with it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

/// The verbs of the API, as the real server's audit log names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// Read one object.
    Get,
    /// Read many.
    List,
    /// Follow changes.
    Watch,
    /// POST.
    Create,
    /// PUT.
    Update,
    /// PATCH.
    Patch,
    /// DELETE of one.
    Delete,
    /// DELETE of many.
    DeleteCollection,
}

impl Verb {
    /// Whether the verb changes objects.
    pub fn writes(self) -> bool {
        !matches!(self, Self::Get | Self::List | Self::Watch)
    }
}

/// One request that came over HTTP, entered when its answer (of a watch: its first byte) was ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Counts up from 1.
    pub sequence: u64,
    /// What was asked.
    pub verb: Verb,
    /// API group, empty for core.
    pub group: String,
    /// Plural name.
    pub resource: String,
    /// `status`, `scale`, `eviction`, ... or empty.
    pub subresource: String,
    /// Empty for objects of the cluster and for all namespaces.
    pub namespace: String,
    /// Empty for lists; of a creation the name in its answer is not recorded.
    pub name: String,
    /// The header `User-Agent`.
    pub user_agent: String,
    /// HTTP status of the answer.
    pub code: u16,
}

/// What requests are counted by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Counted {
    /// The verb.
    pub verb: Verb,
    /// `pods`, `hubprocesses.processhub.io/status`, ...
    pub resource: String,
    /// The header `User-Agent`.
    pub user_agent: String,
}

#[derive(Debug, Default)]
struct Log {
    sequence: u64,
    entries: VecDeque<Entry>,
    counts: BTreeMap<Counted, u64>,
}

/// The log of requests, bounded; the counts are not.
#[derive(Debug)]
pub struct Audit {
    window: usize,
    log: Mutex<Log>,
}

impl Audit {
    /// A log that keeps the last `window` entries.
    pub fn new(window: usize) -> Self {
        Self { window, log: Mutex::default() }
    }

    /// Enters a request; its `sequence` is set here.
    pub fn record(&self, mut entry: Entry) {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.sequence += 1;
        entry.sequence = log.sequence;
        let mut resource = entry.resource.clone();
        if !entry.group.is_empty() {
            resource = format!("{resource}.{}", entry.group);
        }
        if !entry.subresource.is_empty() {
            resource = format!("{resource}/{}", entry.subresource);
        }
        let counted = Counted { verb: entry.verb, resource, user_agent: entry.user_agent.clone() };
        *log.counts.entry(counted).or_default() += 1;
        log.entries.push_back(entry);
        while log.entries.len() > self.window {
            log.entries.pop_front();
        }
    }

    /// The entries after `sequence` that are still kept, oldest first.
    pub fn since(&self, sequence: u64) -> Vec<Entry> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.entries.iter().filter(|e| e.sequence > sequence).cloned().collect()
    }

    /// The sequence of the newest entry; 0 before the first.
    pub fn latest(&self) -> u64 {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).sequence
    }

    /// How often each verb was asked of each resource by each client, since the start.
    pub fn counts(&self) -> BTreeMap<Counted, u64> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).counts.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_outlive_the_window_of_entries() {
        let audit = Audit::new(1);
        for _ in 0..3 {
            audit.record(Entry {
                sequence: 0,
                verb: Verb::Update,
                group: "x.io".into(),
                resource: "things".into(),
                subresource: "status".into(),
                namespace: "d".into(),
                name: "a".into(),
                user_agent: "test".into(),
                code: 200,
            });
        }
        assert_eq!(audit.since(0).len(), 1);
        assert_eq!(audit.latest(), 3);
        let counted =
            Counted { verb: Verb::Update, resource: "things.x.io/status".into(), user_agent: "test".into() };
        assert_eq!(audit.counts()[&counted], 3);
    }
}

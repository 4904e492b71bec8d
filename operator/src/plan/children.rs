//! Which `HubProcess` objects there should be.

use std::collections::BTreeMap;

use super::inputs::{Child, Hub, Process};

/// What has to change.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Children {
    /// To create.
    pub create: BTreeMap<String, Child>,
    /// To bring up to what the hub lists.
    pub update: BTreeMap<String, Child>,
    /// To delete, in this order: highest ordinals first.
    pub delete: Vec<String>,
    /// Wanted names that processes of other hubs have: name to hub.
    pub taken: BTreeMap<String, String>,
    /// How many of `replicas` exist.
    pub replicas: u32,
    /// How many processes the hub should have: replicas, listed and dynamic ones.
    pub desired: u32,
}

/// Compares what the hub wants with what there is. Dynamic processes are never touched, also where the hub wants their
/// name.
#[must_use]
pub fn children(
    hub: &Hub,
    processes: &BTreeMap<String, Process>,
    taken: &BTreeMap<String, String>,
) -> Children {
    let mut wanted = hub.listed.clone();
    for ordinal in 0..hub.replicas {
        wanted.entry(replica(&hub.name, ordinal)).or_default();
    }
    let mut result = Children::default();
    // One that is to arrive is another hub's, which has its name like any other.
    let own = || processes.iter().filter(|(_, process)| !process.arrives());
    // One that was taken from the list so that it may leave is not stopped meanwhile.
    let doomed = |name: &String, process: &Process| {
        process.managed && !process.deleting && !process.leaves() && !wanted.contains_key(name)
    };
    let dynamic = |name: &String, process: &Process| {
        !doomed(name, process) && !process.deleting && !wanted.contains_key(name)
    };
    let dynamics = own().filter(|(name, process)| dynamic(name, process)).count();
    result.desired = u32::try_from(wanted.len() + dynamics).unwrap_or(u32::MAX);
    result.replicas = count(own().filter(|(name, process)| {
        !process.deleting && ordinal(&hub.name, name).is_some_and(|ordinal| ordinal < hub.replicas)
    }));
    if hub.deleting || !hub.accepted {
        return result;
    }

    result.delete =
        own().filter(|(name, process)| doomed(name, process)).map(|(name, _)| name.clone()).collect();
    result.delete.sort_by_key(|name| std::cmp::Reverse((ordinal(&hub.name, name), name.clone())));
    for (name, child) in wanted {
        match (processes.get(&name).filter(|process| !process.arrives()), taken.get(&name)) {
            // A replica has nothing that the hub says of it: what a person put there (a pin, a label) stays.
            (Some(process), _)
                if hub.listed.contains_key(&name)
                    && process.managed
                    && !process.deleting
                    && !follows(&process.child, &child) =>
            {
                result.update.insert(name, child);
            }
            // One that is being deleted is created again once it is gone.
            (Some(_), _) => {}
            (None, Some(other)) => {
                result.taken.insert(name, other.clone());
            }
            (None, None) => {
                result.create.insert(name, child);
            }
        }
    }
    result
}

/// Whether a process is as the hub lists it. Labels that somebody added are theirs.
fn follows(is: &Child, listed: &Child) -> bool {
    let Child { config, labels, pin, listed_labels } = listed;
    is.config == *config
        && is.pin == *pin
        && is.listed_labels == *listed_labels
        && labels.iter().all(|(key, value)| is.labels.get(key) == Some(value))
}

/// Name of the process with this ordinal.
#[must_use]
pub fn replica(hub: &str, ordinal: u32) -> String {
    format!("{hub}-{ordinal}")
}

/// The ordinal that a replica of the hub has by its name.
#[must_use]
pub fn ordinal(hub: &str, process: &str) -> Option<u32> {
    let digits = process.strip_prefix(hub)?.strip_prefix('-')?;
    let ordinal: u32 = digits.parse().ok()?;
    // "+1" and "01" parse as well and are other names.
    (ordinal.to_string() == digits).then_some(ordinal)
}

fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[path = "children_tests.rs"]
mod tests;

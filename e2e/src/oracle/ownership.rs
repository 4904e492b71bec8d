//! Who owned a process when, and in which order a move's effects were seen, from every version of every object.

use std::collections::BTreeMap;

use processhub_crds::{MigrationKind, MigrationTrigger};

/// One version of a process's object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessVersion {
    /// The cluster's revision at which it was written.
    pub revision: u64,
    /// The process.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Highest epoch taken.
    pub epoch: u64,
    /// UID of the owner's pod, and the epoch that it owns the process by.
    pub owner: Option<(String, u64)>,
    /// Kind and cause of the move that is under way.
    pub moving: Option<(MigrationKind, MigrationTrigger)>,
    /// Whether somebody asked for its end.
    pub going: bool,
}

/// One version of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodVersion {
    /// The cluster's revision at which it was written.
    pub revision: u64,
    /// Its UID.
    pub uid: String,
    /// Whether it was ready.
    pub ready: bool,
    /// Whether its deletion was asked for.
    pub going: bool,
}

/// What no run may show, in words: an epoch that falls or has two owners; a source whose pod was deleted before the
/// commit, or before the new owner was ready.
#[must_use]
pub fn check_ownership(processes: &[ProcessVersion], pods: &[PodVersion]) -> Vec<String> {
    let mut by_process: BTreeMap<&str, Vec<&ProcessVersion>> = BTreeMap::new();
    for version in processes {
        by_process.entry(&version.uid).or_default().push(version);
    }
    let mut found = Vec::new();
    for versions in by_process.values_mut() {
        versions.sort_by_key(|version| version.revision);
        let stopped = versions.iter().any(|version| version.going);
        for pair in versions.windows(2) {
            let (before, after) = (pair[0], pair[1]);
            if after.epoch < before.epoch {
                found.push(format!("{}: epoch {} after {}", after.name, after.epoch, before.epoch));
            }
            let (Some((old, old_epoch)), Some((new, new_epoch))) = (&before.owner, &after.owner) else {
                continue;
            };
            if new_epoch < old_epoch || (new != old && new_epoch == old_epoch) {
                found.push(format!("{}: owner at {new_epoch} after {old_epoch}", after.name));
            }
            if new != old && !stopped {
                found.extend(check_order_of_move(after, old, new, pods));
            }
        }
    }
    found
}

/// For a hot swap that nobody forced: commit, then the new owner is ready, then the source is deleted.
fn check_order_of_move(commit: &ProcessVersion, old: &str, new: &str, pods: &[PodVersion]) -> Option<String> {
    let calm = matches!(
        commit.moving,
        Some((
            MigrationKind::HotSwap,
            MigrationTrigger::Wish
                | MigrationTrigger::Rebalance
                | MigrationTrigger::Pinned
                | MigrationTrigger::Transfer
        ))
    );
    if !calm {
        return None;
    }
    let first = |uid: &str, is: fn(&PodVersion) -> bool| {
        pods.iter().filter(|pod| pod.uid == uid && is(pod)).map(|pod| pod.revision).min()
    };
    let deleted = first(old, |pod| pod.going)?;
    if deleted < commit.revision {
        return Some(format!("{}: the source was deleted before the commit", commit.name));
    }
    if first(new, |pod| pod.ready).is_none_or(|ready| ready > deleted) {
        return Some(format!("{}: the source was deleted before the target was ready", commit.name));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(revision: u64, epoch: u64, owner: &str, owned_by: u64) -> ProcessVersion {
        ProcessVersion {
            revision,
            name: "p".into(),
            uid: "u".into(),
            epoch,
            owner: Some((owner.into(), owned_by)),
            moving: Some((MigrationKind::HotSwap, MigrationTrigger::Wish)),
            going: false,
        }
    }

    fn pod(revision: u64, uid: &str, ready: bool, going: bool) -> PodVersion {
        PodVersion { revision, uid: uid.into(), ready, going }
    }

    #[test]
    fn accepts_a_move_in_order() {
        let processes = [process(1, 1, "a", 1), process(2, 2, "a", 1), process(5, 2, "b", 2)];
        let pods = [pod(6, "b", true, false), pod(7, "a", true, true)];
        assert_eq!(check_ownership(&processes, &pods), Vec::<String>::new());
    }

    #[test]
    fn finds_an_epoch_with_two_owners_and_one_that_falls() {
        let two = check_ownership(&[process(1, 2, "a", 2), process(2, 2, "b", 2)], &[]);
        assert_eq!(two, ["p: owner at 2 after 2"]);
        let falls = check_ownership(&[process(1, 3, "a", 1), process(2, 2, "a", 1)], &[]);
        assert_eq!(falls, ["p: epoch 2 after 3"]);
    }

    #[test]
    fn finds_a_source_that_was_deleted_too_soon() {
        let processes = [process(1, 1, "a", 1), process(5, 2, "b", 2)];
        let before_commit = [pod(4, "a", true, true), pod(3, "b", true, false)];
        assert!(check_ownership(&processes, &before_commit)[0].contains("before the commit"));
        let before_ready = [pod(6, "a", true, true), pod(7, "b", true, false)];
        assert!(check_ownership(&processes, &before_ready)[0].contains("was ready"));
    }

    #[test]
    fn leaves_processes_that_were_stopped_alone() {
        let mut stopped = process(6, 2, "b", 2);
        stopped.going = true;
        let processes = [process(1, 1, "a", 1), process(5, 2, "b", 2), stopped];
        assert!(check_ownership(&processes, &[pod(6, "a", true, true)]).is_empty());
    }
}

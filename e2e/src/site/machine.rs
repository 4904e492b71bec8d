//! The processes of this machine, which are those of all containers of its clusters.

use std::path::Path;

use anyhow::{Context, Result};
use rustix::process::Pid;

/// The processes of a group.
pub(super) fn of_group(group: Pid) -> Result<Vec<Pid>> {
    let group = group.as_raw_nonzero().get();
    those(|process| {
        let stat = std::fs::read_to_string(process.join("stat")).ok()?;
        Some(group_in(&stat)? == group)
    })
}

/// Those of the processes that another one of them has started.
pub(super) fn children_among(processes: &[Pid]) -> Vec<Pid> {
    let started_by = |pid: &Pid| {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
        Pid::from_raw(parent_in(&stat)?)
    };
    let is_child = |pid: &&Pid| started_by(pid).is_some_and(|parent| processes.contains(&parent));
    processes.iter().filter(is_child).copied().collect()
}

/// The processes of a container, known by its id of the container runtime, which stands in their control groups.
pub(super) fn of_container(id: &str) -> Result<Vec<Pid>> {
    those(|process| Some(std::fs::read_to_string(process.join("cgroup")).ok()?.contains(id)))
}

/// Those whose directory in `/proc` shows it; one that ended meanwhile shows nothing.
fn those(shows: impl Fn(&Path) -> Option<bool>) -> Result<Vec<Pid>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").context("list the processes")? {
        let path = entry?.path();
        let pid = path.file_name().and_then(|name| name.to_str()?.parse().ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid.filter(|_| shows(&path) == Some(true)) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// The process group in `/proc/<pid>/stat`; the program's name before it may hold anything.
fn group_in(stat: &str) -> Option<i32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(2)?.parse().ok()
}

/// The parent in `/proc/<pid>/stat`.
fn parent_in(stat: &str) -> Option<i32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_hides_no_group() {
        assert_eq!(group_in("17 (a) b) S 1 42 42 0"), Some(42));
        assert_eq!(group_in("17 (a"), None);
        assert_eq!(parent_in("17 (a) b) S 1 42 42 0"), Some(1));
    }

    #[test]
    fn a_child_is_told_from_who_started_it() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let this = rustix::process::getpid();
        let pid = Pid::from_child(&child);
        assert_eq!(children_among(&[this, pid]), [pid]);
        assert_eq!(children_among(&[pid]), []);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn this_process_is_in_its_group() {
        let group = rustix::process::getpgrp();
        assert!(of_group(group).unwrap().contains(&rustix::process::getpid()));
    }
}

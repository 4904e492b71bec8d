//! The operating system's side of containers: process groups that never outlive the cluster.
//!
//! Every container is a process group of its own, entered in a directory while it runs. A watchdog process waits for the
//! end of a pipe that only this process holds: when this process ends, however it ends, the watchdog kills the groups that
//! are still entered and removes the directory.

use crate::api::object::Key;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError};

const WATCHDOG: &str = r#"
cat >/dev/null
for group in "$1"/groups/*; do
  [ -e "$group" ] && kill -s KILL -- "-${group##*/}"
done
[ -e "$1/keep" ] || rm -rf "$1"
"#;

/// The process groups of a cluster.
#[derive(Debug)]
pub struct Groups {
    directory: PathBuf,
    live: Mutex<BTreeSet<i32>>,
    watchdog: Mutex<Option<(Child, ChildStdin)>>,
}

impl Groups {
    /// Starts the watchdog for a cluster whose files are in `directory`. A file `keep` in it leaves it behind.
    ///
    /// # Errors
    /// When the directory cannot be written or `sh` cannot be started.
    pub fn new(directory: &Path) -> io::Result<Self> {
        let groups = directory.join("groups");
        fs::create_dir_all(&groups)?;
        let mut command = Command::new("sh");
        command.args(["-c", WATCHDOG, "watchdog"]).arg(directory);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // Ctrl-C goes to the whole foreground group: the watchdog must be there afterwards.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn()?;
        let stdin = child.stdin.take();
        let watchdog = stdin.map(|stdin| (child, stdin));
        Ok(Self { directory: groups, live: Mutex::default(), watchdog: Mutex::new(watchdog) })
    }

    /// Enters a group that was just started.
    pub fn enter(&self, group: i32) {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).insert(group);
        if let Err(error) = fs::write(self.directory.join(group.to_string()), "") {
            tracing::warn!(group, %error, "a process group could not be entered for the watchdog");
        }
    }

    /// Kills what is left of a group whose leader has ended, as the end of a container's first process does.
    pub fn leave(&self, group: i32) {
        signal(group, Signal::KILL);
        self.live.lock().unwrap_or_else(PoisonError::into_inner).remove(&group);
        // Only the watchdog reads it, and a group without processes does no harm.
        let _ = fs::remove_file(self.directory.join(group.to_string()));
    }

    /// Kills every group.
    pub fn kill_all(&self) {
        for group in self.live.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            signal(*group, Signal::KILL);
        }
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        self.kill_all();
        let watchdog = self.watchdog.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((mut child, stdin)) = watchdog {
            drop(stdin);
            // It removes the files; an error means that it is gone already.
            let _ = child.wait();
        }
    }
}

/// Which process is which container, for tests that signal one.
#[derive(Debug, Default)]
pub struct Pids(Mutex<BTreeMap<(Key, String), i32>>);

impl Pids {
    /// The container runs as this process now.
    pub fn remember(&self, pod: &Key, container: &str, pid: i32) {
        let mut pids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pids.insert((pod.clone(), container.to_owned()), pid);
    }

    /// The process has ended; another one that is the container meanwhile stays known.
    pub fn forget(&self, pod: &Key, container: &str, pid: i32) {
        let mut pids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pids.retain(|(key, name), known| (key, name.as_str()) != (pod, container) || *known != pid);
    }

    /// The first process of a container, while it runs.
    pub fn of(&self, pod: &Key, container: &str) -> Option<i32> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&(pod.clone(), container.to_owned()))
            .copied()
    }
}

/// Sends a signal to a group; one that is gone is fine.
pub fn signal(group: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(group)
        && let Err(error) = kill_process_group(pid, signal)
        && error != rustix::io::Errno::SRCH
    {
        tracing::warn!(group, ?signal, %error, "a process group could not be signalled");
    }
}

/// SIGTERM to a group's leader alone, as a container's first process gets it.
pub fn terminate(leader: i32) {
    if let Some(pid) = Pid::from_raw(leader)
        && let Err(error) = kill_process(pid, Signal::TERM)
        && error != rustix::io::Errno::SRCH
    {
        tracing::warn!(leader, %error, "a process could not be told to end");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::{CommandExt, ExitStatusExt};

    #[test]
    fn the_end_of_the_cluster_kills_what_runs_and_removes_its_files() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("run");
        let groups = Groups::new(&directory).unwrap();
        let mut child = Command::new("sleep").arg("60").process_group(0).spawn().unwrap();
        groups.enter(child.id().cast_signed());
        drop(groups);
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        assert!(!directory.exists());
    }

    #[test]
    fn files_that_shall_be_kept_are_kept() {
        let parent = tempfile::tempdir().unwrap();
        let groups = Groups::new(parent.path()).unwrap();
        fs::write(parent.path().join("keep"), "").unwrap();
        drop(groups);
        assert!(parent.path().join("groups").exists());
    }

    #[test]
    fn the_watchdog_kills_when_its_pipe_ends_without_a_word() {
        let parent = tempfile::tempdir().unwrap();
        let groups = Groups::new(&parent.path().join("run")).unwrap();
        let mut child = Command::new("sleep").arg("60").process_group(0).spawn().unwrap();
        fs::write(groups.directory.join(child.id().to_string()), "").unwrap();
        // As SIGKILL of this process would: the pipe ends, nothing else is done.
        let (mut watchdog, stdin) = groups.watchdog.lock().unwrap().take().unwrap();
        drop(stdin);
        assert!(watchdog.wait().unwrap().success());
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }
}

//! The programs that make up a cluster, found again by a mark in their environment.
//!
//! The mark travels with the process itself, so there is no file of process ids that could be lost when the harness is
//! killed, or could name somebody else's process later: what a killed run left is found as surely as what runs now.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::command::{create_dir, run, wait_until};
use crate::error::{Error, Result, file_error};

/// Name of the environment variable that holds the mark, `<cluster>/<part>`.
const MARK: &str = "PROCESSHUB_LOCAL_CLUSTER_PART";

const DEATH: Duration = Duration::from_secs(20);

/// A process of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Daemon {
    /// As the harness sees it.
    pub(crate) pid: u32,
    /// Whether it is the first process of a process namespace of its own.
    pub(crate) is_init: bool,
    /// Which cluster's.
    pub(crate) cluster: String,
    /// Which part of it, for example `apiserver` or `node1/kubelet`.
    pub(crate) part: String,
}

/// Starts `command` as a part of a cluster, apart from the terminal and from the life of this process, with its output
/// in `log`.
pub(crate) fn start(cluster: &str, part: &str, log: &Path, command: &Command) -> Result<()> {
    if let Some(parent) = log.parent() {
        create_dir(parent)?;
    }
    let output = File::options().create(true).append(true).open(log).map_err(file_error("open", log))?;
    let errors = output.try_clone().map_err(file_error("open", log))?;
    // setsid forks and ends at once: the part becomes nobody's child here, and so nobody's zombie.
    let mut detached = Command::new("setsid");
    detached.arg("--fork").arg(command.get_program()).args(command.get_args());
    detached.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    detached.env(MARK, format!("{cluster}/{part}")).env("PATH", search_path());
    if let Some(dir) = command.get_current_dir() {
        detached.current_dir(dir);
    }
    let status = detached
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .status()
        .map_err(file_error("start setsid for", log))?;
    if status.success() {
        return Ok(());
    }
    Err(Error::Command {
        command: format!("setsid --fork {}", command.get_program().to_string_lossy()),
        status: status.to_string(),
        output: format!("see {}", log.display()),
    })
}

/// `PATH` with the places where Debian puts what only root runs.
pub(crate) fn search_path() -> String {
    format!("{}:/usr/local/sbin:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

/// All living processes of a cluster, those in its nodes' process namespaces included, unless a container's program
/// was given an environment of its own.
pub(crate) fn find(cluster: &str) -> Vec<Daemon> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process may end between the listing and the reading; then it is not found, which is right.
        let Ok(environment) = fs::read(entry.path().join("environ")) else { continue };
        let Some((owner, part)) = parse_mark(&environment) else { continue };
        if owner != cluster {
            continue;
        }
        let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        found.push(Daemon { pid, is_init: is_namespace_init(&status), cluster: owner, part });
    }
    found
}

/// The living processes of one part.
pub(crate) fn find_part(cluster: &str, part: &str) -> Vec<Daemon> {
    find(cluster).into_iter().filter(|daemon| daemon.part == part).collect()
}

/// Kills all processes of a cluster whose part is chosen, as SIGKILL does, and waits until they are gone.
pub(crate) fn kill(cluster: &str, log: &Path, chosen: impl Fn(&str) -> bool) -> Result<()> {
    let what = format!("the end of the processes of cluster {cluster}");
    let mut failure = None;
    // Again and again: a process may have been in the middle of starting another.
    let ended = wait_until(what, DEATH, log, || {
        let living: Vec<_> = find(cluster).into_iter().filter(|daemon| chosen(&daemon.part)).collect();
        for daemon in &living {
            failure = signal(daemon.pid, "KILL").err();
        }
        living.is_empty()
    });
    match (ended, failure) {
        (Err(_), Some(error)) => Err(error),
        (ended, _) => ended,
    }
}

/// Sends a signal, by its name without `SIG`.
pub(crate) fn signal(pid: u32, name: &str) -> Result<()> {
    run(Command::new("kill").arg(format!("-{name}")).arg("--").arg(pid.to_string())).map(drop)
}

/// Tells whose process this is from the content of its `environ`.
fn parse_mark(environment: &[u8]) -> Option<(String, String)> {
    let mark = environment
        .split(|byte| *byte == 0)
        .find_map(|entry| entry.strip_prefix(MARK.as_bytes())?.strip_prefix(b"="))?;
    let (cluster, part) = std::str::from_utf8(mark).ok()?.split_once('/')?;
    (!cluster.is_empty() && !part.is_empty()).then(|| (cluster.to_owned(), part.to_owned()))
}

/// Tells from the content of a process's `status` whether it is number 1 of a namespace below the reader's.
fn is_namespace_init(status: &str) -> bool {
    let Some(numbers) = status.lines().find_map(|line| line.strip_prefix("NSpid:")) else { return false };
    let numbers: Vec<_> = numbers.split_whitespace().collect();
    numbers.len() > 1 && numbers.last() == Some(&"1")
}

/// Whether `program` is somewhere on `path`.
pub(crate) fn on_path(program: impl AsRef<OsStr>, path: &str) -> bool {
    std::env::split_paths(path).any(|dir| dir.join(program.as_ref()).is_file())
}

/// Whether the effective user may do what a cluster needs.
pub(crate) fn is_root() -> io::Result<bool> {
    let status = fs::read_to_string("/proc/self/status")?;
    Ok(effective_user(&status) == Some(0))
}

fn effective_user(status: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_found_only_as_a_whole_variable() {
        let marked = format!("A=1\0{MARK}=phk/node1/kubelet\0B=2\0");
        assert_eq!(parse_mark(marked.as_bytes()), Some(("phk".into(), "node1/kubelet".into())));
        for other in [format!("X{MARK}=phk/etcd\0"), format!("A={MARK}=phk/etcd\0"), format!("{MARK}=phk\0")]
        {
            assert_eq!(parse_mark(other.as_bytes()), None, "{other:?}");
        }
        assert_eq!(parse_mark(b""), None);
    }

    #[test]
    fn only_number_one_of_an_inner_namespace_is_an_init() {
        assert!(is_namespace_init("Name:\tx\nNSpid:\t4711\t1\n"));
        assert!(!is_namespace_init("NSpid:\t4711\t17\n"));
        assert!(!is_namespace_init("NSpid:\t1\n"), "the machine's own first process");
        assert!(!is_namespace_init(""));
    }

    #[test]
    fn the_effective_user_decides() {
        assert_eq!(effective_user("Name:\tx\nUid:\t1000\t0\t0\t0\n"), Some(0));
        assert_eq!(effective_user("Uid:\t0\t1000\t0\t0\n"), Some(1000));
    }

    #[test]
    fn what_was_started_is_found_and_killed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let cluster = format!("t{}", std::process::id());
        let mut sleep = Command::new("sleep");
        sleep.arg("300");
        start(&cluster, "one", &log, &sleep).unwrap();
        start(&cluster, "two", &log, &sleep).unwrap();
        wait_until("both run", DEATH, &log, || find(&cluster).len() == 2).unwrap();
        assert_eq!(find_part(&cluster, "one").len(), 1);
        kill(&cluster, &log, |part| part == "one").unwrap();
        assert_eq!(find(&cluster).iter().map(|d| d.part.as_str()).collect::<Vec<_>>(), ["two"]);
        kill(&cluster, &log, |_| true).unwrap();
        assert!(find(&cluster).is_empty());
    }
}

//! Operators as child processes, each started again when it ends, as a kubelet does with a container.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// How long an operator that ended stays down.
const PAUSE: Duration = Duration::from_millis(300);

/// The command line of an operator without a failpoint, by its name.
pub(super) type Recipe = Box<dyn Fn(&str) -> std::process::Command + Send + Sync>;

/// Told of each operator's process group: that it was started, and that its leader has ended.
pub(super) type Register = Box<dyn Fn(i32, bool) + Send + Sync>;

/// Operators at work. Dropping it kills them.
pub(super) struct Crew {
    members: BTreeMap<String, Member>,
}

struct Member {
    seat: Arc<Seat>,
    task: JoinHandle<()>,
}

struct Seat {
    name: String,
    recipe: Arc<Recipe>,
    register: Arc<Register>,
    log: PathBuf,
    pid: watch::Sender<Option<u32>>,
    present: watch::Sender<bool>,
    failpoint: Mutex<Option<String>>,
    ends: AtomicU64,
}

impl Crew {
    /// Starts operators of these names; what they say goes to files in `logs`.
    pub(super) fn start(names: &[&str], recipe: Recipe, register: Register, logs: &Path) -> Self {
        let (recipe, register) = (Arc::new(recipe), Arc::new(register));
        let members = names
            .iter()
            .map(|name| {
                let seat = Arc::new(Seat {
                    name: (*name).to_owned(),
                    recipe: Arc::clone(&recipe),
                    register: Arc::clone(&register),
                    log: logs.join(format!("{name}.log")),
                    pid: watch::Sender::new(None),
                    present: watch::Sender::new(true),
                    failpoint: Mutex::default(),
                    ends: AtomicU64::new(0),
                });
                let task = tokio::spawn(keep(Arc::clone(&seat)));
                ((*name).to_owned(), Member { seat, task })
            })
            .collect();
        Self { members }
    }

    /// How often operators have ended so far.
    pub(super) fn ends(&self) -> u64 {
        self.members.values().map(|member| member.seat.ends.load(Ordering::SeqCst)).sum()
    }

    /// Sends a signal to an operator's process.
    pub(super) fn signal(&self, name: &str, signal: Signal) -> Result<()> {
        kill_process(self.pid(name)?, signal).with_context(|| format!("signal {name}"))
    }

    /// An operator's process.
    pub(super) fn pid(&self, name: &str) -> Result<Pid> {
        let pid = *self.seat(name)?.pid.borrow();
        pid.and_then(|pid| Pid::from_raw(pid.cast_signed())).context("that operator is down")
    }

    /// Kills an operator and lets it come back with this failpoint armed, once: it comes back from that without one.
    /// Returns when the new process runs.
    pub(super) async fn arm(&self, name: &str, failpoint: Option<&str>) -> Result<()> {
        let seat = self.seat(name)?;
        *seat.failpoint.lock().unwrap_or_else(PoisonError::into_inner) = failpoint.map(str::to_owned);
        let old = *seat.pid.borrow();
        if old.is_some() {
            self.signal(name, Signal::KILL)?;
        }
        let mut pid = seat.pid.subscribe();
        pid.wait_for(|pid| pid.is_some() && *pid != old).await.context("nobody starts operators")?;
        Ok(())
    }

    /// Takes an operator away, or brings it back.
    pub(super) async fn set_present(&self, name: &str, present: bool) -> Result<()> {
        let seat = self.seat(name)?;
        seat.present.send_replace(present);
        if !present && seat.pid.borrow().is_some() {
            self.signal(name, Signal::KILL)?;
        }
        let mut pid = seat.pid.subscribe();
        pid.wait_for(|pid| pid.is_some() == present).await.context("nobody starts operators")?;
        Ok(())
    }

    fn seat(&self, name: &str) -> Result<&Seat> {
        match self.members.get(name) {
            Some(member) => Ok(&member.seat),
            None => bail!("no operator is named {name}"),
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for member in self.members.values() {
            member.task.abort();
        }
    }
}

/// Starts the operator of a seat again and again.
async fn keep(seat: Arc<Seat>) {
    let mut present = seat.present.subscribe();
    loop {
        if present.wait_for(|present| *present).await.is_err() {
            return;
        }
        match spawn(&seat) {
            Ok(mut child) => {
                let group = child.id().map_or(0, u32::cast_signed);
                (seat.register)(group, true);
                seat.pid.send_replace(child.id());
                // How it ended is in its log.
                let _ = child.wait().await;
                seat.pid.send_replace(None);
                (seat.register)(group, false);
                seat.ends.fetch_add(1, Ordering::SeqCst);
            }
            Err(error) => eprintln!("{} cannot be started: {error:#}", seat.name),
        }
        sleep(PAUSE).await;
    }
}

fn spawn(seat: &Seat) -> Result<Child> {
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&seat.log)
        .with_context(|| format!("open {}", seat.log.display()))?;
    let mut command = (seat.recipe)(&seat.name);
    if let Some(failpoint) = seat.failpoint.lock().unwrap_or_else(PoisonError::into_inner).take() {
        command.args(["--failpoint", &failpoint]);
    }
    // Ctrl-C is for the one who holds the crew.
    command.process_group(0);
    // A seat is taken again only when its last holder has ended, as a pod's container is started again.
    command.env("POD_NAME", &seat.name).env("POD_UID", format!("seat-{}", seat.name));
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Ok(Command::from(command).kill_on_drop(true).spawn()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::{Seen, until};

    #[tokio::test]
    async fn comes_back_armed_once_and_then_unarmed() {
        let logs = tempfile::tempdir().unwrap();
        let recipe: Recipe = Box::new(|_| {
            let mut command = std::process::Command::new("sh");
            command.args(["-c", r#"echo "$POD_NAME $*"; exec sleep 600"#, "operator"]);
            command
        });
        let crew = Crew::start(&["a"], recipe, Box::new(|_, _| ()), logs.path());
        let lines = async |wanted: usize| {
            until("another life", Duration::from_secs(60), async || {
                let said = std::fs::read_to_string(logs.path().join("a.log"))?;
                let lines: Vec<String> = said.lines().map(str::to_owned).collect();
                Ok(if lines.len() == wanted { Seen::Yes(lines) } else { Seen::NotYet(said) })
            })
            .await
            .unwrap()
        };
        lines(1).await;
        crew.arm("a", Some("commit:before")).await.unwrap();
        assert_eq!(lines(2).await[1], "a --failpoint commit:before");
        crew.signal("a", Signal::KILL).unwrap();
        assert_eq!(lines(3).await[2], "a ");
        crew.set_present("a", false).await.unwrap();
        assert_eq!(crew.ends(), 3);
        assert!(crew.signal("a", Signal::KILL).is_err());
        assert!(crew.signal("b", Signal::KILL).is_err());
    }
}

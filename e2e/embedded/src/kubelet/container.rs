//! One run of a container as a process group.

use super::environment::Invocation;
use super::model::{Input, Waiting};
use super::probe::{Purpose, Target, observe};
use super::spec::{Container, Probe};
use crate::options::ImageSpec;
use crate::processes::{Groups, signal, terminate};
use rustix::process::Signal;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use tokio::process::{Child, Command};
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::AbortHandle;

/// What a pod's worker is told by the tasks around it.
#[derive(Debug)]
pub enum Happening {
    /// Something happened to a run of a container.
    Did(usize, u64, Input),
    /// A run of a container began, or could not.
    Launched(usize, u64, Result<Box<Run>, Waiting>),
}

/// A running container. Dropping it is a loss of power: everything is killed at once.
#[derive(Debug)]
pub struct Run {
    group: i32,
    groups: Arc<Groups>,
    child: Option<Child>,
    tasks: Vec<AbortHandle>,
    liveness: Option<AbortHandle>,
    target: Target,
    number: u64,
}

impl Drop for Run {
    fn drop(&mut self) {
        for task in self.tasks.iter().chain(&self.liveness) {
            task.abort();
        }
        self.groups.leave(self.group);
    }
}

/// Where a run's files go.
#[derive(Debug)]
pub struct Places<'a> {
    /// Its working directory.
    pub directory: &'a Path,
    /// Its output.
    pub log: &'a Path,
}

impl Run {
    /// Starts the program of an image as run `number`.
    ///
    /// # Errors
    /// What the container waits for, in the words of its status.
    pub fn start(
        number: u64,
        image: &ImageSpec,
        invocation: Invocation,
        places: &Places<'_>,
        target: Target,
        groups: Arc<Groups>,
    ) -> Result<Self, Waiting> {
        let refused = |e: std::io::Error| Waiting {
            reason: "RunContainerError",
            message: format!("cannot run {}: {e}", image.program.display()),
        };
        let (program, arguments) = program(image, &invocation);
        fs::create_dir_all(places.directory).map_err(refused)?;
        if let Some(parent) = places.log.parent() {
            fs::create_dir_all(parent).map_err(refused)?;
        }
        let output = File::create(places.log).map_err(refused)?;
        let errors = output.try_clone().map_err(refused)?;
        let child = Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(invocation.variables)
            .current_dir(places.directory)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .map_err(refused)?;
        let group = child.id().map(u32::cast_signed).unwrap_or_default();
        groups.enter(group);
        let (tasks, child) = (Vec::new(), Some(child));
        Ok(Self { group, groups, child, tasks, liveness: None, target, number })
    }

    /// Begins to wait for its end, of which container `index` is told.
    pub fn attend(&mut self, index: usize, happenings: &UnboundedSender<Happening>) {
        let Some(mut child) = self.child.take() else { return };
        let (number, told) = (self.number, happenings.clone());
        let waiter = tokio::spawn(async move {
            let code = match child.wait().await {
                Ok(status) => status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()),
                Err(_) => 255,
            };
            // The pod's task may be gone; then nobody needs to know.
            let _ = told.send(Happening::Did(index, number, Input::Exited(code)));
        });
        self.tasks.push(waiter.abort_handle());
    }

    /// The process id of the container's first process.
    pub fn pid(&self) -> i32 {
        self.group
    }

    /// Which run it is.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// What its probes and hooks are made against.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Begins the probes that follow its start, or its passed start-up probe.
    pub fn probe(
        &mut self,
        index: usize,
        spec: &Container,
        started: bool,
        pace: f64,
        happenings: &UnboundedSender<Happening>,
    ) {
        let begin = |purpose: Purpose, probe: &Option<Probe>| {
            let probe = probe.clone()?;
            let (number, told) = (self.number, happenings.clone());
            let tell = move |input| {
                let _ = told.send(Happening::Did(index, number, input));
            };
            Some(tokio::spawn(observe(purpose, probe, self.target.clone(), pace, tell)).abort_handle())
        };
        if !started {
            self.tasks.extend(begin(Purpose::Startup, &spec.startup));
            return;
        }
        let readiness = begin(Purpose::Readiness, &spec.readiness);
        self.liveness = begin(Purpose::Liveness, &spec.liveness);
        self.tasks.extend(readiness);
    }

    /// Ends the liveness probe.
    pub fn stop_liveness(&mut self) {
        if let Some(task) = self.liveness.take() {
            task.abort();
        }
    }

    /// SIGTERM to the first process.
    pub fn terminate(&self) {
        terminate(self.group);
    }

    /// SIGKILL to all of it.
    pub fn kill(&self) {
        signal(self.group, Signal::KILL);
    }
}

/// The program and its arguments. A `command` that names the image's program by its last part means that program,
/// wherever the image would have it.
fn program(image: &ImageSpec, invocation: &Invocation) -> (PathBuf, Vec<String>) {
    let (program, mut arguments) = match invocation.command.split_first() {
        None => (image.program.clone(), Vec::new()),
        Some((first, rest)) => {
            let same = Path::new(first).file_name() == image.program.file_name();
            let program = if same { image.program.clone() } else { PathBuf::from(first) };
            (program, rest.to_vec())
        }
    };
    match (&invocation.args, invocation.command.is_empty()) {
        (Some(args), _) => arguments.extend(args.iter().cloned()),
        (None, true) => arguments.extend(image.args.iter().cloned()),
        (None, false) => {}
    }
    (program, arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(command: &[&str], args: Option<&[&str]>) -> (String, Vec<String>) {
        let owned = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        let image = ImageSpec { program: "/here/sidecar".into(), args: owned(&["default"]) };
        let invocation = Invocation { command: owned(command), args: args.map(owned), variables: Vec::new() };
        let (program, arguments) = program(&image, &invocation);
        (program.display().to_string(), arguments)
    }

    #[test]
    fn command_and_args_replace_those_of_the_image() {
        assert_eq!(resolved(&[], None), ("/here/sidecar".into(), vec!["default".into()]));
        assert_eq!(resolved(&[], Some(&["a"])), ("/here/sidecar".into(), vec!["a".into()]));
        assert_eq!(resolved(&["/usr/bin/sidecar", "x"], None), ("/here/sidecar".into(), vec!["x".into()]));
        assert_eq!(resolved(&["sh", "-c"], Some(&["y"])), ("sh".into(), vec!["-c".into(), "y".into()]));
    }
}

//! The application as the adapter's child.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;
use tokio::sync::{mpsc, watch};

use crate::shell::ended;

/// The end of a run that nobody may have asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Which run.
    pub run: u64,
    /// How, in words.
    pub how: String,
}

/// The application: started and stopped as often as it takes.
#[derive(Debug)]
pub struct Application {
    command: Vec<String>,
    environment: Vec<(String, String)>,
    running: Option<Running>,
    runs: u64,
    tell: mpsc::UnboundedSender<Ended>,
}

#[derive(Debug)]
struct Running {
    run: u64,
    pid: Pid,
    ended: watch::Receiver<Option<String>>,
    /// It was seen to serve.
    ready: bool,
}

/// Why the application is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum ApplicationError {
    /// There is no such program, or no process to be had.
    #[error("the application `{program}` could not be started: {why}")]
    NotStarted {
        /// The program.
        program: String,
        /// What the system says.
        why: std::io::Error,
    },
    /// It ended at once.
    #[error("the application ended with {0} before it served; its log says why")]
    Ended(String),
    /// It takes too long.
    #[error("the application did not serve within {} ms of its start: {last}", .limit.as_millis())]
    NotReady {
        /// What it had.
        limit: Duration,
        /// What the last look said.
        last: String,
    },
    /// It does not end.
    #[error("the application did not end within {} ms of SIGTERM: raise --time-limit", .0.as_millis())]
    NotStopped(Duration),
}

impl Application {
    /// An application that does not run yet; `tell` is told of each end.
    #[must_use]
    pub fn new(
        command: Vec<String>,
        environment: Vec<(String, String)>,
        tell: mpsc::UnboundedSender<Ended>,
    ) -> Self {
        Self { command, environment, running: None, runs: 0, tell }
    }

    /// Whether it runs, as far as is known.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.ended.borrow().is_none())
    }

    /// Whether it runs and was seen to serve.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.runs() && self.running.as_ref().is_some_and(|running| running.ready)
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        self.running.as_ref().filter(|_| self.runs()).map(|running| running.pid.as_raw_nonzero().get())
    }

    /// Starts it, unless it runs. What it writes goes where the adapter's own output goes.
    ///
    /// # Errors
    /// [`ApplicationError::NotStarted`].
    pub fn start(&mut self) -> Result<(), ApplicationError> {
        let Some((program, arguments)) = self.command.split_first().filter(|_| !self.runs()) else {
            return Ok(());
        };
        let failed = |why| ApplicationError::NotStarted { program: program.clone(), why };
        let mut child = Command::new(program)
            .args(arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let pid = pid.ok_or_else(|| failed(std::io::Error::other("it has no process id")))?;
        self.runs += 1;
        let (run, tell) = (self.runs, self.tell.clone());
        let (end, ended_at) = watch::channel(None);
        tokio::spawn(async move {
            let how = match child.wait().await {
                Ok(status) => ended(status),
                Err(error) => error.to_string(),
            };
            end.send_replace(Some(how.clone()));
            // Nobody listens any more when the adapter ends.
            let _ = tell.send(Ended { run, how });
        });
        tracing::info!(run, pid = pid.as_raw_nonzero().get(), "the application was started");
        self.running = Some(Running { run, pid, ended: ended_at, ready: false });
        Ok(())
    }

    /// Asks it to end and waits for that. Once this has begun, the end is no surprise.
    ///
    /// # Errors
    /// [`ApplicationError::NotStopped`]: it may still end, which is then told as any other end.
    pub async fn stop(&mut self, limit: Duration) -> Result<(), ApplicationError> {
        let Some(running) = &mut self.running else { return Ok(()) };
        if running.ended.borrow().is_none() {
            // It may be ending by itself.
            let _ = kill_process(running.pid, Signal::TERM);
        }
        let over = tokio::time::timeout(limit, running.ended.wait_for(Option::is_some)).await.is_ok();
        if !over {
            return Err(ApplicationError::NotStopped(limit));
        }
        self.running = None;
        Ok(())
    }

    /// Waits until `look` says that it serves.
    ///
    /// # Errors
    /// [`ApplicationError::Ended`] and [`ApplicationError::NotReady`].
    pub async fn ready<F>(&mut self, limit: Duration, look: impl Fn() -> F) -> Result<(), ApplicationError>
    where
        F: Future<Output = Result<(), String>>,
    {
        let mut last = "it was not looked at".to_owned();
        let looking = async {
            let mut pause = Duration::from_millis(2);
            while let Err(error) = look().await {
                last = error;
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(50));
            }
        };
        let ended = async {
            match self.running.as_ref().map(|running| running.ended.clone()) {
                Some(mut ended) => match ended.wait_for(Option::is_some).await {
                    Ok(how) => how.clone().unwrap_or_default(),
                    Err(_) => "an unknown status".to_owned(),
                },
                None => std::future::pending().await,
            }
        };
        let ready = tokio::select! {
            biased;
            how = ended => Err(ApplicationError::Ended(how)),
            looked = tokio::time::timeout(limit, looking) => {
                looked.map_err(|_| ApplicationError::NotReady { limit, last })
            }
        };
        if let Some(running) = &mut self.running {
            running.ready = ready.is_ok();
        }
        ready
    }

    /// Whether this end is a surprise; afterwards the application counts as not running.
    pub fn surprised(&mut self, end: &Ended) -> bool {
        let surprised = self.running.as_ref().is_some_and(|running| running.run == end.run);
        if surprised {
            self.running = None;
        }
        surprised
    }
}

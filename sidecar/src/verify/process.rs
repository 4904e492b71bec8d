//! The worker as a process of its own.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use processhub_protocol::contract::{ENV_CONTROL, ENV_HUB, ENV_LISTEN, ENV_NAMESPACE, ENV_PROCESS};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::arguments::Arguments;
use super::call::{Caller, Silence};
use crate::client::Client;
use crate::net::Tcp;

/// The worker's program cannot be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start `{program}`: {source}")]
pub struct StartError {
    program: String,
    source: std::io::Error,
}

/// A running worker. It is killed when this is dropped.
pub(super) struct Process {
    child: Child,
    pub(super) caller: Caller,
}

impl Process {
    pub(super) fn start(arguments: &Arguments) -> Result<Self, StartError> {
        let mut words = arguments.command.iter();
        let program = words.next().map(String::as_str).unwrap_or_default();
        let child = Command::new(program)
            .args(words)
            .envs(arguments.environment.iter().map(|(name, value)| (name, value)))
            .env(ENV_NAMESPACE, "default")
            .env(ENV_HUB, "verify")
            .env(ENV_PROCESS, "verify-0")
            .env(ENV_CONTROL, arguments.control.to_string())
            .env(ENV_LISTEN, arguments.listen.to_string())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| StartError { program: program.to_owned(), source })?;
        let Arguments { control, listen, patience, .. } = *arguments;
        let client = Client::new(Arc::new(Tcp));
        Ok(Self { child, caller: Caller { client, control, listen, patience } })
    }

    /// Waits until it answers, for as long as a call may take.
    pub(super) async fn ready(&mut self) -> Result<(), Silence> {
        let end = Instant::now() + self.caller.patience;
        loop {
            let silence = match self.caller.info().await {
                Ok(_) => return Ok(()),
                Err(silence) => silence,
            };
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(Silence::Connect(
                    "GET /v1/info".into(),
                    format!("the worker ended with {status}"),
                ));
            }
            // A broken answer is an answer; only a connection that is not there yet is waited for.
            if !matches!(silence, Silence::Connect(..)) || Instant::now() >= end {
                return Err(silence);
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// How long it may take.
    pub(super) fn patience(&self) -> Duration {
        self.caller.patience
    }

    /// Asks it to end; false if it had to be killed.
    pub(super) async fn stop(mut self) -> bool {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        if let Some(pid) = pid {
            // It may have ended by itself in between, which is as good.
            let _ = kill_process(pid, Signal::TERM);
        }
        let ended = timeout(self.caller.patience, self.child.wait()).await.is_ok();
        if !ended {
            // Gone is all that is wanted; the only error is that it is gone already.
            let _ = self.child.kill().await;
        }
        ended
    }
}

//! The first process of the container: it starts the sidecar, and starts it again within milliseconds when it dies. A
//! kubelet would do that at once only the first time, and then after 10 s and more.
//!
//! It passes SIGTERM and SIGINT on, collects every process that ends under it, and ends as the sidecar does once that was
//! told to. A sidecar that cannot even start is given back to the kubelet, with its exit code.

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait};
use tokio::signal::unix::{SignalKind, signal};

/// Told to the child: the process that it must not outlive.
pub const PARENT: &str = "--parent";
/// A sidecar that ran for less time did not start.
const START: Duration = Duration::from_secs(1);
/// How often in a row it may fail to.
const STARTS: u32 = 5;
/// Pause after the first failed start; each further one doubles it.
const PAUSE: Duration = Duration::from_millis(20);

/// How a sidecar ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ended {
    /// As a shell would say it.
    code: u8,
    /// It had been told to.
    asked: bool,
    /// For how long it ran.
    ran: Duration,
}

/// What follows from that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Start it again after this time.
    Start(Duration),
    /// End with this code.
    End(u8),
}

/// `failed` counts the starts in a row that came to nothing. Pure.
fn next(ended: Ended, failed: &mut u32) -> Next {
    if ended.asked || ended.code == 0 {
        return Next::End(ended.code);
    }
    if ended.ran >= START {
        *failed = 0;
        return Next::Start(Duration::ZERO);
    }
    *failed += 1;
    if *failed >= STARTS { Next::End(ended.code) } else { Next::Start(PAUSE * (1 << (*failed - 1))) }
}

/// Runs the sidecar until it is told to end, or does not start.
///
/// # Errors
/// When it cannot be started at all.
pub fn run() -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signals = Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            child: signal(SignalKind::child())?,
        };
        let mut failed = 0;
        loop {
            let ended = signals.run_once().await?;
            match next(ended, &mut failed) {
                Next::End(code) => return Ok(code.into()),
                Next::Start(pause) => {
                    eprintln!(
                        "processhub-sidecar: the sidecar ended with {}; it is started again",
                        ended.code
                    );
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        _ = signals.terminate.recv() => return Ok(ExitCode::SUCCESS),
                        _ = signals.interrupt.recv() => return Ok(ExitCode::SUCCESS),
                    }
                }
            }
        }
    })
}

/// In the sidecar: ends it with `parent`, of which it is the child. Nobody else would notice, and two would serve.
///
/// # Errors
/// When it has no parent any more.
pub fn bind_to(parent: &str) -> anyhow::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let now = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    anyhow::ensure!(parent == now.to_string(), "the process {parent} that started this one is gone");
    Ok(())
}

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    child: tokio::signal::unix::Signal,
}

impl Signals {
    async fn run_once(&mut self) -> anyhow::Result<Ended> {
        let program = std::env::current_exe().context("the program's own file")?;
        let began = Instant::now();
        let child = Command::new(program)
            .args(["run", PARENT, &std::process::id().to_string()])
            .spawn()
            .context("start the sidecar")?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("its process id")?;
        let mut asked = false;
        loop {
            if let Some(status) = reap(pid)? {
                return Ok(Ended { code: code(status), asked, ran: began.elapsed() });
            }
            let passed_on = tokio::select! {
                _ = self.terminate.recv() => Some(Signal::TERM),
                _ = self.interrupt.recv() => Some(Signal::INT),
                _ = self.child.recv() => None,
            };
            if let Some(signal) = passed_on {
                asked = true;
                // It may have ended by itself just now, which the next round sees.
                let _ = kill_process(pid, signal);
            }
        }
    }
}

/// Collects whoever has ended; how the sidecar did, if it is among them.
fn reap(sidecar: Pid) -> anyhow::Result<Option<WaitStatus>> {
    let mut found = None;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == sidecar => found = Some(status),
            Ok(Some(_)) => {}
            Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(found),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("wait for the sidecar"),
        }
    }
}

fn code(status: WaitStatus) -> u8 {
    let code = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => 1,
    };
    u8::try_from(code).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(code: u8, asked: bool, seconds: u64) -> Ended {
        Ended { code, asked, ran: Duration::from_secs(seconds) }
    }

    #[test]
    fn a_sidecar_that_dies_is_started_again_at_once() {
        let mut failed = 3;
        assert_eq!(next(ended(137, false, 1), &mut failed), Next::Start(Duration::ZERO));
        assert_eq!(failed, 0);
    }

    #[test]
    fn one_that_was_told_to_end_is_not() {
        for code in [0, 1, 143] {
            assert_eq!(next(ended(code, true, 0), &mut 0), Next::End(code));
        }
        assert_eq!(next(ended(0, false, 0), &mut 0), Next::End(0));
    }

    #[test]
    fn one_that_does_not_start_is_the_kubelets() {
        let mut failed = 0;
        let mut pauses = Vec::new();
        loop {
            match next(ended(1, false, 0), &mut failed) {
                Next::Start(pause) => pauses.push(pause.as_millis()),
                Next::End(code) => break assert_eq!(code, 1),
            }
        }
        assert_eq!(pauses, [20, 40, 80, 160]);
    }
}

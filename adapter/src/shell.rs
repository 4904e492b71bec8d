//! Runs the commands that somebody wrote for the application: with a time limit, and with what went wrong in words.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::time::{Instant, timeout_at};

/// The shell.
const SHELL: &str = "/bin/sh";
/// How much of what a command complains of is kept, in bytes: the last, where tools say why they gave up.
const COMPLAINT: usize = 600;
/// Bytes that are copied at once.
const PIECE: usize = 256 << 10;
/// How long a command's pipes may stay open after it has ended: something it left in the background may hold them.
const LEFTOVER: Duration = Duration::from_millis(200);

/// A command of the plan by the name of its option.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// Such as `--dump`.
    pub option: &'static str,
    /// What the shell is given.
    pub command: &'a str,
}

/// Why a command did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// There is no shell, or no process.
    #[error("{option} could not be run by {SHELL}: {why}")]
    NotRun {
        /// The option.
        option: &'static str,
        /// What the system says.
        why: std::io::Error,
    },
    /// It said no.
    #[error("{option} ended with {status} after {milliseconds} ms{complaint}")]
    Failed {
        /// The option.
        option: &'static str,
        /// Its exit code or signal.
        status: String,
        /// How long it ran.
        milliseconds: u128,
        /// The end of its standard error.
        complaint: String,
    },
    /// It took too long, and was killed.
    #[error("{option} was not done within {} ms and was killed{complaint}", .limit.as_millis())]
    TimedOut {
        /// The option.
        option: &'static str,
        /// What it had.
        limit: Duration,
        /// The end of its standard error.
        complaint: String,
    },
    /// It wrote more than a state may have, and was killed.
    #[error("{option} wrote more than --max-state-bytes {most}: raise that, or make the state smaller")]
    TooLarge {
        /// The option.
        option: &'static str,
        /// The bound.
        most: u64,
    },
    /// Its input or output could not be read or written.
    #[error("{option}: {what}: {why}")]
    Copy {
        /// The option.
        option: &'static str,
        /// What was tried.
        what: String,
        /// What the system says.
        why: std::io::Error,
    },
}

/// Variables for a command.
pub type Environment = [(String, String)];

/// Runs a command that has nothing to read; what it writes to standard output goes nowhere.
///
/// # Errors
/// See [`CommandError`].
pub async fn run(named: Named<'_>, environment: &Environment, limit: Duration) -> Result<(), CommandError> {
    work(named, environment, limit, Io::None).await.map(drop)
}

/// Runs a command and writes its standard output to a file; its length.
///
/// # Errors
/// See [`CommandError`]. The file is then void.
pub async fn dump(
    named: Named<'_>,
    environment: &Environment,
    limit: Duration,
    to: &Path,
    most: u64,
) -> Result<u64, CommandError> {
    work(named, environment, limit, Io::Out(to, most)).await
}

/// Runs a command with a file as its standard input.
///
/// # Errors
/// See [`CommandError`].
pub async fn load(
    named: Named<'_>,
    environment: &Environment,
    limit: Duration,
    from: &Path,
) -> Result<(), CommandError> {
    work(named, environment, limit, Io::In(from)).await.map(drop)
}

enum Io<'a> {
    None,
    Out(&'a Path, u64),
    In(&'a Path),
}

async fn work(
    named: Named<'_>,
    environment: &Environment,
    limit: Duration,
    io: Io<'_>,
) -> Result<u64, CommandError> {
    let Named { option, command } = named;
    let not_run = |why| CommandError::NotRun { option, why };
    let failed = |path: &Path| {
        let what = format!("open {}", path.display());
        move |why| CommandError::Copy { option, what, why }
    };
    let stdin = match &io {
        Io::In(path) => Stdio::from(std::fs::File::open(path).map_err(failed(path))?),
        Io::None | Io::Out(..) => Stdio::null(),
    };
    let began = Instant::now();
    let mut child = Command::new(SHELL)
        .args(["-c", command])
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(stdin)
        .stdout(if matches!(io, Io::Out(..)) { Stdio::piped() } else { Stdio::null() })
        .stderr(Stdio::piped())
        // Its own group, so that all of it can be killed.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(not_run)?;
    let group = Group(child.id());
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let complaint = tokio::spawn(tail(stderr));
    let ends = began + limit;
    let copied = timeout_at(ends, async {
        match (&io, stdout) {
            (Io::Out(path, most), Some(stdout)) => copy(option, stdout, path, *most).await,
            _ => Ok(0),
        }
    });
    let copied = match copied.await {
        Ok(Ok(copied)) => copied,
        Ok(Err(error)) => {
            group.kill();
            return Err(error);
        }
        Err(_) => return Err(group.too_slow(option, limit, complaint).await),
    };
    let Ok(status) = timeout_at(ends, child.wait()).await else {
        return Err(group.too_slow(option, limit, complaint).await);
    };
    let status = status.map_err(not_run)?;
    if status.success() {
        return Ok(copied);
    }
    let complaint = said(complaint).await;
    Err(CommandError::Failed {
        option,
        status: ended(status),
        milliseconds: began.elapsed().as_millis(),
        complaint,
    })
}

/// All processes of a command.
struct Group(Option<u32>);

impl Group {
    fn kill(&self) {
        if let Some(group) = self.0.and_then(|pid| Pid::from_raw(pid.cast_signed())) {
            // It may have ended by itself meanwhile.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }

    async fn too_slow(
        &self,
        option: &'static str,
        limit: Duration,
        complaint: tokio::task::JoinHandle<Vec<u8>>,
    ) -> CommandError {
        self.kill();
        CommandError::TimedOut { option, limit, complaint: said(complaint).await }
    }
}

async fn copy(
    option: &'static str,
    mut from: impl AsyncRead + Unpin,
    to: &Path,
    most: u64,
) -> Result<u64, CommandError> {
    let failed = |why| CommandError::Copy { option, what: format!("write {}", to.display()), why };
    let mut file = File::create(to).await.map_err(failed)?;
    let mut piece = vec![0; PIECE];
    let mut total = 0;
    loop {
        let read = from.read(&mut piece).await.map_err(failed)?;
        if read == 0 {
            break;
        }
        total += read as u64;
        if total > most {
            return Err(CommandError::TooLarge { option, most });
        }
        file.write_all(&piece[..read]).await.map_err(failed)?;
    }
    file.flush().await.map_err(failed)?;
    Ok(total)
}

/// The last bytes of what a command complains of. It is read to its end, so that the command never waits for it.
async fn tail(stderr: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut kept = Vec::new();
    let Some(mut stderr) = stderr else { return kept };
    let mut piece = [0; 4096];
    while let Ok(read @ 1..) = stderr.read(&mut piece).await {
        kept.extend_from_slice(&piece[..read]);
        if kept.len() > 2 * COMPLAINT {
            kept.drain(..kept.len() - COMPLAINT);
        }
    }
    kept
}

async fn said(complaint: tokio::task::JoinHandle<Vec<u8>>) -> String {
    let Ok(Ok(bytes)) = tokio::time::timeout(LEFTOVER, complaint).await else { return String::new() };
    let from = bytes.len().saturating_sub(COMPLAINT);
    let text = String::from_utf8_lossy(&bytes[from..]);
    let text = text.trim();
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

/// How a process ended, in words.
#[must_use]
pub fn ended(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(127), _) => "exit code 127 (no such program)".to_owned(),
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown status".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(5);

    fn named(command: &str) -> Named<'_> {
        Named { option: "--dump", command }
    }

    #[tokio::test]
    async fn what_a_command_writes_is_the_state_and_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let (state, copy) = (folder.path().join("state"), folder.path().join("copy"));
        let environment = [("WHAT".to_owned(), "a b".to_owned())];
        let length = dump(named("printf \"$WHAT\""), &environment, SECOND, &state, 3).await.unwrap();
        assert_eq!((length, std::fs::read(&state).unwrap().as_slice()), (3, b"a b".as_slice()));
        let command = format!("cat >{}", copy.display());
        load(named(&command), &[], SECOND, &state).await.unwrap();
        assert_eq!(std::fs::read(&copy).unwrap(), b"a b");
    }

    #[tokio::test]
    async fn a_command_that_fails_says_how_and_why() {
        let error =
            run(named("echo first >&2; echo no such key >&2; exit 3"), &[], SECOND).await.unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("--dump ended with exit code 3 after"), "{text}");
        assert!(text.ends_with("no such key"), "{text}");
        let text = run(named("no-such-program"), &[], SECOND).await.unwrap_err().to_string();
        assert!(
            text.contains("exit code 127 (no such program)") && text.contains("no-such-program"),
            "{text}"
        );
        let text = run(named("kill -9 $$"), &[], SECOND).await.unwrap_err().to_string();
        assert!(text.contains("signal 9"), "{text}");
    }

    #[tokio::test]
    async fn a_command_that_takes_too_long_is_killed_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("mark");
        let command = format!("echo waiting >&2; (sleep 1; touch {}) & sleep 600", mark.display());
        let limit = Duration::from_millis(300);
        let error = run(named(&command), &[], limit).await.unwrap_err();
        assert!(matches!(error, CommandError::TimedOut { .. }), "{error}");
        assert!(error.to_string().ends_with("waiting"), "{error}");
        tokio::time::sleep(Duration::from_millis(1200)).await;
        assert!(!mark.exists(), "its child went on");
    }

    #[tokio::test]
    async fn a_dump_beyond_the_bound_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("state");
        let error = dump(named("cat /dev/zero"), &[], SECOND, &to, 1 << 20).await.unwrap_err();
        assert!(matches!(error, CommandError::TooLarge { most: 1_048_576, .. }), "{error}");
    }

    #[tokio::test]
    async fn a_long_complaint_is_cut_at_its_beginning() {
        let command = "i=0; while [ $i -lt 5000 ]; do echo line $i >&2; i=$((i+1)); done; exit 1";
        let text = run(named(command), &[], SECOND).await.unwrap_err().to_string();
        assert!(text.ends_with("line 4999") && text.len() < 900, "{}", text.len());
    }
}

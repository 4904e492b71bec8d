//! Running other programs and waiting for what they bring about.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, Result, file_error};

/// Runs a command to its end and gives back its standard output; a failure carries the command line and what it said.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output =
        command.stdin(Stdio::null()).output().map_err(|error| failed(command, error.to_string(), ""))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(failed(command, output.status.to_string(), String::from_utf8_lossy(&said).trim()))
}

/// Runs a command with `input` on its standard input.
pub(crate) fn run_with_input(command: &mut Command, input: &str) -> Result<String> {
    let start = |command: &mut Command| {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A command that ends without reading says why in its own output, which is shown below.
            let _ = stdin.write_all(input.as_bytes());
        }
        child.wait_with_output()
    };
    let output = start(command).map_err(|error| failed(command, error.to_string(), ""))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(failed(command, output.status.to_string(), String::from_utf8_lossy(&output.stderr).trim()))
}

/// Runs a command whose output a person shall see as it comes.
pub(crate) fn run_aloud(command: &mut Command) -> Result<()> {
    let status =
        command.stdin(Stdio::null()).status().map_err(|error| failed(command, error.to_string(), ""))?;
    if status.success() { Ok(()) } else { Err(failed(command, status.to_string(), "")) }
}

fn failed(command: &Command, status: String, output: &str) -> Error {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    Error::Command { command: line, status, output: output.to_owned() }
}

/// Asks `condition` again and again until it holds, at most for `limit`; a person then finds more in `log`.
pub(crate) fn wait_until(
    what: impl Into<String>,
    limit: Duration,
    log: &Path,
    mut condition: impl FnMut() -> bool,
) -> Result<()> {
    const PAUSE: Duration = Duration::from_millis(50);
    let deadline = Instant::now() + limit;
    while !condition() {
        if Instant::now() >= deadline {
            return Err(Error::TimedOut { what: what.into(), seconds: limit.as_secs(), log: log.to_owned() });
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}

/// Writes a file and the directories above it.
pub(crate) fn write_file(path: &Path, content: &str) -> Result<()> {
    if let Some(parent) = path.parent() {
        create_dir(parent)?;
    }
    fs::write(path, content).map_err(file_error("write", path))
}

/// Makes a directory and those above it.
pub(crate) fn create_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(file_error("make directory", path))
}

/// Removes a directory and all in it; that it is not there is fine.
pub(crate) fn remove_dir(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(file_error("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Tells the person who waits what is going on.
pub(crate) fn progress(message: &str) {
    say(&format!("local cluster: {message}"));
}

/// Writes a line to standard error past the test harness, which keeps what the macros print to itself; nobody is
/// harmed when it cannot be written.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

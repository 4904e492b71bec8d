//! Probes and hooks against a container's process.

use super::model::Input;
use super::spec::{Action, Probe};
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

/// What probes and hooks of a container are made against.
#[derive(Clone, Debug)]
pub struct Target {
    /// The pod's address.
    pub address: Ipv4Addr,
    /// Where commands run.
    pub directory: PathBuf,
    /// The container's variables, for commands.
    pub variables: Vec<(String, String)>,
}

/// Does the action once.
///
/// # Errors
/// Why it did not succeed.
pub async fn attempt(action: &Action, target: &Target) -> io::Result<()> {
    let address = target.address.to_string();
    match action {
        Action::Tcp { host, port } => {
            let host = host.as_deref().unwrap_or(&address);
            TcpStream::connect((host, *port)).await.map(drop)
        }
        Action::Http { host, port, path, headers } => {
            let host = host.as_deref().unwrap_or(&address);
            let mut request = format!(
                "GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUser-Agent: kube-probe/embedded\r\nConnection: close\r\n"
            );
            for (name, value) in headers {
                request.push_str(&format!("{name}: {value}\r\n"));
            }
            request.push_str("\r\n");
            let code = get(host, *port, request.as_bytes()).await?;
            if (200..400).contains(&code) {
                Ok(())
            } else {
                Err(io::Error::other(format!("HTTP probe failed with statuscode: {code}")))
            }
        }
        Action::Exec(command) => exec(command, target).await,
        Action::Sleep(time) => {
            sleep(*time).await;
            Ok(())
        }
    }
}

async fn get(host: &str, port: u16, request: &[u8]) -> io::Result<u16> {
    let mut stream = TcpStream::connect((host, port)).await?;
    stream.write_all(request).await?;
    let mut head = Vec::with_capacity(64);
    let mut buffer = [0_u8; 512];
    while !head.contains(&b'\n') {
        let read = stream.read(&mut buffer).await?;
        if read == 0 || head.len() > 1024 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the answer has no status line"));
        }
        head.extend_from_slice(&buffer[..read]);
    }
    let line = String::from_utf8_lossy(&head);
    line.split_whitespace()
        .nth(1)
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP"))
}

async fn exec(command: &[String], target: &Target) -> io::Result<()> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the command is empty"));
    };
    let status = Command::new(program)
        .args(arguments)
        .envs(target.variables.iter().map(|(k, v)| (k, v)))
        .current_dir(&target.directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .status()
        .await?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("command ended with {status}"))) }
}

/// Which of a container's probes is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Until it succeeds, or fails for good.
    Startup,
    /// As long as the container runs; tells every change.
    Readiness,
    /// Until it fails for good.
    Liveness,
}

/// Runs a probe and tells what follows from it; `pace` is a factor on its delay and period.
pub async fn observe(purpose: Purpose, probe: Probe, target: Target, pace: f64, tell: impl Fn(Input)) {
    sleep(probe.delay.mul_f64(pace)).await;
    let mut counter = Counter::new(purpose, &probe);
    loop {
        let tried =
            timeout(probe.timeout.max(Duration::from_millis(1)), attempt(&probe.action, &target)).await;
        let (input, over) = counter.count(matches!(tried, Ok(Ok(()))));
        if let Some(input) = input {
            tell(input);
        }
        if over {
            return;
        }
        sleep(probe.period.mul_f64(pace)).await;
    }
}

/// Counts successes and failures in a row.
#[derive(Debug)]
struct Counter {
    purpose: Purpose,
    success: u32,
    failure: u32,
    row: u32,
    last: Option<bool>,
    told: Option<bool>,
}

impl Counter {
    fn new(purpose: Purpose, probe: &Probe) -> Self {
        let (success, failure) = (probe.success.max(1), probe.failure.max(1));
        let told = (purpose == Purpose::Readiness).then_some(false);
        Self { purpose, success, failure, row: 0, last: None, told }
    }

    /// What to tell after one more try, and whether the probe is over.
    fn count(&mut self, succeeded: bool) -> (Option<Input>, bool) {
        self.row = if self.last == Some(succeeded) { self.row + 1 } else { 1 };
        self.last = Some(succeeded);
        let enough = if succeeded { self.success } else { self.failure };
        if self.row < enough || self.told == Some(succeeded) {
            return (None, false);
        }
        self.told = Some(succeeded);
        match (self.purpose, succeeded) {
            (Purpose::Startup, true) => (Some(Input::StartupPassed), true),
            (Purpose::Startup | Purpose::Liveness, false) => (Some(Input::Unhealthy), true),
            (Purpose::Liveness, true) => (None, false),
            (Purpose::Readiness, ready) => (Some(Input::Ready(ready)), false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    fn probe() -> Probe {
        Probe {
            action: Action::Exec(Vec::new()),
            delay: Duration::ZERO,
            period: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            success: 1,
            failure: 3,
        }
    }

    fn told(purpose: Purpose, tries: &[bool]) -> Vec<Input> {
        let mut counter = Counter::new(purpose, &probe());
        tries.iter().filter_map(|t| counter.count(*t).0).collect()
    }

    #[test]
    fn thresholds() {
        assert_eq!(told(Purpose::Startup, &[false, false, true]), [Input::StartupPassed]);
        assert_eq!(told(Purpose::Startup, &[false, false, false]), [Input::Unhealthy]);
        assert_eq!(
            told(Purpose::Liveness, &[true, false, false, true, false, false, false]),
            [Input::Unhealthy]
        );
        assert_eq!(
            told(Purpose::Readiness, &[false, true, true, false, false, true, false, false, false]),
            [Input::Ready(true), Input::Ready(false)]
        );
    }

    #[tokio::test]
    async fn http_answers_decide_by_their_code() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            for answer in ["HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 503 No\r\n\r\n"] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0_u8; 256];
                let read = stream.read(&mut request).await.unwrap();
                assert!(request[..read].starts_with(b"GET /x HTTP/1.1\r\n"));
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let action = Action::Http { host: None, port, path: "/x".into(), headers: Vec::new() };
        let target =
            Target { address: Ipv4Addr::LOCALHOST, directory: std::env::temp_dir(), variables: Vec::new() };
        assert!(attempt(&action, &target).await.is_ok());
        assert!(attempt(&action, &target).await.is_err());
        server.await.unwrap();
    }
}

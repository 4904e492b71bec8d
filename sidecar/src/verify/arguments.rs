//! The command line of `verify`.

use std::net::SocketAddr;
use std::time::Duration;

/// What to verify, and how.
#[derive(Clone, Debug)]
pub struct Arguments {
    /// The worker's program and its arguments.
    pub command: Vec<String>,
    /// Environment for it, beside the `PROCESSHUB_*` variables.
    pub environment: Vec<(String, String)>,
    /// Where it is to serve the contract.
    pub control: SocketAddr,
    /// Where it is to serve clients.
    pub listen: SocketAddr,
    /// A client's request that changes the state.
    pub change: Option<ClientCall>,
    /// A client's request whose answer depends on the state and on nothing else.
    pub read: Option<ClientCall>,
    /// A version that the worker can become while it runs.
    pub code_change: Option<String>,
    /// How long a call may take; `GET /v1/info` has one second.
    pub patience: Duration,
}

/// One request of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCall {
    /// HTTP method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Body; JSON if it begins with a brace.
    pub body: String,
}

/// A command line that cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadArguments {
    /// No `--run`.
    #[error("--run is missing: name the worker's program\n{USAGE}")]
    NoCommand,
    /// Something that is not an option.
    #[error("`{0}` is no option\n{USAGE}")]
    Unknown(String),
    /// An option without its value.
    #[error("{0} needs a value\n{USAGE}")]
    NoValue(String),
    /// A value that cannot be read.
    #[error("{0} `{1}`: {2}\n{USAGE}")]
    Value(String, String, &'static str),
}

/// What the command takes.
pub const USAGE: &str = "\
usage: processhub-sidecar verify [OPTION...] --run PROGRAM [ARGUMENT...]
  --control ADDRESS:PORT   where the worker serves the contract (127.0.0.1:9700)
  --listen ADDRESS:PORT    where it serves clients (127.0.0.1:8080)
  --change 'METHOD PATH [BODY]'   a client's request that changes the state
  --read 'METHOD PATH'     a client's request whose answer shows the state
  --code-change VERSION    a version that the worker can become while it runs
  --timeout MILLISECONDS   how long a call may take (5000)";

impl Arguments {
    /// To run `command` at the default addresses.
    #[must_use]
    pub fn new(command: Vec<String>) -> Self {
        Self {
            command,
            environment: Vec::new(),
            control: SocketAddr::from(([127, 0, 0, 1], 9700)),
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            change: None,
            read: None,
            code_change: None,
            patience: Duration::from_secs(5),
        }
    }

    /// Reads what follows `verify` on the command line; everything after `--run` is the worker's.
    ///
    /// # Errors
    /// The option that is wrong, and the usage.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, BadArguments> {
        let mut arguments = arguments.into_iter();
        let mut parsed = Self::new(Vec::new());
        while let Some(option) = arguments.next() {
            if option == "--run" {
                parsed.command = arguments.collect();
                break;
            }
            let known = ["--control", "--listen", "--change", "--read", "--code-change", "--timeout"];
            if !known.contains(&option.as_str()) {
                return Err(BadArguments::Unknown(option));
            }
            let Some(value) = arguments.next() else { return Err(BadArguments::NoValue(option)) };
            let bad = |why| BadArguments::Value(option.clone(), value.clone(), why);
            let address =
                || value.parse().map_err(|_| bad("is not an address and port such as 127.0.0.1:9700"));
            let call = || ClientCall::parse(&value).ok_or_else(|| bad("is not `METHOD /PATH [BODY]`"));
            match option.as_str() {
                "--control" => parsed.control = address()?,
                "--listen" => parsed.listen = address()?,
                "--change" => parsed.change = Some(call()?),
                "--read" => parsed.read = Some(call()?),
                "--code-change" => parsed.code_change = Some(value),
                _ => {
                    let milliseconds = value.parse().map_err(|_| bad("is not a number of milliseconds"))?;
                    parsed.patience = Duration::from_millis(milliseconds);
                }
            }
        }
        if parsed.command.is_empty() { Err(BadArguments::NoCommand) } else { Ok(parsed) }
    }
}

impl ClientCall {
    /// `METHOD PATH [BODY]`; none of anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.trim().splitn(3, ' ');
        let (method, path) = (words.next()?, words.next()?);
        let sound = path.starts_with('/') && method.bytes().all(|byte| byte.is_ascii_uppercase());
        let body = words.next().unwrap_or_default().to_owned();
        sound.then(|| Self { method: method.to_owned(), path: path.to_owned(), body })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Arguments, BadArguments> {
        Arguments::parse(words.iter().map(|word| (*word).to_owned()))
    }

    #[test]
    fn everything_after_run_is_the_worker_s() {
        let parsed = parse(&["--listen", "127.0.0.2:80", "--run", "./worker", "--listen", "x"]).unwrap();
        assert_eq!(parsed.command, ["./worker", "--listen", "x"]);
        assert_eq!(parsed.listen.to_string(), "127.0.0.2:80");
        assert_eq!(parsed.control.to_string(), "127.0.0.1:9700");
    }

    #[test]
    fn a_client_s_request_is_method_path_and_body() {
        let parsed =
            parse(&["--change", "POST /add {\"a\": 1, \"b\": 2}", "--read", "GET /x", "--run", "w"]).unwrap();
        let change = parsed.change.unwrap();
        assert_eq!((change.method.as_str(), change.path.as_str()), ("POST", "/add"));
        assert_eq!(change.body, "{\"a\": 1, \"b\": 2}");
        assert_eq!(parsed.read.unwrap().body, "");
    }

    #[test]
    fn a_bad_command_line_is_refused_by_its_option_with_the_usage() {
        for (words, says) in [
            (vec![], "--run is missing"),
            (vec!["--run"], "--run is missing"),
            (vec!["--quick", "--run", "w"], "`--quick` is no option"),
            (vec!["--listen"], "--listen needs a value"),
            (vec!["--listen", "8080", "--run", "w"], "--listen `8080`"),
            (vec!["--change", "POST", "--run", "w"], "--change `POST`"),
            (vec!["--timeout", "soon", "--run", "w"], "--timeout `soon`"),
        ] {
            let error = parse(&words).unwrap_err().to_string();
            assert!(error.contains(says) && error.contains("usage:"), "{error}");
        }
    }
}

//! What the command line comes to: options that fit together, or a word of which do not. Pure.

use std::path::PathBuf;
use std::time::Duration;

use processhub_protocol::contract::{MAX_TEXT, MAX_VERSIONS};

use crate::args::RunArguments;

/// When the application is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum StartAt {
    /// With the adapter: it runs in Standby already, and is loaded while it runs.
    Standby,
    /// When its state has come in, before the move is committed: a state that it cannot start with ends the move. A first
    /// start, which has none, is at activate.
    Load,
    /// At activate and no sooner: for an application that must do nothing before the process is its own.
    Activate,
}

/// Where the state is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    /// In the files of a directory.
    Directory(PathBuf),
    /// Wherever these commands find it.
    Commands {
        /// Writes it to standard output.
        dump: String,
        /// Replaces it by standard input.
        load: String,
    },
}

/// How the application is kept from changing its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Quiet {
    /// It changes only by clients' requests, and there are none.
    AsItIs,
    /// It is stopped, and started again if the move is called off.
    Stopped,
    /// By commands.
    Commands {
        /// Keeps it still.
        quiesce: String,
        /// Takes that back.
        resume: String,
    },
}

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Quiesce, resume, dump, and a stop.
    pub query: Duration,
    /// Load.
    pub load: Duration,
    /// From the application's start until it serves.
    pub ready: Duration,
    /// Bytes of a state.
    pub state_bytes: u64,
}

/// Options that fit together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Where the state is.
    pub store: Store,
    /// When the application is started.
    pub start: StartAt,
    /// How it is kept still.
    pub quiet: Quiet,
    /// Says whether it serves.
    pub ready: Option<String>,
    /// The adapter's own folder.
    pub work: PathBuf,
    /// How long things may take.
    pub limits: Limits,
    /// The application's version.
    pub vsn: String,
    /// Other versions whose states it reads.
    pub accepts_from: Vec<String>,
    /// The application and its arguments; empty: it runs in a container of its own.
    pub application: Vec<String>,
}

impl Plan {
    /// From the command line.
    ///
    /// # Errors
    /// Which options do not fit together, and what to do about it.
    pub fn new(arguments: RunArguments) -> Result<Self, String> {
        let RunArguments { directory, dump, load, start, quiesce, resume, ready, work, .. } = arguments;
        let supervised = !arguments.application.is_empty();
        let store = match (directory, dump, load) {
            (Some(directory), None, None) => Store::Directory(directory),
            (None, Some(dump), Some(load)) => Store::Commands { dump, load },
            _ => return Err("say where the state is: --directory DIR, or --dump and --load".into()),
        };
        let quiet = match (quiesce, resume, &store) {
            (Some(quiesce), Some(resume), _) => Quiet::Commands { quiesce, resume },
            (_, _, Store::Directory(_)) => Quiet::Stopped,
            (_, _, Store::Commands { .. }) => Quiet::AsItIs,
        };
        let start = match (&store, start, supervised) {
            (Store::Directory(_), _, false) => {
                return Err(
                    "--directory needs the application: it can only be started after its files were \
                            restored; name it after --, or use --dump and --load"
                        .into(),
                );
            }
            (Store::Directory(_), Some(StartAt::Standby), _) => {
                return Err(
                    "--start standby does not go with --directory: the application would run while its \
                            files are replaced; leave it out"
                        .into(),
                );
            }
            (Store::Commands { .. }, Some(_), false) => {
                return Err("--start needs the application: name it after --, or leave --start out".into());
            }
            (Store::Directory(_), start, true) => start.unwrap_or(StartAt::Load),
            (Store::Commands { .. }, start, _) => start.unwrap_or(StartAt::Standby),
        };
        let limits = Limits {
            query: limit("--time-limit", arguments.time_limit)?,
            load: limit("--load-time-limit", arguments.load_time_limit)?,
            ready: limit("--ready-time-limit", arguments.ready_time_limit)?,
            state_bytes: arguments.max_state_bytes,
        };
        let long = |text: &String| text.len() > MAX_TEXT;
        if long(&arguments.vsn) || arguments.accepts_from.iter().any(long) {
            return Err(format!("--vsn and --accepts-from: a version has at most {MAX_TEXT} bytes"));
        }
        if arguments.accepts_from.len() > MAX_VERSIONS {
            return Err(format!("--accepts-from names at most {MAX_VERSIONS} versions"));
        }
        Ok(Self {
            store,
            start,
            quiet,
            ready,
            work,
            limits,
            vsn: arguments.vsn,
            accepts_from: arguments.accepts_from,
            application: arguments.application,
        })
    }

    /// The one part that a state of this store has.
    #[must_use]
    pub fn part(&self) -> &'static str {
        match self.store {
            Store::Directory(_) => "directory",
            Store::Commands { .. } => "dump",
        }
    }
}

fn limit(name: &str, milliseconds: u64) -> Result<Duration, String> {
    if (1..=3_600_000).contains(&milliseconds) {
        Ok(Duration::from_millis(milliseconds))
    } else {
        Err(format!("{name} is {milliseconds}; give it 1 to 3600000 milliseconds"))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Arguments, Command};

    fn plan(arguments: &str) -> Result<Plan, String> {
        let words = ["processhub-adapter", "run"].into_iter().chain(arguments.split_whitespace());
        match Arguments::try_parse_from(words).map_err(|error| error.to_string())?.command {
            Command::Run(arguments) => Plan::new(*arguments),
            Command::Install { .. } => panic!("not asked for"),
        }
    }

    #[test]
    fn a_directory_is_captured_from_an_application_that_is_stopped() {
        let plan = plan("--directory /data -- server --port 1").unwrap();
        assert_eq!(plan.store, Store::Directory("/data".into()));
        assert_eq!((plan.start, plan.quiet), (StartAt::Load, Quiet::Stopped));
        assert_eq!(plan.application, ["server", "--port", "1"]);
    }

    #[test]
    fn commands_load_a_running_application_unless_told_otherwise() {
        let running = plan("--dump d --load l -- server").unwrap();
        assert_eq!((running.start, running.quiet), (StartAt::Standby, Quiet::AsItIs));
        let before = plan("--dump d --load l --start activate --quiesce q --resume r -- server").unwrap();
        assert_eq!(before.start, StartAt::Activate);
        assert_eq!(before.quiet, Quiet::Commands { quiesce: "q".into(), resume: "r".into() });
        assert!(plan("--dump d --load l").unwrap().application.is_empty());
    }

    #[test]
    fn options_that_do_not_fit_are_refused_by_name() {
        for (arguments, word) in [
            ("-- server", "--directory DIR, or --dump and --load"),
            ("--dump d -- server", "--load"),
            ("--load l -- server", "--dump"),
            ("--directory /d --dump d --load l -- server", "cannot be used with"),
            ("--directory /d", "--directory needs the application"),
            ("--directory /d --start standby -- server", "--start standby does not go with --directory"),
            ("--dump d --load l --start activate", "--start needs the application"),
            ("--dump d --load l --quiesce q", "--resume"),
            ("--dump d --load l --start never -- s", "never"),
            ("--dump d --load l --time-limit 0", "--time-limit is 0"),
        ] {
            let refused = plan(arguments).unwrap_err();
            assert!(refused.contains(word), "{arguments}: {refused}");
        }
    }
}

//! What can go wrong, in words that say what to do about it.

use std::path::{Path, PathBuf};

/// Why the harness could not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This machine cannot run a cluster; the message lists all that is missing and the command that gets it.
    #[error("this machine cannot run a local cluster:\n{0}")]
    Impossible(String),
    /// Another cluster of that name is up.
    #[error("a cluster named {name} is already running{place}; {remedy}")]
    AlreadyRunning {
        /// The cluster's name, which prefixes its network namespaces.
        name: String,
        /// Where it lives, as a clause to follow the name; empty when not known.
        place: String,
        /// What the person can do.
        remedy: &'static str,
    },
    /// There is no running cluster to act on.
    #[error("no cluster runs in {}; start one with `cargo xtask cluster up`", .0.display())]
    NotRunning(PathBuf),
    /// The directory is not one that the harness made, so it will not delete what is in it.
    #[error("{} holds files that are not a cluster's; name an empty directory", .0.display())]
    ForeignDirectory(PathBuf),
    /// No node of that name.
    #[error("no node {name}; the nodes are {known}")]
    NoSuchNode {
        /// What was asked for.
        name: String,
        /// The names of all present nodes.
        known: String,
    },
    /// A name or number that cannot be used.
    #[error("{field} {value:?}: {rule}")]
    Invalid {
        /// Which input it was.
        field: &'static str,
        /// Its value.
        value: String,
        /// What is allowed.
        rule: &'static str,
    },
    /// A command that the harness ran has failed.
    #[error("{command}: {status}\n{output}")]
    Command {
        /// The command line.
        command: String,
        /// How it ended.
        status: String,
        /// What it said.
        output: String,
    },
    /// Something did not happen in time.
    #[error("{what} did not happen within {seconds} s; see {}", .log.display())]
    TimedOut {
        /// What was waited for.
        what: String,
        /// For how long.
        seconds: u64,
        /// The log that tells more.
        log: PathBuf,
    },
    /// A file operation has failed.
    #[error("{action} {}: {source}", .path.display())]
    File {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A certificate could not be made.
    #[error("make certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// A file of the cluster's own could not be understood.
    #[error("{}: {source}; take the cluster down and start it again", .path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: serde_json::Error,
    },
}

/// The harness's result.
pub type Result<T> = std::result::Result<T, Error>;

/// Attaches what was tried, and on which file, to an I/O error.
pub(crate) fn file_error(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { action, path, source }
}

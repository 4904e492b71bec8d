//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::plan::StartAt;

/// Speaks the worker contract for an application that does not.
#[derive(Debug, Parser)]
#[command(name = "processhub-adapter", version)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Copies this program into a folder: for an init container that brings it to an image of somebody else's.
    Install {
        /// The folder, on a volume that the container `worker` mounts too.
        folder: PathBuf,
    },
    /// Serves the worker contract and runs the application.
    Run(Box<RunArguments>),
}

/// Where the application's state is, and how the application is treated. Commands are run by `/bin/sh -c`, with
/// `ADAPTER_HOST` and `ADAPTER_PORT` (where the application has to serve its clients), `ADAPTER_DIRECTORY` and
/// `ADAPTER_APPLICATION_PID` in their environment.
#[derive(Clone, Debug, Args)]
pub struct RunArguments {
    /// The state is the files of this directory. The application is stopped to take it, and started to give it.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["dump", "load"])]
    pub directory: Option<PathBuf>,
    /// The state is what this command writes to its standard output.
    #[arg(long, value_name = "COMMAND", requires = "load")]
    pub dump: Option<String>,
    /// This command replaces the application's state by what comes in at its standard input.
    #[arg(long, value_name = "COMMAND", requires = "dump")]
    pub load: Option<String>,
    /// When the application is started: at once, so that --load meets it running (its default), when its state
    /// has come in (with --directory), or not before the move is committed.
    #[arg(long, value_enum)]
    pub start: Option<StartAt>,
    /// Keeps the running application from changing its state; run before --dump. With --directory in place of a stop.
    #[arg(long, value_name = "COMMAND", requires = "resume")]
    pub quiesce: Option<String>,
    /// Takes --quiesce back, when a move is called off.
    #[arg(long, value_name = "COMMAND", requires = "quiesce")]
    pub resume: Option<String>,
    /// Ends with 0 once the application serves; without it, the adapter waits until its port accepts a connection.
    #[arg(long, value_name = "COMMAND")]
    pub ready: Option<String>,
    /// A folder of the adapter's own, on a volume that outlives the container: dumps and what comes in lie here.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/processhub-adapter")]
    pub work: PathBuf,
    /// A larger state is refused, on its way out and in.
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 30)]
    pub max_state_bytes: u64,
    /// How long --quiesce, --resume, --dump and a stop may take; below the hub's stateQueryTimeoutMilliseconds.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 4500)]
    pub time_limit: u64,
    /// How long --load may take; below the hub's stateTTLMilliseconds.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 25_000)]
    pub load_time_limit: u64,
    /// How long the application may take from its start until it serves.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 25_000)]
    pub ready_time_limit: u64,
    /// Version of the application, as spec.vsn of the hub has it.
    #[arg(long, default_value = "")]
    pub vsn: String,
    /// Other versions whose states this one can read.
    #[arg(long, value_name = "VSN", value_delimiter = ',')]
    pub accepts_from: Vec<String>,
    /// The application and its arguments. Without it the application runs in a container of its own.
    #[arg(last = true, value_name = "APPLICATION")]
    pub application: Vec<String>,
}

//! `processhub-adapter install FOLDER`, `processhub-adapter run --directory DIR -- APPLICATION`.

use std::process::ExitCode;

use clap::Parser;
use processhub_adapter::args::{Arguments, Command};
use processhub_adapter::install::install;
use processhub_adapter::plan::Plan;
use processhub_adapter::serve;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Install { folder } => install(&folder),
        Command::Run(arguments) => Plan::new(*arguments).map_err(anyhow::Error::msg).and_then(run),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("processhub-adapter: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(plan: Plan) -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .json()
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")))
        .init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(serve::run(plan));
    // A command or a reading that hangs must not keep the container from ending.
    runtime.shutdown_background();
    result
}

//! `processhub-sidecar verify`: runs a worker by itself, without a cluster, and says rule by rule whether it keeps the
//! worker contract, and how to mend what it does not.
//!
//! Each group of checks starts the worker anew with the `PROCESSHUB_*` environment and calls it as a sidecar would. The
//! worker's own output goes where this program's goes.

mod arguments;
mod call;
mod capture;
mod epochs;
mod import;
mod live;
mod optional;
mod process;
mod report;
mod standby;
mod sync;

use std::process::ExitCode;

pub use arguments::{Arguments, BadArguments, ClientCall};
pub use report::{Finding, Report, Rule, Verdict};

use call::Silence;
use process::{Process, StartError};
use report::Notes;

/// The command: reads what follows `verify`, prints the report, and ends with 0 if no rule is broken, 1 if one is, and 2
/// if the worker could not be verified.
pub async fn command(arguments: impl IntoIterator<Item = String>) -> ExitCode {
    let outcome = match Arguments::parse(arguments) {
        Ok(arguments) => run(arguments).await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match outcome {
        Ok(report) => {
            print!("{report}");
            if report.is_right() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

/// Why a worker could not be verified at all.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The program does not start.
    #[error("{0}")]
    Start(#[from] StartError),
}

/// Starts the worker as often as it takes and checks every rule that can be checked from outside.
///
/// # Errors
/// When the worker's program cannot be started; everything that it then does wrong is in the report.
pub async fn run(arguments: Arguments) -> Result<Report, VerifyError> {
    let mut notes = Notes::default();
    let mut process = Process::start(&arguments)?;
    let ready = process.ready().await;
    if let Err(silence) = ready {
        notes.wrong(
            Rule::Info,
            "the worker answers GET /v1/info",
            silence.to_string(),
            "serve the contract on PROCESSHUB_CONTROL; a worker that speaks none still runs, and moves without state",
        );
        process.stop().await;
        return Ok(notes.report());
    }
    let first = standby::check(&process, &mut notes).await;
    let instance = closed(first, &mut notes).flatten();
    process.stop().await;

    let fresh = async || -> Result<Process, VerifyError> {
        let mut process = Process::start(&arguments)?;
        // A worker that answered once and now does not is told of by the first check that calls it.
        let _ = process.ready().await;
        Ok(process)
    };

    let process = fresh().await?;
    if let Some(instance) = instance {
        let told = standby::check_instance(&process, &instance, &mut notes).await;
        closed(told, &mut notes);
    }
    let told = epochs::check(&process, &arguments, &mut notes).await;
    closed(told, &mut notes);
    process.stop().await;

    let process = fresh().await?;
    let told = live::check_numbers(&process, &arguments, &mut notes).await;
    closed(told, &mut notes);
    process.stop().await;

    let process = fresh().await?;
    let synced = live::check(&process, &arguments, &mut notes).await;
    let synced = closed(synced, &mut notes).flatten();
    process.stop().await;
    if let Some(synced) = synced {
        let process = fresh().await?;
        let told = sync::check(&process, &synced, &arguments, &mut notes).await;
        closed(told, &mut notes);
        process.stop().await;
    }

    let process = fresh().await?;
    let told = optional::check(&process, &arguments, &mut notes).await;
    closed(told, &mut notes);
    process.stop().await;

    let process = fresh().await?;
    let captured = capture::check(&process, &arguments, &mut notes).await;
    let captured = closed(captured, &mut notes).flatten();
    stop(process, &mut notes).await;

    if let Some(captured) = captured {
        let process = fresh().await?;
        let told = import::check(&process, &captured, &arguments, &mut notes).await;
        closed(told, &mut notes);
        process.stop().await;
        let process = fresh().await?;
        let told = import::check_refusals(&process, &captured, &mut notes).await;
        closed(told, &mut notes);
        process.stop().await;
    }
    Ok(notes.report())
}

/// A call that got no answer ends its group of checks, and is a finding itself.
fn closed<T>(outcome: Result<T, Silence>, notes: &mut Notes) -> Option<T> {
    outcome
        .map_err(|silence| {
            notes.wrong(
                Rule::Time,
                "every call is answered in time and to the end",
                silence.to_string(),
                "answer control calls whatever the worker is doing, and keep answers within the contract's bounds",
            );
        })
        .ok()
}

async fn stop(process: Process, notes: &mut Notes) {
    let patience = process.patience();
    let ended = process.stop().await;
    notes.that(
        Rule::States,
        "a suspended worker ends on SIGTERM",
        ended.then_some(()).ok_or_else(|| format!("it still ran {} ms after SIGTERM", patience.as_millis())),
        "handle SIGTERM: finish requests that run and exit; without it each move waits for the grace period",
    );
}

//! Runs the example worker as the operator starts it: everything by environment or arguments.

use clap::Parser;
use counter::faults::{Fault, Faults};
use counter::{Config, Options, serve};
use processhub_sdk::Consent;
use tokio::signal::unix::{SignalKind, signal};

/// A counter and a key-value table that move with their state.
#[derive(Parser)]
struct Arguments {
    /// Bytes that give the state its size.
    #[arg(long, env = "STATE_SIZE", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=1 << 40))]
    state_size: u64,
    /// Version of the code.
    #[arg(long, env = "COUNTER_VSN", default_value = "1")]
    vsn: String,
    /// Other versions whose states are taken, separated by commas.
    #[arg(long, env = "COUNTER_ACCEPTS_FROM", value_delimiter = ',')]
    accepts_from: Vec<String>,
    /// Versions that it can become while it runs, separated by commas.
    #[arg(long, env = "COUNTER_BECOMES", value_delimiter = ',')]
    becomes: Vec<String>,
    /// What it answers when it is asked for consent to a move; without it, it does not ask to be asked.
    #[arg(long, env = "COUNTER_CONSENT", value_enum)]
    consent: Option<Answer>,
    /// Serve from the start, without the worker contract.
    #[arg(long, env = "COUNTER_NO_CONTRACT")]
    no_contract: bool,
    /// Faults for tests, separated by spaces or given several times, such as `refuse=import` or `hang=capture:5000`.
    #[arg(long = "fault", env = "COUNTER_FAULTS", value_delimiter = ' ')]
    faults: Vec<Fault>,
    /// Let clients switch faults with `PUT /faults`.
    #[arg(long, env = "COUNTER_FAULTS_BY_CLIENTS")]
    faults_by_clients: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Answer {
    /// It may be moved.
    Ready,
    /// Not now.
    Defer,
}

impl From<Answer> for Consent {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Ready => Self::Ready,
            Answer::Defer => Self::Defer,
        }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments { state_size, vsn, accepts_from, becomes, consent, no_contract, faults, faults_by_clients } =
        Arguments::parse();
    let consent = consent.map(Consent::from);
    let at = processhub_sdk::Config::from_env()?;
    let switched_on = Faults::default();
    switched_on.set(faults);
    let config = Config {
        options: Options { process: String::new(), state_size, vsn, accepts_from, becomes, consent },
        contract: !no_contract,
        faults: switched_on,
        faults_by_clients,
        ..Config::new(at)
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    serve(config, async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
    .await
}

//! `cargo xtask model`: explores the shipped state machines and prints what it found.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use processhub_model::explore::Outcome;
use processhub_model::run::{self, Job};
use processhub_model::{requests, scenario};
use processhub_protocol::rules::{self, Rule};

/// Explores the hand-over protocol exhaustively, from the shipped state machines, and refutes every variant that lacks
/// a rule.
#[derive(Parser)]
#[command(name = "cargo xtask model", version, max_term_width = 100)]
struct Arguments {
    /// Only scenarios whose name contains this
    scenario: Option<String>,
    /// Larger bounds too: some 30 million states, many minutes and 8 GB of memory
    #[arg(long)]
    deep: bool,
    /// Without the counterexamples of the variants that lack a rule
    #[arg(long)]
    brief: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut jobs: Vec<Job> =
        scenario::all().into_iter().map(|config| Job { config, without: None }).collect();
    if arguments.deep {
        jobs.extend(scenario::deep().into_iter().map(|config| Job { config, without: None }));
    }
    jobs.extend(
        scenario::refutations().into_iter().map(|(rule, config)| Job { config, without: Some(rule) }),
    );
    if let Some(scenario) = &arguments.scenario {
        jobs.retain(|job| job.config.name.contains(scenario.as_str()));
    }
    println!(
        "{:<58} {:>10} {:>12} {:>6} {:>9}  verdict",
        "configuration", "states", "transitions", "depth", "seconds"
    );
    let mut as_meant = true;
    let mut all = (0, 0);
    run::run(jobs, |job, outcome| {
        as_meant &=
            outcome.refuted.is_some() == job.without.is_some() && (job.without.is_some() || outcome.cut == 0);
        all.0 += outcome.states;
        all.1 += outcome.transitions;
        show(job, outcome, arguments.brief && job.without.is_some());
    });
    if arguments.scenario.is_none() {
        as_meant &= requests(None, arguments.brief, &mut all);
        as_meant &= requests(Some(Rule::ForwardUpwards), arguments.brief, &mut all);
    }
    println!(
        "{} states, {} transitions: {}",
        all.0,
        all.1,
        if as_meant { "all as meant" } else { "NOT as meant" }
    );
    if as_meant { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The model of one request; whether it came out as meant.
fn requests(without: Option<Rule>, brief: bool, all: &mut (usize, usize)) -> bool {
    let began = Instant::now();
    let (outcome, name) = match without {
        None => (requests::explore(), "one request through four incarnations".to_owned()),
        Some(rule) => {
            let name = format!("without rule {} ({rule:?}): one request", rule as u8);
            (rules::without(rule, requests::explore), name)
        }
    };
    all.0 += outcome.states;
    all.1 += outcome.transitions;
    let verdict = match (&outcome.refuted, without) {
        (None, None) => "holds",
        (None, Some(_)) => "NOT refuted",
        (Some(_), None) => "BROKEN",
        (Some(_), Some(_)) => "refuted, as meant",
    };
    let (states, transitions, seconds) = (outcome.states, outcome.transitions, began.elapsed().as_secs_f64());
    println!("{name:<58} {states:>10} {transitions:>12} {:>6} {seconds:>9.1}  {verdict}", "");
    if let Some((broken, trace)) = outcome.refuted.as_ref().filter(|_| !(brief && without.is_some())) {
        trace.iter().enumerate().for_each(|(at, step)| println!("    {:>3}. {step}", at + 1));
        println!("    BROKEN: {broken:?}");
    }
    outcome.refuted.is_some() == without.is_some()
}

fn show(job: &Job, outcome: &Outcome, brief: bool) {
    let name = job.without.map_or_else(
        || outcome.name.to_owned(),
        |rule| format!("without rule {} ({rule:?}): {}", rule as u8, outcome.name),
    );
    let verdict = match (&outcome.refuted, job.without) {
        (None, None) if outcome.cut > 0 => "holds, but the bound on pods was met",
        (None, None) => "holds",
        (None, Some(_)) => "NOT refuted",
        (Some(_), None) => "BROKEN",
        (Some(_), Some(_)) => "refuted, as meant",
    };
    println!(
        "{name:<58} {:>10} {:>12} {:>6} {:>9.1}  {verdict}",
        outcome.states,
        outcome.transitions,
        outcome.depth,
        outcome.took.as_secs_f64()
    );
    for (at, step) in outcome.refuted.iter().flat_map(|refuted| &refuted.trace).enumerate().filter(|_| !brief)
    {
        println!("    {:>3}. {step}", at + 1);
    }
}

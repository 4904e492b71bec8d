//! Runs the exploration.

use processhub_model::explore::Outcome;

fn main() {
    let only = std::env::args().nth(1).unwrap_or_default();
    if only != "mutants" {
        for config in processhub_model::scenario::all().into_iter().chain(processhub_model::scenario::deep())
        {
            if !config.name.contains(&only) {
                continue;
            }
            show(processhub_model::explore::explore(config, 20_000_000));
        }
    }
    for (rule, config) in processhub_model::scenario::refutations() {
        println!("without {rule:?}:");
        show(processhub_protocol::rules::without(rule, || {
            processhub_model::explore::explore(config, 20_000_000)
        }));
    }
}

fn show(outcome: Outcome) {
    println!(
        "{} states {} transitions {} depth {} cut {} {:?}",
        outcome.name, outcome.states, outcome.transitions, outcome.depth, outcome.cut, outcome.took
    );
    if let Some(refuted) = outcome.refuted {
        for (at, step) in refuted.trace.iter().enumerate() {
            println!("  {:2} {step}", at + 1);
        }
    }
}

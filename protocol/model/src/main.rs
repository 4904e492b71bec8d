//! Runs the exploration.

fn main() {
    for config in processhub_model::scenario::all() {
        let outcome = processhub_model::explore::explore(config, 20_000_000);
        println!("{} states {} transitions {} depth {} cut {} {:?}", outcome.name, outcome.states, outcome.transitions, outcome.depth, outcome.cut, outcome.took);
        if let Some(refuted) = outcome.refuted {
            for (at, step) in refuted.trace.iter().enumerate() { println!("  {:2} {step}", at + 1); }
        }
    }
}

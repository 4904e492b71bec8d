//! Explores many configurations, one per thread.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

use processhub_protocol::rules::{self, Rule};

use crate::explore::{self, Outcome};
use crate::model::Config;

/// More states than any configuration has.
const LIMIT: usize = 60_000_000;

/// One configuration, perhaps without one rule.
#[derive(Clone, Debug)]
pub struct Job {
    /// What is explored.
    pub config: Config,
    /// The rule that is left out.
    pub without: Option<Rule>,
}

/// Explores all of them on as many threads as there are processors, and tells each outcome in the order of `jobs`.
///
/// # Panics
/// When an exploration does: its configuration is not bounded.
pub fn run(jobs: Vec<Job>, mut tell: impl FnMut(&Job, &Outcome)) {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(jobs.len().max(1));
    let waiting: Mutex<VecDeque<(usize, Job)>> = Mutex::new(jobs.iter().cloned().enumerate().collect());
    let (sender, outcomes) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..threads {
            let (waiting, sender) = (&waiting, sender.clone());
            scope.spawn(move || {
                loop {
                    let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    let Some((at, job)) = next else {
                        return;
                    };
                    // Nobody listens any more when another exploration has failed.
                    if sender.send((at, one(job))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut early: Vec<Option<Outcome>> = vec![None; jobs.len()];
        let mut told = 0;
        for (at, outcome) in outcomes {
            early[at] = Some(outcome);
            while let Some(outcome) = early.get_mut(told).and_then(Option::take) {
                tell(&jobs[told], &outcome);
                told += 1;
            }
        }
    });
}

fn one(job: Job) -> Outcome {
    match job.without {
        None => explore::explore(job.config, LIMIT),
        Some(rule) => rules::without(rule, || explore::explore(job.config, LIMIT)),
    }
}

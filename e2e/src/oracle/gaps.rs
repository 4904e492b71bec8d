//! How long clients went without an answer.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::load::Operation;

/// A distribution of durations, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// Half are at most this long.
    pub p50: f64,
    /// 99 of 100 are at most this long.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

impl Percentiles {
    /// Of any number of durations in milliseconds; all zero for none.
    #[must_use]
    pub fn of(mut durations: Vec<f64>) -> Self {
        durations.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let rank = (durations.len() as f64 * share).ceil() as usize;
            durations.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
        };
        Self { p50: at(0.50), p99: at(0.99), max: at(1.0) }
    }
}

/// For each process the longest time, in milliseconds, in which none of its clients was answered, among the gaps that
/// overlap `[from, to]` (microseconds since the epoch).
#[must_use]
pub fn longest_gaps(history: &[Operation], from: u64, to: u64) -> BTreeMap<String, f64> {
    let mut answers: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for operation in history.iter().filter(|operation| operation.acknowledged().is_some()) {
        answers.entry(&operation.process).or_default().push(operation.done);
    }
    answers
        .into_iter()
        .map(|(process, mut times)| {
            times.sort_unstable();
            let longest = times
                .windows(2)
                .filter(|pair| pair[1] >= from && pair[0] <= to)
                .map(|pair| pair[1] - pair[0])
                .max()
                .unwrap_or(0);
            (process.to_owned(), longest as f64 / 1000.0)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Outcome;

    #[test]
    fn percentiles_are_members_of_the_sample() {
        let of = Percentiles::of((1..=100).map(f64::from).collect());
        assert_eq!((of.p50, of.p99, of.max), (50.0, 99.0, 100.0));
        assert_eq!(Percentiles::of(Vec::new()), Percentiles::default());
    }

    #[test]
    fn finds_the_gap_inside_the_window_only() {
        let history: Vec<_> = [1_000, 9_000, 10_000, 13_000]
            .into_iter()
            .map(|done| Operation {
                process: "p".into(),
                client: "c".into(),
                number: 1,
                fresh: false,
                sent: done,
                done,
                outcome: Outcome::Acknowledged { value: done },
            })
            .collect();
        assert_eq!(longest_gaps(&history, 9_500, 20_000)["p"], 3.0);
        assert_eq!(longest_gaps(&history, 0, 20_000)["p"], 8.0);
    }
}

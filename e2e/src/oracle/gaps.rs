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

/// For each of these moments (microseconds since the epoch, ascending) the longest time, in milliseconds, in which no client
/// of the process was answered: that in which the moment lies, or one that ended before the next moment.
#[must_use]
pub fn gaps_after(history: &[Operation], process: &str, moments: &[u64]) -> Vec<f64> {
    let mut times: Vec<u64> = history
        .iter()
        .filter(|operation| operation.process == process && operation.acknowledged().is_some())
        .map(|operation| operation.done)
        .collect();
    times.sort_unstable();
    let longest = |(index, from): (usize, &u64)| {
        let until = moments.get(index + 1).copied().unwrap_or(u64::MAX);
        let of = times.windows(2).filter(|pair| pair[1] > *from && (pair[1] <= until || pair[0] <= *from));
        of.map(|pair| pair[1] - pair[0]).max().unwrap_or(0) as f64 / 1000.0
    };
    moments.iter().enumerate().map(longest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Outcome;

    fn answered(done: u64) -> Operation {
        Operation {
            process: "p".into(),
            client: "c".into(),
            number: 1,
            fresh: false,
            sent: done,
            done,
            outcome: Outcome::Acknowledged { value: done },
        }
    }

    #[test]
    fn percentiles_are_members_of_the_sample() {
        let of = Percentiles::of((1..=100).map(f64::from).collect());
        assert_eq!((of.p50, of.p99, of.max), (50.0, 99.0, 100.0));
        assert_eq!(Percentiles::of(Vec::new()), Percentiles::default());
    }

    #[test]
    fn each_moment_has_the_gap_that_it_fell_into() {
        let answers = [1_000, 2_000, 9_000, 10_000, 14_000, 15_000, 30_000];
        let history: Vec<_> = answers.into_iter().map(answered).collect();
        assert_eq!(gaps_after(&history, "p", &[2_500, 10_500]), [7.0, 15.0]);
        assert_eq!(gaps_after(&history, "p", &[2_500, 14_500]), [7.0, 15.0]);
        assert_eq!(gaps_after(&history, "p", &[2_500, 10_500, 14_200]), [7.0, 4.0, 15.0]);
        assert_eq!(gaps_after(&history, "p", &[2_500, 3_000]), [7.0, 15.0], "two in one gap");
        assert_eq!(gaps_after(&history, "other", &[1]), [0.0]);
    }

    #[test]
    fn finds_the_gap_inside_the_window_only() {
        let history: Vec<_> = [1_000, 9_000, 10_000, 13_000].into_iter().map(answered).collect();
        assert_eq!(longest_gaps(&history, 9_500, 20_000)["p"], 3.0);
        assert_eq!(longest_gaps(&history, 0, 20_000)["p"], 8.0);
    }
}

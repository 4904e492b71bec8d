//! What came of a trial, and whether it may have come so.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Result, bail};

use crate::load::Operation;
use crate::moves::Move;
use crate::oracle::{
    Account, Applied, Disorder, Percentiles, account, check_order, gaps_after, longest_gaps,
};

/// A promise was broken: something lost, duplicated, out of order, or owned twice. Never excused by another try.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Broken(String);

impl Broken {
    /// Whether this error, or one that it came from, says so.
    #[must_use]
    pub fn is_cause_of(error: &anyhow::Error) -> bool {
        error.chain().any(|cause| cause.is::<Self>())
    }
}

/// What came of a trial.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Found, lost, duplicated.
    pub account: Account,
    /// The same for the processes of which state was lost by force; what was lost must be said on the object.
    pub excused: Account,
    /// Operations that no single counter can have executed.
    pub disorder: Vec<Disorder>,
    /// Every move that ended.
    pub moves: Vec<Move>,
    /// For each process the longest time, in milliseconds, without any answer.
    pub gaps: BTreeMap<String, f64>,
    /// For each time that a process was disturbed, the time in milliseconds without any answer.
    pub downtimes: Vec<f64>,
    /// Processes whose ballast did not come through whole.
    pub torn: Vec<String>,
    /// What the objects showed of owners and orders that must not be.
    pub usurpers: Vec<String>,
}

impl Verdict {
    /// Whether everything that must hold in every run holds.
    ///
    /// # Errors
    /// What does not.
    pub fn check(&self) -> Result<()> {
        match self.broken() {
            Some(broken) => Err(broken.into()),
            None if self.account.acknowledged == 0 => {
                bail!("no request was acknowledged: nothing was tried; {:?}", self.account.error_samples)
            }
            None => Ok(()),
        }
    }

    fn broken(&self) -> Option<Broken> {
        let Account { lost, duplicated, lost_by_process, .. } = &self.account;
        let words = if *lost > 0 {
            format!("{lost} acknowledged requests lost: {lost_by_process:?}")
        } else if !self.torn.is_empty() {
            format!("state did not come through whole: {:?}", self.torn)
        } else if *duplicated > 0 {
            format!("{duplicated} requests duplicated")
        } else if let Some(Disorder { earlier, later }) = self.disorder.first() {
            format!("not linearizable: {earlier:?} before {later:?}")
        } else if !self.usurpers.is_empty() {
            self.usurpers.join("; ")
        } else {
            return None;
        };
        Some(Broken(words))
    }

    /// [`Verdict::check`], and no client saw an error or an unknown outcome: what a planned move promises.
    ///
    /// # Errors
    /// What does not hold.
    pub fn check_planned(&self) -> Result<()> {
        self.check()?;
        let Account { errors, unknown, error_samples, .. } = &self.account;
        if errors + unknown > 0 {
            bail!("clients saw {errors} errors and {unknown} unknown outcomes: {error_samples:?}");
        }
        Ok(())
    }

    /// The figures in one line.
    #[must_use]
    pub fn line(&self) -> String {
        let Account { acknowledged, lost, duplicated, unknown, errors, .. } = &self.account;
        let swaps = self.moves.iter().filter(|moved| moved.is_swap()).count();
        let (blackout, gap) = (self.blackout(), self.client_gap());
        format!(
            "{acknowledged} acknowledged, {lost} lost, {duplicated} duplicated, {unknown} unknown, {errors} errors; \
             {swaps} moves, blackout p50 {} p99 {} ms, client gap p50 {:.0} p99 {:.0} ms",
            blackout.p50, blackout.p99, gap.p50, gap.p99
        )
    }

    /// Blackouts of the swaps that succeeded, by the sidecars' clock.
    #[must_use]
    pub fn blackout(&self) -> Percentiles {
        Percentiles::of(
            self.moves
                .iter()
                .filter(|moved| moved.is_swap())
                .filter_map(|moved| moved.blackout)
                .map(|milliseconds| milliseconds as f64)
                .collect(),
        )
    }

    /// How long clients went without an answer after each disturbance.
    #[must_use]
    pub fn downtime(&self) -> Percentiles {
        Percentiles::of(self.downtimes.clone())
    }

    /// Longest gaps that clients saw, of the processes that moved.
    #[must_use]
    pub fn client_gap(&self) -> Percentiles {
        let moved: std::collections::BTreeSet<_> =
            self.moves.iter().filter(|moved| moved.is_swap()).map(|moved| moved.process.as_str()).collect();
        Percentiles::of(
            self.gaps
                .iter()
                .filter(|(process, _)| moved.contains(process.as_str()))
                .map(|(_, gap)| *gap)
                .collect(),
        )
    }
}

/// Everything that the judges need.
pub(super) struct Evidence<'a> {
    pub(super) history: &'a [Operation],
    pub(super) applied: &'a HashMap<String, Applied>,
    pub(super) moves: Vec<Move>,
    pub(super) torn: Vec<String>,
    pub(super) usurpers: Vec<String>,
    pub(super) excused: &'a [&'a str],
    /// The time that counts, in microseconds since the epoch.
    pub(super) span: (u64, u64),
    /// Which processes were disturbed, and when.
    pub(super) disturbed: Vec<(String, u64)>,
}

impl Evidence<'_> {
    pub(super) fn judge(self) -> Verdict {
        let Self { history, applied, moves, mut torn, usurpers, excused, span: (from, to), disturbed } = self;
        let mut moments: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for (process, at) in disturbed {
            moments.entry(process).or_default().push(at);
        }
        let (forced, calm): (Vec<_>, Vec<_>) =
            history.iter().cloned().partition(|operation| excused.contains(&operation.process.as_str()));
        let of = |is_excused: bool| -> HashMap<String, Applied> {
            let held = applied.iter().filter(|(name, _)| excused.contains(&name.as_str()) == is_excused);
            held.map(|(name, applied)| (name.clone(), applied.clone())).collect()
        };
        torn.retain(|process| !excused.contains(&process.as_str()));
        Verdict {
            account: account(&calm, &of(false)),
            excused: account(&forced, &of(true)),
            disorder: check_order(&calm),
            // The objects count in seconds.
            moves: moves.into_iter().filter(|moved| moved.ended + 1_000_000 > from).collect(),
            gaps: longest_gaps(history, from, to),
            downtimes: moments.iter().flat_map(|(process, at)| gaps_after(history, process, at)).collect(),
            torn,
            usurpers,
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::Broken;

    #[test]
    fn a_broken_promise_is_known_through_what_was_said_about_it() {
        let broken: anyhow::Result<()> = Err(Broken("3 lost".into()).into());
        assert!(Broken::is_cause_of(&broken.context("while draining").unwrap_err()));
        assert!(!Broken::is_cause_of(&anyhow::anyhow!("3 lost")));
    }
}

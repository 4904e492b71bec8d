//! When a change of the members is acted upon.
//!
//! Leaves are believed at once where it costs nothing: a node that is not fit is never a target. Everything else waits
//! until joins and leaves have been quiet for the debounce time, at most four times that from the first of them, so
//! that a rack that comes up causes one rebalance and not forty. A node that was lost lately has to stay fit for
//! longer each time before it counts again. When more than half of the members are lost at once, the likelier story is
//! that the view of them is broken: rebalancing stops until two thirds are back, at most for [`LOSS_HOLD`].

use std::collections::{BTreeMap, BTreeSet};

use processhub_protocol::id::Epoch;

use super::membership::Fitness;
use super::quorum::Lost;

/// How long rebalancing stops, at most, after too many members were lost; then the smaller number is the new one.
pub const LOSS_HOLD: u64 = 5 * 60 * 1000;
/// A node that was not lost for so long has a clean record again.
const FORGIVEN: u64 = 10 * 60 * 1000;
/// The longest time that a node which was lost again and again has to stay fit before it counts.
const LONGEST_PROBATION: u64 = 60 * 1000;
/// What the probation is counted in where a hub asks for no debouncing.
const SHORTEST_PROBATION: u64 = 500;
/// The debouncing ends after so many times the debounce time, however busy it is.
const MAX_WAIT: u64 = 4;

/// What is remembered from plan to plan. Losing it (a new leader) means: the present members are the members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    members: Option<BTreeSet<String>>,
    change: Option<Change>,
    loss: Option<Loss>,
    records: BTreeMap<String, Record>,
    /// Where processes were let go, by name.
    pub(super) sent: BTreeMap<String, Sent>,
    /// Since when members are not reached.
    pub(super) lost: Lost,
}

/// A move or a start that was permitted. Until its process's status shows that it has begun, only this tells where it is
/// going, and another plan must not send it elsewhere: it may have begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    /// What it was decided on: with a higher one it has begun, or ended.
    pub(super) epoch: Epoch,
    /// Where to.
    pub(super) node: String,
}

/// Members that are about to be.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    first: u64,
    last: u64,
    members: BTreeSet<String>,
}

/// Too many were lost at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Loss {
    since: u64,
    of: usize,
}

/// How reliable a node was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    fit: bool,
    fit_since: u64,
    losses: u32,
    last_loss: u64,
}

/// Whether the members may be acted upon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Steadiness {
    /// They are what they were when it was last acted upon, or have been quiet for long enough.
    Steady,
    /// Joins and leaves are being collected: nothing is rebalanced before this time (milliseconds).
    Debouncing {
        /// When it ends if nothing more happens.
        until: u64,
    },
    /// Too many were lost at once.
    TooManyLost {
        /// How many there are.
        have: usize,
        /// How many there were.
        had: usize,
        /// When the smaller number is accepted (milliseconds).
        until: u64,
    },
}

/// The members as they are to be acted upon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    /// Nodes that may be targets now; all of them are fit.
    pub targets: BTreeSet<String>,
    /// Whether they may be rebalanced over.
    pub steadiness: Steadiness,
    /// When to look again even if nothing happens (milliseconds).
    pub wake: Option<u64>,
}

/// Takes in what the nodes are like at `now` (milliseconds of any clock that does not run backwards by much).
#[must_use]
pub fn settle(
    memory: &Memory,
    nodes: &BTreeMap<String, Fitness>,
    now: u64,
    debounce: u64,
) -> (Memory, Members) {
    let mut next = memory.clone();
    keep_records(&mut next.records, nodes, now);
    let fit: BTreeSet<&String> = nodes.iter().filter(|(_, f)| f.is_fit()).map(|(name, _)| name).collect();
    let mut wake = None;
    let mut candidates = BTreeSet::new();
    for name in &fit {
        match next.records.get(*name).and_then(|record| record.probation(now, debounce)) {
            Some(until) => wake = earlier(wake, until),
            None => drop(candidates.insert((*name).clone())),
        }
    }

    let acted = next.members.clone().unwrap_or_else(|| candidates.clone());
    next.loss = judge_loss(memory.loss, &acted, nodes, candidates.len(), now);
    let steadiness = if let Some(loss) = next.loss {
        // The number that counted is kept until it recovers or the time is over.
        next.members = Some(acted.clone());
        next.change = None;
        let until = loss.since + LOSS_HOLD;
        Steadiness::TooManyLost { have: candidates.len(), had: loss.of, until }
    } else {
        let accept = memory.loss.is_some();
        let change = pending(memory.change.as_ref(), &acted, &candidates, now);
        match change {
            Some(change) if !accept && now < change.due(debounce) => {
                let until = change.due(debounce);
                next.members = Some(acted.clone());
                next.change = Some(change);
                Steadiness::Debouncing { until }
            }
            Some(_) | None => {
                next.members = Some(candidates.clone());
                next.change = None;
                Steadiness::Steady
            }
        }
    };
    match steadiness {
        Steadiness::Steady => {}
        Steadiness::Debouncing { until } | Steadiness::TooManyLost { until, .. } => {
            wake = earlier(wake, until)
        }
    }

    let usable = next.members.as_ref().unwrap_or(&candidates);
    let mut targets: BTreeSet<String> = candidates.intersection(usable).cloned().collect();
    // Nothing is protected by waiting when there is nothing to wait with.
    if targets.is_empty() {
        targets = candidates;
    }
    if targets.is_empty() {
        targets = fit.into_iter().cloned().collect();
    }
    (next, Members { targets, steadiness, wake })
}

fn earlier(wake: Option<u64>, at: u64) -> Option<u64> {
    Some(wake.map_or(at, |wake| wake.min(at)))
}

fn keep_records(records: &mut BTreeMap<String, Record>, nodes: &BTreeMap<String, Fitness>, now: u64) {
    for (name, fitness) in nodes {
        let record = records.entry(name.clone()).or_insert(Record {
            fit: false,
            fit_since: now,
            losses: 0,
            last_loss: 0,
        });
        if fitness.is_fit() && !record.fit {
            record.fit_since = now;
        }
        if record.fit && fitness.is_lost() {
            record.losses = record.losses.saturating_add(1);
            record.last_loss = now;
        }
        record.fit = fitness.is_fit();
        if record.losses > 0 && now.saturating_sub(record.last_loss) >= FORGIVEN {
            record.losses = 0;
        }
    }
    for (name, record) in records.iter_mut() {
        if record.fit && !nodes.contains_key(name) {
            record.fit = false;
            record.losses = record.losses.saturating_add(1);
            record.last_loss = now;
        }
    }
    records
        .retain(|name, record| nodes.contains_key(name) || now.saturating_sub(record.last_loss) < FORGIVEN);
}

impl Record {
    /// Until when the node does not count, though it is fit.
    fn probation(&self, now: u64, debounce: u64) -> Option<u64> {
        if self.losses == 0 {
            return None;
        }
        let unit = debounce.max(SHORTEST_PROBATION);
        let long = unit.saturating_mul(1 << self.losses.min(16)).min(LONGEST_PROBATION);
        let until = self.fit_since.saturating_add(long);
        (now < until).then_some(until)
    }
}

impl Change {
    fn due(&self, debounce: u64) -> u64 {
        let quiet = self.last.saturating_add(debounce);
        quiet.min(self.first.saturating_add(debounce.saturating_mul(MAX_WAIT)))
    }
}

fn pending(
    before: Option<&Change>,
    acted: &BTreeSet<String>,
    candidates: &BTreeSet<String>,
    now: u64,
) -> Option<Change> {
    if acted == candidates {
        return None;
    }
    let (first, last) = match before {
        Some(change) if change.members == *candidates => (change.first, change.last),
        Some(change) => (change.first, now),
        None => (now, now),
    };
    Some(Change { first, last, members: candidates.clone() })
}

fn judge_loss(
    before: Option<Loss>,
    acted: &BTreeSet<String>,
    nodes: &BTreeMap<String, Fitness>,
    have: usize,
    now: u64,
) -> Option<Loss> {
    if let Some(loss) = before {
        let recovered = have * 3 >= loss.of * 2;
        let over = now >= loss.since.saturating_add(LOSS_HOLD);
        return (!recovered && !over).then_some(loss);
    }
    let lost = acted.iter().filter(|name| nodes.get(*name).is_none_or(Fitness::is_lost)).count();
    (lost * 2 > acted.len()).then_some(Loss { since: now, of: acted.len() })
}

#[cfg(test)]
#[path = "debounce_tests.rs"]
mod tests;

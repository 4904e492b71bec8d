//! Whether so many members are reached that the others may be taken over.
//!
//! Two owners are kept apart by leases and by the ledger alone. This keeps an operator that is itself cut off from most of
//! the nodes, but not from the API server, from taking everything to the few that it reaches.

use std::collections::{BTreeMap, BTreeSet};

use processhub_crds::{PartitionStrategy, PartitionTolerance};

use super::inputs::Inputs;
use super::membership::Fitness;
use crate::assignments::OwnerState;

/// How many of the members are reached, and how many it takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quorum {
    /// Members that are reached.
    pub reached: u32,
    /// Members that are not.
    pub lost: BTreeSet<String>,
    /// How many must be.
    pub needed: u32,
    /// When a lost member is counted no longer, in milliseconds.
    pub wake: Option<u64>,
}

impl Quorum {
    /// Whether enough are reached.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.reached >= self.needed
    }
}

/// Since when members are lost, in milliseconds, by name.
pub(super) type Lost = BTreeMap<String, u64>;

/// Judges, and says what to remember.
pub(super) fn quorum(
    inputs: &Inputs,
    fitness: &BTreeMap<String, Fitness>,
    before: &Lost,
    now: u64,
) -> (Lost, Quorum) {
    let heard = heard(inputs);
    let members = fitness.iter().filter(|(_, fitness)| is_member(fitness));
    let (mut reached, mut lost) = (0_u32, Lost::new());
    for (name, fitness) in members {
        match heard.get(name.as_str()) {
            Some(true) => reached += 1,
            None if !fitness.is_lost() => reached += 1,
            Some(false) | None => {
                let since = before.get(name).copied().unwrap_or(now);
                lost.insert(name.clone(), since);
            }
        }
    }
    let PartitionTolerance { strategy, quorum_size, threshold_seconds, initial_cluster_size, track_max_size } =
        inputs.hub.partition;
    let count = |names: usize| u32::try_from(names).unwrap_or(u32::MAX);
    let size = quorum_size.unwrap_or(u32::MAX);
    let mut wake = None;
    let needed = match strategy {
        PartitionStrategy::MajorityQuorum => {
            let counts = |name: &&String| track_max_size || fitness.get(*name) != Some(&Fitness::NotReady);
            let members = reached.saturating_add(count(lost.keys().filter(counts).count()));
            members.max(initial_cluster_size) / 2 + 1
        }
        PartitionStrategy::StaticQuorum => size,
        PartitionStrategy::DynamicQuorum => {
            let window = u64::from(threshold_seconds) * 1000;
            let ends = lost.values().map(|since| since.saturating_add(window)).filter(|end| *end > now);
            let recent = count(ends.clone().count());
            wake = ends.min();
            let all = u64::from(reached) + u64::from(recent);
            u32::try_from((all * u64::from(size)).div_ceil(100)).unwrap_or(u32::MAX)
        }
        // Refused; nothing is taken over.
        PartitionStrategy::Divergence => u32::MAX,
    };
    let quorum = Quorum { reached, lost: lost.keys().cloned().collect(), needed, wake };
    (lost, quorum)
}

/// A node that somebody has taken out on purpose is none that got lost.
fn is_member(fitness: &Fitness) -> bool {
    match fitness {
        Fitness::Fit | Fitness::NotReady | Fitness::Cordoned | Fitness::Tainted(_) => true,
        Fitness::NoPods | Fitness::Deleting | Fitness::NotSelected(_) | Fitness::NotMatched(_) => false,
    }
}

/// Of the nodes that own something: whether any of their owners answers.
fn heard(inputs: &Inputs) -> BTreeMap<&str, bool> {
    let mut heard = BTreeMap::new();
    for facts in inputs.processes.values().filter_map(|process| process.facts.as_ref()) {
        let Some(node) = facts.node.as_deref() else { continue };
        let answers = match facts.owner {
            OwnerState::Unreachable => false,
            OwnerState::Dead if facts.fenced => false,
            OwnerState::None | OwnerState::Dead => continue,
            OwnerState::Serving
            | OwnerState::NotServing
            | OwnerState::Crashed { .. }
            | OwnerState::Leaving { .. } => true,
        };
        *heard.entry(node).or_insert(false) |= answers;
    }
    heard
}

#[cfg(test)]
#[path = "quorum_tests.rs"]
mod tests;

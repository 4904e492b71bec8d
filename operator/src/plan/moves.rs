//! Which moves may begin now, and which should be given up.

mod holdups;
mod permits;
mod step;

use std::collections::BTreeMap;

use super::debounce::Steadiness;
use super::homes::Homes;
use super::inputs::{Inputs, Process};
use super::limits::Limits;
use super::membership::Fitness;
use super::quorum::Quorum;
use super::rollout::Rollout;
use crate::assignments::{Assignment, OwnerState};
pub use permits::Rank;
use permits::{Candidate, permit};
use step::Step;
pub(super) use step::is_stuck;

/// The assignments, and what stood in the way.
#[derive(Clone, Debug, Default)]
pub struct Moves {
    /// By name of the process; of those that were observed, and where there is something to say.
    pub assignments: BTreeMap<String, Assignment>,
    /// How many processes are not where they belong, or have to leave; without first starts.
    pub misplaced: u32,
    /// Moves that may begin.
    pub permitted: Vec<String>,
    /// Moves that wait for limits.
    pub limited: Vec<String>,
    /// Moves that wait for the hub: paused, debouncing, too few members, not accepted.
    pub suspended: Vec<String>,
    /// Moves that have failed and wait for their next try.
    pub backing_off: Vec<String>,
    /// Processes that have no home.
    pub pending: Vec<String>,
    /// Moves under way that should be given up.
    pub withdrawn: Vec<String>,
    /// When the first back-off ends, in milliseconds.
    pub wake: Option<u64>,
}

/// What the steps before found.
pub struct Found<'a> {
    /// Which nodes are fit.
    pub fitness: &'a BTreeMap<String, Fitness>,
    /// Whether the members may be acted upon.
    pub steadiness: &'a Steadiness,
    /// Where the processes belong.
    pub homes: &'a Homes<'a>,
    /// Whether so many members are reached that others may be taken over.
    pub quorum: &'a Quorum,
}

/// Decides.
#[must_use]
pub fn moves(inputs: &Inputs, found: &Found<'_>, rollout: &Rollout<'_>) -> Moves {
    let Found { fitness, steadiness, homes, quorum } = found;
    let mut result = Moves::default();
    let mut candidates = Vec::new();
    let quorum = inputs.hub.on_lease && quorum.holds();
    let recovering = inputs.hub.replicated && inputs.processes.values().any(is_lost);
    let mut limits = Limits::new(inputs.hub.max_concurrent, inputs.hub.max_concurrent_per_node);
    for ((name, process), home) in inputs.processes.iter().zip(&homes.of) {
        let Some(facts) = &process.facts else { continue };
        if let Some(moving) = process.moving() {
            limits.count(moving);
        }
        if inputs.hub.deleting {
            continue;
        }
        let step = Step { inputs, fitness, steadiness, rollout, process, facts, name, home, recovering };
        let mut assignment = match (process.moving(), &facts.moving) {
            (Some(moving), _) => step.under_way(moving, &mut candidates, &mut result),
            // What the hub that it comes from makes of it is not this one's to judge.
            (None, Some(_)) => Assignment::default(),
            (None, None) => step.at_rest(&mut candidates, &mut result),
        };
        assignment.take_over = quorum && facts.owner == OwnerState::Unreachable;
        // That a wish cannot be followed is said before what else it waits for.
        if let Some(refused) = homes.refused.get(name.as_str()) {
            assignment.held = Some(refused.clone());
        }
        if assignment != Assignment::default() {
            result.assignments.insert(name.clone(), assignment);
        }
    }
    candidates.sort_by_key(|candidate: &Candidate<'_>| (candidate.rank, candidate.name));
    permit(candidates, &mut limits, rollout.slots, &mut result);
    result
}

/// Whether its owner may have to be recovered, from replicas that other processes' pods hold.
fn is_lost(process: &Process) -> bool {
    process.facts.as_ref().is_some_and(|facts| match facts.owner {
        OwnerState::Unreachable | OwnerState::Dead => true,
        OwnerState::None
        | OwnerState::Serving
        | OwnerState::NotServing
        | OwnerState::Crashed { .. }
        | OwnerState::Leaving { .. } => false,
    })
}

#[cfg(test)]
#[path = "moves_tests.rs"]
mod tests;

//! Decides what a hub needs: pure, without client, clock or randomness.
//!
//! [`plan`] goes through its steps in order, one file each, and returns beside the [`Plan`] a [`Report`] that says what
//! each step did and what it waits for. It is level-triggered: it looks at everything that is there and remembers only
//! how restless the nodes were, and whom it let go where ([`Memory`]). Planning again once a plan has been carried out gives an empty plan.

mod affinity;
mod backoff;
mod children;
mod debounce;
mod farewell;
#[cfg(test)]
pub(crate) mod fixture;
mod holders;
mod homes;
mod inputs;
mod limits;
mod lint;
mod membership;
mod moves;
pub mod placement;
mod quorum;
mod report;
mod rollout;
#[cfg(test)]
mod transfer_tests;

use std::collections::BTreeMap;

pub use affinity::{Operator, Requirement, Term};
pub use children::{Children, ordinal, replica};
pub use debounce::{LOSS_HOLD, Memory, Steadiness};
pub use holders::holders;
pub use inputs::{Child, Hub, Inputs, Match, Node, Process, Taint, TaintEffect, Toleration, Transfer};
pub use lint::{Defect, lint};
pub use membership::Fitness;
pub use moves::Rank;
pub use quorum::Quorum;
pub use report::{MembershipReport, MovesReport, PlacementReport, Report};
pub use rollout::{Code, RolloutReport, Upgrade};

use crate::assignments::Assignment;
use debounce::Sent;

/// What to do for one hub.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Objects to create, change and delete.
    pub children: Children,
    /// What processes may do now, by name. One that is not named may do nothing: the default.
    pub assignments: BTreeMap<String, Assignment>,
    /// To be given to the next plan of this hub.
    pub memory: Memory,
    /// When to plan again even if nothing happens, in milliseconds since 1970.
    pub wake: Option<u64>,
}

impl Plan {
    /// Whether there is nothing to carry out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Children { create, update, delete, taken: _, replicas: _, desired: _ } = &self.children;
        create.is_empty()
            && update.is_empty()
            && delete.is_empty()
            && self
                .assignments
                .values()
                .all(|assignment| assignment.go.is_none() && assignment.give_up.is_none())
    }
}

/// Plans for one hub.
#[must_use]
pub fn plan(inputs: &Inputs) -> (Plan, Report) {
    let now = homes::as_milliseconds(inputs.now);
    let fitness = membership::membership(&inputs.hub, &inputs.nodes);
    let (mut memory, members) = debounce::settle(&inputs.memory, &fitness, now, inputs.hub.debounce);
    let children = children::children(&inputs.hub, &inputs.processes, &inputs.taken);
    let homes = homes::homes(inputs, &fitness, &members.targets, &children.delete);
    let rollout = rollout::rollout(inputs, &children.delete);
    let (lost, quorum) = quorum::quorum(inputs, &fitness, &inputs.memory.lost, now);
    memory.lost = lost;
    let found =
        moves::Found { fitness: &fitness, steadiness: &members.steadiness, homes: &homes, quorum: &quorum };
    let moves = moves::moves(inputs, &found, &rollout);
    let wake = members.wake.into_iter().chain(homes.wake).chain(moves.wake).chain(quorum.wake).min();

    let report = Report {
        rollout: rollout.report,
        quorum,
        ..report::report(inputs, &fitness, &members, &children, &homes, &moves)
    };
    let gos = moves.assignments.iter().filter_map(|(name, it)| Some((name, it.go.as_ref()?)));
    memory.sent =
        gos.map(|(name, go)| (name.clone(), Sent { epoch: go.epoch, node: go.node.clone() })).collect();
    let plan = Plan { children, assignments: moves.assignments, memory, wake };
    debug_assert_eq!(lint(inputs, &plan), Vec::new(), "{report}");
    (plan, report)
}

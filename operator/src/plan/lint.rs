//! Checks a plan against what no plan may do, knowing nothing of how it was made.

use std::collections::{BTreeMap, BTreeSet};

use processhub_crds::MigrationTrigger;
use processhub_protocol::ledger::{AbortReason, Kind};

use super::children::ordinal;
use super::inputs::{Inputs, Process};
use super::membership::membership;
use super::{Fitness, Plan};
use crate::assignments::{MovingPhase, OwnerState, ProcessFacts};

/// What a plan did wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Defect {
    /// A move goes where nothing may go.
    #[error("{process} is sent to {node}, which is not fit")]
    UnfitTarget {
        /// The process.
        process: String,
        /// The node.
        node: String,
    },
    /// A move may begin while another of the same process is under way.
    #[error("{0} is moved twice")]
    TwoMoves(String),
    /// A process is moved and deleted.
    #[error("{0} is moved and deleted")]
    MovedAndDeleted(String),
    /// Something is decided about a process that nobody has looked at.
    #[error("{0} is assigned without having been observed")]
    NotObserved(String),
    /// A process moves although nothing asks for it and it would end where it is.
    #[error("{0} is sent to where it is")]
    Nowhere(String),
    /// More moves may begin than `maxConcurrent`.
    #[error("{moves} moves at once, {limit} are allowed")]
    TooMany {
        /// How many.
        moves: u32,
        /// The limit.
        limit: u32,
    },
    /// More moves touch a node than `maxConcurrentPerNode`.
    #[error("{moves} moves at {node} at once, {limit} are allowed")]
    TooManyAtNode {
        /// The node.
        node: String,
        /// How many.
        moves: u32,
        /// The limit.
        limit: u32,
    },
    /// More processes change their code than `upgrade.maxConcurrent`.
    #[error("{upgrades} processes change their code at once, {limit} are allowed")]
    TooManyUpgrades {
        /// How many.
        upgrades: u32,
        /// The limit.
        limit: u32,
    },
    /// Processes change their code although one could not.
    #[error("the roll-out goes on although {0} could not be given the code")]
    UpgradeAfterFailure(String),
    /// A move is withdrawn that is frozen, committed or not there.
    #[error("{0} has nothing that could be withdrawn")]
    Unwithdrawable(String),
    /// A process that the operator did not create is deleted or changed.
    #[error("{0} is not the operator's to change")]
    NotOurs(String),
    /// A process is created that exists or whose name is taken.
    #[error("{0} is created again")]
    CreatedTwice(String),
}

/// Everything that is wrong with a plan; nothing, if it was made by [`plan`](super::plan).
#[must_use]
pub fn lint(inputs: &Inputs, plan: &Plan) -> Vec<Defect> {
    let mut defects = Vec::new();
    let fitness = membership(&inputs.hub, &inputs.nodes);
    let mut load = Load::default();
    for (name, process) in &inputs.processes {
        load.under_way(process);
        let Some(assignment) = plan.assignments.get(name) else { continue };
        let Some(facts) = &process.facts else {
            defects.push(Defect::NotObserved(name.clone()));
            continue;
        };
        if assignment.give_up == Some(AbortReason::Withdrawn)
            && facts.moving.as_ref().is_none_or(|moving| moving.phase != MovingPhase::Prepared)
        {
            defects.push(Defect::Unwithdrawable(name.clone()));
        }
        let Some(go) = &assignment.go else { continue };
        if fitness.get(&go.node) != Some(&Fitness::Fit) {
            defects.push(Defect::UnfitTarget { process: name.clone(), node: go.node.clone() });
        }
        if facts.moving.is_some() && !is_lost_again(facts) {
            defects.push(Defect::TwoMoves(name.clone()));
        }
        if process.deleting || plan.children.delete.contains(name) {
            defects.push(Defect::MovedAndDeleted(name.clone()));
        }
        let stays = facts.node.as_ref() == Some(&go.node);
        let upgrade = &inputs.hub.upgrade;
        let upgrades = go.trigger == MigrationTrigger::Upgrade && upgrade.runs(facts) != go.revision;
        let arrives = go.trigger == MigrationTrigger::Transfer && process.arrives();
        if stays && facts.owner == OwnerState::Serving && !upgrades && !arrives {
            defects.push(Defect::Nowhere(name.clone()));
        }
        if go.trigger == MigrationTrigger::Upgrade && !super::moves::is_stuck(&inputs.hub, facts) {
            load.upgrades += 1;
            load.upgrade_begins = true;
        }
        match facts.owner {
            // A pod that is killed at a deadline waits for no limit.
            OwnerState::Leaving { .. } => load.hurries(facts.node.as_deref(), &go.node),
            OwnerState::Serving if !super::moves::is_stuck(&inputs.hub, facts) => {
                load.begins(facts.node.as_deref(), &go.node);
            }
            OwnerState::None
            | OwnerState::Dead
            | OwnerState::Serving
            | OwnerState::NotServing
            | OwnerState::Crashed { .. }
            | OwnerState::Unreachable => {}
        }
    }
    if load.upgrade_begins {
        load.judge_upgrades(inputs, &plan.children.delete, &mut defects);
    }
    load.judge(inputs, &mut defects);
    children(inputs, plan, &mut defects);
    defects
}

/// Whether the owner that a move has brought is lost again before that move has ended: the next one follows.
fn is_lost_again(facts: &ProcessFacts) -> bool {
    let committed = facts.moving.as_ref().is_some_and(|moving| moving.phase == MovingPhase::Committed);
    facts.owner == OwnerState::Dead || (committed && matches!(facts.owner, OwnerState::Crashed { .. }))
}

/// Moves that count against the limits.
#[derive(Default)]
struct Load<'a> {
    hub: u32,
    nodes: BTreeMap<&'a str, u32>,
    begun: BTreeSet<&'a str>,
    any: bool,
    upgrades: u32,
    upgrade_begins: bool,
}

impl<'a> Load<'a> {
    fn under_way(&mut self, process: &'a Process) {
        let Some(moving) = process.moving() else { return };
        if matches!(moving.kind, Kind::Start | Kind::Recover) {
            return;
        }
        self.hub += 1;
        self.upgrades += u32::from(moving.trigger == MigrationTrigger::Upgrade);
        if moving.phase != MovingPhase::Committed {
            self.touch(moving.from.as_deref(), &moving.to);
        }
    }

    fn hurries(&mut self, from: Option<&'a str>, to: &'a str) {
        self.hub += 1;
        self.touch(from, to);
    }

    fn begins(&mut self, from: Option<&'a str>, to: &'a str) {
        self.any = true;
        self.hub += 1;
        self.touch(from, to);
        self.begun.extend(from);
        self.begun.insert(to);
    }

    fn touch(&mut self, from: Option<&'a str>, to: &'a str) {
        *self.nodes.entry(to).or_default() += 1;
        if let Some(from) = from.filter(|from| *from != to) {
            *self.nodes.entry(from).or_default() += 1;
        }
    }

    /// Nor does anybody change its code after another could not.
    fn judge_upgrades(&self, inputs: &Inputs, doomed: &[String], defects: &mut Vec<Defect>) {
        let upgrade = &inputs.hub.upgrade;
        if self.upgrades > upgrade.max_concurrent {
            defects.push(Defect::TooManyUpgrades { upgrades: self.upgrades, limit: upgrade.max_concurrent });
        }
        let order =
            |name: &String| (ordinal(&inputs.hub.name, name).is_none(), ordinal(&inputs.hub.name, name));
        let stays = |(name, process): &(&String, &Process)| {
            process.transfer.is_none() && !process.deleting && !doomed.contains(name)
        };
        let mut names: Vec<&String> = inputs.processes.iter().filter(stays).map(|(name, _)| name).collect();
        names.sort_by_key(|name| (order(name), *name));
        let kept = usize::try_from(upgrade.partition).unwrap_or(usize::MAX).min(names.len());
        let failed = names[kept..].iter().find(|name| {
            let facts = inputs.processes[**name].facts.as_ref();
            let failed = facts.and_then(|facts| facts.code.failed.as_ref());
            failed.is_some_and(|failed| failed.revision == upgrade.present)
                && facts.is_some_and(|facts| upgrade.runs(facts) != upgrade.present)
        });
        if let Some(failed) = failed {
            defects.push(Defect::UpgradeAfterFailure((*failed).clone()));
        }
    }

    /// A limit that was lowered is exceeded by what is under way, but nothing is added to that.
    fn judge(self, inputs: &Inputs, defects: &mut Vec<Defect>) {
        let hub = inputs.hub.max_concurrent;
        if self.any && self.hub > hub {
            defects.push(Defect::TooMany { moves: self.hub, limit: hub });
        }
        let limit = inputs.hub.max_concurrent_per_node;
        for (node, moves) in self.nodes {
            if self.begun.contains(node) && moves > limit {
                defects.push(Defect::TooManyAtNode { node: node.to_owned(), moves, limit });
            }
        }
    }
}

fn children(inputs: &Inputs, plan: &Plan, defects: &mut Vec<Defect>) {
    let ours = |name: &String| inputs.processes.get(name).is_some_and(|process| process.managed);
    let changed = plan.children.delete.iter().chain(plan.children.update.keys());
    defects.extend(changed.filter(|name| !ours(name)).map(|name| Defect::NotOurs(name.clone())));
    let there = |name: &&String| inputs.processes.contains_key(*name) || inputs.taken.contains_key(*name);
    defects.extend(plan.children.create.keys().filter(there).map(|name| Defect::CreatedTwice(name.clone())));
}

#[cfg(test)]
#[path = "lint_tests.rs"]
mod tests;

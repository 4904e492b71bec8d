//! What one process does next.

use std::collections::BTreeMap;

use processhub_crds::vocabulary::ProcessReason;
use processhub_crds::{MigrationStrategy, MigrationTrigger};
use processhub_protocol::handover::{Handover, Waiting};
use processhub_protocol::ledger::{AbortReason, Kind};

use super::Moves;
use super::holdups::limit_exceeded;
use super::permits::{Candidate, Rank};
use crate::assignments::{Assignment, Go, Held, Moving, MovingPhase, OwnerState, ProcessFacts};
use crate::plan::debounce::Steadiness;
use crate::plan::farewell::farewell;
use crate::plan::homes::{Authority, Home};
use crate::plan::inputs::{Hub, Inputs, Process, Transfer};
use crate::plan::limits::Travel;
use crate::plan::membership::Fitness;
use crate::plan::rollout::{Rollout, is_outdated};

/// One process.
pub(super) struct Step<'a> {
    pub(super) inputs: &'a Inputs,
    pub(super) fitness: &'a BTreeMap<String, Fitness>,
    pub(super) steadiness: &'a Steadiness,
    pub(super) rollout: &'a Rollout<'a>,
    pub(super) process: &'a Process,
    pub(super) facts: &'a ProcessFacts,
    pub(super) name: &'a str,
    pub(super) home: &'a Home<'a>,
    /// Whether an owner may have to be recovered from what other pods of the hub hold.
    pub(super) recovering: bool,
}

impl<'a> Step<'a> {
    /// A move goes on unless its target is no longer where the process belongs. What is frozen or committed goes on in
    /// any case: the machine of the hand-over knows, and here it is only not asked.
    pub(super) fn under_way(
        &self,
        moving: &Moving,
        candidates: &mut Vec<Candidate<'a>>,
        result: &mut Moves,
    ) -> Assignment {
        let mut assignment = Assignment::default();
        if self.process.leaves() && moving.trigger == MigrationTrigger::Transfer {
            // The hub that it goes to knows whether its target is still where it belongs.
            return assignment;
        }
        let elsewhere = match self.home {
            Home::At { node, .. } => *node != moving.to,
            Home::Stays | Home::Pending(_) => true,
            Home::Doomed => false,
        };
        let outdated = is_outdated(self.inputs, self.rollout, self.name, self.facts);
        if (elsewhere || outdated) && moving.phase == MovingPhase::Prepared {
            assignment.give_up = Some(AbortReason::Withdrawn);
            result.withdrawn.push(self.name.to_owned());
        }
        // The worker of its target crashes: as soon as this move has ended the next one begins.
        if moving.phase == MovingPhase::Committed && matches!(self.facts.owner, OwnerState::Crashed { .. }) {
            return self.at_rest(candidates, result);
        }
        // Its target died after the commit: it is recovered as soon as this move has ended.
        if self.facts.owner == OwnerState::Dead
            && !self.process.arrives()
            && let Home::At { node, .. } = self.home
        {
            let trigger = recovery(self.fitness, self.facts);
            assignment.go = Some(go(self.inputs, self.facts, node, trigger));
        }
        assignment
    }

    pub(super) fn at_rest(&self, candidates: &mut Vec<Candidate<'a>>, result: &mut Moves) -> Assignment {
        let others = candidates.len();
        let mut assignment = self.next_move(candidates, result);
        let crashed = self.facts.owner == OwnerState::Crashed { again: None };
        if crashed && candidates.len() == others && assignment.held.is_none() {
            assignment.held = Some(limit_exceeded());
        }
        assignment
    }

    fn next_move(&self, candidates: &mut Vec<Candidate<'a>>, result: &mut Moves) -> Assignment {
        let held = |held: Held| Assignment { held: Some(held), ..Assignment::default() };
        let (node, by) = match self.home {
            Home::At { node, by } => (*node, *by),
            Home::Pending(reason) => {
                // Who is to come is pending where it is.
                if !self.process.arrives() {
                    result.pending.push(self.name.to_owned());
                }
                return held(reason.clone());
            }
            Home::Stays if self.process.leaves() => return farewell(&self.inputs.hub, self.name, self.facts),
            Home::Stays => return self.stays(),
            Home::Doomed => return Assignment::default(),
        };
        let Some((rank, trigger)) = self.wanted(node, by) else {
            return match self.process.transfer {
                Some(Transfer::Leaving) => farewell(&self.inputs.hub, self.name, self.facts),
                // The other hub has to bring it to where it can be taken over.
                Some(Transfer::Arriving) => Assignment::default(),
                None => self.upgrade(node, candidates),
            };
        };
        result.misplaced += u32::from(!matches!(rank, Rank::Start | Rank::Transfer));
        if let Some(reason) = self.suspended(rank) {
            result.suspended.push(self.name.to_owned());
            return held(reason);
        }
        if let Some(reason) = self.pauses(rank, result).or_else(|| self.backs_off(rank, node, result)) {
            result.backing_off.push(self.name.to_owned());
            return held(reason);
        }
        if self.can_begin(rank) {
            candidates.push(Candidate {
                rank,
                name: self.name,
                go: go(self.inputs, self.facts, node, trigger),
                travel: Travel { from: self.facts.node.as_deref(), to: node },
                stuck: is_stuck(&self.inputs.hub, self.facts),
            });
        }
        Assignment::default()
    }

    /// It changes its code where it is, in its turn. Nothing but that is wanted of it.
    fn upgrade(&self, node: &'a str, candidates: &mut Vec<Candidate<'a>>) -> Assignment {
        let Some(turn) = self.rollout.turn(self.name) else { return Assignment::default() };
        let rank = Rank::Upgrade(turn);
        if self.rollout.report.failed.iter().any(|failed| failed == self.name) {
            // It says so itself.
            return Assignment::default();
        }
        let held = self.suspended(rank).or_else(|| self.stopped());
        if held.is_none() && self.can_begin(rank) {
            candidates.push(Candidate {
                rank,
                name: self.name,
                go: go(self.inputs, self.facts, node, MigrationTrigger::Upgrade),
                travel: Travel { from: self.facts.node.as_deref(), to: node },
                stuck: is_stuck(&self.inputs.hub, self.facts),
            });
        }
        Assignment { held, ..Assignment::default() }
    }

    /// Its node takes no pod with new code either.
    fn stays(&self) -> Assignment {
        let held = self.rollout.turn(self.name).map(|_| {
            self.stopped().unwrap_or_else(|| Held {
                reason: ProcessReason::UpgradePending,
                message:
                    "its node takes nothing new; it gets the new code when it has moved, or when the node is \
                          uncordoned"
                        .to_owned(),
            })
        });
        Assignment { held, ..Assignment::default() }
    }

    /// Whether it has to move to be at `node`, and why.
    fn wanted(&self, node: &str, by: Authority) -> Option<(Rank, MigrationTrigger)> {
        if self.process.arrives() {
            return match self.facts.owner {
                OwnerState::Serving
                | OwnerState::NotServing
                | OwnerState::Unreachable
                | OwnerState::Crashed { .. } => Some((Rank::Transfer, MigrationTrigger::Transfer)),
                OwnerState::None | OwnerState::Dead | OwnerState::Leaving { .. } => None,
            };
        }
        let elsewhere = self.facts.node.as_deref() != Some(node);
        match self.facts.owner {
            OwnerState::None => Some((Rank::Start, MigrationTrigger::Start)),
            OwnerState::Dead => Some((Rank::Recover, recovery(self.fitness, self.facts))),
            OwnerState::Leaving { until: _ } => {
                let at = self.facts.node.as_deref().and_then(|node| self.fitness.get(node));
                let trigger = match at {
                    // Where it goes is a person's word, and there it stays.
                    _ if by == Authority::Wish => MigrationTrigger::Wish,
                    Some(Fitness::Cordoned) => MigrationTrigger::Drain,
                    _ => MigrationTrigger::PodDeleted,
                };
                Some((Rank::Leaving, trigger))
            }
            OwnerState::Crashed { again } => match by {
                Authority::Wish if elsewhere => {
                    let rank = if again.is_some() { Rank::Crashed } else { Rank::Wish };
                    Some((rank, MigrationTrigger::Wish))
                }
                // In a new pod where it belongs; with other code, if that is due.
                Authority::Wish | Authority::Pin | Authority::Distribution
                    if again.is_some() && (elsewhere || !self.gets_code()) =>
                {
                    Some((Rank::Crashed, MigrationTrigger::Crash))
                }
                Authority::Pin if elsewhere => Some((Rank::Pin, MigrationTrigger::Pinned)),
                Authority::Wish | Authority::Pin | Authority::Distribution => None,
            },
            OwnerState::Serving | OwnerState::NotServing | OwnerState::Unreachable => {
                elsewhere.then_some(match by {
                    Authority::Wish => (Rank::Wish, MigrationTrigger::Wish),
                    Authority::Pin => (Rank::Pin, MigrationTrigger::Pinned),
                    Authority::Distribution => (Rank::Rebalance, MigrationTrigger::Rebalance),
                })
            }
        }
    }

    /// Whether the hand-over can begin at all: an owner that does not answer hands nothing over.
    fn can_begin(&self, rank: Rank) -> bool {
        match rank {
            Rank::Recover | Rank::Crashed | Rank::Start | Rank::Leaving => true,
            // What a crashed worker's sidecar has kept is handed over without it: new code may be what it needs.
            Rank::Wish | Rank::Pin | Rank::Upgrade(_) => {
                matches!(self.facts.owner, OwnerState::Serving | OwnerState::Crashed { .. })
            }
            Rank::Transfer | Rank::Rebalance => self.facts.owner == OwnerState::Serving,
        }
    }
}

/// Whether the process was permitted to move, or would be, and does not begin for reasons of its own. It keeps the
/// permission and takes no place from others.
pub(in crate::plan) fn is_stuck(hub: &Hub, facts: &ProcessFacts) -> bool {
    let incapable = hub.handover == Handover::Required && facts.capable == Some(false);
    incapable
        || match facts.waiting {
            Waiting::OldPodGone
            | Waiting::Source
            | Waiting::HandoverNotSupported
            | Waiting::OwnerUnreachable
            | Waiting::HistoryRewound => true,
            Waiting::Nothing
            | Waiting::Placement
            | Waiting::Leadership
            | Waiting::TargetPod
            | Waiting::TargetSidecar
            | Waiting::TargetWorker
            | Waiting::Trying
            | Waiting::Freezing
            | Waiting::Importing
            | Waiting::Activating
            | Waiting::TargetReady
            | Waiting::LeaseEnd
            | Waiting::Replicas
            | Waiting::Retention
            | Waiting::Thawing => false,
        }
}

fn recovery(fitness: &BTreeMap<String, Fitness>, facts: &ProcessFacts) -> MigrationTrigger {
    let node = facts.node.as_deref().and_then(|node| fitness.get(node));
    match node {
        None | Some(Fitness::NotReady | Fitness::Deleting) => MigrationTrigger::NodeLost,
        Some(
            Fitness::Fit
            | Fitness::Cordoned
            | Fitness::Tainted(_)
            | Fitness::NoPods
            | Fitness::NotSelected(_)
            | Fitness::NotMatched(_),
        ) => MigrationTrigger::Recovery,
    }
}

/// Says what it is for: the recovery of a dead owner must not be taken for a move of the owner that it brings.
fn go(inputs: &Inputs, facts: &ProcessFacts, node: &str, trigger: MigrationTrigger) -> Go {
    let hub = &inputs.hub;
    let upgrades = trigger == MigrationTrigger::Upgrade;
    let kind = match (facts.owner, hub.migration) {
        (OwnerState::None, _) => Kind::Start,
        (OwnerState::Dead, _) => Kind::Recover,
        (_, MigrationStrategy::HotSwap) if upgrades && hub.upgrade.cold => Kind::ColdSwap,
        (_, MigrationStrategy::HotSwap) => Kind::HotSwap,
        (_, MigrationStrategy::ColdSwap) => Kind::ColdSwap,
    };
    // A move keeps the code: what a process does in an emergency is no trial of new code. Who arrives has none of this
    // hub's.
    let new = upgrades || trigger == MigrationTrigger::Transfer;
    let revision = if new { &hub.upgrade.present } else { hub.upgrade.keeps(facts) };
    Go {
        kind,
        node: node.to_owned(),
        trigger,
        revision: revision.to_owned(),
        epoch: facts.epoch,
        hub: hub.name.clone(),
    }
}

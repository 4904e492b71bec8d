//! Which moves may begin now, and which should be given up.

use std::collections::BTreeMap;

use processhub_crds::vocabulary::{MoveReason, ProcessReason};
use processhub_crds::{MigrationStrategy, MigrationTrigger};
use processhub_protocol::handover::{Handover, Waiting};
use processhub_protocol::ledger::{AbortReason, Kind};

use super::backoff;
use super::debounce::Steadiness;
use super::farewell::{farewell, paused};
use super::homes::{Authority, Home, Homes, as_milliseconds};
use super::inputs::{Hub, Inputs, Process, Transfer};
use super::limits::{Blocked, Limits, Travel};
use super::membership::Fitness;
use super::rollout::{Rollout, is_outdated};
use crate::assignments::{Assignment, Go, Held, Moving, MovingPhase, OwnerState, ProcessFacts};

/// Why a move is wanted, most pressing first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// The owner is dead: it is not served. No limit holds it up.
    Recover,
    /// The owner's worker crashes again and again, and its kubelet waits before it starts it. No limit holds it up.
    Crashed,
    /// There is no owner yet. No limit holds it up.
    Start,
    /// The owner's pod is killed at a deadline, with all that it has not handed over. No limit holds it up.
    Leaving,
    /// A person wishes it.
    Wish,
    /// The object names another node.
    Pin,
    /// The object names this hub, and its owner is another hub's.
    Transfer,
    /// The distribution wants it elsewhere.
    Rebalance,
    /// Its hub has other code, and this is its turn.
    Upgrade(u32),
}

impl Rank {
    /// Whether it goes on while the hub is paused, not accepted, or short of members, and whatever the limits say.
    #[must_use]
    pub fn presses(self) -> bool {
        match self {
            Self::Recover | Self::Crashed | Self::Start | Self::Leaving => true,
            Self::Wish | Self::Pin | Self::Transfer | Self::Rebalance | Self::Upgrade(_) => false,
        }
    }

    /// Whether it takes a place that moves without a deadline then have to do without.
    fn takes_place(self) -> bool {
        match self {
            Self::Recover | Self::Crashed | Self::Start => false,
            Self::Leaving | Self::Wish | Self::Pin | Self::Transfer | Self::Rebalance | Self::Upgrade(_) => {
                true
            }
        }
    }
}

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

/// A move that could begin if the limits allow.
struct Candidate<'a> {
    rank: Rank,
    name: &'a str,
    go: Go,
    travel: Travel<'a>,
    /// It was permitted and did not begin, for reasons of its own: it takes no place from others.
    stuck: bool,
}

/// What the steps before found.
pub struct Found<'a> {
    /// Which nodes are fit.
    pub fitness: &'a BTreeMap<String, Fitness>,
    /// Whether the members may be acted upon.
    pub steadiness: &'a Steadiness,
    /// Where the processes belong.
    pub homes: &'a Homes<'a>,
}

/// Decides.
#[must_use]
pub fn moves(inputs: &Inputs, found: &Found<'_>, rollout: &Rollout<'_>) -> Moves {
    let Found { fitness, steadiness, homes } = found;
    let mut result = Moves::default();
    let mut candidates = Vec::new();
    let mut limits = Limits::new(inputs.hub.max_concurrent, inputs.hub.max_concurrent_per_node);
    for ((name, process), home) in inputs.processes.iter().zip(&homes.of) {
        let Some(facts) = &process.facts else { continue };
        if let Some(moving) = process.moving() {
            limits.count(moving);
        }
        if inputs.hub.deleting {
            continue;
        }
        let step = Step { inputs, fitness, steadiness, rollout, process, facts, name, home };
        let mut assignment = match (process.moving(), &facts.moving) {
            (Some(moving), _) => step.under_way(moving, &mut candidates, &mut result),
            // What the hub that it comes from makes of it is not this one's to judge.
            (None, Some(_)) => Assignment::default(),
            (None, None) => step.at_rest(&mut candidates, &mut result),
        };
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

fn permit<'a>(
    candidates: Vec<Candidate<'a>>,
    limits: &mut Limits<'a>,
    mut upgrades: u32,
    result: &mut Moves,
) {
    for Candidate { rank, name, go, travel, stuck } in candidates {
        let upgrade = matches!(rank, Rank::Upgrade(_)) && !stuck;
        if upgrade && upgrades == 0 {
            result.assignments.entry(name.to_owned()).or_default().held = Some(in_its_turn());
            continue;
        }
        let blocked = if stuck || !rank.takes_place() {
            None
        } else if rank.presses() {
            // What waits here until its pod is killed is lost.
            limits.occupy(travel);
            None
        } else {
            limits.take(travel).err()
        };
        upgrades -= u32::from(upgrade && blocked.is_none());
        let assignment = result.assignments.entry(name.to_owned()).or_default();
        match blocked {
            None => {
                assignment.go = Some(go);
                result.permitted.push(name.to_owned());
            }
            Some(blocked) => {
                assignment.held = Some(deferred(&blocked));
                result.limited.push(name.to_owned());
            }
        }
    }
}

fn deferred(blocked: &Blocked) -> Held {
    let message = match blocked {
        Blocked::Hub { limit } => format!(
            "waits until other moves have ended: {limit} move at once (spec.migration.maxConcurrent of the hub)"
        ),
        Blocked::Node { node, limit } => format!(
            "waits until other moves have ended: {limit} leave or enter {node} at once \
             (spec.migration.maxConcurrentPerNode of the hub)"
        ),
    };
    Held { reason: ProcessReason::Deferred, message }
}

fn in_its_turn() -> Held {
    Held {
        reason: ProcessReason::Deferred,
        message: "waits for its turn to get the new code (spec.upgrade.maxConcurrent of the hub)".to_owned(),
    }
}

fn limit_exceeded() -> Held {
    Held {
        reason: ProcessReason::RestartLimitExceeded,
        message: "the worker crashes again and again: as many new pods as spec.worker.restarts of the hub allows have been \
                  started, and from now on its kubelet starts it, which waits up to five minutes each time. What was kept \
                  of its state is on disk. kubectl logs --previous of its worker says why it crashes. Give the hub a \
                  template that mends it, move the process (annotation processhub.io/move-to), or raise \
                  spec.worker.restarts.max"
            .to_owned(),
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

/// One process.
struct Step<'a> {
    inputs: &'a Inputs,
    fitness: &'a BTreeMap<String, Fitness>,
    steadiness: &'a Steadiness,
    rollout: &'a Rollout<'a>,
    process: &'a Process,
    facts: &'a ProcessFacts,
    name: &'a str,
    home: &'a Home<'a>,
}

impl<'a> Step<'a> {
    /// A move goes on unless its target is no longer where the process belongs. What is frozen or committed goes on in
    /// any case: the machine of the hand-over knows, and here it is only not asked.
    fn under_way(
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

    fn at_rest(&self, candidates: &mut Vec<Candidate<'a>>, result: &mut Moves) -> Assignment {
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

    /// Another process could not be given the new code.
    fn stopped(&self) -> Option<Held> {
        let first = self.rollout.report.failed.first().filter(|failed| *failed != self.name)?;
        Some(Held {
            reason: ProcessReason::UpgradePending,
            message: format!(
                "the roll-out has stopped: {first} could not be given the new code; its condition Upgraded says why"
            ),
        })
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

    /// What holds up every move of this rank.
    fn suspended(&self, rank: Rank) -> Option<Held> {
        let hub = &self.inputs.hub;
        if !hub.accepted && (!rank.presses() || rank == Rank::Start) {
            return Some(Held {
                reason: ProcessReason::HubNotAccepted,
                message: format!("hub {} is not accepted; its condition Accepted says why", hub.name),
            });
        }
        if rank.presses() {
            return None;
        }
        if let Some(held) = paused(hub, self.facts) {
            return Some(held);
        }
        if rank != Rank::Rebalance {
            return None;
        }
        let message = match self.steadiness {
            Steadiness::Steady => return None,
            Steadiness::Debouncing { .. } => "waits until joins and leaves of nodes have settled".to_owned(),
            Steadiness::TooManyLost { have, had, .. } => {
                format!("{have} of {had} members are left; rebalancing waits until two thirds are back")
            }
        };
        Some(Held { reason: ProcessReason::Deferred, message })
    }

    /// A worker that crashes again and again is started again more and more slowly.
    fn pauses(&self, rank: Rank, result: &mut Moves) -> Option<Held> {
        let OwnerState::Crashed { again: Some(from) } = self.facts.owner else { return None };
        let from = as_milliseconds(from);
        if rank != Rank::Crashed || from <= as_milliseconds(self.inputs.now) {
            return None;
        }
        result.wake = Some(result.wake.map_or(from, |wake| wake.min(from)));
        Some(Held {
            reason: ProcessReason::Restarting,
            message: format!(
                "the worker crashes again and again; it is started in a new pod at {}. kubectl logs --previous of its \
                 worker says why",
                at(from),
            ),
        })
    }

    /// Whether it is given other code now.
    fn gets_code(&self) -> bool {
        let turn = self.rollout.turn(self.name).filter(|turn| *turn < self.rollout.slots);
        turn.is_some_and(|turn| self.suspended(Rank::Upgrade(turn)).is_none()) && self.stopped().is_none()
    }

    fn backs_off(&self, rank: Rank, node: &str, result: &mut Moves) -> Option<Held> {
        let failed = self.facts.failed.as_ref()?;
        let new = match rank {
            // A wish is one attempt: one that stands after a failure was made anew.
            Rank::Wish => true,
            Rank::Pin => failed.to != node,
            Rank::Recover
            | Rank::Crashed
            | Rank::Start
            | Rank::Leaving
            | Rank::Transfer
            | Rank::Rebalance
            | Rank::Upgrade(_) => false,
        };
        // A worker that crashes in its new pod as well is in no hurry to get another one.
        let until = backoff::until(failed, rank.presses() && rank != Rank::Crashed);
        let now = as_milliseconds(self.inputs.now);
        if new || until <= now {
            return None;
        }
        result.wake = Some(result.wake.map_or(until, |wake| wake.min(until)));
        let reason = failed.reason.map_or("unknown", MoveReason::as_str);
        let message = format!(
            "the move to {} did not succeed: {reason} (try {}); it is tried again at {}",
            failed.to,
            failed.times,
            at(until),
        );
        Some(Held { reason: ProcessReason::MoveAborted, message })
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
pub(super) fn is_stuck(hub: &Hub, facts: &ProcessFacts) -> bool {
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
            | Waiting::Retention
            | Waiting::Thawing => false,
        }
}

/// A time for people, to the second.
fn at(milliseconds: u64) -> String {
    let seconds = i64::try_from(milliseconds / 1000).unwrap_or(i64::MAX);
    k8s_openapi::jiff::Timestamp::from_second(seconds)
        .map_or_else(|_| "never".to_owned(), |at| at.to_string())
}

#[cfg(test)]
#[path = "moves_tests.rs"]
mod tests;

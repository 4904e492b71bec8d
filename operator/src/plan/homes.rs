//! Where each process belongs.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use k8s_openapi::jiff::Timestamp;
use processhub_crds::vocabulary::ProcessReason;
use processhub_crds::{DistributionStrategy, MigrationTrigger};

use super::backoff;
use super::inputs::{Hub, Inputs, Node, Process};
use super::membership::Fitness;
use super::placement::{Free, Slot, place};
use crate::assignments::{Held, MovingPhase, OwnerState};

/// For how long the node of an owner that is being fenced is avoided, in milliseconds: Kubernetes itself takes that long to
/// say that it does not answer.
const FENCED: u64 = 60_000;

/// Where a process belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Home<'a> {
    /// On this node, which may be a target.
    At {
        /// The node.
        node: &'a str,
        /// Who says so.
        by: Authority,
    },
    /// Where it is: its node takes nothing new and keeps what it has.
    Stays,
    /// Nowhere at present.
    Pending(Held),
    /// It needs none any more: it is being deleted, or is to be.
    Doomed,
}

/// Who decided on a home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authority {
    /// The annotation `processhub.io/move-to`.
    Wish,
    /// `spec.nodeName`.
    Pin,
    /// The distribution.
    Distribution,
}

/// The homes of all processes.
#[derive(Clone, Debug, Default)]
pub struct Homes<'a> {
    /// One for each process, in their order.
    pub of: Vec<Home<'a>>,
    /// Wishes that cannot be followed, and why.
    pub refused: BTreeMap<&'a str, Held>,
    /// When the first process may go again where it failed, in milliseconds.
    pub wake: Option<u64>,
}

/// Finds them all. `targets` are fit nodes; processes in `doomed` are to be deleted.
#[must_use]
pub fn homes<'a>(
    inputs: &'a Inputs,
    fitness: &'a BTreeMap<String, Fitness>,
    targets: &'a BTreeSet<String>,
    doomed: &[String],
) -> Homes<'a> {
    let doomed: BTreeSet<&String> = doomed.iter().collect();
    let names: Vec<&str> = targets.iter().map(String::as_str).collect();
    // For look-ups only: the order of a hash map decides nothing here.
    let index: HashMap<&str, usize> = names.iter().enumerate().map(|(i, name)| (*name, i)).collect();
    let mut settled = vec![(0_u32, 0_u32); names.len()];
    let mut held: BTreeMap<&str, u32> = BTreeMap::new();
    let mut result = Homes { of: Vec::with_capacity(inputs.processes.len()), ..Homes::default() };
    let (mut free, mut positions) = (Vec::new(), Vec::new());
    for (name, process) in &inputs.processes {
        if process.deleting || doomed.contains(name) {
            result.of.push(Home::Doomed);
            continue;
        }
        let seen = Seen { inputs, fitness, index: &index, name, process };
        let home = match seen.settle(&inputs.hub, name, &mut result.refused) {
            Settled::Home(home) => {
                match &home {
                    Home::At { node, by } => {
                        if let Some(slot) = index.get(node) {
                            let (fixed, wished) = &mut settled[*slot];
                            *(if *by == Authority::Wish { wished } else { fixed }) += 1;
                        }
                    }
                    Home::Stays => {
                        if let Some(node) = process.owner_node() {
                            *held.entry(node).or_default() += 1;
                        }
                    }
                    Home::Pending(_) | Home::Doomed => {}
                }
                home
            }
            Settled::Free { at, origin, avoid, until } => {
                result.wake = result.wake.into_iter().chain(until).min();
                positions.push(result.of.len());
                free.push(Free { name, at, origin, avoid });
                // Until it is placed with the others, below.
                Home::Stays
            }
        };
        result.of.push(home);
    }
    let slots: Vec<Slot<'_>> = names
        .iter()
        .zip(settled)
        .map(|(name, (fixed, wished))| Slot { name, fixed, wished, room: room(inputs.nodes.get(*name)) })
        .collect();
    let held: Vec<u32> = held.into_values().collect();
    for (position, slot) in positions.into_iter().zip(place(&slots, &held, &free)) {
        result.of[position] = match slot {
            Some(slot) => Home::At { node: names[slot], by: Authority::Distribution },
            None => Home::Pending(nowhere(names.is_empty())),
        };
    }
    result
}

fn room(node: Option<&Node>) -> u32 {
    node.and_then(|node| node.pods).unwrap_or(u32::MAX)
}

fn nowhere(no_members: bool) -> Held {
    if no_members {
        Held {
            reason: ProcessReason::NoTargetNodes,
            message:
                "the hub has no node to place it on; add a node, uncordon one, or widen spec.members or the \
                      tolerations of the hub's template"
                    .to_owned(),
        }
    } else {
        Held {
            reason: ProcessReason::NoRoom,
            message: "every member holds as many pods as it can; add a node".to_owned(),
        }
    }
}

/// A process among what it depends on.
struct Seen<'a, 'i> {
    inputs: &'a Inputs,
    fitness: &'a BTreeMap<String, Fitness>,
    index: &'i HashMap<&'a str, usize>,
    name: &'a str,
    process: &'a Process,
}

/// What can be said without looking at the other processes.
enum Settled<'a> {
    Home(Home<'a>),
    Free { at: Option<usize>, origin: Option<usize>, avoid: Option<usize>, until: Option<u64> },
}

impl<'a> Seen<'a, '_> {
    fn settle(&self, hub: &Hub, name: &'a str, refused: &mut BTreeMap<&'a str, Held>) -> Settled<'a> {
        if self.process.leaves()
            && !self.must_leave()
            && let Some(home) = self.here()
        {
            return Settled::Home(home);
        }
        let facts = self.process.facts.as_ref();
        let pin = self.process.child.pin.as_deref();
        if let Some(wish) = facts.and_then(|facts| facts.wish.as_deref()) {
            match self.wish(wish, pin) {
                Ok(home) => return Settled::Home(home),
                Err(held) => drop(refused.insert(name, held)),
            }
        }
        if let Some(pin) = pin {
            return Settled::Home(match self.usable(pin) {
                Ok(()) => Home::At { node: pin, by: Authority::Pin },
                Err(held) if self.is_at(pin) && !self.must_leave() => {
                    // It is there already, and the node keeps what it has.
                    if self.keeps(pin) { Home::Stays } else { Home::Pending(held) }
                }
                Err(held) => Home::Pending(held),
            });
        }
        self.unpinned(hub)
    }

    /// Where it is. Whoever is to leave for another hub is moved within this one only if it has to be.
    fn here(&self) -> Option<Home<'a>> {
        let node = self.process.owner_node()?;
        let fit = self.index.contains_key(node);
        Some(if fit { Home::At { node, by: Authority::Distribution } } else { Home::Stays })
    }

    fn unpinned(&self, hub: &Hub) -> Settled<'a> {
        let owner = self.process.owner_node();
        let slot = |node: Option<&str>| node.and_then(|node| self.index.get(node).copied());
        let staying = owner.is_some_and(|node| self.keeps(node)) && !self.must_leave();
        let under_way = self.process.moving().filter(|moving| moving.phase != MovingPhase::Aborted);
        let target = slot(under_way.map(|moving| moving.to.as_str()));
        if staying && target.is_none() {
            return Settled::Home(Home::Stays);
        }
        // It has to have another incarnation, and one is on its way to where it may be: nothing is better than that.
        if self.must_leave()
            && let Some(moving) = under_way
            && target.is_some()
        {
            return Settled::Home(Home::At { node: &moving.to, by: Authority::Distribution });
        }
        // Being sent there by a person, with the wish taken back too late or not seen any more.
        if let Some(moving) = under_way
            && moving.trigger == MigrationTrigger::Wish
            && moving.phase != MovingPhase::Prepared
            && target.is_some()
        {
            return Settled::Home(Home::At { node: &moving.to, by: Authority::Wish });
        }
        // Sent there by a person, and nothing has changed since but perhaps its code or its pod, where it is.
        if self.process.facts.as_ref().is_some_and(|facts| facts.settled_by_wish)
            && under_way.is_none_or(|moving| {
                matches!(moving.trigger, MigrationTrigger::Upgrade | MigrationTrigger::Crash)
            })
            && !self.must_leave()
            && let Some(node) = owner
            && slot(owner).is_some()
        {
            return Settled::Home(Home::At { node, by: Authority::Wish });
        }
        match hub.distribution {
            DistributionStrategy::Guided => Settled::Home(self.guided(owner, target.is_some())),
            DistributionStrategy::ConsistentHashing => {
                let sent = if under_way.is_none() { slot(self.sent()) } else { None };
                let back =
                    sent.is_some() || under_way.is_some_and(|moving| moving.phase == MovingPhase::Prepared);
                let origin = if back && !self.must_leave() { slot(owner) } else { None };
                let at = target.or(sent).or_else(|| if self.is_dead() { None } else { slot(owner) });
                let refused_by = self.refused_by();
                let avoid = slot(refused_by.map(|(node, _)| node));
                // Where it has to begin anew anyway, it does not begin where it has just failed.
                let at = if self.must_leave() && target.is_none() {
                    at.filter(|at| avoid != Some(*at))
                } else {
                    at
                };
                Settled::Free { at, origin, avoid, until: avoid.and(refused_by).map(|(_, until)| until) }
            }
        }
    }

    /// Where it was let go, as far as it is known not to have begun.
    fn sent(&self) -> Option<&'a str> {
        let facts = self.process.facts.as_ref()?;
        let sent = self.inputs.memory.sent.get(self.name)?;
        (sent.epoch == facts.epoch && facts.moving.is_none()).then_some(sent.node.as_str())
    }

    /// `Guided` without a pin: it stays where it is, and is not started for want of a word where.
    fn guided(&self, owner: Option<&'a str>, moving_to_member: bool) -> Home<'a> {
        let moving = self.process.facts.as_ref().and_then(|facts| facts.moving.as_ref());
        let node = if moving_to_member { moving.map(|moving| moving.to.as_str()) } else { owner };
        match node {
            Some(node) if self.index.contains_key(node) => Home::At { node, by: Authority::Distribution },
            _ => Home::Pending(Held {
                reason: ProcessReason::NoTargetNodes,
                message: "the hub's distribution is Guided and names no usable node for this process; set \
                          spec.nodeName"
                    .to_owned(),
            }),
        }
    }

    fn wish(&self, node: &'a str, pin: Option<&str>) -> Result<Home<'a>, Held> {
        if let Some(pin) = pin.filter(|pin| *pin != node) {
            return Err(Held {
                reason: ProcessReason::NotAMember,
                message: format!("the process is pinned to {pin}; change spec.nodeName instead"),
            });
        }
        self.usable(node)?;
        Ok(Home::At { node, by: Authority::Wish })
    }

    /// Whether a node that was named may be a target.
    fn usable(&self, node: &str) -> Result<(), Held> {
        let (reason, message) = match self.fitness.get(node) {
            Some(Fitness::Fit) => return Ok(()),
            None => (ProcessReason::NotAMember, format!("there is no node {node}; name another one")),
            Some(Fitness::NotSelected(label)) => (
                ProcessReason::NotAMember,
                format!(
                    "node {node} is not a member: its label {label} is not as the hub selects; label it or name \
                         another node"
                ),
            ),
            Some(unfit @ Fitness::NotMatched(_)) => (
                ProcessReason::NotAMember,
                format!("node {node} is not a member: {unfit}; name another node"),
            ),
            Some(unfit @ (Fitness::Cordoned | Fitness::Deleting)) => {
                (ProcessReason::Draining, format!("node {node} is {unfit}; uncordon it or name another node"))
            }
            Some(unfit @ (Fitness::Tainted(_) | Fitness::NotReady | Fitness::NoPods)) => {
                (ProcessReason::NoTargetNodes, format!("node {node}: {unfit}; mend it or name another node"))
            }
        };
        Err(Held { reason, message })
    }

    fn is_at(&self, node: &str) -> bool {
        self.process.owner_node() == Some(node)
    }

    /// Whether a process that is there stays: the node takes nothing new, or is not believed yet.
    fn keeps(&self, node: &str) -> bool {
        !self.index.contains_key(node)
            && self.fitness.get(node).is_some_and(|fitness| fitness.is_fit() || fitness.keeps())
    }

    fn owner(&self) -> OwnerState {
        self.process.facts.as_ref().map_or(OwnerState::NotServing, |facts| facts.owner)
    }

    fn is_dead(&self) -> bool {
        self.owner() == OwnerState::Dead
    }

    /// Whether its incarnation ends, or is of another hub, so that it needs another one in any case.
    fn must_leave(&self) -> bool {
        if self.process.arrives() {
            return true;
        }
        match self.owner() {
            OwnerState::Leaving { .. }
            | OwnerState::Crashed { again: Some(_) }
            | OwnerState::Dead
            | OwnerState::None => true,
            OwnerState::Serving
            | OwnerState::NotServing
            | OwnerState::Crashed { again: None }
            | OwnerState::Unreachable => false,
        }
    }

    /// The node that its last move failed at, while it is to be avoided, and until when.
    fn refused_by(&self) -> Option<(&str, u64)> {
        let facts = self.process.facts.as_ref()?;
        let now = as_milliseconds(self.inputs.now);
        if let Some(node) = facts.node.as_deref().filter(|_| facts.fenced) {
            return Some((node, now + FENCED));
        }
        let failed = facts.failed.as_ref()?;
        let pressing = self.must_leave() && !self.process.arrives();
        let until = backoff::avoided_until(failed, pressing);
        (until > now).then_some((failed.to.as_str(), until))
    }
}

/// Milliseconds since 1970; 0 for what lies before.
#[must_use]
pub fn as_milliseconds(at: Timestamp) -> u64 {
    u64::try_from(at.as_millisecond()).unwrap_or(0)
}

//! What each step of a plan did, and what it waits for: the material of conditions, logs and golden files.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use super::children::Children;
use super::debounce::{Members, Steadiness};
use super::homes::{Home, Homes};
use super::inputs::{Inputs, Process};
use super::membership::Fitness;
use super::moves::Moves;
use super::quorum::Quorum;
use super::rollout::RolloutReport;

/// Beside a [`Plan`](super::Plan): what was done and why the rest was not.
#[derive(Clone, Debug)]
pub struct Report {
    /// Who may be a target.
    pub membership: MembershipReport,
    /// Which objects there should be.
    pub children: Children,
    /// Where processes belong.
    pub placement: PlacementReport,
    /// What moves and what waits.
    pub moves: MovesReport,
    /// How far the processes are with the code of their hub.
    pub rollout: RolloutReport,
    /// Whether members that are lost may be taken over from; of hubs with `failover: OnLease`.
    pub quorum: Quorum,
}

/// Who may be a target.
#[derive(Clone, Debug)]
pub struct MembershipReport {
    /// Nodes that may be targets now.
    pub targets: BTreeSet<String>,
    /// Every other node, and why it may not.
    pub others: BTreeMap<String, Fitness>,
    /// Nodes that are fit and are not targets yet: they joined just now, or were lost too often of late.
    pub waiting: BTreeSet<String>,
    /// Whether the members may be acted upon.
    pub steadiness: Steadiness,
}

/// Where processes belong.
#[derive(Clone, Debug, Default)]
pub struct PlacementReport {
    /// How many processes belong on each target.
    pub load: BTreeMap<String, u32>,
    /// How many stay on a node that takes nothing new.
    pub staying: u32,
    /// Processes without a home.
    pub pending: Vec<String>,
    /// Wishes that cannot be followed, and why.
    pub refused: BTreeMap<String, String>,
}

/// What moves and what waits.
#[derive(Clone, Debug, Default)]
pub struct MovesReport {
    /// Moves under way.
    pub under_way: u32,
    /// Moves that may begin now.
    pub permitted: Vec<String>,
    /// Moves under way that are to be given up.
    pub withdrawn: Vec<String>,
    /// Moves that wait for the limits of the hub.
    pub limited: Vec<String>,
    /// Moves that wait because the hub is paused, not accepted, debouncing, or short of members.
    pub suspended: Vec<String>,
    /// Moves that failed and wait for the next try.
    pub backing_off: Vec<String>,
    /// How many processes are not where the distribution, a pin or a wish wants them, or have to leave.
    pub misplaced: u32,
}

impl Report {
    /// Whether every process is where it belongs and nothing is under way.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.moves.misplaced == 0
            && self.moves.under_way == 0
            && self.rollout.outdated == 0
            && self.placement.pending.is_empty()
            && self.children.create.is_empty()
            && self.children.delete.is_empty()
    }
}

pub(super) fn report(
    inputs: &Inputs,
    fitness: &BTreeMap<String, Fitness>,
    members: &Members,
    children: &Children,
    homes: &Homes<'_>,
    moves: &Moves,
) -> Report {
    let Members { targets, steadiness, wake: _ } = members;
    let waiting = fitness
        .iter()
        .filter(|(name, it)| it.is_fit() && !targets.contains(*name))
        .map(|(name, _)| name.clone());
    let waiting = waiting.collect();
    let others = fitness.iter().filter(|(_, it)| !it.is_fit());
    let others = others.map(|(name, it)| (name.clone(), it.clone())).collect();

    let mut placement = PlacementReport {
        load: targets.iter().map(|name| (name.clone(), 0)).collect(),
        pending: moves.pending.clone(),
        refused: homes
            .refused
            .iter()
            .map(|(name, held)| ((*name).to_owned(), held.message.clone()))
            .collect(),
        staying: 0,
    };
    let mut load: HashMap<&str, u32> = HashMap::new();
    for home in &homes.of {
        match home {
            Home::At { node, by: _ } => *load.entry(node).or_default() += 1,
            Home::Stays => placement.staying += 1,
            Home::Pending(_) | Home::Doomed => {}
        }
    }
    placement.load.extend(load.into_iter().map(|(node, load)| (node.to_owned(), load)));

    let under_way = inputs.processes.values().filter_map(Process::moving);
    let moves = MovesReport {
        under_way: count(under_way),
        misplaced: moves.misplaced,
        permitted: moves.permitted.clone(),
        withdrawn: moves.withdrawn.clone(),
        limited: moves.limited.clone(),
        suspended: moves.suspended.clone(),
        backing_off: moves.backing_off.clone(),
    };
    Report {
        membership: MembershipReport {
            targets: targets.clone(),
            others,
            waiting,
            steadiness: steadiness.clone(),
        },
        children: children.clone(),
        placement,
        moves,
        rollout: RolloutReport::default(),
        quorum: Quorum::default(),
    }
}

fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { membership, children, placement, moves, rollout, quorum: _ } = self;
        write!(f, "{membership}{}{placement}{moves}{rollout}", Changes(children))
    }
}

impl fmt::Display for MembershipReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "members: {}", list(&self.targets))?;
        for (name, fitness) in &self.others {
            writeln!(f, "  not {name}: {fitness}")?;
        }
        for name in &self.waiting {
            writeln!(f, "  not yet {name}")?;
        }
        match self.steadiness {
            Steadiness::Steady => Ok(()),
            Steadiness::Debouncing { until } => writeln!(f, "  joins and leaves are collected until {until}"),
            Steadiness::TooManyLost { have, had, until } => {
                writeln!(
                    f,
                    "  {have} of {had} left: no rebalancing until two thirds are back, or until {until}"
                )
            }
        }
    }
}

struct Changes<'a>(&'a Children);

impl fmt::Display for Changes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Children { create, update, delete, taken, replicas, desired } = self.0;
        writeln!(f, "processes: {desired} wanted, {replicas} replicas there")?;
        line(f, "create", create.keys())?;
        line(f, "update", update.keys())?;
        line(f, "delete", delete)?;
        for (name, hub) in taken {
            writeln!(f, "  already_started: {name} by hub {hub}")?;
        }
        Ok(())
    }
}

impl fmt::Display for PlacementReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let load: Vec<String> = self.load.iter().map(|(node, load)| format!("{node}={load}")).collect();
        writeln!(f, "placement: {}", list(&load))?;
        if self.staying > 0 {
            writeln!(f, "  {} stay where nothing new may come", self.staying)?;
        }
        line(f, "pending", &self.pending)?;
        for (name, why) in &self.refused {
            writeln!(f, "  wish of {name} refused: {why}")?;
        }
        Ok(())
    }
}

impl fmt::Display for MovesReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "moves: {} under way, {} wanted", self.under_way, self.misplaced)?;
        line(f, "may begin", &self.permitted)?;
        line(f, "withdrawn", &self.withdrawn)?;
        line(f, "wait for limits", &self.limited)?;
        line(f, "suspended", &self.suspended)?;
        line(f, "back off", &self.backing_off)
    }
}

impl fmt::Display for RolloutReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { current: _, outdated, kept, changing, failed, runs } = self;
        if outdated + kept + changing == 0 {
            return Ok(());
        }
        let runs: Vec<String> = runs.iter().map(|(code, count)| format!("{code}={count}")).collect();
        writeln!(f, "code: {}; {changing} under way, {outdated} to change, {kept} kept", list(&runs))?;
        line(f, "stopped by", failed)
    }
}

fn line<'a>(
    f: &mut fmt::Formatter<'_>,
    what: &str,
    names: impl IntoIterator<Item = &'a String>,
) -> fmt::Result {
    let names: Vec<&String> = names.into_iter().collect();
    if names.is_empty() { Ok(()) } else { writeln!(f, "  {what}: {}", list(names)) }
}

/// The first few of many, so that a log line stays one.
fn list<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    const SHOWN: usize = 16;
    let names: Vec<&str> = names.into_iter().map(String::as_str).collect();
    match names.len() {
        0 => "none".to_owned(),
        many if many > SHOWN => format!("{} and {} more", names[..SHOWN].join(" "), many - SHOWN),
        _ => names.join(" "),
    }
}

//! Which processes change their code, in which order, and whether any may begin.

use std::collections::{BTreeMap, BTreeSet};

use processhub_crds::MigrationTrigger;

use super::children::ordinal;
use super::inputs::{Inputs, Process};
use crate::assignments::{MovingPhase, ProcessFacts};

/// What a hub says of its code.
#[derive(Clone, Debug, Default)]
pub struct Upgrade {
    /// Name of the code that its processes are to run; empty while it is not known or cannot be used: none changes then.
    pub present: String,
    /// The codes that are known, oldest first.
    pub codes: Vec<Code>,
    /// Whether the old worker has to end first.
    pub cold: bool,
    /// How many processes change their code at once.
    pub max_concurrent: u32,
    /// How many keep the code that they run.
    pub partition: u32,
}

/// A code that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Code {
    /// Its name.
    pub name: String,
    /// For people: its version, or its name.
    pub label: String,
    /// Whether a pod could be made from it.
    pub usable: bool,
}

impl Upgrade {
    /// Name of the code that the owner runs. One that was started before codes had names runs the first that was named.
    #[must_use]
    pub fn runs<'a>(&'a self, facts: &'a ProcessFacts) -> &'a str {
        if facts.code.revision.is_empty() {
            self.codes.first().map_or("", |code| &code.name)
        } else {
            &facts.code.revision
        }
    }

    /// The code for a new incarnation that is not for the sake of the code: that which the process runs.
    #[must_use]
    pub fn keeps<'a>(&'a self, facts: &'a ProcessFacts) -> &'a str {
        let runs = self.runs(facts);
        let usable = self.codes.iter().any(|code| code.name == runs && code.usable);
        if facts.node.is_some() && usable { runs } else { &self.present }
    }

    /// For people: version or name of a code.
    #[must_use]
    pub fn label<'a>(&'a self, name: &'a str) -> &'a str {
        self.codes.iter().find(|code| code.name == name).map_or(name, |code| &code.label)
    }
}

/// What there is to do.
#[derive(Clone, Debug, Default)]
pub struct Rollout<'a> {
    /// The turn of each process that is to change its code, from 0.
    turns: BTreeMap<&'a str, u32>,
    /// How many may begin now.
    pub slots: u32,
    /// What it says of itself.
    pub report: RolloutReport,
}

/// How far the processes are with the code of their hub.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RolloutReport {
    /// How many owners run the present code.
    pub current: u32,
    /// How many are to get it; with those that are under way.
    pub outdated: u32,
    /// How many keep another one because of `partition`.
    pub kept: u32,
    /// How many are under way to it.
    pub changing: u32,
    /// Those that could not be given it. While there are any none begins.
    pub failed: Vec<String>,
    /// How many owners run each code, by what people call it.
    pub runs: BTreeMap<String, u32>,
}

impl Rollout<'_> {
    /// The turn of a process that is to change its code.
    pub fn turn(&self, name: &str) -> Option<u32> {
        self.turns.get(name).copied()
    }
}

/// Looks at the codes of all processes. Those in `doomed` are to be deleted.
#[must_use]
pub fn rollout<'a>(inputs: &'a Inputs, doomed: &[String]) -> Rollout<'a> {
    let upgrade = &inputs.hub.upgrade;
    let mut result = Rollout::default();
    if upgrade.present.is_empty() {
        return result;
    }
    let doomed: BTreeSet<&String> = doomed.iter().collect();
    let stay: Vec<(&String, &Process)> = inputs
        .processes
        .iter()
        .filter(|(name, process)| process.transfer.is_none() && !process.deleting && !doomed.contains(name))
        .collect();
    let mut runs: BTreeMap<&str, u32> = BTreeMap::new();
    for facts in stay.iter().filter_map(|(_, process)| owned(process)) {
        *runs.entry(upgrade.runs(facts)).or_default() += 1;
    }
    // Also of those that are to go: until they are gone they take their places.
    result.report.changing = inputs.processes.values().map(|process| u32::from(is_changing(process))).sum();
    result.report.current = runs.get(upgrade.present.as_str()).copied().unwrap_or(0);
    let all_current = runs.keys().all(|code| *code == upgrade.present);
    for (code, count) in runs {
        *result.report.runs.entry(upgrade.label(code).to_owned()).or_default() += count;
    }
    if !all_current {
        take_turns(inputs, stay, &mut result);
    }
    let free = upgrade.max_concurrent.saturating_sub(result.report.changing);
    result.slots = if result.report.failed.is_empty() { free } else { 0 };
    result
}

/// As a StatefulSet counts: replicas by their ordinals, and the others behind them by name. The last one begins.
fn take_turns<'a>(inputs: &'a Inputs, mut stay: Vec<(&'a String, &'a Process)>, result: &mut Rollout<'a>) {
    let upgrade = &inputs.hub.upgrade;
    stay.sort_by_cached_key(|(name, _)| {
        let ordinal = ordinal(&inputs.hub.name, name);
        (ordinal.is_none(), ordinal, *name)
    });
    let kept = usize::try_from(upgrade.partition).unwrap_or(usize::MAX);
    let mut turn = 0;
    for (place, (name, process)) in stay.into_iter().enumerate().rev() {
        let Some(facts) = owned(process).filter(|facts| upgrade.runs(facts) != upgrade.present) else {
            continue;
        };
        if place < kept {
            result.report.kept += 1;
            continue;
        }
        result.report.outdated += 1;
        if facts.code.failed.as_ref().is_some_and(|failed| failed.revision == upgrade.present) {
            result.report.failed.push(name.clone());
        }
        result.turns.insert(name, turn);
        turn += 1;
    }
}

/// What is known of a process that has an owner, so that it runs some code.
fn owned(process: &Process) -> Option<&ProcessFacts> {
    process.facts.as_ref().filter(|facts| facts.node.is_some())
}

/// Whether a move of the process is under way for the sake of its code.
fn is_changing(process: &Process) -> bool {
    process.moving().is_some_and(|moving| moving.trigger == MigrationTrigger::Upgrade)
}

/// Whether a change of code under way is not wanted any more: the hub has yet another code, or keeps this process on the
/// one that it runs.
pub(super) fn is_outdated(inputs: &Inputs, rollout: &Rollout<'_>, name: &str, facts: &ProcessFacts) -> bool {
    let Some(moving) = facts.moving.as_ref() else { return false };
    moving.trigger == MigrationTrigger::Upgrade
        && moving.phase == MovingPhase::Prepared
        && !inputs.hub.upgrade.present.is_empty()
        && (moving.revision != inputs.hub.upgrade.present || rollout.turn(name).is_none())
}

#[cfg(test)]
#[path = "rollout_tests.rs"]
mod tests;

//! Turns plan, report and processes into conditions, in words for the person on call. Pure.

use std::collections::BTreeMap;

use processhub_crds::HubProcess;
use processhub_crds::conditions::{Wanted, get};
use processhub_crds::vocabulary::{HubCondition, HubReason, ProcessCondition, ProcessReason};
use processhub_protocol::handover::Handover;
use processhub_protocol::ledger::Kind;

use super::status::Sources;
use crate::assignments::ProcessFacts;
use crate::plan::{Quorum, RolloutReport, Steadiness};

/// So many names stand in a message.
const NAMED: usize = 3;
/// A process whose move failed so many times in a row needs a person.
const FAILING: u32 = 3;

/// What the processes of a hub are like, together.
#[derive(Debug, Default)]
pub(super) struct Summary {
    /// How many acknowledge requests.
    pub ready: u32,
    /// How many are moving.
    pub moving: u32,
    starting: Vec<String>,
    /// In order.
    homeless: Vec<String>,
    not_ready: Vec<String>,
    unreachable: Vec<String>,
    may_miss: Vec<String>,
    failing: Vec<String>,
    foreign: Vec<String>,
}

impl Summary {
    /// Goes through all processes once.
    pub fn of(sources: &Sources<'_>) -> Self {
        let mut summary = Self::default();
        summary.homeless.clone_from(&sources.report.placement.pending);
        summary.homeless.sort_unstable();
        for (name, object) in &sources.seen.objects {
            let facts = sources.seen.inputs.processes.get(name).and_then(|process| process.facts.as_ref());
            summary.add(name, object, facts);
        }
        summary
    }

    fn add(&mut self, name: &String, object: &HubProcess, facts: Option<&ProcessFacts>) {
        let status = object.status.as_ref();
        let conditions = status.map(|status| status.conditions.as_slice()).unwrap_or_default();
        let ready = get(conditions, ProcessCondition::Ready.as_str());
        let owned = status.is_some_and(|status| status.owner.is_some());
        if ready.is_some_and(|ready| ready.status == "True") {
            self.ready += 1;
        } else if owned {
            self.not_ready.push(name.clone());
        } else if self.homeless.binary_search(name).is_err() {
            self.starting.push(name.clone());
        }
        if ready.is_some_and(|ready| ready.reason == ProcessReason::OwnerUnreachable.as_str()) {
            self.unreachable.push(name.clone());
        }
        if status.is_some_and(|status| status.may_miss.is_some()) {
            self.may_miss.push(name.clone());
        }
        let capable = get(conditions, ProcessCondition::HandoverCapable.as_str());
        if capable.is_some_and(|it| it.reason == ProcessReason::ContractVersion.as_str()) {
            self.foreign.push(name.clone());
        }
        let Some(facts) = facts else { return };
        if facts.moving.as_ref().is_some_and(|moving| moving.kind != Kind::Start) {
            self.moving += 1;
        }
        if let Some(failed) = facts.failed.as_ref().filter(|failed| failed.times >= FAILING) {
            let reason = failed.reason.map_or("unknown", |reason| reason.as_str());
            self.failing.push(format!("{name} ({reason}, {} times)", failed.times));
        }
    }

    /// All conditions of the hub.
    pub fn conditions(&self, sources: &Sources<'_>) -> Vec<Wanted> {
        let accepted = sources.verdict.hub.is_some();
        let always = [
            Wanted::hub(HubCondition::Accepted, accepted, sources.verdict.reason, &sources.verdict.message),
            self.readiness(sources),
            self.progress(sources),
            self.balance(sources),
            self.degradation(sources),
        ];
        always.into_iter().chain(quorum(sources)).collect()
    }

    fn readiness(&self, sources: &Sources<'_>) -> Wanted {
        let desired = sources.report.children.desired;
        let condition =
            |status: bool, reason, message: &str| Wanted::hub(HubCondition::Ready, status, reason, message);
        if self.ready >= desired {
            let message = format!("{} of {desired} processes acknowledge requests", self.ready);
            return condition(true, HubReason::Serving, &message);
        }
        if self.not_ready.is_empty() && sources.report.membership.targets.is_empty() {
            return condition(false, HubReason::NoTargetNodes, &no_members(sources));
        }
        if !self.not_ready.is_empty() {
            let message = format!(
                "{} of {desired} processes acknowledge requests; not {}; kubectl describe hproc says why",
                self.ready,
                some(&self.not_ready)
            );
            return condition(false, HubReason::ProcessesNotReady, &message);
        }
        let taken = &sources.report.children.taken;
        let waiting = if !self.starting.is_empty() {
            format!("not started yet: {}", some(&self.starting))
        } else if !self.homeless.is_empty() {
            format!("no node for {}", some(&self.homeless))
        } else if !taken.is_empty() {
            "other hubs have the names of the rest; Degraded names them".to_owned()
        } else {
            "the others are being created".to_owned()
        };
        let message = format!("{} of {desired} processes acknowledge requests; {waiting}", self.ready);
        condition(false, HubReason::Starting, &message)
    }

    fn progress(&self, sources: &Sources<'_>) -> Wanted {
        let condition = |status: bool, reason, message: &str| {
            Wanted::hub(HubCondition::Progressing, status, reason, message)
        };
        let report = sources.report;
        let hub = &sources.seen.inputs.hub;
        if hub.deleting {
            return condition(
                true,
                HubReason::Deleting,
                "the hub is being deleted and its processes with it",
            );
        }
        let (create, delete) = (report.children.create.len(), report.children.delete.len());
        let going = sources.seen.inputs.processes.values().filter(|process| process.deleting).count();
        if create + delete + going + self.starting.len() > 0 {
            let message =
                format!("{} processes to start, {} to stop", create + self.starting.len(), delete + going);
            return condition(true, HubReason::Scaling, &message);
        }
        if let Some(wanted) = self.roll_out(sources) {
            return wanted;
        }
        if self.moving > 0 || !report.moves.permitted.is_empty() {
            let message = format!(
                "{} processes move, {} more are to follow; Rebalanced says what they wait for",
                self.moving, report.moves.misplaced
            );
            return condition(true, HubReason::Rebalancing, &message);
        }
        if let Steadiness::Debouncing { .. } = report.membership.steadiness {
            return condition(true, HubReason::Debouncing, "joins and leaves of nodes are being collected");
        }
        if hub.paused && report.moves.misplaced > 0 {
            return condition(false, HubReason::Paused, &paused(report.moves.misplaced));
        }
        if report.rollout.kept > 0 {
            let message = format!(
                "{}; spec.upgrade.partition keeps the rest on what they run",
                who_runs_what(&report.rollout.runs)
            );
            return condition(false, HubReason::UpgradePartitioned, &message);
        }
        condition(false, HubReason::Settled, "nothing is left to do")
    }

    /// What is said of processes that get the hub's new code, or could not be given it.
    fn roll_out(&self, sources: &Sources<'_>) -> Option<Wanted> {
        let condition = |status: bool, reason, message: &str| {
            Some(Wanted::hub(HubCondition::Progressing, status, reason, message))
        };
        let RolloutReport { outdated, changing, runs, .. } = &sources.report.rollout;
        if let Some(words) = self.stopped(sources) {
            return condition(false, HubReason::UpgradeFailed, &words);
        }
        if outdated + changing == 0 {
            return None;
        }
        let runs = who_runs_what(runs);
        if sources.seen.inputs.hub.paused && *changing == 0 {
            let message =
                format!("{runs}; the rest waits until the annotation processhub.io/paused is removed");
            return condition(false, HubReason::Paused, &message);
        }
        let message = format!("{runs}; {changing} change their code, {outdated} do not run the new one yet");
        condition(true, HubReason::Upgrading, &message)
    }

    /// Why the roll-out has stopped, if it has.
    fn stopped(&self, sources: &Sources<'_>) -> Option<String> {
        let rollout = &sources.report.rollout;
        let name = rollout.failed.first()?;
        let facts = sources.seen.inputs.processes.get(name).and_then(|process| process.facts.as_ref());
        let why = facts.and_then(|facts| facts.code.failed.as_ref()).map_or("", |failed| &failed.message);
        let desired = sources.report.children.desired;
        let serving =
            if self.ready >= desired { "all serve".to_owned() } else { format!("{} serve", self.ready) };
        let others = match rollout.failed.len() {
            1 => String::new(),
            more => format!(" (and {} more)", more - 1),
        };
        Some(format!(
            "{name} {why}{others}. {}, {serving}; stopped. Change spec.vsn or spec.template, also back, to go on",
            who_runs_what(&rollout.runs)
        ))
    }

    fn balance(&self, sources: &Sources<'_>) -> Wanted {
        let condition = |status: bool, reason, message: &str| {
            Wanted::hub(HubCondition::Rebalanced, status, reason, message)
        };
        let report = sources.report;
        let moves = &report.moves;
        let moving = self.moving.saturating_sub(report.rollout.changing);
        if let Steadiness::TooManyLost { have, had, .. } = report.membership.steadiness {
            let message = format!(
                "{have} of {had} members are left; nothing is rebalanced until two thirds are back, or for five \
                 minutes; what runs goes on"
            );
            return condition(false, HubReason::TooManyMembersLost, &message);
        }
        if report.membership.targets.is_empty() && !report.placement.pending.is_empty() {
            return condition(false, HubReason::NoTargetNodes, &no_members(sources));
        }
        if sources.seen.inputs.hub.paused && moves.misplaced > 0 {
            return condition(false, HubReason::Paused, &paused(moves.misplaced));
        }
        if !moves.limited.is_empty() {
            let message = format!(
                "{} processes move, {} wait for their turn (spec.migration.maxConcurrent, maxConcurrentPerNode)",
                self.moving,
                moves.limited.len()
            );
            return condition(false, HubReason::LimitReached, &message);
        }
        if moves.misplaced > 0 || moving > 0 {
            let backing_off = if moves.backing_off.is_empty() {
                String::new()
            } else {
                format!("; after a failure {} wait for the next try", some(&moves.backing_off))
            };
            let message = format!(
                "{moving} processes move, {} are not where they belong yet{backing_off}",
                moves.misplaced
            );
            return condition(false, HubReason::Rebalancing, &message);
        }
        if !self.homeless.is_empty() {
            let message =
                format!("no node can take {}; kubectl describe hproc says why", some(&self.homeless));
            return condition(false, HubReason::NoTargetNodes, &message);
        }
        condition(true, HubReason::Settled, "every process is where it belongs")
    }

    fn degradation(&self, sources: &Sources<'_>) -> Wanted {
        let condition = |status: bool, reason, message: &str| {
            Wanted::hub(HubCondition::Degraded, status, reason, message)
        };
        let taken = &sources.report.children.taken;
        if !self.may_miss.is_empty() {
            let message = format!(
                "acknowledged requests may be missing from {}; status.mayMiss of the process says from where on",
                some(&self.may_miss)
            );
            return condition(true, HubReason::StateLost, &message);
        }
        if !self.unreachable.is_empty() {
            let message = format!(
                "the owners of {} cannot be reached; they may or may not serve, and are taken over once they are \
                 proven dead",
                some(&self.unreachable)
            );
            return condition(true, HubReason::OwnerUnreachable, &message);
        }
        if !taken.is_empty() {
            let names: Vec<String> = taken.iter().map(|(name, hub)| format!("{name} (hub {hub})")).collect();
            let message =
                format!("already_started: {}; delete it there or choose another name", some(&names));
            return condition(true, HubReason::AlreadyStarted, &message);
        }
        if !self.foreign.is_empty() {
            let message = format!(
                "the workers of {} speak another version of the worker contract; build them with an SDK of this \
                 version, or upgrade ProcessHub",
                some(&self.foreign)
            );
            return condition(true, HubReason::ContractVersion, &message);
        }
        if let Some(words) = self.stopped(sources) {
            return condition(true, HubReason::UpgradeFailed, &words);
        }
        if !self.failing.is_empty() {
            let message = format!(
                "moves fail again and again: {}; kubectl describe hproc says what the target answered",
                some(&self.failing)
            );
            return condition(true, HubReason::MigrationsFailing, &message);
        }
        if sources.seen.inputs.hub.handover == Handover::Never {
            let message = "spec.migration.handover is false: every move drops the state of its process";
            return condition(false, HubReason::HandoverDisabled, message);
        }
        condition(false, HubReason::AsExpected, "nothing needs a person")
    }
}

/// Of a hub whose owners serve by lease; of another one only where it has been said before.
fn quorum(sources: &Sources<'_>) -> Option<Wanted> {
    let condition = |status: bool, reason, message: &str| {
        Wanted::hub(HubCondition::QuorumAvailable, status, reason, message)
    };
    if !sources.seen.inputs.hub.on_lease {
        let conditions = sources.hub.status.as_ref().map(|status| status.conditions.as_slice());
        get(conditions.unwrap_or_default(), HubCondition::QuorumAvailable.as_str())?;
        let message = "spec.failover is OnProof: nothing is taken over without proof of death";
        return Some(condition(true, HubReason::QuorumNotNeeded, message));
    }
    let Quorum { reached, lost, needed, wake: _ } = &sources.report.quorum;
    let message = format!("{reached} members are reached, {needed} are needed");
    if sources.report.quorum.holds() {
        return Some(condition(true, HubReason::QuorumReached, &message));
    }
    let lost: Vec<String> = lost.iter().cloned().collect();
    let message = format!(
        "{message}; not reached: {}. Nothing is taken over until more are, or proven dead; deleting the Node object of a \
         machine that is gone for good says so",
        some(&lost)
    );
    Some(condition(false, HubReason::QuorumLost, &message))
}

/// `2 run 1.9, 10 run 1.8`.
pub(super) fn who_runs_what(runs: &BTreeMap<String, u32>) -> String {
    let runs: Vec<String> = runs.iter().rev().map(|(code, count)| format!("{count} run {code}")).collect();
    runs.join(", ")
}

/// Why there is nowhere to go, with the first few nodes as examples.
fn no_members(sources: &Sources<'_>) -> String {
    let others = &sources.report.membership.others;
    if others.is_empty() {
        return "no_target_nodes: the cluster has no nodes".to_owned();
    }
    let examples: Vec<String> = others.iter().map(|(name, why)| format!("{name} ({why})")).collect();
    format!("no_target_nodes: no node is fit: {}; mend one, or change spec.members", some(&examples))
}

fn paused(misplaced: u32) -> String {
    format!("{misplaced} moves wait until the annotation processhub.io/paused is removed")
}

/// The first few names, and how many more.
fn some(names: &[String]) -> String {
    let shown = names[..names.len().min(NAMED)].join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

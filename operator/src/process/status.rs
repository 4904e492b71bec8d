//! The conditions of a process: what is waited for, whether anything is at risk, what happens next and when, and the
//! command that changes it. Pure.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use processhub_crds::conditions::{self, Wanted};
use processhub_crds::vocabulary::{LossReason, MoveReason, ProcessCondition, ProcessReason, Status};
use processhub_crds::{ActiveMigration, CheckpointStatus, HubProcessStatus, MayMiss, MigrationResult};
use processhub_protocol::contract::CONTRACT_VERSION;
use processhub_protocol::fence::Role;
use processhub_protocol::handover::Waiting;
use processhub_protocol::ledger::{Kind, Phase};
use processhub_protocol::wire;

use kube::ResourceExt;

use super::incarnation::{Gravity, PodFacts, Trouble};
use super::observation::Observation;
use super::{facts, pod};
use crate::assignments::Held;
use crate::revision;

/// How certain the conditions are to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// As the sidecars and pods are seen.
    Observed,
    /// As they will be in a moment if nothing goes wrong; written together with the ledger, so that it costs no write
    /// of its own. Should it not come true, what is observed is written instead.
    Expected,
}

/// Brings the conditions in the observation's status up to date, and says whether that changed any.
pub fn refresh(seen: &mut Observation, waiting: Waiting, outlook: Outlook) -> bool {
    if waiting == Waiting::Leadership {
        return false;
    }
    let crashed = note_crash(seen);
    let generation = seen.object.metadata.generation;
    let wanted: Vec<Wanted> = [
        Some(ready(seen, outlook)),
        Some(progressing(seen, waiting)),
        capable(seen),
        durable(seen),
        upgraded(seen),
    ]
    .into_iter()
    .flatten()
    .collect();
    let current = is_current(seen);
    let now = seen.now;
    let status = seen.object.status.get_or_insert_default();
    let mut changed = crashed || status.observed_generation != generation;
    // What could not be done is no matter any more once it runs what it should.
    changed |= current && status.failed_upgrade.take().is_some();
    // One of before hubs were written down with owners: its object names none other.
    let nameless = status.owner.as_mut().filter(|owner| owner.hub.is_empty());
    if let Some(owner) = nameless {
        owner.hub = seen.hub.name_any();
        changed = true;
    }
    status.observed_generation = generation;
    for wanted in wanted {
        changed |= conditions::set(&mut status.conditions, wanted.observed(generation), now);
    }
    if changed || outlook == Outlook::Expected {
        note_checkpoint(seen);
    }
    changed
}

/// What the owner keeps goes along with what is written anyway: by itself it is no reason to write, it changes all the
/// time. Its sidecar's metrics say it as of now.
fn note_checkpoint(seen: &mut Observation) {
    let Some(report) = seen.owner_report() else { return };
    let Role::Active { kept: Some(kept), .. } = &report.role else { return };
    let age = report.checkpoint.and_then(|checkpoint| checkpoint.age_milliseconds);
    let age = age.and_then(|age| i64::try_from(age).ok());
    let Some(at) = age.and_then(|age| seen.now.checked_sub(SignedDuration::from_millis(age)).ok()) else {
        return;
    };
    let checkpoint = CheckpointStatus { seq: kept.seq, time: conditions::time(at) };
    seen.object.status.get_or_insert_default().checkpoint = Some(checkpoint);
}

/// A worker that crashed took along what it had answered since its newest kept state. Its sidecar knows, and the object
/// has to say so (rule 10). Says whether that is news.
pub(super) fn note_crash(seen: &mut Observation) -> bool {
    let Some(report) = seen.owner_report().filter(|report| report.worker.can_hand_over != Some(false)) else {
        return false;
    };
    let Some(lost) = report.lost else { return false };
    let time = conditions::time(seen.now);
    let missing = MayMiss { from: lost.from, to: None, reason: LossReason::WorkerCrashed, time };
    let known = &mut seen.object.status.get_or_insert_default().may_miss;
    if known.as_ref().is_some_and(|known| (known.from, known.reason) == (missing.from, missing.reason)) {
        return false;
    }
    *known = Some(missing);
    true
}

fn ready(seen: &Observation, outlook: Outlook) -> Wanted {
    let wanted = |status: Status, reason, message: &str| {
        Wanted::process(ProcessCondition::Ready, status, reason, message)
    };
    let Some(owner) = &seen.ledger.owner else {
        return wanted(Status::False, ProcessReason::Starting, "the first incarnation is being started");
    };
    let who = format!("pod {} on {}", owner.pod.name, owner.pod.node);
    if let Some(proof) = seen.dead.get(&owner.pod.uid) {
        let message = format!("{who} is dead: {}; it is started again elsewhere", proof.words());
        return wanted(Status::False, ProcessReason::Recovering, &message);
    }
    let serving = format!("{who} acknowledges");
    // Whoever waits for it to be ready asks for its address next, which is written after the commit.
    match seen.ledger.migration.as_ref().map(|migration| migration.kind) {
        Some(Kind::Start) => {
            let message = format!("{who} is being activated, and its address pointed at it");
            return wanted(Status::False, ProcessReason::Starting, &message);
        }
        Some(Kind::Recover) if outlook == Outlook::Expected => {
            let message = format!("{who} has its state and is being activated");
            return wanted(Status::False, ProcessReason::Recovering, &message);
        }
        Some(Kind::HotSwap | Kind::ColdSwap | Kind::Recover) | None => {}
    }
    if outlook == Outlook::Expected {
        return wanted(Status::True, ProcessReason::Serving, &serving);
    }
    let Some(report) = seen.owner_report() else {
        return wanted(
            Status::Unknown,
            ProcessReason::OwnerUnreachable,
            &unreachable(seen, &who, &owner.pod.uid.0),
        );
    };
    match &report.role {
        Role::Active { .. } if report.serving => wanted(Status::True, ProcessReason::Serving, &serving),
        Role::Active { .. } => {
            let message = format!("{who} answers, its worker does not; requests are held");
            wanted(Status::False, ProcessReason::WorkerNotReady, &message)
        }
        Role::Frozen { .. }
        | Role::Delivered { .. }
        | Role::Standby
        | Role::Forwarding { .. }
        | Role::Retired { .. }
            if seen.ledger.migration.is_some() =>
        {
            wanted(Status::False, ProcessReason::Moving, &format!("{who} is moving; requests are held"))
        }
        Role::Frozen { .. }
        | Role::Delivered { .. }
        | Role::Standby
        | Role::Forwarding { .. }
        | Role::Retired { .. } => {
            let message = format!("{who} has fenced itself and waits for a grant");
            wanted(Status::False, ProcessReason::Fenced, &message)
        }
    }
}

fn unreachable(seen: &Observation, who: &str, uid: &str) -> String {
    let heard = seen.heard.map_or("not heard of by this operator".to_owned(), |at| {
        format!("last heard {}", at.strftime("%H:%M:%SZ"))
    });
    format!(
        "{who} does not answer ({heard}) and may still serve. It is taken over once it is proven dead: its node comes \
         back, or the Node is deleted, or it gets the taint node.kubernetes.io/out-of-service. If you know that it is \
         dead: kubectl annotate hproc {} processhub.io/confirmed-dead={uid}",
        seen.name().name
    )
}

fn progressing(seen: &Observation, waiting: Waiting) -> Wanted {
    let (status, reason, mut message) = progress(seen, waiting);
    if let Some(trouble) = seen.trouble.as_ref().filter(|_| reason != ProcessReason::Settled) {
        message = format!("{message} Last attempt: {trouble}.");
    }
    Wanted::process(ProcessCondition::Progressing, status, reason, message.trim())
}

fn progress(seen: &Observation, waiting: Waiting) -> (bool, ProcessReason, String) {
    use ProcessReason as R;
    if let Some(words) = at_risk(seen) {
        return (true, R::StateAtRisk, words);
    }
    if let Some(stopped) = held(seen).filter(|(_, reason, _)| *reason == R::RestartLimitExceeded) {
        return stopped;
    }
    let status = seen.object.status.as_ref();
    let migration = status.and_then(|status| status.migration.as_ref());
    let headline = migration.map(headline).unwrap_or_default();
    let so = |rest: &str| if headline.is_empty() { rest.to_owned() } else { format!("{headline}: {rest}") };
    match waiting {
        Waiting::Nothing | Waiting::Leadership => settled(seen),
        Waiting::Placement => held(seen).unwrap_or((true, R::Starting, "waits for a node.".to_owned())),
        Waiting::TargetPod | Waiting::TargetSidecar | Waiting::TargetWorker => {
            waiting_for_target(seen, &headline)
        }
        Waiting::Trying => {
            (true, R::WaitingForTarget, so("the new code is offered a copy of the state; the source serves."))
        }
        Waiting::Freezing | Waiting::Importing => (true, R::HandingOver, so("the state is handed over.")),
        Waiting::Activating => (true, R::Activating, so("committed; the target becomes active.")),
        Waiting::TargetReady | Waiting::Retention => (
            true,
            R::Releasing,
            so("the target serves; the old pod forwards stragglers, then it is deleted."),
        ),
        Waiting::OldPodGone => old_pod(seen, &headline),
        Waiting::Source => (true, R::HandingOver, so("waits for the source's sidecar.")),
        Waiting::OwnerUnreachable => {
            (false, R::OwnerUnreachable, so("waits for the owner's sidecar, or a proof that it is dead."))
        }
        Waiting::Thawing => {
            let why = migration.and_then(|migration| migration.message.as_deref()).unwrap_or("");
            (true, R::Aborting, so(&format!("undone; the source serves again. {why}")))
        }
        Waiting::HandoverNotSupported => {
            let words =
                "the hub has handover: true and the worker cannot hand its state over; it is not moved.";
            (false, R::NoContract, words.to_owned())
        }
        Waiting::HistoryRewound => (false, R::UnknownPhase, rewound(seen)),
    }
}

/// `17->18 n2->n4 (Drain)`.
fn headline(migration: &ActiveMigration) -> String {
    let to = migration.target.node.as_deref().unwrap_or("?");
    match &migration.source {
        Some(source) => {
            let (from, hub) = (source.node.as_deref().unwrap_or("?"), &migration.target.hub);
            let hub = hub.as_ref().filter(|hub| source.hub.as_ref().is_some_and(|from| from != *hub));
            let hub = hub.map_or_else(String::new, |hub| format!(" to hub {hub}"));
            format!("{}->{} {from}->{to} ({}{hub})", source.epoch, migration.target.epoch, migration.trigger)
        }
        None => format!("{} on {to} ({})", migration.target.epoch, migration.trigger),
    }
}

fn waiting_for_target(seen: &Observation, headline: &str) -> (bool, ProcessReason, String) {
    let Some(migration) = seen.object.status.as_ref().and_then(|status| status.migration.as_ref()) else {
        return (true, ProcessReason::WaitingForTarget, "waits for the target.".to_owned());
    };
    let reason = match blamed(seen) {
        MoveReason::NoRoom => ProcessReason::NoRoom,
        MoveReason::QuotaExceeded => ProcessReason::QuotaExceeded,
        _ => ProcessReason::WaitingForTarget,
    };
    let what = target_words(seen).unwrap_or_else(|| "is starting".to_owned());
    let deadline = migration.deadline.0.strftime("%H:%M:%SZ");
    let risk = match migration.source {
        Some(_) => format!(
            " Source serves; nothing at risk. Aborts {deadline}. Cancel: kubectl annotate hproc {} \
             processhub.io/cancel-migration=yes",
            seen.name().name
        ),
        None => format!(" Tried elsewhere after {deadline}."),
    };
    (true, reason, format!("{headline}: {} {what}.{risk}", migration.target.pod))
}

/// What is wrong with the move's target, should the move be undone for its sake.
#[must_use]
pub fn blamed(seen: &Observation) -> MoveReason {
    let trouble = seen.target().and_then(|target| target.facts.trouble.as_ref());
    match trouble {
        Some(Trouble { gravity: Gravity::Unschedulable, .. }) => MoveReason::NoRoom,
        Some(Trouble { gravity: Gravity::Passing | Gravity::Lasting, .. }) => MoveReason::TargetFailed,
        None if seen.trouble.as_ref().is_some_and(|words| words.contains("exceeded quota")) => {
            MoveReason::QuotaExceeded
        }
        None if target_contract(seen).is_some() => MoveReason::TargetFailed,
        None => MoveReason::TargetNotReady,
    }
}

/// What keeps the target from taking over, in words for people.
#[must_use]
pub fn target_words(seen: &Observation) -> Option<String> {
    let trouble = seen.target().and_then(|target| target.facts.trouble.as_ref());
    trouble.map(|trouble| trouble.words.clone()).or_else(|| target_contract(seen).map(another_contract))
}

/// The contract's version that the target's worker speaks, if it is another one.
fn target_contract(seen: &Observation) -> Option<u32> {
    seen.reports.get(seen.target_uid()?)?.worker.foreign_contract
}

fn another_contract(version: u32) -> String {
    format!(
        "its worker speaks version {version} of the worker contract, this system version {CONTRACT_VERSION}: build it \
         with an SDK of that version, or upgrade ProcessHub"
    )
}

fn old_pod(seen: &Observation, headline: &str) -> (bool, ProcessReason, String) {
    let other = seen.bystanders().find(|pod| pod.facts.process != seen.uid());
    match (other, seen.ledger.migration.as_ref().map(|migration| migration.kind)) {
        (Some(pod), _) => (
            true,
            ProcessReason::WaitingForPredecessor,
            format!("pod {} of an older object of this name is still there.", pod.facts.name),
        ),
        (None, Some(Kind::ColdSwap)) => (
            true,
            ProcessReason::WaitingForSourceGone,
            format!("{headline}: the source has to be seen gone before the target's worker starts."),
        ),
        (None, _) => (true, ProcessReason::WaitingForSourceGone, "an old pod has to end first.".to_owned()),
    }
}

fn held(seen: &Observation) -> Option<(bool, ProcessReason, String)> {
    let held = seen.assignment.as_ref()?.held.as_ref()?;
    let ended = matches!(
        held.reason,
        ProcessReason::Paused
            | ProcessReason::UpgradePending
            | ProcessReason::HubNotAccepted
            | ProcessReason::TransferRefused
            | ProcessReason::RestartLimitExceeded
    );
    Some((!ended, held.reason, held.message.clone()))
}

fn settled(seen: &Observation) -> (bool, ProcessReason, String) {
    if let Some(held) = held(seen) {
        return held;
    }
    if seen.paused() {
        let words = "held back by the annotation processhub.io/paused.";
        return (false, ProcessReason::Paused, words.to_owned());
    }
    let last = seen.object.status.as_ref().and_then(|status| status.last_migration.as_ref());
    match last {
        Some(last) if last.result != MigrationResult::Succeeded => {
            let reason = last.reason.map_or("", |reason| reason.as_str());
            let message = last.message.as_deref().unwrap_or("");
            let to = last.target.node.as_deref().unwrap_or("?");
            let words = format!("the move to {to} ({}) was undone: {reason} {message}", last.trigger);
            (false, ProcessReason::MoveAborted, words)
        }
        Some(_) | None => (false, ProcessReason::Settled, String::new()),
    }
}

/// Whether what holds a move up is that there is nowhere to go. An assignment without it may be older than the deletion,
/// and one that waits its turn among others will have it.
fn no_way(held: &Held) -> bool {
    use ProcessReason as R;
    matches!(
        held.reason,
        R::NotAMember | R::NoTargetNodes | R::Draining | R::NoRoom | R::QuotaExceeded | R::MoveAborted
    )
}

/// The owner's pod goes, and no target is there to take its state.
#[must_use]
pub fn at_risk(seen: &Observation) -> Option<String> {
    let owner = seen.owner_pod()?;
    let until = worker_stops(seen, &owner.facts)?;
    if seen.dead.contains_key(&owner.facts.uid) {
        return None;
    }
    let hopeless = match &seen.ledger.migration {
        None => seen.assignment.as_ref().and_then(|assignment| assignment.held.as_ref()).is_some_and(no_way),
        Some(migration) => match migration.phase {
            Phase::Prepared => seen.target().is_some_and(|target| target.facts.trouble.is_some()),
            Phase::Committed { .. } | Phase::Aborted { .. } => false,
        },
    };
    hopeless.then(|| {
        let trouble = seen
            .target()
            .and_then(|target| target.facts.trouble.as_ref())
            .map(|trouble| trouble.words.as_str())
            .or(seen.assignment.as_ref().and_then(|assignment| Some(assignment.held.as_ref()?.message.as_str())))
            .unwrap_or("no node can take it");
        format!(
            "pod {} was deleted and no target is ready: {trouble}. Its state is lost at {} unless a node has room for \
             it by then.",
            owner.facts.name,
            until.strftime("%H:%M:%SZ")
        )
    })
}

/// When a worker whose pod is going is told to stop, handed over or not: its hook ends before the pod's grace does.
fn worker_stops(seen: &Observation, facts: &PodFacts) -> Option<Timestamp> {
    let hook = i64::try_from(pod::hook_bound(&seen.hub).as_secs()).unwrap_or(i64::MAX);
    let after_hook = facts.grace_seconds.saturating_sub(hook).max(0);
    facts.going_until?.checked_sub(SignedDuration::from_secs(after_hook)).ok()
}

fn rewound(seen: &Observation) -> String {
    let obeyed = seen.reports.values().find(|report| report.floor > seen.ledger.epoch);
    let ahead = match (obeyed, seen.ahead()) {
        (Some(report), _) => Some((report.pod.0.as_str(), report.floor)),
        (None, Some(pod)) => Some((pod.facts.name.as_str(), pod.facts.epoch)),
        (None, None) => None,
    };
    match ahead {
        Some((pod, epoch)) => format!(
            "HistoryRewound: pod {pod} has obeyed epoch {epoch}, above the ledger's {}: this object was restored from an \
             older backup. Nothing is granted or moved.",
            seen.ledger.epoch
        ),
        None => "HistoryRewound: the ledger contradicts itself. Nothing is granted or moved.".to_owned(),
    }
}

/// Unknown until the worker has said; what was known before then stays.
fn capable(seen: &Observation) -> Option<Wanted> {
    let wanted = |status: bool, reason, message| {
        Wanted::process(ProcessCondition::HandoverCapable, status, reason, message)
    };
    if seen.hub.spec.migration.handover == Some(false) {
        let words = "the hub has handover: false: every move drops the state";
        return Some(wanted(false, ProcessReason::HandoverDisabled, words));
    }
    let owner = seen.owner_report();
    let foreign = owner.and_then(|report| report.worker.foreign_contract).or_else(|| target_contract(seen));
    if let Some(version) = foreign {
        return Some(wanted(false, ProcessReason::ContractVersion, &another_contract(version)));
    }
    match owner?.worker.can_hand_over? {
        true => Some(wanted(true, ProcessReason::ContractSpoken, "")),
        false => Some(wanted(false, ProcessReason::NoContract, "the worker moves without state")),
    }
}

fn durable(seen: &Observation) -> Option<Wanted> {
    let wanted = |status: bool, reason, message: &str| {
        Wanted::process(ProcessCondition::StateDurable, status, reason, message)
    };
    let missing = seen.object.status.as_ref().and_then(|status: &HubProcessStatus| status.may_miss.as_ref());
    if let Some(missing) = missing {
        let words = format!("changes from {} on may be missing: {}", missing.from, missing.reason);
        return Some(wanted(false, ProcessReason::StateLost, &words));
    }
    match seen.owner_report()?.worker.can_hand_over? {
        true => {
            let (reason, words) = kept_against_a_crash(seen)?;
            Some(wanted(false, reason, &words))
        }
        false => Some(wanted(true, ProcessReason::Stateless, "")),
    }
}

/// Whether the owner runs the code of the hub's present spec.
fn is_current(seen: &Observation) -> bool {
    seen.runs().is_some_and(|runs| runs == revision::name(&seen.hub))
}

fn upgraded(seen: &Observation) -> Option<Wanted> {
    let wanted = |status: bool, reason, message: &str| {
        Wanted::process(ProcessCondition::Upgraded, status, reason, message)
    };
    let present = revision::present(&seen.hub);
    let runs = seen.label(seen.runs()?);
    if is_current(seen) {
        return Some(wanted(true, ProcessReason::UpToDate, &format!("runs {}", present.label())));
    }
    let failed = seen.object.status.as_ref().and_then(|status| status.failed_upgrade.as_ref());
    if let Some(failed) = failed.filter(|failed| failed.revision == present.name) {
        let message =
            format!("({}->{}): {}; it runs on with {runs}", failed.from, failed.to, facts::words(failed));
        return Some(wanted(false, ProcessReason::UpgradeFailed, &message));
    }
    let message = format!("runs {runs}; the hub has {}", present.label());
    Some(wanted(false, ProcessReason::UpgradePending, &message))
}

/// What a crash of the owner's worker would take along; unknown while the worker does not say what it can.
fn kept_against_a_crash(seen: &Observation) -> Option<(ProcessReason, String)> {
    let local = |words: &str| (ProcessReason::NodeLocal, format!("the state is on one node only; {words}"));
    let without = |why: &str| {
        let words = format!("{why}: a crash of the worker takes what changed since the last move");
        (ProcessReason::NotCheckpointed, words)
    };
    let Some(checkpoint) = seen.owner_report()?.checkpoint else {
        return Some(without("the sidecar keeps no checkpoints"));
    };
    let period = seen.hub.spec.checkpoint.period_milliseconds;
    Some(match (checkpoint.class, checkpoint.live) {
        (Some(wire::CheckpointClass::None), _) => without("spec.checkpoint.class of the hub is None"),
        (_, None) => return None,
        (_, Some(false)) => without("the worker can be captured only while it is suspended"),
        (Some(wire::CheckpointClass::Sync), Some(true)) => {
            local("a crash of the worker takes nothing that was answered (Sync)")
        }
        (Some(wire::CheckpointClass::Async), Some(true)) => local(&format!(
            "a crash of the worker takes what changed since the newest checkpoint, one every {period} ms (Async)"
        )),
        (None, Some(true)) => local(&format!(
            "a crash of the worker takes nothing that was answered with ProcessHub-Seq, and of the rest what changed \
             since the newest checkpoint, one every {period} ms"
        )),
    })
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;

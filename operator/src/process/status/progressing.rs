//! What the process waits for, and what is at risk meanwhile.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use processhub_crds::conditions::Wanted;
use processhub_crds::vocabulary::{MoveReason, ProcessCondition, ProcessReason};
use processhub_crds::{ActiveMigration, MigrationResult};
use processhub_protocol::contract::CONTRACT_VERSION;
use processhub_protocol::handover::Waiting;
use processhub_protocol::ledger::{Kind, Phase};

use crate::assignments::Held;
use crate::process::incarnation::{Gravity, PodFacts, Trouble};
use crate::process::observation::Observation;
use crate::process::pod;

pub(super) fn progressing(seen: &Observation, waiting: Waiting) -> Wanted {
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
        Waiting::Replicas => (
            true,
            R::HandingOver,
            so(
                "holders of replicas do not answer that may have the newest state; it goes on without them when half of \
                migration.deadlineSeconds is over, or their Nodes are deleted.",
            ),
        ),
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
        Waiting::LeaseEnd => {
            (true, R::Fencing, so("the owner does not answer; it is taken over when its lease has ended."))
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
pub(super) fn target_contract(seen: &Observation) -> Option<u32> {
    seen.reports.get(seen.target_uid()?)?.worker.foreign_contract
}

pub(super) fn another_contract(version: u32) -> String {
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

//! `HubProcess.status` as a ledger, and a ledger's transitions as changes of the status. Pure.
//!
//! The status holds more than the ledger (times, addresses, words for people), so that it is never rebuilt from one:
//! a transition changes exactly the fields that it is about, and [`read`] gives the ledger of the result.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use processhub_crds::vocabulary::{LossReason, MoveReason};
use processhub_crds::{
    ActiveMigration, FailedUpgrade, HubProcessStatus, Incarnation, MayMiss, MigrationPhase, MigrationRecord,
    MigrationTrigger, Owner, ReplicaHolder, ReplicaSet, ReplicasStatus, Restarts, Tenure as TenureStatus,
    conditions,
};
use processhub_protocol::id::{Digest, Epoch, PodUid, RecordId, StateId};
use processhub_protocol::ledger::{
    self, AbortReason, Ledger, Migration, MoveResult, Phase, PodRef, Tenure, Transition,
};

use processhub_protocol::replica::Replicas;

use super::crash;
use super::words::{abort_reason, kind, kind_word, move_reason, result_word};

/// Longest version of code on an object.
const MAX_VSN: usize = 64;

/// A status that this operator does not understand: written by a newer one, or by hand. Nothing is touched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("status.{field}: {problem}; nothing is done for this process")]
pub struct Unknown {
    field: &'static str,
    problem: &'static str,
}

/// The ledger that a status holds.
///
/// # Errors
/// [`Unknown`] when a field that the ledger rests on is missing.
pub fn read(status: &HubProcessStatus) -> Result<Ledger, Unknown> {
    let owner = status.owner.as_ref().map(|owner| ledger::Owner {
        pod: PodRef { name: owner.pod.clone(), uid: PodUid(owner.uid.clone()), node: owner.node.clone() },
        record: RecordId(owner.record_id.clone()),
        epoch: Epoch(owner.epoch),
        tenure: match (owner.tenure, owner.fenced_at) {
            (None, _) => Tenure::Unbounded,
            (Some(TenureStatus::Leased), _) => Tenure::Leased,
            (Some(TenureStatus::Fencing), at) => Tenure::Fencing { at: Epoch(at.unwrap_or_default()) },
        },
    });
    let epoch = Epoch(status.epoch);
    let migration = match &status.migration {
        Some(migration) => Some(read_migration(migration, epoch)?),
        None => None,
    };
    Ok(Ledger { epoch, owner, migration, replicas: read_replicas(status.replicas.as_ref()) })
}

fn read_replicas(status: Option<&ReplicasStatus>) -> Replicas {
    let Some(status) = status else { return Replicas::default() };
    let pod = |holder: &ReplicaHolder| PodRef {
        name: holder.pod.clone(),
        uid: PodUid(holder.uid.clone()),
        node: holder.node.clone(),
    };
    let set = |set: &ReplicaSet| set.holders.iter().map(pod).collect();
    Replicas { generation: status.generation, sets: status.sets.iter().map(set).collect() }
}

fn keep_replicas(status: &mut HubProcessStatus, replicas: &Replicas) {
    let holder = |pod: &PodRef| ReplicaHolder {
        pod: pod.name.clone(),
        uid: pod.uid.0.clone(),
        node: pod.node.clone(),
    };
    let set = |set: &Vec<PodRef>| ReplicaSet { holders: set.iter().map(holder).collect() };
    let sets: Vec<ReplicaSet> = replicas.sets.iter().map(set).collect();
    // Never had any: nothing is said of them.
    let some = replicas.generation > 0;
    status.replicas = some.then_some(ReplicasStatus { generation: replicas.generation, sets });
}

fn read_migration(migration: &ActiveMigration, epoch: Epoch) -> Result<Migration, Unknown> {
    let source = match &migration.source {
        None => None,
        Some(source) => Some(PodRef {
            name: source.pod.clone(),
            uid: PodUid(
                source.uid.clone().ok_or(Unknown { field: "migration.source.uid", problem: "is missing" })?,
            ),
            node: source.node.clone().unwrap_or_default(),
        }),
    };
    let phase = match migration.phase {
        MigrationPhase::Prepared => Phase::Prepared,
        MigrationPhase::Committed => Phase::Committed { state: state(migration) },
        // While a move is being undone nothing else takes an epoch, so that the highest is the undo's.
        MigrationPhase::Aborted => Phase::Aborted { epoch, reason: abort_reason(migration.reason) },
    };
    Ok(Migration {
        epoch: Epoch(migration.epoch),
        kind: kind(migration.kind),
        source,
        target_name: migration.target.pod.clone(),
        target_node: migration.target.node.clone().unwrap_or_default(),
        with_state: migration.with_state,
        phase,
    })
}

fn state(migration: &ActiveMigration) -> Option<StateId> {
    Some(StateId { seq: migration.seq?, digest: Digest(migration.digest.clone()?), bytes: migration.bytes? })
}

/// What a transition leaves on the object beside the ledger.
#[derive(Clone, Debug)]
pub struct Circumstances {
    /// Name of the process.
    pub process: String,
    /// Now.
    pub now: Timestamp,
    /// `migration.deadlineSeconds` of the hub.
    pub deadline: Duration,
    /// What causes a move that is being prepared.
    pub trigger: MigrationTrigger,
    /// `worker.restarts` of the hub.
    pub restarts: Restarts,
    /// The code of the target of a move that is being prepared.
    pub revision: String,
    /// The versions that an upgrade goes from and to, for people.
    pub versions: (String, String),
    /// Address of the source, as far as it is known.
    pub source_ip: Option<String>,
    /// Address of the target, as far as it is known.
    pub target_ip: Option<String>,
    /// Version of the target's code, as its worker says.
    pub target_vsn: String,
    /// The hub whose pod the source is.
    pub source_hub: String,
    /// The hub whose pod the target is or is to be.
    pub target_hub: String,
    /// What exactly it is that a move was cancelled by.
    pub cancelled: MoveReason,
    /// Whether the target's worker has no state to lose.
    pub stateless: bool,
    /// For people: what lies behind an abort.
    pub message: Option<String>,
    /// What exactly was wrong with a target that failed.
    pub blamed: MoveReason,
    /// The blackout that the side which serves now measured, in milliseconds.
    pub blackout_milliseconds: Option<u64>,
}

/// The status after `transition`; `None` when it does not apply to what the status holds.
#[must_use]
pub fn write(
    status: &HubProcessStatus,
    transition: &Transition,
    around: &Circumstances,
) -> Option<HubProcessStatus> {
    let after = read(status).ok()?.after(&around.process, transition)?;
    let mut next = status.clone();
    next.epoch = after.epoch.0;
    match transition {
        Transition::Prepare { .. } => {
            next.restarts = crash::remembered(&status.restarts, around.trigger, &around.restarts, around.now);
            next.migration = Some(prepared(status, after.migration.as_ref()?, around));
        }
        Transition::Commit { state, lost, .. } => {
            let owner = after.owner.as_ref()?;
            let migration = next.migration.as_mut()?;
            migration.phase = MigrationPhase::Committed;
            migration.target.uid = Some(owner.pod.uid.0.clone());
            migration.target.ip.clone_from(&around.target_ip);
            migration.target.record_id = Some(owner.record.0.clone());
            migration.seq = state.as_ref().map(|state| state.seq);
            migration.digest = state.as_ref().map(|state| state.digest.0.clone());
            migration.bytes = state.as_ref().map(|state| state.bytes);
            if let Some(lost) = lost.filter(|_| !around.stateless) {
                let reason = loss_reason(migration);
                let time = conditions::time(around.now);
                next.may_miss = Some(MayMiss { from: lost.from, to: None, reason, time });
            }
            next.owner = Some(Owner {
                pod: owner.pod.name.clone(),
                uid: owner.pod.uid.0.clone(),
                record_id: owner.record.0.clone(),
                node: owner.pod.node.clone(),
                ip: around.target_ip.clone().unwrap_or_default(),
                epoch: owner.epoch.0,
                vsn: conditions::bounded(&around.target_vsn, MAX_VSN).to_owned(),
                revision: migration.revision.clone(),
                hub: around.target_hub.clone(),
                tenure: None,
                fenced_at: None,
            });
            keep_tenure(&mut next, &after);
            keep_replicas(&mut next, &after.replicas);
        }
        Transition::Replicate { .. } | Transition::Replicated => keep_replicas(&mut next, &after.replicas),
        Transition::Abort { reason } => {
            let migration = after.migration.as_ref()?;
            let aborted = next.migration.get_or_insert_with(|| prepared(status, migration, around));
            aborted.phase = MigrationPhase::Aborted;
            aborted.reason = Some(match reason {
                AbortReason::TargetFailed => around.blamed,
                AbortReason::Cancelled => around.cancelled,
                reason => move_reason(*reason),
            });
            aborted.message = around
                .message
                .as_deref()
                .map(|message| conditions::bounded(message, processhub_crds::limits::MAX_MESSAGE).to_owned());
            if let (Some(next), Some(after)) = (next.owner.as_mut(), after.owner.as_ref()) {
                next.epoch = after.epoch.0;
            }
        }
        Transition::Fence | Transition::Unfence => {
            keep_tenure(&mut next, &after);
            if let (Some(owner), Some(after)) = (next.owner.as_mut(), after.owner.as_ref()) {
                owner.epoch = after.epoch.0;
            }
        }
        Transition::End { result } => {
            let ended = next.migration.take()?;
            if let Some(failed) = failed_upgrade(&ended, *result, around) {
                next.failed_upgrade = Some(failed);
            }
            // A re-grant has no target: it is no move, and the history is about moves.
            if !ended.target.pod.is_empty() {
                next.record(ended_record(ended, *result, around));
            }
        }
    }
    Some(next)
}

fn keep_tenure(status: &mut HubProcessStatus, after: &Ledger) {
    let (Some(owner), Some(after)) = (status.owner.as_mut(), after.owner.as_ref()) else { return };
    (owner.tenure, owner.fenced_at) = match after.tenure {
        Tenure::Unbounded => (None, None),
        Tenure::Leased => (Some(TenureStatus::Leased), None),
        Tenure::Fencing { at } => (Some(TenureStatus::Fencing), Some(at.0)),
    };
}

fn prepared(status: &HubProcessStatus, migration: &Migration, around: &Circumstances) -> ActiveMigration {
    let source = migration.source.as_ref().map(|pod| {
        let owner = status.owner.as_ref().filter(|owner| owner.uid == pod.uid.0);
        let known = around.source_ip.clone().or_else(|| owner.map(|owner| owner.ip.clone()));
        Incarnation {
            pod: pod.name.clone(),
            uid: Some(pod.uid.0.clone()),
            node: Some(pod.node.clone()).filter(|node| !node.is_empty()),
            ip: known,
            epoch: born(&pod.name),
            record_id: owner.map(|owner| owner.record_id.clone()),
            hub: Some(around.source_hub.clone()).filter(|hub| !hub.is_empty()),
        }
    });
    ActiveMigration {
        epoch: migration.epoch.0,
        kind: kind_word(migration.kind),
        phase: MigrationPhase::Prepared,
        trigger: around.trigger,
        with_state: migration.with_state,
        source,
        target: Incarnation {
            pod: migration.target_name.clone(),
            node: Some(migration.target_node.clone()).filter(|node| !node.is_empty()),
            epoch: migration.epoch.0,
            hub: Some(around.target_hub.clone()).filter(|hub| !hub.is_empty()),
            ..Incarnation::default()
        },
        revision: around.revision.clone(),
        seq: None,
        digest: None,
        bytes: None,
        deadline: conditions::time(
            around
                .now
                .saturating_add(SignedDuration::try_from(around.deadline).unwrap_or(SignedDuration::MAX))
                .unwrap_or(Timestamp::MAX),
        ),
        reason: None,
        message: None,
        start_time: conditions::time(around.now),
    }
}

/// What is said of an upgrade that was undone because of what the new code or the old one did, or because a person said
/// so. One that was merely given up is no failure, and will be tried again.
fn failed_upgrade(
    ended: &ActiveMigration,
    result: MoveResult,
    around: &Circumstances,
) -> Option<FailedUpgrade> {
    let undone = ended.trigger == MigrationTrigger::Upgrade && result != MoveResult::Succeeded;
    let given_up = matches!(ended.reason, Some(MoveReason::Withdrawn | MoveReason::SourceLost));
    let (from, to) = &around.versions;
    let version = |version: &String| conditions::bounded(version, MAX_VSN).to_owned();
    (undone && !given_up).then(|| FailedUpgrade {
        revision: ended.revision.clone(),
        from: version(from),
        to: version(to),
        reason: ended.reason,
        message: ended.message.clone(),
        time: conditions::time(around.now),
    })
}

/// The epoch in a pod's name.
fn born(pod: &str) -> u64 {
    pod.rsplit_once('-').and_then(|(_, epoch)| epoch.parse().ok()).unwrap_or(0)
}

fn ended_record(ended: ActiveMigration, result: MoveResult, around: &Circumstances) -> MigrationRecord {
    MigrationRecord {
        epoch: ended.epoch,
        kind: ended.kind,
        result: result_word(result),
        reason: ended.reason,
        message: ended.message,
        trigger: ended.trigger,
        with_state: ended.with_state,
        source: ended.source,
        target: ended.target,
        bytes: ended.bytes,
        digest: ended.digest,
        blackout_milliseconds: around.blackout_milliseconds,
        start_time: ended.start_time,
        completion_time: conditions::time(around.now),
    }
}

fn loss_reason(migration: &ActiveMigration) -> LossReason {
    match migration.trigger {
        _ if migration.source.is_some() => LossReason::TargetLost,
        MigrationTrigger::NodeLost | MigrationTrigger::Drain => LossReason::NodeLost,
        MigrationTrigger::PodDeleted => LossReason::PodDeleted,
        MigrationTrigger::Crash => LossReason::WorkerCrashed,
        MigrationTrigger::Start
        | MigrationTrigger::Wish
        | MigrationTrigger::Rebalance
        | MigrationTrigger::Pinned
        | MigrationTrigger::Upgrade
        | MigrationTrigger::Transfer
        | MigrationTrigger::Recovery => LossReason::RecordLost,
    }
}

#[cfg(test)]
#[path = "record_tests.rs"]
pub(crate) mod tests;

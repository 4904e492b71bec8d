//! What the status of a process says about its moves.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::vocabulary::{LossReason, MoveReason, vocabulary};

vocabulary! {
    /// How a process changes its incarnation.
    MigrationKind {
        /// The first incarnation: there is no source.
        Start = "Start",
        /// Source and target run side by side until the commit.
        HotSwap = "HotSwap",
        /// The source has stopped before the target's worker starts.
        ColdSwap = "ColdSwap",
        /// The old owner is proven dead, or sealed; there is no serving source.
        Recover = "Recover",
    }
}

vocabulary! {
    /// How far a migration is, as far as it is written down. What lies between is observed at the sidecars; a
    /// migration that has ended is not there any more.
    MigrationPhase {
        /// The epoch is taken, source and target are named. It may still be aborted.
        Prepared = "Prepared",
        /// The target owns the process. Only forward from here.
        Committed = "Committed",
        /// The source owns the process at a new epoch. Only the undoing is left.
        Aborted = "Aborted",
    }
}

vocabulary! {
    /// How a migration ended.
    MigrationResult {
        /// The target serves.
        Succeeded = "Succeeded",
        /// It was undone and the source serves.
        Aborted = "Aborted",
        /// Neither: the process is started again by another migration, or a person is needed.
        Failed = "Failed",
    }
}

vocabulary! {
    /// What caused a migration.
    MigrationTrigger {
        /// The process was new.
        Start = "Start",
        /// A person asked for it (`processhub.io/move-to`).
        Wish = "Wish",
        /// The distribution strategy wants the process elsewhere.
        Rebalance = "Rebalance",
        /// The owner's node is being drained.
        Drain = "Drain",
        /// The owner's pod was deleted.
        PodDeleted = "PodDeleted",
        /// The owner's node is lost.
        NodeLost = "NodeLost",
        /// `spec.nodeName` names another node.
        Pinned = "Pinned",
        /// The owner's worker has crashed again, and its kubelet waits before it starts it anew.
        Crash = "Crash",
        /// The owner is dead or has lost its record for another reason.
        Recovery = "Recovery",
        /// `spec.vsn` or `spec.template` of the hub changed.
        Upgrade = "Upgrade",
        /// `spec.hubName` names another hub than that of the owner.
        Transfer = "Transfer",
    }
}

/// One pod of a process. What is not known yet is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Incarnation {
    /// Name of the pod, `<process>-<epoch>`.
    #[schemars(length(max = 63))]
    pub pod: String,
    /// UID of the pod, once it was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub uid: Option<String>,
    /// The node it is meant for or runs on; absent while the scheduler is to choose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub node: Option<String>,
    /// Its address, once it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 45))]
    pub ip: Option<String>,
    /// The epoch it was created with.
    pub epoch: u64,
    /// The identity of its sidecar's record, once it was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub record_id: Option<String>,
    /// The hub whose pod it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 34))]
    pub hub: Option<String>,
}

/// A migration that is under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActiveMigration {
    /// The epoch that was taken for it; an abort takes another one, which `status.epoch` shows.
    pub epoch: u64,
    /// How the incarnation changes.
    pub kind: MigrationKind,
    /// How far it is.
    pub phase: MigrationPhase,
    /// What caused it.
    pub trigger: MigrationTrigger,
    /// Whether state is carried.
    pub with_state: bool,
    /// The incarnation that is left; absent for a start and for a recovery without a sealed source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Incarnation>,
    /// The incarnation that takes over.
    pub target: Incarnation,
    /// The code that the target's pod is made from, one of the hub's `status.revisions`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 16))]
    pub revision: String,
    /// The last sequence number that the captured state contains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// The digest of the captured state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub digest: Option<String>,
    /// Bytes of the captured state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// When it is aborted unless it is committed by then.
    pub deadline: Time,
    /// Why it is being aborted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<MoveReason>,
    /// The words that belong to the reason, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub message: Option<String>,
    /// When it was prepared.
    pub start_time: Time,
}

/// The last migration that ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MigrationRecord {
    /// The epoch that was taken for it.
    pub epoch: u64,
    /// How the incarnation was to change.
    pub kind: MigrationKind,
    /// How it ended.
    pub result: MigrationResult,
    /// Why it did not succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<MoveReason>,
    /// The words that belong to the reason, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub message: Option<String>,
    /// What caused it.
    pub trigger: MigrationTrigger,
    /// Whether state was to be carried.
    pub with_state: bool,
    /// The incarnation that was to be left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Incarnation>,
    /// The incarnation that was to take over.
    pub target: Incarnation,
    /// Bytes of state that were carried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Digest of the state that was carried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub digest: Option<String>,
    /// From the freeze of the source to the first moment the target, or after an abort the source, might answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blackout_milliseconds: Option<u64>,
    /// When it was prepared.
    pub start_time: Time,
    /// When it ended.
    pub completion_time: Time,
}

/// A migration in short, for the history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MigrationSummary {
    /// The epoch that was taken for it.
    pub epoch: u64,
    /// How the incarnation was to change.
    pub kind: MigrationKind,
    /// How it ended.
    pub result: MigrationResult,
    /// Why it did not succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<MoveReason>,
    /// What caused it.
    pub trigger: MigrationTrigger,
    /// The node that was to be left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub from: Option<String>,
    /// The node that was to take over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub to: Option<String>,
    /// As in `lastMigration`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blackout_milliseconds: Option<u64>,
    /// When it ended.
    pub completion_time: Time,
}

impl From<&MigrationRecord> for MigrationSummary {
    fn from(record: &MigrationRecord) -> Self {
        Self {
            epoch: record.epoch,
            kind: record.kind,
            result: record.result,
            reason: record.reason,
            trigger: record.trigger,
            from: record.source.as_ref().and_then(|source| source.node.clone()),
            to: record.target.node.clone(),
            blackout_milliseconds: record.blackout_milliseconds,
            completion_time: record.completion_time.clone(),
        }
    }
}

/// Acknowledged requests that may be missing since a recovery. It stays on the object until a person removes it or
/// the next recovery replaces it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MayMiss {
    /// The first sequence number that may be missing; 1 when nothing of the state was left.
    pub from: u64,
    /// The last sequence number that may be missing, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
    /// What was lost.
    pub reason: LossReason,
    /// When the process was recovered.
    pub time: Time,
}

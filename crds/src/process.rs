//! `HubProcess`: one named process.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::migration::{ActiveMigration, MayMiss, MigrationRecord, MigrationSummary};
use crate::rules;
use crate::upgrade::FailedUpgrade;
use crate::vocabulary::vocabulary;

/// A named process of a hub, with one state. The object's name is the process's name, its labels are its tags.
///
/// Created by the operator for the `replicas` and `processes` of a hub, by anyone for a dynamic one.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "processhub.io",
    version = "v1alpha1",
    kind = "HubProcess",
    plural = "hubprocesses",
    shortname = "hproc",
    namespaced,
    status = "HubProcessStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "HubProcess is one named process of a hub, with one state. Deleting it stops the process.",
    validation = rules::process_name(),
    validation = rules::hub_is_fixed_in_a_migration(),
    validation = rules::epoch_never_falls(),
    validation = rules::epoch_is_highest(),
    selectable = ".spec.hubName",
    selectable = ".status.owner.node",
    printcolumn(name = "Hub", type_ = "string", json_path = ".spec.hubName"),
    printcolumn(name = "Node", type_ = "string", json_path = ".status.owner.node"),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#
    ),
    printcolumn(
        name = "Detail",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Progressing")].reason"#
    ),
    printcolumn(name = "Target", type_ = "string", json_path = ".status.migration.target.node"),
    printcolumn(name = "MayMiss", type_ = "integer", json_path = ".status.mayMiss.from"),
    printcolumn(name = "Vsn", type_ = "string", json_path = ".status.owner.vsn"),
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".status.epoch"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = crate::schema::spec)]
pub struct HubProcessSpec {
    /// The hub, of the same namespace, that runs the process. Another one that is named here takes the process over with
    /// its state, if it can; until then the former one runs it.
    #[schemars(length(min = 1, max = 34), regex(pattern = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    pub hub_name: String,
    /// Given to the worker when it is activated. At most 16 KiB as JSON.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::schema::config")]
    pub config: BTreeMap<String, Value>,
    /// Pins the process to a node. A node that is missing or unfit leaves it pending, with the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::node_name")]
    pub node_name: Option<String>,
}

/// What is true of a process. The single linearization point of ownership: every write carries the resourceVersion
/// that it was decided on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = crate::schema::status)]
pub struct HubProcessStatus {
    /// The generation of the spec that the rest was derived from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub observed_generation: Option<i64>,
    /// The highest epoch ever taken. It never falls.
    #[serde(default)]
    pub epoch: u64,
    /// The incarnation that may acknowledge requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// The migration that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration: Option<ActiveMigration>,
    /// The last migration that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_migration: Option<MigrationRecord>,
    /// The last five migrations that ended, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    pub history: Vec<MigrationSummary>,
    /// Acknowledged requests that may be missing since a recovery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub may_miss: Option<MayMiss>,
    /// When it was started in a new pod because its worker had crashed again, oldest first: those that count by the hub's
    /// `spec.worker.restarts`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub restarts: Vec<Time>,
    /// The newest state that the owner kept against a crash, as of the last time that anything else was written here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<CheckpointStatus>,
    /// Who holds replicas of the state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<ReplicasStatus>,
    /// The last upgrade, where it was undone; until the process runs the code of its hub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_upgrade: Option<FailedUpgrade>,
    /// Ready, Progressing, HandoverCapable, StateDurable, Upgraded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// A state that is kept against a crash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointStatus {
    /// Its number: changes up to this one are in it.
    pub seq: u64,
    /// When it was known to be the worker's state.
    pub time: Time,
}

/// Who holds replicas of the state: whoever recovers the process asks them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplicasStatus {
    /// Counts the sets that were ever chosen.
    pub generation: u64,
    /// The last one is in force; those before it are still needed, because it may not have everything yet.
    #[schemars(length(max = 8))]
    pub sets: Vec<ReplicaSet>,
}

/// Pods that hold the state together: each has what was acknowledged while they did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaSet {
    /// The pods; none for a time in which no other node could hold the state.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    pub holders: Vec<ReplicaHolder>,
}

/// A pod of another process of the hub.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaHolder {
    /// Its name.
    #[schemars(length(max = 63))]
    pub pod: String,
    /// Its UID.
    #[schemars(length(max = 64))]
    pub uid: String,
    /// Its node.
    #[schemars(length(max = 253))]
    pub node: String,
}

/// The incarnation that may acknowledge requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    /// Name of the pod.
    #[schemars(length(max = 63))]
    pub pod: String,
    /// UID of the pod.
    #[schemars(length(max = 64))]
    pub uid: String,
    /// The identity of the sidecar's record. A grant to a pod whose record is another one is refused.
    #[schemars(length(max = 64))]
    pub record_id: String,
    /// The node it runs on.
    #[schemars(length(max = 253))]
    pub node: String,
    /// Its address.
    #[schemars(length(max = 45))]
    pub ip: String,
    /// The epoch of its ownership: at least the one that its pod was created with.
    pub epoch: u64,
    /// The version of the worker's code, as the worker gives it; where it gives none, as the hub had it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub vsn: String,
    /// The code that its pod was made from, one of the hub's `status.revisions`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 16))]
    pub revision: String,
    /// The hub whose pod it is. Where `spec.hubName` is another one the process is to be transferred there.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 34))]
    pub hub: String,
    /// For how long it may acknowledge; absent: as long as it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenure: Option<Tenure>,
    /// The highest epoch when its fencing began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fenced_at: Option<u64>,
}

vocabulary! {
    /// For how long an owner may acknowledge, in a hub with `failover: OnLease`.
    Tenure {
        /// While it holds a lease, which the operator renews every 2.5 s.
        Leased = "Leased",
        /// It does not answer and its lease is not renewed any more: it is about to be taken over.
        Fencing = "Fencing",
    }
}

impl HubProcessStatus {
    /// Writes down a migration that ended: as the last one and at the head of the history, which keeps five.
    pub fn record(&mut self, ended: MigrationRecord) {
        self.history.insert(0, MigrationSummary::from(&ended));
        self.history.truncate(crate::limits::MAX_HISTORY);
        self.last_migration = Some(ended);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ended(epoch: u64) -> MigrationRecord {
        serde_json::from_value(json!({
            "epoch": epoch, "kind": "HotSwap", "result": "Aborted", "reason": "ImportRefused", "trigger": "Drain",
            "withState": true, "source": { "pod": "a-1", "node": "n1", "epoch": 1 },
            "target": { "pod": "a-2", "node": "n2", "epoch": epoch }, "blackoutMilliseconds": 7,
            "startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:01:00Z",
        }))
        .unwrap()
    }

    #[test]
    fn the_history_keeps_the_last_five_newest_first() {
        let mut status = HubProcessStatus::default();
        for epoch in 1..=7 {
            status.record(ended(epoch));
        }
        let epochs: Vec<_> = status.history.iter().map(|summary| summary.epoch).collect();
        assert_eq!(epochs, [7, 6, 5, 4, 3]);
        assert_eq!(status.last_migration, Some(ended(7)));
    }

    #[test]
    fn a_summary_says_from_where_to_where_and_why_it_ended() {
        let summary = MigrationSummary::from(&ended(2));
        assert_eq!(
            serde_json::to_value(summary).unwrap(),
            json!({
                "epoch": 2, "kind": "HotSwap", "result": "Aborted", "reason": "ImportRefused", "trigger": "Drain",
                "from": "n1", "to": "n2", "blackoutMilliseconds": 7, "completionTime": "2026-01-01T00:01:00Z",
            })
        );
    }

    #[test]
    fn a_process_that_was_never_moved_says_so_by_having_no_fields() {
        assert_eq!(serde_json::to_value(HubProcessStatus::default()).unwrap(), json!({ "epoch": 0 }));
    }

    #[test]
    fn an_object_with_history_stays_small() {
        let mut status = HubProcessStatus::default();
        for epoch in 1..=5 {
            status.record(ended(epoch));
        }
        assert!(serde_json::to_vec(&status).unwrap().len() < 2048);
    }
}

//! The resources of ProcessHub for Kubernetes: group `processhub.io`, version `v1alpha1`.
//!
//! * [`ProcessHub`]: what runs, where it may run and how it moves.
//! * [`HubProcess`]: one named process of a hub. Its status is the single linearization point of ownership.
//! * [`vocabulary`]: every condition type, reason, event, annotation and label, as closed enums and constants.
//! * [`conditions`]: pure helpers that keep a list of conditions.
//!
//! A field is here from the day that it works; the API server refuses what it does not know.

// kube reads each printer column as a list of its own; clippy takes their equal keys for repetitions.
#![allow(clippy::duplicated_attributes)]

#[cfg(any(test, feature = "cases"))]
pub mod cases;
pub mod conditions;
pub mod generate;
mod hub;
pub mod limits;
mod migration;
mod partition;
mod process;
pub mod rules;
mod schema;
mod upgrade;
pub mod validate;
pub mod vocabulary;

pub use hub::{
    Checkpoint, CheckpointClass, Distribution, DistributionStrategy, Failover, Hold, HubMembers, Members,
    Migration, MigrationStrategy, ProcessHub, ProcessHubSpec, ProcessHubStatus, Protocol, Redundancy,
    RedundancyStrategy, Restarts, ServiceKind, StaticProcess, Worker,
};
pub use migration::{
    ActiveMigration, Incarnation, MayMiss, MigrationKind, MigrationPhase, MigrationRecord, MigrationResult,
    MigrationSummary, MigrationTrigger,
};
pub use partition::{PartitionStrategy, PartitionTolerance};
pub use process::{
    CheckpointStatus, HubProcess, HubProcessSpec, HubProcessStatus, Owner, ReplicaHolder, ReplicaSet,
    ReplicasStatus, Tenure,
};
pub use upgrade::{FailedUpgrade, Revision, Upgrade, UpgradeStrategy, is_down, revisions};

/// The API group of every resource here.
pub const GROUP: &str = "processhub.io";
/// The only served version of the group.
pub const VERSION: &str = "v1alpha1";

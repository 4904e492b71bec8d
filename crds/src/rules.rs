//! The rules that the API server evaluates (CEL). They stand here once, with their messages.
//!
//! Rules that span fields stand at the root, where they see name, spec and status; their messages are static, because
//! an expression that builds a message counts against the cost budget. Everything that a rule reads is bounded by the
//! schema, for the same reason.

use kube::core::{Reason, Rule};

/// The refusal of `Replication` together with `handover: true`, word for word.
pub const HANDOVER_WITH_REPLICATION: &str = "handover_with_replication_not_supported";

/// The refusal of an upgrade that would run two workers of a hub of cold swaps.
pub const UPGRADE_OF_COLD_SWAPS: &str = "invalid_config: spec.upgrade.strategy: would run the new worker beside the \
     old one, which migration.strategy ColdSwap rules out; remove it or use ColdSwap";

/// The refusal of a take-over that would run two workers of a hub of cold swaps.
pub const LEASE_OF_COLD_SWAPS: &str = "invalid_config: spec.failover: OnLease starts a worker beside one that may run \
     on and only acknowledges nothing, which ColdSwap rules out; use OnProof or HotSwap";

/// The refusal of a quorum of no size.
pub const QUORUM_SIZE: &str = "invalid_config: spec.partitionTolerance.quorumSize: StaticQuorum needs a number of nodes, \
     DynamicQuorum a percentage of at most 100; set it";

/// The refusal of two owners.
pub const DIVERGENCE: &str = "invalid_config: spec.partitionTolerance.strategy: Divergence is not available in this \
     version; use MajorityQuorum, StaticQuorum or DynamicQuorum";

/// The refusal of the strategies that are to come.
pub const UPGRADE_TO_COME: &str = "invalid_config: spec.upgrade.strategy: InPlace and Live are not available in this \
     version; use HotSwap or ColdSwap";

fn forbidden(rule: &str, message: &str, field: &str) -> Rule {
    Rule::new(rule).message(message).field_path(field).reason(Reason::FieldValueForbidden)
}

fn invalid(rule: &str, message: &str, field: &str) -> Rule {
    Rule::new(rule).message(message).field_path(field).reason(Reason::FieldValueInvalid)
}

/// A hub's name leaves room for the ordinal of its last replica, and names a Service where the hub has one.
pub(crate) fn hub_name() -> Rule {
    Rule::new("self.metadata.name.size() <= 34 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message(
            "invalid_config: metadata.name: at most 34 characters of a-z, 0-9 and '-', beginning with a letter and \
             not ending with '-'; choose another name",
        )
        .reason(Reason::FieldValueInvalid)
}

/// One container holds the state.
pub(crate) fn worker_container() -> Rule {
    invalid(
        "self.spec.template.spec.containers.exists(c, c.name == 'worker')",
        "invalid_config: spec.template.spec.containers: none is named worker; name the container that holds the \
         state worker",
        ".spec.template.spec.containers",
    )
}

/// A copy of several has no single state to hand over.
pub(crate) fn handover_with_replication() -> Rule {
    forbidden(
        "self.spec.redundancy.strategy != 'Replication' || !has(self.spec.migration.handover) || \
         !self.spec.migration.handover",
        HANDOVER_WITH_REPLICATION,
        ".spec.migration.handover",
    )
}

/// Leaves the case of [`handover_with_replication`] to it, so that one refusal has one message.
pub(crate) fn replication() -> Rule {
    forbidden(
        "self.spec.redundancy.strategy != 'Replication' || (has(self.spec.migration.handover) && \
         self.spec.migration.handover)",
        "invalid_config: spec.redundancy.strategy: Replication is not available in this version; use Singularity",
        ".spec.redundancy.strategy",
    )
}

/// With a headless Service clients find the new owner by DNS only, and resolvers keep an answer for up to 30 s.
pub(crate) fn headless_retention() -> Rule {
    invalid(
        "self.spec.worker.service != 'Headless' || self.spec.migration.retentionMilliseconds >= 30000",
        "invalid_config: spec.migration.retentionMilliseconds: a Headless service needs at least 30000, because \
         clients keep DNS answers that long; raise it or use ClusterIP",
        ".spec.migration.retentionMilliseconds",
    )
}

/// Nothing is accepted that would be ignored.
pub(crate) fn upgrade_to_come() -> Rule {
    forbidden(
        "!has(self.spec.upgrade.strategy) || !(self.spec.upgrade.strategy in ['InPlace', 'Live'])",
        UPGRADE_TO_COME,
        ".spec.upgrade.strategy",
    )
}

/// What must never exist twice does not exist twice for the sake of new code.
pub(crate) fn upgrade_of_cold_swaps() -> Rule {
    invalid(
        "self.spec.migration.strategy != 'ColdSwap' || !has(self.spec.upgrade.strategy) || \
         self.spec.upgrade.strategy != 'HotSwap'",
        UPGRADE_OF_COLD_SWAPS,
        ".spec.upgrade.strategy",
    )
}

/// Who holds no lease acknowledges nothing, but its worker runs.
pub(crate) fn lease_of_cold_swaps() -> Rule {
    invalid(
        "self.spec.failover != 'OnLease' || (self.spec.migration.strategy != 'ColdSwap' && \
         (!has(self.spec.upgrade.strategy) || self.spec.upgrade.strategy != 'ColdSwap'))",
        LEASE_OF_COLD_SWAPS,
        ".spec.failover",
    )
}

/// A number that nobody chose would decide who takes over.
pub(crate) fn quorum_size() -> Rule {
    invalid(
        "!(self.spec.partitionTolerance.strategy in ['StaticQuorum', 'DynamicQuorum']) || \
         (has(self.spec.partitionTolerance.quorumSize) && (self.spec.partitionTolerance.strategy == 'StaticQuorum' || \
         self.spec.partitionTolerance.quorumSize <= 100))",
        QUORUM_SIZE,
        ".spec.partitionTolerance.quorumSize",
    )
}

/// Nothing is accepted that would be ignored.
pub(crate) fn divergence() -> Rule {
    forbidden(
        "self.spec.partitionTolerance.strategy != 'Divergence'",
        DIVERGENCE,
        ".spec.partitionTolerance.strategy",
    )
}

/// Only of a protocol that it reads can the sidecar hold an answer back until its state is on disk.
pub(crate) fn sync_without_answers() -> Rule {
    forbidden(
        "self.spec.worker.protocol != 'TCP' || !has(self.spec.checkpoint.class) || \
         self.spec.checkpoint.class != 'Sync'",
        "invalid_config: spec.checkpoint.class: with spec.worker.protocol TCP no answer can wait for its checkpoint; \
         use Async or None",
        ".spec.checkpoint.class",
    )
}

/// Without checkpoints there is nothing that another node could hold.
pub(crate) fn replicas_of_nothing() -> Rule {
    forbidden(
        "self.spec.checkpoint.replicas == 0 || !has(self.spec.checkpoint.class) || \
         self.spec.checkpoint.class != 'None'",
        "invalid_config: spec.checkpoint.replicas: with spec.checkpoint.class None there is nothing to replicate; use \
         Sync or Async",
        ".spec.checkpoint.replicas",
    )
}

/// The operator's own labels decide what belongs to whom.
pub(crate) fn reserved_labels() -> Rule {
    forbidden(
        "!has(self.labels) || self.labels.all(key, !key.startsWith('processhub.io/'))",
        "invalid_config: spec.processes[].labels: the prefix processhub.io/ is reserved; use a prefix of your own",
        ".labels",
    )
}

/// A process's name is the name of its Service, and with an epoch behind it that of its pods.
pub(crate) fn process_name() -> Rule {
    Rule::new("self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message(
            "invalid_config: metadata.name: at most 40 characters of a-z, 0-9 and '-', beginning with a letter and \
             not ending with '-'; choose another name",
        )
        .reason(Reason::FieldValueInvalid)
}

/// A move that is under way goes to one hub. Back to the owner's is always a way: it ends a transfer that is not committed,
/// and changes nothing of one that is, for then that hub is the new one. An owner whose hub is not written down yet may not
/// leave it: nobody would know by which key it takes commands.
pub(crate) fn hub_is_fixed_in_a_migration() -> Rule {
    forbidden(
        "self.spec.hubName == oldSelf.spec.hubName || !has(oldSelf.status) || (!has(oldSelf.status.migration) && \
         (!has(oldSelf.status.owner) || has(oldSelf.status.owner.hub))) || (has(oldSelf.status.owner) && \
         has(oldSelf.status.owner.hub) && oldSelf.status.owner.hub == self.spec.hubName)",
        "invalid_config: spec.hubName: cannot be changed during a migration, but back to the hub of the owner; wait \
         until status.migration is gone, or cancel it",
        ".spec.hubName",
    )
}

/// An epoch that was used must never be used again. The removal is refused too: it would be the way around.
pub(crate) fn epoch_never_falls() -> Rule {
    forbidden(
        "!has(oldSelf.status) || !has(oldSelf.status.epoch) || (has(self.status) && has(self.status.epoch) && \
         self.status.epoch >= oldSelf.status.epoch)",
        "invalid_config: status.epoch: an epoch is never lowered or removed; read the object again and decide anew",
        ".status",
    )
}

/// `status.epoch` is the highest epoch ever taken, so that a new leader finds a free one by it alone.
pub(crate) fn epoch_is_highest() -> Rule {
    forbidden(
        "!has(self.status) || ((!has(self.status.owner) || (has(self.status.epoch) && self.status.owner.epoch <= \
         self.status.epoch)) && (!has(self.status.migration) || (has(self.status.epoch) && \
         self.status.migration.epoch <= self.status.epoch)))",
        "invalid_config: status.epoch: below the epoch of the owner or of the migration; take the epoch in the same \
         write",
        ".status",
    )
}

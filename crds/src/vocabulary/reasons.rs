//! Reasons of conditions and of migrations.

use super::vocabulary;

vocabulary! {
    /// Reasons of the conditions of a `ProcessHub`.
    HubReason {
        /// Accepted: the spec and the template are usable.
        Valid = "Valid",
        /// Accepted=False: a field is out of its bounds or contradicts another; the message names field and remedy.
        InvalidConfig = "InvalidConfig",
        /// Accepted=False: `Replication` and `handover: true` exclude each other.
        HandoverWithReplicationNotSupported = "HandoverWithReplicationNotSupported",
        /// Accepted=False: the API server refuses a pod of this template; the message is its own.
        TemplateInvalid = "TemplateInvalid",
        /// Accepted=False: the worker has a `preStop` of its own, which is where the hand-over hooks in.
        PreStopReserved = "PreStopReserved",
        /// Ready: every process acknowledges requests.
        Serving = "Serving",
        /// Ready=False: some processes have not started yet.
        Starting = "Starting",
        /// Ready=False: some processes do not acknowledge; the message counts and names them.
        ProcessesNotReady = "ProcessesNotReady",
        /// Progressing=False or Rebalanced=True: nothing is left to do.
        Settled = "Settled",
        /// Progressing: joins and leaves are being collected before anything moves.
        Debouncing = "Debouncing",
        /// Progressing or Rebalanced=False: processes are being moved to where they belong.
        Rebalancing = "Rebalancing",
        /// Progressing: replicas are being added or removed.
        Scaling = "Scaling",
        /// Progressing: the hub is being deleted.
        Deleting = "Deleting",
        /// Progressing=False or Rebalanced=False: the annotation `processhub.io/paused` holds back every new move.
        Paused = "Paused",
        /// Rebalanced=False: moves wait for others to end; the limits of `spec.migration` are reached.
        LimitReached = "LimitReached",
        /// Rebalanced=False: too many members vanished at once; nothing moves until the number recovers.
        TooManyMembersLost = "TooManyMembersLost",
        /// Ready=False or Rebalanced=False: no node fits `spec.members` and the template.
        NoTargetNodes = "no_target_nodes",
        /// Degraded=False: nothing needs a person.
        AsExpected = "AsExpected",
        /// Progressing: processes get the code of the present spec.
        Upgrading = "Upgrading",
        /// Progressing=False: `spec.upgrade.partition` keeps the rest on the code that they run.
        UpgradePartitioned = "UpgradePartitioned",
        /// Progressing=False and Degraded: a process could not be given the new code and runs on with the old one; no
        /// other is touched.
        UpgradeFailed = "UpgradeFailed",
        /// Degraded: some processes were recovered without all of their acknowledged state.
        StateLost = "StateLost",
        /// Degraded: some owners cannot be reached.
        OwnerUnreachable = "OwnerUnreachable",
        /// QuorumAvailable: as many members are reached as `spec.partitionTolerance` asks for.
        QuorumReached = "QuorumReached",
        /// QuorumAvailable=False: too few members are reached; nothing is taken over on the end of a lease alone.
        QuorumLost = "QuorumLost",
        /// QuorumAvailable: with `failover: OnProof` only a proof of death counts.
        QuorumNotNeeded = "QuorumNotNeeded",
        /// Degraded: a wanted name is taken by a process of another hub.
        AlreadyStarted = "already_started",
        /// Degraded: workers speak another version of the contract, and their processes cannot start or be moved.
        ContractVersion = "ContractVersion",
        /// Degraded: moves fail again and again; the message names the process and the last reason.
        MigrationsFailing = "MigrationsFailing",
        /// Degraded=False but worth knowing: `handover: false` was asked for, state is dropped by every move.
        HandoverDisabled = "HandoverDisabled",
    }
}

vocabulary! {
    /// Reasons of the conditions of a `HubProcess`.
    ProcessReason {
        /// Ready: the owner acknowledges requests.
        Serving = "Serving",
        /// Ready=False and Progressing: the first incarnation is being started.
        Starting = "Starting",
        /// Ready=False and Progressing: the old owner is dead and a new incarnation is being started.
        Recovering = "Recovering",
        /// Ready=False: frozen for its move; requests are held.
        Moving = "Moving",
        /// Ready=False: the owner answers, its worker does not.
        WorkerNotReady = "WorkerNotReady",
        /// Ready=False: the owner has fenced itself and waits for a grant.
        Fenced = "Fenced",
        /// Progressing: the owner cannot be reached and its lease runs out.
        Fencing = "Fencing",
        /// Ready=Unknown: the owner cannot be reached; it may or may not still serve.
        OwnerUnreachable = "OwnerUnreachable",
        /// Ready=False: the object names a hub that does not exist.
        HubNotFound = "HubNotFound",
        /// Ready=False or Progressing=False: the hub is not accepted.
        HubNotAccepted = "HubNotAccepted",
        /// Progressing=False: nothing is left to do.
        Settled = "Settled",
        /// Progressing: the target's pod exists and is not up yet.
        WaitingForTarget = "WaitingForTarget",
        /// Progressing: source and target hand the state over.
        HandingOver = "HandingOver",
        /// Progressing: committed; the target becomes active.
        Activating = "Activating",
        /// Progressing: the target serves; the source forwards stragglers until the retention is over.
        Releasing = "Releasing",
        /// Progressing: the source is being given its role back.
        Aborting = "Aborting",
        /// Progressing: pods of an older object of this name are still there.
        WaitingForPredecessor = "WaitingForPredecessor",
        /// Progressing: the cold-swap source has not been seen gone yet.
        WaitingForSourceGone = "WaitingForSourceGone",
        /// Progressing: no member has room for the pod.
        NoRoom = "NoRoom",
        /// Progressing: the namespace's quota does not allow another pod.
        QuotaExceeded = "QuotaExceeded",
        /// Progressing: the pinned node is not a member of the hub.
        NotAMember = "not_a_member",
        /// Progressing: the hub has no node to place it on.
        NoTargetNodes = "no_target_nodes",
        /// Progressing: the pinned node is being drained or is cordoned.
        Draining = "draining",
        /// Progressing=False: held back by the annotation `processhub.io/paused`.
        Paused = "Paused",
        /// Progressing: waits until other moves have ended.
        Deferred = "Deferred",
        /// Progressing=False: the last move was aborted; it is tried again unless the message says otherwise.
        MoveAborted = "MoveAborted",
        /// Progressing=False: the hub that `spec.hubName` names cannot take the process over, or the hub of the owner does
        /// not let it go; it stays where it is, and the message says what to do.
        TransferRefused = "TransferRefused",
        /// Progressing: the owner's pod was deleted and no target can be had; the state is lost at the deadline.
        StateAtRisk = "StateAtRisk",
        /// Progressing: the worker crashes again and again; it is started in a new pod in a moment.
        Restarting = "Restarting",
        /// Progressing=False: the worker crashes again and again; `spec.worker.restarts` is used up and its kubelet, which
        /// waits longer each time, starts it.
        RestartLimitExceeded = "RestartLimitExceeded",
        /// Progressing=False: a phase or role that this operator does not know; nothing is touched.
        UnknownPhase = "UnknownPhase",
        /// HandoverCapable: the worker speaks the contract and has state.
        ContractSpoken = "ContractSpoken",
        /// HandoverCapable=False: the worker speaks no contract or has no state.
        NoContract = "NoContract",
        /// HandoverCapable=False: the worker speaks another version of the contract.
        ContractVersion = "ContractVersion",
        /// HandoverCapable=False: the hub says `handover: false`.
        HandoverDisabled = "HandoverDisabled",
        /// Upgraded: the owner runs the code of its hub.
        UpToDate = "UpToDate",
        /// Upgraded=False: the owner runs an older code of its hub. Progressing=False: and does not get the new one now.
        UpgradePending = "UpgradePending",
        /// Upgraded=False: the last upgrade was undone; the message says why.
        UpgradeFailed = "UpgradeFailed",
        /// StateDurable: sidecars of other nodes have the newest checkpoint; the message says what the loss of a node may take.
        Replicated = "Replicated",
        /// StateDurable=False: other nodes are to have the newest checkpoint and do not have it yet.
        Replicating = "Replicating",
        /// StateDurable=False: the state is on one node only; the message says what a crash of the worker may take.
        NodeLocal = "NodeLocal",
        /// StateDurable=False: the state is on disk only as of the last move; a crash of the worker takes what came after.
        NotCheckpointed = "NotCheckpointed",
        /// StateDurable=False: acknowledged state may be missing since a recovery; see `status.mayMiss`.
        StateLost = "StateLost",
        /// StateDurable: there is no state to lose.
        Stateless = "Stateless",
    }
}

vocabulary! {
    /// Why a migration was aborted or failed.
    MoveReason {
        /// A person asked for it.
        Cancelled = "Cancelled",
        /// The plan no longer wants it, for example after an uncordon; nothing had been frozen.
        Withdrawn = "Withdrawn",
        /// `spec.hubName` was changed back, or the hub that it named is gone.
        HubChanged = "HubChanged",
        /// `spec.migration.deadlineSeconds` ran out.
        DeadlineExceeded = "DeadlineExceeded",
        /// The target's pod runs and its worker did not become ready in time.
        TargetNotReady = "TargetNotReady",
        /// The target's pod cannot start, or crashes again and again; the message has the kubelet's words.
        TargetFailed = "TargetFailed",
        /// The target's pod is gone.
        TargetLost = "TargetLost",
        /// The target's pod got no room on its node.
        NoRoom = "NoRoom",
        /// The namespace's quota does not allow the target.
        QuotaExceeded = "QuotaExceeded",
        /// The source did not suspend or capture within `stateQueryTimeoutMilliseconds`.
        StateQueryTimeout = "StateQueryTimeout",
        /// The captured state waited longer than `stateTTLMilliseconds`.
        StateTTLExpired = "StateTTLExpired",
        /// The target's worker refused the state; the message is its own.
        ImportRefused = "ImportRefused",
        /// The target's worker failed to take the state, also when tried again.
        ImportFailed = "ImportFailed",
        /// The source's worker failed to give its state.
        CaptureFailed = "CaptureFailed",
        /// The source's pod is gone, or its record.
        SourceLost = "SourceLost",
        /// No move: an owner had fenced itself and was granted again.
        Regrant = "Regrant",
    }
}

vocabulary! {
    /// Why acknowledged requests may be missing after a recovery.
    LossReason {
        /// The owner's node is gone for good.
        NodeLost = "NodeLost",
        /// The owner's pod was deleted and its state could not be handed over in time.
        PodDeleted = "PodDeleted",
        /// The owner's record is gone: its volume was lost or its node installed again.
        RecordLost = "RecordLost",
        /// The owner's worker crashed with its state.
        WorkerCrashed = "WorkerCrashed",
        /// The target was lost after it may have acknowledged; recovered from the sealed source.
        TargetLost = "TargetLost",
    }
}

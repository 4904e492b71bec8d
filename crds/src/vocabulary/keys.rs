//! Keys of labels, annotations and finalizers.

/// Annotations of a person: wishes and statements. The operator removes a wish when it is done.
pub mod annotation {
    /// On a `HubProcess`: move it to the node named in the value.
    pub const MOVE_TO: &str = "processhub.io/move-to";
    /// On a `HubProcess`: cancel the move that is under way, unless it is committed.
    pub const CANCEL_MIGRATION: &str = "processhub.io/cancel-migration";
    /// On a `ProcessHub` or a `HubProcess`, value `true`: no move is begun; one that has begun still ends. It stays
    /// until a person removes it.
    pub const PAUSED: &str = "processhub.io/paused";
    /// On a `HubProcess`: the incarnation with the pod UID in the value is dead; a person vouches for it.
    pub const CONFIRMED_DEAD: &str = "processhub.io/confirmed-dead";
    /// Not a wish: on a `HubProcess` that its hub lists the operator notes here the keys of the labels that it took from
    /// the list, so that it takes away what is not listed any more and leaves what others put there.
    pub const LISTED_LABELS: &str = "processhub.io/listed-labels";
}

/// Labels that the operator puts on what it creates. The prefix is reserved.
pub mod label {
    /// The prefix that only the operator may use.
    pub const PREFIX: &str = "processhub.io/";
    /// Name of the hub.
    pub const HUB: &str = "processhub.io/hub";
    /// Name of the process.
    pub const PROCESS: &str = "processhub.io/process";
    /// UID of the `HubProcess`: a new object of the same name is another process.
    pub const PROCESS_UID: &str = "processhub.io/process-uid";
    /// The epoch that an incarnation was created with.
    pub const EPOCH: &str = "processhub.io/epoch";
    /// Name of the code that a pod was made from, one of the hub's `status.revisions`.
    pub const REVISION: &str = "processhub.io/revision";
    /// The installation that owns the object.
    pub const CLASS: &str = "processhub.io/class";
}

/// Finalizers.
pub mod finalizer {
    /// On the pods of cold-swap hubs only: keeps the object until the kubelet has reported every container terminated,
    /// also against a forced deletion.
    pub const COLD_SWAP: &str = "processhub.io/cold-swap";
}

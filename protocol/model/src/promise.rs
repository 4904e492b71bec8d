//! What is promised, as conditions on states and steps.

use processhub_protocol::fence::Role;
use processhub_protocol::ledger::{Kind, Migration, Phase};

use processhub_protocol::rules::{Rule, enforced};

use crate::model::Model;
use crate::names;
use crate::state::{Mode, Pod, State};

/// What was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Promise {
    /// Two incarnations acknowledge requests.
    Singular,
    /// The incarnation that serves misses an acknowledged write, and nobody said so.
    Kept,
    /// A source was deleted before its successor had the state and was active.
    SourceStays,
    /// An epoch was taken twice, or lowered.
    FreshEpoch,
    /// Cold swap: two workers exist at once.
    Alone,
    /// Requests are forwarded by a standby, downwards, or in a circle.
    ForwardUp,
    /// The source is dead, the target holds the complete state, and it was given up all the same.
    NotGivenUp,
    /// A decision does not apply to the ledger that it was made on.
    Applies,
    /// From here the process never again has exactly one serving owner, or, deleted, never none.
    Ends,
}

impl Promise {
    /// The broken promise in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Singular => "two incarnations acknowledge requests at once",
            Self::Kept => "the serving incarnation misses an acknowledged write, and nothing says so",
            Self::SourceStays => "the source was deleted before its successor held the state and was active",
            Self::FreshEpoch => "an epoch was used twice",
            Self::Alone => "two workers exist at once, for which cold swap was chosen",
            Self::ForwardUp => "requests are forwarded downwards, in a circle, or by one that never owned",
            Self::NotGivenUp => {
                "the source is dead, the target holds the complete state, and it was given up"
            }
            Self::Applies => "a decision does not apply to the ledger that it was made on",
            Self::Ends => {
                "stuck: no continuation ever leads to exactly one serving owner again, nor to none of a deleted process"
            }
        }
    }
}

/// Whether a pod acknowledges requests.
pub fn serves(model: &Model, pod: &Pod) -> bool {
    pod.runs()
        && pod.worker.mode == Mode::Active
        && matches!(model.records.get(pod.record).role, Role::Active { .. })
        && (!model.config.leased || pod.lease > 0 || model.config.stalls || !enforced(Rule::HeldLease))
}

/// Whether an answer of this pod gets to its client: where it waits for a holder, if that takes what the pod has.
pub fn acknowledges(model: &Model, state: &State, pod: &Pod) -> bool {
    serves(model, pod)
        && (!model.config.replicated
            || match &model.records.get(pod.record).role {
                Role::Active { epoch, .. } => {
                    state.replica.offered(names::small(*epoch), pod.worker.writes).is_some()
                }
                Role::Standby
                | Role::Delivered { .. }
                | Role::Frozen { .. }
                | Role::Forwarding { .. }
                | Role::Retired { .. } => false,
            })
}

/// The promises that hold in every state: singularity, and that nothing acknowledged is missing.
pub fn broken(model: &Model, state: &State) -> Option<Promise> {
    let exists = |pod: &&Pod| pod.runs() && !matches!(pod.worker.mode, Mode::Gated | Mode::Ended);
    let workers = state.pods.iter().filter(exists).count();
    if model.config.kind == Kind::ColdSwap && workers > 1 {
        return Some(Promise::Alone);
    }
    let mut serving = state.pods.iter().filter(|pod| acknowledges(model, state, pod));
    let first = serving.next()?;
    if serving.next().is_some() {
        return Some(Promise::Singular);
    }
    let missing = state.acknowledged & !state.excused & !first.worker.writes;
    // What its sidecar will report is not left to be found out.
    let told = crate::effects::lost_writes(state, first.worker.writes, first.lost);
    (missing & !told != 0).then_some(Promise::Kept)
}

/// Whether everything has come to rest: one owner, serving where the ledger and the stable address say, and nobody else;
/// or, where the process was deleted, nobody at all.
pub fn rests(model: &Model, state: &State) -> bool {
    if state.deleted {
        return state.pods.iter().all(|pod| !pod.runs());
    }
    let ledger = model.ledgers.get(state.ledger.ledger);
    let Some(owner) = &ledger.owner else {
        return false;
    };
    let slot = names::slot(&owner.pod.uid);
    ledger.migration.is_none()
        && state.routed == slot
        && state.pods.iter().enumerate().all(|(at, pod)| {
            if at == usize::from(slot) {
                let serving = matches!(
                    model.records.get(pod.record).role,
                    Role::Active { epoch, .. } if epoch == owner.epoch
                );
                serving && acknowledges(model, state, pod)
            } else {
                !pod.runs()
            }
        })
}

/// Whether the pod in `slot` may be deleted: not the owner; and of the move under way not the source, unless its
/// successor was active, or, where the old worker ends before the new one starts, has persisted the state. A deletion
/// that comes late was right if it was right for an earlier successor.
pub fn may_delete(model: &Model, state: &State, slot: names::Slot, late: bool) -> bool {
    let ledger = model.ledgers.get(state.ledger.ledger);
    let Some(owner) = &ledger.owner else {
        return true;
    };
    let pod = &state.pods[usize::from(slot)];
    if names::slot(&owner.pod.uid) == slot {
        // Only a pod that lost its record with its volume owns nothing that could be kept.
        return model.records.get(pod.record).record != owner.record;
    }
    let Some(migration) = &ledger.migration else {
        return true;
    };
    if migration.source.as_ref().is_none_or(|source| names::slot(&source.uid) != slot) {
        return true;
    }
    (late && pod.released) || released(model, state, migration)
}

/// Whether the source of a move may go.
pub fn released(model: &Model, state: &State, migration: &Migration) -> bool {
    let Phase::Committed { state: committed } = &migration.phase else {
        return false;
    };
    let Some(owner) = &model.ledgers.get(state.ledger.ledger).owner else {
        return false;
    };
    let successor = &state.pods[usize::from(names::slot(&owner.pod.uid))];
    let held = match &model.records.get(successor.disk).role {
        Role::Delivered { state, .. } => Some(state),
        Role::Standby
        | Role::Active { .. }
        | Role::Frozen { .. }
        | Role::Forwarding { .. }
        | Role::Retired { .. } => None,
    };
    successor.activated || (model.config.kind == Kind::ColdSwap && committed.as_ref() == held)
}

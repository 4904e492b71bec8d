//! The replicas of a process: who is to hold them, and what is recovered from them.

use std::collections::BTreeMap;

use super::{Effect, View};
use crate::fence::Role;
use crate::id::{Epoch, PodUid, StateId};
use crate::ledger::{PodRef, Transition};
use crate::replica::{Mark, Sealed};

/// What is known of the replicas.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ReplicasSeen {
    /// Who is to hold them; absent where that is not known.
    pub choice: Option<Vec<PodRef>>,
    /// What became of asking each holder that the ledger names, for the recovery under way; empty before that.
    pub holders: BTreeMap<PodUid, HolderSeen>,
    /// Whether those that do not answer have been waited for long enough.
    pub given_up: bool,
}

/// A holder, as it was asked for what it has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HolderSeen {
    /// It does not answer.
    Silent,
    /// It is gone, and what it had with it.
    Gone,
    /// It takes nothing of an older epoch any more.
    Sealed(Sealed),
}

/// What is to be done for the replicas of an owner that serves, whatever else is done: beside the effects of
/// [`super::next`], and before them.
///
/// A set is in the ledger before its owner is told of it, and goes from there only when another one is known to hold
/// everything: whoever recovers the process finds every set there under which something may have been acknowledged.
#[must_use]
pub fn replication(view: &View) -> Option<Effect> {
    let owner = view.ledger.owner.as_ref()?;
    if !view.leading || view.history_rewound() {
        return None;
    }
    let report = view.owner.report().filter(|report| report.record == owner.record)?;
    let replicas = report.replicas.as_ref()?;
    let (choice, ledger) = (view.replicas.choice.as_ref()?, &view.ledger.replicas);
    match report.role {
        Role::Active { epoch, .. } if epoch == owner.epoch => {
            if ledger.in_force() != Some(choice) {
                return Some(Effect::Write(Transition::Replicate { holders: choice.clone() }));
            }
            if replicas.generation != Some(ledger.generation) {
                return Some(Effect::Replicate { epoch });
            }
            let settled = ledger.sets.len() > 1 && !choice.is_empty() && replicas.complete;
            settled.then_some(Effect::Write(Transition::Replicated))
        }
        Role::Active { .. }
        | Role::Standby
        | Role::Delivered { .. }
        | Role::Frozen { .. }
        | Role::Forwarding { .. }
        | Role::Retired { .. } => None,
    }
}

/// What a recovery does about the replicas.
pub(super) enum Recovery<'a> {
    /// There are none, or none of them has what the sealed source has not.
    None,
    /// They have to be asked.
    Ask,
    /// One that does not answer may have what the others have not.
    Wait,
    /// The newest state is this holder's.
    From(&'a PodUid, &'a StateId),
}

/// `sealed`: the epoch at which a source was sealed that still has its state.
pub(super) fn recovery(view: &View, sealed: Option<Epoch>) -> Recovery<'_> {
    let holders = view.ledger.replicas.holders();
    if holders.is_empty() {
        return Recovery::None;
    }
    let seen = &view.replicas.holders;
    if holders.iter().any(|pod| !seen.contains_key(&pod.uid)) {
        return Recovery::Ask;
    }
    let silent = holders.iter().any(|pod| seen.get(&pod.uid) == Some(&HolderSeen::Silent));
    if silent && !covered(view) && !view.replicas.given_up {
        return Recovery::Wait;
    }
    // What an owner kept that was sealed afterwards is all in the sealed state.
    match newest(view).filter(|(_, mark, _)| sealed.is_none_or(|sealed| mark.epoch >= sealed)) {
        Some((pod, _, state)) => Recovery::From(pod, state),
        None => Recovery::None,
    }
}

fn sealed(view: &View) -> impl Iterator<Item = (&PodUid, &Sealed)> {
    let holders = view.ledger.replicas.holders();
    view.replicas.holders.iter().filter_map(move |(pod, seen)| match seen {
        HolderSeen::Sealed(sealed) if holders.iter().any(|holder| holder.uid == *pod) => Some((pod, sealed)),
        HolderSeen::Sealed(_) | HolderSeen::Silent | HolderSeen::Gone => None,
    })
}

fn newest(view: &View) -> Option<(&PodUid, Mark, &StateId)> {
    let states = sealed(view).filter_map(|(pod, sealed)| {
        let (mark, state) = sealed.newest.as_ref()?;
        Some((pod, *mark, state))
    });
    states.max_by_key(|(_, mark, _)| *mark)
}

fn covered(view: &View) -> bool {
    let has = |uid: &PodUid| matches!(view.replicas.holders.get(uid), Some(HolderSeen::Sealed(sealed)) if sealed.newest.is_some());
    view.ledger.replicas.covered_by(has)
}

/// Whether nothing that was acknowledged is missing in `state`: it is the newest, and every answer waited for a holder that
/// was asked.
pub(super) fn vouched(view: &View, state: Option<&StateId>) -> bool {
    let exposed = sealed(view).any(|(_, sealed)| sealed.exposed);
    covered(view) && !exposed && state.is_some() && newest(view).map(|(_, _, state)| state) == state
}

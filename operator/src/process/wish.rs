//! When a wish of a person is done, or cannot be followed. Pure.

use processhub_crds::vocabulary::{ProcessReason, annotation};
use processhub_protocol::ledger::Phase;

use super::observation::Observation;
use super::words::move_reason;

/// A wish that is to be removed from the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The annotation.
    pub annotation: &'static str,
    /// Its value; another one that was written meanwhile stays.
    pub value: String,
    /// Why it was not followed; `None` if it was.
    pub refused: Option<String>,
}

/// The wishes on the object that are done or cannot be followed. A wish is one attempt: once its move is committed or
/// being undone, the ledger alone says what happens, and the annotation is removed before that move ends. So no operator
/// that finds it later carries it out again.
#[must_use]
pub fn settled(seen: &Observation) -> Vec<Settled> {
    move_to(seen).into_iter().chain(cancel(seen)).collect()
}

fn move_to(seen: &Observation) -> Option<Settled> {
    let wish = seen.annotation(annotation::MOVE_TO)?;
    let settled =
        |refused| Some(Settled { annotation: annotation::MOVE_TO, value: wish.to_owned(), refused });
    if let Some(migration) = &seen.ledger.migration {
        // Also one that was begun for another reason and goes where the person wants it.
        let the_one = migration.target_node == wish;
        return match &migration.phase {
            Phase::Committed { .. } if the_one => settled(None),
            Phase::Aborted { reason, .. } if the_one => {
                settled(Some(format!("the move to {wish} was undone: {}", move_reason(*reason))))
            }
            Phase::Prepared | Phase::Committed { .. } | Phase::Aborted { .. } => None,
        };
    }
    let status = seen.object.status.as_ref();
    let last = status.and_then(|status| status.last_migration.as_ref());
    let owner = seen.ledger.owner.as_ref()?;
    if owner.pod.node == wish {
        let moved =
            last.is_some_and(|last| last.target.node.as_deref() == Some(wish) && last.source.is_some());
        return settled((!moved).then(|| format!("same_node: it is on {wish} already")));
    }
    let held = seen.assignment.as_ref().and_then(|assignment| assignment.held.as_ref())?;
    let refusal = matches!(
        held.reason,
        ProcessReason::NotAMember | ProcessReason::NoTargetNodes | ProcessReason::Draining
    );
    if refusal { settled(Some(format!("{}: {}", held.reason, held.message))) } else { None }
}

fn cancel(seen: &Observation) -> Option<Settled> {
    let value = seen.annotation(annotation::CANCEL_MIGRATION)?;
    let phase = seen.ledger.migration.as_ref().map(|migration| &migration.phase);
    let refused = match phase {
        Some(Phase::Prepared) => return None,
        Some(Phase::Aborted { .. }) | None => None,
        Some(Phase::Committed { .. }) => Some("the move is committed: it can only go forward".to_owned()),
    };
    Some(Settled { annotation: annotation::CANCEL_MIGRATION, value: value.to_owned(), refused })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assignments::{Assignment, Held};
    use crate::process::observation::tests::seen;
    use crate::process::record::tests::{commit, end, owner_pod, prepare, started};
    use kube::ResourceExt;
    use processhub_protocol::ledger::{AbortReason, Kind, MoveResult, Transition};

    fn wishing(transitions: &[Transition], key: &str, value: &str) -> Observation {
        let mut seen = seen(transitions, 0);
        seen.object.annotations_mut().insert(key.into(), value.into());
        seen
    }

    fn refusals(seen: &Observation) -> Vec<Option<String>> {
        settled(seen).into_iter().map(|settled| settled.refused).collect()
    }

    #[test]
    fn a_wish_stands_until_its_move_is_committed_and_another_one_beyond_that() {
        let mut steps = started();
        assert_eq!(refusals(&wishing(&steps, annotation::MOVE_TO, "n9")), []);
        steps.push(prepare(Kind::HotSwap, Some(owner_pod())));
        assert_eq!(refusals(&wishing(&steps, annotation::MOVE_TO, "n4")), []);
        steps.push(commit(2, None, None));
        assert_eq!(refusals(&wishing(&steps, annotation::MOVE_TO, "n4")), [None]);
        assert_eq!(refusals(&wishing(&steps, annotation::MOVE_TO, "n9")), []);
        steps.push(end(MoveResult::Succeeded));
        assert_eq!(refusals(&wishing(&steps, annotation::MOVE_TO, "n4")), [None]);
    }

    #[test]
    fn a_wish_for_the_node_where_it_is_is_refused_by_name() {
        let refused = refusals(&wishing(&started(), annotation::MOVE_TO, "n4"));
        assert!(refused[0].as_ref().unwrap().starts_with("same_node"));
    }

    #[test]
    fn a_wish_that_the_planner_cannot_follow_is_refused_and_one_that_has_to_wait_stands() {
        let mut seen = wishing(&started(), annotation::MOVE_TO, "n9");
        let held = |reason| Some(Held { reason, message: "n9 is not there".into() });
        seen.assignment = Some(Assignment { held: held(ProcessReason::NotAMember), ..Assignment::default() });
        assert_eq!(refusals(&seen), [Some("not_a_member: n9 is not there".into())]);
        seen.assignment = Some(Assignment { held: held(ProcessReason::Deferred), ..Assignment::default() });
        assert_eq!(refusals(&seen), []);
    }

    #[test]
    fn a_wish_is_one_attempt() {
        let mut steps = started();
        steps.push(prepare(Kind::HotSwap, Some(owner_pod())));
        steps.push(Transition::Abort { reason: AbortReason::ImportRefused });
        let seen = wishing(&steps, annotation::MOVE_TO, "n4");
        assert_eq!(refusals(&seen), [Some("the move to n4 was undone: ImportRefused".into())]);
        steps.push(end(MoveResult::Aborted));
        let seen = wishing(&steps, annotation::MOVE_TO, "n9");
        assert_eq!(refusals(&seen), [], "one that is made after that is another attempt");
    }

    #[test]
    fn a_cancellation_is_done_once_the_move_is_being_undone_and_refused_after_the_commit() {
        let mut steps = started();
        assert_eq!(refusals(&wishing(&steps, annotation::CANCEL_MIGRATION, "")), [None]);
        steps.push(prepare(Kind::HotSwap, Some(owner_pod())));
        assert_eq!(refusals(&wishing(&steps, annotation::CANCEL_MIGRATION, "")), []);
        let mut aborted = steps.clone();
        aborted.push(Transition::Abort { reason: AbortReason::Cancelled });
        assert_eq!(refusals(&wishing(&aborted, annotation::CANCEL_MIGRATION, "")), [None]);
        steps.push(commit(2, None, None));
        assert!(refusals(&wishing(&steps, annotation::CANCEL_MIGRATION, ""))[0].is_some());
    }
}

use super::*;
use crate::assignments::Assignment;
use crate::plan::Child;
use crate::plan::fixture::{Populate, go, inputs, moving};

fn world() -> Inputs {
    let mut inputs = inputs(2, &["n1", "n2"]);
    inputs.serving("cart-0", "n1");
    inputs.serving("cart-1", "n1");
    inputs
}

fn judge(inputs: &Inputs, assignments: &[(&str, Assignment)]) -> Vec<Defect> {
    let assignments = assignments.iter().map(|(name, it)| ((*name).to_owned(), it.clone())).collect();
    lint(inputs, &Plan { assignments, ..Plan::default() })
}

#[test]
fn a_good_plan_has_no_defect() {
    assert_eq!(judge(&world(), &[("cart-0", go("n2"))]), []);
}

#[test]
fn unfit_targets_are_found() {
    let mut inputs = world();
    inputs.nodes.get_mut("n2").unwrap().unschedulable = true;
    let unfit = |node: &str| Defect::UnfitTarget { process: "cart-0".into(), node: node.into() };
    assert_eq!(judge(&inputs, &[("cart-0", go("n2"))]), [unfit("n2")]);
    assert_eq!(judge(&inputs, &[("cart-0", go("n9"))]), [unfit("n9")]);
}

#[test]
fn too_many_moves_are_found_in_the_hub_and_at_a_node() {
    let both = [("cart-0", go("n2")), ("cart-1", go("n2"))];
    let defects = judge(&world(), &both);
    assert!(defects.contains(&Defect::TooMany { moves: 2, limit: 1 }), "{defects:?}");
    let at = |node: &str| Defect::TooManyAtNode { node: node.into(), moves: 2, limit: 1 };
    assert!(defects.contains(&at("n1")) && defects.contains(&at("n2")));
    // What is under way already is nobody's fault.
    let mut inputs = world();
    for name in ["cart-0", "cart-1"] {
        inputs.facts(name).moving = Some(moving("n1", "n2", MovingPhase::Prepared));
    }
    assert_eq!(judge(&inputs, &[]), []);
}

#[test]
fn a_second_move_and_a_move_to_nowhere_are_found() {
    let mut inputs = world();
    assert_eq!(judge(&inputs, &[("cart-0", go("n1"))]), [Defect::Nowhere("cart-0".into())]);
    inputs.facts("cart-0").moving = Some(moving("n1", "n2", MovingPhase::Committed));
    let defects = judge(&inputs, &[("cart-0", go("n2"))]);
    assert!(defects.contains(&Defect::TwoMoves("cart-0".into())));
}

#[test]
fn a_withdrawal_of_what_cannot_be_withdrawn_is_found() {
    let mut inputs = world();
    let give_up = Assignment { give_up: Some(AbortReason::Withdrawn), ..Assignment::default() };
    let defect = [Defect::Unwithdrawable("cart-0".into())];
    assert_eq!(judge(&inputs, &[("cart-0", give_up.clone())]), defect);
    inputs.facts("cart-0").moving = Some(moving("n1", "n2", MovingPhase::Frozen));
    assert_eq!(judge(&inputs, &[("cart-0", give_up.clone())]), defect);
    inputs.facts("cart-0").moving = Some(moving("n1", "n2", MovingPhase::Prepared));
    assert_eq!(judge(&inputs, &[("cart-0", give_up)]), []);
}

#[test]
fn decisions_about_the_unknown_the_deleted_and_others_processes_are_found() {
    let mut inputs = world();
    inputs.processes.get_mut("cart-0").unwrap().facts = None;
    assert_eq!(judge(&inputs, &[("cart-0", go("n2"))]), [Defect::NotObserved("cart-0".into())]);

    let mut inputs = world();
    inputs.processes.get_mut("cart-0").unwrap().managed = false;
    inputs.taken.insert("cart-2".into(), "other".into());
    let mut plan = Plan::default();
    plan.children.delete = vec!["cart-0".into(), "cart-1".into()];
    plan.children.create =
        [("cart-1".to_owned(), Child::default()), ("cart-2".to_owned(), Child::default())].into();
    plan.assignments.insert("cart-1".into(), go("n2"));
    let created = |name: &str| Defect::CreatedTwice(name.into());
    assert_eq!(
        lint(&inputs, &plan),
        [
            Defect::MovedAndDeleted("cart-1".into()),
            Defect::NotOurs("cart-0".into()),
            created("cart-1"),
            created("cart-2"),
        ]
    );
}

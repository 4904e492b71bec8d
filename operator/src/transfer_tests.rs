use serde_json::json;

use super::*;
use crate::assignments::Go;
use processhub_crds::MigrationTrigger;
use processhub_protocol::id::Epoch;
use processhub_protocol::ledger::Kind;

const CLASS: &str = "default";

fn hub(name: &str, worker: serde_json::Value) -> ProcessHub {
    let mut hub: ProcessHub = serde_json::from_value(json!({
        "apiVersion": "processhub.io/v1alpha1", "kind": "ProcessHub",
        "metadata": { "name": name, "namespace": "shop", "uid": format!("{name}-uid") },
        "spec": { "worker": worker,
                  "template": { "spec": { "containers": [{ "name": "worker", "image": "cart:1" }] } } },
    }))
    .unwrap();
    hub.spec.class_name = CLASS.into();
    hub
}

/// One of hub `cart` that is to go to hub `till`, which is among its owners already.
fn process() -> HubProcess {
    serde_json::from_value(json!({
        "apiVersion": "processhub.io/v1alpha1", "kind": "HubProcess",
        "metadata": { "name": "guest", "namespace": "shop", "uid": "guest", "ownerReferences": [
            { "apiVersion": "processhub.io/v1alpha1", "kind": "ProcessHub", "name": "till", "uid": "till-uid" }] },
        "spec": { "hubName": "till" },
        "status": { "epoch": 1, "owner": { "pod": "guest-1", "uid": "p", "recordId": "r", "node": "n1",
                    "ip": "10.0.0.1", "epoch": 1, "hub": "cart" } },
    }))
    .unwrap()
}

fn go(hub: &str, trigger: MigrationTrigger) -> Assignment {
    let go = Go {
        kind: Kind::HotSwap,
        node: "n2".into(),
        trigger,
        revision: String::new(),
        epoch: Epoch(1),
        hub: hub.into(),
    };
    Assignment { go: Some(go), ..Assignment::default() }
}

fn farewell() -> Assignment {
    Assignment { lets_go: true, ..Assignment::default() }
}

fn decide(process: &HubProcess, from: Option<&ProcessHub>, to: Option<&ProcessHub>) -> Option<Assignment> {
    let away = Some(go("till", MigrationTrigger::Transfer));
    Sides { from, home: Some(farewell()), to, away }.assignment(process, CLASS)
}

fn refused(process: &HubProcess, from: Option<&ProcessHub>, to: Option<&ProcessHub>) -> String {
    let held = decide(process, from, to).unwrap().held.unwrap();
    assert_eq!(held.reason, ProcessReason::TransferRefused);
    assert!(
        held.message.ends_with("or change spec.hubName back to cart, where it serves on"),
        "{}",
        held.message
    );
    held.message
}

#[test]
fn a_process_is_of_its_owners_hub_and_bound_for_the_one_that_it_names() {
    let mut process = process();
    assert_eq!((holder(&process), destination(&process)), ("cart", Some("till")));
    process.spec.hub_name = "cart".into();
    assert_eq!((holder(&process), destination(&process)), ("cart", None));
    process.status.as_mut().unwrap().owner.as_mut().unwrap().hub.clear();
    assert_eq!((holder(&process), destination(&process)), ("cart", None), "not written down yet");
    process.status = None;
    process.spec.hub_name = "till".into();
    assert_eq!((holder(&process), destination(&process)), ("till", None), "not started yet");
}

#[test]
fn it_goes_when_its_hub_lets_it_go_and_the_other_one_takes_it() {
    let (cart, till) = (hub("cart", json!({})), hub("till", json!({})));
    let goes = Some(go("till", MigrationTrigger::Transfer));
    assert_eq!(decide(&process(), Some(&cart), Some(&till)), goes);
    assert_eq!(decide(&process(), None, Some(&till)), goes, "a hub that is gone holds nobody back");

    let sides = |home, away| Sides { from: Some(&cart), home, to: Some(&till), away };
    let kept = Some(Assignment::default());
    let away = || Some(go("till", MigrationTrigger::Transfer));
    assert_eq!(sides(kept.clone(), away()).assignment(&process(), CLASS), kept);
    assert_eq!(sides(None, away()).assignment(&process(), CLASS), None, "its hub has not planned yet");
    assert_eq!(sides(Some(farewell()), None).assignment(&process(), CLASS), None, "nor the other one");

    let mut unadopted = process();
    unadopted.metadata.owner_references = None;
    assert_eq!(decide(&unadopted, Some(&cart), Some(&till)), kept, "it would be collected with its hub");
}

#[test]
fn what_has_to_be_moved_where_it_is_does_not_wait_for_another_hub() {
    let (cart, till) = (hub("cart", json!({})), hub("till", json!({})));
    let home = Some(go("cart", MigrationTrigger::Drain));
    let away = Some(go("till", MigrationTrigger::Transfer));
    let sides = Sides { from: Some(&cart), home: home.clone(), to: Some(&till), away };
    assert_eq!(sides.assignment(&process(), CLASS), home);
}

#[test]
fn a_move_under_way_is_judged_by_the_hub_that_makes_it() {
    let (cart, till) = (hub("cart", json!({})), hub("till", json!({})));
    let mut moving = process();
    let gives_up = Assignment {
        give_up: Some(processhub_protocol::ledger::AbortReason::Withdrawn),
        ..go("till", MigrationTrigger::Transfer)
    };
    for (into, gives) in [("till", true), ("cart", false)] {
        moving.status.as_mut().unwrap().migration = serde_json::from_value(json!({
            "epoch": 2, "kind": "HotSwap", "phase": "Prepared", "trigger": "Transfer", "withState": true,
            "target": { "pod": "guest-2", "epoch": 2, "hub": into },
            "startTime": "2026-01-01T00:00:00Z", "deadline": "2026-01-01T00:10:00Z",
        }))
        .unwrap();
        let (home, away) = (Some(Assignment::default()), Some(gives_up.clone()));
        let decided =
            Sides { from: Some(&cart), home, to: Some(&till), away }.assignment(&moving, CLASS).unwrap();
        assert_eq!(decided.give_up.is_some(), gives, "into {into}");
        assert_eq!(decided.go, None);
    }
}

#[test]
fn a_hub_that_cannot_take_it_is_named_with_the_remedy() {
    let (cart, till) = (hub("cart", json!({})), hub("till", json!({})));
    let missing = refused(&process(), Some(&cart), None);
    assert!(missing.starts_with("there is no ProcessHub till in this namespace: create it"), "{missing}");
    let mut deleted = till.clone();
    deleted.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
    assert!(refused(&process(), Some(&cart), Some(&deleted)).contains("is being deleted"));
    let mut stranger = till.clone();
    stranger.spec.class_name = "other".into();
    assert!(refused(&process(), Some(&cart), Some(&stranger)).contains("spec.className"));
    let headless = hub("till", json!({ "service": "Headless" }));
    assert!(refused(&process(), Some(&cart), Some(&headless)).contains("spec.worker.service"));
    let tcp = hub("till", json!({ "protocol": "TCP" }));
    assert!(refused(&process(), Some(&cart), Some(&tcp)).contains("spec.worker.protocol"));
    let other_port = hub("till", json!({ "port": 9000 }));
    assert_eq!(decide(&process(), Some(&cart), Some(&other_port)).unwrap().held, None);
}

#[test]
fn what_the_other_hub_waits_for_is_said_with_the_way_back() {
    let (cart, till) = (hub("cart", json!({})), hub("till", json!({})));
    let held = Held { reason: ProcessReason::NoTargetNodes, message: "no node".into() };
    let away = Some(Assignment { held: Some(held), ..Assignment::default() });
    let sides = Sides { from: Some(&cart), home: Some(farewell()), to: Some(&till), away };
    let held = sides.assignment(&process(), CLASS).unwrap().held.unwrap();
    assert_eq!(held.reason, ProcessReason::NoTargetNodes);
    assert_eq!(held.message, "no node; or change spec.hubName back to cart, where it serves on");
}

#[test]
fn what_must_not_exist_twice_in_either_hub_moves_cold() {
    let mut cold = hub("till", json!({}));
    cold.spec.migration.strategy = MigrationStrategy::ColdSwap;
    let hot = hub("cart", json!({}));
    assert!(is_cold(&hot, &cold) && is_cold(&cold, &hot) && !is_cold(&hot, &hot));
}

use serde_json::json;

use super::*;

fn hub() -> ProcessHub {
    serde_json::from_value(json!({
        "apiVersion": "processhub.io/v1alpha1", "kind": "ProcessHub",
        "metadata": { "name": "cart", "namespace": "shop", "uid": "hub-1",
                      "labels": { "argocd.argoproj.io/instance": "shop" } },
        "spec": { "template": { "spec": { "containers": [{ "name": "worker", "image": "cart:1" }] } } },
    }))
    .unwrap()
}

fn child() -> Child {
    Child {
        config: [("size".to_owned(), json!(3))].into(),
        labels: [("team".to_owned(), "shop".to_owned())].into(),
        pin: Some("n1".into()),
        listed_labels: ["team".to_owned()].into(),
    }
}

#[test]
fn a_new_process_has_what_the_hub_lists_and_the_hub_as_its_controller() {
    let process = new(&hub(), "blue", &child());
    assert_eq!((process.spec.hub_name.as_str(), process.spec.node_name.as_deref()), ("cart", Some("n1")));
    assert_eq!(process.spec.config["size"], json!(3));
    let labels: Vec<_> = process.labels().keys().cloned().collect();
    assert_eq!(
        labels,
        ["processhub.io/hub", "team"],
        "no labels of the hub, which a GitOps tool would claim"
    );
    let owner = &process.owner_references()[0];
    assert_eq!((owner.uid.as_str(), owner.controller), ("hub-1", Some(true)));
    assert_eq!(ownership(&hub(), &process), Ownership::Managed);
    assert_eq!(adoption(&hub(), &process), None);
}

#[test]
fn a_dynamic_process_goes_with_the_hub_but_is_not_controlled_by_it() {
    let dynamic = HubProcess::new("guest", HubProcessSpec { hub_name: "cart".into(), ..Default::default() });
    let adopted = adoption(&hub(), &dynamic).unwrap();
    assert_eq!(adopted.owner_references()[0].controller, None);
    assert_eq!(ownership(&hub(), &adopted), Ownership::Dynamic);
    assert_eq!(adoption(&hub(), &adopted), None, "once");
    assert_eq!(adopted.spec, dynamic.spec, "its spec is not the operator's");
}

#[test]
fn what_an_earlier_hub_of_this_name_left_behind_is_taken_over() {
    let mut orphan = new(&hub(), "cart-0", &Child::default());
    orphan.metadata.owner_references = None;
    let adopted = adoption(&hub(), &orphan).unwrap();
    assert_eq!(ownership(&hub(), &adopted), Ownership::Managed);
}

#[test]
fn an_update_keeps_the_version_and_what_others_added() {
    let mut object = new(&hub(), "blue", &Child::default());
    object.metadata.resource_version = Some("7".into());
    object.metadata.labels.get_or_insert_default().insert("mine".into(), "yes".into());
    let updated = updated(&object, &child());
    assert_eq!(updated.resource_version().as_deref(), Some("7"));
    assert_eq!(updated.labels().keys().collect::<Vec<_>>(), ["mine", "processhub.io/hub", "team"]);
    assert_eq!(updated.spec.node_name.as_deref(), Some("n1"));
}

#[test]
fn a_label_that_is_not_listed_any_more_goes_and_what_others_added_stays() {
    let mut object = new(&hub(), "blue", &child());
    assert_eq!(object.annotations()[annotation::LISTED_LABELS], "team");
    object.metadata.labels.get_or_insert_default().insert("mine".into(), "yes".into());
    let none = updated(&object, &Child::default());
    assert_eq!(none.labels().keys().collect::<Vec<_>>(), ["mine", "processhub.io/hub"]);
    assert!(none.annotations().is_empty());
    assert_eq!(listed_labels(&updated(&none, &child())), ["team".to_owned()].into());
}

/// A listed process of hub `cart` whose owner is a pod of `held_by`, and which names `wanted`.
fn listed_of(held_by: &str, wanted: &str) -> HubProcess {
    let mut object = new(&hub(), "blue", &child());
    object.spec.hub_name = wanted.into();
    object.status = serde_json::from_value(json!({ "epoch": 1, "owner": {
        "pod": "blue-1", "uid": "p", "recordId": "r", "node": "n1", "ip": "", "epoch": 1, "hub": held_by } }))
    .unwrap();
    object
}

fn till() -> ProcessHub {
    let mut till = hub();
    (till.metadata.name, till.metadata.uid) = (Some("till".into()), Some("hub-2".into()));
    till
}

fn owners(object: &HubProcess) -> Vec<(&str, Option<bool>)> {
    object.owner_references().iter().map(|owner| (owner.name.as_str(), owner.controller)).collect()
}

#[test]
fn a_process_that_is_to_come_has_both_hubs_as_owners_until_it_has_come() {
    let leaving = listed_of("cart", "till");
    assert_eq!(adoption(&hub(), &leaving), None, "it is this hub's still");
    let both = adoption(&till(), &leaving).unwrap();
    assert_eq!(owners(&both), [("cart", Some(true)), ("till", None)]);
    assert_eq!((adoption(&hub(), &both), adoption(&till(), &both)), (None, None));

    let mut arrived = both.clone();
    arrived.status = listed_of("till", "till").status;
    let settled = adoption(&till(), &arrived).unwrap();
    assert_eq!(owners(&settled), [("till", None)]);
    assert_eq!(ownership(&till(), &settled), Ownership::Dynamic);
    let labels: Vec<_> = settled.labels().keys().collect();
    assert_eq!(labels, ["team"], "nothing says that a hub made it, or listed it");
    assert!(settled.annotations().is_empty());
    assert_eq!(adoption(&till(), &settled), None);

    let mut back = both;
    back.spec.hub_name = "cart".into();
    let stayed = adoption(&hub(), &back).unwrap();
    assert_eq!(owners(&stayed), [("cart", Some(true))], "the wish was taken back");
    assert_eq!(stayed.labels(), leaving.labels());
}

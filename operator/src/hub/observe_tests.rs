use serde_json::json;

use super::*;

fn hub() -> ProcessHub {
    serde_json::from_value(json!({
        "apiVersion": "processhub.io/v1alpha1", "kind": "ProcessHub",
        "metadata": { "name": "cart", "namespace": "shop", "uid": "hub-1",
                      "annotations": { "processhub.io/paused": "true" } },
        "spec": {
            "replicas": 1,
            "processes": [{ "name": "blue", "nodeName": "n1" }],
            "members": { "nodeSelector": { "pool": "a" } },
            "template": { "spec": {
                "nodeSelector": { "pool": "b", "disk": "ssd" },
                "tolerations": [{ "key": "gpu", "operator": "Exists" }],
                "containers": [{ "name": "worker", "image": "cart:1" }] } },
        },
    }))
    .unwrap()
}

fn process(metadata: serde_json::Value) -> HubProcess {
    serde_json::from_value(json!({
        "apiVersion": "processhub.io/v1alpha1", "kind": "HubProcess",
        "metadata": metadata, "spec": { "hubName": "cart" },
    }))
    .unwrap()
}

fn owner(uid: &str, controller: bool) -> serde_json::Value {
    json!({ "apiVersion": "processhub.io/v1alpha1", "kind": "ProcessHub", "name": "cart", "uid": uid,
            "controller": controller })
}

#[test]
fn who_made_a_process_is_read_from_its_owners() {
    let ownership = |owners: Vec<serde_json::Value>, labels: serde_json::Value| {
        let metadata = json!({ "name": "cart-0", "ownerReferences": owners, "labels": labels });
        super::ownership(&hub(), &process(metadata))
    };
    let ours = || json!({ "processhub.io/hub": "cart" });
    assert_eq!(ownership(vec![owner("hub-1", true)], ours()), Ownership::Managed);
    assert_eq!(ownership(vec![owner("hub-1", false)], json!({})), Ownership::Dynamic);
    assert_eq!(ownership(vec![], json!({})), Ownership::New);
    assert_eq!(ownership(vec![], ours()), Ownership::Orphan, "left over from a hub of this name");
    assert_eq!(ownership(vec![owner("hub-0", true)], ours()), Ownership::New, "another hub has it still");
}

#[test]
fn what_the_hub_wants_is_taken_from_spec_and_template() {
    let verdict = super::super::template::Verdict::accepted_for_tests(&hub());
    let wants = wants(&hub(), &verdict);
    assert!(wants.accepted && wants.paused && !wants.deleting);
    let selector: Vec<_> = wants.node_selector.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(
        selector,
        ["disk=ssd", "pool=a", "pool=b"],
        "a contradiction leaves no node, as the scheduler has it"
    );
    assert_eq!(wants.listed["blue"].pin.as_deref(), Some("n1"));
    assert_eq!(wants.tolerations.len(), 1);
    assert_eq!((wants.max_concurrent, wants.max_concurrent_per_node, wants.debounce), (32, 8, 500));
    assert_eq!(wanted_names(&wants).collect::<Vec<_>>(), ["cart-0", "blue"]);
}

#[test]
fn the_operators_labels_are_not_taken_for_tags() {
    let labels = BTreeMap::from([
        ("processhub.io/hub".to_owned(), "cart".to_owned()),
        ("team".to_owned(), "shop".to_owned()),
    ]);
    assert_eq!(own_labels(&labels).keys().collect::<Vec<_>>(), ["team"]);
}

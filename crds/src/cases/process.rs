//! The rules of `HubProcess`.

use serde_json::{Value, json};

use super::{Case, Expect, refused};

pub(super) fn smallest() -> Value {
    json!({
        "apiVersion": "processhub.io/v1alpha1",
        "kind": "HubProcess",
        "metadata": { "name": "cart-0" },
        "spec": { "hubName": "cart" },
    })
}

/// A process with every field.
pub(super) fn whole() -> Value {
    let mut object = smallest();
    object["spec"] = json!({ "hubName": "cart", "config": { "a": 1 }, "nodeName": "n1" });
    let mut moving = migration(5);
    let mut ended = migration(3);
    for (field, value) in [("seq", json!(9)), ("digest", json!("d")), ("bytes", json!(1))] {
        moving[field] = value.clone();
        ended[field] = value;
    }
    moving["reason"] = json!("Cancelled");
    moving["message"] = json!("asked for");
    moving["revision"] = json!("0123456789abcdef");
    moving["target"] = incarnation(5);
    ended["target"] = incarnation(3);
    for field in ["phase", "deadline", "seq"] {
        ended.as_object_mut().and_then(|fields| fields.remove(field));
    }
    ended["result"] = json!("Aborted");
    ended["reason"] = json!("ImportRefused");
    ended["message"] = json!("422");
    ended["blackoutMilliseconds"] = json!(12);
    ended["completionTime"] = json!("2026-01-01T00:01:00Z");
    object["status"] = json!({
        "observedGeneration": 1, "epoch": 5, "owner": owner(4), "migration": moving, "lastMigration": ended,
        "history": [{
            "epoch": 3, "kind": "HotSwap", "result": "Aborted", "reason": "ImportRefused", "trigger": "Wish",
            "from": "n1", "to": "n2", "blackoutMilliseconds": 12, "completionTime": "2026-01-01T00:01:00Z",
        }],
        "failedUpgrade": {
            "revision": "0123456789abcdef", "from": "1.8", "to": "1.9", "reason": "ImportRefused", "message": "422",
            "time": "2026-01-01T00:00:00Z",
        },
        "mayMiss": { "from": 7, "to": 8, "reason": "NodeLost", "time": "2026-01-01T00:00:00Z" },
        "restarts": ["2026-01-01T00:00:00Z"],
        "checkpoint": { "seq": 6, "time": "2026-01-01T00:00:00Z" },
        "replicas": { "generation": 2, "sets": [{ "holders": [{ "pod": "cart-1-3", "uid": "u", "node": "n2" }] }] },
        "conditions": [super::hub::condition()],
    });
    object
}

fn incarnation(epoch: u64) -> Value {
    json!({
        "pod": format!("cart-0-{epoch}"), "uid": "u", "node": "n2", "ip": "10.0.0.2", "epoch": epoch, "recordId": "r",
        "hub": "cart",
    })
}

fn with_status(status: Value) -> Value {
    let mut object = smallest();
    object["status"] = status;
    object
}

fn owner(epoch: u64) -> Value {
    json!({
        "pod": "cart-0-1", "uid": "u", "recordId": "r", "node": "n1", "ip": "10.0.0.1", "epoch": epoch, "vsn": "1.0",
        "revision": "0123456789abcdef", "hub": "cart", "tenure": "Fencing", "fencedAt": 4,
    })
}

fn migration(epoch: u64) -> Value {
    json!({
        "epoch": epoch, "kind": "HotSwap", "phase": "Prepared", "trigger": "Wish", "withState": true,
        "source": incarnation(1),
        "target": { "pod": format!("cart-0-{epoch}"), "node": "n2", "epoch": epoch },
        "startTime": "2026-01-01T00:00:00Z", "deadline": "2026-01-01T00:10:00Z",
    })
}

fn created(name: &str, process: &str, expect: Expect) -> Case {
    let mut object = smallest();
    object["metadata"]["name"] = json!(process);
    Case::create(name, object, expect)
}

fn written(name: &str, old: Value, new: Value, expect: Expect) -> Case {
    Case { name: name.to_owned(), old: Some(old), new, status: true, expect }
}

pub(super) fn cases() -> Vec<Case> {
    let longest = "a234567890123456789012345678901234567890";
    let mut cases = vec![
        created("the smallest process", "cart-0", Expect::Accepted),
        created("the longest name", longest, Expect::Accepted),
    ];
    for (what, name) in [
        ("a name that is too long", format!("{longest}1")),
        ("a digit in front", "1till".into()),
        ("a name with a dot", "a.b".into()),
    ] {
        cases.push(created(what, &name, refused("invalid_config: metadata.name: at most 40 characters")));
    }
    cases.extend(hub_changes());
    cases.extend(epochs());
    cases
}

fn whole_but_spec() -> Value {
    with_status(whole()["status"].take())
}

fn hub_changes() -> Vec<Case> {
    let update = |name: &str, old: Value, fields: Value, expect| {
        let mut new = old.clone();
        new["spec"] = fields;
        Case { name: name.to_owned(), old: Some(old), new, status: false, expect }
    };
    let owned = || with_status(json!({ "epoch": 1, "owner": owner(1) }));
    let moving = || with_status(json!({ "epoch": 2, "owner": owner(1), "migration": migration(2) }));
    let mut starting = moving();
    let mut leaving = moving();
    let mut unknown = owned();
    starting["status"].as_object_mut().and_then(|status| status.remove("owner"));
    unknown["status"]["owner"].as_object_mut().and_then(|owner| owner.remove("hub"));
    leaving["spec"]["hubName"] = json!("till");
    let words = "invalid_config: spec.hubName: cannot be changed";
    let to = |hub: &str| json!({ "hubName": hub });
    vec![
        update("another hub", smallest(), to("till"), Expect::Accepted),
        update("another hub than the owner's", owned(), to("till"), Expect::Accepted),
        update("another hub during a migration", moving(), to("till"), refused(words)),
        update("another hub during the first start", starting, to("till"), refused(words)),
        update("a third hub during a transfer", leaving.clone(), to("shop"), refused(words)),
        update("back during a transfer", leaving, to("cart"), Expect::Accepted),
        update("another hub while the owner's is not known", unknown, to("till"), refused(words)),
        update(
            "another configuration and node",
            smallest(),
            json!({ "hubName": "cart", "nodeName": "n1", "config": { "a": 1 } }),
            Expect::Accepted,
        ),
    ]
}

fn epochs() -> Vec<Case> {
    let owned = || with_status(json!({ "epoch": 5, "owner": owner(5) }));
    let falls = "an epoch is never lowered or removed";
    let above = "status.epoch: below the epoch of the owner or of the migration";
    vec![
        written("the first status", smallest(), owned(), Expect::Accepted),
        written("a status with every field", smallest(), whole_but_spec(), Expect::Accepted),
        written("the same epoch", owned(), owned(), Expect::Accepted),
        written(
            "a higher epoch",
            owned(),
            with_status(json!({ "epoch": 6, "owner": owner(5) })),
            Expect::Accepted,
        ),
        written(
            "a lower epoch",
            owned(),
            with_status(json!({ "epoch": 4, "owner": owner(4) })),
            refused(falls),
        ),
        written("a removed epoch", owned(), with_status(json!({})), refused(falls)),
        written("a removed status", owned(), smallest(), refused(falls)),
        written(
            "an owner above the epoch",
            owned(),
            with_status(json!({ "epoch": 5, "owner": owner(6) })),
            refused(above),
        ),
        written(
            "an owner without an epoch",
            smallest(),
            with_status(json!({ "owner": owner(1) })),
            refused(above),
        ),
        written(
            "a migration at the epoch",
            owned(),
            with_status(json!({ "epoch": 6, "owner": owner(5), "migration": migration(6) })),
            Expect::Accepted,
        ),
        written(
            "a migration above the epoch",
            owned(),
            with_status(json!({ "epoch": 5, "owner": owner(5), "migration": migration(6) })),
            refused(above),
        ),
    ]
}

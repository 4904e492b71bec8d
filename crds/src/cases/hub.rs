//! The rules of `ProcessHub`.

use serde_json::{Value, json};

use super::{Case, Expect, refused};

pub(super) fn smallest() -> Value {
    json!({
        "apiVersion": "processhub.io/v1alpha1",
        "kind": "ProcessHub",
        "metadata": { "name": "cart" },
        "spec": { "template": { "spec": { "containers": [{ "name": "worker", "image": "shop/cart:1" }] } } },
    })
}

/// A hub with every field.
pub(super) fn whole() -> Value {
    let mut object = smallest();
    object["spec"] = json!({
        "className": "default",
        "replicas": 1,
        "processes": [{ "name": "till", "config": { "a": 1 }, "labels": { "tier": "gold" }, "nodeName": "n1" }],
        "template": {
            "metadata": { "labels": { "a": "b" }, "annotations": { "a": "b" } },
            "spec": { "containers": [{ "name": "worker", "image": "shop/cart:1" }] },
        },
        "worker": {
            "port": 8080, "protocol": "TCP", "service": "ClusterIP", "drainTimeoutMilliseconds": 5000,
            "restarts": { "max": 30, "periodSeconds": 600 },
            "hold": { "requests": 256, "bytes": 8_388_608, "milliseconds": 10_000 },
        },
        "members": { "nodeSelector": { "disk": "fast" } },
        "distribution": { "strategy": "Guided" },
        "migration": {
            "strategy": "ColdSwap", "handover": false, "stateTTLMilliseconds": 30_000,
            "stateQueryTimeoutMilliseconds": 5000, "retentionMilliseconds": 5000, "maxConcurrent": 32,
            "maxConcurrentPerNode": 8, "deadlineSeconds": 600,
        },
        "vsn": "1.9",
        "upgrade": { "strategy": "ColdSwap", "maxConcurrent": 1, "partition": 0, "extra": { "a": 1 } },
        "redundancy": { "strategy": "Singularity" },
        "failover": "OnProof",
        "partitionTolerance": {
            "strategy": "DynamicQuorum", "quorumSize": 60, "thresholdSeconds": 30, "initialClusterSize": 1,
            "trackMaxSize": true,
        },
        "checkpoint": { "class": "Async", "periodMilliseconds": 1000, "replicas": 1 },
        "clusterEventDebounceMilliseconds": 500,
    });
    object["status"] = json!({
        "observedGeneration": 1, "desired": 2, "ready": 1, "moving": 1, "upgraded": 1, "replicas": 1,
        "revisions": [{ "name": "0123456789abcdef", "number": 1, "vsn": "1.9", "template": { "spec": {} } }],
        "selector": "processhub.io/hub=cart", "members": { "count": 1, "names": ["n1"] },
        "conditions": [condition()],
    });
    object
}

/// A condition with every field.
pub(super) fn condition() -> Value {
    json!({
        "type": "Ready", "status": "True", "reason": "Serving", "message": "all", "observedGeneration": 1,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    })
}

fn case(name: &str, change: impl FnOnce(&mut Value), expect: Expect) -> Case {
    let mut object = smallest();
    change(&mut object);
    Case::create(name, object, expect)
}

fn named(name: &str) -> impl FnOnce(&mut Value) + use<> {
    let name = json!(name);
    move |object| object["metadata"]["name"] = name
}

fn spec(fields: Value) -> impl FnOnce(&mut Value) {
    move |object| {
        if let (Some(spec), Value::Object(fields)) = (object["spec"].as_object_mut(), fields) {
            spec.extend(fields);
        }
    }
}

fn containers(names: &[&str]) -> impl FnOnce(&mut Value) + use<> {
    let containers: Vec<_> = names.iter().map(|name| json!({ "name": name, "image": "x" })).collect();
    move |object| object["spec"]["template"]["spec"]["containers"] = json!(containers)
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![
        case("the smallest hub", |_| {}, Expect::Accepted),
        case("a hub with every field", |object| *object = whole(), Expect::Accepted),
    ];
    cases.extend(names());
    cases.extend(redundancy());
    cases.extend(checkpoints());
    cases.extend(leases());
    cases.extend([
        case("a worker beside others", containers(&["log", "worker"]), Expect::Accepted),
        case("no worker", containers(&["log"]), refused("spec.template.spec.containers: none is named worker")),
        case(
            "a headless service with the default retention",
            spec(json!({ "worker": { "service": "Headless" } })),
            refused("invalid_config: spec.migration.retentionMilliseconds"),
        ),
        case(
            "a headless service with a long retention",
            spec(json!({ "worker": { "service": "Headless" }, "migration": { "retentionMilliseconds": 30000 } })),
            Expect::Accepted,
        ),
        case(
            "tags of a listed process",
            spec(json!({ "processes": [{ "name": "till", "labels": { "tier": "gold", "shop.io/processhub.io": "" } }] })),
            Expect::Accepted,
        ),
        case(
            "a tag with the operator's prefix",
            spec(json!({ "processes": [{ "name": "till", "labels": { "processhub.io/hub": "x" } }] })),
            refused("the prefix processhub.io/ is reserved"),
        ),
        case(
            "a name that is listed twice",
            spec(json!({ "processes": [{ "name": "till" }, { "name": "till" }] })),
            refused("spec.processes[1]: Duplicate value"),
        ),
        case(
            "any configuration",
            spec(json!({ "processes": [{ "name": "till", "config": { "a": [1, { "b": null }], "c": true } }] })),
            Expect::Accepted,
        ),
        case(
            "an upgrade by hot swaps of a hub of cold swaps",
            spec(json!({ "migration": { "strategy": "ColdSwap" }, "upgrade": { "strategy": "HotSwap" } })),
            refused("invalid_config: spec.upgrade.strategy"),
        ),
        case(
            "an upgrade in place",
            spec(json!({ "upgrade": { "strategy": "InPlace" } })),
            refused("spec.upgrade.strategy: InPlace and Live are not available in this version"),
        ),
        case(
            "a live upgrade of a hub of cold swaps",
            spec(json!({ "migration": { "strategy": "ColdSwap" }, "upgrade": { "strategy": "Live" } })),
            refused("spec.upgrade.strategy: InPlace and Live are not available in this version"),
        ),
        case(
            "an upgrade by cold swaps of a hub of hot swaps",
            spec(json!({ "upgrade": { "strategy": "ColdSwap" }, "vsn": "2.0.0-rc.1+git" })),
            Expect::Accepted,
        ),
        case(
            "an upgrade as the hub of cold swaps moves",
            spec(json!({ "migration": { "strategy": "ColdSwap" }, "upgrade": { "maxConcurrent": 3 }, "vsn": "" })),
            Expect::Accepted,
        ),
        case(
            "null where there is a default",
            spec(json!({ "redundancy": null, "migration": { "handover": null }, "worker": null, "failover": null, "checkpoint": { "class": null } })),
            Expect::Accepted,
        ),
    ]);
    cases
}

fn names() -> Vec<Case> {
    let longest = "a234567890123456789012345678901234";
    let mut cases = vec![case("the longest name", named(longest), Expect::Accepted)];
    for (what, name) in
        [("a name that is too long", format!("{longest}5")), ("a digit in front", "1cart".into())]
    {
        cases.push(case(what, named(&name), refused("invalid_config: metadata.name: at most 34 characters")));
    }
    cases.push(case("a name with a dot", named("a.b"), refused("invalid_config: metadata.name")));
    cases
}

fn checkpoints() -> Vec<Case> {
    let with = |protocol: &str, class: &str| {
        spec(json!({ "worker": { "port": 8080, "protocol": protocol }, "checkpoint": { "class": class } }))
    };
    let words = "invalid_config: spec.checkpoint.class: with spec.worker.protocol TCP";
    vec![
        case("Sync over HTTP", with("HTTP", "Sync"), Expect::Accepted),
        case("Async over TCP", with("TCP", "Async"), Expect::Accepted),
        case("Sync over TCP", with("TCP", "Sync"), refused(words)),
        case(
            "replicas of what each answer decides",
            spec(json!({ "checkpoint": { "replicas": 2 } })),
            Expect::Accepted,
        ),
        case(
            "replicas",
            spec(json!({ "checkpoint": { "class": "Async", "replicas": 1 } })),
            Expect::Accepted,
        ),
        case(
            "replicas of nothing",
            spec(json!({ "checkpoint": { "class": "None", "replicas": 1 } })),
            refused("invalid_config: spec.checkpoint.replicas: with spec.checkpoint.class None"),
        ),
    ]
}

fn leases() -> Vec<Case> {
    let with = |fields: Value| {
        move |object: &mut Value| {
            spec(fields)(object);
            spec(json!({ "failover": "OnLease" }))(object);
        }
    };
    let partition = |fields: Value| with(json!({ "partitionTolerance": fields }));
    let size = "invalid_config: spec.partitionTolerance.quorumSize";
    let words = "invalid_config: spec.failover: OnLease starts a worker beside one that may run on";
    vec![
        case("failover by lease", with(json!({})), Expect::Accepted),
        case(
            "a static quorum",
            partition(json!({ "strategy": "StaticQuorum", "quorumSize": 101 })),
            Expect::Accepted,
        ),
        case("a static quorum of no size", partition(json!({ "strategy": "StaticQuorum" })), refused(size)),
        case(
            "a dynamic quorum of more than all",
            partition(json!({ "strategy": "DynamicQuorum", "quorumSize": 101 })),
            refused(size),
        ),
        case(
            "divergence",
            partition(json!({ "strategy": "Divergence" })),
            refused("invalid_config: spec.partitionTolerance.strategy: Divergence is not available"),
        ),
        case(
            "failover by lease of cold swaps",
            with(json!({ "migration": { "strategy": "ColdSwap" } })),
            refused(words),
        ),
        case(
            "failover by lease of cold upgrades",
            with(json!({ "upgrade": { "strategy": "ColdSwap" } })),
            refused(words),
        ),
    ]
}

fn redundancy() -> Vec<Case> {
    let with = |strategy: &str, migration: Value| {
        spec(json!({ "redundancy": { "strategy": strategy }, "migration": migration }))
    };
    let both = "handover_with_replication_not_supported";
    let unavailable =
        "invalid_config: spec.redundancy.strategy: Replication is not available in this version";
    vec![
        case(
            "singularity with hand-over",
            with("Singularity", json!({ "handover": true })),
            Expect::Accepted,
        ),
        case("replication with hand-over", with("Replication", json!({ "handover": true })), refused(both)),
        case("replication without", with("Replication", json!({ "handover": false })), refused(unavailable)),
        case("replication and nothing said", with("Replication", json!({})), refused(unavailable)),
    ]
}

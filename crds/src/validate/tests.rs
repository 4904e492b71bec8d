use serde_json::{Value, json};

use super::*;

fn object() -> Value {
    json!({
        "apiVersion": "processhub.io/v1alpha1",
        "kind": "ProcessHub",
        "metadata": { "name": "cart", "namespace": "shop" },
        "spec": {
            "replicas": 2,
            "processes": [{ "name": "till", "config": { "currency": "EUR" }, "labels": { "tier": "gold" }, "nodeName": "n1" }],
            "template": { "spec": { "containers": [{ "name": "worker", "image": "shop/cart:1" }] } },
        },
    })
}

fn hub(change: impl FnOnce(&mut Value)) -> ProcessHub {
    let mut object = object();
    change(&mut object);
    serde_json::from_value(object).unwrap()
}

/// The findings about a hub after `change`, one line each.
fn findings(change: impl FnOnce(&mut Value)) -> Vec<String> {
    validate(&hub(change)).unwrap_err().errors().iter().map(ToString::to_string).collect()
}

/// Exactly one finding, in that field, with that remedy.
fn refused(change: impl FnOnce(&mut Value), field: &str, remedy: &str) {
    let found = findings(change);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with(&format!("invalid_config: {field}: ")), "{found:?}");
    assert!(found[0].contains(remedy), "{found:?}");
}

fn worker(object: &mut Value) -> &mut Value {
    &mut object["spec"]["template"]["spec"]["containers"][0]
}

#[test]
fn a_small_hub_gets_the_defaults() {
    let valid = validate(&hub(|_| {})).unwrap();
    assert_eq!(valid.class_name, "default");
    assert_eq!(
        valid.worker,
        WorkerConfig {
            port: 8080,
            protocol: Protocol::HTTP,
            service: ServiceKind::ClusterIP,
            hold_requests: 256,
            hold_bytes: 8_388_608,
            hold_time: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(5),
        }
    );
    assert_eq!(
        valid.migration,
        MigrationConfig {
            strategy: MigrationStrategy::HotSwap,
            handover: Handover::IfCapable,
            state_ttl: Duration::from_secs(30),
            state_query_timeout: Duration::from_secs(5),
            retention: Duration::from_secs(5),
            max_concurrent: 32,
            max_concurrent_per_node: 8,
            deadline: Duration::from_secs(600),
        }
    );
    assert_eq!(valid.distribution, DistributionStrategy::ConsistentHashing);
    assert_eq!(valid.debounce, Duration::from_millis(500));
}

#[test]
fn what_was_given_is_kept() {
    let valid = validate(&hub(|object| {
        object["spec"]["className"] = json!("blue");
        object["spec"]["worker"] = json!({
            "port": 9000, "protocol": "TCP", "service": "Headless", "drainTimeoutMilliseconds": 1,
            "hold": { "requests": 2, "bytes": 3, "milliseconds": 4 },
        });
        object["spec"]["members"] = json!({ "nodeSelector": { "disk": "fast" } });
        object["spec"]["distribution"] = json!({ "strategy": "Guided" });
        object["spec"]["migration"] = json!({
            "strategy": "ColdSwap", "handover": false, "stateTTLMilliseconds": 101,
            "stateQueryTimeoutMilliseconds": 102, "retentionMilliseconds": 30000, "maxConcurrent": 5,
            "maxConcurrentPerNode": 6, "deadlineSeconds": 7,
        });
        object["spec"]["clusterEventDebounceMilliseconds"] = json!(8);
    }))
    .unwrap();
    assert_eq!(valid.class_name, "blue");
    assert_eq!(valid.worker.port, 9000);
    assert_eq!(valid.worker.service, ServiceKind::Headless);
    assert_eq!(valid.worker.protocol, Protocol::TCP);
    assert_eq!((valid.worker.hold_requests, valid.worker.hold_bytes), (2, 3));
    assert_eq!(valid.worker.hold_time, Duration::from_millis(4));
    assert_eq!(valid.worker.drain_timeout, Duration::from_millis(1));
    assert_eq!(valid.node_selector["disk"], "fast");
    assert_eq!(valid.distribution, DistributionStrategy::Guided);
    let migration = valid.migration;
    assert_eq!(migration.strategy, MigrationStrategy::ColdSwap);
    assert_eq!(migration.handover, Handover::Never);
    assert_eq!(migration.state_ttl, Duration::from_millis(101));
    assert_eq!(migration.state_query_timeout, Duration::from_millis(102));
    assert_eq!(migration.retention, Duration::from_secs(30));
    assert_eq!((migration.max_concurrent, migration.max_concurrent_per_node), (5, 6));
    assert_eq!(migration.deadline, Duration::from_secs(7));
    assert_eq!(valid.debounce, Duration::from_millis(8));
}

#[test]
fn wanted_are_the_replicas_by_ordinal_and_then_the_listed_processes() {
    let wanted = validate(&hub(|_| {})).unwrap().wanted();
    let names: Vec<_> = wanted.iter().map(|process| process.name.as_str()).collect();
    assert_eq!(names, ["cart-0", "cart-1", "till"]);
    assert_eq!(wanted[2].config["currency"], "EUR");
    assert_eq!(wanted[2].labels["tier"], "gold");
    assert_eq!(wanted[2].node_name.as_deref(), Some("n1"));
}

#[test]
fn names_leave_room_for_ordinals_and_epochs_and_can_name_a_service() {
    for name in ["a2345678901234567890123456789012345", "1cart", "-cart", "cart-", "Cart", "a.b", ""] {
        refused(|object| object["metadata"]["name"] = json!(name), "metadata.name", "choose another name");
    }
    validate(&hub(|object| object["metadata"]["name"] = json!("a234567890123456789012345678901234")))
        .unwrap();
}

#[test]
fn the_last_replica_of_the_longest_hub_has_a_valid_name() {
    let longest = "a".repeat(MAX_HUB_NAME);
    assert!(names::is_name(&names::replica(&longest, MAX_REPLICAS - 1), MAX_PROCESS_NAME));
}

#[test]
fn too_many_replicas_are_refused() {
    refused(|object| object["spec"]["replicas"] = json!(100_001), "spec.replicas", "lower it");
    validate(&hub(|object| object["spec"]["replicas"] = json!(100_000))).unwrap();
}

#[test]
fn replication_with_handover_is_refused_with_the_words_of_the_seed() {
    let hub = hub(|object| {
        object["spec"]["redundancy"] = json!({ "strategy": "Replication" });
        object["spec"]["migration"] = json!({ "handover": true });
    });
    let invalid = validate(&hub).unwrap_err();
    assert_eq!(invalid.to_string(), "handover_with_replication_not_supported");
    assert_eq!(invalid.reason(), HubReason::HandoverWithReplicationNotSupported);
}

#[test]
fn replication_is_not_available() {
    for handover in [json!({}), json!({ "handover": false })] {
        refused(
            |object| {
                object["spec"]["redundancy"] = json!({ "strategy": "Replication" });
                object["spec"]["migration"] = handover;
            },
            "spec.redundancy.strategy",
            "not available in this version; use Singularity",
        );
    }
}

#[test]
fn a_headless_service_needs_a_retention_beyond_dns_caches() {
    refused(
        |object| object["spec"]["worker"] = json!({ "service": "Headless" }),
        "spec.migration.retentionMilliseconds",
        "use ClusterIP",
    );
}

#[test]
fn an_upgrade_runs_no_second_worker_in_a_hub_of_cold_swaps() {
    let with = |strategy: Option<&str>| {
        let upgrade = strategy.map_or(json!({}), |strategy| json!({ "strategy": strategy }));
        hub(|object| {
            object["spec"]["migration"] = json!({ "strategy": "ColdSwap" });
            object["spec"]["upgrade"] = upgrade;
        })
    };
    assert!(validate(&with(None)).is_ok() && validate(&with(Some("ColdSwap"))).is_ok());
    let error = validate(&with(Some("HotSwap"))).unwrap_err().to_string();
    assert_eq!(error, crate::rules::UPGRADE_OF_COLD_SWAPS, "the same words as the API server's");
}

#[test]
fn the_strategies_that_are_to_come_are_refused() {
    for strategy in ["InPlace", "Live"] {
        let hub = hub(|object| object["spec"]["upgrade"] = json!({ "strategy": strategy }));
        let error = validate(&hub).unwrap_err().to_string();
        assert_eq!(error, crate::rules::UPGRADE_TO_COME, "the same words as the API server's");
    }
}

#[test]
fn what_the_code_change_is_given_is_bounded() {
    refused(
        |object| object["spec"]["upgrade"] = json!({ "extra": { "a": "x".repeat(17 * 1024) } }),
        "spec.upgrade.extra",
        "at most 16384",
    );
}

#[test]
fn the_port_is_none_of_the_sidecars() {
    for port in [0, 9700, 9710, 9719] {
        refused(
            |object| object["spec"]["worker"] = json!({ "port": port }),
            "spec.worker.port",
            "use another port",
        );
    }
    for port in [1, 9699, 9720, 65_535] {
        validate(&hub(|object| object["spec"]["worker"] = json!({ "port": port }))).unwrap();
    }
}

#[test]
fn a_listed_name_may_not_be_that_of_a_replica_nor_occur_twice() {
    let name = "spec.processes[0].name";
    refused(|object| object["spec"]["processes"][0]["name"] = json!("cart-7"), name, "not cart-<number>");
    for free in ["cart-07", "cart-x", "cart", "cart-100000", "cart-7-1"] {
        validate(&hub(|object| object["spec"]["processes"][0]["name"] = json!(free))).unwrap();
    }
    refused(|object| object["spec"]["processes"][0]["name"] = json!("Till"), name, "choose another name");
    refused(
        |object| object["spec"]["processes"].as_array_mut().unwrap().push(json!({ "name": "till" })),
        "spec.processes[1].name",
        "listed twice",
    );
}

#[test]
fn a_configuration_is_bounded_as_a_whole() {
    let config = |bytes: usize| json!({ "k": "x".repeat(bytes - r#"{"k":""}"#.len()) });
    refused(
        |object| object["spec"]["processes"][0]["config"] = config(MAX_CONFIG_BYTES + 1),
        "spec.processes[0].config",
        "mount a ConfigMap",
    );
    validate(&hub(|object| object["spec"]["processes"][0]["config"] = config(MAX_CONFIG_BYTES))).unwrap();
}

#[test]
fn labels_are_labels_and_not_the_operators() {
    let field = "spec.processes[0].labels";
    let labels = |key: &str, value: &str| {
        let labels = json!({ key: value });
        move |object: &mut Value| object["spec"]["processes"][0]["labels"] = labels
    };
    refused(labels("processhub.io/hub", "x"), field, "prefix of your own");
    let long = "k".repeat(64);
    for key in ["", "a b", "/a", "A.b/c", "-a/b", "a-/b", "a..b/c", "a/b/c", &long] {
        refused(labels(key, "x"), field, "is not a label key");
    }
    for value in ["a b", "-a", "a-", "ü", &long] {
        refused(labels("a", value), field, "is not a label value");
    }
    for (key, value) in [("a", ""), ("a.example/B_c", "V-1.2_x"), ("processhub.iox/y", "z")] {
        validate(&hub(labels(key, value))).unwrap();
    }
    refused(
        |object| object["spec"]["members"] = json!({ "nodeSelector": { "a b": "x" } }),
        "spec.members.nodeSelector",
        "is not a label key",
    );
    // A node selector may name any label, ours as well.
    validate(&hub(|object| {
        object["spec"]["members"] = json!({ "nodeSelector": { "processhub.io/pool": "x" } });
    }))
    .unwrap();
}

#[test]
fn exactly_one_container_is_named_worker() {
    let field = "spec.template.spec.containers";
    refused(|object| worker(object)["name"] = json!("main"), field, "name the container");
    refused(
        |object| {
            let containers = &mut object["spec"]["template"]["spec"]["containers"];
            containers.as_array_mut().unwrap().push(json!({ "name": "worker" }));
        },
        field,
        "one container holds the state",
    );
    refused(|object| object["spec"]["template"] = json!({}), "spec.template.spec", "named worker");
}

#[test]
fn the_workers_pre_stop_is_reserved_and_others_keep_theirs() {
    let lifecycle = json!({ "preStop": { "sleep": { "seconds": 1 } } });
    let invalid = validate(&hub(|object| worker(object)["lifecycle"] = lifecycle.clone())).unwrap_err();
    assert_eq!(invalid.reason(), HubReason::PreStopReserved);
    assert!(
        invalid.to_string().starts_with(
            "invalid_config: spec.template.spec.containers[0].lifecycle.preStop: is reserved: the hand-over"
        ),
        "{invalid}"
    );
    validate(&hub(|object| {
        worker(object)["lifecycle"] = json!({ "postStart": { "sleep": { "seconds": 1 } } });
        let containers = &mut object["spec"]["template"]["spec"]["containers"];
        containers.as_array_mut().unwrap().push(json!({ "name": "log", "lifecycle": lifecycle }));
    }))
    .unwrap();
}

#[test]
fn what_would_break_moves_is_refused_in_the_pod() {
    for (field, value, remedy) in [
        ("hostNetwork", json!(true), "remove it"),
        ("nodeName", json!("n1"), "spec.members.nodeSelector"),
        ("restartPolicy", json!("Never"), "must be Always"),
        ("restartPolicy", json!("OnFailure"), "must be Always"),
        ("activeDeadlineSeconds", json!(60), "remove it"),
    ] {
        refused(
            |object| object["spec"]["template"]["spec"][field] = value,
            &format!("spec.template.spec.{field}"),
            remedy,
        );
    }
    validate(&hub(|object| {
        object["spec"]["template"]["spec"]["hostNetwork"] = json!(false);
        object["spec"]["template"]["spec"]["restartPolicy"] = json!("Always");
    }))
    .unwrap();
}

#[test]
fn names_variables_and_keys_of_ours_are_reserved_in_the_template() {
    let template = "spec.template.spec";
    refused(
        |object| object["spec"]["template"]["spec"]["initContainers"] = json!([{ "name": "processhub-x" }]),
        &format!("{template}.initContainers[0].name"),
        "choose another name",
    );
    refused(
        |object| object["spec"]["template"]["spec"]["volumes"] = json!([{ "name": "processhub" }]),
        &format!("{template}.volumes[0].name"),
        "choose another name",
    );
    refused(
        |object| worker(object)["env"] = json!([{ "name": "PROCESSHUB_LISTEN", "value": "x" }]),
        &format!("{template}.containers[0].env"),
        "remove it",
    );
    for map in ["labels", "annotations"] {
        refused(
            |object| object["spec"]["template"]["metadata"] = json!({ map: { "processhub.io/hub": "x" } }),
            &format!("spec.template.metadata.{map}"),
            "prefix of your own",
        );
    }
}

#[test]
fn ports_of_the_template_leave_the_sidecar_its_own() {
    let declared = |port: u16| json!([{ "containerPort": port }]);
    refused(
        |object| worker(object)["ports"] = declared(9710),
        "spec.template.spec.containers[0].ports",
        "use another port",
    );
    let other = |object: &mut Value, port: u16| {
        let containers = &mut object["spec"]["template"]["spec"]["containers"];
        containers.as_array_mut().unwrap().push(json!({ "name": "log", "ports": declared(port) }));
    };
    refused(|object| other(object, 8080), "spec.template.spec.containers[1].ports", "spec.worker.port");
    validate(&hub(|object| {
        worker(object)["ports"] = declared(8080);
        other(object, 8081);
    }))
    .unwrap();
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let found = findings(|object| {
        object["metadata"]["name"] = json!("Cart");
        object["spec"]["worker"] = json!({ "port": 9710 });
        worker(object)["name"] = json!("main");
    });
    assert_eq!(found.len(), 3, "{found:?}");
}

#[test]
fn a_process_keeps_its_tags_but_not_the_operators_labels() {
    let process: HubProcess = serde_json::from_value(json!({
        "metadata": { "name": "till", "labels": { "tier": "gold", "processhub.io/hub": "cart" } },
        "spec": { "hubName": "cart", "config": { "a": 1 }, "nodeName": "n1" },
    }))
    .unwrap();
    let valid = validate_process(&process).unwrap();
    assert_eq!(valid.labels, BTreeMap::from([("tier".to_owned(), "gold".to_owned())]));
    assert_eq!(valid.config["a"], 1);
    assert_eq!(valid.node_name.as_deref(), Some("n1"));
}

#[test]
fn a_process_with_a_long_name_or_a_large_configuration_is_refused() {
    let process: HubProcess = serde_json::from_value(json!({
        "metadata": { "name": "a".repeat(41) },
        "spec": { "hubName": "cart", "config": { "a": "x".repeat(MAX_CONFIG_BYTES) } },
    }))
    .unwrap();
    let invalid = validate_process(&process).unwrap_err();
    let fields: Vec<_> = invalid.errors().iter().map(|error| error.field.as_str()).collect();
    assert_eq!(fields, ["metadata.name", "spec.config"]);
}

//! Built-in kinds: defaults, refusals, addresses, subresources.

use crate::cases;
use crate::talk::Talk;
use serde_json::{Value, json};

cases![
    pods_get_their_defaults,
    wrong_pods_name_their_fields,
    pods_change_only_in_images,
    pods_without_node_go_at_once,
    status_writes_of_pods_touch_labels,
    pods_that_nobody_owns_any_more_are_collected,
    services_get_addresses,
    slices_are_checked,
    secrets_encode_their_text,
    both_event_versions_show_one_object,
    evictions_delete,
    tables_have_columns,
    names_are_checked,
    unserved_paths,
];

/// A pod that no scheduler takes.
pub fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"schedulerName": "nobody",
        "serviceAccountName": "default", "automountServiceAccountToken": false,
        "containers": [{"name": "worker", "image": "x:1"}]}})
}

/// Waits until the namespace takes pods: the real server wants its service account first, which a controller makes.
async fn with_account(talk: &Talk) {
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    talk.post(&talk.at("v1/serviceaccounts"), account).await;
    talk.until(&talk.at("v1/serviceaccounts/default"), 200).await;
}

async fn pods_get_their_defaults(talk: Talk) {
    with_account(&talk).await;
    let mut given = pod("a");
    given["spec"]["containers"][0]["readinessProbe"] = json!({"httpGet": {"port": 80}});
    given["spec"]["containers"][0]["ports"] = json!([{"containerPort": 80}]);
    talk.post(&talk.at("v1/pods"), given).await.is(201).has(json!({
        "metadata": {"generation": 1},
        "spec": {"restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
            "enableServiceLinks": true, "securityContext": {},
            "tolerations": [
                {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
                {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}],
            "containers": [{"imagePullPolicy": "IfNotPresent", "terminationMessagePolicy": "File", "resources": {},
                "ports": [{"protocol": "TCP"}],
                "readinessProbe": {"periodSeconds": 10, "timeoutSeconds": 1, "successThreshold": 1,
                    "failureThreshold": 3, "httpGet": {"path": "/", "scheme": "HTTP"}}}]},
        "status": {"phase": "Pending", "qosClass": "BestEffort"}}));
    talk.end().await;
}

async fn wrong_pods_name_their_fields(talk: Talk) {
    with_account(&talk).await;
    for (containers, field) in [
        (json!([]), "spec.containers"),
        (json!([{"name": "w"}]), "spec.containers[0].image"),
        (
            json!([{"name": "w", "image": "x", "ports": [{"containerPort": 70000}]}]),
            "spec.containers[0].ports[0].containerPort",
        ),
        (
            json!([{"name": "w", "image": "x", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]),
            "spec.containers[0].volumeMounts[0].name",
        ),
        (json!([{"name": "w", "image": "x"}, {"name": "w", "image": "x"}]), "spec.containers[1].name"),
    ] {
        let mut given = pod("a");
        given["spec"]["containers"] = containers;
        let refused = talk.post(&talk.at("v1/pods"), given).await.refused(422, "Invalid");
        assert_eq!(refused.fields(), [field]);
    }
    let mut unknown = pod("a");
    unknown["spec"]["containers"][0]["imagee"] = "x".into();
    let strict = talk.at("v1/pods?fieldValidation=Strict");
    talk.post(&strict, unknown)
        .await
        .refused(400, "BadRequest")
        .says("unknown field \"spec.containers[0].imagee\"");
    talk.end().await;
}

async fn pods_change_only_in_images(talk: Talk) {
    with_account(&talk).await;
    talk.post(&talk.at("v1/pods"), pod("a")).await.is(201);
    let at = talk.at("v1/pods/a");
    let image = json!({"spec": {"containers": [{"name": "worker", "image": "x:2"}]}});
    talk.patch("strategic-merge", &at, image).await.is(200).has(json!({"metadata": {"generation": 2}}));
    let env = json!({"spec": {"containers": [{"name": "worker", "env": [{"name": "A", "value": "1"}]}]}});
    let refused = talk.patch("strategic-merge", &at, env).await.refused(422, "Invalid");
    assert_eq!(refused.fields(), ["spec"]);
    talk.end().await;
}

async fn pods_without_node_go_at_once(talk: Talk) {
    with_account(&talk).await;
    talk.post(&talk.at("v1/pods"), pod("a")).await.is(201);
    talk.delete(&talk.at("v1/pods/a"), json!({})).await.is(200);
    talk.get(&talk.at("v1/pods/a")).await.refused(404, "NotFound");
    talk.end().await;
}

async fn status_writes_of_pods_touch_labels(talk: Talk) {
    with_account(&talk).await;
    talk.post(&talk.at("v1/pods"), pod("a")).await.is(201);
    let change = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"nodeName": "n"},
        "status": {"conditions": [{"type": "x.io/gate", "status": "True"}]}});
    let written = talk.patch("merge", &talk.at("v1/pods/a/status"), change).await.is(200);
    written
        .has(json!({"metadata": {"labels": {"a": "b"}, "generation": 1},
        "status": {"conditions": [{"type": "x.io/gate"}]}}))
        .lacks("/spec/nodeName");
    talk.end().await;
}

async fn pods_that_nobody_owns_any_more_are_collected(talk: Talk) {
    with_account(&talk).await;
    let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owner"}});
    let owner = talk.post(&talk.at("v1/configmaps"), owner).await.is(201);
    for (name, uid) in [("owned", owner.text("/metadata/uid")), ("lost", "no-such-owner".to_owned())] {
        let mut given = pod(name);
        given["metadata"]["ownerReferences"] =
            json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}]);
        talk.post(&talk.at("v1/pods"), given).await.is(201);
    }
    talk.until(&talk.at("v1/pods/lost"), 404).await;
    talk.get(&talk.at("v1/pods/owned")).await.is(200);
    talk.delete(&talk.at("v1/configmaps/owner"), json!({})).await.is(200);
    talk.until(&talk.at("v1/pods/owned"), 404).await;
    talk.end().await;
}

async fn services_get_addresses(talk: Talk) {
    let service =
        |spec: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": spec});
    let at = talk.at("v1/services");
    let refused = talk.post(&at, service(json!({}))).await.refused(422, "Invalid");
    assert_eq!(refused.fields(), ["spec.ports"]);
    let made = talk.post(&at, service(json!({"ports": [{"port": 80}]}))).await.is(201).has(json!({"spec": {
        "type": "ClusterIP", "sessionAffinity": "None", "ports": [{"port": 80, "targetPort": 80, "protocol": "TCP"}]}}));
    let address = made.text("/spec/clusterIP");
    let mut changed = made.body().clone();
    changed["spec"]["clusterIP"] = "10.0.0.77".into();
    changed["spec"]["clusterIPs"] = json!(["10.0.0.77"]);
    talk.put(&talk.at("v1/services/s"), &changed).await.refused(422, "Invalid");
    changed["spec"]["clusterIP"] = address.into();
    changed["spec"]["clusterIPs"] = made.body()["spec"]["clusterIPs"].clone();
    talk.put(&talk.at("v1/services/s"), &changed).await.is(200);
    let headless = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "h"}, "spec": {"clusterIP": "None"}});
    talk.post(&at, headless)
        .await
        .is(201)
        .has(json!({"spec": {"clusterIP": "None", "clusterIPs": ["None"]}}));
    talk.end().await;
}

async fn slices_are_checked(talk: Talk) {
    let slice = |more: Value| {
        let mut slice =
            json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "s"}});
        slice.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        slice
    };
    let at = talk.at("discovery.k8s.io/v1/endpointslices");
    let bare = talk.post(&at, slice(json!({"addressType": "IPv4", "endpoints": [{"addresses": []}]}))).await;
    assert_eq!(bare.refused(422, "Invalid").fields(), ["endpoints[0].addresses"]);
    let good =
        json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.1.2.3"]}], "ports": [{"port": 80}]});
    talk.post(&at, slice(good)).await.is(201).has(json!({"metadata": {"generation": 1},
        "ports": [{"name": "", "port": 80, "protocol": "TCP"}]}));
    let change = json!({"endpoints": [{"addresses": ["10.1.2.4"], "conditions": {"ready": false}}]});
    talk.patch("merge", &format!("{at}/s"), change).await.is(200).has(json!({"metadata": {"generation": 2},
        "endpoints": [{"addresses": ["10.1.2.4"], "conditions": {"ready": false}}]}));
    talk.end().await;
}

async fn secrets_encode_their_text(talk: Talk) {
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"k": "hello"}});
    talk.post(&talk.at("v1/secrets"), secret)
        .await
        .is(201)
        .has(json!({"type": "Opaque", "data": {"k": "aGVsbG8="}}))
        .lacks("/stringData");
    talk.end().await;
}

async fn both_event_versions_show_one_object(talk: Talk) {
    let namespace = talk.at("v1/x").split('/').nth(4).unwrap().to_owned();
    let event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"},
        "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "test", "reportingInstance": "test-1",
        "action": "Testing", "reason": "Tested", "type": "Normal", "note": "a note",
        "regarding": {"apiVersion": "v1", "kind": "ConfigMap", "name": "c", "namespace": namespace}});
    talk.post(&talk.at("events.k8s.io/v1/events"), event).await.is(201).has(json!({"note": "a note"}));
    talk.get(&talk.at("v1/events/e")).await.is(200).has(json!({"apiVersion": "v1", "message": "a note",
        "reportingComponent": "test", "involvedObject": {"name": "c"}}));
    let found =
        talk.get(&talk.at("v1/events?fieldSelector=involvedObject.name%3Dc,reason%3DTested")).await.is(200);
    assert_eq!(found.body()["items"].as_array().map(Vec::len), Some(1));
    talk.end().await;
}

async fn evictions_delete(talk: Talk) {
    with_account(&talk).await;
    talk.post(&talk.at("v1/pods"), pod("a")).await.is(201);
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "a"}});
    talk.post(&talk.at("v1/pods/a/eviction"), eviction.clone())
        .await
        .is(201)
        .has(json!({"status": "Success"}));
    talk.post(&talk.at("v1/pods/a/eviction"), eviction).await.refused(404, "NotFound");
    talk.end().await;
}

async fn tables_have_columns(talk: Talk) {
    with_account(&talk).await;
    talk.post(&talk.at("v1/pods"), pod("a")).await.is(201);
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let table = talk.get_as(&talk.at("v1/pods"), accept).await.is(200);
    let names: Vec<&str> = table.body()["columnDefinitions"].as_array().unwrap()[..5]
        .iter()
        .map(|c| c["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["Name", "Ready", "Status", "Restarts", "Age"]);
    let row = &table.body()["rows"][0];
    assert_eq!(row["cells"].as_array().unwrap()[..3], [json!("a"), json!("0/1"), json!("Pending")]);
    assert_eq!(row["object"]["kind"], "PartialObjectMetadata");
    talk.end().await;
}

async fn names_are_checked(talk: Talk) {
    let map = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    for name in ["Upper", "under_score", "-dash", "a..b"] {
        let refused = talk.post(&talk.at("v1/configmaps"), map(name)).await.refused(422, "Invalid");
        assert_eq!(refused.fields(), ["metadata.name"], "{name}");
    }
    let generated = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "g-"}});
    let made = talk.post(&talk.at("v1/configmaps"), generated).await.is(201);
    assert_eq!(made.text("/metadata/name").len(), 7);
    let none = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}});
    talk.post(&talk.at("v1/configmaps"), none).await.refused(422, "Invalid");
    talk.end().await;
}

async fn unserved_paths(talk: Talk) {
    talk.get(&talk.at("v1/nothings")).await.is(404);
    talk.get(&talk.at("x.invalid/v1/things")).await.is(404);
    talk.get(&talk.at("v1/configmaps/a/status")).await.is(404);
    talk.end().await;
}

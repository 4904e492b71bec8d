//! Versions, conflicts, patches, deletion.

use crate::cases;
use crate::talk::Talk;
use serde_json::{Value, json};

cases![
    creation_stamps_identity,
    stale_writes_are_conflicts,
    another_uid_is_a_conflict,
    bodies_must_agree_with_the_path,
    patches_carry_a_version_or_none,
    failed_tests_of_json_patches_are_invalid,
    writes_without_change_change_no_version,
    apply_creates_and_removes_what_it_drops,
    dry_runs_store_nothing,
    deletion_holds_to_its_preconditions,
    finalizers_hold,
    foreground_deletion_waits,
    orphans_stay,
    collections_are_deleted_by_selector,
    lists_select,
    namespaces_end_with_their_contents,
];

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "1"}})
}

async fn creation_stamps_identity(talk: Talk) {
    let at = talk.at("v1/configmaps");
    let mut given = map("a");
    given["metadata"]["uid"] = "mine".into();
    given["metadata"]["generation"] = 9.into();
    let made = talk.post(&at, given).await.is(201).has(json!({"kind": "ConfigMap", "apiVersion": "v1"}));
    assert_ne!(made.text("/metadata/uid"), "mine");
    assert!(made.text("/metadata/creationTimestamp").ends_with('Z'));
    assert!(made.text("/metadata/resourceVersion").parse::<u64>().is_ok());
    talk.post(&at, map("a")).await.refused(409, "AlreadyExists").says("configmaps \"a\" already exists");
    let mut versioned = map("b");
    versioned["metadata"]["resourceVersion"] = "1".into();
    talk.post(&at, versioned).await.is(500).says("resourceVersion should not be set");
    talk.post("/api/v1/namespaces/no-such-namespace/configmaps", map("a")).await.refused(404, "NotFound");
    talk.end().await;
}

async fn stale_writes_are_conflicts(talk: Talk) {
    let at = talk.at("v1/configmaps/a");
    let made = talk.post(&talk.at("v1/configmaps"), map("a")).await.is(201);
    let mut changed = made.body().clone();
    changed["data"]["k"] = "2".into();
    talk.put(&at, &changed).await.is(200);
    talk.put(&at, &changed).await.refused(409, "Conflict").says("the object has been modified");
    changed["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    changed["data"]["k"] = "3".into();
    talk.put(&at, &changed).await.is(200).has(json!({"data": {"k": "3"}}));
    talk.put(&talk.at("v1/configmaps/none"), &map("none")).await.refused(404, "NotFound");
    talk.end().await;
}

async fn another_uid_is_a_conflict(talk: Talk) {
    let made = talk.post(&talk.at("v1/configmaps"), map("a")).await.is(201);
    let mut other = made.body().clone();
    other["metadata"]["uid"] = "other".into();
    talk.put(&talk.at("v1/configmaps/a"), &other).await.refused(409, "Conflict").says("UID in precondition");
    talk.end().await;
}

async fn bodies_must_agree_with_the_path(talk: Talk) {
    talk.post(&talk.at("v1/configmaps"), map("a")).await.is(201);
    talk.put(&talk.at("v1/configmaps/a"), &map("b")).await.refused(400, "BadRequest");
    let mut elsewhere = map("c");
    elsewhere["metadata"]["namespace"] = "elsewhere".into();
    talk.post(&talk.at("v1/configmaps"), elsewhere).await.refused(400, "BadRequest");
    let mut other = map("d");
    other["kind"] = "Secret".into();
    talk.post(&talk.at("v1/configmaps"), other).await.refused(400, "BadRequest");
    talk.end().await;
}

async fn patches_carry_a_version_or_none(talk: Talk) {
    let at = talk.at("v1/configmaps/a");
    let made = talk.post(&talk.at("v1/configmaps"), map("a")).await.is(201);
    talk.patch("merge", &at, json!({"data": {"l": "1"}}))
        .await
        .is(200)
        .has(json!({"data": {"k": "1", "l": "1"}}));
    talk.patch("merge", &at, json!({"data": {"k": null}})).await.is(200).lacks("/data/k");
    let stale =
        json!({"metadata": {"resourceVersion": made.text("/metadata/resourceVersion")}, "data": {"m": "1"}});
    talk.patch("merge", &at, stale).await.refused(409, "Conflict");
    talk.patch("unheard-of", &at, json!({})).await.refused(415, "UnsupportedMediaType");
    talk.patch("merge", &talk.at("v1/configmaps/none"), json!({})).await.refused(404, "NotFound");
    talk.end().await;
}

async fn failed_tests_of_json_patches_are_invalid(talk: Talk) {
    let at = talk.at("v1/configmaps/a");
    talk.post(&talk.at("v1/configmaps"), map("a")).await.is(201);
    let add = json!([{"op": "test", "path": "/data/k", "value": "1"}, {"op": "replace", "path": "/data/k", "value": "2"}]);
    talk.patch("json", &at, add.clone()).await.is(200).has(json!({"data": {"k": "2"}}));
    talk.patch("json", &at, add).await.refused(422, "Invalid");
    talk.end().await;
}

async fn writes_without_change_change_no_version(talk: Talk) {
    let made = talk.post(&talk.at("v1/configmaps"), map("a")).await.is(201);
    let version = made.text("/metadata/resourceVersion");
    let at = talk.at("v1/configmaps/a");
    let same = talk.patch("merge", &at, json!({"data": {"k": "1"}})).await.is(200);
    assert_eq!(same.text("/metadata/resourceVersion"), version);
    let same = talk.put(&at, made.body()).await.is(200);
    assert_eq!(same.text("/metadata/resourceVersion"), version);
    talk.end().await;
}

async fn apply_creates_and_removes_what_it_drops(talk: Talk) {
    let at = talk.at("v1/configmaps/a?fieldManager=test");
    let body = |data: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data});
    talk.patch("apply", &talk.at("v1/configmaps/a"), body(json!({}))).await.is(422);
    talk.patch("apply", &at, body(json!({"k": "1", "l": "1"}))).await.is(201);
    talk.patch("merge", &talk.at("v1/configmaps/a"), json!({"data": {"other": "1"}})).await.is(200);
    talk.patch("apply", &at, body(json!({"k": "2"})))
        .await
        .is(200)
        .has(json!({"data": {"k": "2", "other": "1"}}))
        .lacks("/data/l");
    talk.end().await;
}

async fn dry_runs_store_nothing(talk: Talk) {
    let made = talk.post(&talk.at("v1/configmaps?dryRun=All"), map("a")).await.is(201);
    assert!(!made.text("/metadata/uid").is_empty());
    talk.get(&talk.at("v1/configmaps/a")).await.refused(404, "NotFound");
    talk.post(&talk.at("v1/configmaps"), map("a")).await.is(201);
    talk.patch("merge", &talk.at("v1/configmaps/a?dryRun=All"), json!({"data": {"k": "2"}}))
        .await
        .is(200)
        .has(json!({"data": {"k": "2"}}));
    talk.delete(&talk.at("v1/configmaps/a"), json!({"dryRun": ["All"]})).await.is(200);
    talk.get(&talk.at("v1/configmaps/a")).await.is(200).has(json!({"data": {"k": "1"}}));
    // With a body, the query does not count.
    talk.delete(&talk.at("v1/configmaps/a?dryRun=All"), json!({})).await.is(200);
    talk.get(&talk.at("v1/configmaps/a")).await.refused(404, "NotFound");
    talk.end().await;
}

async fn deletion_holds_to_its_preconditions(talk: Talk) {
    let at = talk.at("v1/configmaps/a");
    let made = talk.post(&talk.at("v1/configmaps"), map("a")).await.is(201);
    talk.delete(&at, json!({"preconditions": {"uid": "other"}})).await.refused(409, "Conflict");
    talk.delete(&at, json!({"preconditions": {"resourceVersion": "1"}})).await.refused(409, "Conflict");
    let right = json!({"preconditions": {"uid": made.text("/metadata/uid")}});
    talk.delete(&at, right).await.is(200).has(json!({"kind": "Status", "status": "Success",
        "details": {"name": "a", "kind": "configmaps"}}));
    talk.delete(&at, json!({})).await.refused(404, "NotFound").says("configmaps \"a\" not found");
    talk.end().await;
}

async fn finalizers_hold(talk: Talk) {
    let at = talk.at("v1/configmaps/a");
    let mut held = map("a");
    held["metadata"]["finalizers"] = json!(["x.io/hold"]);
    talk.post(&talk.at("v1/configmaps"), held).await.is(201);
    let going = talk.delete(&at, json!({})).await.is(200);
    assert!(!going.text("/metadata/deletionTimestamp").is_empty());
    let more = json!({"metadata": {"finalizers": ["x.io/hold", "x.io/more"]}});
    let refused = talk.patch("merge", &at, more).await.refused(422, "Invalid");
    assert!(refused.fields().iter().all(|f| f == "metadata.finalizers"), "{:?}", refused.fields());
    talk.post(&talk.at("v1/configmaps"), map("a")).await.refused(409, "AlreadyExists");
    talk.patch("merge", &at, json!({"metadata": {"finalizers": null}})).await.is(200);
    talk.get(&at).await.refused(404, "NotFound");
    talk.end().await;
}

/// A map `owner` and a map `owned`.
async fn owned(talk: &Talk) {
    let owner = talk.post(&talk.at("v1/configmaps"), map("owner")).await.is(201);
    let mut owned = map("owned");
    owned["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner",
        "uid": owner.text("/metadata/uid"), "blockOwnerDeletion": true}]);
    talk.post(&talk.at("v1/configmaps"), owned).await.is(201);
}

async fn foreground_deletion_waits(talk: Talk) {
    owned(&talk).await;
    let going = talk
        .delete(&talk.at("v1/configmaps/owner"), json!({"propagationPolicy": "Foreground"}))
        .await
        .is(200);
    going.has(json!({"metadata": {"finalizers": ["foregroundDeletion"]}}));
    talk.until(&talk.at("v1/configmaps/owner"), 404).await;
    talk.get(&talk.at("v1/configmaps/owned")).await.refused(404, "NotFound");
    talk.end().await;
}

async fn orphans_stay(talk: Talk) {
    owned(&talk).await;
    talk.delete(&talk.at("v1/configmaps/owner"), json!({"propagationPolicy": "Orphan"})).await.is(200);
    talk.until(&talk.at("v1/configmaps/owner"), 404).await;
    talk.get(&talk.at("v1/configmaps/owned")).await.is(200).lacks("/metadata/ownerReferences");
    talk.end().await;
}

async fn collections_are_deleted_by_selector(talk: Talk) {
    for name in ["a", "b"] {
        let mut object = map(name);
        object["metadata"]["labels"] = json!({"name": name});
        talk.post(&talk.at("v1/configmaps"), object).await.is(201);
    }
    talk.delete(&talk.at("v1/configmaps?labelSelector=name%3Da"), json!({})).await.is(200);
    talk.get(&talk.at("v1/configmaps/a")).await.refused(404, "NotFound");
    talk.get(&talk.at("v1/configmaps/b")).await.is(200);
    talk.end().await;
}

async fn lists_select(talk: Talk) {
    for (name, tier) in [("a", "x"), ("b", "y"), ("c", "z")] {
        let mut object = map(name);
        object["metadata"]["labels"] = json!({"tier": tier, "conform": "yes"});
        talk.post(&talk.at("v1/configmaps"), object).await.is(201);
    }
    for (query, expected) in [
        ("labelSelector=tier%20in%20(x,y)", vec!["a", "b"]),
        ("labelSelector=tier!%3Dx,conform", vec!["b", "c"]),
        ("labelSelector=conform,tier%20notin%20(x),tier!%3Dy", vec!["c"]),
        ("labelSelector=conform&fieldSelector=metadata.name%3Db", vec!["b"]),
        ("labelSelector=conform&fieldSelector=metadata.name!%3Db", vec!["a", "c"]),
    ] {
        let list = talk.get(&talk.at(&format!("v1/configmaps?{query}"))).await.is(200);
        list.has(json!({"kind": "ConfigMapList", "apiVersion": "v1"}));
        let list = talk.get(&talk.at(&format!("v1/configmaps?{query}"))).await;
        let items = list.body()["items"].as_array().unwrap();
        let names: Vec<&str> = items.iter().map(|i| i["metadata"]["name"].as_str().unwrap()).collect();
        assert_eq!(names, expected, "{query}");
    }
    talk.get(&talk.at("v1/configmaps?fieldSelector=data.k%3D1")).await.refused(400, "BadRequest");
    talk.get(&talk.at("v1/configmaps?labelSelector=a%20b%20c")).await.refused(400, "BadRequest");
    talk.end().await;
}

async fn namespaces_end_with_their_contents(talk: Talk) {
    let name = "conformance-inner";
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    talk.post("/api/v1/namespaces", namespace).await.is(201).has(json!({"status": {"phase": "Active"},
        "metadata": {"labels": {"kubernetes.io/metadata.name": name}}}));
    let at = format!("/api/v1/namespaces/{name}");
    talk.post(&format!("{at}/configmaps"), map("a")).await.is(201);
    talk.delete(&at, json!({})).await.is(200).has(json!({"status": {"phase": "Terminating"}}));
    talk.until(&at, 404).await;
    talk.end().await;
}

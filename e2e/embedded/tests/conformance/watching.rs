//! Watches.

use crate::cases;
use crate::talk::Talk;
use serde_json::{Value, json};

cases![
    changes_come_in_order,
    selections_add_and_delete,
    lists_are_streamed,
    old_versions_are_gone,
    tables_are_watched
];

fn map(name: &str, tier: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"tier": tier, "watched": "yes"}}})
}

/// Makes `a`, moves it from tier x to y and back, and deletes it; the version before.
async fn life(talk: &Talk) -> String {
    let before = talk.get(&talk.at("v1/configmaps?labelSelector=watched")).await.is(200);
    talk.post(&talk.at("v1/configmaps"), map("a", "x")).await.is(201);
    for tier in ["y", "x"] {
        let change = json!({"metadata": {"labels": {"tier": tier}}});
        talk.patch("merge", &talk.at("v1/configmaps/a"), change).await.is(200);
    }
    talk.delete(&talk.at("v1/configmaps/a"), json!({})).await.is(200);
    before.text("/metadata/resourceVersion")
}

async fn changes_come_in_order(talk: Talk) {
    let version = life(&talk).await;
    let at = talk.at(&format!(
        "v1/configmaps?watch=true&timeoutSeconds=1&labelSelector=watched&resourceVersion={version}"
    ));
    let seen = talk.get(&at).await.is(200);
    assert_eq!(seen.events(), ["ADDED", "MODIFIED", "MODIFIED", "DELETED"]);
    let versions: Vec<u64> = seen
        .lines()
        .iter()
        .map(|l| l["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap())
        .collect();
    assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
    talk.end().await;
}

async fn selections_add_and_delete(talk: Talk) {
    let version = life(&talk).await;
    let at = talk.at(&format!(
        "v1/configmaps?watch=true&timeoutSeconds=1&labelSelector=tier%3Dy&resourceVersion={version}"
    ));
    assert_eq!(talk.get(&at).await.is(200).events(), ["ADDED", "DELETED"]);
    talk.end().await;
}

async fn lists_are_streamed(talk: Talk) {
    for name in ["a", "b"] {
        talk.post(&talk.at("v1/configmaps"), map(name, "x")).await.is(201);
    }
    let streaming = "v1/configmaps?watch=true&timeoutSeconds=1&labelSelector=watched&sendInitialEvents=true\
                     &resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&resourceVersion=";
    let seen = talk.get(&talk.at(streaming)).await.is(200);
    assert_eq!(seen.events()[..3], ["ADDED", "ADDED", "BOOKMARK"]);
    let bookmark = &seen.lines()[2]["object"];
    assert_eq!(bookmark["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(bookmark["kind"], "ConfigMap");
    let without = talk.at("v1/configmaps?watch=true&timeoutSeconds=1&sendInitialEvents=true");
    talk.get(&without).await.refused(422, "Invalid");
    let from_any =
        talk.at("v1/configmaps?watch=true&timeoutSeconds=1&labelSelector=watched&resourceVersion=0");
    assert_eq!(talk.get(&from_any).await.is(200).events(), ["ADDED", "ADDED"]);
    talk.end().await;
}

async fn old_versions_are_gone(talk: Talk) {
    talk.post(&talk.at("v1/configmaps"), map("a", "x")).await.is(201);
    let list = talk.get(&talk.at("v1/configmaps")).await.is(200);
    let now = list.text("/metadata/resourceVersion");
    let at = talk.at(&format!(
        "v1/configmaps?watch=true&timeoutSeconds=1&labelSelector=watched&resourceVersion={now}"
    ));
    assert!(talk.get(&at).await.is(200).events().is_empty());
    let bad = talk.at("v1/configmaps?watch=true&timeoutSeconds=1&resourceVersion=x");
    talk.get(&bad).await.is(500);
    talk.end().await;
}

async fn tables_are_watched(talk: Talk) {
    talk.post(&talk.at("v1/configmaps"), map("a", "x")).await.is(201);
    let at = talk.at("v1/configmaps?watch=true&timeoutSeconds=1&labelSelector=watched&resourceVersion=0");
    let seen = talk.get_as(&at, "application/json;as=Table;v=v1;g=meta.k8s.io").await.is(200);
    assert_eq!(seen.events(), ["ADDED"]);
    assert_eq!(seen.lines()[0]["object"]["rows"][0]["cells"][0], "a");
    talk.end().await;
}

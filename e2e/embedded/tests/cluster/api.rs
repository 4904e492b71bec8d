//! The API server through kube-rs.

use crate::support::{client, definition, options, resource, thing, things};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::api::{
    Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, PropagationPolicy,
    WatchEvent, WatchParams,
};
use kube::runtime::watcher::{self, Event};
use processhub_embedded_cluster::{EmbeddedCluster, Verb};
use serde_json::json;
use std::pin::pin;

fn code(error: kube::Error) -> u16 {
    match error {
        kube::Error::Api(status) => status.code,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn objects_are_created_read_changed_and_deleted() {
    let cluster = EmbeddedCluster::start(options(0)).await.unwrap();
    let client = client(&cluster).await;
    let things = things(&client).await;
    let made = things.create(&PostParams::default(), &thing("a", json!({"hub": "h"}))).await.unwrap();
    assert_eq!(made.data["spec"]["replicas"], 1);
    let mut status = made.clone();
    status.data["status"] = json!({"epoch": 1});
    let stored = things.replace_status("a", &PostParams::default(), &status).await.unwrap();
    assert_eq!(stored.data["status"]["epoch"], 1);
    let stale = things.replace_status("a", &PostParams::default(), &status).await.unwrap_err();
    assert_eq!(code(stale), 409);
    let patch = Patch::Merge(json!({"spec": {"hub": "other"}}));
    let refused = things.patch("a", &PatchParams::default(), &patch).await.unwrap_err();
    assert!(refused.to_string().contains("spec.hub: Forbidden: hub_is_immutable"), "{refused}");
    let four = Patch::Merge(json!({"spec": {"replicas": 4}}));
    let scaled = things.patch_scale("a", &PatchParams::default(), &four).await.unwrap();
    assert_eq!(scaled.spec.unwrap().replicas, Some(4));
    let wrong = DeleteParams {
        preconditions: Some(kube::api::Preconditions { uid: Some("x".into()), ..Default::default() }),
        ..Default::default()
    };
    assert_eq!(code(things.delete("a", &wrong).await.unwrap_err()), 409);
    things.delete("a", &DeleteParams::default()).await.unwrap();
    assert_eq!(code(things.get("a").await.unwrap_err()), 404);
    cluster.shutdown().await;
}

#[tokio::test]
async fn selectors_choose_by_label_and_by_field() {
    let cluster = EmbeddedCluster::start(options(0)).await.unwrap();
    let client = client(&cluster).await;
    let things = things(&client).await;
    for (name, hub) in [("a", "x"), ("b", "y")] {
        let mut object = thing(name, json!({"hub": hub}));
        object.metadata.labels = Some([("hub".to_owned(), hub.to_owned())].into());
        things.create(&PostParams::default(), &object).await.unwrap();
    }
    let count = async |params: ListParams| things.list(&params).await.unwrap().items.len();
    assert_eq!(count(ListParams::default().fields("spec.hub=x")).await, 1);
    assert_eq!(count(ListParams::default().labels("hub in (x,y)")).await, 2);
    assert_eq!(count(ListParams::default().fields("metadata.name=b").labels("hub=x")).await, 0);
    let unknown = things.list(&ListParams::default().fields("spec.replicas=1")).await.unwrap_err();
    assert_eq!(code(unknown), 400);
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_watch_sees_changes_through_its_selector() {
    let cluster = EmbeddedCluster::start(options(0)).await.unwrap();
    let client = client(&cluster).await;
    let things = things(&client).await;
    let version = things.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let params = WatchParams::default().labels("seen=yes");
    let mut watch = pin!(things.watch(&params, &version).await.unwrap());
    things.create(&PostParams::default(), &thing("a", json!({}))).await.unwrap();
    for label in ["yes", "still", "yes"] {
        let patch = Patch::Merge(json!({"metadata": {"labels": {"seen": label}}}));
        things.patch("a", &PatchParams::default(), &patch).await.unwrap();
    }
    things.delete("a", &DeleteParams::default()).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 4 {
        seen.push(match watch.try_next().await.unwrap().unwrap() {
            WatchEvent::Added(_) => "added",
            WatchEvent::Modified(_) => "modified",
            WatchEvent::Deleted(_) => "deleted",
            WatchEvent::Bookmark(_) | WatchEvent::Error(_) => "other",
        });
    }
    assert_eq!(seen, ["added", "deleted", "added", "deleted"]);
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_watch_that_is_behind_the_window_is_told_that_its_version_is_gone() {
    let cluster = EmbeddedCluster::start(options(0)).await.unwrap();
    let client = client(&cluster).await;
    let things = things(&client).await;
    things.create(&PostParams::default(), &thing("a", json!({}))).await.unwrap();
    cluster.compact();
    let mut watch = pin!(things.watch(&WatchParams::default(), "2").await.unwrap());
    match watch.try_next().await.unwrap().unwrap() {
        WatchEvent::Error(status) => assert_eq!(status.code, 410),
        other => panic!("{other:?}"),
    }
    cluster.shutdown().await;
}

async fn first_names(client: &kube::Client, config: watcher::Config) -> Vec<String> {
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), "default", &resource());
    let mut names = Vec::new();
    let mut events = pin!(watcher::watcher(api, config));
    loop {
        match events.next().await.unwrap().unwrap() {
            Event::InitApply(object) => names.push(object.metadata.name.unwrap()),
            Event::InitDone => return names,
            Event::Init | Event::Apply(_) | Event::Delete(_) => {}
        }
    }
}

#[tokio::test]
async fn kube_watchers_start_with_a_list_or_with_a_streamed_one() {
    let cluster = EmbeddedCluster::start(options(0)).await.unwrap();
    let client = client(&cluster).await;
    let things = things(&client).await;
    for name in ["a", "b"] {
        things.create(&PostParams::default(), &thing(name, json!({}))).await.unwrap();
    }
    assert_eq!(first_names(&client, watcher::Config::default()).await, ["a", "b"]);
    assert_eq!(first_names(&client, watcher::Config::default().streaming_lists()).await, ["a", "b"]);
    cluster.shutdown().await;
}

#[tokio::test]
async fn owned_objects_go_with_their_owner() {
    let cluster = EmbeddedCluster::start(options(0)).await.unwrap();
    let client = client(&cluster).await;
    let things = things(&client).await;
    let owner = things.create(&PostParams::default(), &thing("a", json!({}))).await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let owned = json!({"metadata": {"name": "m", "ownerReferences": [{"apiVersion": "x.io/v1", "kind": "Thing",
        "name": "a", "uid": owner.metadata.uid}]}});
    maps.create(&PostParams::default(), &serde_json::from_value(owned).unwrap()).await.unwrap();
    let foreground =
        DeleteParams { propagation_policy: Some(PropagationPolicy::Foreground), ..Default::default() };
    things.delete("a", &foreground).await.unwrap();
    crate::support::eventually("the owned object goes", || async {
        (maps.get_opt("m").await.unwrap().is_none() && things.get_opt("a").await.unwrap().is_none())
            .then_some(())
    })
    .await;
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_stopped_api_server_keeps_its_objects() {
    let cluster = EmbeddedCluster::start(options(0)).await.unwrap();
    let client = client(&cluster).await;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), "default");
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"k": "v"}});
    secrets.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
    cluster.stop_apiserver().await;
    assert!(tokio::net::TcpStream::connect(cluster.url().trim_start_matches("http://")).await.is_err());
    cluster.start_apiserver().await.unwrap();
    let kept = secrets.get("s").await.unwrap();
    assert_eq!(kept.data.unwrap()["k"].0, b"v");
    cluster.shutdown().await;
}

#[tokio::test]
async fn the_audit_log_counts_requests_by_verb_resource_and_client() {
    let cluster = EmbeddedCluster::start(options(0)).await.unwrap();
    let client = client(&cluster).await;
    let pods: Api<Pod> = Api::namespaced(client, "default");
    let before = cluster.audit_since(0).len() as u64;
    pods.list(&ListParams::default()).await.unwrap();
    assert!(pods.get("none").await.is_err());
    let entries = cluster.audit_since(before);
    let seen: Vec<(Verb, &str, u16)> = entries.iter().map(|e| (e.verb, e.name.as_str(), e.code)).collect();
    assert_eq!(seen, [(Verb::List, "", 200), (Verb::Get, "none", 404)]);
    assert!(cluster.audit().keys().any(|c| c.resource == "pods" && c.verb == Verb::List));
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_definition_is_established_at_once_and_serves_its_kind() {
    let cluster = EmbeddedCluster::start(options(0)).await.unwrap();
    let client = client(&cluster).await;
    things(&client).await;
    let found =
        kube::discovery::pinned_kind(&client, &kube::core::GroupVersionKind::gvk("x.io", "v1", "Thing"))
            .await;
    let (found, capabilities) = found.unwrap();
    assert_eq!(found.plural, "things");
    let subresources: Vec<&str> = capabilities.subresources.iter().map(|(r, _)| r.plural.as_str()).collect();
    assert_eq!(subresources, ["status", "scale"]);
    let mut bad = definition();
    bad["spec"]["scope"] = "Nowhere".into();
    bad["metadata"]["name"] = "others.x.io".into();
    let crds: Api<DynamicObject> = Api::all_with(
        client,
        &kube::discovery::ApiResource::from_gvk(&kube::core::GroupVersionKind::gvk(
            "apiextensions.k8s.io",
            "v1",
            "CustomResourceDefinition",
        )),
    );
    let refused =
        crds.create(&PostParams::default(), &serde_json::from_value(bad).unwrap()).await.unwrap_err();
    assert_eq!(code(refused), 422);
    cluster.shutdown().await;
}

//! A custom kind: schema, defaults, rules, subresources, columns.

use crate::cases;
use crate::talk::Talk;
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, PostParams};
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;
use serde_json::{Value, json};
use std::time::Duration;

cases![
    schemas_refuse_with_the_field,
    unknown_fields_are_refused_or_dropped,
    defaults_are_filled_in,
    rules_refuse_on_create_and_update,
    status_and_spec_are_apart,
    generations_count_changes_of_the_spec,
    puts_need_a_version,
    strategic_patches_are_not_served,
    scale_reads_and_writes,
    fields_are_selectable,
    columns_are_shown,
    a_wrong_uid_in_a_status_merge_passes,
];

fn definition() -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.conformance.processhub.io"},
        "spec": {"group": "conformance.processhub.io", "scope": "Namespaced",
            "names": {"plural": "things", "singular": "thing", "kind": "Thing"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas",
                    "statusReplicasPath": ".status.replicas"}},
                "selectableFields": [{"jsonPath": ".spec.hub"}],
                "additionalPrinterColumns": [
                    {"name": "HUB", "type": "string", "jsonPath": ".spec.hub"},
                    {"name": "READY", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].reason"},
                    {"name": "WIDE", "type": "integer", "jsonPath": ".spec.replicas", "priority": 1}],
                "schema": {"openAPIV3Schema": {"type": "object", "required": ["spec"], "properties": {
                    "spec": {"type": "object",
                        "properties": {
                            "hub": {"type": "string", "maxLength": 8, "minLength": 1, "pattern": "^[a-z]+$"},
                            "replicas": {"type": "integer", "minimum": 0, "maximum": 5, "default": 1},
                            "mode": {"type": "string", "enum": ["Hot", "Cold"], "default": "Hot"},
                            "handover": {"type": "boolean"},
                            "port": {"x-kubernetes-int-or-string": true},
                            "config": {"type": "object", "additionalProperties": {"type": "string"}, "maxProperties": 2},
                            "names": {"type": "array", "maxItems": 2, "items": {"type": "string", "maxLength": 8},
                                "x-kubernetes-list-type": "set"},
                            "nested": {"type": "object", "required": ["a"], "properties": {
                                "a": {"type": "integer"}, "b": {"type": "integer", "default": 7}}}},
                        "x-kubernetes-validations": [
                            {"rule": "!has(self.handover) || !self.handover || self.mode == 'Hot'",
                             "message": "handover_needs_hot", "reason": "FieldValueForbidden", "fieldPath": ".handover"},
                            {"rule": "!has(oldSelf.hub) || (has(self.hub) && self.hub == oldSelf.hub)",
                             "message": "hub_is_immutable"}]},
                    "status": {"type": "object", "properties": {
                        "replicas": {"type": "integer"}, "epoch": {"type": "integer", "minimum": 0},
                        "conditions": {"type": "array", "items": {"type": "object", "required": ["type"], "properties": {
                            "type": {"type": "string"}, "reason": {"type": "string"}}},
                            "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}}}}}}}]}})
}

fn definitions(client: &Client) -> Api<DynamicObject> {
    let gvk = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    Api::all_with(client.clone(), &ApiResource::from_gvk(&gvk))
}

/// Installs the kind and waits until it is served.
pub async fn install(client: &Client) {
    let object = serde_json::from_value(definition()).unwrap();
    definitions(client).create(&PostParams::default(), &object).await.unwrap();
    let gvk = GroupVersionKind::gvk("conformance.processhub.io", "v1", "Thing");
    let things: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::from_gvk(&gvk));
    for _ in 0..600 {
        if things.list(&Default::default()).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the custom kind is not served");
}

/// Removes the kind.
pub async fn uninstall(client: &Client) {
    definitions(client).delete("things.conformance.processhub.io", &DeleteParams::default()).await.unwrap();
}

fn thing(spec: Value) -> Value {
    json!({"apiVersion": "conformance.processhub.io/v1", "kind": "Thing", "metadata": {"name": "a"}, "spec": spec})
}

fn all(talk: &Talk) -> String {
    talk.at("conformance.processhub.io/v1/things")
}

fn one(talk: &Talk) -> String {
    talk.at("conformance.processhub.io/v1/things/a")
}

async fn schemas_refuse_with_the_field(talk: Talk) {
    for (spec, field, words) in [
        (json!({"hub": "abcdefghi"}), "spec.hub", "Too long: may not be more than 8"),
        (json!({"hub": ""}), "spec.hub", "should be at least 1 chars long"),
        (json!({"hub": "A"}), "spec.hub", "should match '^[a-z]+$'"),
        (json!({"replicas": 6}), "spec.replicas", "should be less than or equal to 5"),
        (json!({"replicas": -1}), "spec.replicas", "should be greater than or equal to 0"),
        (json!({"replicas": "1"}), "spec.replicas", "must be of type integer: \"string\""),
        (
            json!({"mode": "Warm"}),
            "spec.mode",
            "Unsupported value: \"Warm\": supported values: \"Hot\", \"Cold\"",
        ),
        (json!({"names": ["a", "b", "c"]}), "spec.names", "Too many: 3: must have at most 2 items"),
        (json!({"names": ["a", "a"]}), "spec.names[1]", "Duplicate value: \"a\""),
        (json!({"config": {"a": 1}}), "spec.config.a", "must be of type string: \"integer\""),
        (json!({"nested": {}}), "spec.nested.a", "Required value"),
        (json!({"port": true}), "spec.port", "must be of type"),
    ] {
        let refused = talk.post(&all(&talk), thing(spec.clone())).await.refused(422, "Invalid").says(words);
        assert_eq!(refused.fields().first().map(String::as_str), Some(field), "{spec}");
    }
    let mut without = thing(json!({}));
    without.as_object_mut().unwrap().remove("spec");
    assert_eq!(talk.post(&all(&talk), without).await.refused(422, "Invalid").fields(), ["spec", "<nil>"]);
    talk.end().await;
}

async fn unknown_fields_are_refused_or_dropped(talk: Talk) {
    let given = thing(json!({"hup": "x", "nested": {"a": 1, "c": 1}}));
    let at = |mode: &str| format!("{}?fieldValidation={mode}", all(&talk));
    let strict = talk.post(&at("Strict"), given.clone()).await.refused(400, "BadRequest");
    strict.says("unknown field \"spec.hup\"").says("unknown field \"spec.nested.c\"");
    let warned = talk.post(&at("Warn"), given).await.is(201);
    assert_eq!(warned.warnings().len(), 2, "{:?}", warned.warnings());
    warned.lacks("/spec/hup").lacks("/spec/nested/c");
    talk.end().await;
}

async fn defaults_are_filled_in(talk: Talk) {
    let made = talk.post(&all(&talk), thing(json!({"nested": {"a": 1}}))).await.is(201);
    made.has(json!({"spec": {"replicas": 1, "mode": "Hot", "nested": {"a": 1, "b": 7}}})).lacks("/spec/hub");
    talk.patch("merge", &one(&talk), json!({"spec": {"replicas": null}}))
        .await
        .is(200)
        .has(json!({"spec": {"replicas": 1}}));
    talk.end().await;
}

async fn rules_refuse_on_create_and_update(talk: Talk) {
    let refused = talk
        .post(&all(&talk), thing(json!({"handover": true, "mode": "Cold"})))
        .await
        .refused(422, "Invalid");
    assert_eq!(refused.fields(), ["spec.handover"]);
    refused.says("spec.handover: Forbidden: handover_needs_hot");
    talk.post(&all(&talk), thing(json!({"hub": "x"}))).await.is(201);
    let moved = talk.patch("merge", &one(&talk), json!({"spec": {"hub": "y"}})).await.refused(422, "Invalid");
    assert_eq!(moved.fields(), ["spec"]);
    moved.says("hub_is_immutable");
    talk.end().await;
}

async fn status_and_spec_are_apart(talk: Talk) {
    let mut given = thing(json!({}));
    given["status"] = json!({"epoch": 3});
    let made = talk.post(&all(&talk), given).await.is(201).lacks("/status");
    let mut both = made.body().clone();
    both["spec"]["replicas"] = 3.into();
    both["metadata"]["labels"] = json!({"a": "b"});
    both["status"] = json!({"epoch": 1});
    let status = format!("{}/status", one(&talk));
    let written = talk
        .put(&status, &both)
        .await
        .is(200)
        .has(json!({"spec": {"replicas": 1}, "status": {"epoch": 1}}))
        .lacks("/metadata/labels");
    both["metadata"]["resourceVersion"] = written.body()["metadata"]["resourceVersion"].clone();
    both["status"] = json!({"epoch": 9});
    talk.put(&one(&talk), &both)
        .await
        .is(200)
        .has(json!({"spec": {"replicas": 3}, "status": {"epoch": 1}, "metadata": {"labels": {"a": "b"}}}));
    talk.put(&status, &both).await.refused(409, "Conflict");
    let bad = talk.patch("merge", &status, json!({"status": {"epoch": -1}})).await.refused(422, "Invalid");
    assert_eq!(bad.fields(), ["status.epoch"]);
    talk.end().await;
}

async fn generations_count_changes_of_the_spec(talk: Talk) {
    talk.post(&all(&talk), thing(json!({}))).await.is(201).has(json!({"metadata": {"generation": 1}}));
    for (path, change, expected) in [
        (one(&talk), json!({"metadata": {"labels": {"a": "b"}}}), 1),
        (format!("{}/status", one(&talk)), json!({"status": {"epoch": 1}}), 1),
        (one(&talk), json!({"spec": {"replicas": 2}}), 2),
        (one(&talk), json!({"metadata": {"finalizers": ["x.io/hold"]}}), 2),
    ] {
        talk.patch("merge", &path, change).await.is(200).has(json!({"metadata": {"generation": expected}}));
    }
    talk.delete(&one(&talk), json!({})).await.is(200).has(json!({"metadata": {"generation": 3}}));
    talk.patch("merge", &one(&talk), json!({"metadata": {"finalizers": null}})).await.is(200);
    talk.end().await;
}

async fn puts_need_a_version(talk: Talk) {
    talk.post(&all(&talk), thing(json!({}))).await.is(201);
    let refused = talk.put(&one(&talk), &thing(json!({"replicas": 2}))).await.refused(422, "Invalid");
    assert_eq!(refused.fields(), ["metadata.resourceVersion"]);
    talk.end().await;
}

async fn strategic_patches_are_not_served(talk: Talk) {
    talk.post(&all(&talk), thing(json!({}))).await.is(201);
    talk.patch("strategic-merge", &one(&talk), json!({"spec": {"replicas": 2}}))
        .await
        .refused(415, "UnsupportedMediaType");
    talk.end().await;
}

async fn scale_reads_and_writes(talk: Talk) {
    talk.post(&all(&talk), thing(json!({"replicas": 2}))).await.is(201);
    let scale = format!("{}/scale", one(&talk));
    talk.get(&scale).await.is(200).has(json!({"kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {"name": "a"}, "spec": {"replicas": 2}, "status": {"replicas": 0}}));
    talk.patch("merge", &scale, json!({"spec": {"replicas": 4}}))
        .await
        .is(200)
        .has(json!({"spec": {"replicas": 4}}));
    talk.get(&one(&talk)).await.is(200).has(json!({"spec": {"replicas": 4}, "metadata": {"generation": 2}}));
    talk.patch("merge", &scale, json!({"spec": {"replicas": 9}})).await.refused(422, "Invalid");
    talk.end().await;
}

async fn fields_are_selectable(talk: Talk) {
    talk.post(&all(&talk), thing(json!({"hub": "x"}))).await.is(201);
    for (query, count) in [("spec.hub%3Dx", 1), ("spec.hub%3Dy", 0), ("spec.hub!%3Dy", 1)] {
        let list = talk.get(&format!("{}?fieldSelector={query}", all(&talk))).await.is(200);
        assert_eq!(list.body()["items"].as_array().map(Vec::len), Some(count), "{query}");
    }
    talk.get(&format!("{}?fieldSelector=spec.mode%3DHot", all(&talk))).await.refused(400, "BadRequest");
    talk.end().await;
}

async fn columns_are_shown(talk: Talk) {
    talk.post(&all(&talk), thing(json!({"hub": "x"}))).await.is(201);
    let conditions = json!({"status": {"conditions": [{"type": "Other", "reason": "No"}, {"type": "Ready", "reason": "Serving"}]}});
    talk.patch("merge", &format!("{}/status", one(&talk)), conditions).await.is(200);
    let table = talk.get_as(&all(&talk), "application/json;as=Table;v=v1;g=meta.k8s.io").await.is(200);
    let columns = table.body()["columnDefinitions"].as_array().unwrap();
    let names: Vec<(&str, i64)> =
        columns.iter().map(|c| (c["name"].as_str().unwrap(), c["priority"].as_i64().unwrap())).collect();
    assert_eq!(names, [("Name", 0), ("HUB", 0), ("READY", 0), ("WIDE", 1)]);
    assert_eq!(table.body()["rows"][0]["cells"], json!(["a", "x", "Serving", 1]));
    talk.end().await;
}

async fn a_wrong_uid_in_a_status_merge_passes(talk: Talk) {
    talk.post(&all(&talk), thing(json!({}))).await.is(201);
    let change = json!({"metadata": {"uid": "other"}, "status": {"epoch": 1}});
    talk.patch("merge", &format!("{}/status", one(&talk)), change)
        .await
        .is(200)
        .has(json!({"status": {"epoch": 1}}));
    talk.end().await;
}

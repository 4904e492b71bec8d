//! The YAML beside the types is what the types say, and can be applied.

#![allow(clippy::unwrap_used)] // helpers of tests, outside of what clippy takes for tests

use std::path::{Path, PathBuf};

use processhub_crds::generate::{crd_yaml, crds};
use serde_json::Value;

/// A client-side `kubectl apply` keeps the whole object in an annotation, which may have 256 KiB.
const MOST_BYTES: usize = 200_000;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A chart can only contain files of its own folder, so that it has copies.
fn folders() -> [PathBuf; 2] {
    [folder(), folder().join("../charts/processhub/files/crds")]
}

fn yaml_files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| [".yaml", ".yml", ".json"].iter().any(|end| name.ends_with(end)))
        .collect();
    names.sort();
    names
}

#[test]
fn the_yaml_beside_the_types_is_up_to_date() {
    let update = std::env::var_os("UPDATE_GENERATED").is_some_and(|value| value == "1");
    for (folder, (name, content)) in
        folders().iter().flat_map(|folder| crd_yaml().unwrap().into_iter().map(move |file| (folder, file)))
    {
        let path = folder.join(&name);
        if update {
            std::fs::create_dir_all(folder).unwrap();
            std::fs::write(&path, content).unwrap();
        } else {
            let found = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(
                found == content,
                "{} is stale: run `cargo xtask generate` and commit it",
                path.display()
            );
        }
    }
}

#[test]
fn the_folders_hold_nothing_else_that_kubectl_would_apply() {
    for folder in folders() {
        assert_eq!(
            yaml_files(&folder),
            ["hubprocesses.processhub.io.yaml", "processhubs.processhub.io.yaml"],
            "{}",
            folder.display()
        );
    }
}

#[test]
fn each_file_is_small_enough_for_a_client_side_apply() {
    for (name, content) in crd_yaml().unwrap() {
        assert!(content.len() < MOST_BYTES, "{name}: {} bytes", content.len());
    }
    for crd in crds().unwrap() {
        assert!(crd.to_string().len() < MOST_BYTES);
    }
}

#[test]
fn the_yaml_reads_back_as_the_same_definition() {
    for ((name, content), crd) in crd_yaml().unwrap().iter().zip(crds().unwrap()) {
        let read: Value = serde_saphyr::from_str(content).unwrap();
        assert_eq!(read, crd, "{name}");
    }
}

fn walk(schema: &Value, path: &str, check: &mut dyn FnMut(&str, &Value)) {
    check(path, schema);
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        for (name, child) in properties {
            walk(child, &format!("{path}.{name}"), check);
        }
    }
    if let Some(items) = schema.get("items") {
        walk(items, &format!("{path}[]"), check);
    }
    if let Some(values) = schema.get("additionalProperties") {
        walk(values, &format!("{path}{{}}"), check);
    }
}

fn schemas() -> Vec<Value> {
    crds()
        .unwrap()
        .iter()
        .map(|crd| crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone())
        .collect()
}

/// The template's own fields are bounded by what the API server accepts as a pod, and the templates that are kept were one.
fn is_ours(path: &str) -> bool {
    !path.starts_with(".spec.template.spec.") && path != ".status.revisions[].template"
}

#[test]
fn every_string_list_map_and_integer_of_ours_is_bounded() {
    for schema in schemas() {
        walk(&schema, "", &mut |path, node| {
            if !is_ours(path) {
                return;
            }
            let has = |key: &str| node.get(key).is_some();
            match node["type"].as_str() {
                Some("string") => {
                    assert!(has("maxLength") || has("enum") || node["format"] == "date-time", "{path}")
                }
                Some("array") => assert!(has("maxItems"), "{path}"),
                Some("object") => assert!(has("properties") || has("maxProperties"), "{path}"),
                Some("integer") => assert!(has("minimum") && has("maximum"), "{path}"),
                Some("boolean") => {}
                other => panic!("{path}: type {other:?}"),
            }
        });
    }
}

#[test]
fn what_the_api_server_would_not_understand_does_not_occur() {
    for schema in schemas() {
        walk(&schema, "", &mut |path, node| {
            for key in ["nullable", "$ref", "anyOf", "oneOf", "allOf"] {
                assert!(node.get(key).is_none(), "{path}: {key}");
            }
            if let Some(format) = node.get("format") {
                let known = ["int32", "int64", "date-time"].iter().any(|known| format == known);
                assert!(known, "{path}: format {format}");
            }
        });
    }
}

#[test]
fn every_field_of_ours_says_what_it_is_for() {
    for schema in schemas() {
        walk(&schema, "", &mut |path, node| {
            let element = path.ends_with("[]") || path.ends_with("{}");
            let standard = path.contains(".conditions[]") || path == ".spec.template.metadata";
            if is_ours(path)
                && !element
                && !standard
                && !path.starts_with(".spec.template.")
                && path != ".spec.template.spec"
            {
                assert!(node.get("description").is_some(), "{path}");
            }
        });
    }
}

#[test]
fn a_status_has_no_defaults_that_would_put_back_what_was_removed() {
    for schema in schemas() {
        walk(&schema["properties"]["status"], "status", &mut |path, node| {
            assert!(node.get("default").is_none(), "{path}");
        });
    }
}

#[test]
fn the_schemas_bounds_are_the_ones_that_the_code_uses() {
    use processhub_crds::limits;
    let [hub, process] = schemas().try_into().unwrap();
    let at = |schema: &Value, pointer: &str| schema.pointer(pointer).and_then(Value::as_u64).unwrap();
    let spec = "/properties/spec/properties";
    let status = "/properties/status/properties";
    for (schema, pointer, bound) in [
        (&hub, format!("{spec}/replicas/maximum"), limits::MAX_REPLICAS as usize),
        (&hub, format!("{spec}/processes/maxItems"), limits::MAX_STATIC_PROCESSES),
        (&hub, format!("{spec}/processes/items/properties/name/maxLength"), limits::MAX_PROCESS_NAME),
        (&hub, format!("{status}/members/properties/names/maxItems"), limits::MAX_MEMBER_NAMES),
        (&process, format!("{spec}/hubName/maxLength"), limits::MAX_HUB_NAME),
        (&process, format!("{status}/history/maxItems"), limits::MAX_HISTORY),
        (&process, format!("{status}/lastMigration/properties/message/maxLength"), limits::MAX_MESSAGE),
        (&process, format!("{status}/migration/properties/message/maxLength"), limits::MAX_MESSAGE),
        (&process, format!("{status}/conditions/items/properties/message/maxLength"), limits::MAX_MESSAGE),
        (&process, format!("{status}/epoch/maximum"), limits::MAX_INTEGER as usize),
        (&process, format!("{status}/observedGeneration/maximum"), limits::MAX_INTEGER as usize),
    ] {
        assert_eq!(at(schema, &pointer), bound as u64, "{pointer}");
    }
}

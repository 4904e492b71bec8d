//! The objects that documentation and examples show are ones that are accepted.

#![allow(clippy::unwrap_used)] // helpers of tests, outside of what clippy takes for tests

use processhub_crds::validate::{validate, validate_process};
use processhub_crds::{HubProcess, ProcessHub};

const GUIDE: &str = include_str!("../../docs/guide.md");
const HUBS: [&str; 5] = [
    include_str!("../../examples/account/hub.yaml"),
    include_str!("../../examples/counter/hub.yaml"),
    include_str!("../../examples/sessions/hub.yaml"),
    include_str!("../../examples/room/hub.yaml"),
    include_str!("../../examples/redis/hub.yaml"),
];

fn check(yaml: &str) {
    // As the API server does, it refuses what it does not know; so does the comparison with what was read.
    let shown: serde_json::Value = serde_saphyr::from_str(yaml).unwrap();
    let read = if shown["kind"] == "ProcessHub" {
        let hub: ProcessHub = serde_saphyr::from_str(yaml).unwrap();
        validate(&hub).unwrap();
        serde_json::to_value(hub).unwrap()
    } else {
        let process: HubProcess = serde_saphyr::from_str(yaml).unwrap();
        validate_process(&process).unwrap();
        serde_json::to_value(process).unwrap()
    };
    assert_contains(&read, &shown, "");
}

fn assert_contains(read: &serde_json::Value, shown: &serde_json::Value, path: &str) {
    match (read, shown) {
        (serde_json::Value::Object(read), serde_json::Value::Object(shown)) => {
            for (key, value) in shown {
                let found = read.get(key).unwrap_or_else(|| panic!("{path}.{key} is no field"));
                assert_contains(found, value, &format!("{path}.{key}"));
            }
        }
        (serde_json::Value::Array(read), serde_json::Value::Array(shown)) => {
            for (index, (read, shown)) in read.iter().zip(shown).enumerate() {
                assert_contains(read, shown, &format!("{path}[{index}]"));
            }
        }
        _ => assert_eq!(read, shown, "{path}"),
    }
}

#[test]
fn the_objects_of_the_guide_are_accepted() {
    let blocks = GUIDE.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let whole: Vec<_> = blocks.filter(|block| block.starts_with("apiVersion")).collect();
    assert_eq!(whole.len(), 2);
    for block in whole {
        check(block);
    }
}

#[test]
fn the_hubs_of_the_examples_are_accepted() {
    HUBS.into_iter().for_each(check);
}

//! `hub.yaml` is a hub that the operator accepts.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use processhub_crds::ProcessHub;
use processhub_crds::validate::validate;

const MANIFEST: &str = include_str!("../hub.yaml");

#[test]
fn the_manifest_is_accepted() {
    let hub: ProcessHub = serde_saphyr::from_str(MANIFEST).unwrap();
    let hub = validate(&hub).unwrap();
    assert_eq!(hub.wanted().len(), 12);
}

#[test]
fn the_manifest_has_no_field_that_the_api_server_would_drop_or_refuse() {
    let written: serde_json::Value = serde_saphyr::from_str(MANIFEST).unwrap();
    let hub: ProcessHub = serde_saphyr::from_str(MANIFEST).unwrap();
    contains(&serde_json::to_value(&hub).unwrap(), &written, "");
}

/// Whether all that was written is still there after it was read.
fn contains(read: &serde_json::Value, written: &serde_json::Value, at: &str) {
    use serde_json::Value;
    match (read, written) {
        (Value::Object(read), Value::Object(written)) => {
            for (key, value) in written {
                contains(read.get(key).unwrap_or(&Value::Null), value, &format!("{at}.{key}"));
            }
        }
        (Value::Array(read), Value::Array(written)) => {
            assert_eq!(read.len(), written.len(), "{at}");
            for (n, (read, written)) in read.iter().zip(written).enumerate() {
                contains(read, written, &format!("{at}[{n}]"));
            }
        }
        (read, written) => assert_eq!(read, written, "{at}"),
    }
}

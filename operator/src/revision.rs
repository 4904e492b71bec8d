//! The code of a hub's processes: what identifies it, and the hub as it was with an older one. Pure.
//!
//! Its name is a digest of what the user wrote, `spec.template` and `spec.vsn`, and of nothing that the operator adds to a
//! pod: another operator, sidecar image or grace period is no other code.

use std::borrow::Cow;

use processhub_crds::{ProcessHub, Revision};
use serde_json::Value;
use xxhash_rust::xxh3::Xxh3;

/// The code of the present spec; its number is given by the hub's status.
#[must_use]
pub fn present(hub: &ProcessHub) -> Revision {
    Revision {
        name: name(hub),
        number: 0,
        vsn: hub.spec.vsn.clone(),
        template: Some(hub.spec.template.clone()),
    }
}

/// Name of the code of the present spec.
#[must_use]
pub fn name(hub: &ProcessHub) -> String {
    let mut digest = Xxh3::new();
    // What is no JSON cannot have come from the API server.
    feed(&serde_json::to_value(&hub.spec.template).unwrap_or_default(), &mut digest);
    feed(&Value::String(hub.spec.vsn.clone()), &mut digest);
    format!("{:016x}", digest.digest())
}

/// With the keys of objects in order, so that no order of fields in a type decides, and with lengths, so that no two values
/// are written alike.
fn feed(value: &Value, digest: &mut Xxh3) {
    match value {
        Value::Object(fields) => {
            digest.update(b"{");
            digest.update(&(fields.len() as u64).to_le_bytes());
            let mut keys: Vec<&String> = fields.keys().collect();
            keys.sort_unstable();
            for key in keys {
                text(key, digest);
                feed(&fields[key.as_str()], digest);
            }
        }
        Value::Array(items) => {
            digest.update(b"[");
            digest.update(&(items.len() as u64).to_le_bytes());
            items.iter().for_each(|item| feed(item, digest));
        }
        Value::String(value) => {
            digest.update(b"s");
            text(value, digest);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {
            digest.update(b"v");
            text(&value.to_string(), digest);
        }
    }
}

fn text(text: &str, digest: &mut Xxh3) {
    digest.update(&(text.len() as u64).to_le_bytes());
    digest.update(text.as_bytes());
}

/// The codes that the hub's status knows, oldest first.
#[must_use]
pub fn known(hub: &ProcessHub) -> &[Revision] {
    hub.status.as_ref().map(|status| status.revisions.as_slice()).unwrap_or_default()
}

/// The hub with the code of that name in its spec; `None` if its template is not known any more. Without a name (a move
/// that was prepared before codes had names) the present one is meant.
#[must_use]
pub fn hub_with<'a>(hub: &'a ProcessHub, revision: &str) -> Option<Cow<'a, ProcessHub>> {
    if revision.is_empty() || name(hub) == revision {
        return Some(Cow::Borrowed(hub));
    }
    let known = known(hub).iter().find(|known| known.name == revision)?;
    let mut with = hub.clone();
    with.spec.template = known.template.clone()?;
    with.spec.vsn.clone_from(&known.vsn);
    Some(Cow::Owned(with))
}

/// The hub's word for the version of one of its codes; empty if it has none.
#[must_use]
pub fn vsn(hub: &ProcessHub, revision: &str) -> String {
    let found = known(hub).iter().find(|known| known.name == revision);
    found.map(|known| known.vsn.clone()).unwrap_or_default()
}

/// For people: the version of that code, or its name where it has none.
#[must_use]
pub fn label(hub: &ProcessHub, revision: &str) -> String {
    let found = known(hub).iter().find(|known| known.name == revision);
    found.map_or(revision, Revision::label).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn hub(image: &str, vsn: &str) -> ProcessHub {
        serde_json::from_value(json!({
            "apiVersion": "processhub.io/v1alpha1", "kind": "ProcessHub",
            "metadata": { "name": "cart", "namespace": "shop" },
            "spec": { "vsn": vsn, "template": { "spec": { "containers": [{ "name": "worker", "image": image }] } } },
        }))
        .unwrap()
    }

    #[test]
    fn the_name_is_that_of_template_and_version_and_of_nothing_else() {
        let before = hub("cart:1", "1");
        let mut other = before.clone();
        other.spec.replicas = 9;
        other.spec.worker.drain_timeout_milliseconds = 1;
        other.spec.upgrade.max_concurrent = 7;
        assert_eq!(name(&before), name(&other));
        assert_ne!(name(&before), name(&hub("cart:2", "1")));
        assert_ne!(name(&before), name(&hub("cart:1", "2")));
    }

    /// A process whose code had another name after an upgrade of the operator would be rolled for nothing.
    #[test]
    fn the_name_stays_the_same_in_every_version_of_the_operator() {
        assert_eq!(name(&hub("cart:1.8", "1.8")), "37a192bd90cc94e4");
    }

    #[test]
    fn an_older_code_is_found_with_its_template_and_version() {
        let old = hub("cart:1", "1");
        let mut new = hub("cart:2", "2");
        let status = new.status.get_or_insert_default();
        status.revisions = vec![Revision { number: 1, ..present(&old) }];
        let found = hub_with(&new, &name(&old)).unwrap();
        assert_eq!((&found.spec.template, found.spec.vsn.as_str()), (&old.spec.template, "1"));
        assert_eq!(hub_with(&new, "").unwrap().spec, new.spec);
        assert_eq!(hub_with(&new, &name(&new)).unwrap().spec, new.spec);
        assert!(hub_with(&new, "unknown").is_none());
        assert_eq!((label(&new, &name(&old)), label(&new, "unknown")), ("1".into(), "unknown".into()));
        new.status.get_or_insert_default().revisions[0].template = None;
        assert!(hub_with(&new, &name(&old)).is_none(), "forgotten");
    }
}

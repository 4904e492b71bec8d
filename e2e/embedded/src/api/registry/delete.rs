//! Deletion: preconditions, grace, finalizers, propagation.

use super::update::bump_generation;
use super::{Registry, WriteOptions};
use crate::api::error::{ApiError, Result};
use crate::api::kinds::Kind;
use crate::api::object::{self, Key, metadata, text};
use jiff::SignedDuration;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// What happens to what the object owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Propagation {
    /// It goes afterwards.
    Background,
    /// It goes first.
    Foreground,
    /// It stays.
    Orphan,
}

/// What the object must be for the deletion to happen.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Preconditions {
    uid: Option<String>,
    resource_version: Option<String>,
}

/// The body of a DELETE.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeleteOptions {
    /// Seconds that a pod may take; 0 removes the object at once.
    pub grace_period_seconds: Option<i64>,
    /// What the object must be.
    pub preconditions: Option<Preconditions>,
    /// What happens to what it owns.
    pub propagation_policy: Option<Propagation>,
    /// `["All"]`: decide, answer, and change nothing.
    pub dry_run: Option<Vec<String>>,
}

impl DeleteOptions {
    /// Immediate deletion of exactly this incarnation.
    pub fn now(uid: &str) -> Self {
        Self {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
            ..Self::default()
        }
    }

    /// Deletion of exactly this incarnation with its own grace.
    pub fn of(uid: &str) -> Self {
        Self { grace_period_seconds: None, ..Self::now(uid) }
    }
}

/// The answer to a deletion.
#[derive(Clone, Debug)]
pub enum Deleted {
    /// The object is gone; this was its last state.
    Gone(Arc<Value>),
    /// The object goes when its grace or its finalizers are done.
    Going(Arc<Value>),
}

impl Registry {
    /// Deletes the object, or begins to.
    ///
    /// # Errors
    /// 404, or 409 when a precondition does not hold.
    pub fn delete(&mut self, kind: &Kind, key: &Key, options: &DeleteOptions) -> Result<Deleted> {
        let old = self.get(kind, key)?;
        check_preconditions(kind, &old, options)?;
        let dry_run = options.dry_run.as_ref().is_some_and(|d| !d.is_empty());
        let grace = grace(kind, &old, options);
        let mut object = (*old).clone();
        if !object::deleting(&old) {
            add_finalizer(&mut object, options.propagation_policy);
            if kind.is("", "namespaces") {
                object["status"]["phase"] = "Terminating".into();
            }
        } else {
            let left = old["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or_default();
            let waits = left > 0 || !object::finalizers(&old).is_empty() || kind.is("", "namespaces");
            if waits && grace >= left {
                return Ok(Deleted::Going(old));
            }
        }
        let held = !object::finalizers(&object).is_empty() || kind.is("", "namespaces");
        if grace == 0 && !held {
            return Ok(Deleted::Gone(if dry_run { old } else { self.erase(kind, key).unwrap_or(old) }));
        }
        let until = self.now() + SignedDuration::from_secs(grace);
        let first = !object::deleting(&old);
        let meta = metadata(&mut object);
        meta.insert("deletionTimestamp".into(), until.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into());
        meta.insert("deletionGracePeriodSeconds".into(), grace.into());
        if first && kind.generation {
            bump_generation(&mut object);
        }
        let object = if dry_run { Arc::new(object) } else { self.commit(kind, object) };
        Ok(Deleted::Going(object))
    }

    /// Removes one finalizer, which may complete a deletion.
    ///
    /// # Errors
    /// Those of an update.
    pub fn release(&mut self, kind: &Kind, key: &Key, finalizer: &str) -> Result<()> {
        let mut object = (*self.get(kind, key)?).clone();
        if let Some(Value::Array(list)) = object.pointer_mut("/metadata/finalizers") {
            list.retain(|f| f != finalizer);
            if list.is_empty() {
                metadata(&mut object).remove("finalizers");
            }
        }
        self.overwrite(kind, key, super::Part::Main, object, &WriteOptions::trusted()).map(drop)
    }

    /// Removes a namespace whose contents are gone.
    pub fn finish_namespace(&mut self, kind: &Kind, key: &Key) {
        self.erase(kind, key);
    }
}

fn check_preconditions(kind: &Kind, old: &Value, options: &DeleteOptions) -> Result<()> {
    let Some(wanted) = &options.preconditions else { return Ok(()) };
    for (word, wanted, found) in [
        ("UID", &wanted.uid, object::uid(old)),
        ("ResourceVersion", &wanted.resource_version, object::resource_version(old)),
    ] {
        if let Some(wanted) = wanted
            && wanted != found
        {
            let why = format!(
                "Precondition failed: {word} in precondition: {wanted}, {word} in object meta: {found}"
            );
            return Err(ApiError::conflict(&kind.group, &kind.plural, object::name(old), &why));
        }
    }
    Ok(())
}

fn grace(kind: &Kind, old: &Value, options: &DeleteOptions) -> i64 {
    if !kind.is("", "pods") {
        return 0;
    }
    let finished = ["Succeeded", "Failed"].contains(&text(old, "/status/phase"));
    if text(old, "/spec/nodeName").is_empty() || finished {
        return 0;
    }
    let own = old["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(30);
    options.grace_period_seconds.unwrap_or(own).max(0)
}

fn add_finalizer(object: &mut Value, propagation: Option<Propagation>) {
    let finalizer = match propagation {
        None | Some(Propagation::Background) => return,
        Some(Propagation::Foreground) => "foregroundDeletion",
        Some(Propagation::Orphan) => "orphan",
    };
    let list = metadata(object).entry("finalizers").or_insert_with(|| json!([]));
    if let Value::Array(list) = list
        && !list.iter().any(|f| f == finalizer)
    {
        list.push(finalizer.into());
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{kind, pod, registry, thing, with_things};
    use super::super::{Part, Written};
    use super::*;
    use crate::api::error::Reason;

    fn key() -> Key {
        Key::new("default", "a")
    }

    fn scheduled_pod(registry: &mut Registry) -> Arc<Kind> {
        let pods = kind(registry, "pods");
        let mut given = pod("a");
        given["spec"]["nodeName"] = "n1".into();
        registry.create(&pods, "default", given, &WriteOptions::default()).unwrap();
        pods
    }

    #[test]
    fn a_scheduled_pod_goes_with_its_grace_and_a_forced_one_at_once() {
        let mut registry = registry();
        let pods = scheduled_pod(&mut registry);
        let Deleted::Going(going) = registry.delete(&pods, &key(), &DeleteOptions::default()).unwrap() else {
            panic!("a running pod takes its grace");
        };
        assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 30);
        assert_eq!(text(&going, "/metadata/deletionTimestamp"), "2027-01-15T08:00:30Z");
        assert_eq!(going["metadata"]["generation"], 2);
        let again = registry.delete(&pods, &key(), &DeleteOptions::default()).unwrap();
        assert!(matches!(again, Deleted::Going(same) if same == going), "a second delete changes nothing");
        let shorter = DeleteOptions { grace_period_seconds: Some(1), ..DeleteOptions::default() };
        assert!(matches!(registry.delete(&pods, &key(), &shorter).unwrap(),
            Deleted::Going(o) if o["metadata"]["deletionGracePeriodSeconds"] == 1));
        let forced = DeleteOptions::now(object::uid(&going));
        assert!(matches!(registry.delete(&pods, &key(), &forced).unwrap(), Deleted::Gone(_)));
    }

    #[test]
    fn a_pod_without_node_goes_at_once() {
        let mut registry = registry();
        let pods = kind(&registry, "pods");
        registry.create(&pods, "default", pod("a"), &WriteOptions::default()).unwrap();
        assert!(matches!(
            registry.delete(&pods, &key(), &DeleteOptions::default()).unwrap(),
            Deleted::Gone(_)
        ));
    }

    #[test]
    fn another_incarnation_is_not_deleted() {
        let mut registry = registry();
        let pods = scheduled_pod(&mut registry);
        let refused = registry.delete(&pods, &key(), &DeleteOptions::now("other")).unwrap_err();
        assert_eq!(refused.reason, Reason::Conflict);
    }

    #[test]
    fn finalizers_hold_an_object_until_they_are_released() {
        let (mut registry, things) = with_things();
        let mut given = thing("a");
        given["metadata"]["finalizers"] = json!(["x.io/hold"]);
        registry.create(&things, "default", given, &WriteOptions::default()).unwrap();
        let Deleted::Going(going) = registry.delete(&things, &key(), &DeleteOptions::default()).unwrap()
        else {
            panic!("a finalizer holds it");
        };
        let mut more = (*going).clone();
        more["metadata"]["finalizers"] = json!(["x.io/hold", "x.io/new"]);
        let refused =
            registry.replace(&things, &key(), Part::Main, more, &WriteOptions::default()).unwrap_err();
        assert_eq!(refused.reason, Reason::Invalid);
        let mut free = (*going).clone();
        metadata(&mut free).remove("finalizers");
        let Written { .. } =
            registry.replace(&things, &key(), Part::Main, free, &WriteOptions::default()).unwrap();
        assert_eq!(registry.get(&things, &key()).unwrap_err().reason, Reason::NotFound);
    }

    #[test]
    fn a_finalizer_holds_a_pod_beyond_its_forced_deletion() {
        let mut registry = registry();
        let pods = kind(&registry, "pods");
        let mut given = pod("a");
        given["spec"]["nodeName"] = "n1".into();
        given["metadata"]["finalizers"] = json!(["x.io/hold"]);
        let made = registry.create(&pods, "default", given, &WriteOptions::default()).unwrap().object;
        let forced = DeleteOptions::now(object::uid(&made));
        assert!(matches!(registry.delete(&pods, &key(), &forced).unwrap(), Deleted::Going(_)));
        registry.release(&pods, &key(), "x.io/hold").unwrap();
        assert!(registry.get(&pods, &key()).is_err());
    }
}

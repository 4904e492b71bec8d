//! Replacing objects, whole or by their status.

use super::{Part, Registry, WriteOptions, Written, check_part, check_type};
use crate::api::error::{ApiError, Cause, Result};
use crate::api::kinds::Kind;
use crate::api::object::{self, Key, metadata, text};
use serde_json::Value;
use std::sync::Arc;

/// Fields of the metadata that an update keeps from the stored object.
const KEPT: [&str; 6] = [
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "generateName",
];

impl Registry {
    /// Replaces the object, or its status, by `object`.
    ///
    /// # Errors
    /// 404, 409 when the body carries another UID or an old `resourceVersion`, 422 when it breaks a rule.
    pub fn replace(
        &mut self,
        kind: &Kind,
        key: &Key,
        part: Part,
        mut object: Value,
        options: &WriteOptions,
    ) -> Result<Written> {
        check_part(kind, part)?;
        check_type(kind, &mut object)?;
        if object::name(&object).is_empty() {
            metadata(&mut object).insert("name".into(), key.name.clone().into());
        }
        if kind.namespaced && object::namespace(&object).is_empty() {
            metadata(&mut object).insert("namespace".into(), key.namespace.clone().into());
        }
        if object::name(&object) != key.name {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({}) does not match the name on the URL ({})",
                object::name(&object),
                key.name
            )));
        }
        if object::namespace(&object) != key.namespace {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        if object::resource_version(&object).is_empty() && !kind.unconditional_update {
            let value = Value::from(0);
            let cause = Cause::invalid("metadata.resourceVersion", &value, "must be specified for an update");
            return Err(ApiError::invalid(&kind.group, &kind.kind, &key.name, vec![cause]));
        }
        let object = kind.stored(object);
        self.overwrite(kind, key, part, object, options)
    }

    /// Stores what a PUT or a patch made of the object.
    pub(super) fn overwrite(
        &mut self,
        kind: &Kind,
        key: &Key,
        part: Part,
        object: Value,
        options: &WriteOptions,
    ) -> Result<Written> {
        let old = self.get(kind, key)?;
        self.check_version(kind, key, &old, &object)?;
        let mut object = match part {
            Part::Status => with_status_of(kind, &old, object),
            Part::Main => with_identity_of(kind, &old, object),
        };
        let warnings = self.normalize(kind, &mut object, options, false)?;
        if part == Part::Main {
            keep_unset_addresses(kind, &old, &mut object);
        }
        refuse_new_finalizers(kind, &old, &object)?;
        self.validate(kind, &object, Some(&old))?;
        metadata(&mut object).insert("resourceVersion".into(), object::resource_version(&old).into());
        if object == *old {
            return Ok(Written { object: old, created: false, warnings });
        }
        if part == Part::Main && kind.generation && changed_beyond_metadata(kind, &old, &object) {
            bump_generation(&mut object);
        }
        if options.dry_run {
            return Ok(Written { object: Arc::new(object), created: false, warnings });
        }
        let released = object::deleting(&object)
            && object::finalizers(&object).is_empty()
            && object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or_default() == 0
            && !kind.is("", "namespaces");
        let object = if released {
            // The last write is not seen by itself: watchers see the deletion.
            self.erase(kind, key).unwrap_or(old)
        } else {
            self.commit(kind, object)
        };
        Ok(Written { object, created: false, warnings })
    }

    fn check_version(&self, kind: &Kind, key: &Key, old: &Value, object: &Value) -> Result<()> {
        let (uid, version) = (object::uid(object), object::resource_version(object));
        if !uid.is_empty() && uid != object::uid(old) {
            let why = format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                object::uid(old)
            );
            return Err(ApiError::conflict(&kind.group, &kind.plural, &key.name, &why));
        }
        if !version.is_empty() && version != object::resource_version(old) {
            return Err(ApiError::modified(&kind.group, &kind.plural, &key.name));
        }
        Ok(())
    }
}

fn with_identity_of(kind: &Kind, old: &Value, mut object: Value) -> Value {
    for field in KEPT {
        let value = old["metadata"].get(field).cloned();
        match value {
            Some(value) => metadata(&mut object).insert(field.into(), value),
            None => metadata(&mut object).remove(field),
        };
    }
    if kind.status
        && let Some(map) = object.as_object_mut()
    {
        match old.get("status") {
            Some(status) => map.insert("status".into(), status.clone()),
            None => map.remove("status"),
        };
    }
    object
}

fn with_status_of(kind: &Kind, old: &Value, object: Value) -> Value {
    let mut result = old.clone();
    match object.get("status") {
        Some(status) => result["status"] = status.clone(),
        None => {
            if let Some(map) = result.as_object_mut() {
                map.remove("status");
            }
        }
    }
    // Built-in kinds let a status write touch these too; custom ones do not.
    if kind.custom.is_none() {
        for field in ["labels", "annotations", "finalizers"] {
            match object["metadata"].get(field) {
                Some(value) => metadata(&mut result).insert(field.into(), value.clone()),
                None => metadata(&mut result).remove(field),
            };
        }
    }
    result
}

fn keep_unset_addresses(kind: &Kind, old: &Value, object: &mut Value) {
    if kind.is("", "services") && text(object, "/spec/clusterIP").is_empty() {
        object["spec"]["clusterIP"] = old["spec"]["clusterIP"].clone();
        object["spec"]["clusterIPs"] = old["spec"]["clusterIPs"].clone();
    }
}

fn refuse_new_finalizers(kind: &Kind, old: &Value, object: &Value) -> Result<()> {
    if !object::deleting(old) {
        return Ok(());
    }
    let before = object::finalizers(old);
    let new: Vec<&str> = object::finalizers(object).into_iter().filter(|f| !before.contains(f)).collect();
    if new.is_empty() {
        return Ok(());
    }
    let cause = Cause::forbidden(
        "metadata.finalizers",
        &format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers {new:?}"
        ),
    );
    Err(ApiError::invalid(&kind.group, &kind.kind, object::name(object), vec![cause]))
}

fn changed_beyond_metadata(kind: &Kind, old: &Value, new: &Value) -> bool {
    let part = |object: &Value| {
        let mut copy = object.clone();
        if let Some(map) = copy.as_object_mut() {
            map.remove("metadata");
            if kind.status {
                map.remove("status");
            }
        }
        copy
    };
    part(old) != part(new)
}

/// Counts one more change of what the user wishes.
pub(super) fn bump_generation(object: &mut Value) {
    let next = object["metadata"]["generation"].as_i64().unwrap_or_default() + 1;
    metadata(object).insert("generation".into(), next.into());
}

#[cfg(test)]
mod tests {
    use super::super::tests::{kind, pod, registry, thing, with_things};
    use super::*;
    use crate::api::error::Reason;
    use serde_json::json;

    fn key(name: &str) -> Key {
        Key::new("default", name)
    }

    fn plain() -> WriteOptions {
        WriteOptions::default()
    }

    #[test]
    fn a_stale_put_is_a_conflict_and_a_put_without_version_is_refused_for_custom_kinds() {
        let (mut registry, things) = with_things();
        let made = registry.create(&things, "default", thing("a"), &plain()).unwrap().object;
        let mut new = (*made).clone();
        new["spec"]["size"] = 2.into();
        let stored = registry.replace(&things, &key("a"), Part::Main, new.clone(), &plain()).unwrap().object;
        assert_eq!(stored["metadata"]["generation"], 2);
        let stale = registry.replace(&things, &key("a"), Part::Main, new.clone(), &plain()).unwrap_err();
        assert_eq!(stale.reason, Reason::Conflict);
        metadata(&mut new).remove("resourceVersion");
        let blind = registry.replace(&things, &key("a"), Part::Main, new, &plain()).unwrap_err();
        assert_eq!(blind.reason, Reason::Invalid);
    }

    #[test]
    fn another_uid_is_a_conflict() {
        let (mut registry, things) = with_things();
        let made = registry.create(&things, "default", thing("a"), &plain()).unwrap().object;
        let mut other = (*made).clone();
        other["metadata"]["uid"] = "other".into();
        let refused = registry.replace(&things, &key("a"), Part::Main, other, &plain()).unwrap_err();
        assert_eq!(refused.reason, Reason::Conflict);
    }

    #[test]
    fn status_and_spec_are_written_apart() {
        let (mut registry, things) = with_things();
        let made = registry.create(&things, "default", thing("a"), &plain()).unwrap().object;
        let mut both = (*made).clone();
        both["spec"]["size"] = 5.into();
        both["status"] = json!({"epoch": 3});
        both["metadata"]["labels"] = json!({"a": "b"});
        let status =
            registry.replace(&things, &key("a"), Part::Status, both.clone(), &plain()).unwrap().object;
        assert_eq!((&status["spec"]["size"], &status["status"]["epoch"]), (&json!(1), &json!(3)));
        assert!(status["metadata"].get("labels").is_none());
        assert_eq!(status["metadata"]["generation"], 1);
        both["metadata"]["resourceVersion"] = status["metadata"]["resourceVersion"].clone();
        both["status"] = json!({"epoch": 9});
        let main = registry.replace(&things, &key("a"), Part::Main, both, &plain()).unwrap().object;
        assert_eq!((&main["spec"]["size"], &main["status"]["epoch"]), (&json!(5), &json!(3)));
    }

    #[test]
    fn a_write_without_change_changes_no_version() {
        let (mut registry, things) = with_things();
        let made = registry.create(&things, "default", thing("a"), &plain()).unwrap().object;
        let again =
            registry.replace(&things, &key("a"), Part::Main, (*made).clone(), &plain()).unwrap().object;
        assert_eq!(object::resource_version(&again), object::resource_version(&made));
    }

    #[test]
    fn a_pods_status_write_may_touch_labels() {
        let mut registry = registry();
        let pods = kind(&registry, "pods");
        let made = registry.create(&pods, "default", pod("a"), &plain()).unwrap().object;
        let mut new = (*made).clone();
        new["status"]["phase"] = "Running".into();
        new["metadata"]["labels"] = json!({"a": "b"});
        new["spec"]["containers"][0]["image"] = "y".into();
        let stored = registry.replace(&pods, &key("a"), Part::Status, new, &plain()).unwrap().object;
        assert_eq!(text(&stored, "/status/phase"), "Running");
        assert_eq!(text(&stored, "/metadata/labels/a"), "b");
        assert_eq!(text(&stored, "/spec/containers/0/image"), "x");
    }
}

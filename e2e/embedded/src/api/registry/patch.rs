//! Patches: read, change, write, in one step.

use super::{Part, Registry, WriteOptions, Written, check_part, check_type};
use crate::api::error::{ApiError, Cause, Reason, Result};
use crate::api::kinds::Kind;
use crate::api::object::{self, Key, metadata};
use crate::api::patch::{self, PatchKind};
use serde_json::Value;

impl Registry {
    /// Applies a patch to the object or to its status.
    ///
    /// # Errors
    /// 404 (server-side apply creates instead), 409 when the patch carries an old `resourceVersion`, 415 for a strategic
    /// patch of a custom kind, 422 for a result that breaks a rule.
    pub fn patch(
        &mut self,
        kind: &Kind,
        key: &Key,
        part: Part,
        (how, body): (PatchKind, Value),
        options: &WriteOptions,
    ) -> Result<Written> {
        check_part(kind, part)?;
        if how == PatchKind::Apply {
            return self.apply(kind, key, part, body, options);
        }
        let old = self.get(kind, key)?;
        let shown = kind.served(&old);
        let changed = match how {
            PatchKind::Json => patch::json(&shown, &body)?,
            PatchKind::Merge => patch::merge(&shown, &body),
            PatchKind::Strategic if kind.custom.is_some() => {
                return Err(ApiError::new(
                    Reason::UnsupportedMediaType,
                    "the body of the request was in an unknown format - accepted media types include: \
                     application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
                ));
            }
            PatchKind::Strategic | PatchKind::Apply => {
                patch::strategic(&shown, &body, &Self::merge_keys(kind))
            }
        };
        let given = body.pointer("/metadata/resourceVersion").is_some();
        self.write_changed(kind, key, part, changed, given, options)
    }

    fn write_changed(
        &mut self,
        kind: &Kind,
        key: &Key,
        part: Part,
        mut changed: Value,
        versioned: bool,
        options: &WriteOptions,
    ) -> Result<Written> {
        check_type(kind, &mut changed)?;
        if Key::of(&changed) != *key {
            return Err(ApiError::bad_request("the name and the namespace of an object may not be changed"));
        }
        if !versioned {
            metadata(&mut changed).remove("resourceVersion");
        }
        // A wrong UID in a merge patch to the status succeeds at the real server; elsewhere it is a conflict.
        if part == Part::Status {
            metadata(&mut changed).remove("uid");
        }
        self.overwrite(kind, key, part, kind.stored(changed), options)
    }

    fn apply(
        &mut self,
        kind: &Kind,
        key: &Key,
        part: Part,
        mut body: Value,
        options: &WriteOptions,
    ) -> Result<Written> {
        if options.manager.is_empty() {
            let cause = Cause::required("fieldManager", "is required for apply patch");
            return Err(ApiError::invalid("meta.k8s.io", "PatchOptions", "", vec![cause]));
        }
        check_type(kind, &mut body)?;
        let versioned = !object::resource_version(&body).is_empty();
        let who = format!("{}{}", options.manager, if part == Part::Status { "/status" } else { "" });
        let slot = (kind.storage.clone(), key.clone(), who);
        let written = match self.get(kind, key) {
            Err(_) if part == Part::Main => {
                metadata(&mut body).insert("name".into(), key.name.clone().into());
                self.create(kind, &key.namespace, body.clone(), options)?
            }
            Err(missing) => return Err(missing),
            Ok(old) => {
                let keys = Self::merge_keys(kind);
                let changed = patch::apply(&kind.served(&old), self.applied.get(&slot), &body, &keys);
                self.write_changed(kind, key, part, changed, versioned, options)?
            }
        };
        if !options.dry_run {
            // What identifies the object is nobody's to drop.
            for field in ["name", "namespace", "uid", "resourceVersion"] {
                metadata(&mut body).remove(field);
            }
            self.applied.insert(slot, body);
        }
        Ok(written)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{kind, pod, registry, thing, with_things};
    use super::*;
    use serde_json::json;

    fn key() -> Key {
        Key::new("default", "a")
    }

    #[test]
    fn a_patch_carries_its_version_or_none() {
        let (mut registry, things) = with_things();
        let plain = WriteOptions::default();
        let made = registry.create(&things, "default", thing("a"), &plain).unwrap().object;
        let free = (PatchKind::Merge, json!({"spec": {"size": 2}}));
        registry.patch(&things, &key(), Part::Main, free, &plain).unwrap();
        let stale =
            json!({"metadata": {"resourceVersion": object::resource_version(&made)}, "spec": {"size": 3}});
        let refused =
            registry.patch(&things, &key(), Part::Main, (PatchKind::Merge, stale), &plain).unwrap_err();
        assert_eq!(refused.reason, Reason::Conflict);
    }

    #[test]
    fn strategic_patches_are_for_built_in_kinds() {
        let (mut registry, things) = with_things();
        let plain = WriteOptions::default();
        registry.create(&things, "default", thing("a"), &plain).unwrap();
        let patch = (PatchKind::Strategic, json!({}));
        let refused = registry.patch(&things, &key(), Part::Main, patch, &plain).unwrap_err();
        assert_eq!(refused.reason, Reason::UnsupportedMediaType);
        let pods = kind(&registry, "pods");
        registry.create(&pods, "default", pod("a"), &plain).unwrap();
        let patch =
            (PatchKind::Strategic, json!({"spec": {"containers": [{"name": "worker", "image": "y"}]}}));
        let patched = registry.patch(&pods, &key(), Part::Main, patch, &plain).unwrap().object;
        assert_eq!(patched["spec"]["containers"][0]["image"], "y");
    }

    #[test]
    fn apply_creates_and_then_owns_what_it_set() {
        let (mut registry, things) = with_things();
        let options = WriteOptions { manager: "m".into(), ..WriteOptions::default() };
        let body =
            |spec: Value| (PatchKind::Apply, json!({"apiVersion": "x.io/v1", "kind": "Thing", "spec": spec}));
        let made = registry
            .patch(&things, &key(), Part::Main, body(json!({"names": ["x", "y"]})), &options)
            .unwrap();
        assert!(made.created);
        let other = (PatchKind::Merge, json!({"spec": {"names": ["x", "y", "z"]}}));
        registry.patch(&things, &key(), Part::Main, other, &options).unwrap();
        let again =
            registry.patch(&things, &key(), Part::Main, body(json!({"names": ["x"]})), &options).unwrap();
        assert_eq!(again.object["spec"]["names"], json!(["x", "z"]));
    }

    #[test]
    fn a_result_that_breaks_the_schema_is_refused() {
        let mut registry = registry();
        let plain = WriteOptions::default();
        let pods = kind(&registry, "pods");
        registry.create(&pods, "default", pod("a"), &plain).unwrap();
        let patch = (PatchKind::Merge, json!({"spec": {"nodeSelector": {"a": "b"}}}));
        let refused = registry.patch(&pods, &key(), Part::Main, patch, &plain).unwrap_err();
        assert_eq!(refused.reason, Reason::Invalid);
    }
}

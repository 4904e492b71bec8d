//! Creating objects.

use super::{Registry, WriteOptions, Written, check_type};
use crate::api::builtin;
use crate::api::error::{ApiError, Cause, Reason, Result};
use crate::api::kinds::Kind;
use crate::api::object::{self, Key, metadata, text};
use crate::api::store::ResourceId;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

impl Registry {
    /// Creates an object in `namespace` (empty for kinds of the cluster).
    ///
    /// # Errors
    /// 400 for a body that contradicts the path, 404 for a namespace that does not exist, 403 for one that ends, 409 for
    /// a taken name, 422 for an object that breaks its rules.
    pub fn create(
        &mut self,
        kind: &Kind,
        namespace: &str,
        mut object: Value,
        options: &WriteOptions,
    ) -> Result<Written> {
        check_type(kind, &mut object)?;
        if !object::resource_version(&object).is_empty() {
            // The real server finds this out late, and answers so.
            let words = "resourceVersion should not be set on objects to be created";
            return Err(ApiError::new(Reason::InternalError, words));
        }
        self.place(kind, namespace, &mut object)?;
        self.name(kind, &mut object)?;
        let mut object = kind.stored(object);
        builtin::clear_server_fields(&mut object);
        if kind.status {
            builtin::reset_status(&kind.storage, &mut object);
        }
        let warnings = self.normalize(kind, &mut object, options, true)?;
        let key = Key::of(&object);
        if kind.is("", "services") {
            self.give_address(&mut object)?;
        }
        self.validate(kind, &object, None)?;
        if self.store.get(&kind.storage, &key).is_some() {
            return Err(ApiError::already_exists(&kind.group, &kind.plural, &key.name));
        }
        let (uid, stamp) = (self.new_uid(), self.stamp());
        let meta = metadata(&mut object);
        meta.insert("uid".into(), uid.into());
        meta.insert("creationTimestamp".into(), stamp.into());
        if kind.generation {
            meta.insert("generation".into(), 1.into());
        }
        if kind.is("apiextensions.k8s.io", "customresourcedefinitions") {
            meta.insert("finalizers".into(), json!(["customresourcecleanup.apiextensions.k8s.io"]));
        }
        let object = if options.dry_run { object.into() } else { self.commit(kind, object) };
        Ok(Written { object, created: true, warnings })
    }

    fn place(&self, kind: &Kind, namespace: &str, object: &mut Value) -> Result<()> {
        let given = object::namespace(object).to_owned();
        if !kind.namespaced {
            metadata(object).remove("namespace");
            return Ok(());
        }
        if !given.is_empty() && given != namespace {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        metadata(object).insert("namespace".into(), namespace.into());
        let home = self.store.get(&ResourceId::new("", "namespaces"), &Key::cluster(namespace));
        let home = home.ok_or_else(|| ApiError::not_found("", "namespaces", namespace))?;
        if object::deleting(&home) {
            return Err(ApiError::new(
                Reason::Forbidden,
                format!(
                    "{} \"{}\" is forbidden: unable to create new content in namespace {namespace} because it is being \
                     terminated",
                    kind.plural,
                    object::name(object)
                ),
            ));
        }
        Ok(())
    }

    fn name(&mut self, kind: &Kind, object: &mut Value) -> Result<()> {
        if !object::name(object).is_empty() {
            return Ok(());
        }
        let prefix = text(object, "/metadata/generateName").to_owned();
        if prefix.is_empty() {
            let cause = Cause::required("metadata.name", "name or generateName is required");
            return Err(ApiError::invalid(&kind.group, &kind.kind, "", vec![cause]));
        }
        const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
        let mut random = self.environment.random();
        let mut name = prefix;
        for _ in 0..5 {
            name.push(char::from(LETTERS[(random % 27) as usize]));
            random /= 27;
        }
        metadata(object).insert("name".into(), name.into());
        Ok(())
    }

    fn give_address(&self, service: &mut Value) -> Result<()> {
        let used: BTreeSet<String> = self
            .store
            .list(&ResourceId::new("", "services"), None)
            .iter()
            .map(|s| text(s, "/spec/clusterIP").to_owned())
            .collect();
        let asked = text(service, "/spec/clusterIP").to_owned();
        let address = match asked.as_str() {
            "None" => asked,
            "" => self
                .addresses()
                .map(|a| a.to_string())
                .find(|a| !used.contains(a))
                .ok_or_else(|| ApiError::new(Reason::InternalError, "every service address is in use"))?,
            taken if used.contains(taken) => {
                let value = Value::from(taken);
                let cause = Cause::invalid("spec.clusterIPs", &value, "provided IP is already allocated");
                return Err(ApiError::invalid("", "Service", object::name(service), vec![cause]));
            }
            _ => asked,
        };
        let spec = object::child(service, "spec");
        spec.insert("clusterIPs".into(), json!([address]));
        spec.insert("clusterIP".into(), address.into());
        Ok(())
    }

    fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> {
        let [a, b, ..] = self.services.octets();
        (0..=255_u8).flat_map(move |c| (1..=254_u8).map(move |d| Ipv4Addr::new(a, b, c, d)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::FieldValidation;
    use super::super::tests::{kind, pod, registry, thing, with_things};
    use super::*;

    #[test]
    fn a_new_object_gets_identity_version_and_defaults() {
        let (mut registry, things) = with_things();
        let mut given = thing("a");
        given["status"] = json!({"epoch": 7});
        given["metadata"]["uid"] = "mine".into();
        let made = registry.create(&things, "default", given, &WriteOptions::default()).unwrap().object;
        assert_ne!(object::uid(&made), "mine");
        assert_eq!(made["metadata"]["generation"], 1);
        assert_eq!(made["metadata"]["creationTimestamp"], "2027-01-15T08:00:00Z");
        assert_eq!(made["spec"]["size"], 1);
        assert!(made.get("status").is_none(), "the status is written through its subresource only");
    }

    #[test]
    fn refusals() {
        let mut registry = registry();
        let pods = kind(&registry, "pods");
        let plain = WriteOptions::default();
        registry.create(&pods, "default", pod("a"), &plain).unwrap();
        let refused = |registry: &mut Registry, namespace: &str, pod: Value| {
            registry.create(&pods, namespace, pod, &plain).unwrap_err().reason
        };
        assert_eq!(refused(&mut registry, "default", pod("a")), Reason::AlreadyExists);
        assert_eq!(refused(&mut registry, "nowhere", pod("b")), Reason::NotFound);
        assert_eq!(refused(&mut registry, "default", json!({"kind": "Node"})), Reason::BadRequest);
        assert_eq!(refused(&mut registry, "default", json!({"spec": {}})), Reason::Invalid);
        let mut other = pod("b");
        other["metadata"]["namespace"] = "kube-system".into();
        assert_eq!(refused(&mut registry, "default", other), Reason::BadRequest);
    }

    #[test]
    fn unknown_fields_are_refused_warned_of_or_dropped() {
        let (mut registry, things) = with_things();
        let mut given = thing("a");
        given["spec"]["sise"] = 3.into();
        let with = |validation| WriteOptions { validation, ..WriteOptions::default() };
        let strict =
            registry.create(&things, "default", given.clone(), &with(FieldValidation::Strict)).unwrap_err();
        assert!(strict.message.contains("strict decoding error: unknown field \"spec.sise\""), "{strict}");
        let warned = registry.create(&things, "default", given, &with(FieldValidation::Warn)).unwrap();
        assert_eq!(warned.warnings, ["unknown field \"spec.sise\""]);
        assert!(warned.object["spec"].get("sise").is_none());
    }

    #[test]
    fn a_dry_run_answers_and_stores_nothing() {
        let mut registry = registry();
        let pods = kind(&registry, "pods");
        let before = registry.store().revision();
        let dry = WriteOptions { dry_run: true, ..WriteOptions::default() };
        registry.create(&pods, "default", pod("a"), &dry).unwrap();
        assert_eq!(registry.store().revision(), before);
    }

    #[test]
    fn names_are_generated_and_services_get_addresses() {
        let mut registry = registry();
        let plain = WriteOptions::default();
        let pods = kind(&registry, "pods");
        let mut given = pod("");
        given["metadata"] = json!({"generateName": "w-"});
        let made = registry.create(&pods, "default", given, &plain).unwrap().object;
        assert_eq!(object::name(&made).len(), 7);
        let services = kind(&registry, "services");
        let service = |name: &str| json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
        for (name, address) in [("a", "127.2.0.1"), ("b", "127.2.0.2")] {
            let made = registry.create(&services, "default", service(name), &plain).unwrap().object;
            assert_eq!(text(&made, "/spec/clusterIP"), address);
        }
    }
}

//! The rules of the API over the [`Store`]: what may be written, what a write makes of an object, what a deletion is.
//!
//! Synchronous, with clock and randomness from outside ([`Environment`]), so that every rule is tested without sockets.

mod bind;
mod create;
mod delete;
mod patch;
mod update;

pub use delete::{DeleteOptions, Deleted, Propagation};

use super::crd;
use super::error::{ApiError, Cause, Reason, Result};
use super::kinds::{Catalog, Kind};
use super::object::{self, Key};
use super::store::{ResourceId, Store};
use super::{builtin, patch as patches};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// What the API server takes from outside.
pub trait Environment: Send {
    /// The time that objects are stamped with.
    fn now(&self) -> jiff::Timestamp;
    /// A number nobody can guess, for UIDs and generated names.
    fn random(&mut self) -> u64;
}

/// What to do with fields that the kind does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Drop them.
    Ignore,
    /// Drop them and warn.
    #[default]
    Warn,
    /// Refuse the request.
    Strict,
}

/// What a write request may say beside its body.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// Decide, answer, and store nothing.
    pub dry_run: bool,
    /// What to do with unknown fields.
    pub validation: FieldValidation,
    /// Who writes; needed for server-side apply.
    pub manager: String,
    /// The body was made by this cluster itself, from an object of the server: its types are not looked at again, which
    /// is most of the work of a write.
    pub trusted: bool,
}

impl WriteOptions {
    /// The options of the cluster's own parts.
    pub fn trusted() -> Self {
        Self { trusted: true, ..Self::default() }
    }
}

/// What part of an object is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Everything but the status, where the kind has a status subresource.
    Main,
    /// The status.
    Status,
}

/// The answer to a write.
#[derive(Clone, Debug)]
pub struct Written {
    /// The object after the write.
    pub object: Arc<Value>,
    /// Whether it is new.
    pub created: bool,
    /// What the client should be warned of.
    pub warnings: Vec<String>,
}

/// Objects and the rules for changing them.
pub struct Registry {
    store: Store,
    catalog: Catalog,
    environment: Box<dyn Environment>,
    services: Ipv4Addr,
    applied: BTreeMap<(ResourceId, Key, String), Value>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Registry {
    /// An empty cluster with the namespaces `default`, `kube-system` and `kube-node-lease`.
    ///
    /// `window` is the number of events kept for watches, per resource; `services` is the network (its last two bytes are
    /// given out) of the services' addresses.
    pub fn new(window: usize, services: Ipv4Addr, environment: Box<dyn Environment>) -> Self {
        let mut registry = Self {
            store: Store::new(window),
            catalog: Catalog::builtin(),
            environment,
            services,
            applied: BTreeMap::new(),
        };
        for name in ["default", "kube-system", "kube-node-lease"] {
            let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            if let Some(kind) = registry.catalog.find("", "v1", "namespaces") {
                // A namespace of these names is valid, and the store is empty.
                let created = registry.create(&kind, "", namespace, &WriteOptions::default());
                debug_assert!(created.is_ok(), "{created:?}");
            }
        }
        registry
    }

    /// The objects.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The kinds.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The time.
    pub fn now(&self) -> jiff::Timestamp {
        self.environment.now()
    }

    /// Forgets the events, so that every watch must list again.
    pub fn compact(&mut self) {
        self.store.compact();
    }

    /// The object as stored.
    ///
    /// # Errors
    /// 404 if it does not exist.
    pub fn get(&self, kind: &Kind, key: &Key) -> Result<Arc<Value>> {
        self.store
            .get(&kind.storage, key)
            .ok_or_else(|| ApiError::not_found(&kind.group, &kind.plural, &key.name))
    }

    /// The time as objects carry it, in whole seconds.
    fn stamp(&self) -> String {
        self.environment.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    fn new_uid(&mut self) -> String {
        let (a, b) = (self.environment.random(), self.environment.random());
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            a >> 32,
            (a >> 16) & 0xffff,
            a & 0xfff,
            0x8000 | ((b >> 48) & 0x3fff),
            b & 0xffff_ffff_ffff
        )
    }

    /// Decodes, removes what is unknown, fills in defaults; warnings or a refusal for what was unknown.
    fn normalize(
        &self,
        kind: &Kind,
        object: &mut Value,
        options: &WriteOptions,
        fresh: bool,
    ) -> Result<Vec<String>> {
        let mut unknown = match &kind.custom {
            Some(custom) => custom.normalize(object),
            None if options.trusted && !fresh => Vec::new(),
            None => {
                let unknown = builtin::decode(&kind.storage, object).map_err(|why| {
                    let words = format!(
                        "{} in version {:?} cannot be handled as a {}: {why}",
                        kind.kind, kind.version, kind.kind
                    );
                    ApiError::bad_request(words)
                })?;
                builtin::default(&kind.storage, object, fresh);
                unknown
            }
        };
        if kind.is("apiextensions.k8s.io", "customresourcedefinitions") {
            crd::complete(object, &self.stamp());
        }
        if let Some(Value::Object(map)) = object.get("metadata") {
            unknown.extend(
                map.keys().filter(|k| !METADATA.contains(&k.as_str())).map(|k| format!("metadata.{k}")),
            );
        }
        let words = |path: &String| format!("unknown field \"{path}\"");
        match options.validation {
            FieldValidation::Ignore => Ok(Vec::new()),
            FieldValidation::Warn => Ok(unknown.iter().map(words).collect()),
            FieldValidation::Strict if unknown.is_empty() => Ok(Vec::new()),
            FieldValidation::Strict => {
                let list: Vec<String> = unknown.iter().map(words).collect();
                let text = format!("strict decoding error: {}", list.join(", "));
                Err(ApiError::bad_request(format!(
                    "{} in version {:?} cannot be handled as a {}: {text}",
                    kind.kind, kind.version, kind.kind
                )))
            }
        }
    }

    fn validate(&self, kind: &Kind, object: &Value, old: Option<&Value>) -> Result<()> {
        let mut causes = match &kind.custom {
            Some(custom) => custom.check(object, old),
            None => builtin::check(&kind.storage, object, old),
        };
        if old.is_none() {
            causes.splice(0..0, builtin::check_name(&kind.storage, object::name(object)));
        }
        for (index, owner) in object::list(object, "/metadata/ownerReferences").iter().enumerate() {
            for field in ["apiVersion", "kind", "name", "uid"] {
                if object::text(owner, &format!("/{field}")).is_empty() {
                    let path = format!("metadata.ownerReferences[{index}].{field}");
                    causes.push(Cause::required(path, "must not be empty"));
                }
            }
        }
        let controllers = object::list(object, "/metadata/ownerReferences").iter();
        if controllers.filter(|o| object::flag(o, "/controller")).count() > 1 {
            causes.push(Cause::invalid(
                "metadata.ownerReferences",
                &object["metadata"]["ownerReferences"],
                "Only one reference can have Controller set to true",
            ));
        }
        if causes.is_empty() {
            Ok(())
        } else {
            Err(ApiError::invalid(&kind.group, &kind.kind, object::name(object), causes))
        }
    }

    /// Stores the object and does what follows from it for the catalog.
    fn commit(&mut self, kind: &Kind, object: Value) -> Arc<Value> {
        if kind.is("apiextensions.k8s.io", "customresourcedefinitions") {
            self.catalog.serve_custom(&crd::storage(&object), crd::kinds(&object));
        }
        self.store.put(&kind.storage, object)
    }

    /// Removes the object and does what follows from it for the catalog.
    fn erase(&mut self, kind: &Kind, key: &Key) -> Option<Arc<Value>> {
        let gone = self.store.remove(&kind.storage, key)?;
        if kind.is("apiextensions.k8s.io", "customresourcedefinitions") {
            self.catalog.serve_custom(&crd::storage(&gone), Vec::new());
        }
        self.applied.retain(|(storage, applied, _), _| *storage != kind.storage || applied != key);
        Some(gone)
    }

    fn merge_keys(kind: &Kind) -> impl Fn(&[&str], &[Value]) -> Option<Vec<String>> {
        let custom = kind.custom.clone();
        let atomic = kind.is("discovery.k8s.io", "endpointslices");
        move |path, entries| match &custom {
            Some(custom) => patches::schema_keys(custom.schema(), path, entries),
            None if atomic && path.first() != Some(&"metadata") => None,
            None => patches::builtin_keys(path, entries),
        }
    }
}

const METADATA: [&str; 14] = [
    "name",
    "generateName",
    "namespace",
    "selfLink",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "labels",
    "annotations",
    "ownerReferences",
    "finalizers",
];

/// Refuses a body that is another kind than the path says.
fn check_type(kind: &Kind, object: &mut Value) -> Result<()> {
    let Some(map) = object.as_object_mut() else {
        return Err(ApiError::bad_request("the body of the request must be an object"));
    };
    let expected = kind.api_version();
    for (field, expected) in [("apiVersion", expected.as_str()), ("kind", kind.kind.as_str())] {
        let given = map.entry(field.to_owned()).or_insert_with(|| expected.into());
        if given != expected {
            return Err(ApiError::bad_request(format!(
                "the API version in the data ({given}) does not match the expected API version ({expected})"
            )));
        }
    }
    if let Some(Value::Object(metadata)) = map.get_mut("metadata") {
        metadata.remove("managedFields");
        // The server writes no empty lists and maps here.
        let empty = |value: &Value| {
            value.is_null()
                || value.as_array().is_some_and(Vec::is_empty)
                || value.as_object().is_some_and(serde_json::Map::is_empty)
        };
        metadata.retain(|_, value| !empty(value));
    }
    Ok(())
}

/// Refuses a write to `/status` of a kind that has none.
fn check_part(kind: &Kind, part: Part) -> Result<()> {
    if part == Part::Status && !kind.status {
        return Err(ApiError::new(Reason::NotFound, "the server could not find the requested resource"));
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A clock that stands still and numbers that count up.
    pub struct Still(pub u64);

    impl Environment for Still {
        fn now(&self) -> jiff::Timestamp {
            jiff::Timestamp::from_second(1_800_000_000).unwrap()
        }

        fn random(&mut self) -> u64 {
            self.0 += 1;
            self.0
        }
    }

    pub fn registry() -> Registry {
        Registry::new(100, Ipv4Addr::new(127, 2, 0, 0), Box::new(Still(0)))
    }

    pub fn kind(registry: &Registry, plural: &str) -> Arc<Kind> {
        registry.catalog().all().find(|k| k.plural == plural).cloned().unwrap()
    }

    pub fn pod(name: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"containers": [{"name": "worker", "image": "x"}]}})
    }

    /// A registry that serves `things.x.io` with a status.
    pub fn with_things() -> (Registry, Arc<Kind>) {
        let mut registry = registry();
        let definitions = kind(&registry, "customresourcedefinitions");
        let definition = json!({"metadata": {"name": "things.x.io"}, "spec": {"group": "x.io", "scope": "Namespaced",
            "names": {"plural": "things", "kind": "Thing"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": {
                        "size": {"type": "integer", "minimum": 0, "default": 1},
                        "names": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"}}},
                    "status": {"type": "object", "properties": {"epoch": {"type": "integer"},
                        "owner": {"type": "string"}}}}}}}]}});
        registry.create(&definitions, "", definition, &WriteOptions::default()).unwrap();
        let kind = kind(&registry, "things");
        (registry, kind)
    }

    pub fn thing(name: &str) -> Value {
        json!({"apiVersion": "x.io/v1", "kind": "Thing", "metadata": {"name": name}, "spec": {}})
    }
}

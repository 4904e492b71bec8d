//! Garbage collection by owner references; the contents of namespaces and of custom kinds that are deleted.

use crate::api::error::{ApiError, Reason, Result};
use crate::api::handle::Link;
use crate::api::kinds::Kind;
use crate::api::object::{self, Key, flag, list, text};
use crate::api::registry::{DeleteOptions, Part, Registry, WriteOptions};
use crate::api::store::ResourceId;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::watch;

const CRD_CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Runs until it is aborted.
pub async fn run(mut link: Link, mut changes: watch::Receiver<u64>) {
    let mut seen = Seen::default();
    loop {
        link.opened().await;
        changes.borrow_and_update();
        match link.call(|registry| seen.pass(registry)) {
            // What was removed may own something.
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => tracing::debug!(%error, "nothing was collected"),
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

type Place = (ResourceId, Key);

/// What is known of who owns what, kept up to date by events.
#[derive(Debug, Default)]
struct Seen {
    revisions: BTreeMap<ResourceId, u64>,
    alive: BTreeMap<String, Place>,
    dependents: BTreeMap<String, BTreeSet<Place>>,
    suspects: BTreeSet<Place>,
    ending: BTreeSet<Place>,
}

impl Seen {
    /// Takes in what has changed and collects; true when something was changed by it.
    fn pass(&mut self, registry: &mut Registry) -> Result<bool> {
        self.catch_up(registry);
        let before = registry.store().revision();
        for place in std::mem::take(&mut self.suspects) {
            tolerate_races(self.judge(registry, &place))?;
        }
        for place in self.ending.clone() {
            match tolerate_races(self.end(registry, &place))? {
                Some(true) => {}
                _ => {
                    self.ending.remove(&place);
                }
            }
        }
        Ok(registry.store().revision() != before)
    }

    fn catch_up(&mut self, registry: &Registry) {
        let store = registry.store();
        let resources: Vec<ResourceId> = store.resources().cloned().collect();
        let mut gone = Vec::new();
        for resource in resources {
            let since = self.revisions.get(&resource).copied();
            let events = since.map(|s| store.events_since(&resource, s));
            match events {
                Some(Ok(events)) => {
                    for event in events {
                        match event.change {
                            crate::api::store::Change::Deleted => {
                                gone.push((resource.clone(), event.object.clone()))
                            }
                            _ => self.note(&resource, &event.object),
                        }
                    }
                }
                None | Some(Err(_)) => {
                    for object in store.list(&resource, None) {
                        self.note(&resource, &object);
                    }
                    let lost: Vec<Place> =
                        self.alive.values().filter(|(r, _)| *r == resource).cloned().collect();
                    let present = |key: &Key| store.get(&resource, key).is_some();
                    self.suspects.extend(lost.into_iter().filter(|(_, key)| !present(key)));
                }
            }
            self.revisions.insert(resource, store.revision());
        }
        for (resource, object) in gone {
            self.forget(&resource, &object);
        }
    }

    fn note(&mut self, resource: &ResourceId, object: &Value) {
        let place = (resource.clone(), Key::of(object));
        self.alive.insert(object::uid(object).to_owned(), place.clone());
        let owners = list(object, "/metadata/ownerReferences");
        for owner in owners {
            self.dependents.entry(text(owner, "/uid").to_owned()).or_default().insert(place.clone());
        }
        if !owners.is_empty() {
            self.suspects.insert(place.clone());
        }
        if object::deleting(object) {
            self.ending.insert(place);
        }
    }

    fn forget(&mut self, resource: &ResourceId, object: &Value) {
        let uid = object::uid(object);
        self.alive.remove(uid);
        let place = (resource.clone(), Key::of(object));
        for owner in list(object, "/metadata/ownerReferences") {
            let owner = text(owner, "/uid");
            if let Some(set) = self.dependents.get_mut(owner) {
                set.remove(&place);
            }
            // A foreground deletion of the owner may wait for this.
            self.ending.extend(self.alive.get(owner).cloned());
        }
        self.suspects.extend(self.dependents.remove(uid).into_iter().flatten());
        self.suspects.remove(&place);
        if !place.1.namespace.is_empty() {
            self.ending.insert((ResourceId::new("", "namespaces"), Key::cluster(place.1.namespace.clone())));
        }
        let definition = format!("{}.{}", resource.plural, resource.group);
        let definitions = ResourceId::new("apiextensions.k8s.io", "customresourcedefinitions");
        self.ending.insert((definitions, Key::cluster(definition)));
    }

    /// Deletes an object whose owners are all gone, and drops references to some that are.
    fn judge(&self, registry: &mut Registry, place: &Place) -> Result<()> {
        let Some(object) = registry.store().get(&place.0, &place.1) else { return Ok(()) };
        let owners = list(&object, "/metadata/ownerReferences");
        let (present, absent): (Vec<&Value>, Vec<&Value>) =
            owners.iter().partition(|o| self.owner_exists(text(o, "/uid"), &place.1));
        if absent.is_empty() || object::deleting(&object) {
            return Ok(());
        }
        let kind = kind(registry, &place.0)?;
        if present.is_empty() {
            let options = DeleteOptions::of(object::uid(&object));
            return registry.delete(&kind, &place.1, &options).map(drop);
        }
        let kept: Vec<Value> = present.into_iter().cloned().collect();
        let mut new = (*object).clone();
        new["metadata"]["ownerReferences"] = kept.into();
        registry.replace(&kind, &place.1, Part::Main, new, &WriteOptions::trusted()).map(drop)
    }

    /// An owner in another namespace does not count.
    fn owner_exists(&self, uid: &str, dependent: &Key) -> bool {
        self.alive
            .get(uid)
            .is_some_and(|(_, key)| key.namespace.is_empty() || key.namespace == dependent.namespace)
    }

    /// Brings a deletion further; true while there is more to wait for.
    fn end(&self, registry: &mut Registry, place: &Place) -> Result<bool> {
        let Some(object) = registry.store().get(&place.0, &place.1).filter(|o| object::deleting(o)) else {
            return Ok(false);
        };
        let kind = kind(registry, &place.0)?;
        if kind.is("", "namespaces") {
            return empty_namespace(registry, &kind, &place.1);
        }
        let finalizers = object::finalizers(&object);
        if finalizers.contains(&CRD_CLEANUP) {
            return empty_definition(registry, &kind, &place.1, &object);
        }
        if finalizers.contains(&"orphan") {
            self.orphan(registry, &object)?;
            registry.release(&kind, &place.1, "orphan")?;
        } else if finalizers.contains(&"foregroundDeletion") {
            return self.foreground(registry, &kind, &place.1, &object);
        }
        Ok(false)
    }

    fn dependents(&self, registry: &Registry, owner: &str) -> Vec<(Place, Arc<Value>)> {
        let places = self.dependents.get(owner).into_iter().flatten();
        places.filter_map(|p| Some((p.clone(), registry.store().get(&p.0, &p.1)?))).collect()
    }

    fn orphan(&self, registry: &mut Registry, owner: &Value) -> Result<()> {
        for (place, dependent) in self.dependents(registry, object::uid(owner)) {
            let kept: Vec<Value> = list(&dependent, "/metadata/ownerReferences")
                .iter()
                .filter(|o| text(o, "/uid") != object::uid(owner))
                .cloned()
                .collect();
            let mut new = (*dependent).clone();
            new["metadata"]["ownerReferences"] = kept.into();
            let kind = kind(registry, &place.0)?;
            registry.replace(&kind, &place.1, Part::Main, new, &WriteOptions::trusted())?;
        }
        Ok(())
    }

    fn foreground(&self, registry: &mut Registry, kind: &Kind, key: &Key, owner: &Value) -> Result<bool> {
        let mut blocked = false;
        for (place, dependent) in self.dependents(registry, object::uid(owner)) {
            let reference = list(&dependent, "/metadata/ownerReferences")
                .iter()
                .find(|o| text(o, "/uid") == object::uid(owner))
                .cloned()
                .unwrap_or_default();
            blocked |= flag(&reference, "/blockOwnerDeletion");
            if !object::deleting(&dependent) {
                let dependent_kind = self::kind(registry, &place.0)?;
                registry.delete(&dependent_kind, &place.1, &DeleteOptions::of(object::uid(&dependent)))?;
            }
        }
        if !blocked {
            registry.release(kind, key, "foregroundDeletion")?;
        }
        Ok(blocked)
    }
}

fn kind(registry: &Registry, resource: &ResourceId) -> Result<Arc<Kind>> {
    registry
        .catalog()
        .of_storage(resource)
        .ok_or_else(|| ApiError::not_found(&resource.group, &resource.plural, ""))
}

/// Somebody else may have been faster; what is gone or changed is looked at again with its next event.
fn tolerate_races<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.reason, Reason::NotFound | Reason::Conflict) => Ok(None),
        Err(error) => Err(error),
    }
}

fn empty_namespace(registry: &mut Registry, kind: &Kind, key: &Key) -> Result<bool> {
    let resources: Vec<ResourceId> = registry.store().resources().cloned().collect();
    let mut left = false;
    for resource in resources {
        for object in registry.store().list(&resource, Some(&key.name)) {
            left = true;
            let Ok(inner) = self::kind(registry, &resource) else { continue };
            if !object::deleting(&object) {
                registry.delete(&inner, &Key::of(&object), &DeleteOptions::of(object::uid(&object)))?;
            }
        }
    }
    if !left {
        registry.finish_namespace(kind, key);
    }
    Ok(left)
}

fn empty_definition(registry: &mut Registry, kind: &Kind, key: &Key, definition: &Value) -> Result<bool> {
    let resource = ResourceId::new(text(definition, "/spec/group"), text(definition, "/spec/names/plural"));
    let objects = registry.store().list(&resource, None);
    if objects.is_empty() {
        registry.release(kind, key, CRD_CLEANUP)?;
        return Ok(false);
    }
    let custom = self::kind(registry, &resource)?;
    for object in objects.iter().filter(|o| !object::deleting(o)) {
        registry.delete(&custom, &Key::of(object), &DeleteOptions::of(object::uid(object)))?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::registry::tests::{kind, pod, thing, with_things};
    use crate::api::registry::{Deleted, Propagation};
    use serde_json::json;

    fn collect(seen: &mut Seen, registry: &mut Registry) {
        while seen.pass(registry).unwrap() {}
    }

    fn key(name: &str) -> Key {
        Key::new("default", name)
    }

    /// A thing `a` and a pod `p` that it owns.
    fn owned(registry: &mut Registry, things: &Kind) -> Arc<Kind> {
        let plain = WriteOptions::default();
        let owner = registry.create(things, "default", thing("a"), &plain).unwrap().object;
        let pods = kind(registry, "pods");
        let mut given = pod("p");
        given["metadata"]["ownerReferences"] = json!([{"apiVersion": "x.io/v1", "kind": "Thing", "name": "a",
            "uid": object::uid(&owner), "controller": true, "blockOwnerDeletion": true}]);
        registry.create(&pods, "default", given, &plain).unwrap();
        pods
    }

    fn delete_owner(registry: &mut Registry, things: &Kind, propagation: Propagation) -> Deleted {
        let options = DeleteOptions { propagation_policy: Some(propagation), ..DeleteOptions::default() };
        registry.delete(things, &key("a"), &options).unwrap()
    }

    #[test]
    fn what_an_object_owned_goes_with_it() {
        let (mut registry, things) = with_things();
        let pods = owned(&mut registry, &things);
        let mut seen = Seen::default();
        collect(&mut seen, &mut registry);
        assert!(registry.get(&pods, &key("p")).is_ok());
        delete_owner(&mut registry, &things, Propagation::Background);
        collect(&mut seen, &mut registry);
        assert!(registry.get(&pods, &key("p")).is_err());
    }

    #[test]
    fn a_pod_whose_owner_never_existed_is_collected() {
        let (mut registry, things) = with_things();
        let pods = owned(&mut registry, &things);
        delete_owner(&mut registry, &things, Propagation::Background);
        registry.create(&things, "default", thing("a"), &WriteOptions::default()).unwrap();
        collect(&mut Seen::default(), &mut registry);
        assert!(registry.get(&pods, &key("p")).is_err(), "the new owner of that name is another");
    }

    #[test]
    fn foreground_deletion_waits_for_the_dependents() {
        let (mut registry, things) = with_things();
        let pods = owned(&mut registry, &things);
        let mut seen = Seen::default();
        collect(&mut seen, &mut registry);
        assert!(matches!(delete_owner(&mut registry, &things, Propagation::Foreground), Deleted::Going(_)));
        collect(&mut seen, &mut registry);
        assert!(registry.get(&pods, &key("p")).is_err());
        assert!(registry.get(&things, &key("a")).is_err());
    }

    #[test]
    fn orphans_stay() {
        let (mut registry, things) = with_things();
        let pods = owned(&mut registry, &things);
        let mut seen = Seen::default();
        collect(&mut seen, &mut registry);
        delete_owner(&mut registry, &things, Propagation::Orphan);
        collect(&mut seen, &mut registry);
        assert!(registry.get(&things, &key("a")).is_err());
        let orphan = registry.get(&pods, &key("p")).unwrap();
        assert!(list(&orphan, "/metadata/ownerReferences").is_empty());
    }

    #[test]
    fn a_namespace_and_a_definition_take_their_objects_along() {
        let (mut registry, things) = with_things();
        let plain = WriteOptions::default();
        let namespaces = kind(&registry, "namespaces");
        registry.create(&namespaces, "", json!({"metadata": {"name": "n"}}), &plain).unwrap();
        registry.create(&things, "n", thing("x"), &plain).unwrap();
        registry.create(&things, "default", thing("y"), &plain).unwrap();
        let mut seen = Seen::default();
        registry.delete(&namespaces, &Key::cluster("n"), &DeleteOptions::default()).unwrap();
        collect(&mut seen, &mut registry);
        assert!(registry.get(&namespaces, &Key::cluster("n")).is_err());
        assert!(registry.get(&things, &Key::new("n", "x")).is_err());
        let definitions = kind(&registry, "customresourcedefinitions");
        registry.delete(&definitions, &Key::cluster("things.x.io"), &DeleteOptions::default()).unwrap();
        collect(&mut seen, &mut registry);
        assert!(registry.catalog().find("x.io", "v1", "things").is_none());
        assert!(registry.store().list(&things.storage, None).is_empty());
    }
}

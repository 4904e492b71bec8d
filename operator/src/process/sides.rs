//! The two hubs that a process may have to do with: that of its owner, and that which it is to be transferred to. Pure.

use kube::ResourceExt;
use processhub_crds::ProcessHub;
use processhub_protocol::id::PodUid;

use super::observation::Observation;
use crate::transfer;

impl Observation {
    /// Name of the hub whose pod this incarnation is or is to be.
    #[must_use]
    pub fn hub_of(&self, uid: &PodUid) -> String {
        let status = self.object.status.as_ref();
        let migration = status.and_then(|status| status.migration.as_ref());
        let source = migration.and_then(|migration| migration.source.as_ref());
        let source = source.filter(|source| source.uid.as_ref() == Some(&uid.0));
        let target = migration.map(|migration| &migration.target).filter(|_| self.target_uid() == Some(uid));
        let known = source.or(target).and_then(|incarnation| incarnation.hub.clone());
        known.unwrap_or_else(|| transfer::holder(&self.object).to_owned())
    }

    /// The hub of that name, if it is one of those that the process has to do with and is there.
    #[must_use]
    pub fn hub_named(&self, name: &str) -> Option<&ProcessHub> {
        let hubs = [Some(&self.hub), self.destination.as_ref()].into_iter().flatten();
        hubs.map(|hub| &**hub).find(|hub| hub.name_any() == name)
    }

    /// The hub whose pod the move's target is or is to be.
    #[must_use]
    pub fn target_hub(&self) -> Option<&ProcessHub> {
        let migration = self.object.status.as_ref()?.migration.as_ref()?;
        migration.target.hub.as_ref().map_or(Some(&self.hub), |name| self.hub_named(name))
    }

    /// Whether the move under way brings the process to another hub.
    #[must_use]
    pub fn is_transfer(&self) -> bool {
        let migration = self.object.status.as_ref().and_then(|status| status.migration.as_ref());
        migration.is_some_and(|migration| {
            let from = migration.source.as_ref().and_then(|source| source.hub.as_ref());
            from.is_some_and(|from| migration.target.hub.as_ref().is_some_and(|to| to != from))
        })
    }

    /// Whether the move under way is a transfer that is not wanted any more: the object names another hub than its
    /// target's, or that one is gone.
    #[must_use]
    pub fn is_unwanted_transfer(&self) -> bool {
        let wanted = self.target_hub().is_some_and(|hub| {
            hub.name_any() == self.object.spec.hub_name && hub.metadata.deletion_timestamp.is_none()
        });
        self.is_transfer() && !wanted
    }

    /// After a write of the ledger: the process may be another hub's now.
    pub fn enter(&mut self) {
        let holder = transfer::holder(&self.object);
        if self.hub.name_any() != holder
            && let Some(entered) = self.destination.take_if(|to| to.name_any() == holder)
        {
            self.hub = entered;
        }
    }
}

//! Which hub a process is of, and whether it can go to another one. Pure.
//!
//! A process is of the hub whose pod its owner is, which is written down with the owner. Where its object names another
//! hub it is to be transferred: until the commit the former hub counts and moves it, from then on the other one. Both are
//! on the object, so that a new leader needs nothing else.

use kube::ResourceExt;
use processhub_crds::vocabulary::ProcessReason;
use processhub_crds::{HubProcess, MigrationStrategy, ProcessHub, ServiceKind};

use crate::assignments::{Assignment, Held};

/// Name of the hub that the process is of: that of its owner; of one without an owner, the one that it names.
#[must_use]
pub fn holder(process: &HubProcess) -> &str {
    let owner = process.status.as_ref().and_then(|status| status.owner.as_ref());
    // An owner of before hubs were written down is one of the hub that the object names: it may not name another one.
    owner.map(|owner| owner.hub.as_str()).filter(|hub| !hub.is_empty()).unwrap_or(&process.spec.hub_name)
}

/// Name of the hub that it is to be transferred to, if it is.
#[must_use]
pub fn destination(process: &HubProcess) -> Option<&str> {
    let wanted = process.spec.hub_name.as_str();
    (wanted != holder(process)).then_some(wanted)
}

/// What both hubs say of a process, and what they are.
#[derive(Clone, Debug)]
pub struct Sides<'a> {
    /// The hub that it is of; `None` if it is gone.
    pub from: Option<&'a ProcessHub>,
    /// What the planner of that hub wants.
    pub home: Option<Assignment>,
    /// The hub that its object names, where that is another one and is there.
    pub to: Option<&'a ProcessHub>,
    /// What the planner of that one wants.
    pub away: Option<Assignment>,
}

impl Sides<'_> {
    /// What is to be done for the process: what its hub says, unless it may leave. `class` is that of this installation.
    #[must_use]
    pub fn assignment(self, process: &HubProcess, class: &str) -> Option<Assignment> {
        let Some(name) = destination(process) else { return self.home };
        let status = process.status.as_ref();
        if let Some(migration) = status.and_then(|status| status.migration.as_ref()) {
            let transfer = migration.target.hub.as_deref() == Some(name);
            return if transfer { self.away.map(|away| Assignment { go: None, ..away }) } else { self.home };
        }
        // What has to be moved where it is is not left waiting for another hub.
        if self.home.as_ref().is_some_and(|home| home.go.is_some()) {
            return self.home;
        }
        if self.from.is_some_and(|from| from.metadata.deletion_timestamp.is_none())
            && !self.home.as_ref()?.lets_go
        {
            return self.home;
        }
        let held = |reason, message: &str| {
            let back = holder(process);
            let message = format!("{message}; or change spec.hubName back to {back}, where it serves on");
            Assignment { held: Some(Held { reason, message }), ..Assignment::default() }
        };
        if let Some(words) = refusal(name, self.from, self.to, class) {
            return Some(held(ProcessReason::TransferRefused, &words));
        }
        let away = self.away?;
        if let Some(Held { reason, message }) = &away.held {
            return Some(held(*reason, message));
        }
        // Only once nobody collects it for having had another hub.
        let adopted = self.to.is_some_and(|to| {
            process.owner_references().iter().any(|owner| Some(&owner.uid) == to.metadata.uid.as_ref())
        });
        Some(if adopted { away } else { Assignment::default() })
    }
}

/// Why a hub cannot take processes of another one over, and the remedy.
fn refusal(name: &str, from: Option<&ProcessHub>, to: Option<&ProcessHub>, class: &str) -> Option<String> {
    let Some(to) = to else {
        return Some(format!("there is no ProcessHub {name} in this namespace: create it"));
    };
    if to.metadata.deletion_timestamp.is_some() {
        return Some(format!("hub {name} is being deleted: name another one"));
    }
    if to.spec.class_name != class {
        return Some(format!("hub {name} is of another installation (spec.className): name another one"));
    }
    from.and_then(|from| incompatible(from, to))
}

/// The address of a process is kept, and says no more than clients know: not where it has the hub's name in it, nor where
/// another protocol is spoken.
fn incompatible(from: &ProcessHub, to: &ProcessHub) -> Option<String> {
    let headless = [from, to].into_iter().find(|hub| hub.spec.worker.service == ServiceKind::Headless);
    if let Some(hub) = headless {
        return Some(format!(
            "hub {} has spec.worker.service Headless, so that its name is in the address of its processes, which could \
             not be kept: name a hub with ClusterIP",
            hub.name_any()
        ));
    }
    (from.spec.worker.protocol != to.spec.worker.protocol).then(|| {
        format!(
            "clients speak {} with processes of hub {}, and {} with those of hub {} (spec.worker.protocol): name a hub \
             with the same",
            from.spec.worker.protocol.as_str(),
            from.name_any(),
            to.spec.worker.protocol.as_str(),
            to.name_any()
        )
    })
}

/// Whether what must never exist twice is of either hub: then the source ends before the target begins.
#[must_use]
pub fn is_cold(from: &ProcessHub, to: &ProcessHub) -> bool {
    [from, to].into_iter().any(|hub| hub.spec.migration.strategy == MigrationStrategy::ColdSwap)
}

#[cfg(test)]
#[path = "transfer_tests.rs"]
mod tests;

//! Carries out a plan: objects first, then the assignments.
//!
//! Each write is conditional on what it was decided on (a UID, a version), and is done through its failpoint. One
//! object that cannot be written delays no other: the first error is returned when everything has been tried.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use futures::{StreamExt, stream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, ObjectMeta, PostParams, Preconditions};
use kube::{Api, Resource, ResourceExt};
use processhub_crds::vocabulary::{annotation, label};
use processhub_crds::{HubProcess, HubProcessSpec, ProcessHub};

use super::key;
use super::observe::{Ownership, Seen, listed_labels, ownership, process_key};
use crate::call::{self, CallError};
use crate::context::Context;
use crate::failpoint::Point;
use crate::plan::{Child, Children, Plan};
use crate::transfer;

/// How many writes are under way at once.
const PARALLEL: usize = 16;

/// Carries it out.
///
/// # Errors
/// The first one, after everything has been tried. What was not done is planned again.
pub(super) async fn apply(
    context: &Context,
    hub: &ProcessHub,
    seen: &Seen,
    plan: &Plan,
) -> Result<(), CallError> {
    // No process waits for the writes: what it may do was decided on what is there already.
    let at = key(hub);
    let concerned: HashSet<&str> =
        seen.all().filter_map(|(_, object)| object.metadata.uid.as_deref()).collect();
    context.board.withdraw(&at, |process| concerned.contains(process.0.as_str()));
    for (name, object) in seen.all() {
        if seen.inputs.processes.get(name).is_some_and(|process| process.facts.is_some()) {
            let assignment = plan.assignments.get(name).cloned().unwrap_or_default();
            context.board.assign(&at, &process_key(object), assignment);
        }
    }
    let Children { create, update, delete, taken: _, replicas: _, desired: _ } = &plan.children;
    let mut writes = Vec::new();
    if seen.inputs.hub.deleting {
        return Ok(());
    }
    writes.extend(seen.all().filter_map(|(_, object)| adoption(hub, object)).map(Write::Adopt));
    // Fewer before more: scaling from one set of names to another never asks for room for both.
    writes
        .extend(delete.iter().filter_map(|name| seen.objects.get(name)).map(|it| Write::Delete(it.clone())));
    writes.extend(
        update
            .iter()
            .filter_map(|(name, child)| Some(Write::Update(updated(seen.objects.get(name)?, child)))),
    );
    writes.extend(create.iter().map(|(name, child)| Write::Create(new(hub, name, child))));

    let processes =
        Api::<HubProcess>::namespaced(context.client.clone(), &hub.namespace().unwrap_or_default());
    let results: Vec<Result<(), CallError>> =
        stream::iter(writes.into_iter().map(|write| write.carry_out(context, &processes)))
            .buffered(PARALLEL)
            .collect()
            .await;
    results.into_iter().find(Result::is_err).unwrap_or(Ok(()))
}

/// One write. Each is idempotent: what has been done already is an outcome, not an error.
enum Write {
    Create(HubProcess),
    Update(HubProcess),
    Adopt(HubProcess),
    Delete(Arc<HubProcess>),
}

impl Write {
    async fn carry_out(self, context: &Context, processes: &Api<HubProcess>) -> Result<(), CallError> {
        let parameters = PostParams::default();
        match self {
            Self::Create(process) => {
                let create = call::api("create process", processes.create(&parameters, &process));
                match context.failpoints.pass(Point::CreateProcess, create).await {
                    // Ours, which the watch has not brought yet, or another hub's: the next plan sees which.
                    Ok(_) | Err(CallError::Exists { .. }) => Ok(()),
                    Err(error) => Err(error),
                }
            }
            Self::Update(process) => {
                let name = process.name_any();
                let replace = call::api("update process", processes.replace(&name, &parameters, &process));
                let written = context.failpoints.pass(Point::UpdateProcess, replace).await;
                call::optional(written).map(|_| ())
            }
            Self::Adopt(process) => {
                let name = process.name_any();
                let replace = call::api("adopt process", processes.replace(&name, &parameters, &process));
                let written = context.failpoints.pass(Point::AdoptProcess, replace).await;
                call::optional(written).map(|_| ())
            }
            Self::Delete(process) => {
                // At the version that was seen: one that was told to leave for another hub meanwhile is not stopped.
                let preconditions =
                    Preconditions { uid: process.uid(), resource_version: process.resource_version() };
                let parameters =
                    DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
                let name = process.name_any();
                let delete = call::api("delete process", processes.delete(&name, &parameters));
                match context.failpoints.pass(Point::DeleteProcess, delete).await {
                    // Gone, or another object of that name, or one that has changed: the next plan sees which.
                    Ok(_) | Err(CallError::NotFound { .. } | CallError::Conflict { .. }) => Ok(()),
                    Err(error) => Err(error),
                }
            }
        }
    }
}

/// The object of a process that the hub asks for.
fn new(hub: &ProcessHub, name: &str, child: &Child) -> HubProcess {
    let Child { config, labels, pin, listed_labels } = child.clone();
    let spec = HubProcessSpec { hub_name: hub.name_any(), config, node_name: pin };
    let mut process = HubProcess::new(name, spec);
    let mut labels = labels;
    labels.insert(label::HUB.to_owned(), hub.name_any());
    process.metadata = ObjectMeta {
        name: Some(name.to_owned()),
        namespace: hub.namespace(),
        labels: Some(labels),
        annotations: note(&listed_labels).map(|note| [note].into()),
        owner_references: hub.controller_owner_ref(&()).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    };
    process
}

/// The object as the hub lists it, at the version that was seen.
fn updated(object: &HubProcess, child: &Child) -> HubProcess {
    let Child { config, labels, pin, listed_labels: now } = child.clone();
    let mut process = object.clone();
    let own = process.metadata.labels.get_or_insert_default();
    for gone in listed_labels(object).difference(&now) {
        own.remove(gone);
    }
    process.spec.config = config;
    process.spec.node_name = pin;
    process.metadata.labels.get_or_insert_default().extend(labels);
    match note(&now) {
        Some((key, value)) => drop(process.metadata.annotations.get_or_insert_default().insert(key, value)),
        None => drop(process.annotations_mut().remove(annotation::LISTED_LABELS)),
    }
    process.metadata.managed_fields = None;
    process
}

/// The annotation that says which labels are from the hub's list; none for none.
fn note(keys: &BTreeSet<String>) -> Option<(String, String)> {
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    (!keys.is_empty()).then(|| (annotation::LISTED_LABELS.to_owned(), keys.join(",")))
}

/// The object with the hub among its owners, so that it goes when the hub goes, and without what a hub left there that
/// it came from; `None` if it is so already. A hub to which it is to come is an owner beside the one that has it.
fn adoption(hub: &ProcessHub, object: &HubProcess) -> Option<HubProcess> {
    if object.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let mut process = object.clone();
    let controller = hub.controller_owner_ref(&())?;
    let owner = match ownership(hub, object) {
        Ownership::Managed | Ownership::Dynamic => None,
        Ownership::Orphan => Some(controller),
        Ownership::New => Some(OwnerReference { controller: None, block_owner_deletion: None, ..controller }),
    };
    process.metadata.owner_references.get_or_insert_default().extend(owner);
    if transfer::holder(object) == hub.name_any() {
        leave_behind(hub, &mut process);
    }
    let owners = |object: &HubProcess| object.owner_references().to_vec();
    let is_so = owners(&process) == owners(object)
        && (process.labels(), process.annotations()) == (object.labels(), object.annotations());
    process.metadata.managed_fields = None;
    (!is_so).then_some(process)
}

/// Takes away what says that the process is another hub's: a label of that hub would make it a replica of a new one of
/// its name, and what it was listed with is nobody's list any more.
fn leave_behind(hub: &ProcessHub, process: &mut HubProcess) {
    let bound_for = transfer::destination(process).map(str::to_owned);
    let other = |owner: &OwnerReference| {
        owner.kind == ProcessHub::kind(&())
            && owner.name != hub.name_any()
            && Some(&owner.name) != bound_for.as_ref()
    };
    process.metadata.owner_references.get_or_insert_default().retain(|owner| !other(owner));
    if process.labels().get(label::HUB).is_some_and(|name| *name != hub.name_any()) {
        process.labels_mut().remove(label::HUB);
        process.annotations_mut().remove(annotation::LISTED_LABELS);
    }
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;

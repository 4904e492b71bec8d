//! Carries out a plan: objects first, then the assignments.
//!
//! Each write is conditional on what it was decided on (a UID, a version), and is done through its failpoint. One
//! object that cannot be written delays no other: the first error is returned when everything has been tried.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::{StreamExt, stream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, ObjectMeta, PostParams, Preconditions};
use kube::{Api, Resource, ResourceExt};
use processhub_crds::vocabulary::{annotation, label};
use processhub_crds::{HubProcess, HubProcessSpec, ProcessHub};

use super::observe::{Ownership, Seen, listed_labels, ownership, process_key};
use crate::call::{self, CallError};
use crate::context::Context;
use crate::failpoint::Point;
use crate::plan::{Child, Children, Plan};

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
    for (name, object) in &seen.objects {
        if seen.inputs.processes.get(name).is_some_and(|process| process.facts.is_some()) {
            let assignment = plan.assignments.get(name).cloned().unwrap_or_default();
            context.board.assign(&process_key(object), assignment);
        }
    }
    let Children { create, update, delete, taken: _, replicas: _, desired: _ } = &plan.children;
    let mut writes = Vec::new();
    if seen.inputs.hub.deleting {
        return Ok(());
    }
    writes.extend(seen.objects.values().filter_map(|object| adoption(hub, object)).map(Write::Adopt));
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
                let preconditions = Preconditions { uid: process.uid(), resource_version: None };
                let parameters =
                    DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
                let name = process.name_any();
                let delete = call::api("delete process", processes.delete(&name, &parameters));
                match context.failpoints.pass(Point::DeleteProcess, delete).await {
                    // Gone, or another object of that name.
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

/// The object with the hub among its owners, if it is not there yet: so that it goes when the hub goes.
fn adoption(hub: &ProcessHub, object: &HubProcess) -> Option<HubProcess> {
    if object.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let controller = hub.controller_owner_ref(&())?;
    let owner = match ownership(hub, object) {
        Ownership::Managed | Ownership::Dynamic => return None,
        Ownership::Orphan => controller,
        Ownership::New => OwnerReference { controller: None, block_owner_deletion: None, ..controller },
    };
    let mut process = object.clone();
    process.metadata.owner_references.get_or_insert_default().push(owner);
    process.metadata.managed_fields = None;
    Some(process)
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;

//! Releases pods of cold-swap hubs: their finalizer keeps the object until they are proven to have ended, also against
//! a forced deletion, and also after the process itself was deleted.

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Patch, PatchParams};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use processhub_crds::vocabulary::finalizer;
use serde_json::json;

use super::incarnation::PodFacts;
use crate::call::{self, CallError};
use crate::context::Context;
use crate::failpoint::Point;

/// Whether this pod has the finalizer and is to go.
pub(crate) fn wanted(facts: &PodFacts) -> bool {
    facts.guarded && facts.going()
}

/// Removes the finalizer from this pod, if it is going and certainly ended.
pub(crate) async fn release(context: &Context, facts: &PodFacts) {
    if !wanted(facts) || !context.leadership.valid() {
        return;
    }
    match try_release(context, facts).await {
        Ok(()) => {}
        Err(error) => {
            tracing::warn!(pod = facts.name, %error, "the finalizer could not be removed; tried again with its next change")
        }
    }
}

async fn try_release(context: &Context, facts: &PodFacts) -> Result<(), CallError> {
    if !facts.ended && !node_gone(context, facts).await? {
        return Ok(());
    }
    let pods = Api::<Pod>::namespaced(context.client.clone(), &facts.namespace);
    // Destroys the object, so that it is decided on a live read.
    let Some(pod) = call::optional(call::api("read pod", pods.get(&facts.name)).await)? else {
        return Ok(());
    };
    let live = PodFacts::of(&pod).filter(|live| live.uid == facts.uid);
    if !live.is_some_and(|live| live.ended || !facts.ended) {
        return Ok(());
    }
    let kept: Vec<&String> = pod.finalizers().iter().filter(|name| *name != finalizer::COLD_SWAP).collect();
    let patch = json!({ "metadata": {
        "uid": facts.uid, "resourceVersion": pod.resource_version(), "finalizers": kept,
    } });
    let (parameters, patch) = (PatchParams::default(), Patch::Merge(&patch));
    let released = call::api("release pod", pods.patch(&facts.name, &parameters, &patch));
    match context.failpoints.pass(Point::ReleasePod, released).await {
        // Changed or gone meanwhile: the watch brings it again.
        Ok(_) | Err(CallError::NotFound { .. } | CallError::Conflict { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

async fn node_gone(context: &Context, facts: &PodFacts) -> Result<bool, CallError> {
    let Some(name) = &facts.node else { return Ok(true) };
    if context.stores.nodes.get(&ObjectRef::new(name)).is_some() {
        return Ok(false);
    }
    let nodes = Api::<Node>::all(context.client.clone());
    Ok(call::optional(call::api("read Node", nodes.get(name)).await)?.is_none())
}

//! Releases pods of cold-swap hubs: their finalizer keeps the object until they are proven to have ended, also against
//! a forced deletion, and also after the process itself was deleted.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use processhub_crds::vocabulary::finalizer;
use serde_json::json;

use super::incarnation::PodFacts;
use super::observe;
use super::proof::NodeEvidence;
use crate::call::{self, CallError};
use crate::context::Context;
use crate::failpoint::Point;

/// Removes the finalizer from this pod, if it is going and certainly ended.
pub(crate) async fn release(context: &Context, facts: &PodFacts) {
    if !facts.guarded || !facts.going() || !context.leadership.valid() {
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

/// A pod that never had a node has never run; for the others somebody's statement about the node counts as it does for
/// a recovery.
async fn node_gone(context: &Context, facts: &PodFacts) -> Result<bool, CallError> {
    if facts.node.is_none() {
        return Ok(true);
    }
    let evidence = observe::node_evidence(context, facts.node.as_deref(), &mut BTreeMap::new()).await?;
    Ok(matches!(evidence, NodeEvidence::Deleted | NodeEvidence::Present { out_of_service: true }))
}

//! Ends the pods of a process whose object was deleted: `stop_child`.
//!
//! The pods are collected by their owner references, without a finalizer, so that uninstalling never hangs. But a
//! worker's end waits for its process to be handed over (`preStop`), and here nobody takes it: its sidecar is told so.

use super::apply::COMMAND_PATIENCE;
use super::incarnation::PodFacts;
use super::observe::REPORT_PATIENCE;
use crate::assignments::HubKey;
use crate::call::{self, CallError};
use crate::context::Context;
use crate::failpoint::Point;
use crate::sidecar_client::Address;
use kube::{Api, Resource};
use processhub_crds::HubProcess;
use processhub_crds::vocabulary::EventReason;
use processhub_protocol::handover::{self, Effect};
use processhub_protocol::wire::{Addressee, CONTROL_PORT, LetGo};

/// How long requests under way may take; the object that said it is gone.
const DRAIN_MILLISECONDS: u64 = 5000;

/// Lets go of a pod that is going, if its process is no more. What fails is tried again soon: the caller looks at
/// every pod that is going again and again.
pub(crate) async fn let_go(context: &Context, facts: &PodFacts) {
    if facts.ended || !context.leadership.valid() {
        return;
    }
    if let Err(error) = try_let_go(context, facts).await {
        tracing::debug!(pod = facts.name, %error, "the pod could not be let go of");
    }
}

async fn try_let_go(context: &Context, facts: &PodFacts) -> Result<(), CallError> {
    if lives(context, facts).await? {
        return Ok(());
    }
    let Some(ip) = facts.ip.clone() else { return Ok(()) };
    let hub = HubKey { namespace: facts.namespace.clone(), name: facts.hub.clone() };
    let key = context.credentials.read(&hub).await?;
    let to = Address { ip, port: CONTROL_PORT, token: key.token(&facts.uid) };
    let report = context.sidecars.report(&to, REPORT_PATIENCE).await?;
    let Some(Effect::LetGo { epoch }) = handover::let_go(&report) else { return Ok(()) };
    let command = LetGo {
        to: Addressee { process: facts.process.clone(), pod: facts.uid.clone() },
        epoch,
        drain_timeout_milliseconds: DRAIN_MILLISECONDS,
    };
    let sent = async { Ok(context.sidecars.let_go(&to, &command, COMMAND_PATIENCE).await?) };
    context.failpoints.pass(Point::LetGo, sent).await?;
    tracing::info!(pod = facts.name, process = facts.process_name, "stopped");
    Ok(())
}

/// Whether the process that this pod was created for exists: by a live read, because what follows cannot be undone.
async fn lives(context: &Context, facts: &PodFacts) -> Result<bool, CallError> {
    let processes = Api::<HubProcess>::namespaced(context.client.clone(), &facts.namespace);
    let found =
        call::optional(call::api("read HubProcess", processes.get_metadata(&facts.process_name)).await)?;
    Ok(found.is_some_and(|object| {
        object.meta().uid.as_ref() == Some(&facts.process.0) && object.meta().deletion_timestamp.is_none()
    }))
}

/// Says that a process was stopped; its object is gone already, the event outlives it.
pub(crate) fn tell(context: &Context, object: &HubProcess) {
    context.events.normal(object.object_ref(&()), EventReason::ProcessStopped, "the object was deleted");
}

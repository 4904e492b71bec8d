//! The hub loop: from what the watches hold to assignments, objects and the hub's status.
//!
//! One reconcile is its list of stages: `observe` reads, `plan` decides, `apply` writes, `status` tells. Between
//! two of them it remembers only what makes it calmer or cheaper (`memory`); a new leader starts without.

mod apply;
mod gauges;
mod memory;
mod nodes;
mod observe;
mod status;
mod summary;
mod template;

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::{Action, Config, Error, ReconcileRequest, applier};
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};
use processhub_crds::ProcessHub;
use tokio::time::Instant;

pub use nodes::trim as trim_node;

use self::gauges::Gauges;
use self::memory::Memories;
use crate::assignments::HubKey;
use crate::call::CallError;
use crate::context::Context;
use crate::plan::{Plan, plan};

/// How many hubs are reconciled at once.
const CONCURRENCY: u16 = 8;
/// How soon a hub is looked at again that could not be reconciled, first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// How soon an operator that does not lead looks whether it does.
const STANDBY: Duration = Duration::from_secs(1);
/// Everything is looked at again at least so often: level-triggered, whatever a watch has missed.
const RESYNC: Duration = Duration::from_secs(60);

/// Runs the loop: reconciles every hub that `triggers` names, until they end. The caller names a hub when it, one of
/// its processes, or the facts of one of them changed, and every hub when a node did. The stores of the context must
/// have been filled once before.
pub async fn run(context: Arc<Context>, triggers: impl Stream<Item = HubKey> + Send + 'static) {
    let store = context.stores.hubs.clone();
    let requests = triggers.map(|key| {
        let reference = ObjectRef::<ProcessHub>::new(&key.name).within(&key.namespace);
        Ok::<_, std::convert::Infallible>(ReconcileRequest::from(reference))
    });
    let shared = Arc::new(Loop { context, memories: Memories::default() });
    applier(
        |hub, shared| Box::pin(reconcile(hub, shared)),
        retry,
        shared.clone(),
        store,
        requests,
        Config::default().concurrency(CONCURRENCY),
    )
    .for_each(|result| {
        // A hub that is gone ends as an error; failures of our own were told where they happened.
        if let Err(Error::ObjectNotFound(hub)) = result {
            let key = HubKey { namespace: hub.namespace.unwrap_or_default(), name: hub.name };
            shared.memories.remove(&key, &shared.context);
        }
        std::future::ready(())
    })
    .await;
}
/// How soon a hub is looked at again whose code was written down just now, if no watch brings it.
const RECORDED: Duration = Duration::from_millis(500);
/// How soon a name that another hub had is asked for again.
const TAKEN: Duration = Duration::from_secs(5);

struct Loop {
    context: Arc<Context>,
    memories: Memories,
}

fn retry(hub: Arc<ProcessHub>, error: &CallError, shared: Arc<Loop>) -> Action {
    let failures = shared.memories.failed(&hub);
    let (first, longest) = RETRY;
    let wait = first.saturating_mul(1 << failures.min(10)).min(longest);
    match error {
        // Decided on an older version: what the watch brings next, or already has, is newer.
        CallError::Conflict { .. } => tracing::debug!(hub = hub.name_any(), %error, "hub not reconciled"),
        _ => tracing::warn!(
            namespace = hub.namespace(), hub = hub.name_any(), %error, ?wait, "hub not reconciled"
        ),
    }
    Action::requeue(wait)
}

async fn reconcile(hub: Arc<ProcessHub>, shared: Arc<Loop>) -> Result<Action, CallError> {
    let Loop { context, memories } = &*shared;
    if !context.owns(&hub) {
        return Ok(Action::await_change());
    }
    if !context.leadership.valid() {
        memories.forget_all(context);
        return Ok(Action::requeue(STANDBY));
    }
    let mut memory = memories.take(&hub);
    let result = match memory.rest() {
        Some(rest) => Ok(rest),
        None => pass(&hub, context, &mut memory).await,
    };
    if result.is_ok() {
        memory.succeeded();
    }
    memories.put(&hub, memory);
    result.map(Action::requeue)
}

/// One pass over the stages. Returns when to look again even if nothing happens.
async fn pass(
    hub: &Arc<ProcessHub>,
    context: &Context,
    memory: &mut memory::Memory,
) -> Result<Duration, CallError> {
    let now = Timestamp::now();
    // With a client, for the dry run of a template that has not been tried yet.
    let verdict = template::judge(context, hub, memory, now).await?;
    // Without.
    let began = Instant::now();
    let mut seen = observe::observe(context, hub, &verdict, now);
    seen.inputs.memory = memory.plan.clone();
    let (plan, report) = plan(&seen.inputs);
    tracing::debug!(hub = hub.name_any(), empty = plan.is_empty(), "planned\n{report}");
    memory.plan = plan.memory.clone();
    memory.decided(began.elapsed());
    memory.tell_members(context, hub, &report);
    memory.show(context, hub, Gauges::of(&seen));
    let sources = status::Sources { hub, seen: &seen, verdict: &verdict, report: &report };
    if !status::code_is_known(&sources) {
        // Nothing is made from a template before it is written down: a process that moves later needs it, whatever the
        // spec says by then. The watch brings the status back.
        status::write(context, &sources, memory, now).await?;
        return Ok(RECORDED);
    }
    // With a client.
    let applied = apply::apply(context, hub, &seen, &plan).await;
    // Also when something could not be written: what the hub says of itself does not wait for it.
    let wait = status::write(context, &sources, memory, now).await?;
    applied?;
    Ok(next_look(&plan, now).min(wait))
}

fn next_look(plan: &Plan, now: Timestamp) -> Duration {
    let now = u64::try_from(now.as_millisecond()).unwrap_or(0);
    // No watch of this hub tells when another one gives a name up.
    let longest = if plan.children.taken.is_empty() { RESYNC } else { TAKEN };
    let wake = plan.wake.map_or(longest, |wake| Duration::from_millis(wake.saturating_sub(now)).min(longest));
    wake.clamp(Duration::from_millis(1), RESYNC)
}

/// The key of a hub.
fn key(hub: &ProcessHub) -> HubKey {
    HubKey { namespace: hub.namespace().unwrap_or_default(), name: hub.name_any() }
}

/// What an event about a hub refers to.
fn about(hub: &ProcessHub) -> k8s_openapi::api::core::v1::ObjectReference {
    hub.object_ref(&())
}

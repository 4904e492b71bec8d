//! The process loop: one reconcile per `HubProcess`, each on its own, none waiting for another.
//!
//! `observe` reads, `handover::next` decides, `apply` carries out, until nothing is left to do now. No watch event
//! is waited for between the steps: the answer of each is what the next is decided on, so that a blackout lasts as
//! long as its round trips. What is left is waited for ([`pace`]) or told to the planner ([`facts`]).

pub mod address;
pub(crate) mod apply;
mod commands;
mod crash;
pub mod facts;
pub mod incarnation;
pub(crate) mod memory;
pub mod observation;
pub(crate) mod observe;
pub mod pace;
pub mod pod;
pub mod proof;
pub mod record;
pub(crate) mod release;
pub(crate) mod replicas;
pub mod sides;
pub mod status;
pub(crate) mod stop;
mod tell;
pub(crate) mod tenure;
mod tidy;
pub mod wish;
pub mod words;
pub(crate) mod write;

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, TryStreamExt};
use kube::runtime::controller::{Action, Config, ReconcileRequest, applier};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use processhub_crds::{HubProcess, ProcessHub};
use processhub_protocol::handover::{Effect, Waiting};
use processhub_protocol::id::ProcessUid;
use processhub_protocol::ledger::Transition;
use tracing::Instrument;

use crate::assignments::HubKey;
use crate::call::{self, CallError};
use crate::context::Context;
use crate::index::ProcessName;
use crate::transfer;
use memory::Memory;
use observation::Observation;

/// More steps than the longest way from a first look to a served request; beyond it something goes round in circles.
const MAX_STEPS: usize = 32;
/// How often a write that was decided on an older version is decided again before pausing.
const MAX_CONFLICTS: usize = 3;

/// How many processes are looked at at once. Far more than are ever busy, so that those which wait for a time-out keep
/// nobody waiting; few enough that a new leader does not open a connection to every pod at once.
const CONCURRENCY: u16 = 1024;

/// Runs the loop: reconciles every process that `triggers` names, until they end and what was begun has ended. The
/// stores and indexes of the context must have been filled once before.
pub async fn run(context: Arc<Context>, triggers: impl Stream<Item = ProcessName> + Send + 'static) {
    let store = context.stores.processes.clone();
    let requests = triggers.map(|process| {
        let reference = ObjectRef::<HubProcess>::new(&process.name).within(&process.namespace);
        Ok::<_, std::convert::Infallible>(ReconcileRequest::from(reference))
    });
    let config = Config::default().concurrency(CONCURRENCY);
    applier(|object, context| Box::pin(reconcile(object, context)), retry, context, store, requests, config)
        // A process that is gone ends as an error too; failures of our own were told where they happened.
        .map_err(|error| tracing::trace!(%error, "process not reconciled"))
        .for_each(|_| std::future::ready(()))
        .await;
}

fn retry(object: Arc<HubProcess>, error: &ReconcileError, context: Arc<Context>) -> Action {
    let uid = ProcessUid(object.uid().unwrap_or_default());
    let mut memory = context.memories.take(&uid);
    let pause = memory.failed(error.to_string());
    context.memories.put(uid, memory);
    tracing::warn!(process = object.name_any(), %error, ?pause, "the process could not be looked at");
    Action::requeue(pause)
}

/// Why a process could not be looked at. It is tried again; no other is concerned.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ReconcileError(#[from] CallError);

/// Brings one process on as far as it goes now.
///
/// # Errors
/// When the API server could not be asked about it.
pub async fn reconcile(object: Arc<HubProcess>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    if !context.leadership.valid() {
        return Ok(Action::await_change());
    }
    let uid = ProcessUid(object.uid().unwrap_or_default());
    if object.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let status = object.status.as_ref();
    let span = tracing::info_span!(
        "process",
        process = %object.name_any(),
        namespace = %object.namespace().unwrap_or_default(),
        epoch = status.map_or(0, |status| status.epoch),
        r#move = status.and_then(|status| Some(status.migration.as_ref()?.epoch)),
    );
    let mut memory = context.memories.take(&uid);
    let pause = bring_on(&context, &object, &mut memory).instrument(span).await;
    context.memories.put(uid, memory);
    Ok(Action::requeue(pause?))
}

async fn bring_on(
    context: &Context,
    cached: &HubProcess,
    memory: &mut Memory,
) -> Result<Duration, ReconcileError> {
    let mut object = memory.newest(cached);
    for _ in 0..MAX_CONFLICTS {
        let Some(hubs) = hubs(context, &object) else {
            return Ok(tidy::without_hub(context, object, memory).await?);
        };
        if !context.owns(&hubs.hub) {
            return Ok(pace::RESYNC);
        }
        let ledger = match record::read(&object.status.clone().unwrap_or_default()) {
            Ok(ledger) => ledger,
            Err(unknown) => {
                tracing::error!(%unknown, "the status is not understood");
                return Ok(pace::RESYNC);
            }
        };
        let mut seen = observe::observe(context, object.clone(), hubs, ledger, memory).await?;
        match steps(context, &mut seen, memory).await {
            Ok(done) => return Ok(tidy::after(context, seen, memory, done).await?),
            Err(Conflict) => object = read_again(context, cached, memory).await?,
        }
    }
    Ok(memory.failed("its status is written by others all the time".to_owned()))
}

/// The hub that a process is of, and that which it is to be transferred to.
pub(crate) struct Hubs {
    pub(crate) hub: Arc<ProcessHub>,
    pub(crate) destination: Option<Arc<ProcessHub>>,
}

/// The hubs of a process. One that is gone is stood in for by the one that the process is to go to: somebody's limits are
/// needed.
fn hubs(context: &Context, object: &HubProcess) -> Option<Hubs> {
    let namespace = object.namespace().unwrap_or_default();
    let find = |name: &str| context.hub(&HubKey { namespace: namespace.clone(), name: name.to_owned() });
    let destination = transfer::destination(object).and_then(find);
    let hub = find(transfer::holder(object)).or_else(|| destination.clone())?;
    Some(Hubs { hub, destination })
}

/// A write was decided on an older version: nothing was done by it.
struct Conflict;

/// How far the steps of one reconcile have come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done {
    /// What is waited for now.
    waiting: Waiting,
    /// How long to pause, where something failed.
    pause: Option<Duration>,
}

async fn steps(context: &Context, seen: &mut Observation, memory: &mut Memory) -> Result<Done, Conflict> {
    for _ in 0..MAX_STEPS {
        seen.leading = context.leadership.valid();
        match tidy::show_loss(context, seen, memory).await {
            Ok(()) => {}
            Err(CallError::Conflict { .. }) => return Err(Conflict),
            Err(error) => {
                let pause = failed(context, seen, memory, "show-loss", &error);
                return Ok(Done { waiting: Waiting::Source, pause: Some(pause) });
            }
        }
        renew(context, seen, memory).await;
        if replicas::bring_on(context, seen, memory).await.is_err() {
            return Err(Conflict);
        }
        let decision = seen.decide();
        if decision.effects.is_empty() {
            return Ok(Done { waiting: decision.waiting, pause: None });
        }
        // The halves of an undo are independent: a source that does not answer keeps no target from being deleted.
        let mut pause = None;
        for effect in decision.effects {
            let name = effect.name();
            let ends = matches!(effect, Effect::Write(Transition::End { .. }));
            let ready = if ends { tidy::remove_wishes(context, seen, memory).await } else { Ok(()) };
            let done = match ready {
                Ok(()) => apply::apply(context, seen, memory, effect).await,
                Err(error) => Err(error),
            };
            match done {
                Ok(()) => memory.succeeded(),
                Err(CallError::Conflict { .. }) => return Err(Conflict),
                Err(error) => pause = Some(failed(context, seen, memory, name, &error)),
            }
        }
        if pause.is_some() {
            return Ok(Done { waiting: decision.waiting, pause });
        }
    }
    tracing::error!("{MAX_STEPS} steps and no end; paused");
    let pause = Some(memory.failed("the steps of this process come to no end".to_owned()));
    Ok(Done { waiting: Waiting::Nothing, pause })
}

/// Renews the owner's lease, if that is due. What else is to be done does not depend on it: an owner that does not take it
/// holds its requests when the one that it has ends.
async fn renew(context: &Context, seen: &mut Observation, memory: &mut Memory) {
    let Some(effect) = seen.renewal() else { return };
    if let Err(error) = apply::apply(context, seen, memory, effect).await {
        tracing::warn!(%error, "the lease was not renewed");
    }
}

fn failed(
    context: &Context,
    seen: &mut Observation,
    memory: &mut Memory,
    effect: &'static str,
    error: &CallError,
) -> Duration {
    tracing::warn!(effect, %error, "an effect failed; it is tried again");
    let labels = crate::metrics::ByEffect { effect: effect.to_owned() };
    context.metrics.effects_failed_total.get_or_create(&labels).inc();
    let pause = memory.failed(error.to_string());
    seen.trouble.clone_from(&memory.trouble);
    pause
}

async fn read_again(
    context: &Context,
    cached: &HubProcess,
    memory: &mut Memory,
) -> Result<HubProcess, CallError> {
    let namespace = cached.namespace().unwrap_or_default();
    let processes = Api::<HubProcess>::namespaced(context.client.clone(), &namespace);
    let object = call::api("read HubProcess", processes.get(&cached.name_any())).await?;
    memory.wrote(&object);
    Ok(object)
}

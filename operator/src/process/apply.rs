//! Carries out effects, one at a time, each through its failpoint, and takes their answers into the observation.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use processhub_crds::HubProcess;
use processhub_crds::validate::validate;
use processhub_protocol::handover::{Effect, Side};
use processhub_protocol::id::{Epoch, PodUid};
use processhub_protocol::ledger::PodRef;
use processhub_protocol::wire::{Renew, Report, Thaw};
use tokio::time::Instant;

use super::commands::{
    activate, address, addressee, freeze, grant, hand_on, import, missing, owner_uid, recover, source_uid,
    target_uid, trial,
};
use super::incarnation::PodFacts;
use super::memory::Memory;
use super::observation::{Observation, Sighting};
use super::pod::Blueprint;
use super::{memory, observe, pod, replicas, write};
use crate::call::{self, CallError};
use crate::context::Context;
use crate::failpoint::Point;
use crate::revision;

/// How long a command's answer is waited for. One that takes longer goes on in the sidecar and is seen in its report.
pub(crate) const COMMAND_PATIENCE: Duration = Duration::from_secs(3);
/// How long a renewal's answer is waited for: what else the process needs waits for it.
const RENEWAL_PATIENCE: Duration = Duration::from_millis(1000);
/// How often it is looked at, while a command's answer is waited for, whether it is still wanted. In memory.
const LOOK: Duration = Duration::from_millis(20);

/// Carries out one effect.
///
/// # Errors
/// The observation is then to be made again; nothing is known of the effect unless the error says so.
pub(crate) async fn apply(
    context: &Context,
    seen: &mut Observation,
    memory: &mut Memory,
    effect: Effect,
) -> Result<(), CallError> {
    let point = Point::from(&effect);
    tracing::debug!(effect = effect.name(), "doing");
    match effect {
        Effect::ReadLive(side) => {
            let read = read_live(context, seen, side);
            let (name, found) = context.failpoints.pass(point, read).await?;
            took_live(seen, name, found);
        }
        Effect::Write(transition) => write::write(context, seen, memory, point, &transition).await?,
        Effect::CreatePod { name, node, epoch, gated } => {
            let created = create_pod(context, seen, &name, &node, epoch, gated);
            let created = context.failpoints.pass(point, created).await?;
            seen.age();
            let facts = PodFacts::of(&created).unwrap_or_else(|| PodFacts::stranger(&created));
            seen.pods.insert(name, Sighting { facts: Arc::new(facts), live: false });
        }
        Effect::Trial { epoch } => {
            let uid = target_uid(seen)?;
            let command = trial(context, seen, &uid, epoch).await?;
            let to = address(context, seen, &uid).await?;
            let sent = async { Ok(context.sidecars.trial(&to, &command, COMMAND_PATIENCE).await?) };
            let sent = unless("trial", sent, given_up(context, seen));
            answered(context, seen, point, uid, sent).await?;
        }
        Effect::Freeze { epoch, capture } => {
            let uid = source_uid(seen)?;
            let command = freeze(seen, &uid, epoch, capture);
            let to = address(context, seen, &uid).await?;
            let sent = async { Ok(context.sidecars.freeze(&to, &command, COMMAND_PATIENCE).await?) };
            let sent = unless("freeze", sent, given_up(context, seen));
            answered(context, seen, point, uid, sent).await?;
        }
        Effect::Import { epoch, state, reason, replica } => {
            let uid = target_uid(seen)?;
            let command = match replica {
                Some(holder) => recover(context, seen, &uid, epoch, state, &holder).await?,
                None => import(context, seen, &uid, epoch, state, reason).await?,
            };
            let to = address(context, seen, &uid).await?;
            let sent = async { Ok(context.sidecars.import(&to, &command, COMMAND_PATIENCE).await?) };
            let sent = unless("import", sent, given_up(context, seen));
            answered(context, seen, point, uid, sent).await?;
        }
        Effect::Activate { epoch, state } => {
            let uid = target_uid(seen)?;
            let command = activate(context, seen, &uid, epoch, state).await?;
            let to = address(context, seen, &uid).await?;
            memory.leases.grants(&uid, Instant::now());
            let sent = async { Ok(context.sidecars.activate(&to, &command, COMMAND_PATIENCE).await?) };
            answered(context, seen, point, uid, sent).await?;
        }
        Effect::Thaw { epoch } => {
            let uid = source_uid(seen)?;
            let grant = grant(context, seen, &uid)?;
            let command = Thaw { to: addressee(seen, &uid), epoch, grant };
            let to = address(context, seen, &uid).await?;
            memory.leases.grants(&uid, Instant::now());
            let sent = async { Ok(context.sidecars.thaw(&to, &command, COMMAND_PATIENCE).await?) };
            answered(context, seen, point, uid, sent).await?;
        }
        Effect::HandOn { epoch } => {
            let uid = source_uid(seen)?;
            let command = hand_on(context, seen, &uid, epoch).await?;
            let to = address(context, seen, &uid).await?;
            let sent = async { Ok(context.sidecars.hand_on(&to, &command, COMMAND_PATIENCE).await?) };
            answered(context, seen, point, uid, sent).await?;
        }
        Effect::Renew { epoch } => {
            let uid = owner_uid(seen)?;
            let grant = grant(context, seen, &uid)?;
            let command = Renew { to: addressee(seen, &uid), epoch, grant };
            let to = address(context, seen, &uid).await?;
            memory.leases.grants(&uid, Instant::now());
            let sent = async { Ok(context.sidecars.renew(&to, &command, RENEWAL_PATIENCE).await?) };
            answered(context, seen, point, uid, sent).await?;
        }
        Effect::SealReplicas { epoch } => {
            let sealed = async {
                replicas::seal(context, seen, epoch).await;
                Ok(())
            };
            context.failpoints.pass(point, sealed).await?;
        }
        Effect::Replicate { epoch } => {
            let uid = owner_uid(seen)?;
            let command = replicas::command(context, seen, &uid, epoch).await?;
            let to = address(context, seen, &uid).await?;
            let sent = async { Ok(context.sidecars.replicate(&to, &command, RENEWAL_PATIENCE).await?) };
            answered(context, seen, point, uid, sent).await?;
        }
        // Never decided for a process whose object is there: `stop` carries it out.
        Effect::LetGo { .. } => return Err(missing("let-go", "a process that was deleted")),
        Effect::Route(pod) => {
            let routed = route(context, seen, &pod);
            context.failpoints.pass(point, routed).await?;
            seen.age();
            seen.routed_to = Some(pod.uid);
        }
        Effect::DeletePod { side: _, uid } => {
            let deleted = delete_pod(context, seen, &uid);
            context.failpoints.pass(point, deleted).await?;
            seen.age();
            mark_going(seen, &uid);
        }
    }
    Ok(())
}

async fn read_live(
    context: &Context,
    seen: &Observation,
    side: Side,
) -> Result<(String, Option<PodFacts>), CallError> {
    let name = match side {
        Side::Source => seen.source().map(|pod| pod.name.clone()),
        Side::Target => seen.ledger.migration.as_ref().map(|migration| migration.target_name.clone()),
    };
    let name = name.ok_or_else(|| missing("read-live", "the pod's name"))?;
    let found = observe::read_pod(context, seen, &name).await?;
    Ok((name, found))
}

fn took_live(seen: &mut Observation, name: String, found: Option<PodFacts>) {
    match found {
        Some(facts) => {
            seen.absent.remove(&name);
            seen.pods.insert(name, Sighting { facts: Arc::new(facts), live: true });
        }
        None => {
            seen.pods.remove(&name);
            seen.absent.insert(name);
        }
    }
}

/// Creates the pod. One that is there already counts if it is ours and is not going (rule 4).
async fn create_pod(
    context: &Context,
    seen: &Observation,
    name: &str,
    node: &str,
    epoch: Epoch,
    gated: bool,
) -> Result<Pod, CallError> {
    let revision = seen.object.status.as_ref().and_then(|status| status.migration.as_ref());
    let revision = revision.map_or("", |migration| &migration.revision);
    let hub = seen.target_hub().ok_or_else(|| missing("create pod", "the hub that it is for"))?;
    // Of another hub it may be the first pod, which would not start without.
    context.key(hub).await?;
    let hub = revision::hub_with(hub, revision)
        .ok_or_else(|| missing("create pod", &format!("the template of revision {revision}")))?;
    validate(&hub).map_err(|invalid| missing("create pod", &invalid.to_string()))?;
    let blueprint = Blueprint {
        hub: &hub,
        process: &seen.object,
        name,
        node,
        epoch,
        gated,
        sidecar_image: &context.options.sidecar_image,
    };
    let pods = Api::<Pod>::namespaced(context.client.clone(), &seen.name().namespace);
    let (parameters, pod) = (PostParams::default(), pod::build(&blueprint));
    let created = pods.create(&parameters, &pod);
    match call::api("create pod", created).await {
        Err(CallError::Exists { .. } | CallError::Conflict { .. }) => {
            // Whose it is and whether it goes is judged on what is read, as for every other pod.
            call::api("read pod", pods.get(name)).await
        }
        created => created,
    }
}

async fn route(context: &Context, seen: &Observation, pod: &PodRef) -> Result<(), CallError> {
    let ip = seen.ip(&pod.uid).ok_or_else(|| missing("route", "the pod's address"))?;
    let written = super::address::point(&context.client, &seen.hub, &seen.object, pod, &ip).await?;
    context.routes.written(&written);
    Ok(())
}

/// Deletes the pod with this UID and no other; one that is gone already is what was wanted.
pub(crate) async fn delete_pod(context: &Context, seen: &Observation, uid: &PodUid) -> Result<(), CallError> {
    let sighting = seen.pod(uid).ok_or_else(|| missing("delete pod", "the pod's name"))?;
    let preconditions = Preconditions { uid: Some(uid.0.clone()), resource_version: None };
    let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    let pods = Api::<Pod>::namespaced(context.client.clone(), &sighting.facts.namespace);
    match call::api("delete pod", pods.delete(&sighting.facts.name, &parameters)).await {
        Ok(_) | Err(CallError::NotFound { .. } | CallError::Conflict { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

fn mark_going(seen: &mut Observation, uid: &PodUid) {
    let now = seen.now;
    if let Some(sighting) = seen.pods.values_mut().find(|seen| seen.facts.uid == *uid) {
        Arc::make_mut(&mut sighting.facts).going_until.get_or_insert(now);
    }
}

/// Waits for a command's answer, unless what it was decided on changes first: then it is decided anew, and the command goes
/// on in the sidecar.
async fn unless<T>(
    what: &'static str,
    answer: impl Future<Output = Result<T, CallError>>,
    changed: impl Future<Output = ()>,
) -> Result<T, CallError> {
    tokio::select! {
        biased;
        answer = answer => answer,
        () = changed => Err(CallError::Conflict { what }),
    }
}

/// Returns when there is a reason to give the move up that was not there when `seen` was seen: clients wait for what the
/// source holds, and a person's word is not to wait for a capture or an import that takes long.
fn given_up<'a>(context: &'a Context, seen: &Observation) -> impl Future<Output = ()> + use<'a> {
    let mut later = seen.clone();
    let before = later.give_up();
    let name = ObjectRef::<HubProcess>::new(&seen.object.name_any()).within(&seen.name().namespace);
    async move {
        loop {
            tokio::time::sleep(LOOK).await;
            let newer = context
                .stores
                .processes
                .get(&name)
                .filter(|object| memory::version(object) > memory::version(&later.object));
            if let Some(object) = newer {
                later.object = (*object).clone();
            }
            later.assignment = observe::assignment(context, &later);
            later.now = Timestamp::now();
            let now = later.give_up();
            if now.is_some() && now != before {
                return;
            }
        }
    }
}

async fn answered(
    context: &Context,
    seen: &mut Observation,
    point: Point,
    uid: PodUid,
    sent: impl Future<Output = Result<Report, CallError>>,
) -> Result<(), CallError> {
    let report = context.failpoints.pass(point, sent).await?;
    seen.age();
    observe::take_in(seen, &uid, report);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_waited_for_only_while_it_is_wanted() {
        let never = || std::future::pending::<Result<(), CallError>>();
        let later = || tokio::time::sleep(Duration::from_secs(1));
        assert!(matches!(
            unless("import", never(), later()).await,
            Err(CallError::Conflict { what: "import" })
        ));
        assert!(unless("import", async { Ok(()) }, std::future::ready(())).await.is_ok(), "an answer counts");
        let slow = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            Ok(7)
        };
        assert_eq!(unless("import", slow, later()).await.ok(), Some(7));
    }
}

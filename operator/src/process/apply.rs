//! Carries out effects, one at a time, each through its failpoint, and takes their answers into the observation.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use processhub_crds::validate::validate;
use processhub_crds::vocabulary::MoveReason;
use processhub_crds::{HubProcess, MigrationTrigger};
use processhub_protocol::handover::{Effect, Side, Waiting};
use processhub_protocol::id::{Epoch, PodUid};
use processhub_protocol::ledger::{Kind, MoveResult, PodRef, Transition};
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
use super::{memory, observe, pod, record, replicas, status, tell};
use crate::call::{self, CallError};
use crate::context::Context;
use crate::failpoint::Point;
use crate::{revision, transfer};

/// How long a command's answer is waited for. One that takes longer goes on in the sidecar and is seen in its report.
pub(crate) const COMMAND_PATIENCE: Duration = Duration::from_secs(3);
/// How long a renewal's answer is waited for: what else the process needs waits for it.
const RENEWAL_PATIENCE: Duration = Duration::from_millis(1000);
/// How long the end of a move waits for the length of its blackout, and between two questions for it. Nobody's requests
/// wait meanwhile.
const MEASURING: Duration = Duration::from_secs(1);
const MEASURING_PAUSE: Duration = Duration::from_millis(10);

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
        Effect::Write(transition) => write(context, seen, memory, point, &transition).await?,
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

/// Writes the ledger's next state, with the conditions that go with it, by compare-and-swap.
async fn write(
    context: &Context,
    seen: &mut Observation,
    memory: &mut Memory,
    point: Point,
    transition: &Transition,
) -> Result<(), CallError> {
    if matches!(transition, Transition::End { result: MoveResult::Succeeded }) {
        measure(context, seen).await;
    }
    let around = circumstances(seen, transition);
    let next = record::write(&seen.status(), transition, &around)
        .ok_or_else(|| missing("write", "a ledger that this transition applies to"))?;
    let ended = seen.object.status.as_ref().and_then(|status| status.migration.clone());
    let mut after = seen.clone();
    after.ledger = record::read(&next).map_err(|unknown| missing("write", &unknown.to_string()))?;
    after.object.status = Some(next);
    after.enter();
    // What holders said was asked for another epoch.
    after.replicas.holders.clear();
    let waiting = after_write(transition).unwrap_or_else(|| after.decide().waiting);
    status::refresh(&mut after, waiting, status::Outlook::Expected);
    let written = context.failpoints.pass(point, replace_status(context, &after.object)).await?;
    memory.wrote(&written);
    tell::limit(context, &seen.object, &written);
    after.object = written;
    after.age();
    *seen = after;
    tracing::info!(transition = point.as_str(), epoch = seen.ledger.epoch.0, "wrote the ledger");
    tell::transition(context, seen, transition, ended.as_ref());
    Ok(())
}

/// Asks the target before the move is forgotten until it says how long the blackout was: it learns that from the source,
/// after its own answer to the activation. Where the source goes anyway the move ends at once, and without the wait often
/// before that.
async fn measure(context: &Context, seen: &mut Observation) {
    let Some(uid) = seen.target_uid().cloned() else { return };
    let source = seen.ledger.migration.as_ref().and_then(|migration| migration.source.as_ref());
    if source.is_none_or(|source| seen.dead.contains_key(&source.uid)) {
        return;
    }
    let measured = |seen: &Observation| {
        seen.reports.get(&uid).is_some_and(|report| report.blackout_microseconds.is_some())
    };
    let Ok(to) = address(context, seen, &uid).await else { return };
    let until = Instant::now() + MEASURING;
    while !measured(seen) && Instant::now() < until {
        tokio::time::sleep(MEASURING_PAUSE).await;
        let Ok(report) = context.sidecars.report(&to, observe::REPORT_PATIENCE).await else { return };
        observe::take_in(seen, &uid, report);
    }
}

/// What will be waited for once the transition is written: so that its conditions need no write of their own. `None` where
/// that does not depend on it.
fn after_write(transition: &Transition) -> Option<Waiting> {
    Some(match transition {
        Transition::Prepare { .. } => Waiting::TargetPod,
        Transition::Commit { .. } => Waiting::Retention,
        Transition::Abort { .. } => Waiting::Thawing,
        Transition::Fence => Waiting::LeaseEnd,
        Transition::Unfence => Waiting::Nothing,
        Transition::End { .. } => Waiting::Nothing,
        Transition::Replicate { .. } | Transition::Replicated => return None,
    })
}

/// Writes the status as it stands in `object`, at the version it was decided on.
pub(crate) async fn replace_status(context: &Context, object: &HubProcess) -> Result<HubProcess, CallError> {
    let namespace = object.namespace().unwrap_or_default();
    let processes = Api::<HubProcess>::namespaced(context.client.clone(), &namespace);
    let (name, parameters) = (object.name_any(), PostParams::default());
    let written = processes.replace_status(&name, &parameters, object);
    call::api("write status", written).await
}

fn circumstances(seen: &Observation, transition: &Transition) -> record::Circumstances {
    let source = seen.source();
    let target = seen.target_uid();
    let target_report = target.and_then(|uid| seen.reports.get(uid));
    let source_report = source.and_then(|pod| seen.reports.get(&pod.uid));
    let failure = [target_report, source_report].into_iter().flatten().find_map(|report| {
        let epoch = seen.ledger.migration.as_ref()?.epoch;
        report
            .failure
            .as_ref()
            .filter(|failure| failure.epoch == epoch)
            .map(|failure| failure.message.clone())
    });
    let carried = seen
        .ledger
        .migration
        .as_ref()
        .is_some_and(|migration| migration.source.is_some() && migration.kind != Kind::Start);
    let succeeded =
        matches!(transition, Transition::End { result: processhub_protocol::ledger::MoveResult::Succeeded });
    let blackout = target_report
        .and_then(|report| report.blackout_microseconds)
        .filter(|_| carried && succeeded)
        .map(|microseconds| (microseconds + 500) / 1000);
    let go = seen.assignment.as_ref().and_then(|assignment| assignment.go.as_ref());
    let trigger = match transition {
        Transition::Prepare { kind: Kind::Start, .. } => MigrationTrigger::Start,
        _ => go.map_or(MigrationTrigger::Recovery, |go| go.trigger),
    };
    let status = seen.object.status.as_ref();
    let moved_to = status.and_then(|status| Some(status.migration.as_ref()?.revision.as_str()));
    let target_hub = seen.target_hub().unwrap_or(&seen.hub);
    let to = revision::label(target_hub, moved_to.unwrap_or_default());
    let owner = status.and_then(|status| status.owner.as_ref());
    let from = owner.map_or_else(String::new, |owner| seen.label(&owner.revision));
    let vsn = revision::vsn(target_hub, moved_to.unwrap_or_default());
    let prepared = matches!(transition, Transition::Prepare { .. });
    let holder = || transfer::holder(&seen.object).to_owned();
    let into = status.and_then(|status| status.migration.as_ref()?.target.hub.clone());
    let said = target_report.map(|report| report.worker.vsn.clone()).unwrap_or_default();
    record::Circumstances {
        process: seen.object.name_any(),
        now: Timestamp::now(),
        deadline: Duration::from_secs(seen.hub.spec.migration.deadline_seconds),
        trigger,
        restarts: seen.hub.spec.worker.restarts.clone(),
        revision: go.map(|go| go.revision.clone()).unwrap_or_default(),
        versions: (from, to),
        source_ip: source.and_then(|pod| seen.ip(&pod.uid)),
        target_ip: target.and_then(|uid| seen.ip(uid)),
        target_vsn: if said.is_empty() { vsn } else { said },
        source_hub: source.map_or_else(holder, |pod| seen.hub_of(&pod.uid)),
        target_hub: if prepared { go.map(|go| go.hub.clone()) } else { into }.unwrap_or_else(holder),
        cancelled: if seen.is_unwanted_transfer() { MoveReason::HubChanged } else { MoveReason::Cancelled },
        stateless: target_report.is_some_and(|report| report.worker.can_hand_over == Some(false)),
        message: failure.or_else(|| status::target_words(seen)),
        blamed: status::blamed(seen),
        blackout_milliseconds: blackout,
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

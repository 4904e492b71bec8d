//! The commands to sidecars, from what was seen. Each is complete: a sidecar asks nothing back.

use kube::ResourceExt;
use processhub_crds::vocabulary::label;
use processhub_crds::{MigrationTrigger, is_down};
use processhub_protocol::contract::Direction;
use processhub_protocol::id::{Epoch, PodUid, StateId};
use processhub_protocol::ledger::Kind;
use processhub_protocol::wire::{
    Activate, Addressee, CONTROL_PORT, CodeChange, Freeze, Grant, HandOn, Import, ImportReason, Peer,
    StartInfo, Token, Trial,
};

use super::observation::Observation;
use super::{observe, replicas};
use crate::call::CallError;
use crate::context::Context;
use crate::revision;
use crate::sidecar_client::Address;

pub(super) fn freeze(seen: &Observation, uid: &PodUid, epoch: Epoch, capture: bool) -> Freeze {
    Freeze {
        to: addressee(seen, uid),
        epoch,
        capture,
        drain_timeout_milliseconds: seen.hub.spec.worker.drain_timeout_milliseconds,
        state_query_timeout_milliseconds: seen.hub.spec.migration.state_query_timeout_milliseconds,
    }
}

pub(super) async fn import(
    context: &Context,
    seen: &Observation,
    uid: &PodUid,
    epoch: Epoch,
    state: StateId,
    reason: ImportReason,
) -> Result<Import, CallError> {
    let from = source_peer(context, seen).await?.ok_or_else(|| missing("import", "the source's address"))?;
    Ok(Import {
        to: addressee(seen, uid),
        epoch,
        state,
        from,
        replica: false,
        timeout_milliseconds: seen.hub.spec.migration.state_ttl_milliseconds,
        reason: match reason {
            ImportReason::Handover if seen.is_transfer() => ImportReason::Transfer,
            reason => reason,
        },
        code_change: code_change(seen),
    })
}

/// An import of what a holder has of an owner that is lost.
pub(super) async fn recover(
    context: &Context,
    seen: &Observation,
    uid: &PodUid,
    epoch: Epoch,
    state: StateId,
    holder: &PodUid,
) -> Result<Import, CallError> {
    let holders = seen.ledger.replicas.holders();
    let pod = holders.into_iter().find(|pod| pod.uid == *holder);
    let pod = pod.ok_or_else(|| missing("import", "the holder of a replica"))?;
    Ok(Import {
        to: addressee(seen, uid),
        epoch,
        state,
        from: replicas::peer(context, seen, pod).await?,
        replica: true,
        timeout_milliseconds: seen.hub.spec.migration.state_ttl_milliseconds,
        reason: ImportReason::Crash,
        code_change: code_change(seen),
    })
}

pub(super) async fn trial(
    context: &Context,
    seen: &Observation,
    uid: &PodUid,
    epoch: Epoch,
) -> Result<Trial, CallError> {
    let from = source_peer(context, seen).await?.ok_or_else(|| missing("trial", "the source's address"))?;
    let code_change = code_change(seen).ok_or_else(|| missing("trial", "the code that is to be tried"))?;
    Ok(Trial {
        to: addressee(seen, uid),
        epoch,
        from,
        timeout_milliseconds: seen.hub.spec.migration.state_ttl_milliseconds,
        code_change,
    })
}

/// What the target's worker has to know, where its code is another one than the source's.
pub(super) fn code_change(seen: &Observation) -> Option<CodeChange> {
    let to = &seen.object.status.as_ref()?.migration.as_ref()?.revision;
    let from = seen.runs()?;
    if to.is_empty() || to == from {
        return None;
    }
    // Between hubs there is no older or newer: what its hub does not know is newer.
    let down = is_down(revision::known(&seen.hub), from, to);
    let extra = &seen.target_hub().unwrap_or(&seen.hub).spec.upgrade.extra;
    // An object that came as JSON can be written as JSON.
    let text =
        if extra.is_empty() { String::new() } else { serde_json::to_string(extra).unwrap_or_default() };
    Some(CodeChange {
        from: seen.vsn(from),
        direction: if down { Direction::Down } else { Direction::Up },
        extra: text,
    })
}

pub(super) async fn activate(
    context: &Context,
    seen: &Observation,
    uid: &PodUid,
    epoch: Epoch,
    state: Option<StateId>,
) -> Result<Activate, CallError> {
    let kind = seen.ledger.migration.as_ref().map(|migration| migration.kind);
    let status = seen.object.status.as_ref();
    let may_miss = status.and_then(|status| status.may_miss.as_ref());
    // Of a move: what its source lost when its worker crashed. The next worker is told as that one would have been.
    let source = seen.source().and_then(|source| seen.reports.get(&source.uid));
    let lost = source.and_then(|report| report.lost).map(|lost| lost.from);
    let trigger = status.and_then(|status| Some(status.migration.as_ref()?.trigger));
    let crashed = lost.is_some() || trigger == Some(MigrationTrigger::Crash);
    let config = &seen.object.spec.config;
    let text = if config.is_empty() { Ok(String::new()) } else { serde_json::to_string(config) };
    let labels = seen.object.labels().iter().filter(|(key, _)| !key.starts_with(label::PREFIX));
    Ok(Activate {
        to: addressee(seen, uid),
        epoch,
        grant: grant(context, seen, uid)?,
        state,
        source: source_peer(context, seen).await?.filter(|peer| !seen.dead.contains_key(&peer.pod)),
        start: StartInfo {
            initial: kind == Some(Kind::Start),
            recovery: kind == Some(Kind::Recover) || crashed,
            transfer: seen.is_transfer(),
            config: text.map_err(|error| missing("activate", &error.to_string()))?,
            labels: labels.map(|(key, value)| (key.clone(), value.clone())).collect(),
            may_miss_from: may_miss.filter(|_| kind == Some(Kind::Recover)).map(|miss| miss.from).or(lost),
        },
    })
}

/// Where the requests of a sealed source belong, though nobody serves them there yet.
pub(super) async fn hand_on(
    context: &Context,
    seen: &Observation,
    uid: &PodUid,
    epoch: Epoch,
) -> Result<HandOn, CallError> {
    let target = target_uid(seen)?;
    let peer = peer(context, seen, &target).await?;
    let peer = peer.ok_or_else(|| missing("hand-on", "the target's address"))?;
    Ok(HandOn { to: addressee(seen, uid), epoch, peer })
}

/// A grant answers the sidecar's newest challenge, and is void when this operator's Lease may be.
pub(super) fn grant(context: &Context, seen: &Observation, uid: &PodUid) -> Result<Grant, CallError> {
    let valid = context.grant().ok_or_else(|| missing("grant", "a valid Lease of this operator"))?;
    let report = seen.reports.get(uid).ok_or_else(|| missing("grant", "a challenge of the sidecar"))?;
    let owner = seen.ledger.owner.as_ref().ok_or_else(|| missing("grant", "an owner"))?;
    Ok(Grant {
        challenge: report.challenge.clone(),
        valid_milliseconds: u64::try_from(valid.as_millis()).unwrap_or(u64::MAX),
        record: owner.record.clone(),
    })
}

pub(super) fn addressee(seen: &Observation, uid: &PodUid) -> Addressee {
    Addressee { process: seen.uid(), pod: uid.clone() }
}

async fn source_peer(context: &Context, seen: &Observation) -> Result<Option<Peer>, CallError> {
    match seen.ledger.migration.as_ref().and_then(|migration| migration.source.as_ref()) {
        Some(source) => peer(context, seen, &source.uid).await,
        None => Ok(None),
    }
}

/// An incarnation as another one is told of it, as it would say itself. `None` without an address.
async fn peer(context: &Context, seen: &Observation, uid: &PodUid) -> Result<Option<Peer>, CallError> {
    let Some(address) = seen.ip(uid) else { return Ok(None) };
    let peer = Peer::of_this_hub(uid.clone(), address, CONTROL_PORT);
    // The key of a hub that is gone may be as well; then the other one's own is tried.
    let token = match observe::key_of(context, seen, uid).await {
        Ok(key) => Some(Token(key.token(uid))),
        Err(CallError::NotFound { .. }) => None,
        Err(error) => return Err(error),
    };
    let data_port = seen.hub_named(&seen.hub_of(uid)).map(|hub| hub.spec.worker.port);
    Ok(Some(Peer { data_port, token, ..peer }))
}

pub(super) async fn address(
    context: &Context,
    seen: &Observation,
    uid: &PodUid,
) -> Result<Address, CallError> {
    let ip = seen.ip(uid).ok_or_else(|| missing("command", "the pod's address"))?;
    let key = observe::key_of(context, seen, uid).await?;
    Ok(Address { ip, port: CONTROL_PORT, token: key.token(uid) })
}

pub(super) fn source_uid(seen: &Observation) -> Result<PodUid, CallError> {
    seen.source().map(|pod| pod.uid.clone()).ok_or_else(|| missing("command", "a source"))
}

pub(super) fn owner_uid(seen: &Observation) -> Result<PodUid, CallError> {
    let owner = seen.ledger.owner.as_ref().map(|owner| owner.pod.uid.clone());
    owner.ok_or_else(|| missing("command", "an owner"))
}

pub(super) fn target_uid(seen: &Observation) -> Result<PodUid, CallError> {
    seen.target_uid().cloned().ok_or_else(|| missing("command", "a target"))
}

pub(super) fn missing(what: &'static str, missing: &str) -> CallError {
    CallError::Missing { what, missing: missing.to_owned() }
}

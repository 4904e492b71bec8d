//! The conditions of a process: what is waited for, whether anything is at risk, what happens next and when, and the
//! command that changes it. Pure.

mod progressing;
mod state;

use k8s_openapi::jiff::SignedDuration;
use kube::ResourceExt;
use processhub_crds::conditions::{self, Wanted};
use processhub_crds::vocabulary::{LossReason, ProcessCondition, ProcessReason, Status};
use processhub_crds::{CheckpointStatus, MayMiss};
use processhub_protocol::fence::Role;
use processhub_protocol::handover::Waiting;
use processhub_protocol::ledger::{Kind, Tenure};

use super::observation::Observation;
use progressing::progressing;
pub use progressing::{at_risk, blamed, target_words};
use state::{capable, durable, is_current, upgraded};

/// How certain the conditions are to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// As the sidecars and pods are seen.
    Observed,
    /// As they will be in a moment if nothing goes wrong; written together with the ledger, so that it costs no write
    /// of its own. Should it not come true, what is observed is written instead.
    Expected,
}

/// Brings the conditions in the observation's status up to date, and says whether that changed any.
pub fn refresh(seen: &mut Observation, waiting: Waiting, outlook: Outlook) -> bool {
    if waiting == Waiting::Leadership {
        return false;
    }
    let crashed = note_crash(seen);
    let generation = seen.object.metadata.generation;
    let wanted: Vec<Wanted> = [
        Some(ready(seen, outlook)),
        Some(progressing(seen, waiting)),
        capable(seen),
        durable(seen),
        upgraded(seen),
    ]
    .into_iter()
    .flatten()
    .collect();
    let current = is_current(seen);
    let now = seen.now;
    let ip = seen.ledger.owner.as_ref().and_then(|owner| seen.ip(&owner.pod.uid));
    let status = seen.object.status.get_or_insert_default();
    let mut changed = crashed || status.observed_generation != generation;
    // What could not be done is no matter any more once it runs what it should.
    changed |= current && status.failed_upgrade.take().is_some();
    // One without a hub is of before hubs were written down with owners: its object names none other.
    if let Some(owner) = status.owner.as_mut() {
        if owner.hub.is_empty() {
            owner.hub = seen.hub.name_any();
            changed = true;
        }
        // A machine that was started anew gives its pods other addresses.
        if let Some(ip) = ip.filter(|ip| *ip != owner.ip) {
            owner.ip = ip;
            changed = true;
        }
    }
    status.observed_generation = generation;
    for wanted in wanted {
        changed |= conditions::set(&mut status.conditions, wanted.observed(generation), now);
    }
    if changed || outlook == Outlook::Expected {
        note_checkpoint(seen);
    }
    changed
}

/// What the owner keeps goes along with what is written anyway: by itself it is no reason to write, it changes all the
/// time. Its sidecar's metrics say it as of now.
fn note_checkpoint(seen: &mut Observation) {
    let Some(report) = seen.owner_report() else { return };
    let Role::Active { kept: Some(kept), .. } = &report.role else { return };
    let age = report.checkpoint.and_then(|checkpoint| checkpoint.age_milliseconds);
    let age = age.and_then(|age| i64::try_from(age).ok());
    let Some(at) = age.and_then(|age| seen.now.checked_sub(SignedDuration::from_millis(age)).ok()) else {
        return;
    };
    let checkpoint = CheckpointStatus { seq: kept.seq, time: conditions::time(at) };
    seen.object.status.get_or_insert_default().checkpoint = Some(checkpoint);
}

/// A worker that crashed took along what it had answered since its newest kept state. Its sidecar knows, and the object
/// has to say so (rule 10). Says whether that is news.
pub(super) fn note_crash(seen: &mut Observation) -> bool {
    let Some(report) = seen.owner_report().filter(|report| report.worker.can_hand_over != Some(false)) else {
        return false;
    };
    let Some(lost) = report.lost else { return false };
    let time = conditions::time(seen.now);
    let missing = MayMiss { from: lost.from, to: None, reason: LossReason::WorkerCrashed, time };
    let known = &mut seen.object.status.get_or_insert_default().may_miss;
    if known.as_ref().is_some_and(|known| (known.from, known.reason) == (missing.from, missing.reason)) {
        return false;
    }
    *known = Some(missing);
    true
}

fn ready(seen: &Observation, outlook: Outlook) -> Wanted {
    let wanted = |status: Status, reason, message: &str| {
        Wanted::process(ProcessCondition::Ready, status, reason, message)
    };
    let Some(owner) = &seen.ledger.owner else {
        return wanted(Status::False, ProcessReason::Starting, "the first incarnation is being started");
    };
    let who = format!("pod {} on {}", owner.pod.name, owner.pod.node);
    if let Some(proof) = seen.dead.get(&owner.pod.uid) {
        let message = format!("{who} is dead: {}; it is started again elsewhere", proof.words());
        return wanted(Status::False, ProcessReason::Recovering, &message);
    }
    let serving = format!("{who} acknowledges");
    // Whoever waits for it to be ready asks for its address next, which is written after the commit.
    match seen.ledger.migration.as_ref().map(|migration| migration.kind) {
        Some(Kind::Start) => {
            let message = format!("{who} is being activated, and its address pointed at it");
            return wanted(Status::False, ProcessReason::Starting, &message);
        }
        Some(Kind::Recover) if outlook == Outlook::Expected => {
            let message = format!("{who} has its state and is being activated");
            return wanted(Status::False, ProcessReason::Recovering, &message);
        }
        Some(Kind::HotSwap | Kind::ColdSwap | Kind::Recover) | None => {}
    }
    if outlook == Outlook::Expected {
        return wanted(Status::True, ProcessReason::Serving, &serving);
    }
    let Some(report) = seen.owner_report() else {
        return wanted(
            Status::Unknown,
            ProcessReason::OwnerUnreachable,
            &unreachable(seen, &who, &owner.pod.uid.0),
        );
    };
    match &report.role {
        Role::Active { .. } if report.serving => wanted(Status::True, ProcessReason::Serving, &serving),
        Role::Active { .. } => {
            let message = format!("{who} answers, its worker does not; requests are held");
            wanted(Status::False, ProcessReason::WorkerNotReady, &message)
        }
        Role::Frozen { .. }
        | Role::Delivered { .. }
        | Role::Standby
        | Role::Forwarding { .. }
        | Role::Retired { .. }
            if seen.ledger.migration.is_some() =>
        {
            wanted(Status::False, ProcessReason::Moving, &format!("{who} is moving; requests are held"))
        }
        Role::Frozen { .. }
        | Role::Delivered { .. }
        | Role::Standby
        | Role::Forwarding { .. }
        | Role::Retired { .. } => {
            let message = format!("{who} has fenced itself and waits for a grant");
            wanted(Status::False, ProcessReason::Fenced, &message)
        }
    }
}

fn unreachable(seen: &Observation, who: &str, uid: &str) -> String {
    let heard = seen.heard.map_or("not heard of by this operator".to_owned(), |at| {
        format!("last heard {}", at.strftime("%H:%M:%SZ"))
    });
    if seen.ledger.owner.as_ref().is_some_and(|owner| owner.tenure != Tenure::Unbounded) {
        return format!(
            "{who} does not answer ({heard}). It is taken over when its lease has ended, or goes on if it answers before; \
             nothing is taken over while the hub says QuorumLost"
        );
    }
    format!(
        "{who} does not answer ({heard}) and may still serve. It is taken over once it is proven dead: its node comes \
         back, or the Node is deleted, or it gets the taint node.kubernetes.io/out-of-service. If you know that it is \
         dead: kubectl annotate hproc {} processhub.io/confirmed-dead={uid}",
        seen.name().name
    )
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;

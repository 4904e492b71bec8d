//! Whether the state can be handed over, what a crash would take along, and which code it belongs to.

use processhub_crds::HubProcessStatus;
use processhub_crds::conditions::Wanted;
use processhub_crds::vocabulary::{ProcessCondition, ProcessReason};
use processhub_protocol::wire;

use super::progressing::{another_contract, target_contract};
use crate::process::facts;
use crate::process::observation::Observation;
use crate::revision;

/// Unknown until the worker has said; what was known before then stays.
pub(super) fn capable(seen: &Observation) -> Option<Wanted> {
    let wanted = |status: bool, reason, message| {
        Wanted::process(ProcessCondition::HandoverCapable, status, reason, message)
    };
    if seen.hub.spec.migration.handover == Some(false) {
        let words = "the hub has handover: false: every move drops the state";
        return Some(wanted(false, ProcessReason::HandoverDisabled, words));
    }
    let owner = seen.owner_report();
    let foreign = owner.and_then(|report| report.worker.foreign_contract).or_else(|| target_contract(seen));
    if let Some(version) = foreign {
        return Some(wanted(false, ProcessReason::ContractVersion, &another_contract(version)));
    }
    match owner?.worker.can_hand_over? {
        true => Some(wanted(true, ProcessReason::ContractSpoken, "")),
        false => Some(wanted(false, ProcessReason::NoContract, "the worker moves without state")),
    }
}

pub(super) fn durable(seen: &Observation) -> Option<Wanted> {
    let wanted = |status: bool, reason, message: &str| {
        Wanted::process(ProcessCondition::StateDurable, status, reason, message)
    };
    let missing = seen.object.status.as_ref().and_then(|status: &HubProcessStatus| status.may_miss.as_ref());
    if let Some(missing) = missing {
        let words = format!("changes from {} on may be missing: {}", missing.from, missing.reason);
        return Some(wanted(false, ProcessReason::StateLost, &words));
    }
    match seen.owner_report()?.worker.can_hand_over? {
        true if seen.owner_report()?.replicas.is_some() => {
            let (holds, reason, words) = kept_elsewhere(seen)?;
            Some(wanted(holds, reason, &words))
        }
        true => {
            let (reason, words) = kept_against_a_crash(seen)?;
            Some(wanted(false, reason, &words))
        }
        false => Some(wanted(true, ProcessReason::Stateless, "")),
    }
}

/// Whether the owner runs the code of the hub's present spec.
pub(super) fn is_current(seen: &Observation) -> bool {
    seen.runs().is_some_and(|runs| runs == revision::name(&seen.hub))
}

pub(super) fn upgraded(seen: &Observation) -> Option<Wanted> {
    let wanted = |status: bool, reason, message: &str| {
        Wanted::process(ProcessCondition::Upgraded, status, reason, message)
    };
    let present = revision::present(&seen.hub);
    let runs = seen.label(seen.runs()?);
    if is_current(seen) {
        return Some(wanted(true, ProcessReason::UpToDate, &format!("runs {}", present.label())));
    }
    let failed = seen.object.status.as_ref().and_then(|status| status.failed_upgrade.as_ref());
    if let Some(failed) = failed.filter(|failed| failed.revision == present.name) {
        let message =
            format!("({}->{}): {}; it runs on with {runs}", failed.from, failed.to, facts::words(failed));
        return Some(wanted(false, ProcessReason::UpgradeFailed, &message));
    }
    let message = format!("runs {runs}; the hub has {}", present.label());
    Some(wanted(false, ProcessReason::UpgradePending, &message))
}

/// Whether other nodes have the state, and what the loss of the owner's takes; unknown while the owner was not told who is
/// to have it.
fn kept_elsewhere(seen: &Observation) -> Option<(bool, ProcessReason, String)> {
    let report = seen.owner_report()?;
    let (view, ledger) = (report.replicas.as_ref()?, &seen.ledger.replicas);
    let holders = ledger.in_force().filter(|_| view.generation == Some(ledger.generation))?;
    let (reason, words) = kept_against_a_crash(seen)?;
    if reason == ProcessReason::NotCheckpointed {
        return Some((false, reason, words));
    }
    if holders.is_empty() {
        return Some((false, reason, format!("{words}; no other node can hold a replica")));
    }
    let who: Vec<String> = holders.iter().map(|pod| format!("{} on {}", pod.name, pod.node)).collect();
    let who = who.join(", ");
    if !view.complete {
        let words = format!("the newest checkpoint is on its way to {who}");
        return Some((false, ProcessReason::Replicating, words));
    }
    let period = seen.hub.spec.checkpoint.period_milliseconds;
    let takes = match report.checkpoint?.class {
        Some(wire::CheckpointClass::Sync) => "takes nothing that was answered (Sync)".to_owned(),
        Some(wire::CheckpointClass::Async | wire::CheckpointClass::None) => {
            format!("takes what changed since the newest checkpoint, one every {period} ms (Async)")
        }
        None => format!(
            "takes nothing that was answered with ProcessHub-Seq, and of the rest what changed since the newest \
             checkpoint, one every {period} ms"
        ),
    };
    Some((true, ProcessReason::Replicated, format!("{who} hold it too; the loss of a node {takes}")))
}

/// What a crash of the owner's worker would take along; unknown while the worker does not say what it can.
fn kept_against_a_crash(seen: &Observation) -> Option<(ProcessReason, String)> {
    let local = |words: &str| (ProcessReason::NodeLocal, format!("the state is on one node only; {words}"));
    let without = |why: &str| {
        let words = format!("{why}: a crash of the worker takes what changed since the last move");
        (ProcessReason::NotCheckpointed, words)
    };
    let Some(checkpoint) = seen.owner_report()?.checkpoint else {
        return Some(without("the sidecar keeps no checkpoints"));
    };
    let period = seen.hub.spec.checkpoint.period_milliseconds;
    Some(match (checkpoint.class, checkpoint.live) {
        (Some(wire::CheckpointClass::None), _) => without("spec.checkpoint.class of the hub is None"),
        (_, None) => return None,
        (_, Some(false)) => without("the worker can be captured only while it is suspended"),
        (Some(wire::CheckpointClass::Sync), Some(true)) => {
            local("a crash of the worker takes nothing that was answered (Sync)")
        }
        (Some(wire::CheckpointClass::Async), Some(true)) => local(&format!(
            "a crash of the worker takes what changed since the newest checkpoint, one every {period} ms (Async)"
        )),
        (None, Some(true)) => local(&format!(
            "a crash of the worker takes nothing that was answered with ProcessHub-Seq, and of the rest what changed \
             since the newest checkpoint, one every {period} ms"
        )),
    })
}

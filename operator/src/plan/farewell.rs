//! Whether a process may leave its hub for another one.

use processhub_crds::vocabulary::ProcessReason;

use super::children::ordinal;
use super::inputs::Hub;
use crate::assignments::{Assignment, Held, ProcessFacts};

/// Lets a process go that is to leave, or says why not: because it is paused, or because its hub would make it again at
/// once. A hub that is not accepted keeps nobody.
#[must_use]
pub fn farewell(hub: &Hub, name: &str, facts: &ProcessFacts) -> Assignment {
    let held = paused(hub, facts).or_else(|| kept(hub, name));
    Assignment { lets_go: held.is_none(), held, ..Assignment::default() }
}

/// Whether a person holds back what need not move.
#[must_use]
pub fn paused(hub: &Hub, facts: &ProcessFacts) -> Option<Held> {
    let what = match (hub.paused, facts.paused) {
        (true, _) => format!("hub {}", hub.name),
        (false, true) => "process".to_owned(),
        (false, false) => return None,
    };
    Some(Held {
        reason: ProcessReason::Paused,
        message: format!("the {what} is paused; remove its annotation processhub.io/paused to go on"),
    })
}

fn kept(hub: &Hub, name: &str) -> Option<Held> {
    let listed = hub.listed.contains_key(name);
    let replica = ordinal(&hub.name, name).is_some_and(|ordinal| ordinal < hub.replicas);
    let first = match (listed, replica) {
        (false, false) => return None,
        (true, _) => format!("remove it from spec.processes of hub {}", hub.name),
        (false, true) => format!("lower spec.replicas of hub {} below its ordinal", hub.name),
    };
    Some(Held {
        reason: ProcessReason::TransferRefused,
        message: format!(
            "hub {0} would make a process of this name again. For it to go, {first}; for it to stay, change spec.hubName \
             back to {0}. It serves on there.",
            hub.name
        ),
    })
}

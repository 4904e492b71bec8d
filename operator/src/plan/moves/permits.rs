//! The order in which moves may begin, and the limits on how many do.

use processhub_crds::vocabulary::ProcessReason;

use super::Moves;
use crate::assignments::{Go, Held};
use crate::plan::limits::{Blocked, Limits, Travel};

/// Why a move is wanted, most pressing first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// The owner is dead: it is not served. No limit holds it up.
    Recover,
    /// The owner's worker crashes again and again, and its kubelet waits before it starts it. No limit holds it up.
    Crashed,
    /// There is no owner yet. No limit holds it up.
    Start,
    /// The owner's pod is killed at a deadline, with all that it has not handed over. No limit holds it up.
    Leaving,
    /// A person wishes it.
    Wish,
    /// The object names another node.
    Pin,
    /// The object names this hub, and its owner is another hub's.
    Transfer,
    /// The distribution wants it elsewhere.
    Rebalance,
    /// Its hub has other code, and this is its turn.
    Upgrade(u32),
}

impl Rank {
    /// Whether it goes on while the hub is paused, not accepted, or short of members, and whatever the limits say.
    #[must_use]
    pub fn presses(self) -> bool {
        match self {
            Self::Recover | Self::Crashed | Self::Start | Self::Leaving => true,
            Self::Wish | Self::Pin | Self::Transfer | Self::Rebalance | Self::Upgrade(_) => false,
        }
    }

    /// Whether it takes a place that moves without a deadline then have to do without.
    fn takes_place(self) -> bool {
        match self {
            Self::Recover | Self::Crashed | Self::Start => false,
            Self::Leaving | Self::Wish | Self::Pin | Self::Transfer | Self::Rebalance | Self::Upgrade(_) => {
                true
            }
        }
    }
}

/// A move that could begin if the limits allow.
pub(super) struct Candidate<'a> {
    pub(super) rank: Rank,
    pub(super) name: &'a str,
    pub(super) go: Go,
    pub(super) travel: Travel<'a>,
    /// It was permitted and did not begin, for reasons of its own: it takes no place from others.
    pub(super) stuck: bool,
}

/// Gives out permissions, most pressing first; `upgrades` more processes may change their code.
pub(super) fn permit<'a>(
    candidates: Vec<Candidate<'a>>,
    limits: &mut Limits<'a>,
    mut upgrades: u32,
    result: &mut Moves,
) {
    for Candidate { rank, name, go, travel, stuck } in candidates {
        let upgrade = matches!(rank, Rank::Upgrade(_)) && !stuck;
        if upgrade && upgrades == 0 {
            result.assignments.entry(name.to_owned()).or_default().held = Some(in_its_turn());
            continue;
        }
        let blocked = if stuck || !rank.takes_place() {
            None
        } else if rank.presses() {
            // What waits here until its pod is killed is lost.
            limits.occupy(travel);
            None
        } else {
            limits.take(travel).err()
        };
        upgrades -= u32::from(upgrade && blocked.is_none());
        let assignment = result.assignments.entry(name.to_owned()).or_default();
        match blocked {
            None => {
                assignment.go = Some(go);
                result.permitted.push(name.to_owned());
            }
            Some(blocked) => {
                assignment.held = Some(deferred(&blocked));
                result.limited.push(name.to_owned());
            }
        }
    }
}

fn deferred(blocked: &Blocked) -> Held {
    let message = match blocked {
        Blocked::Hub { limit } => format!(
            "waits until other moves have ended: {limit} move at once (spec.migration.maxConcurrent of the hub)"
        ),
        Blocked::Node { node, limit } => format!(
            "waits until other moves have ended: {limit} leave or enter {node} at once \
             (spec.migration.maxConcurrentPerNode of the hub)"
        ),
    };
    Held { reason: ProcessReason::Deferred, message }
}

fn in_its_turn() -> Held {
    Held {
        reason: ProcessReason::Deferred,
        message: "waits for its turn to get the new code (spec.upgrade.maxConcurrent of the hub)".to_owned(),
    }
}

//! How many moves may be under way at once, in the hub and at one node.

use std::collections::BTreeMap;

use processhub_crds::MigrationTrigger;
use processhub_protocol::ledger::Kind;

use crate::assignments::{Moving, MovingPhase};

/// The ends of a move. One within a node counts once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Travel<'a> {
    /// Node that is left.
    pub from: Option<&'a str>,
    /// Node that is entered.
    pub to: &'a str,
}

impl<'a> Travel<'a> {
    fn nodes(self) -> impl Iterator<Item = &'a str> {
        self.from.filter(|from| *from != self.to).into_iter().chain([self.to])
    }
}

/// Whether nothing is lost when it is made later.
fn can_wait(moving: &Moving) -> bool {
    matches!(moving.trigger, MigrationTrigger::Rebalance | MigrationTrigger::Upgrade)
}

/// Which limit stands in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// `maxConcurrent`.
    Hub {
        /// Its value.
        limit: u32,
    },
    /// `maxConcurrentPerNode`.
    Node {
        /// The node.
        node: String,
        /// Its value.
        limit: u32,
    },
}

/// A place that can come free for a move that cannot wait.
struct Place<'a> {
    name: &'a str,
    from: Option<&'a str>,
    to: &'a str,
    use_: Use,
}

/// What becomes of a place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// Its move is merely for the balance and could be given up.
    Balance,
    /// Its move is to be given up now.
    Withdrawn,
    /// Its move is being undone: it comes free by itself.
    Ending,
    /// As `Ending`, and somebody waits for it.
    Claimed,
}

/// The places that are taken.
pub struct Limits<'a> {
    hub: u32,
    node: u32,
    in_hub: u32,
    at: BTreeMap<&'a str, u32>,
    places: Vec<Place<'a>>,
}

impl<'a> Limits<'a> {
    /// Nothing is taken yet.
    #[must_use]
    pub fn new(hub: u32, node: u32) -> Self {
        Self { hub, node, in_hub: 0, at: BTreeMap::new(), places: Vec::new() }
    }

    /// Counts a move that is under way. First starts and recoveries have no limits and count against none; a committed
    /// move no longer burdens its nodes. `presses`: the process has to leave by now, whatever the move began for.
    pub fn count(&mut self, name: &'a str, moving: &'a Moving, presses: bool) {
        match moving.kind {
            Kind::Start | Kind::Recover => return,
            Kind::HotSwap | Kind::ColdSwap => {}
        }
        self.in_hub += 1;
        let (from, to) = (moving.from.as_deref(), moving.to.as_str());
        let use_ = match moving.phase {
            MovingPhase::Committed => return,
            MovingPhase::Prepared if can_wait(moving) && !presses => Some(Use::Balance),
            MovingPhase::Prepared | MovingPhase::Frozen => None,
            MovingPhase::Aborted => Some(Use::Ending),
        };
        self.occupy(Travel { from, to });
        self.places.extend(use_.map(|use_| Place { name, from, to, use_ }));
    }

    fn occupy(&mut self, travel: Travel<'a>) {
        for node in travel.nodes() {
            *self.at.entry(node).or_default() += 1;
        }
    }

    /// Takes a place for a move, if there is one.
    ///
    /// # Errors
    /// The limit that stands in the way; nothing is taken then.
    pub fn take(&mut self, travel: Travel<'a>) -> Result<(), Blocked> {
        if self.in_hub >= self.hub {
            return Err(Blocked::Hub { limit: self.hub });
        }
        for node in travel.nodes() {
            if self.at.get(node).is_some_and(|taken| *taken >= self.node) {
                return Err(Blocked::Node { node: node.to_owned(), limit: self.node });
            }
        }
        self.in_hub += 1;
        self.occupy(travel);
        Ok(())
    }

    /// Sees to it that a place comes free for a move that cannot wait: one whose move ends anyway, or else one whose
    /// move is merely for the balance.
    pub fn make_way(&mut self, blocked: &Blocked) {
        for (from, to) in [(Use::Ending, Use::Claimed), (Use::Balance, Use::Withdrawn)] {
            let helps = |place: &&mut Place<'_>| {
                place.use_ == from
                    && match blocked {
                        Blocked::Hub { .. } => true,
                        Blocked::Node { node, .. } => place.from == Some(node) || place.to == node,
                    }
            };
            if let Some(place) = self.places.iter_mut().find(helps) {
                place.use_ = to;
                return;
            }
        }
    }

    /// The moves to give up, by process.
    pub fn withdrawn(&self) -> impl Iterator<Item = &'a str> {
        self.places.iter().filter(|place| place.use_ == Use::Withdrawn).map(|place| place.name)
    }
}

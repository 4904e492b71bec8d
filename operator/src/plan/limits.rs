//! How many moves may be under way at once, in the hub and at one node.

use std::collections::BTreeMap;

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

/// The places that are taken.
pub struct Limits<'a> {
    hub: u32,
    node: u32,
    in_hub: u32,
    at: BTreeMap<&'a str, u32>,
}

impl<'a> Limits<'a> {
    /// Nothing is taken yet.
    #[must_use]
    pub fn new(hub: u32, node: u32) -> Self {
        Self { hub, node, in_hub: 0, at: BTreeMap::new() }
    }

    /// Counts a move that is under way. First starts and recoveries have no limits and count against none; a committed
    /// move no longer burdens its nodes.
    pub fn count(&mut self, moving: &'a Moving) {
        match moving.kind {
            Kind::Start | Kind::Recover => return,
            Kind::HotSwap | Kind::ColdSwap => {}
        }
        match moving.phase {
            MovingPhase::Committed => self.in_hub += 1,
            MovingPhase::Prepared | MovingPhase::Frozen | MovingPhase::Aborted => {
                self.occupy(Travel { from: moving.from.as_deref(), to: &moving.to });
            }
        }
    }

    /// Takes a place for a move, whether there is one or not.
    pub fn occupy(&mut self, travel: Travel<'a>) {
        self.in_hub += 1;
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
        self.occupy(travel);
        Ok(())
    }
}

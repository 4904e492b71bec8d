//! Everything that may happen to a hub, each under load, each judged by the same oracles.

mod nodes;
mod pods;
mod wishes;

use std::pin::Pin;

use anyhow::Result;

use crate::site::Site;

/// What a scenario found, in one line, beside that it passed.
pub type Finding = String;

/// A scenario at work.
pub type Run<'a> = Pin<Box<dyn Future<Output = Result<Finding>> + 'a>>;

/// A scenario by name.
pub struct Scenario {
    /// Unique, with underscores.
    pub name: &'static str,
    /// Runs it on a site that it leaves with the nodes it found.
    pub run: fn(&Site) -> Run<'_>,
}

macro_rules! scenarios {
    ($($module:ident :: $name:ident),* $(,)?) => {
        /// All scenarios, in the order in which they run.
        pub const ALL: &[Scenario] = &[
            $(Scenario { name: stringify!($name), run: |site| Box::pin($module::$name(site)) }),*
        ];
    };
}

scenarios![
    wishes::a_wish_moves_a_process_with_its_state,
    wishes::a_wish_for_a_node_that_is_no_member_is_refused,
    wishes::a_process_moves_back_and_forth,
    pods::a_deleted_owner_is_moved_first,
    nodes::a_node_joins,
    nodes::three_nodes_join_at_once,
    nodes::a_node_is_drained,
];

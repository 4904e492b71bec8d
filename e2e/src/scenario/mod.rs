//! Everything that may happen to a hub, each under load, each judged by the same oracles.

mod account;
mod count;
mod crashes;
mod failpoints;
mod hub;
mod input;
mod leases;
mod nodes;
mod operator;
mod peeper;
mod pods;
mod room;
mod source;
mod swaps;
mod target;
mod transfer;
mod upgrades;
mod wishes;

pub(crate) use crashes::{send, started_again};

use std::pin::Pin;

use anyhow::Result;

use crate::site::{Site, SiteKind};

/// What a scenario found, in one line, beside that it passed.
pub type Finding = String;

/// A scenario at work.
pub type Run<'a> = Pin<Box<dyn Future<Output = Result<Finding>> + 'a>>;

/// Whether others may run on the same cluster at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Company {
    /// It touches only what is in its own namespace.
    Welcome,
    /// It changes nodes, stops operators or the API server, or takes the whole machine.
    Alone,
}

/// A scenario by name.
pub struct Scenario {
    /// Unique, with underscores.
    pub name: &'static str,
    /// Runs it. What it leaves behind is taken away by [`Site::tidy_own`], or, after one that was alone, by
    /// [`Site::tidy`].
    pub run: fn(&Site) -> Run<'_>,
    /// Whether others may run beside it.
    pub company: Company,
    /// The one kind of cluster that it can run on, and why; none where it runs on all.
    only: Option<(SiteKind, &'static str)>,
}

impl Scenario {
    /// Why it cannot run on that kind of cluster, if it cannot.
    #[must_use]
    pub fn impossible_on(&self, kind: SiteKind) -> Option<&'static str> {
        self.only.filter(|(only, _)| *only != kind).map(|(_, why)| why)
    }

    /// Why the usual run leaves it out on that kind of cluster, if it does.
    #[must_use]
    pub fn left_out_on(&self, kind: SiteKind) -> Option<&'static str> {
        let usual = kind != SiteKind::Local || LOCAL_USUAL.contains(&self.name);
        (!usual).then_some("on real kubelets only with --full")
    }
}

/// What the usual run tries on real kubelets: some of each family, and what only a real cluster can show (rights, proxies,
/// kubelets, containers that end). `cargo xtask test` tries the others on the embedded cluster, and with `--full` all
/// of them on both.
const LOCAL_USUAL: &[&str] = &[
    "a_wish_moves_a_process_with_its_state",
    "a_move_is_cancelled",
    "a_cold_swap_carries_its_state",
    "a_hot_swap_without_handover",
    "a_deleted_owner_is_moved_first",
    "a_template_that_does_not_start",
    "a_worker_without_contract_moves_without_state",
    "a_process_is_deleted_while_it_moves",
    "a_hub_is_deleted_while_it_rebalances",
    "processes_are_started_by_hand_and_pinned",
    "a_target_that_refuses_the_state",
    "a_target_whose_sidecar_is_killed_before_the_commit",
    "a_target_whose_worker_is_killed_after_the_commit",
    "a_source_whose_sidecar_is_killed_while_frozen",
    "requests_longer_than_the_drain_time",
    "a_worker_that_crashes_in_peace",
    "a_worker_runs_out_of_memory",
    "a_process_is_transferred_to_another_hub",
    "a_hub_is_deleted_while_its_process_leaves",
    "objects_beyond_their_bounds_are_refused",
    "a_stranger_commands_the_sidecar",
    "a_move_is_six_writes_and_peace_is_none",
    "three_nodes_join_at_once",
    "a_node_is_drained",
    "a_node_flaps",
    "a_node_loses_its_power",
    "a_cut_off_node_with_replicas_loses_nothing",
    "the_leader_is_killed_in_mid_move",
    "processes_serve_without_operator_and_api_server",
    "the_operator_dies_before_each_effect",
];

macro_rules! scenarios {
    ($($company:ident { $($module:ident :: $name:ident $(only $kind:ident: $why:literal)?),* $(,)? })*) => {
        /// All scenarios, in the order in which they begin.
        pub const ALL: &[Scenario] = &[
            $($(Scenario {
                name: stringify!($name),
                run: |site| Box::pin($module::$name(site)),
                company: Company::$company,
                only: scenarios!(@only $($kind $why)?),
            }),*),*
        ];
    };
    (@only) => { None };
    (@only $kind:ident $why:literal) => { Some((SiteKind::$kind, $why)) };
}

scenarios! {
    Welcome {
        wishes::a_wish_moves_a_process_with_its_state,
        wishes::a_wish_for_a_node_that_is_no_member_is_refused,
        wishes::a_move_is_cancelled,
        wishes::a_process_moves_back_and_forth,
        swaps::a_cold_swap_carries_its_state,
        swaps::a_cold_swap_without_handover,
        swaps::a_hot_swap_without_handover,
        pods::a_deleted_owner_is_moved_first,
        pods::an_owner_deleted_without_grace,
        pods::an_owner_deleted_by_force,
        pods::a_template_that_does_not_start,
        pods::a_worker_without_contract_moves_without_state,
        pods::a_worker_without_contract_keeps_its_place_with_handover,
        hub::a_hub_is_scaled_in_mid_move,
        hub::a_process_is_deleted_while_it_moves,
        hub::a_hub_is_deleted_while_it_rebalances,
        hub::processes_are_started_by_hand_and_pinned,
        target::a_target_that_never_becomes_ready,
        target::a_target_that_refuses_the_state,
        target::a_target_whose_worker_is_killed_before_the_commit,
        target::a_target_whose_sidecar_is_killed_before_the_commit,
        target::a_target_whose_worker_is_killed_after_the_commit,
        target::a_target_whose_sidecar_is_killed_after_the_commit,
        source::a_source_whose_sidecar_is_killed_while_frozen,
        source::a_source_whose_worker_is_killed_while_frozen,
        source::a_worker_that_hangs_in_its_capture,
        source::a_capture_that_grows_too_old,
        source::requests_longer_than_the_drain_time,
        source::a_worker_that_crashes_in_peace,
        upgrades::new_code_up_and_down,
        upgrades::new_code_by_cold_swap,
        upgrades::new_code_that_refuses_the_state,
        upgrades::new_code_that_crashes_on_the_state,
        upgrades::new_code_that_hangs_on_the_state,
        upgrades::new_code_is_paused_and_resumed,
        upgrades::new_code_for_a_canary,
        room::a_game_room_moves_with_its_players only Embedded: "its players are in the test itself",
        transfer::a_process_is_transferred_to_another_hub,
        transfer::a_transfer_to_a_worker_that_refuses_the_state,
        transfer::a_transfer_to_a_hub_that_cannot_take_it,
        transfer::a_replica_is_transferred_once_its_hub_does_without,
        transfer::a_transfer_whose_target_is_killed_before_the_commit,
        transfer::two_transfers_in_opposite_directions,
        transfer::a_transfer_is_wished_twice_and_taken_back,
        transfer::a_hub_is_deleted_while_its_process_leaves,
        transfer::a_transfer_to_a_hub_of_cold_swaps,
        account::an_account_in_rust_changes_its_code only Embedded: "the account has no image that clusters pull",
        account::an_account_in_python_changes_its_code only Embedded: "it runs the Python of this machine",
        crashes::a_worker_is_killed_again_and_again_with_sync_checkpoints,
        crashes::a_worker_is_killed_again_and_again_with_async_checkpoints,
        crashes::a_sidecar_is_killed_again_and_again,
        crashes::worker_and_sidecar_are_killed_in_either_order,
        crashes::a_worker_crashes_again_and_again,
        crashes::a_crash_loop_ends_at_its_limit_and_is_mended,
        crashes::a_worker_runs_out_of_memory only Local: "no container bounds the memory of a worker there",
        peeper::a_counter_keeps_its_state_as_in_the_article_on_peeper,
        peeper::an_account_in_python_keeps_its_state_as_in_the_article_on_peeper only Embedded: "it runs the Python of this machine",
        input::objects_beyond_their_bounds_are_refused,
        input::names_that_are_taken,
        input::templates_that_cannot_be_used,
        input::workers_that_answer_nonsense,
        input::a_worker_of_another_contract,
        input::a_stranger_commands_the_sidecar,
        failpoints::every_effect_has_a_failpoint,
    }
    Alone {
        wishes::a_wish_is_one_attempt_whoever_leads,
        swaps::a_move_is_six_writes_and_peace_is_none,
        nodes::a_node_joins,
        nodes::three_nodes_join_at_once,
        nodes::a_node_is_drained,
        nodes::a_node_is_cordoned_in_mid_rebalance,
        nodes::a_node_flaps,
        nodes::a_node_loses_its_power,
        nodes::a_node_reboots only Local: "its nodes have no power of their own",
        leases::a_lost_node_is_taken_over_by_lease,
        leases::a_cut_off_node_is_taken_over_by_lease only Local: "its nodes share one network",
        leases::a_cut_off_node_with_replicas_loses_nothing only Local: "its nodes share one network",
        leases::owners_pause_without_an_operator,
        leases::a_lost_node_with_replicas_loses_nothing,
        hub::a_hub_is_scaled,
        source::a_source_whose_worker_is_killed_while_delivered,
        operator::the_leader_is_killed_in_mid_move,
        operator::a_stale_leader_wakes_up,
        transfer::the_leader_is_killed_in_mid_transfer,
        operator::processes_serve_without_operator_and_api_server,
        failpoints::the_operator_dies_before_each_effect,
        failpoints::the_operator_dies_after_each_effect,
        failpoints::the_answer_of_each_effect_is_lost,
        count::many_processes_are_rebalanced only Embedded: "its pods would not fit on one machine with real kubelets",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{ALL, LOCAL_USUAL};

    #[test]
    fn names_are_unique_and_the_usual_ones_exist() {
        let all: BTreeSet<_> = ALL.iter().map(|scenario| scenario.name).collect();
        assert_eq!(all.len(), ALL.len());
        let unknown: Vec<_> = LOCAL_USUAL.iter().filter(|name| !all.contains(**name)).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }
}

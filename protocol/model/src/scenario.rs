//! What is explored.

use processhub_protocol::ledger::Kind;

use crate::model::Config;
use crate::state::Budget;

/// One move, one write, no fault.
pub const PLAIN: Config = Config {
    name: "plain hot swap",
    kind: Kind::HotSwap,
    with_state: true,
    starts: false,
    second_leader: false,
    pods: 3,
    budget: Budget { moves: 1, writes: 1, ..NOTHING },
};

const NOTHING: Budget = Budget {
    moves: 0,
    writes: 0,
    faults: 0,
    sidecar_restarts: 0,
    worker_restarts: 0,
    kills: 0,
    wipes: 0,
    late: 0,
    refreshes: 0,
    cancels: 0,
    failures: 0,
    checkpoints: 0,
    evictions: 0,
    forced: 0,
    edits: 0,
    returns: 0,
};

/// All configurations that must hold.
pub fn all() -> Vec<Config> {
    let plain = PLAIN;
    vec![
        plain.clone(),
        Config {
            name: "hot swap, one fault",
            budget: Budget { moves: 1, writes: 1, faults: 1, sidecar_restarts: 1, worker_restarts: 1, kills: 1, cancels: 1, late: 1, failures: 1, ..NOTHING },
            ..plain
        },
    ]
}

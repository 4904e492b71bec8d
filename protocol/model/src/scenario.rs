//! What is explored.

use processhub_protocol::ledger::Kind;
use processhub_protocol::rules::Rule;

use crate::model::Config;
use crate::promise::Promise;
use crate::state::Budget;

/// One move, one write, no fault.
pub const PLAIN: Config = Config {
    name: "plain hot swap",
    kind: Kind::HotSwap,
    with_state: true,
    starts: false,
    second_leader: false,
    pods: 3,
    epochs: 100,
    budget: Budget { moves: 1, writes: 1, ..NOTHING },
    only: None,
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
    glimpses: 0,
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
    let one = Budget {
        moves: 1,
        writes: 2,
        faults: 1,
        sidecar_restarts: 1,
        worker_restarts: 1,
        kills: 1,
        late: 1,
        cancels: 1,
        failures: 1,
        checkpoints: 1,
        evictions: 1,
        ..NOTHING
    };
    let two = Budget { faults: 2, moves: 1, writes: 1, sidecar_restarts: 2, worker_restarts: 1, ..one };
    let base = Config { pods: 6, ..PLAIN };
    vec![
        PLAIN,
        Config { name: "hot swap, one fault", budget: one, ..base.clone() },
        Config { name: "hot swap, two faults", budget: two, ..base.clone() },
        Config {
            name: "start, one fault",
            starts: true,
            budget: Budget { moves: 1, writes: 1, ..one },
            ..base.clone()
        },
        Config {
            name: "without hand-over, one fault",
            with_state: false,
            budget: Budget { writes: 1, ..one },
            ..base.clone()
        },
        Config {
            name: "cold swap, one fault",
            kind: Kind::ColdSwap,
            budget: Budget { writes: 1, forced: 1, faults: 2, ..one },
            ..base.clone()
        },
        Config {
            name: "cold swap without hand-over",
            kind: Kind::ColdSwap,
            with_state: false,
            budget: Budget { writes: 1, forced: 1, faults: 2, ..one },
            ..base.clone()
        },
        Config {
            name: "two leaders",
            second_leader: true,
            budget: Budget { writes: 1, refreshes: 1, checkpoints: 0, ..one },
            ..base.clone()
        },
        Config {
            name: "two moves, two leaders",
            second_leader: true,
            budget: Budget { moves: 2, writes: 1, refreshes: 1, late: 1, faults: 1, cancels: 1, ..NOTHING },
            ..base.clone()
        },
        Config {
            name: "lost volumes",
            budget: Budget { writes: 1, wipes: 1, faults: 2, ..one },
            ..base.clone()
        },
        Config {
            name: "a machine that comes back",
            budget: Budget {
                moves: 1,
                writes: 1,
                kills: 1,
                returns: 1,
                faults: 2,
                cancels: 1,
                late: 1,
                ..NOTHING
            },
            ..base.clone()
        },
        Config {
            name: "a forgotten move",
            budget: Budget { moves: 1, writes: 1, edits: 1, faults: 1, ..NOTHING },
            ..base
        },
    ]
}

/// Larger bounds, for a machine with time.
pub fn deep() -> Vec<Config> {
    let base = Config { pods: 6, ..PLAIN };
    let m = Budget { moves: 1, writes: 1, ..NOTHING };
    vec![
        Config {
            name: "D torn",
            budget: Budget { glimpses: 1, faults: 1, kills: 1, cancels: 1, ..m },
            ..base.clone()
        },
        Config {
            name: "D torn cold",
            kind: Kind::ColdSwap,
            budget: Budget { glimpses: 1, faults: 1, kills: 1, cancels: 1, ..m },
            ..base.clone()
        },
        Config {
            name: "D two kills",
            budget: Budget { faults: 2, kills: 2, cancels: 1, ..m },
            ..base.clone()
        },
        Config {
            name: "D two kills two moves",
            budget: Budget { moves: 2, faults: 2, kills: 2, ..m },
            ..base.clone()
        },
        Config {
            name: "D two late",
            budget: Budget { moves: 1, faults: 2, late: 2, cancels: 1, ..m },
            ..base.clone()
        },
        Config {
            name: "D late, two moves",
            budget: Budget { moves: 2, faults: 1, late: 1, cancels: 2, kills: 1, ..m },
            ..base.clone()
        },
        Config {
            name: "D two leaders late kill",
            second_leader: true,
            budget: Budget { faults: 2, late: 1, kills: 1, cancels: 1, refreshes: 2, ..m },
            ..base.clone()
        },
        Config {
            name: "D torn wiped",
            budget: Budget { glimpses: 1, faults: 1, wipes: 1, cancels: 1, ..m },
            ..base.clone()
        },
        Config {
            name: "D start two",
            starts: true,
            budget: Budget {
                faults: 2,
                kills: 2,
                late: 1,
                sidecar_restarts: 1,
                wipes: 1,
                cancels: 1,
                evictions: 1,
                ..m
            },
            ..base.clone()
        },
    ]
}

/// For each rule the smallest configuration that shows what it is for, and the promise that does not hold without it.
pub fn refutations() -> Vec<(Rule, Config)> {
    let moves = Budget { moves: 1, writes: 1, ..NOTHING };
    let cancelled = Budget { cancels: 1, ..moves };
    let lost = Budget { faults: 1, kills: 1, ..moves };
    let retried = Budget { moves: 2, writes: 2, cancels: 1, ..NOTHING };
    let late = |budget: Budget| Budget { late: 1, faults: budget.faults + 1, ..budget };
    let config = |name, promise, budget| Config { name, budget, pods: 4, only: Some(promise), ..PLAIN };
    let two_leaders = Config {
        second_leader: true,
        ..config("two leaders", Promise::Singular, Budget { refreshes: 1, ..late(cancelled) })
    };
    let returns = Budget { cancels: 1, returns: 1, faults: 2, ..lost };
    let wiped = Budget { faults: 1, wipes: 1, ..moves };
    let edited = Budget { faults: 1, edits: 1, ..moves };
    vec![
        (Rule::Floor, Config { epochs: 5, ..config("a retried move", Promise::Singular, retried) }),
        (Rule::CompareAndSwap, two_leaders),
        (Rule::DurableBeforeAnswer, config("a node that restarts", Promise::Singular, lost)),
        (Rule::DeleteAfterActivation, config("one move", Promise::SourceStays, moves)),
        (Rule::AbortBeforeUndo, config("a cancelled move", Promise::Singular, cancelled)),
        (Rule::NoTimerThaw, config("one move", Promise::Singular, moves)),
        (Rule::ChallengedGrant, config("a machine that comes back", Promise::Singular, returns)),
        (Rule::PersistedImport, config("a node that restarts", Promise::Kept, lost)),
        (Rule::FreshEpoch, Config { epochs: 5, ..config("a retried move", Promise::Ends, retried) }),
        (Rule::ReportedLoss, config("a node that is lost", Promise::Kept, lost)),
        (Rule::StandingRegrant, config("a forgotten move", Promise::Ends, edited)),
        (Rule::SealedStaysSealed, config("a target that is lost", Promise::Kept, lost)),
        (Rule::CommitWithoutSource, config("a source that is lost", Promise::NotGivenUp, lost)),
        (Rule::RecordIdentity, config("a lost volume", Promise::Kept, wiped)),
        (Rule::ForwardUpwards, config("a target that is lost", Promise::ForwardUp, lost)),
    ]
}

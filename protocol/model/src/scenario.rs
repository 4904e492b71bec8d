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
    leased: false,
    replicated: false,
    stalls: false,
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
    deletions: 0,
    cuts: 0,
    fences: 0,
    returns: 0,
};

/// All configurations that must hold, within a minute and a half on two processors.
pub fn all() -> Vec<Config> {
    let base = Config { pods: 6, ..PLAIN };
    let moves = Budget { moves: 1, writes: 1, ..NOTHING };
    let one = one_fault();
    let two = Budget { faults: 2, sidecar_restarts: 2, writes: 1, ..one };
    let leaders = Config { second_leader: true, ..base.clone() };
    let cold = Config { kind: Kind::ColdSwap, ..base.clone() };
    vec![
        PLAIN,
        Config { name: "hot swap, two faults", budget: Budget { checkpoints: 0, ..two }, ..base.clone() },
        Config { name: "hot swap, one fault, two writes", budget: one, ..base.clone() },
        Config { name: "first start", starts: true, budget: Budget { writes: 1, ..one }, ..base.clone() },
        Config {
            name: "without hand-over",
            with_state: false,
            budget: Budget { writes: 1, ..one },
            ..base.clone()
        },
        Config {
            name: "cold swap, two faults",
            budget: Budget { forced: 1, checkpoints: 0, failures: 0, ..two },
            ..cold.clone()
        },
        Config {
            name: "cold swap without hand-over",
            with_state: false,
            budget: Budget { forced: 1, ..two },
            ..cold.clone()
        },
        Config {
            name: "two leaders, one fault",
            budget: Budget { writes: 1, refreshes: 1, checkpoints: 0, ..one },
            ..leaders.clone()
        },
        Config {
            name: "two leaders, two moves",
            budget: Budget { moves: 2, refreshes: 1, late: 1, faults: 1, cancels: 1, ..moves },
            ..leaders
        },
        Config {
            name: "two moves, cancelled and late",
            budget: Budget { moves: 2, faults: 1, late: 1, cancels: 2, kills: 1, ..moves },
            ..base.clone()
        },
        Config {
            name: "two nodes lost",
            budget: Budget { faults: 2, kills: 2, cancels: 1, ..moves },
            ..base.clone()
        },
        Config { name: "a lost volume", budget: Budget { writes: 1, wipes: 1, ..one }, ..base.clone() },
        Config {
            name: "a lost volume and a lost node",
            budget: Budget { wipes: 1, kills: 1, faults: 2, cancels: 1, ..moves },
            ..base.clone()
        },
        Config {
            name: "observations of different moments",
            budget: Budget { glimpses: 1, faults: 1, kills: 1, wipes: 1, cancels: 1, ..moves },
            ..base.clone()
        },
        Config {
            name: "cold swap, observations of different moments",
            budget: Budget { glimpses: 1, faults: 1, kills: 1, cancels: 1, ..moves },
            ..cold
        },
        Config {
            name: "a machine that comes back",
            budget: Budget { kills: 1, returns: 1, faults: 2, cancels: 1, late: 1, ..moves },
            ..base.clone()
        },
        Config {
            name: "a process that is deleted",
            budget: Budget {
                deletions: 1,
                faults: 2,
                late: 1,
                sidecar_restarts: 1,
                worker_restarts: 1,
                kills: 1,
                cancels: 1,
                failures: 1,
                ..moves
            },
            ..base.clone()
        },
        Config {
            name: "by lease: a node that is cut off",
            leased: true,
            budget: Budget {
                writes: 2,
                faults: 2,
                cuts: 1,
                fences: 1,
                kills: 1,
                sidecar_restarts: 1,
                ..NOTHING
            },
            ..base.clone()
        },
        Config {
            name: "by lease: cut off in mid-move",
            leased: true,
            budget: Budget { cuts: 1, fences: 1, faults: 1, kills: 1, ..moves },
            ..base.clone()
        },
        Config {
            name: "by lease: two leaders",
            leased: true,
            second_leader: true,
            budget: Budget { writes: 1, faults: 2, cuts: 1, fences: 1, late: 1, refreshes: 1, ..NOTHING },
            ..base.clone()
        },
        Config {
            name: "with a replica: nodes that are lost",
            replicated: true,
            budget: Budget { writes: 2, faults: 2, kills: 2, ..moves },
            ..base.clone()
        },
        Config {
            name: "with a replica, by lease: machines that stand still",
            leased: true,
            replicated: true,
            stalls: true,
            budget: Budget { writes: 2, faults: 2, cuts: 1, fences: 1, kills: 1, ..NOTHING },
            ..base.clone()
        },
        Config { name: "a forgotten move", budget: Budget { edits: 1, faults: 1, ..moves }, ..base },
    ]
}

/// Larger bounds, for a machine with time and memory.
pub fn deep() -> Vec<Config> {
    let base = Config { pods: 6, ..PLAIN };
    let one = one_fault();
    let two = Budget { faults: 2, sidecar_restarts: 2, ..one };
    vec![
        Config { name: "deep: hot swap, two faults, two writes", budget: two, ..base.clone() },
        Config {
            name: "deep: lost volumes, two faults",
            budget: Budget { writes: 1, wipes: 1, ..two },
            ..base.clone()
        },
        Config {
            name: "deep: first start, two faults",
            starts: true,
            budget: Budget { writes: 1, wipes: 1, kills: 2, checkpoints: 0, failures: 0, ..two },
            ..base.clone()
        },
        Config {
            name: "deep: cold swap, two faults, all kinds",
            kind: Kind::ColdSwap,
            budget: Budget { writes: 1, forced: 1, wipes: 1, ..two },
            ..base.clone()
        },
        Config {
            name: "deep: two leaders, two faults",
            second_leader: true,
            budget: Budget {
                writes: 1,
                kills: 1,
                late: 1,
                cancels: 1,
                refreshes: 2,
                faults: 2,
                moves: 1,
                ..NOTHING
            },
            ..base
        },
    ]
}

/// One move, two writes, and one of nearly everything that can go wrong.
fn one_fault() -> Budget {
    Budget {
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
    }
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
    let slow = Budget { fences: 1, ..NOTHING };
    let cut = Budget { cuts: 1, faults: 1, ..slow };
    let by_lease = |name, budget| Config { leased: true, ..config(name, Promise::Singular, budget) };
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
        (Rule::HeldLease, by_lease("a node that is cut off", cut)),
        (Rule::FencedUnrenewed, by_lease("an owner that is slow to answer", slow)),
        (Rule::LeaseWaitedOut, by_lease("a node that is cut off", cut)),
        (
            Rule::ReplicaFloor,
            Config { replicated: true, stalls: true, ..by_lease("a machine that stands still", cut) },
        ),
    ]
}

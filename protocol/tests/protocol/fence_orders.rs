//! Commands in any order: the floor never sinks, and what is refused changes nothing.

use processhub_protocol::fence::{Record, Role, Verdict};
use processhub_protocol::id::Epoch;
use proptest::prelude::*;

use crate::parts::*;

/// The pod of these tests was created with this epoch.
const BORN: u64 = 3;

#[derive(Clone, Copy, Debug)]
enum Command {
    Freeze(u64, Option<u64>),
    Import(u64, u64),
    Activate(u64, Option<u64>),
    Thaw(u64),
    Forward(u64, u64),
    LetGo(u64),
}

fn commands() -> impl Strategy<Value = Vec<Command>> {
    let epoch = || 0..9u64;
    let seq = || prop::option::of(1..3u64);
    let command = prop_oneof![
        (epoch(), seq()).prop_map(|(epoch, seq)| Command::Freeze(epoch, seq)),
        (epoch(), 1..3u64).prop_map(|(epoch, seq)| Command::Import(epoch, seq)),
        (epoch(), seq()).prop_map(|(epoch, seq)| Command::Activate(epoch, seq)),
        epoch().prop_map(Command::Thaw),
        epoch().prop_map(Command::LetGo),
        (epoch(), 4..9u64).prop_map(|(epoch, successor)| Command::Forward(epoch, successor)),
    ];
    prop::collection::vec(command, 0..24)
}

/// The record after a command, if it was obeyed, and whether it was in effect already.
fn after(record: &Record, command: Command) -> Option<(Record, bool)> {
    let clock = clock("boot", 1);
    let (verdict, done) = match command {
        Command::Freeze(epoch, seq) => {
            let command = freeze(BORN, epoch);
            (record.judge_freeze(&command).ok()?, record.freeze_done(&command, seq.map(state)))
        }
        Command::Import(epoch, seq) => {
            let command = import(BORN, epoch, seq, 1);
            (record.judge_import(&command).ok()?, record.import_done(&command))
        }
        Command::Activate(epoch, seq) => {
            let command = activate(BORN, epoch, seq);
            (record.judge_activate(&command, &clock).ok()?, record.activate_done(&command, &clock))
        }
        Command::Thaw(epoch) => {
            let command = thaw(BORN, epoch);
            (record.judge_thaw(&command, &clock).ok()?, record.thaw_done(&command, &clock))
        }
        Command::Forward(epoch, successor) => {
            let command = forward(BORN, epoch, successor);
            (record.judge_forward(&command).ok()?, record.forward_done(&command))
        }
        Command::LetGo(epoch) => {
            let command = let_go(BORN, epoch);
            (record.judge_let_go(&command).ok()?, record.let_go_done(&command))
        }
    };
    match verdict {
        Verdict::InEffect => Some((record.clone(), true)),
        Verdict::Proceed => match done {
            Ok(next) => Some((next, false)),
            Err(refusal) => {
                panic!("{command:?} was let in by {record:?} and then refused: {}", refusal.message)
            }
        },
    }
}

fn served_at(role: &Role) -> Option<Epoch> {
    match role {
        Role::Active { epoch, .. } => Some(*epoch),
        Role::Standby
        | Role::Delivered { .. }
        | Role::Frozen { .. }
        | Role::Forwarding { .. }
        | Role::Retired { .. } => None,
    }
}

proptest! {
    #[test]
    fn commands_in_any_order(commands in commands()) {
        let mut record = standby(BORN);
        let mut served: Vec<Epoch> = Vec::new();
        for command in commands {
            let Some((next, in_effect)) = after(&record, command) else {
                continue;
            };
            prop_assert!(next.floor >= record.floor, "{command:?} lowered the floor of {record:?}");
            let retired = matches!(record.role, Role::Retired { .. });
            prop_assert!(!retired || in_effect, "{command:?} was obeyed by {record:?}");
            prop_assert_eq!((&next.record, &next.pod, next.born), (&record.record, &record.pod, record.born));
            if in_effect {
                continue;
            }
            if let Some(epoch) = served_at(&next.role) {
                prop_assert!(epoch >= Epoch(BORN));
                prop_assert!(!served.contains(&epoch), "{epoch} was granted twice");
                served.push(epoch);
            }
            // The same command again has no further effect, whatever came of it.
            if let Some((again, repeated)) = after(&next, command) {
                prop_assert!(repeated || again == next, "{command:?} twice: {next:?}, then {again:?}");
            }
            record = next;
        }
    }
}

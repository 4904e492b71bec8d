//! The protocol's own types in short words, for traces.

use processhub_protocol::fence::{Record, Role};
use processhub_protocol::handover::Effect;
use processhub_protocol::id::StateId;
use processhub_protocol::ledger::{Ledger, Phase, Transition};

use crate::message::Message;
use crate::names;

/// An effect, with its epoch.
pub fn effect(effect: &Effect) -> String {
    match effect {
        Effect::Write(transition) => format!("writes {}", self::transition(transition)),
        Effect::CreatePod { name, epoch, .. } => format!("creates pod {name} (epoch {epoch})"),
        Effect::Trial { epoch } => format!("sends trial, epoch {epoch}"),
        Effect::Freeze { epoch, .. } => format!("sends freeze, epoch {epoch}"),
        Effect::Import { epoch, state, .. } => {
            format!("sends import of {}, epoch {epoch}", self::state(Some(state)))
        }
        Effect::Activate { epoch, state } => {
            format!("sends activate with {}, epoch {epoch}", self::state(state.as_ref()))
        }
        Effect::Thaw { epoch } => format!("sends thaw, epoch {epoch}"),
        Effect::LetGo { epoch } => format!("lets go, epoch {epoch}"),
        Effect::Renew { epoch } => format!("sends a renewal, epoch {epoch}"),
        Effect::SealReplicas { epoch } => format!("seals the replicas, epoch {epoch}"),
        Effect::Replicate { epoch } => format!("tells the owner its holders, epoch {epoch}"),
        Effect::HandOn { epoch } => format!("sends hand-on, epoch {epoch}"),
        Effect::Route(pod) => format!("routes to pod {}", pod.uid),
        Effect::ReadLive(side) => format!("reads the {side:?} live"),
        Effect::DeletePod { side, uid } => format!("deletes pod {uid} (as {side:?})"),
    }
}

/// A message, with its epoch and addressee.
pub fn message(message: &Message) -> String {
    match message {
        Message::Freeze(command) => format!("freeze, epoch {}, to pod {}", command.epoch, command.to.pod),
        Message::Import(command) => {
            let what = state(Some(&command.state));
            format!(
                "import of {what} from pod {}, epoch {}, to pod {}",
                command.from.pod, command.epoch, command.to.pod
            )
        }
        Message::Activate(command) => format!("activate, epoch {}, to pod {}", command.epoch, command.to.pod),
        Message::Thaw(command) => format!("thaw, epoch {}, to pod {}", command.epoch, command.to.pod),
        Message::Forward(command) => {
            format!("forward to pod {}, epoch {}, to pod {}", command.peer.pod, command.epoch, command.to.pod)
        }
        Message::LetGo(command) => format!("let-go, epoch {}, to pod {}", command.epoch, command.to.pod),
        Message::Renew(command) => format!("renewal, epoch {}, to pod {}", command.epoch, command.to.pod),
        Message::HandOn(command) => {
            format!("hand-on to pod {}, epoch {}, to pod {}", command.peer.pod, command.epoch, command.to.pod)
        }
        Message::Api(seen, effect) => {
            format!("call decided on version {}: {}", seen.version, self::effect(effect))
        }
    }
}

/// A ledger in one line.
pub fn ledger(ledger: &Ledger) -> String {
    let owner = ledger
        .owner
        .as_ref()
        .map_or_else(|| "nobody".to_owned(), |owner| format!("{} at {}", owner.pod.uid, owner.epoch));
    let migration = ledger.migration.as_ref().map_or_else(String::new, |migration| {
        let phase = match &migration.phase {
            Phase::Prepared => "Prepared".to_owned(),
            Phase::Committed { state } => format!("Committed with {}", self::state(state.as_ref())),
            Phase::Aborted { epoch, reason } => format!("Aborted at {epoch} ({reason:?})"),
        };
        format!(", {:?} {} {phase}", migration.kind, migration.epoch)
    });
    format!("epoch {}, owner {owner}{migration}", ledger.epoch)
}

/// A record in one line.
pub fn record(record: &Record) -> String {
    let role = match &record.role {
        Role::Standby => "Standby".to_owned(),
        Role::Delivered { epoch, state } => format!("Delivered {epoch} {}", self::state(Some(state))),
        Role::Active { epoch, .. } => format!("Active {epoch}"),
        Role::Frozen { epoch, state, .. } => format!("Frozen {epoch} {}", self::state(state.as_ref())),
        Role::Retired { epoch } => format!("Retired {epoch}"),
        Role::Forwarding { epoch, to, .. } => format!("Forwarding {epoch} to {}", to.pod),
    };
    format!("{role} (floor {})", record.floor.epoch)
}

fn transition(transition: &Transition) -> String {
    match transition {
        Transition::Prepare { kind, source, .. } => {
            let source = source.as_ref().map_or_else(|| "nobody".to_owned(), |source| source.uid.to_string());
            format!("Prepared: {kind:?} from {source}")
        }
        Transition::Commit { target, state, lost, .. } => {
            let lost = lost.map_or_else(String::new, |lost| format!(", may miss {} and above", lost.from));
            format!("Committed: owner is pod {} with {}{lost}", target.uid, self::state(state.as_ref()))
        }
        Transition::Abort { reason } => format!("Aborted: {reason:?}"),
        Transition::Fence => "Fencing".to_owned(),
        Transition::Unfence => "Leased again".to_owned(),
        Transition::Replicate { holders } => format!("{} holders", holders.len()),
        Transition::Replicated => "the holders have everything".to_owned(),
        Transition::End { result } => format!("Ended: {result:?}"),
    }
}

fn state(state: Option<&StateId>) -> String {
    state.map_or_else(
        || "no state".to_owned(),
        |state| {
            let writes = names::writes(Some(state));
            let held: Vec<String> = (0..u8::BITS)
                .filter(|bit| writes & (1 << bit) != 0)
                .map(|bit| format!("w{}", bit + 1))
                .collect();
            format!("state {{{}}}", held.join(" "))
        },
    )
}

/// A whole state in one line.
pub fn state_of_all(model: &crate::model::Model, state: &crate::state::State) -> String {
    let pods: Vec<String> = crate::model::each(state)
        .filter(|(_, pod)| pod.phase != crate::state::PodPhase::Free)
        .map(|(slot, pod)| {
            let record = self::record(model.records.get(pod.record));
            format!("pod u{slot} (born {}) {:?}, {record}, worker {:?}", pod.born, pod.phase, pod.worker.mode)
        })
        .collect();
    format!("ledger: {}; {}", ledger(model.ledgers.get(state.ledger.ledger)), pods.join("; "))
}

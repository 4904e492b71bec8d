//! How each effect is carried out, on what is true when it arrives.

use std::rc::Rc;

use processhub_protocol::fence::Record;
use processhub_protocol::handover::Effect;
use processhub_protocol::id::Epoch;
use processhub_protocol::ledger::{Kind, Transition};
use processhub_protocol::rules::{Rule, enforced};
use processhub_protocol::wire::{
    Activate, Challenge, Freeze, Grant, HandOn, Import, Peer, Renew, StartInfo, Thaw,
};

use crate::intern::Id;
use crate::message::Message;
use crate::model::Model;
use crate::names::{self, Slot};
use crate::operator::Sight;
use crate::promise::{self, Promise};
use crate::state::{Mode, NOWHERE, Pod, PodPhase, Seen, State, Versioned, Wish, Worker};

/// Grants are honoured by the boot that asked for them; milliseconds are covered by the unit tests of the fence.
const VALID: u64 = 1;

impl Model {
    /// Carries an effect out on what is true now, whatever it was decided on.
    pub(crate) fn carry_out(
        &mut self,
        state: &mut State,
        seen: Versioned,
        effect: &Effect,
        sight: Option<&Sight>,
    ) -> Option<Promise> {
        match effect {
            Effect::Write(transition) => return self.write(state, seen, transition),
            Effect::CreatePod { epoch, gated, .. } => self.create(state, *epoch, *gated),
            Effect::Route(pod) => state.routed = names::slot(&pod.uid),
            Effect::ReadLive(_) | Effect::LetGo { .. } => {}
            Effect::SealReplicas { epoch } => state.replica = state.replica.sealed(*epoch),
            // There is one holder, and every owner knows it.
            Effect::Replicate { .. } => {}
            Effect::DeletePod { uid, .. } => {
                let slot = names::slot(uid);
                let broken = !promise::may_delete(self, state, slot, sight.is_none());
                let pod = &mut state.pods[usize::from(slot)];
                match pod.phase {
                    PodPhase::Running => pod.phase = PodPhase::Deleting,
                    PodPhase::Dead => pod.phase = PodPhase::Gone,
                    PodPhase::Free
                    | PodPhase::Deleting
                    | PodPhase::Orphan
                    | PodPhase::Down
                    | PodPhase::Gone => return None,
                }
                return broken.then_some(Promise::SourceStays);
            }
            Effect::Trial { .. }
            | Effect::Freeze { .. }
            | Effect::Import { .. }
            | Effect::Activate { .. }
            | Effect::Thaw { .. }
            | Effect::Renew { .. }
            | Effect::HandOn { .. } => {
                if let Some(message) = sight.and_then(|sight| self.command(sight, seen.ledger, effect)) {
                    let id = self.messages.id(message);
                    state.net.insert(id);
                }
            }
        }
        None
    }

    /// Rule 2 at the API server's edge: a write that was decided on another version is refused.
    fn write(&mut self, state: &mut State, seen: Versioned, transition: &Transition) -> Option<Promise> {
        if state.deleted || (enforced(Rule::CompareAndSwap) && seen.version != state.ledger.version) {
            return None;
        }
        let before = Rc::clone(self.ledgers.get(seen.ledger));
        let Some(after) = before.after(names::PROCESS, transition) else {
            return Some(Promise::Applies);
        };
        if after.epoch > names::epoch(self.config.epochs) {
            self.exhausted = true;
            return None;
        }
        let mut broken = None;
        match transition {
            Transition::Prepare { kind, .. } => {
                if matches!(kind, Kind::HotSwap | Kind::ColdSwap) {
                    state.budget.moves = state.budget.moves.saturating_sub(1);
                }
                broken = self.take(state, after.epoch);
                state.wish = Wish::Finish;
            }
            Transition::Abort { .. } => broken = self.take(state, after.epoch),
            Transition::Fence => {
                state.fenced = 0;
                state.budget.fences = state.budget.fences.saturating_sub(1);
            }
            Transition::Unfence => {
                state.fenced = 0;
                broken = self.take(state, after.epoch);
            }
            Transition::Commit { state: given, lost, .. } => {
                state.fenced = 0;
                let declared =
                    before.migration.as_ref().is_some_and(|m| !m.with_state && m.kind != Kind::Recover);
                if declared {
                    state.excused |= state.acknowledged;
                }
                if let Some(lost) = lost {
                    let from = names::small(Epoch(lost.from));
                    state.excused |= lost_writes(state, names::writes(given.as_ref()), from);
                }
            }
            Transition::Replicate { .. } | Transition::Replicated => {}
            Transition::End { .. } => state.wish = Wish::Finish,
        }
        state.ledger = Versioned { ledger: self.ledgers.id(after), version: state.ledger.version + 1 };
        // The ledger is read before the pods and sidecars: nothing seen is older than it.
        state.glimpse = None;
        broken
    }

    /// Rule 9 as a promise. Without the rule, what comes of it is of interest, not that an epoch was reused.
    fn take(&self, state: &mut State, epoch: Epoch) -> Option<Promise> {
        let epoch = names::small(epoch);
        let reused = epoch <= state.top && enforced(Rule::FreshEpoch) && enforced(Rule::CompareAndSwap);
        state.top = state.top.max(epoch);
        reused.then_some(Promise::FreshEpoch)
    }

    fn create(&mut self, state: &mut State, epoch: Epoch, gated: bool) {
        let born = names::small(epoch);
        if state.pods.iter().any(|pod| pod.listed() && pod.born == born) {
            return;
        }
        let free = state.pods.iter().take(self.config.pods).position(|pod| pod.phase == PodPhase::Free);
        let Some(at) = free else {
            self.exhausted = true;
            return;
        };
        let slot = Slot::try_from(at).unwrap_or(NOWHERE);
        let record =
            self.records.id(Record::first(names::record(slot, 0), names::process(), names::uid(slot), epoch));
        // The operator's edge gates every pod of a hub of cold swaps.
        let mode = if gated || self.config.kind == Kind::ColdSwap { Mode::Gated } else { Mode::Standby };
        state.pods[at] = Pod {
            phase: PodPhase::Running,
            born,
            disk: record,
            record,
            worker: Worker { mode, ..Worker::default() },
            persisted: true,
            ..Pod::default()
        };
    }

    /// The command as the operator sends it.
    pub(crate) fn command(&self, sight: &Sight, ledger: Id, effect: &Effect) -> Option<Message> {
        let ledger = self.ledgers.get(ledger);
        let (source, target) = (sight.source.as_ref(), sight.target.as_ref());
        let grant = |seen: &Seen| {
            let record = if enforced(Rule::SealedStaysSealed) {
                ledger.owner.as_ref()?.record.clone()
            } else {
                // The variant without rule 12 grants to whoever it finds.
                self.records.get(seen.pod.record).record.clone()
            };
            Some(Grant {
                challenge: Challenge { boot: names::boot(seen.slot, seen.pod.boot), issued_milliseconds: 0 },
                valid_milliseconds: VALID,
                record,
            })
        };
        Some(match effect {
            Effect::Freeze { epoch, capture } => Message::Freeze(Freeze {
                to: names::addressee(source?.slot),
                epoch: *epoch,
                capture: *capture,
                drain_timeout_milliseconds: 0,
                state_query_timeout_milliseconds: 0,
            }),
            Effect::Import { epoch, state, reason, replica } => Message::Import(Import {
                to: names::addressee(target?.slot),
                epoch: *epoch,
                state: state.clone(),
                from: match replica {
                    Some(holder) => Peer::of_this_hub(holder.clone(), String::new(), 0),
                    None => names::peer(source?.slot),
                },
                replica: replica.is_some(),
                timeout_milliseconds: 0,
                reason: *reason,
                code_change: None,
            }),
            Effect::Activate { epoch, state } => Message::Activate(Activate {
                to: names::addressee(target.or(source)?.slot),
                epoch: *epoch,
                grant: grant(target.or(source)?)?,
                state: state.clone(),
                source: target.and(source).map(|source| names::peer(source.slot)),
                start: StartInfo::default(),
            }),
            Effect::Thaw { epoch } => Message::Thaw(Thaw {
                to: names::addressee(source?.slot),
                epoch: *epoch,
                grant: grant(source?)?,
            }),
            Effect::Renew { epoch } => {
                let owner = sight.owner.as_ref()?;
                Message::Renew(Renew { to: names::addressee(owner.slot), epoch: *epoch, grant: grant(owner)? })
            }
            Effect::HandOn { epoch } => Message::HandOn(HandOn {
                to: names::addressee(source?.slot),
                epoch: *epoch,
                peer: names::peer(target?.slot),
            }),
            Effect::Write(_)
            | Effect::CreatePod { .. }
            | Effect::Route(_)
            | Effect::ReadLive(_)
            | Effect::SealReplicas { .. }
            | Effect::Replicate { .. }
            // Changes no record, and the model's workers all run the same code.
            | Effect::Trial { .. }
            // Decided for a pod, and not for a process that is there.
            | Effect::LetGo { .. }
            | Effect::DeletePod { .. } => return None,
        })
    }
}

/// The acknowledged writes that are not in `held` and whose numbers are `from` or above; none if `from` is 0.
pub(crate) fn lost_writes(state: &State, held: u8, from: u8) -> u8 {
    (0u8..)
        .zip(state.seqs)
        .filter(|(_, seq)| from != 0 && *seq >= from)
        .map(|(bit, _)| state.acknowledged & !held & (1 << bit))
        .fold(0, |all, write| all | write)
}

//! The operator: what it sees, and what the shipped [`handover::next`] decides.

use std::rc::Rc;

use processhub_protocol::fence::Role;
use processhub_protocol::handover::{self, Effect};
use processhub_protocol::ledger::{AbortReason, Kind, Ledger, Phase, Tenure, Transition};
use processhub_protocol::wire::LetGo;

use crate::effects::lost_writes;
use crate::intern::Id;
use crate::message::Message;
use crate::model::{Edge, Model, each};
use crate::names::{self, Slot};
use crate::promise::{self, Promise};
use crate::sidecar::spend;
use crate::state::{FRESH, Glimpse, Pod, PodPhase, Replica, Seen, State, Versioned, Wish, Worker};
use crate::step::Step;

/// What a decision rests on, in small.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sight {
    pub(crate) ledger: Id,
    pub(crate) source: Option<Seen>,
    pub(crate) target: Option<Seen>,
    pub(crate) owner: Option<Seen>,
    /// Whether it may be taken over.
    pub(crate) replaceable: bool,
    /// Whether the owner is being fenced.
    pub(crate) fenced: bool,
    /// Whether what it was given before has ended.
    pub(crate) lapsed: bool,
    pub(crate) routed: Slot,
    pub(crate) intent: bool,
    pub(crate) lingering: bool,
    pub(crate) wish: Wish,
    /// What the holder of the replica says, where it was asked for this recovery.
    pub(crate) replica: Option<Replica>,
    /// Whether it holds a glimpse.
    glimpses: bool,
}

/// How many decisions a leader takes on one observation.
const GLIMPSE: u8 = 12;

/// What is left of a glimpse after a decision on it: its own writes do not make an operator look again, a command's
/// answer does.
fn glimpse_after(from: &State, (_, command): &(Id, Option<Message>)) -> Option<Glimpse> {
    let glimpse = from.glimpse?;
    let answered = command.as_ref().and_then(Message::to) == Some(glimpse.seen.slot);
    (!answered && glimpse.decisions > 1).then_some(Glimpse { decisions: glimpse.decisions - 1, ..glimpse })
}

/// Whether it lets somebody acknowledge.
fn grants(effect: &Effect) -> bool {
    matches!(effect, Effect::Activate { .. } | Effect::Thaw { .. } | Effect::Renew { .. })
}

impl Model {
    /// Each effect that an operator may carry out now, at once or so that the API server gets it late.
    pub(crate) fn operators(&mut self, from: &State, out: &mut Vec<Edge>) {
        self.operator(from, from.ledger, false, out);
        if self.config.second_leader && from.stale != from.ledger {
            self.operator(from, from.stale, true, out);
            if from.budget.refreshes > 0 {
                let mut state = from.clone();
                state.budget.refreshes -= 1;
                state.stale = from.ledger;
                out.push(Edge { step: Step::Refresh, state, broken: None });
            }
        }
        if from.budget.glimpses > 0 {
            for (slot, _) in each(from).filter(|(_, pod)| pod.phase != PodPhase::Free) {
                let mut state = from.clone();
                state.budget.glimpses -= 1;
                state.glimpse = Some(Glimpse { seen: self.see(from, slot), decisions: GLIMPSE });
                out.push(Edge { step: Step::Glimpse(slot), state, broken: None });
            }
        }
        for id in from.net.iter() {
            let message = Rc::clone(self.messages.get(id));
            if let Message::Api(seen, effect) = &*message {
                let mut state = from.clone();
                state.net.retain(|other| other != id);
                let broken = self.carry_out(&mut state, *seen, effect, None);
                out.push(Edge { step: Step::Arrives(id), state, broken });
            }
        }
        if from.deleted {
            self.let_go(from, out);
        } else {
            self.collect(from, out);
        }
    }

    /// What the leader does for the pods of a process whose object is gone: the shipped decision, on what their sidecars
    /// say now. The garbage collector deletes those that a late creation left behind.
    fn let_go(&mut self, from: &State, out: &mut Vec<Edge>) {
        for (slot, pod) in each(from) {
            let at = usize::from(slot);
            if pod.phase == PodPhase::Running {
                let mut state = from.clone();
                state.pods[at].phase = PodPhase::Deleting;
                out.push(Edge { step: Step::Collected(slot), state, broken: None });
            }
            let asked = matches!(pod.phase, PodPhase::Deleting | PodPhase::Orphan);
            let report = asked.then(|| self.report(slot, pod, promise::serves(self, pod)));
            if let Some(Effect::LetGo { epoch }) = report.as_ref().and_then(handover::let_go) {
                let command = LetGo { to: names::addressee(slot), epoch, drain_timeout_milliseconds: 0 };
                let mut state = from.clone();
                state.net.insert(self.messages.id(Message::LetGo(command)));
                out.push(Edge { step: Step::LetsGo(slot), state, broken: None });
            }
        }
    }

    /// What an operator that believes in `seen` may do, with each of the two sidecars answering it or not, and with
    /// what it saw of one of them now or earlier.
    fn operator(&mut self, from: &State, seen: Versioned, lagging: bool, out: &mut Vec<Edge>) {
        let fresh = self.sight(from, seen.ledger);
        let mut sights = vec![fresh];
        if let Some(glimpse) = from.glimpse {
            let old = glimpse.seen;
            let old = |now: Option<Seen>| now.map(|now| if now.slot == old.slot { old } else { now });
            sights.push(Sight {
                source: old(fresh.source),
                target: old(fresh.target),
                owner: old(fresh.owner),
                glimpses: true,
                ..fresh
            });
        }
        let slots = [fresh.source, fresh.target].map(|side| side.map(|seen| seen.slot));
        let other = fresh.owner.map(|seen| seen.slot).filter(|slot| !slots.contains(&Some(*slot)));
        for mute in [&slots[..1], &slots[1..], &slots[..], &[other]] {
            let mute = |side: Option<Seen>| {
                side.map(|seen| Seen { answers: seen.answers && !mute.contains(&Some(seen.slot)), ..seen })
            };
            let (source, target, owner) = (mute(fresh.source), mute(fresh.target), mute(fresh.owner));
            sights.push(Sight { source, target, owner, ..fresh });
        }
        let mut done: Vec<(Id, Option<Message>)> = Vec::new();
        for sight in sights {
            for &id in &*self.decide(sight) {
                let effect = Rc::clone(self.effects.get(id));
                if lagging && self.config.leased && grants(&effect) {
                    // Its own Lease has ended, or nobody else would lead.
                    continue;
                }
                let command = self.command(&sight, seen.ledger, &effect);
                let one = (id, command);
                if !done.contains(&one) {
                    let first = out.len();
                    self.act(from, seen, lagging, &sight, id, out);
                    if sight.glimpses {
                        let left = glimpse_after(from, &one);
                        out[first..].iter_mut().for_each(|edge| edge.state.glimpse = left);
                    }
                    done.push(one);
                }
            }
        }
    }

    fn act(
        &mut self,
        from: &State,
        seen: Versioned,
        lagging: bool,
        sight: &Sight,
        id: Id,
        out: &mut Vec<Edge>,
    ) {
        let effect = Rc::clone(self.effects.get(id));
        let mut from = from.clone();
        if !self.show_loss(&mut from, lagging, sight) {
            return;
        }
        let from = &from;
        let mut state = from.clone();
        let broken =
            self.given_up(sight, &effect).or_else(|| self.carry_out(&mut state, seen, &effect, Some(sight)));
        if state != *from || broken.is_some() {
            out.push(Edge { step: Step::Operator { lagging, effect: id, late: false }, state, broken });
        }
        let api = matches!(
            *effect,
            Effect::Write(_) | Effect::CreatePod { .. } | Effect::Route(_) | Effect::DeletePod { .. }
        );
        let mut state = from.clone();
        if api && spend(&mut state, |budget| &mut budget.late) {
            let writes = matches!(*effect, Effect::Write(_));
            let seen = if writes { seen } else { Versioned::default() };
            state.net.insert(self.messages.id(Message::Api(seen, (*effect).clone())));
            out.push(Edge { step: Step::Operator { lagging, effect: id, late: true }, state, broken: None });
        }
    }

    /// The operator's edge writes what the owner's sidecar reports as lost before it does anything on the strength of
    /// that report: the sidecar that knows may be gone by the next look. One that lags behind cannot write, and does
    /// nothing.
    fn show_loss(&self, state: &mut State, lagging: bool, sight: &Sight) -> bool {
        let owner = self.ledgers.get(sight.ledger).owner.as_ref().map(|owner| names::slot(&owner.pod.uid));
        let seen = [sight.source, sight.target].into_iter().flatten();
        for seen in seen.filter(|seen| Some(seen.slot) == owner && seen.answers && seen.pod.lost != 0) {
            if lagging {
                return false;
            }
            let held = state.pods[usize::from(seen.slot)].worker.writes;
            state.excused |= lost_writes(state, held, seen.pod.lost);
        }
        true
    }

    /// What the operator's edge does beside the decisions: pods that have no part in the process any more go.
    fn collect(&mut self, from: &State, out: &mut Vec<Edge>) {
        let ledger = Rc::clone(self.ledgers.get(from.ledger.ledger));
        for (slot, pod) in each(from) {
            let name = names::pod(slot, pod.born).name;
            if pod.phase == PodPhase::Running
                && handover::stray(&ledger, &names::uid(slot), &name, names::epoch(pod.born))
            {
                let mut state = from.clone();
                state.pods[usize::from(slot)].phase = PodPhase::Deleting;
                let broken = (!promise::may_delete(self, from, slot, false)).then_some(Promise::SourceStays);
                out.push(Edge { step: Step::Collected(slot), state, broken });
            }
        }
    }

    /// Which slots are source and target for a leader that believes in `ledger`.
    fn sides(&self, state: &State, ledger: &Ledger) -> (Option<Slot>, Option<Slot>) {
        let owner = ledger.owner.as_ref().map(|owner| names::slot(&owner.pod.uid));
        let Some(migration) = &ledger.migration else {
            return (owner, None);
        };
        let source = migration.source.as_ref().map(|source| names::slot(&source.uid));
        let target = match migration.phase {
            Phase::Committed { .. } => owner,
            Phase::Prepared | Phase::Aborted { .. } => {
                let born = names::born(&migration.target_name);
                each(state)
                    .find(|(_, pod)| born != 0 && pod.listed() && pod.born == born)
                    .map(|(slot, _)| slot)
            }
        };
        (source, target)
    }

    fn sight(&self, state: &State, ledger: Id) -> Sight {
        let believed = Rc::clone(self.ledgers.get(ledger));
        let (source, target) = self.sides(state, &believed);
        let owner = believed.owner.as_ref().map(|owner| names::slot(&owner.pod.uid));
        let fenced =
            believed.owner.as_ref().is_some_and(|owner| matches!(owner.tenure, Tenure::Fencing { .. }));
        let owner_dead = believed
            .owner
            .as_ref()
            .is_none_or(|owner| state.pods[usize::from(names::slot(&owner.pod.uid))].dead());
        let recovering = believed.migration.as_ref().is_some_and(|migration| migration.kind == Kind::Recover);
        let lingering = each(state).any(|(slot, pod)| {
            (pod.runs() || pod.phase == PodPhase::Down) && source != Some(slot) && target != Some(slot)
        });
        Sight {
            ledger,
            source: source.map(|slot| self.see(state, slot)),
            target: target.map(|slot| self.see(state, slot)),
            owner: owner.map(|slot| self.see(state, slot)),
            replaceable: state.budget.fences > 0,
            fenced,
            lapsed: fenced && state.fenced >= FRESH,
            routed: state.routed,
            intent: state.budget.moves > 0 || owner_dead || recovering || fenced,
            lingering,
            wish: state.wish,
            replica: self.answer(state, &believed),
            glimpses: false,
        }
    }

    /// A holder is asked again by whoever looks again: what it has seen says whether anybody has asked it.
    fn answer(&self, state: &State, ledger: &Ledger) -> Option<Replica> {
        let recovery = ledger.migration.as_ref().filter(|migration| migration.kind == Kind::Recover)?;
        let asked = self.config.replicated && state.replica.floor >= names::small(recovery.epoch);
        asked.then_some(state.replica)
    }

    fn see(&self, state: &State, slot: Slot) -> Seen {
        let pod = &state.pods[usize::from(slot)];
        let shown = Pod {
            disk: 0,
            activated: false,
            released: false,
            persisted: true,
            lease: 0,
            worker: Worker { writes: 0, epoch: 0, ..pod.worker },
            ..*pod
        };
        Seen { slot, pod: shown, serving: promise::serves(self, pod), answers: pod.heard() }
    }

    /// The shipped decision, remembered per sight.
    fn decide(&mut self, sight: Sight) -> Rc<[Id]> {
        if let Some(known) = self.decisions.get(&sight) {
            return Rc::clone(known);
        }
        let view = self.view(&sight);
        let effects = handover::renewal(&view).into_iter().chain(handover::next(&view).effects);
        let effects: Rc<[Id]> = effects.map(|effect| self.effects.id(effect)).collect();
        self.decisions.insert(sight, Rc::clone(&effects));
        effects
    }

    /// Rule 13 as a promise: a source that is dead, a target that holds everything, and an abort. Only the deadline ends
    /// the wait for a target that does not answer.
    fn given_up(&self, sight: &Sight, effect: &Effect) -> Option<Promise> {
        let (Effect::Write(Transition::Abort { reason }), Some(source), Some(target)) =
            (effect, &sight.source, &sight.target)
        else {
            return None;
        };
        if *reason == AbortReason::DeadlineExceeded && !target.answers {
            return None;
        }
        // An owner that is back has all that anybody else holds.
        if *reason == AbortReason::Regrant && sight.owner.is_some_and(|owner| !owner.pod.dead()) {
            return None;
        }
        let epoch = self.ledgers.get(sight.ledger).migration.as_ref()?.epoch;
        let held = matches!(
            self.records.get(target.pod.record).role,
            Role::Delivered { epoch: held, .. } if held == epoch
        );
        let kept = held && source.pod.dead() && target.pod.phase == PodPhase::Running;
        kept.then_some(Promise::NotGivenUp)
    }
}

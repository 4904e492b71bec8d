//! The operator's edge: what it sees, what the shipped [`handover::next`] decides, and how each effect is carried out.

use std::rc::Rc;

use processhub_protocol::fence::{Record, Role};
use processhub_protocol::handover::{
    self, Effect, Handover, Incarnation, Intent, Limits, Pod as SeenPod, PodView, SidecarView, View,
};
use processhub_protocol::id::Epoch;
use processhub_protocol::ledger::{AbortReason, Kind, Ledger, Lost, Phase, Transition};
use processhub_protocol::rules::{Rule, enforced};
use processhub_protocol::wire::{
    Activate, Busy, Challenge, CommandKind, Failure, FailureKind, Freeze, Grant, Import, Report, StartInfo,
    Thaw, VERSION, WorkerState, WorkerView,
};

use crate::intern::Id;
use crate::message::Message;
use crate::model::{Edge, Model, each};
use crate::names::{self, Slot};
use crate::promise::{self, Promise};
use crate::sidecar::spend;
use crate::state::{Fault, Mode, NOWHERE, Pod, PodPhase, Seen, State, Versioned, Wish, Worker};
use crate::step::Step;

/// Grants are honoured by the boot that asked for them; milliseconds are covered by the unit tests of the fence.
const VALID: u64 = 1;

/// What a decision rests on, in small.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sight {
    ledger: Id,
    source: Option<Seen>,
    target: Option<Seen>,
    routed: Slot,
    intent: bool,
    lingering: bool,
    wish: Wish,
    /// Whether it holds a glimpse, which is good for one decision.
    glimpses: bool,
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
                state.glimpse = Some(self.see(from, slot));
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
        self.collect(from, out);
    }

    /// What an operator that believes in `seen` may do, with each of the two sidecars answering it or not, and with
    /// what it saw of one of them now or earlier.
    fn operator(&mut self, from: &State, seen: Versioned, lagging: bool, out: &mut Vec<Edge>) {
        let fresh = self.sight(from, seen.ledger);
        let mut sights = vec![fresh];
        if let Some(glimpse) = from.glimpse {
            let old = |now: Option<Seen>| now.map(|now| if now.slot == glimpse.slot { glimpse } else { now });
            sights.push(Sight {
                source: old(fresh.source),
                target: old(fresh.target),
                glimpses: true,
                ..fresh
            });
        }
        let mute = |side: Option<Seen>| side.map(|seen| Seen { answers: false, ..seen });
        sights.push(Sight { source: mute(fresh.source), ..fresh });
        sights.push(Sight { target: mute(fresh.target), ..fresh });
        sights.push(Sight { source: mute(fresh.source), target: mute(fresh.target), ..fresh });
        let mut done: Vec<(Id, Option<Message>)> = Vec::new();
        for sight in sights {
            for &id in &*self.decide(sight) {
                let effect = Rc::clone(self.effects.get(id));
                let command = self.command(&sight, seen.ledger, &effect);
                let one = (id, command);
                if !done.contains(&one) {
                    let first = out.len();
                    self.act(from, seen, lagging, &sight, id, out);
                    if sight.glimpses {
                        out[first..].iter_mut().for_each(|edge| edge.state.glimpse = None);
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
            let seen = if matches!(*effect, Effect::Write(_)) { seen } else { Versioned::default() };
            state.net.insert(self.messages.id(Message::Api(seen, (*effect).clone())));
            out.push(Edge { step: Step::Operator { lagging, effect: id, late: true }, state, broken: None });
        }
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
            routed: state.routed,
            intent: state.budget.moves > 0 || owner_dead || recovering,
            lingering,
            wish: state.wish,
            glimpses: false,
        }
    }

    fn see(&self, state: &State, slot: Slot) -> Seen {
        let pod = &state.pods[usize::from(slot)];
        let shown = Pod {
            disk: 0,
            activated: false,
            released: false,
            persisted: true,
            worker: Worker { writes: 0, epoch: 0, ..pod.worker },
            ..*pod
        };
        Seen { slot, pod: shown, serving: promise::serves(self, pod), answers: pod.runs() }
    }

    /// The shipped decision, remembered per sight.
    fn decide(&mut self, sight: Sight) -> Rc<[Id]> {
        if let Some(known) = self.decisions.get(&sight) {
            return Rc::clone(known);
        }
        let decision = handover::next(&self.view(&sight));
        let effects: Rc<[Id]> = decision.effects.into_iter().map(|effect| self.effects.id(effect)).collect();
        self.decisions.insert(sight, Rc::clone(&effects));
        effects
    }

    fn view(&self, sight: &Sight) -> View {
        View {
            ledger: (**self.ledgers.get(sight.ledger)).clone(),
            intent: sight.intent.then(|| Intent { kind: self.config.kind, node: "n".to_owned() }),
            give_up: match sight.wish {
                Wish::Finish => None,
                Wish::Cancel => Some(AbortReason::Cancelled),
                Wish::Deadline => Some(AbortReason::DeadlineExceeded),
                Wish::Withdraw => Some(AbortReason::Withdrawn),
            },
            source: self.incarnation(sight.source.as_ref()),
            target: self.incarnation(sight.target.as_ref()),
            routed_to: (sight.routed != NOWHERE).then(|| names::uid(sight.routed)),
            lingering: sight.lingering,
            leading: true,
            limits: Limits {
                handover: if self.config.with_state { Handover::IfCapable } else { Handover::Never },
                state_ttl: 1,
                freeze: 1,
                retention: 0,
            },
        }
    }

    fn incarnation(&self, seen: Option<&Seen>) -> Incarnation {
        let Some(Seen { slot, pod, serving, answers }) = seen else {
            return Incarnation { pod: PodView::Absent { live: true }, ..Incarnation::default() };
        };
        let view = if pod.listed() {
            PodView::Present(SeenPod {
                uid: names::uid(*slot),
                deleting: pod.phase == PodPhase::Deleting,
                ready: *serving,
                live: true,
            })
        } else {
            PodView::Absent { live: true }
        };
        let sidecar = if *answers {
            SidecarView::Report(Box::new(self.report(*slot, pod, *serving)))
        } else {
            SidecarView::Unreachable
        };
        Incarnation { pod: view, sidecar, dead: pod.dead() }
    }

    fn report(&self, slot: Slot, pod: &Pod, serving: bool) -> Report {
        let record: &Record = self.records.get(pod.record);
        let busy = pod.busy.and_then(|busy| match &**self.messages.get(busy.message) {
            Message::Freeze(command) => Some((CommandKind::Freeze, command.epoch)),
            Message::Import(command) => Some((CommandKind::Import, command.epoch)),
            Message::Activate(_) | Message::Thaw(_) | Message::Forward(_) | Message::Api(..) => None,
        });
        Report {
            protocol: VERSION,
            process: names::process(),
            pod: names::uid(slot),
            record: record.record.clone(),
            floor: record.floor.epoch,
            role: record.role.clone(),
            challenge: Challenge { boot: names::boot(slot, pod.boot), issued_milliseconds: 0 },
            worker: WorkerView {
                state: match pod.worker.mode {
                    Mode::Gated => WorkerState::Gated,
                    Mode::Standby => WorkerState::Standby,
                    Mode::Active => WorkerState::Active,
                    Mode::Suspended => WorkerState::Suspended,
                },
                can_hand_over: Some(true),
                vsn: String::new(),
                seq: None,
            },
            serving,
            serving_for_milliseconds: None,
            frozen_for_milliseconds: None,
            busy: busy.map(|(command, epoch)| Busy { command, epoch, milliseconds: 0 }),
            failure: pod.failure.map(|(epoch, fault)| Failure {
                epoch: names::epoch(epoch),
                kind: match fault {
                    Fault::Capture => FailureKind::CaptureFailed,
                    Fault::Import => FailureKind::ImportFailed,
                },
                message: String::new(),
            }),
            held: 0,
            blackout_microseconds: None,
            stopping: false,
            lost: None,
        }
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
        let epoch = self.ledgers.get(sight.ledger).migration.as_ref()?.epoch;
        let held = matches!(
            self.records.get(target.pod.record).role,
            Role::Delivered { epoch: held, .. } if held == epoch
        );
        let kept = held && source.pod.dead() && target.pod.phase == PodPhase::Running;
        kept.then_some(Promise::NotGivenUp)
    }

    /// Carries an effect out on what is true now, whatever it was decided on.
    fn carry_out(
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
            Effect::ReadLive(_) => {}
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
            Effect::Freeze { .. } | Effect::Import { .. } | Effect::Activate { .. } | Effect::Thaw { .. } => {
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
        if enforced(Rule::CompareAndSwap) && seen.version != state.ledger.version {
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
            Transition::Commit { state: given, lost, .. } => {
                let declared =
                    before.migration.as_ref().is_some_and(|m| !m.with_state && m.kind != Kind::Recover);
                if declared {
                    state.excused |= state.acknowledged;
                }
                if let Some(lost) = lost {
                    excuse(state, names::writes(given.as_ref()), *lost);
                }
            }
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
        let mode = if gated { Mode::Gated } else { Mode::Standby };
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
    fn command(&self, sight: &Sight, ledger: Id, effect: &Effect) -> Option<Message> {
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
            Effect::Import { epoch, state, reason } => Message::Import(Import {
                to: names::addressee(target?.slot),
                epoch: *epoch,
                state: state.clone(),
                from: names::peer(source?.slot),
                timeout_milliseconds: 0,
                reason: *reason,
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
            Effect::Write(_)
            | Effect::CreatePod { .. }
            | Effect::Route(_)
            | Effect::ReadLive(_)
            | Effect::DeletePod { .. } => return None,
        })
    }
}

/// The object says that changes from `lost` on may be missing: an acknowledged write that is not in `held` is excused
/// if its number is among them.
pub(crate) fn excuse(state: &mut State, held: u8, lost: Lost) {
    for (bit, seq) in (0u8..).zip(state.seqs) {
        let write = 1 << bit;
        if state.acknowledged & write != 0 && held & write == 0 && u64::from(seq) >= lost.from {
            state.excused |= write;
        }
    }
}

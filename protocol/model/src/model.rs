//! The system as a whole: its tables, its first state, and what can happen in a state.

use std::collections::HashMap;
use std::rc::Rc;

use processhub_protocol::fence::{Floor, Record, Role, Step as Done};
use processhub_protocol::handover::Effect;
use processhub_protocol::ledger::{Kind, Ledger, Owner, Tenure};
use processhub_protocol::replica::Replicas;
use processhub_protocol::rules::{Rule, enforced};
use processhub_protocol::wire::{Forward, HandOn};

use crate::intern::{Id, Interner};
use crate::message::Message;
use crate::names::{self, Slot};
use crate::operator::Sight;
use crate::promise::{self, Promise};
use crate::state::{
    Bag, Budget, FRESH, Mode, NOWHERE, PODS, Pod, PodPhase, Replica, State, Versioned, WRITES, Wish, Worker,
};
use crate::step::Step;

/// What is explored.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its name.
    pub name: &'static str,
    /// How the process moves.
    pub kind: Kind,
    /// Whether state is handed over.
    pub with_state: bool,
    /// Whether owners serve by lease.
    pub leased: bool,
    /// Whether an answer waits for a holder of a replica.
    pub replicated: bool,
    /// Whether machines stand still for longer than is assumed: one whose lease has ended may answer all the same.
    pub stalls: bool,
    /// Whether the process has to be started first.
    pub starts: bool,
    /// Whether a second operator believes that it leads, with a ledger that lags behind.
    pub second_leader: bool,
    /// How many incarnations may exist at once.
    pub pods: usize,
    /// The highest epoch that may be taken; only variants without a rule get anywhere near.
    pub epochs: u8,
    /// What may happen.
    pub budget: Budget,
    /// The one promise that is watched; all of them if none is named.
    pub only: Option<Promise>,
}

/// A step, the state after it, and the promise that it broke.
#[derive(Debug)]
pub struct Edge {
    /// What happened.
    pub step: Step,
    /// The state after it.
    pub state: State,
    /// What it broke.
    pub broken: Option<Promise>,
}

/// The tables of one exploration. Which number stands for what depends on the order of discovery, which is always the
/// same.
#[derive(Debug)]
pub struct Model {
    /// What is explored.
    pub config: Config,
    /// Ledgers.
    pub ledgers: Interner<Ledger>,
    /// Records.
    pub records: Interner<Record>,
    /// Messages.
    pub messages: Interner<Message>,
    /// Effects.
    pub effects: Interner<Effect>,
    pub(crate) decisions: HashMap<Sight, Rc<[Id]>>,
    /// Whether the last call of [`Model::successors`] wanted a pod or an epoch more than the bounds allow.
    pub exhausted: bool,
}

impl Model {
    /// The tables, empty.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            ledgers: Interner::default(),
            records: Interner::default(),
            messages: Interner::default(),
            effects: Interner::default(),
            decisions: HashMap::new(),
            exhausted: false,
        }
    }

    /// Where everything begins: with nothing, or with an owner that serves.
    pub fn first(&mut self) -> State {
        let mut ledger = Ledger::default();
        let mut pods = [Pod::default(); PODS];
        let mut routed = NOWHERE;
        if !self.config.starts {
            let epoch = names::epoch(1);
            let role = Role::Active { epoch, kept: None };
            let record = Record {
                floor: Floor { epoch, step: Done::TakeOver },
                role,
                ..Record::first(names::record(0, 0), names::process(), names::uid(0), epoch)
            };
            ledger.epoch = epoch;
            let tenure = if self.config.leased { Tenure::Leased } else { Tenure::Unbounded };
            ledger.owner = Some(Owner { pod: names::pod(0, 1), record: names::record(0, 0), epoch, tenure });
            let record = self.records.id(record);
            pods[0] = Pod {
                phase: PodPhase::Running,
                born: 1,
                disk: record,
                record,
                worker: Worker { mode: Mode::Active, writes: 0, epoch: 1 },
                persisted: true,
                lease: if self.config.leased { FRESH } else { 0 },
                activated: true,
                ..Pod::default()
            };
            routed = 0;
            if self.config.replicated {
                ledger.replicas = Replicas::default().with(vec![names::holder()]);
            }
        }
        let top = names::small(ledger.epoch);
        let ledger = Versioned { ledger: self.ledgers.id(ledger), version: 0 };
        State {
            ledger,
            stale: ledger,
            pods,
            net: Bag::default(),
            routed,
            glimpse: None,
            wish: Wish::Finish,
            acknowledged: 0,
            excused: 0,
            seqs: [0; WRITES],
            top,
            fenced: 0,
            replica: Replica { epoch: 1, floor: 1, writes: 0 },
            deleted: false,
            budget: self.config.budget,
        }
    }

    /// Everything that can happen in `from`.
    pub fn successors(&mut self, from: &State, out: &mut Vec<Edge>) {
        out.clear();
        self.exhausted = false;
        self.operators(from, out);
        self.sidecars(from, out);
        self.surroundings(from, out);
        for edge in out.iter_mut() {
            self.note_release(&mut edge.state);
            self.tidy(&mut edge.state);
            if edge.broken.is_none() {
                edge.broken = promise::broken(self, &edge.state);
            }
        }
        out.retain(|edge| edge.broken.is_some() || edge.state != *from);
    }

    /// Notes that the source of the move under way may go from now on.
    fn note_release(&self, state: &mut State) {
        let ledger = self.ledgers.get(state.ledger.ledger);
        if let Some(migration) = &ledger.migration
            && let Some(source) = &migration.source
            && promise::released(self, state, migration)
        {
            state.pods[usize::from(names::slot(&source.uid))].released = true;
        }
    }

    /// Forgets what can have no effect any more: messages that every future record refuses, and pods that nothing
    /// names. Sound, because a floor never sinks (where it can, nothing is forgotten).
    fn tidy(&self, state: &mut State) {
        if !self.config.second_leader {
            state.stale = state.ledger;
        }
        let floors_hold =
            enforced(Rule::Floor) && enforced(Rule::DurableBeforeAnswer) && self.config.budget.wipes == 0;
        let (pods, version) = (state.pods, state.ledger.version);
        let returns = state.budget.returns;
        state.net.retain(|id| match &**self.messages.get(id) {
            Message::Api(seen, Effect::Write(_)) => {
                seen.version == version || !enforced(Rule::CompareAndSwap)
            }
            Message::Api(_, Effect::DeletePod { uid, .. }) => {
                let phase = pods[usize::from(names::slot(uid))].phase;
                !matches!(phase, PodPhase::Gone | PodPhase::Free | PodPhase::Deleting)
            }
            Message::Api(..) => true,
            command => {
                let Some(to) = command.to() else {
                    return true;
                };
                let pod = &pods[usize::from(to)];
                if matches!(pod.phase, PodPhase::Gone | PodPhase::Free)
                    || (pod.phase == PodPhase::Dead && returns == 0)
                {
                    return false;
                }
                let disk = self.records.get(pod.disk);
                match command {
                    Message::Forward(Forward { epoch, .. }) | Message::HandOn(HandOn { epoch, .. }) => {
                        !enforced(Rule::ForwardUpwards) || *epoch >= disk.floor.epoch
                    }
                    _ => !floors_hold || command.floor().is_none_or(|floor| floor > disk.floor),
                }
            }
        });
        self.release(state);
    }

    /// Frees the slots of pods that are gone and that nothing names any more.
    fn release(&self, state: &mut State) {
        if state.pods.iter().all(|pod| pod.phase != PodPhase::Gone) {
            return;
        }
        let mut named = self.named(state.ledger.ledger) | self.named(state.stale.ledger);
        for id in state.net.iter() {
            let message = self.messages.get(id);
            named |= message.pods();
            if let Message::Api(seen, Effect::Write(_)) = &**message {
                named |= self.named(seen.ledger);
            }
        }
        for pod in state.pods.iter().filter(|pod| !matches!(pod.phase, PodPhase::Free | PodPhase::Gone)) {
            if let Role::Forwarding { to, .. } = &self.records.get(pod.record).role {
                named |= 1 << names::slot(&to.pod);
            }
            named |= pod.busy.map_or(0, |busy| self.messages.get(busy.message).pods());
        }
        for (at, pod) in state.pods.iter_mut().enumerate() {
            if pod.phase == PodPhase::Gone && named & (1 << at) == 0 {
                *pod = Pod::default();
                state.glimpse = state.glimpse.filter(|glimpse| usize::from(glimpse.seen.slot) != at);
                if usize::from(state.routed) == at {
                    state.routed = NOWHERE;
                }
            }
        }
    }

    fn named(&self, ledger: Id) -> u8 {
        let ledger = self.ledgers.get(ledger);
        let owner = ledger.owner.as_ref().map_or(0, |owner| 1 << names::slot(&owner.pod.uid));
        let source = ledger
            .migration
            .as_ref()
            .and_then(|migration| migration.source.as_ref())
            .map_or(0, |source| 1 << names::slot(&source.uid));
        owner | source
    }
}

/// The slots of `state` with their pods.
pub fn each(state: &State) -> impl Iterator<Item = (Slot, &Pod)> {
    (0..).zip(state.pods.iter())
}

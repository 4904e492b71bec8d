//! The sidecar's edge: it asks the shipped [`Record`] about each command, does the work, and makes the record durable
//! before it answers.

use std::rc::Rc;

use processhub_protocol::fence::{Clock, Record, Role, Verdict};
use processhub_protocol::id::Epoch;
use processhub_protocol::rules::{Rule, enforced};
use processhub_protocol::wire::{Activate, Forward, Freeze, Import, Thaw};

use crate::intern::Id;
use crate::message::Message;
use crate::model::{Edge, Model, each};
use crate::names::{self, Slot};
use crate::promise::Promise;
use crate::state::{Busy, FRESH, Fault, Mode, PODS, Pod, State};
use crate::step::Step;

impl Model {
    /// Commands that arrive, and work that goes on.
    pub(crate) fn sidecars(&mut self, from: &State, out: &mut Vec<Edge>) {
        for id in from.net.iter() {
            let message = Rc::clone(self.messages.get(id));
            let Some(to) = message.to() else {
                continue;
            };
            if !from.pods[usize::from(to)].heard() {
                continue;
            }
            let mut state = from.clone();
            let broken = self.deliver(&mut state, to, id, &message);
            if state != *from || broken.is_some() {
                out.push(Edge { step: Step::Delivered(id), state, broken });
            }
        }
        for (slot, pod) in each(from) {
            if let Some(busy) = pod.busy.filter(|_| pod.runs()) {
                let message = Rc::clone(self.messages.get(busy.message));
                match &*message {
                    Message::Freeze(command) => self.freezing(from, slot, command, out),
                    Message::Import(command) => self.importing(from, slot, busy, command, out),
                    Message::Activate(_)
                    | Message::Thaw(_)
                    | Message::Forward(_)
                    | Message::HandOn(_)
                    | Message::LetGo(_)
                    | Message::Renew(_)
                    | Message::Api(..) => {}
                }
            }
        }
    }

    fn deliver(&mut self, state: &mut State, to: Slot, id: Id, message: &Message) -> Option<Promise> {
        let pod = &mut state.pods[usize::from(to)];
        let record = Rc::clone(self.records.get(pod.record));
        match message {
            Message::Freeze(command) => {
                if pod.busy.is_none() && record.judge_freeze(command) == Ok(Verdict::Proceed) {
                    pod.busy = Some(Busy { message: id, fetched: false });
                }
                None
            }
            Message::Import(command) => {
                let waits = matches!(pod.worker.mode, Mode::Standby | Mode::Gated);
                if pod.busy.is_none() && waits && record.judge_import(command) == Ok(Verdict::Proceed) {
                    pod.busy = Some(Busy { message: id, fetched: false });
                }
                None
            }
            Message::Activate(command) => {
                self.activate(state, to, &record, command);
                None
            }
            Message::Thaw(command) => {
                self.thaw(state, to, &record, command);
                None
            }
            Message::Forward(command) => self.forward(state, to, &record, command),
            Message::LetGo(command) => {
                if let Ok(retired) = record.let_go_done(command) {
                    pod.busy = None;
                    self.obey(pod, retired);
                }
                None
            }
            Message::Renew(command) => {
                if record.judge_renew(command, &clock(to, pod)).is_ok() {
                    pod.lease = FRESH;
                }
                None
            }
            Message::HandOn(command) => self.forward(state, to, &record, &command.forward()),
            Message::Api(..) => None,
        }
    }

    fn activate(&mut self, state: &mut State, to: Slot, record: &Record, command: &Activate) {
        let pod = &mut state.pods[usize::from(to)];
        let clock = clock(to, pod);
        if record.judge_activate(command, &clock) != Ok(Verdict::Proceed) {
            return;
        }
        let Ok(active) = record.activate_done(command, &clock) else {
            return;
        };
        self.obey(pod, active);
        pod.lease = if self.config.leased { FRESH } else { 0 };
        pod.activated = true;
        self.settle(pod);
        if let Some(source) = &command.source {
            let forward = Forward {
                to: names::addressee(names::slot(&source.pod)),
                epoch: command.epoch,
                peer: names::peer(to),
            };
            state.net.insert(self.messages.id(Message::Forward(forward)));
        }
    }

    fn thaw(&mut self, state: &mut State, to: Slot, record: &Record, command: &Thaw) {
        let pod = &mut state.pods[usize::from(to)];
        let clock = clock(to, pod);
        if record.judge_thaw(command, &clock) != Ok(Verdict::Proceed) {
            return;
        }
        if let Ok(active) = record.thaw_done(command, &clock) {
            self.obey(pod, active);
            pod.lease = if self.config.leased { FRESH } else { 0 };
            pod.failure = None;
            let restarted = pod.worker.mode == Mode::Standby;
            self.settle(pod);
            if restarted {
                self.report_loss(pod);
            }
        }
    }

    /// The worker was started anew and given what is on disk: the sidecar's reports say from now on what may be missing.
    pub(crate) fn report_loss(&self, pod: &mut Pod) {
        if let Role::Active { kept, .. } = &self.records.get(pod.record).role
            && pod.persisted
        {
            let from = kept.as_ref().map_or(1, |kept| names::small(Epoch(kept.seq)) + 1);
            pod.lost = if pod.lost == 0 { from } else { pod.lost.min(from) };
        }
    }

    fn forward(
        &mut self,
        state: &mut State,
        to: Slot,
        record: &Record,
        command: &Forward,
    ) -> Option<Promise> {
        if record.judge_forward(command) != Ok(Verdict::Proceed) {
            return None;
        }
        let forwarding = record.forward_done(command).ok()?;
        let upward = match &record.role {
            Role::Frozen { epoch, .. } | Role::Forwarding { epoch, .. } => command.epoch >= *epoch,
            Role::Standby | Role::Delivered { .. } | Role::Active { .. } | Role::Retired { .. } => false,
        };
        self.obey(&mut state.pods[usize::from(to)], forwarding);
        (!upward || self.circles(state, to)).then_some(Promise::ForwardUp)
    }

    /// Whether a request that arrives at `slot` comes back to it.
    fn circles(&self, state: &State, slot: Slot) -> bool {
        let mut at = slot;
        for _ in 0..PODS {
            let Role::Forwarding { to, .. } = &self.records.get(state.pods[usize::from(at)].record).role
            else {
                return false;
            };
            at = names::slot(&to.pod);
        }
        true
    }

    fn freezing(&mut self, from: &State, slot: Slot, command: &Freeze, out: &mut Vec<Edge>) {
        let at = usize::from(slot);
        let mut state = from.clone();
        let pod = &mut state.pods[at];
        pod.busy = None;
        let captured = command.capture.then(|| names::state(pod.worker.writes));
        // A thaw may have overtaken the capture, which is then thrown away.
        if let Ok(frozen) = self.records.get(pod.record).freeze_done(command, captured) {
            pod.worker.mode = Mode::Suspended;
            pod.worker.epoch = names::small(command.epoch);
            pod.persisted = true;
            self.obey(pod, frozen);
        }
        out.push(Edge { step: Step::FreezeDone(slot), state, broken: None });
        let mut state = from.clone();
        if spend(&mut state, |budget| &mut budget.failures) {
            let pod = &mut state.pods[at];
            pod.busy = None;
            if names::small(command.epoch) > pod.worker.epoch {
                pod.worker.mode = Mode::Suspended;
                pod.worker.epoch = names::small(command.epoch);
            }
            pod.failure = Some((names::small(command.epoch), Fault::Capture));
            out.push(Edge { step: Step::FreezeFails(slot), state, broken: None });
        }
    }

    fn importing(&mut self, from: &State, slot: Slot, busy: Busy, command: &Import, out: &mut Vec<Edge>) {
        let at = usize::from(slot);
        let source = &from.pods[usize::from(names::slot(&command.from.pod))];
        let there = if command.replica {
            from.replica.floor <= names::small(command.epoch)
                && names::state(from.replica.writes) == command.state
        } else {
            source.heard()
                && self.records.get(source.record).exportable(command.epoch) == Some(&command.state)
        };
        let offered = there && !from.pods[at].cut;
        let mut state = from.clone();
        if busy.fetched {
            let pod = &mut state.pods[at];
            pod.busy = None;
            if let Ok(delivered) = self.records.get(pod.record).import_done(command) {
                if pod.worker.mode == Mode::Standby {
                    pod.worker.writes = names::writes(Some(&command.state));
                }
                // Rule 8: the bytes, too, are on disk before the answer.
                pod.persisted = enforced(Rule::PersistedImport);
                self.obey(pod, delivered);
            }
            out.push(Edge { step: Step::ImportDone(slot), state, broken: None });
        } else if offered {
            state.pods[at].busy = Some(Busy { fetched: true, ..busy });
            out.push(Edge { step: Step::Fetched(slot), state, broken: None });
        }
        let mut state = from.clone();
        // Without a source that offers the state the import cannot but fail.
        if (!offered && !busy.fetched) || spend(&mut state, |budget| &mut budget.failures) {
            let pod = &mut state.pods[at];
            pod.busy = None;
            pod.failure = Some((names::small(command.epoch), Fault::Import));
            out.push(Edge { step: Step::ImportFails(slot), state, broken: None });
        }
    }

    /// The new record: durable at once (rule 3), or, without that rule, only in memory for now.
    pub(crate) fn obey(&mut self, pod: &mut Pod, record: Record) {
        pod.record = self.records.id(record);
        if enforced(Rule::DurableBeforeAnswer) {
            pod.disk = pod.record;
        }
    }

    /// Puts the worker into the role that the record says.
    pub(crate) fn settle(&self, pod: &mut Pod) {
        match &self.records.get(pod.record).role {
            Role::Active { epoch, kept } => {
                let epoch = names::small(*epoch);
                match pod.worker.mode {
                    Mode::Gated | Mode::Standby => {
                        if pod.persisted {
                            pod.worker.writes = names::writes(kept.as_ref());
                        }
                        pod.worker.mode = Mode::Active;
                        pod.worker.epoch = epoch;
                    }
                    // A worker obeys no resume at or below the epoch of its suspend. One that is active is told the
                    // new epoch too: a suspend of the move that was undone may still be on its way to it.
                    Mode::Suspended | Mode::Active if epoch > pod.worker.epoch => {
                        pod.worker.mode = Mode::Active;
                        pod.worker.epoch = epoch;
                    }
                    Mode::Suspended | Mode::Active | Mode::Ended => {}
                }
            }
            Role::Delivered { state, .. } => {
                if pod.worker.mode == Mode::Standby && pod.persisted {
                    pod.worker.writes = names::writes(Some(state));
                }
            }
            Role::Standby | Role::Frozen { .. } | Role::Forwarding { .. } | Role::Retired { .. } => {}
        }
    }
}

/// Takes one from a budget and one from the budget of all faults, if both have some left.
pub(crate) fn spend(state: &mut State, budget: impl FnOnce(&mut crate::state::Budget) -> &mut u8) -> bool {
    if state.budget.faults == 0 {
        return false;
    }
    let left = budget(&mut state.budget);
    if *left == 0 {
        return false;
    }
    *left -= 1;
    state.budget.faults -= 1;
    true
}

fn clock(slot: Slot, pod: &Pod) -> Clock {
    Clock { boot: names::boot(slot, pod.boot), milliseconds: 0 }
}

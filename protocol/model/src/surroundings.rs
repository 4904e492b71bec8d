//! Clients, kubelets, people and misfortune.

use std::rc::Rc;

use processhub_protocol::fence::{Record, Role};
use processhub_protocol::ledger::{Kind, Ledger, Phase, Tenure};
use processhub_protocol::rules::{Rule, enforced};

use crate::message::Message;
use crate::model::{Edge, Model, each};
use crate::names::{self, Slot};
use crate::promise;
use crate::sidecar::spend;
use crate::state::{Budget, FRESH, Mode, Pod, PodPhase, State, Versioned, Wish, Worker};
use crate::step::Step;

impl Model {
    /// What happens without operator or sidecar wanting it.
    pub(crate) fn surroundings(&mut self, from: &State, out: &mut Vec<Edge>) {
        for (slot, pod) in each(from) {
            match pod.phase {
                PodPhase::Free | PodPhase::Gone => {}
                PodPhase::Down => {
                    self.phase(from, slot, PodPhase::Dead, Step::Proven(slot), out);
                    let mut state = from.clone();
                    self.start_anew(&mut state, slot);
                    out.push(Edge { step: Step::Up(slot), state, broken: None });
                }
                PodPhase::Dead => self.returns(from, slot, pod, out),
                // Its kubelet hears nothing.
                PodPhase::Orphan | PodPhase::Deleting if pod.cut => {}
                PodPhase::Orphan => {
                    self.worker_ends(from, slot, pod, out);
                    self.phase(from, slot, PodPhase::Gone, Step::Terminated(slot), out);
                }
                PodPhase::Deleting => {
                    self.worker_ends(from, slot, pod, out);
                    // A worker's end waits for its process to be handed over: what else could end it is a timer.
                    if !(from.deleted && self.owns(pod)) {
                        self.phase(from, slot, PodPhase::Gone, Step::Terminated(slot), out);
                    }
                    let mut state = from.clone();
                    if spend(&mut state, |budget| &mut budget.forced) {
                        state.pods[usize::from(slot)].phase = PodPhase::Orphan;
                        out.push(Edge { step: Step::Forced(slot), state, broken: None });
                    }
                }
                PodPhase::Running => self.disturb(from, slot, out),
            }
            if pod.runs() {
                self.leased(from, slot, pod, out);
                self.serve(from, slot, pod, out);
                self.restarts(from, slot, pod, out);
                self.without_rules(from, slot, pod, out);
            }
        }
        self.time_passes(from, out);
        self.delete_process(from, out);
        self.wishes(from, out);
    }

    /// As long as a lease lasts. Grants that are still on their way are void then. What was given in the time before has
    /// ended at some moment of this one, and what is given in this one ends in the next.
    fn time_passes(&self, from: &State, out: &mut Vec<Edge>) {
        if !self.config.leased {
            return;
        }
        let mut state = from.clone();
        for pod in &mut state.pods {
            pod.lease = pod.lease.saturating_sub(1);
        }
        state.net.retain(|id| {
            !matches!(&**self.messages.get(id), Message::Activate(_) | Message::Thaw(_) | Message::Renew(_))
        });
        let owner = &self.ledgers.get(from.ledger.ledger).owner;
        if owner.as_ref().is_some_and(|owner| matches!(owner.tenure, Tenure::Fencing { .. })) {
            state.fenced = FRESH.min(state.fenced + 1);
        }
        out.push(Edge { step: Step::TimePasses, state, broken: None });
    }

    fn leased(&self, from: &State, slot: Slot, pod: &Pod, out: &mut Vec<Edge>) {
        let at = usize::from(slot);
        if pod.lease == 1 {
            let mut state = from.clone();
            state.pods[at].lease = 0;
            out.push(Edge { step: Step::LeaseEnds(slot), state, broken: None });
        }
        let mut state = from.clone();
        if pod.cut {
            state.pods[at].cut = false;
            out.push(Edge { step: Step::Healed(slot), state, broken: None });
        } else if spend(&mut state, |budget| &mut budget.cuts) {
            state.pods[at].cut = true;
            out.push(Edge { step: Step::Cut(slot), state, broken: None });
        }
    }

    fn phase(&self, from: &State, slot: Slot, phase: PodPhase, step: Step, out: &mut Vec<Edge>) {
        let mut state = from.clone();
        state.pods[usize::from(slot)].phase = phase;
        state.pods[usize::from(slot)].busy = None;
        out.push(Edge { step, state, broken: None });
    }

    /// Whether a worker's `preStop` hook waits here.
    fn owns(&self, pod: &Pod) -> bool {
        matches!(self.records.get(pod.record).role, Role::Active { .. } | Role::Frozen { .. })
    }

    /// The worker of a pod that goes has ended, and its sidecar was told so. It says that of a pod whose process has been
    /// handed on; in every other its end comes with the pod's.
    fn worker_ends(&self, from: &State, slot: Slot, pod: &Pod, out: &mut Vec<Edge>) {
        let handed_on = matches!(self.records.get(pod.record).role, Role::Forwarding { .. });
        if handed_on && self.config.kind == Kind::ColdSwap && pod.worker.mode != Mode::Ended {
            let mut state = from.clone();
            state.pods[usize::from(slot)].worker = Worker { mode: Mode::Ended, ..Worker::default() };
            out.push(Edge { step: Step::WorkerEnds(slot), state, broken: None });
        }
    }

    fn serve(&mut self, from: &State, slot: Slot, pod: &Pod, out: &mut Vec<Edge>) {
        if !promise::acknowledges(self, from, pod) {
            return;
        }
        let at = usize::from(slot);
        if from.budget.writes > 0 {
            let mut state = from.clone();
            let number = self.config.budget.writes - from.budget.writes;
            state.budget.writes -= 1;
            let worker = &mut state.pods[at].worker;
            worker.writes |= 1 << number;
            let writes = worker.writes;
            if self.config.replicated {
                self.secure(&mut state, slot, writes);
            }
            state.acknowledged |= 1 << number;
            state.seqs[usize::from(number)] = u8::try_from(writes.count_ones()).unwrap_or(u8::MAX);
            out.push(Edge { step: Step::Write(slot), state, broken: None });
        }
        let record = Rc::clone(self.records.get(pod.record));
        if let Role::Active { epoch, kept } = &record.role
            && from.budget.checkpoints > 0
            && names::writes(kept.as_ref()) != pod.worker.writes
        {
            let mut state = from.clone();
            state.budget.checkpoints -= 1;
            if let Ok(kept) = record.checkpoint_done(*epoch, names::state(pod.worker.writes)) {
                self.obey(&mut state.pods[at], kept);
                out.push(Edge { step: Step::Checkpoint(slot), state, broken: None });
            }
        }
    }

    /// `Sync`: what is acknowledged is on the own disk and with the holder.
    fn secure(&mut self, state: &mut State, slot: Slot, writes: u8) {
        let pod = &mut state.pods[usize::from(slot)];
        let record = Rc::clone(self.records.get(pod.record));
        let Role::Active { epoch, .. } = &record.role else { return };
        if let (Ok(kept), Some(replica)) = (
            record.checkpoint_done(*epoch, names::state(writes)),
            state.replica.offered(names::small(*epoch), writes),
        ) {
            self.obey(pod, kept);
            state.replica = replica;
        }
    }

    fn restarts(&mut self, from: &State, slot: Slot, pod: &Pod, out: &mut Vec<Edge>) {
        let mut state = from.clone();
        if spend(&mut state, |budget| &mut budget.sidecar_restarts) {
            self.restart_sidecar(&mut state, slot);
            out.push(Edge { step: Step::SidecarRestarts(slot), state, broken: None });
        }
        let mut state = from.clone();
        let starts = !matches!(pod.worker.mode, Mode::Gated | Mode::Ended);
        if starts && spend(&mut state, |budget| &mut budget.worker_restarts) {
            self.restart_worker(&mut state, slot);
            out.push(Edge { step: Step::WorkerRestarts(slot), state, broken: None });
        }
        let mut state = from.clone();
        if spend(&mut state, |budget| &mut budget.wipes) {
            let at = usize::from(slot);
            let wipes = pod.wipes + 1;
            let first = Record::first(
                names::record(slot, wipes),
                names::process(),
                names::uid(slot),
                names::epoch(pod.born),
            );
            let record = self.records.id(first);
            state.pods[at] = Pod { wipes, disk: record, record, lost: 0, ..*pod };
            self.restart_sidecar(&mut state, slot);
            self.restart_worker(&mut state, slot);
            out.push(Edge { step: Step::Wiped(slot), state, broken: None });
        }
    }

    fn restart_sidecar(&self, state: &mut State, slot: Slot) {
        let pod = &mut state.pods[usize::from(slot)];
        pod.boot += 1;
        pod.lease = 0;
        pod.record = pod.disk;
        pod.busy = None;
        pod.failure = None;
        self.settle(pod);
    }

    /// The worker's memory is empty; the sidecar gives it what is on disk, and says what may be missing.
    fn restart_worker(&self, state: &mut State, slot: Slot) {
        let pod = &mut state.pods[usize::from(slot)];
        if matches!(pod.worker.mode, Mode::Gated | Mode::Ended) {
            return;
        }
        if let Some(busy) = pod.busy
            && let Message::Freeze(command) = &**self.messages.get(busy.message)
        {
            pod.failure = Some((names::small(command.epoch), crate::state::Fault::Capture));
            pod.busy = None;
        }
        pod.worker = Worker::default();
        self.settle(pod);
        self.report_loss(pod);
    }

    fn start_anew(&self, state: &mut State, slot: Slot) {
        state.pods[usize::from(slot)].phase = PodPhase::Running;
        self.restart_sidecar(state, slot);
        self.restart_worker(state, slot);
    }

    fn disturb(&mut self, from: &State, slot: Slot, out: &mut Vec<Edge>) {
        let at = usize::from(slot);
        let mut disturb = |budget: fn(&mut Budget) -> &mut u8, phase: PodPhase, step: Step| {
            let mut state = from.clone();
            if spend(&mut state, budget) {
                state.pods[at].phase = phase;
                state.pods[at].busy = state.pods[at].busy.filter(|_| phase != PodPhase::Down);
                out.push(Edge { step, state, broken: None });
            }
        };
        disturb(|budget| &mut budget.kills, PodPhase::Down, Step::Down(slot));
        disturb(|budget| &mut budget.evictions, PodPhase::Deleting, Step::Evicted(slot));
    }

    /// A machine that was off when it was declared dead comes back before its pods are collected. What never served
    /// is harmless then: no old grant revives it (rule 7). One that was active would serve again; that it is not
    /// declared dead wrongly is the promise of whoever declares it.
    fn returns(&mut self, from: &State, slot: Slot, pod: &Pod, out: &mut Vec<Edge>) {
        if matches!(self.records.get(pod.disk).role, Role::Active { .. }) {
            return;
        }
        let mut state = from.clone();
        if spend(&mut state, |budget| &mut budget.returns) {
            self.start_anew(&mut state, slot);
            out.push(Edge { step: Step::Returns(slot), state, broken: None });
        }
    }

    fn without_rules(&mut self, from: &State, slot: Slot, pod: &Pod, out: &mut Vec<Edge>) {
        let at = usize::from(slot);
        let record = Rc::clone(self.records.get(pod.record));
        if let Role::Frozen { epoch, state: sealed, .. } = &record.role
            && !enforced(Rule::NoTimerThaw)
        {
            let mut state = from.clone();
            let role = Role::Active { epoch: *epoch, kept: sealed.clone() };
            self.obey(&mut state.pods[at], Record { role, ..(*record).clone() });
            state.pods[at].worker.mode = Mode::Active;
            out.push(Edge { step: Step::TimerThaws(slot), state, broken: None });
        }
        if pod.disk != pod.record {
            let mut state = from.clone();
            state.pods[at].disk = pod.record;
            out.push(Edge { step: Step::Flushed(slot), state, broken: None });
        }
    }

    /// Somebody deletes the process's object, and the garbage collector its pods.
    fn delete_process(&self, from: &State, out: &mut Vec<Edge>) {
        let mut state = from.clone();
        if !from.deleted && spend(&mut state, |budget| &mut budget.deletions) {
            state.deleted = true;
            for pod in state.pods.iter_mut().filter(|pod| pod.phase == PodPhase::Running) {
                pod.phase = PodPhase::Deleting;
            }
            out.push(Edge { step: Step::ProcessDeleted, state, broken: None });
        }
    }

    fn wishes(&mut self, from: &State, out: &mut Vec<Edge>) {
        let ledger = Rc::clone(self.ledgers.get(from.ledger.ledger));
        let Some(migration) = &ledger.migration else {
            return;
        };
        let committed = matches!(migration.phase, Phase::Committed { .. });
        if migration.phase == Phase::Prepared && from.wish == Wish::Finish && from.budget.cancels > 0 {
            for (wish, step) in [
                (Wish::Cancel, Step::Cancelled),
                (Wish::Deadline, Step::Expired),
                (Wish::Withdraw, Step::Withdrawn),
            ] {
                let mut state = from.clone();
                state.budget.cancels -= 1;
                state.wish = wish;
                out.push(Edge { step, state, broken: None });
            }
        }
        let mut state = from.clone();
        if !committed && !from.deleted && spend(&mut state, |budget| &mut budget.edits) {
            let forgotten = Ledger { migration: None, ..(*ledger).clone() };
            state.ledger = Versioned { ledger: self.ledgers.id(forgotten), version: from.ledger.version + 1 };
            state.wish = Wish::Finish;
            out.push(Edge { step: Step::Edited, state, broken: None });
        }
    }
}

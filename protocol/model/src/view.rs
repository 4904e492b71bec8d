//! What the shipped decision is shown of the model's state.

use processhub_protocol::fence::Record;
use processhub_protocol::handover::{
    Handover, HolderSeen, Incarnation, Intent, Limits, Pod as SeenPod, PodView, ReplicasSeen, SidecarView,
    Standing, View,
};
use processhub_protocol::lease::LeaseView;
use processhub_protocol::ledger::AbortReason;
use processhub_protocol::replica::ReplicaView;
use processhub_protocol::wire::{
    Busy, Challenge, CommandKind, Failure, FailureKind, Report, VERSION, WorkerState, WorkerView,
};

use crate::message::Message;
use crate::model::Model;
use crate::names::{self, Slot};
use crate::operator::Sight;
use crate::state::{Fault, Mode, NOWHERE, Pod, PodPhase, Seen, Wish};

impl Model {
    pub(crate) fn view(&self, sight: &Sight) -> View {
        let owner = self.incarnation(sight.owner.as_ref());
        View {
            owner: Standing {
                sidecar: owner.sidecar,
                dead: owner.dead,
                lapsed: sight.lapsed,
                // Whoever does not answer, as often as is explored: what a plan and a quorum can hold up is only less.
                replaceable: sight.replaceable,
            },
            ledger: (**self.ledgers.get(sight.ledger)).clone(),
            intent: sight.intent.then(|| Intent { kind: self.config.kind, node: "n".to_owned() }),
            give_up: match sight.wish {
                Wish::Finish => None,
                Wish::Cancel => Some(AbortReason::Cancelled),
                Wish::Deadline => Some(AbortReason::DeadlineExceeded),
                Wish::Withdraw => Some(AbortReason::Withdrawn),
            },
            source: self.side(sight, sight.source.as_ref()),
            target: self.side(sight, sight.target.as_ref()),
            trial: false,
            routed_to: (sight.routed != NOWHERE).then(|| names::uid(sight.routed)),
            lingering: sight.lingering,
            leading: true,
            limits: Limits {
                handover: if self.config.with_state { Handover::IfCapable } else { Handover::Never },
                state_ttl: 1,
                freeze: 1,
                retention: 0,
            },
            replicas: ReplicasSeen {
                holders: sight
                    .replica
                    .map(|replica| (names::holder().uid, HolderSeen::Sealed(replica.answer())))
                    .into_iter()
                    .collect(),
                ..ReplicasSeen::default()
            },
        }
    }

    /// One side of a move. An owner that is fenced, silent and without a lease is as good as dead.
    fn side(&self, sight: &Sight, seen: Option<&Seen>) -> Incarnation {
        let owns = seen.is_some_and(|seen| sight.owner.is_some_and(|owner| owner.slot == seen.slot));
        let silent = seen.is_some_and(|seen| !seen.answers);
        let incarnation = self.incarnation(seen);
        Incarnation {
            dead: incarnation.dead || (owns && silent && sight.fenced && sight.lapsed),
            ..incarnation
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

    pub(crate) fn report(&self, slot: Slot, pod: &Pod, serving: bool) -> Report {
        let record: &Record = self.records.get(pod.record);
        let busy = pod.busy.and_then(|busy| match &**self.messages.get(busy.message) {
            Message::Freeze(command) => Some((CommandKind::Freeze, command.epoch)),
            Message::Import(command) => Some((CommandKind::Import, command.epoch)),
            Message::Activate(_)
            | Message::Thaw(_)
            | Message::Forward(_)
            | Message::HandOn(_)
            | Message::Renew(_)
            | Message::LetGo(_)
            | Message::Api(..) => None,
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
                    Mode::Ended => WorkerState::Ended,
                },
                can_hand_over: Some(true),
                vsn: String::new(),
                seq: None,
                foreign_contract: None,
            },
            serving,
            serving_for_milliseconds: None,
            frozen_for_milliseconds: None,
            busy: busy.map(|(command, epoch)| Busy { command, epoch, milliseconds: 0 }),
            tried: None,
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
            lease: self.config.leased.then(LeaseView::default),
            replicas: self.config.replicated.then(|| ReplicaView {
                generation: Some(1),
                complete: true,
                holders: Vec::new(),
            }),
            checkpoint: None,
        }
    }
}

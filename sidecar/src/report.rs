//! What this sidecar says of itself.

use processhub_protocol::contract;
use processhub_protocol::fence::Role;
use processhub_protocol::wire::{CheckpointView, Report, VERSION, WorkerState, WorkerView};

use crate::sidecar::{Live, Seen, Sidecar};

impl Sidecar {
    /// The report as of now, with a fresh challenge.
    #[must_use]
    pub fn report(&self) -> Report {
        let busy = self.commands.busy(self.clock.milliseconds());
        let held = self.hold.held() as u64;
        let live = self.live();
        // Under the lock of what is in memory, so that role and `serving` belong together.
        let stored = self.fence.stored();
        let now = self.clock.milliseconds();
        let since = |moment: Option<u64>| moment.map(|moment| now.saturating_sub(moment));
        let record = stored.record;
        let frozen = matches!(record.role, Role::Frozen { .. });
        Report {
            protocol: VERSION,
            process: record.process,
            pod: record.pod,
            record: record.record,
            floor: record.floor.epoch,
            challenge: self.challenge(),
            worker: view(&live, &record.role, self.config.gated),
            serving: live.serving_since.is_some(),
            serving_for_milliseconds: since(live.serving_since),
            frozen_for_milliseconds: since(live.frozen_since.filter(|_| frozen)),
            role: record.role,
            busy,
            tried: live.tried,
            failure: live.failure.clone(),
            held,
            blackout_microseconds: live.blackout_microseconds,
            stopping: live.stopping > 0,
            lost: stored.lost,
            checkpoint: Some(self.checkpoint_view(&live)),
            lease: self.lease_view(&live),
            replicas: self.replica_view(),
        }
    }
}

impl Sidecar {
    fn checkpoint_view(&self, live: &Live) -> CheckpointView {
        let class = self.config.checkpoint.class;
        let age = self.checkpoints.current().map(|at| at.elapsed().as_millis());
        CheckpointView {
            class,
            live: match live.worker {
                Seen::Contract(_) => Some(live.captures_live()),
                Seen::Plain => Some(false),
                Seen::Nothing => None,
            },
            current: !live.exposure.beyond(self.checkpoints.seq()),
            age_milliseconds: age.map(|age| u64::try_from(age).unwrap_or(u64::MAX)),
        }
    }
}

fn view(live: &Live, role: &Role, gated: bool) -> WorkerView {
    if live.ended {
        return WorkerView { state: WorkerState::Ended, ..WorkerView::default() };
    }
    if gated && matches!(role, Role::Standby | Role::Delivered { .. }) {
        return WorkerView { state: WorkerState::Gated, ..WorkerView::default() };
    }
    let Live { can_hand_over, foreign_contract, .. } = *live;
    // A state that is kept came from a worker that can hand over; it may not have answered since this sidecar's start.
    let can_hand_over = can_hand_over.or(matches!(role, Role::Active { kept: Some(_), .. }).then_some(true));
    match &live.worker {
        Seen::Nothing => {
            let state = WorkerState::Unreachable;
            WorkerView { state, can_hand_over, foreign_contract, ..WorkerView::default() }
        }
        // It knows no states of its own: it is what its pod may do.
        Seen::Plain => {
            let state = match role {
                Role::Standby | Role::Delivered { .. } => WorkerState::Standby,
                Role::Active { .. } => WorkerState::Active,
                Role::Frozen { .. } | Role::Forwarding { .. } | Role::Retired { .. } => {
                    WorkerState::Suspended
                }
            };
            WorkerView { state, can_hand_over, foreign_contract, ..WorkerView::default() }
        }
        Seen::Contract(info) => WorkerView {
            state: match info.state {
                contract::WorkerState::Standby => WorkerState::Standby,
                contract::WorkerState::Active => WorkerState::Active,
                contract::WorkerState::Suspended => WorkerState::Suspended,
            },
            can_hand_over,
            vsn: info.vsn.clone(),
            seq: Some(info.seq),
            foreign_contract,
        },
    }
}

//! What the worker is due, from the record and from what the worker says of itself. Pure.

use processhub_protocol::contract::{Info, WorkerState};
use processhub_protocol::fence::Role;
use processhub_protocol::id::Epoch;

/// What is to be done with the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// Nothing: it is what the record says, or only a command may change it.
    Leave,
    /// It serves at this epoch: let requests flow.
    Serve(Epoch),
    /// Tell it to go on at this epoch; only its answer lets requests flow.
    Resume(Epoch),
    /// It is in Standby and the record says Active: give it the kept state, if there is one, and activate it.
    Activate(Epoch),
    /// It is in Standby and has lost the state that was delivered: give it again.
    Deliver(Epoch),
}

/// What is due. `fenced` says that a freeze has stopped the flow; `delivered` that this very start of the worker holds the
/// state of the record, as far as this sidecar knows.
#[must_use]
pub fn due(role: &Role, fenced: bool, info: &Info, delivered: bool) -> Duty {
    match role {
        Role::Standby | Role::Frozen { .. } | Role::Forwarding { .. } | Role::Retired { .. } => Duty::Leave,
        Role::Delivered { epoch, .. } => match info.state {
            // It has seen this epoch: that was our `apply`, before this sidecar's last start.
            WorkerState::Standby if delivered || info.epoch >= *epoch => Duty::Leave,
            WorkerState::Standby => Duty::Deliver(*epoch),
            WorkerState::Active | WorkerState::Suspended => Duty::Leave,
        },
        // A failed or unfinished freeze is ended by the operator alone (rule 6).
        Role::Active { .. } if fenced => Duty::Leave,
        Role::Active { epoch, .. } => match info.state {
            WorkerState::Standby => Duty::Activate(*epoch),
            WorkerState::Active if info.epoch == *epoch => Duty::Serve(*epoch),
            // The record is ahead: a thaw that this worker has not heard of. A worker that has seen a higher epoch was
            // being frozen when this sidecar died.
            WorkerState::Active | WorkerState::Suspended if info.epoch < *epoch => Duty::Resume(*epoch),
            WorkerState::Active | WorkerState::Suspended => Duty::Leave,
        },
    }
}

#[cfg(test)]
mod tests {
    use processhub_protocol::contract::CaptureMode;
    use processhub_protocol::id::StateId;
    use processhub_protocol::wire::Peer;

    use super::*;

    fn info(state: WorkerState, epoch: u64) -> Info {
        Info {
            contract: 1,
            instance: "i".into(),
            vsn: String::new(),
            state,
            epoch: Epoch(epoch),
            seq: 0,
            capture: CaptureMode::Suspended,
            delta_from: Vec::new(),
            accepts_from: Vec::new(),
            load: 0,
            consent: false,
        }
    }

    fn state() -> StateId {
        StateId { seq: 1, digest: "d".into(), bytes: 0 }
    }

    #[test]
    fn only_the_record_makes_a_worker_serve() {
        let to = Peer::of_this_hub("t".into(), "1.2.3.4".into(), 1);
        for role in [
            Role::Standby,
            Role::Frozen { epoch: Epoch(3), state: Some(state()), kept: None },
            Role::Forwarding { epoch: Epoch(3), state: None, to },
            Role::Retired { epoch: Epoch(3) },
        ] {
            for worker in [WorkerState::Standby, WorkerState::Active, WorkerState::Suspended] {
                for epoch in [0, 3, 9] {
                    assert_eq!(due(&role, false, &info(worker, epoch), false), Duty::Leave, "{role:?}");
                }
            }
        }
    }

    #[test]
    fn an_owner_is_put_into_its_role() {
        let role = Role::Active { epoch: Epoch(3), kept: None };
        let due = |state, epoch| due(&role, false, &info(state, epoch), false);
        assert_eq!(due(WorkerState::Active, 3), Duty::Serve(Epoch(3)));
        assert_eq!(due(WorkerState::Standby, 0), Duty::Activate(Epoch(3)));
        assert_eq!(due(WorkerState::Standby, 3), Duty::Activate(Epoch(3)));
        assert_eq!(
            due(WorkerState::Suspended, 2),
            Duty::Resume(Epoch(3)),
            "a thaw was recorded and not told"
        );
        assert_eq!(due(WorkerState::Active, 2), Duty::Resume(Epoch(3)));
        assert_eq!(due(WorkerState::Suspended, 4), Duty::Leave, "rule 6: a freeze was under way");
        assert_eq!(due(WorkerState::Active, 4), Duty::Leave);
    }

    #[test]
    fn a_freeze_is_left_to_the_operator() {
        let role = Role::Active { epoch: Epoch(3), kept: None };
        for worker in [WorkerState::Standby, WorkerState::Active, WorkerState::Suspended] {
            assert_eq!(due(&role, true, &info(worker, 3), false), Duty::Leave);
        }
    }

    #[test]
    fn what_was_delivered_is_delivered_again_to_a_new_start_only() {
        let role = Role::Delivered { epoch: Epoch(3), state: state() };
        let due = |state, epoch, delivered| due(&role, false, &info(state, epoch), delivered);
        assert_eq!(due(WorkerState::Standby, 0, false), Duty::Deliver(Epoch(3)));
        assert_eq!(due(WorkerState::Standby, 0, true), Duty::Leave);
        assert_eq!(due(WorkerState::Standby, 3, false), Duty::Leave);
        assert_eq!(due(WorkerState::Active, 3, false), Duty::Leave);
    }
}

//! What can happen, and in which words a trace tells it.

use crate::intern::Id;
use crate::message::Message;
use crate::model::Model;
use crate::names::Slot;

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// An operator observes, decides and acts.
    Operator {
        /// The one whose ledger lags behind.
        lagging: bool,
        /// The effect, by number.
        effect: Id,
        /// Whether the API server gets it only later.
        late: bool,
    },
    /// The lagging operator reads the ledger again.
    Refresh,
    /// The leader sees a pod, and will decide on that later.
    Glimpse(Slot),
    /// A delayed API call arrives.
    Arrives(Id),
    /// A command is delivered to a sidecar.
    Delivered(Id),
    /// The capture is done.
    FreezeDone(Slot),
    /// The capture failed.
    FreezeFails(Slot),
    /// The bytes of an import have arrived.
    Fetched(Slot),
    /// The import is done.
    ImportDone(Slot),
    /// The import failed.
    ImportFails(Slot),
    /// A client's write is acknowledged.
    Write(Slot),
    /// The keeper persists what the worker holds.
    Checkpoint(Slot),
    /// The sidecar starts anew.
    SidecarRestarts(Slot),
    /// The worker starts anew.
    WorkerRestarts(Slot),
    /// The node goes down.
    Down(Slot),
    /// The node comes back up.
    Up(Slot),
    /// It is proven that the pod never runs again.
    Proven(Slot),
    /// A machine declared dead comes back nevertheless.
    Returns(Slot),
    /// The volume is lost, and the pod starts anew without it.
    Wiped(Slot),
    /// The kubelet has ended the worker of a pod that goes, and tells its sidecar.
    WorkerEnds(Slot),
    /// The kubelet has ended the pod.
    Terminated(Slot),
    /// Somebody deletes the pod.
    Evicted(Slot),
    /// Somebody deletes the pod's object by force.
    Forced(Slot),
    /// Somebody cancels the move.
    Cancelled,
    /// The move's deadline passes.
    Expired,
    /// The plan changed its mind.
    Withdrawn,
    /// Somebody clears the migration from the status.
    Edited,
    /// A sidecar thaws itself by a timer (only without rule 6).
    TimerThaws(Slot),
    /// The record reaches the disk after the answer (only without rule 3).
    Flushed(Slot),
    /// Somebody deletes the process; its pods are told to go.
    ProcessDeleted,
    /// An operator tells a pod that its process was deleted.
    LetsGo(Slot),
    /// The operator deletes a pod that the ledger no longer names.
    Collected(Slot),
    /// As much time passes as a lease lasts.
    TimePasses,
    /// A lease ends.
    LeaseEnds(Slot),
    /// The node of a pod is cut off; it runs on.
    Cut(Slot),
    /// It is reached again.
    Healed(Slot),
}

impl Step {
    /// The step in words.
    pub fn words(self, model: &Model) -> String {
        let pod = |slot: Slot| format!("pod u{slot}");
        match self {
            Self::Operator { lagging, effect, late } => {
                let who = if lagging { "the second leader (lagging)" } else { "the leader" };
                let how = if late { " (the API server gets it later)" } else { "" };
                format!("{who}: {}{how}", crate::words::effect(model.effects.get(effect)))
            }
            Self::Refresh => "the second leader reads the ledger".to_owned(),
            Self::Glimpse(slot) => format!("the leader asks {}, and will go by that answer later", pod(slot)),
            Self::Arrives(id) => format!("the API server gets the delayed {}", message(model, id)),
            Self::Delivered(id) => format!("delivered: {}", message(model, id)),
            Self::FreezeDone(slot) => format!("{}: worker suspended and captured, role Frozen", pod(slot)),
            Self::FreezeFails(slot) => {
                format!("{}: the capture fails, the worker stays suspended", pod(slot))
            }
            Self::Fetched(slot) => format!("{}: all bytes of the import have arrived", pod(slot)),
            Self::ImportDone(slot) => format!("{}: state applied, role Delivered", pod(slot)),
            Self::ImportFails(slot) => format!("{}: the import fails", pod(slot)),
            Self::Write(slot) => format!("a client's write is acknowledged by {}", pod(slot)),
            Self::Checkpoint(slot) => format!("{}: checkpoint", pod(slot)),
            Self::SidecarRestarts(slot) => format!("{}: the sidecar restarts", pod(slot)),
            Self::WorkerRestarts(slot) => format!("{}: the worker restarts", pod(slot)),
            Self::Down(slot) => format!("the node of {} goes down", pod(slot)),
            Self::Up(slot) => format!("the node of {} is up again, the pod starts anew", pod(slot)),
            Self::Proven(slot) => format!("{} is proven dead", pod(slot)),
            Self::Returns(slot) => format!("the machine of {} comes back, the pod starts anew", pod(slot)),
            Self::Wiped(slot) => format!("{} loses its volume and starts anew", pod(slot)),
            Self::WorkerEnds(slot) => format!("the kubelet has ended the worker of {}", pod(slot)),
            Self::Terminated(slot) => format!("the kubelet has ended {}", pod(slot)),
            Self::Evicted(slot) => format!("somebody deletes {}", pod(slot)),
            Self::Forced(slot) => {
                format!("somebody deletes the object of {} by force, it still runs", pod(slot))
            }
            Self::Cancelled => "somebody cancels the move".to_owned(),
            Self::Expired => "the move's deadline passes".to_owned(),
            Self::Withdrawn => "the plan no longer wants the move".to_owned(),
            Self::Edited => "somebody clears the migration from the status".to_owned(),
            Self::TimerThaws(slot) => format!("{}: thaws itself by a timer", pod(slot)),
            Self::Flushed(slot) => format!("{}: the record reaches the disk", pod(slot)),
            Self::ProcessDeleted => "somebody deletes the process".to_owned(),
            Self::LetsGo(slot) => format!("the leader lets {} go", pod(slot)),
            Self::TimePasses => "time passes, as much as a lease lasts".to_owned(),
            Self::LeaseEnds(slot) => format!("the lease of {} ends", pod(slot)),
            Self::Cut(slot) => format!("the node of {} is cut off, it runs on", pod(slot)),
            Self::Healed(slot) => format!("the node of {} is reached again", pod(slot)),
            Self::Collected(slot) => {
                format!("the leader deletes {}, which the ledger no longer names", pod(slot))
            }
        }
    }
}

fn message(model: &Model, id: Id) -> String {
    let message: &Message = model.messages.get(id);
    crate::words::message(message)
}

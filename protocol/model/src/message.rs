//! What is in flight: commands as the wire carries them, and API calls that arrive late.

use processhub_protocol::fence::{Floor, Step};
use processhub_protocol::handover::Effect;
use processhub_protocol::ledger::Transition;
use processhub_protocol::wire::{Activate, Addressee, Forward, Freeze, HandOn, Import, LetGo, Renew, Thaw};

use crate::names::{self, Slot};
use crate::state::Versioned;

/// Something in flight. A command may be delivered any number of times, late, in any order or never; an API call
/// arrives at most once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// To the source.
    Freeze(Freeze),
    /// To the target.
    Import(Import),
    /// To the target.
    Activate(Activate),
    /// To the source.
    Thaw(Thaw),
    /// From the target to the source.
    Forward(Forward),
    /// To the source whose worker has to end before the target's starts.
    HandOn(HandOn),
    /// To an owner whose process was deleted.
    LetGo(LetGo),
    /// To an owner that serves by lease.
    Renew(Renew),
    /// To the API server, decided on this ledger.
    Api(Versioned, Effect),
}

impl Message {
    /// The pod that a command is for.
    pub fn to(&self) -> Option<Slot> {
        let to: &Addressee = match self {
            Self::Freeze(command) => &command.to,
            Self::Import(command) => &command.to,
            Self::Activate(command) => &command.to,
            Self::Thaw(command) => &command.to,
            Self::Forward(command) => &command.to,
            Self::HandOn(command) => &command.to,
            Self::LetGo(command) => &command.to,
            Self::Renew(command) => &command.to,
            Self::Api(..) => return None,
        };
        Some(names::slot(&to.pod))
    }

    /// Where the command stands in the order that a sidecar obeys.
    pub fn floor(&self) -> Option<Floor> {
        let (epoch, step) = match self {
            Self::Freeze(command) => (command.epoch, Step::HandOver),
            Self::Import(command) => (command.epoch, Step::HandOver),
            Self::Activate(command) => (command.epoch, Step::TakeOver),
            Self::Thaw(command) => (command.epoch, Step::TakeOver),
            Self::LetGo(command) => (command.epoch, Step::TakeOver),
            Self::Forward(_) | Self::HandOn(_) | Self::Renew(_) | Self::Api(..) => return None,
        };
        Some(Floor { epoch, step })
    }

    /// Every pod that it names, one bit each: such a pod's UID must not be used again.
    pub fn pods(&self) -> u8 {
        let to = self.to().map_or(0, |slot| 1 << slot);
        let others = match self {
            Self::Import(command) => 1 << names::slot(&command.from.pod),
            Self::Activate(command) => {
                command.source.as_ref().map_or(0, |source| 1 << names::slot(&source.pod))
            }
            Self::Forward(command) => 1 << names::slot(&command.peer.pod),
            Self::HandOn(command) => 1 << names::slot(&command.peer.pod),
            Self::Api(_, Effect::DeletePod { uid, .. }) => 1 << names::slot(uid),
            Self::Api(_, Effect::Route(pod) | Effect::Write(Transition::Commit { target: pod, .. })) => {
                1 << names::slot(&pod.uid)
            }
            Self::Api(_, Effect::Write(Transition::Prepare { source: Some(pod), .. })) => {
                1 << names::slot(&pod.uid)
            }
            Self::Freeze(_) | Self::Thaw(_) | Self::LetGo(_) | Self::Renew(_) | Self::Api(..) => 0,
        };
        to | others
    }
}

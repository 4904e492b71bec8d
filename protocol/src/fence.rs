//! The sidecar's durable record, and what each command does to it.
//!
//! A command is judged twice: before its work, by `judge_*`, and again when the work is done and the record is about
//! to be written, by `*_done`, because a thaw may have overtaken a freeze meanwhile. The sidecar writes the returned
//! record to disk before it answers (rule 3).

use serde::{Deserialize, Serialize};

use crate::id::{BootId, Epoch, PodUid, ProcessUid, RecordId, StateId};
use crate::replica::Replicate;
use crate::rules::{Rule, enforced};
use crate::wire::{
    Activate, Addressee, Challenge, CommandKind, Forward, Freeze, Grant, HandOn, Import, LetGo, Peer,
    Refusal, RefusalCode, Renew, Thaw, Trial,
};

/// What a sidecar must never forget. Written with a checksum, synced, before any answer that depends on it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Minted by the first boot.
    pub record: RecordId,
    /// The process that this pod was created for.
    pub process: ProcessUid,
    /// This pod.
    pub pod: PodUid,
    /// The epoch that this pod was created with; it obeys no lower one.
    pub born: Epoch,
    /// The last command that was obeyed.
    pub floor: Floor,
    /// What this incarnation may do.
    pub role: Role,
}

/// The last obeyed command. Commands are ordered by epoch, and within one epoch by the order of the protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Floor {
    /// Its epoch.
    pub epoch: Epoch,
    /// Which it was.
    pub step: Step,
}

/// The order of commands within one epoch, for one sidecar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Step {
    /// None yet.
    #[default]
    Nothing,
    /// Source: freeze. Target: import.
    HandOver,
    /// Source: forward. Target: activate. After an abort: thaw.
    TakeOver,
}

/// What an incarnation may do.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "name")]
pub enum Role {
    /// Nothing: it was started and holds no state.
    Standby,
    /// Holds a state on disk (and, unless gated, in its worker) and waits to be activated.
    #[serde(rename_all = "camelCase")]
    Delivered {
        /// Epoch of the move.
        epoch: Epoch,
        /// What it holds.
        state: StateId,
    },
    /// Acknowledges requests.
    #[serde(rename_all = "camelCase")]
    Active {
        /// At this epoch.
        epoch: Epoch,
        /// The newest state on disk; a worker that crashes is given this.
        kept: Option<StateId>,
    },
    /// Acknowledges nothing, holds requests, has its state sealed.
    #[serde(rename_all = "camelCase")]
    Frozen {
        /// Epoch of the move.
        epoch: Epoch,
        /// The sealed state on disk; `None` when it was sealed without a capture.
        state: Option<StateId>,
        /// The newest state on disk before.
        kept: Option<StateId>,
    },
    /// Its process was deleted: it acknowledges nothing, holds nothing and passes nothing on, for good.
    #[serde(rename_all = "camelCase")]
    Retired {
        /// The epoch at which it was let go.
        epoch: Epoch,
    },
    /// Its successor serves; it passes on what it held and what still arrives.
    #[serde(rename_all = "camelCase")]
    Forwarding {
        /// The successor's epoch.
        epoch: Epoch,
        /// The sealed state, still there for a recovery.
        state: Option<StateId>,
        /// The successor.
        to: Peer,
    },
}

/// Whether there is anything to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The command is in effect already: give the same answer.
    InEffect,
    /// Do the work, then ask the matching `*_done`.
    Proceed,
}

/// The sidecar's boot and its boot-time clock now, in milliseconds: what a challenge is judged by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Clock {
    /// This start of the sidecar.
    pub boot: BootId,
    /// A clock that goes on while the machine is suspended.
    pub milliseconds: u64,
}

type Judged<T> = Result<T, Refusal>;

impl Record {
    /// The record of a first boot.
    #[must_use]
    pub fn first(record: RecordId, process: ProcessUid, pod: PodUid, born: Epoch) -> Self {
        Self { record, process, pod, born, floor: Floor::default(), role: Role::Standby }
    }

    /// The record of an owner at `epoch` whose state was captured while it serves and is on disk: from now on a worker
    /// that crashes is given this one. Not a command: floor and epoch stay as they are.
    ///
    /// # Errors
    /// A role other than Active at `epoch`: the capture was overtaken and is to be thrown away; so is one with a lower number
    /// than what is kept, which is not a later state of the same process.
    pub fn checkpoint_done(&self, epoch: Epoch, state: StateId) -> Judged<Self> {
        match &self.role {
            Role::Active { epoch: now, kept } if *now == epoch => {
                if let Some(kept) = kept.as_ref().filter(|kept| kept.seq > state.seq) {
                    let message =
                        format!("checkpoint: `seq` {} is below {}, which is kept", state.seq, kept.seq);
                    return Err(self.refuse(RefusalCode::WrongState, message));
                }
                Ok(Self { role: Role::Active { epoch, kept: Some(state) }, ..self.clone() })
            }
            role => Err(self.refuse(
                RefusalCode::WrongRole,
                format!(
                    "checkpoint: it was captured while Active at {epoch}, and the role is {}",
                    role.name()
                ),
            )),
        }
    }

    /// Judges a freeze before its work.
    ///
    /// # Errors
    /// A refusal: wrong addressee, stale epoch, or a role other than Active.
    pub fn judge_freeze(&self, command: &Freeze) -> Judged<Verdict> {
        self.judge_addressee(&command.to)?;
        if let Role::Frozen { epoch, .. } = &self.role
            && *epoch == command.epoch
        {
            return Ok(Verdict::InEffect);
        }
        self.judge_floor(CommandKind::Freeze, command.epoch, Step::HandOver)?;
        match self.role {
            Role::Active { .. } => Ok(Verdict::Proceed),
            _ => Err(self.wrong_role(CommandKind::Freeze, "Active")),
        }
    }

    /// The record once the capture is on disk.
    ///
    /// # Errors
    /// As [`Record::judge_freeze`]: a later command overtook the capture, which is to be thrown away.
    pub fn freeze_done(&self, command: &Freeze, state: Option<StateId>) -> Judged<Self> {
        self.judge_freeze(command)?;
        let Role::Active { kept, .. } = &self.role else {
            return Err(self.wrong_role(CommandKind::Freeze, "Active"));
        };
        let role = Role::Frozen { epoch: command.epoch, state, kept: kept.clone() };
        Ok(self.obeying(command.epoch, Step::HandOver, role))
    }

    /// Judges an import before its work.
    ///
    /// # Errors
    /// A refusal: wrong addressee, stale epoch, an epoch below the one this pod was created with, or a role other
    /// than Standby.
    pub fn judge_import(&self, command: &Import) -> Judged<Verdict> {
        self.judge_addressee(&command.to)?;
        if let Role::Delivered { epoch, state } = &self.role
            && *epoch == command.epoch
            && *state == command.state
        {
            return Ok(Verdict::InEffect);
        }
        self.judge_floor(CommandKind::Import, command.epoch, Step::HandOver)?;
        match self.role {
            Role::Standby => Ok(Verdict::Proceed),
            _ => Err(self.wrong_role(CommandKind::Import, "Standby")),
        }
    }

    /// Judges a trial. It is not obeyed: nothing of it is in the record.
    ///
    /// # Errors
    /// A refusal: wrong addressee, stale epoch, wrong role.
    pub fn judge_trial(&self, command: &Trial) -> Judged<Verdict> {
        self.judge_addressee(&command.to)?;
        self.judge_floor(CommandKind::Trial, command.epoch, Step::HandOver)?;
        match self.role {
            Role::Standby => Ok(Verdict::Proceed),
            _ => Err(self.wrong_role(CommandKind::Trial, "Standby")),
        }
    }

    /// The record once the state is applied and on disk.
    ///
    /// # Errors
    /// As [`Record::judge_import`].
    pub fn import_done(&self, command: &Import) -> Judged<Self> {
        self.judge_import(command)?;
        let role = Role::Delivered { epoch: command.epoch, state: command.state.clone() };
        Ok(self.obeying(command.epoch, Step::HandOver, role))
    }

    /// Judges an activation. There is no work before its record: the record comes first, then the worker.
    ///
    /// # Errors
    /// A refusal: wrong addressee, stale epoch or grant, wrong record, wrong role, or a state that is not held.
    pub fn judge_activate(&self, command: &Activate, clock: &Clock) -> Judged<Verdict> {
        self.judge_addressee(&command.to)?;
        if let Role::Active { epoch, .. } = &self.role
            && *epoch == command.epoch
        {
            return Ok(Verdict::InEffect);
        }
        self.judge_floor(CommandKind::Activate, command.epoch, Step::TakeOver)?;
        self.judge_grant(&command.grant, clock)?;
        match (&self.role, &command.state) {
            (Role::Standby, None) => Ok(Verdict::Proceed),
            (Role::Delivered { state, .. }, Some(expected)) if state == expected => Ok(Verdict::Proceed),
            // The recovery was committed as one of nothing, while its import was coming to its end after all: what
            // arrived is of this very epoch and better than nothing.
            (Role::Delivered { epoch, .. }, None) if *epoch == command.epoch => Ok(Verdict::Proceed),
            (Role::Standby | Role::Delivered { .. }, expected) => Err(self.refuse(
                RefusalCode::WrongState,
                format!(
                    "activate: `state` is {}, but this pod holds another one; empty or other state never passes as \
                     owner: recover the process at a new epoch",
                    expected.as_ref().map_or_else(|| "none".to_owned(), |s| format!("seq {}", s.seq)),
                ),
            )),
            _ => Err(self.wrong_role(CommandKind::Activate, "Standby or Delivered")),
        }
    }

    /// The record of an activation.
    ///
    /// # Errors
    /// As [`Record::judge_activate`].
    pub fn activate_done(&self, command: &Activate, clock: &Clock) -> Judged<Self> {
        self.judge_activate(command, clock)?;
        let kept = match &self.role {
            Role::Delivered { state, .. } => Some(state.clone()),
            Role::Standby
            | Role::Active { .. }
            | Role::Frozen { .. }
            | Role::Forwarding { .. }
            | Role::Retired { .. } => None,
        };
        let role = Role::Active { epoch: command.epoch, kept };
        Ok(self.obeying(command.epoch, Step::TakeOver, role))
    }

    /// Judges a thaw. It is accepted while Active too: it raises the floor above a freeze that is still on its way.
    ///
    /// # Errors
    /// A refusal: wrong addressee, stale epoch or grant, wrong record, or a role other than Active and Frozen.
    pub fn judge_thaw(&self, command: &Thaw, clock: &Clock) -> Judged<Verdict> {
        self.judge_addressee(&command.to)?;
        if let Role::Active { epoch, .. } = &self.role
            && *epoch == command.epoch
        {
            return Ok(Verdict::InEffect);
        }
        self.judge_floor(CommandKind::Thaw, command.epoch, Step::TakeOver)?;
        self.judge_grant(&command.grant, clock)?;
        match self.role {
            Role::Active { .. } | Role::Frozen { .. } => Ok(Verdict::Proceed),
            Role::Forwarding { .. } if !enforced(Rule::SealedStaysSealed) => Ok(Verdict::Proceed),
            _ => Err(self.wrong_role(CommandKind::Thaw, "Frozen or Active")),
        }
    }

    /// The record of a thaw.
    ///
    /// # Errors
    /// As [`Record::judge_thaw`].
    pub fn thaw_done(&self, command: &Thaw, clock: &Clock) -> Judged<Self> {
        self.judge_thaw(command, clock)?;
        let kept = match &self.role {
            Role::Active { kept, .. } => kept.clone(),
            Role::Frozen { state, kept, .. } => state.clone().or_else(|| kept.clone()),
            Role::Forwarding { state, .. } => state.clone(),
            Role::Standby | Role::Delivered { .. } | Role::Retired { .. } => None,
        };
        Ok(self.obeying(command.epoch, Step::TakeOver, Role::Active { epoch: command.epoch, kept }))
    }

    /// Judges a renewal of the lease: only who serves at that very epoch has one.
    ///
    /// # Errors
    /// A refusal: wrong addressee, stale grant, wrong record, or a role other than Active at this epoch.
    pub fn judge_renew(&self, command: &Renew, clock: &Clock) -> Judged<()> {
        self.judge_addressee(&command.to)?;
        self.judge_serving(CommandKind::Renew, command.epoch, &command.grant, clock)
    }

    /// Judges the operator's word of who holds the replicas: only who serves at that very epoch has any.
    ///
    /// # Errors
    /// A refusal: wrong addressee, stale grant, wrong record, or a role other than Active at this epoch.
    pub fn judge_replicate(&self, command: &Replicate, clock: &Clock) -> Judged<()> {
        self.judge_addressee(&command.to)?;
        self.judge_serving(CommandKind::Replicate, command.epoch, &command.grant, clock)
    }

    /// Judges a grant that is for who serves at that very epoch, beside any other command.
    fn judge_serving(&self, command: CommandKind, at: Epoch, grant: &Grant, clock: &Clock) -> Judged<()> {
        match self.role {
            Role::Active { epoch, .. } if epoch == at => self.judge_grant(grant, clock),
            _ => Err(self.wrong_role(command, "Active at that epoch")),
        }
    }

    /// Judges the successor's call to forward to it.
    ///
    /// # Errors
    /// A refusal: wrong addressee, an epoch that is not above the one this pod served at, or a role other than Frozen.
    pub fn judge_forward(&self, command: &Forward) -> Judged<Verdict> {
        self.judge_addressee(&command.to)?;
        match &self.role {
            // The same pod: how it is reached is told by the operator and by itself, and its own word counts.
            Role::Forwarding { epoch, to, .. } if *epoch == command.epoch && to.pod == command.peer.pod => {
                Ok(Verdict::InEffect)
            }
            Role::Forwarding { epoch, .. } | Role::Frozen { epoch, .. }
                if command.epoch < *epoch && enforced(Rule::ForwardUpwards) =>
            {
                Err(self.refuse(
                    RefusalCode::StaleEpoch,
                    format!(
                        "forward: `epoch` {} is below {epoch}; forwarding goes only upwards",
                        command.epoch
                    ),
                ))
            }
            Role::Frozen { .. } | Role::Forwarding { .. } => Ok(Verdict::Proceed),
            Role::Standby | Role::Delivered { .. } | Role::Active { .. } | Role::Retired { .. } => {
                Err(self.wrong_role(CommandKind::Forward, "Frozen or Forwarding"))
            }
        }
    }

    /// The record of a forward.
    ///
    /// # Errors
    /// As [`Record::judge_forward`].
    pub fn forward_done(&self, command: &Forward) -> Judged<Self> {
        self.judge_forward(command)?;
        let state = self.sealed().cloned();
        let role = Role::Forwarding { epoch: command.epoch, state, to: command.peer.clone() };
        Ok(self.obeying(command.epoch, Step::TakeOver, role))
    }

    /// Judges the operator's call to hand on to a successor that does not serve yet: a forwarding as any other.
    ///
    /// # Errors
    /// As [`Record::judge_forward`].
    pub fn judge_hand_on(&self, command: &HandOn) -> Judged<Verdict> {
        self.judge_forward(&command.forward())
    }

    /// The record of a hand-on.
    ///
    /// # Errors
    /// As [`Record::judge_hand_on`].
    pub fn hand_on_done(&self, command: &HandOn) -> Judged<Self> {
        self.forward_done(&command.forward())
    }

    /// Judges the operator's word that the process is no more.
    ///
    /// # Errors
    /// A refusal: wrong addressee or stale epoch. Every role may be let go of.
    pub fn judge_let_go(&self, command: &LetGo) -> Judged<Verdict> {
        self.judge_addressee(&command.to)?;
        if matches!(self.role, Role::Retired { .. }) {
            return Ok(Verdict::InEffect);
        }
        self.judge_floor(CommandKind::LetGo, command.epoch, Step::TakeOver)?;
        Ok(Verdict::Proceed)
    }

    /// The record of a process that is no more.
    ///
    /// # Errors
    /// As [`Record::judge_let_go`].
    pub fn let_go_done(&self, command: &LetGo) -> Judged<Self> {
        self.judge_let_go(command)?;
        Ok(self.obeying(command.epoch, Step::TakeOver, Role::Retired { epoch: command.epoch }))
    }

    /// The state that may be fetched from here at `epoch`: only a sealed one, and not by a move older than the seal.
    #[must_use]
    pub fn exportable(&self, epoch: Epoch) -> Option<&StateId> {
        match &self.role {
            Role::Frozen { epoch: sealed, state, .. } | Role::Forwarding { epoch: sealed, state, .. }
                if epoch >= *sealed =>
            {
                state.as_ref()
            }
            _ => None,
        }
    }

    /// The sealed state, if any.
    #[must_use]
    pub fn sealed(&self) -> Option<&StateId> {
        match &self.role {
            Role::Frozen { state, .. } | Role::Forwarding { state, .. } => state.as_ref(),
            Role::Standby | Role::Delivered { .. } | Role::Active { .. } | Role::Retired { .. } => None,
        }
    }

    fn obeying(&self, epoch: Epoch, step: Step, role: Role) -> Self {
        Self { floor: self.floor.max(Floor { epoch, step }), role, ..self.clone() }
    }

    fn judge_addressee(&self, to: &Addressee) -> Judged<()> {
        if to.process == self.process && to.pod == self.pod {
            return Ok(());
        }
        Err(self.refuse(
            RefusalCode::WrongAddressee,
            format!(
                "`to` names process {} in pod {}, this is process {} in pod {}; read the pod again",
                to.process, to.pod, self.process, self.pod
            ),
        ))
    }

    fn judge_floor(&self, command: CommandKind, epoch: Epoch, step: Step) -> Judged<()> {
        let fresh = Floor { epoch, step } > self.floor && epoch >= self.born;
        if fresh || !enforced(Rule::Floor) {
            return Ok(());
        }
        Err(self.refuse(
            RefusalCode::StaleEpoch,
            format!(
                "{command:?}: `epoch` {epoch} is not above {} (this pod was created with {}); read the process again",
                self.floor.epoch, self.born
            ),
        ))
    }

    fn judge_grant(&self, grant: &Grant, clock: &Clock) -> Judged<()> {
        if grant.record != self.record && enforced(Rule::RecordIdentity) {
            return Err(self.refuse(
                RefusalCode::WrongRecord,
                format!(
                    "`grant.record` is {}, this pod's is {}: its volume was lost; recover the process at a new epoch",
                    grant.record, self.record
                ),
            ));
        }
        if !grant.challenge.fresh(clock, grant.valid_milliseconds) && enforced(Rule::ChallengedGrant) {
            return Err(self.refuse(
                RefusalCode::StaleGrant,
                "`grant` answers a challenge of another boot, or came too late; take the challenge of the newest report"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    fn wrong_role(&self, command: CommandKind, wanted: &str) -> Refusal {
        self.refuse(
            RefusalCode::WrongRole,
            format!("{command:?} needs role {wanted}, this pod is {}", self.role.name()),
        )
    }

    fn refuse(&self, code: RefusalCode, message: String) -> Refusal {
        Refusal { code, message, floor: self.floor.epoch }
    }
}

impl Role {
    /// The epoch at which it acknowledges requests, if it does.
    #[must_use]
    pub fn active(&self) -> Option<Epoch> {
        match self {
            Self::Active { epoch, .. } => Some(*epoch),
            Self::Standby
            | Self::Delivered { .. }
            | Self::Frozen { .. }
            | Self::Forwarding { .. }
            | Self::Retired { .. } => None,
        }
    }

    /// Its name, for messages and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Standby => "Standby",
            Self::Delivered { .. } => "Delivered",
            Self::Active { .. } => "Active",
            Self::Frozen { .. } => "Frozen",
            Self::Forwarding { .. } => "Forwarding",
            Self::Retired { .. } => "Retired",
        }
    }
}

impl Challenge {
    /// Whether it was issued by this boot, at most `valid` milliseconds ago.
    #[must_use]
    pub fn fresh(&self, clock: &Clock, valid: u64) -> bool {
        self.boot == clock.boot
            && clock.milliseconds.checked_sub(self.issued_milliseconds).is_some_and(|age| age <= valid)
    }
}

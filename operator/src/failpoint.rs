//! Failpoints: every effect of the process loop passes through one, so that a test can end the operator beside any of
//! them, or take the answer of any of them away.
//!
//! `before` and `after` end the operator's own process at once, as `kill -9` would: no destructor, no Lease given
//! back. `lost` lets the effect happen, throws its answer away and goes on as after a time-out. An armed failpoint
//! fires once.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};

use processhub_protocol::handover::{Effect, Side};
use processhub_protocol::ledger::Transition;

use crate::call::CallError;

macro_rules! points {
    ($($(#[$doc:meta])* $variant:ident = $text:literal),+ $(,)?) => {
        /// An effect of the operator that a failpoint can be put at.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Point { $($(#[$doc])* $variant),+ }

        impl Point {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The stable name, as it stands on the command line.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }
    };
}

points! {
    /// The write that begins a move.
    Prepare = "prepare",
    /// The write that gives the process to the target.
    Commit = "commit",
    /// The write that begins the undo.
    Abort = "abort",
    /// The write that ends the move.
    End = "end",
    /// The write that ends the renewals of an owner's lease.
    Fence = "fence",
    /// The write that begins them again.
    Unfence = "unfence",
    /// The write that chooses who holds the replicas.
    ChooseReplicas = "choose-replicas",
    /// The write that forgets the holders before.
    SettleReplicas = "settle-replicas",
    /// The command that tells an owner of its holders.
    Replicate = "replicate",
    /// The command to the holders to refuse what is older, and to say what they have.
    SealReplicas = "seal-replicas",
    /// The command that renews an owner's lease.
    Renew = "renew",
    /// The creation of the target's pod.
    CreatePod = "create-pod",
    /// The command to the target to try a copy of the state.
    Trial = "trial",
    /// The command to the source to freeze.
    Freeze = "freeze",
    /// The command to the target to import.
    Import = "import",
    /// The command to the target to serve.
    Activate = "activate",
    /// The command to the source to serve again.
    Thaw = "thaw",
    /// The command to a committed cold swap's source to forward, before it ends.
    HandOn = "hand-on",
    /// The write of the stable address.
    Route = "route",
    /// A live read of a pod.
    ReadLive = "read-live",
    /// The deletion of the source's pod.
    DeleteSource = "delete-source",
    /// The deletion of the target's pod.
    DeleteTarget = "delete-target",
    /// The command to the owner of a process that was deleted.
    LetGo = "let-go",
    /// The deletion of a pod that belongs to no move any more.
    DeleteOrphan = "delete-orphan",
    /// The removal of the finalizer from a pod that is proven to have ended.
    ReleasePod = "release-pod",
    /// A write of conditions alone.
    WriteConditions = "write-conditions",
    /// The removal of a wish that was followed or refused.
    RemoveWish = "remove-wish",
    /// The creation of a hub's key.
    CreateKey = "create-key",
    /// The creation of a process that its hub asks for.
    CreateProcess = "create-process",
    /// The change of a process to what its hub lists.
    UpdateProcess = "update-process",
    /// The entry of the hub among the owners of a process.
    AdoptProcess = "adopt-process",
    /// The deletion of a process that its hub no longer asks for.
    DeleteProcess = "delete-process",
    /// A write of a hub's status.
    HubStatus = "hub-status",
}

impl From<&Effect> for Point {
    fn from(effect: &Effect) -> Self {
        match effect {
            Effect::Write(Transition::Prepare { .. }) => Self::Prepare,
            Effect::Write(Transition::Commit { .. }) => Self::Commit,
            Effect::Write(Transition::Abort { .. }) => Self::Abort,
            Effect::Write(Transition::End { .. }) => Self::End,
            Effect::Write(Transition::Fence) => Self::Fence,
            Effect::Write(Transition::Unfence) => Self::Unfence,
            Effect::Write(Transition::Replicate { .. }) => Self::ChooseReplicas,
            Effect::Write(Transition::Replicated) => Self::SettleReplicas,
            Effect::Replicate { .. } => Self::Replicate,
            Effect::SealReplicas { .. } => Self::SealReplicas,
            Effect::Renew { .. } => Self::Renew,
            Effect::CreatePod { .. } => Self::CreatePod,
            Effect::Trial { .. } => Self::Trial,
            Effect::Freeze { .. } => Self::Freeze,
            Effect::Import { .. } => Self::Import,
            Effect::Activate { .. } => Self::Activate,
            Effect::Thaw { .. } => Self::Thaw,
            Effect::HandOn { .. } => Self::HandOn,
            Effect::LetGo { .. } => Self::LetGo,
            Effect::Route(_) => Self::Route,
            Effect::ReadLive(_) => Self::ReadLive,
            Effect::DeletePod { side: Side::Source, .. } => Self::DeleteSource,
            Effect::DeletePod { side: Side::Target, .. } => Self::DeleteTarget,
        }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// When an armed failpoint fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// The operator dies instead of doing it.
    Before,
    /// It is done; the operator dies before it knows.
    After,
    /// It is done; the operator lives and never learns the answer.
    Lost,
}

/// A failpoint as written on the command line: `NAME:before`, `NAME:after` or `NAME:lost`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failpoint {
    /// Where.
    pub point: Point,
    /// When.
    pub when: When,
}

impl FromStr for Failpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, when) = text.split_once(':').ok_or_else(|| format!("{text:?} is not NAME:WHEN"))?;
        let point = Point::ALL.iter().copied().find(|point| point.as_str() == name).ok_or_else(|| {
            format!("no failpoint is named {name:?}; `processhub-operator failpoints` lists them")
        })?;
        let when = match when {
            "before" => When::Before,
            "after" => When::After,
            "lost" => When::Lost,
            _ => return Err(format!("{when:?} is none of before, after, lost")),
        };
        Ok(Self { point, when })
    }
}

/// The failpoint of this operator, if one is armed.
#[derive(Debug, Default)]
pub struct Failpoints {
    armed: Option<Failpoint>,
    fired: AtomicBool,
}

impl Failpoints {
    /// With this one armed.
    #[must_use]
    pub fn new(armed: Option<Failpoint>) -> Self {
        Self { armed, fired: AtomicBool::new(false) }
    }

    /// Carries out an effect through its failpoint.
    ///
    /// # Errors
    /// Those of the effect; [`CallError::TimedOut`] when its answer was thrown away.
    pub async fn pass<T>(
        &self,
        point: Point,
        effect: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        if self.fires(point, When::Before) {
            std::process::abort();
        }
        let answer = effect.await;
        if self.fires(point, When::After) {
            std::process::abort();
        }
        if self.fires(point, When::Lost) {
            return Err(CallError::TimedOut { what: point.as_str() });
        }
        answer
    }

    fn fires(&self, point: Point, when: When) -> bool {
        self.armed == Some(Failpoint { point, when }) && !self.fired.swap(true, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use processhub_protocol::id::{Epoch, PodUid, RecordId, StateId};
    use processhub_protocol::ledger::{AbortReason, Kind, MoveResult, PodRef};
    use processhub_protocol::wire::ImportReason;

    fn every_effect() -> Vec<Effect> {
        let pod = PodRef { name: "p-1".into(), uid: "u".into(), node: "n".into() };
        let state = StateId { seq: 1, digest: "d".into(), bytes: 1 };
        let epoch = Epoch(1);
        let delete = |side| Effect::DeletePod { side, uid: PodUid::from("u") };
        vec![
            Effect::Write(Transition::Prepare {
                kind: Kind::Start,
                source: None,
                node: "n".into(),
                with_state: false,
            }),
            Effect::Write(Transition::Commit {
                target: pod.clone(),
                record: RecordId::from("r"),
                state: None,
                lost: None,
                leased: false,
                replicated: false,
            }),
            Effect::Write(Transition::Replicate { holders: Vec::new() }),
            Effect::Write(Transition::Replicated),
            Effect::Replicate { epoch },
            Effect::SealReplicas { epoch },
            Effect::Write(Transition::Fence),
            Effect::Write(Transition::Unfence),
            Effect::Renew { epoch },
            Effect::Write(Transition::Abort { reason: AbortReason::Cancelled }),
            Effect::Write(Transition::End { result: MoveResult::Succeeded }),
            Effect::CreatePod { name: "p-1".into(), node: "n".into(), epoch, gated: false },
            Effect::Trial { epoch },
            Effect::Freeze { epoch, capture: true },
            Effect::Import { epoch, state, reason: ImportReason::Handover, replica: None },
            Effect::Activate { epoch, state: None },
            Effect::Thaw { epoch },
            Effect::HandOn { epoch },
            Effect::LetGo { epoch },
            Effect::Route(pod),
            Effect::ReadLive(Side::Source),
            delete(Side::Source),
            delete(Side::Target),
        ]
    }

    #[test]
    fn every_effect_has_a_failpoint_of_its_name() {
        for effect in every_effect() {
            assert_eq!(Point::from(&effect).as_str(), effect.name());
        }
    }

    #[test]
    fn every_failpoint_can_be_named_on_the_command_line() {
        for point in Point::ALL {
            let parsed: Failpoint = format!("{point}:lost").parse().unwrap();
            assert_eq!(parsed, Failpoint { point: *point, when: When::Lost });
        }
        assert!("commit".parse::<Failpoint>().is_err());
        assert!("nothing:before".parse::<Failpoint>().is_err());
        assert!("commit:sometimes".parse::<Failpoint>().is_err());
    }

    #[tokio::test]
    async fn a_lost_answer_is_lost_once_and_the_effect_has_happened() {
        let failpoints = Failpoints::new(Some("commit:lost".parse().unwrap()));
        let mut done = 0;
        let first = failpoints.pass(Point::Commit, async {
            done += 1;
            Ok(())
        });
        assert!(matches!(first.await, Err(CallError::TimedOut { what: "commit" })));
        assert!(failpoints.pass(Point::Prepare, async { Ok(()) }).await.is_ok());
        assert!(failpoints.pass(Point::Commit, async { Ok(()) }).await.is_ok());
        assert_eq!(done, 1);
    }
}

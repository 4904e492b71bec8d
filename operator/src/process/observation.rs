//! What was seen of one process, and the protocol's view of it. Pure.
//!
//! An observation is carried through a whole reconcile: each effect's own answer is taken in, so that freeze, import,
//! commit and activate follow one another without reading anything again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use processhub_crds::vocabulary::annotation;
use processhub_crds::{HubProcess, HubProcessStatus, ProcessHub};
use processhub_protocol::fence::Role;
use processhub_protocol::handover::{
    Decision, Effect, Handover, Incarnation, Intent, Limits, Pod, PodView, ReplicasSeen, SidecarView,
    Standing, View, Waiting, next, renewal,
};
use processhub_protocol::id::{PodUid, ProcessUid};
use processhub_protocol::lease;
use processhub_protocol::ledger::{AbortReason, Kind, Ledger, Migration, Phase, PodRef, pod_name};
use processhub_protocol::wire::{Report, WorkerState};

use super::incarnation::{Gravity, PodFacts};
use super::proof::Proof;
use super::tenure::Lapsed;
use crate::assignments::Assignment;
use crate::index::{ProcessName, Routed};
use crate::{revision, transfer};

/// How much sooner than it has to be a lease is renewed, in milliseconds: a look that comes a little early is not wasted.
const EARLY: u64 = 500;
/// An owner that was not heard for so long has missed a renewal and what was tried since.
const SILENCE: SignedDuration = SignedDuration::from_millis((lease::RENEWAL + lease::RENEWAL / 2) as i64);
/// What the way of a command may cost beside the worker's own time-outs, in milliseconds.
const WAY_MILLISECONDS: u64 = 1000;

/// Everything that was seen of one process.
#[derive(Clone, Debug)]
pub struct Observation {
    /// The object, at the version that a write will be compared with.
    pub object: HubProcess,
    /// Its hub: that of its owner, or, where that one is gone, the one that it is to be transferred to.
    pub hub: Arc<ProcessHub>,
    /// The hub that its object names, where that is not the owner's, and is there.
    pub destination: Option<Arc<ProcessHub>>,
    /// The ledger in its status.
    pub ledger: Ledger,
    /// All pods that carry the process's name, by name; also those of an older object.
    pub pods: BTreeMap<String, Sighting>,
    /// Names that a live read did not find, since the last thing done.
    pub absent: BTreeSet<String>,
    /// What sidecars answered.
    pub reports: BTreeMap<PodUid, Report>,
    /// Incarnations that are proven dead.
    pub dead: BTreeMap<PodUid, Proof>,
    /// Where the stable address points.
    pub routed_to: Option<PodUid>,
    /// What the planner wants; `None` until it has planned.
    pub assignment: Option<Assignment>,
    /// Whether this operator may act.
    pub leading: bool,
    /// When this was seen.
    pub now: Timestamp,
    /// Why the last effect failed, if it did.
    pub trouble: Option<String>,
    /// When the owner's sidecar last answered.
    pub heard: Option<Timestamp>,
    /// Who holds no lease, and gets none.
    pub lapsed: Lapsed,
    /// Who is to hold the replicas, and what holders said.
    pub replicas: ReplicasSeen,
}

/// A pod as it was seen.
#[derive(Clone, Debug)]
pub struct Sighting {
    /// The pod.
    pub facts: Arc<PodFacts>,
    /// Whether by a live read, after the last thing done.
    pub live: bool,
}

impl Observation {
    /// Namespace and name.
    #[must_use]
    pub fn name(&self) -> ProcessName {
        ProcessName { namespace: self.object.namespace().unwrap_or_default(), name: self.object.name_any() }
    }

    /// UID of the process.
    #[must_use]
    pub fn uid(&self) -> ProcessUid {
        ProcessUid(self.object.uid().unwrap_or_default())
    }

    /// The status; the default for an object that has none yet.
    #[must_use]
    pub fn status(&self) -> HubProcessStatus {
        self.object.status.clone().unwrap_or_default()
    }

    /// For people: the version of a code of the hub.
    #[must_use]
    pub fn label(&self, revision: &str) -> String {
        revision::label(&self.hub, revision)
    }

    /// The hub's word for the version of one of its codes; empty if it has none.
    #[must_use]
    pub fn vsn(&self, revision: &str) -> String {
        revision::vsn(&self.hub, revision)
    }

    /// Name of the code that the owner runs: one that was started before codes had names runs the first that was named.
    #[must_use]
    pub fn runs(&self) -> Option<&str> {
        let owner = self.object.status.as_ref()?.owner.as_ref()?;
        let first = revision::known(&self.hub).first().map(|first| first.name.as_str());
        if owner.revision.is_empty() { first } else { Some(&owner.revision) }
    }

    /// The incarnation that is left by the move; outside one, the owner.
    #[must_use]
    pub fn source(&self) -> Option<&PodRef> {
        match &self.ledger.migration {
            Some(migration) => migration.source.as_ref(),
            None => self.ledger.owner.as_ref().map(|owner| &owner.pod),
        }
    }

    /// The move's target as it was seen; `None` if the name is free or taken by another pod.
    #[must_use]
    pub fn target(&self) -> Option<&Sighting> {
        let migration = self.ledger.migration.as_ref()?;
        let seen = self.pods.get(&migration.target_name)?;
        let ours = seen.facts.process == self.uid() && seen.facts.epoch == migration.epoch;
        let committed = match &migration.phase {
            Phase::Committed { .. } => self.ledger.owner.as_ref().map(|owner| &owner.pod.uid),
            Phase::Prepared | Phase::Aborted { .. } => None,
        };
        (ours && committed.is_none_or(|uid| *uid == seen.facts.uid)).then_some(seen)
    }

    /// UID of the target, once it is known.
    #[must_use]
    pub fn target_uid(&self) -> Option<&PodUid> {
        let migration = self.ledger.migration.as_ref()?;
        match &migration.phase {
            Phase::Committed { .. } => self.ledger.owner.as_ref().map(|owner| &owner.pod.uid),
            Phase::Prepared | Phase::Aborted { .. } => self.target().map(|seen| &seen.facts.uid),
        }
    }

    /// The pod with this UID as it was seen.
    #[must_use]
    pub fn pod(&self, uid: &PodUid) -> Option<&Sighting> {
        self.pods.values().find(|seen| seen.facts.uid == *uid)
    }

    /// The owner's pod as it was seen.
    #[must_use]
    pub fn owner_pod(&self) -> Option<&Sighting> {
        self.pod(&self.ledger.owner.as_ref()?.pod.uid)
    }

    /// What the owner's sidecar answered.
    #[must_use]
    pub fn owner_report(&self) -> Option<&Report> {
        self.reports.get(&self.ledger.owner.as_ref()?.pod.uid)
    }

    /// The address of an incarnation: of its pod, or, where only its object is gone, as the status has it.
    #[must_use]
    pub fn ip(&self, uid: &PodUid) -> Option<String> {
        let status = self.object.status.as_ref();
        let owner = status.and_then(|status| status.owner.as_ref()).filter(|owner| owner.uid == uid.0);
        let source = status
            .and_then(|status| status.migration.as_ref()?.source.as_ref())
            .filter(|source| source.uid.as_ref() == Some(&uid.0));
        self.pod(uid)
            .and_then(|seen| seen.facts.ip.clone())
            .or_else(|| owner.map(|owner| owner.ip.clone()))
            .or_else(|| source.and_then(|source| source.ip.clone()))
            .filter(|ip| !ip.is_empty())
    }

    /// The pod that the stable address points at, unless that pod has another address by now.
    pub(crate) fn points_at(&self, routed: Routed) -> Option<PodUid> {
        let moved = self.ip(&routed.pod).is_some_and(|ip| ip != routed.address);
        (!moved).then_some(routed.pod)
    }

    /// Value of an annotation of the object.
    #[must_use]
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.object.annotations().get(key).map(String::as_str)
    }

    /// Whether a person holds this process back.
    #[must_use]
    pub fn paused(&self) -> bool {
        let on = |value: Option<&str>| value == Some("true");
        on(self.annotation(annotation::PAUSED))
            || on(self.hub.annotations().get(annotation::PAUSED).map(String::as_str))
    }

    /// Pods that take no part in anything any more.
    pub fn bystanders(&self) -> impl Iterator<Item = &Sighting> {
        let source = self.source().map(|pod| pod.uid.clone());
        let owner = self.ledger.owner.as_ref().map(|owner| owner.pod.uid.clone());
        let target = self.target_uid().cloned();
        self.pods.values().filter(move |seen| {
            let uid = Some(&seen.facts.uid);
            uid != source.as_ref() && uid != owner.as_ref() && uid != target.as_ref()
        })
    }

    /// Whether a bystander keeps the next pod from being made: it may still run, or still has that pod's name, which an
    /// object that was made again gives out once more.
    fn lingers(&self, pod: &PodFacts) -> bool {
        let runs = !self.dead.contains_key(&pod.uid) && !self.lapsed.others.contains(&pod.uid);
        runs || pod.name == pod_name(&self.name().name, self.ledger.epoch.next())
    }

    /// After anything was done, what was read before it is not live any more.
    pub fn age(&mut self) {
        self.absent.clear();
        for seen in self.pods.values_mut() {
            seen.live = false;
        }
    }

    /// A pod of this process with an epoch that the ledger never gave: the object was restored from an older backup. The
    /// pods that the ledger names say so themselves; this is about one that it does not name any more, and that would
    /// otherwise be taken for nobody's while it serves.
    #[must_use]
    pub fn ahead(&self) -> Option<&Sighting> {
        let uid = self.uid();
        self.pods.values().find(|seen| seen.facts.process == uid && seen.facts.epoch > self.ledger.epoch)
    }

    /// What to do next.
    #[must_use]
    pub fn decide(&self) -> Decision {
        if self.leading && self.ahead().is_some() {
            return Decision { effects: Vec::new(), waiting: Waiting::HistoryRewound };
        }
        next(&self.view())
    }

    /// The renewal of the owner's lease, where it is due.
    pub(crate) fn renewal(&self) -> Option<Effect> {
        let left = self.owner_report()?.lease?.left_milliseconds;
        let due = left + lease::RENEWAL <= lease::DURATION + EARLY;
        renewal(&self.view()).filter(|_| due)
    }

    /// The protocol's view.
    #[must_use]
    pub fn view(&self) -> View {
        View {
            ledger: self.ledger.clone(),
            intent: self.intent(),
            give_up: self.give_up(),
            owner: self.standing(),
            source: self.source_view(),
            target: self.target_view(),
            trial: self.tries_code(),
            routed_to: self.routed_to.clone(),
            lingering: self.bystanders().any(|seen| self.lingers(&seen.facts)),
            leading: self.leading,
            limits: limits(&self.hub),
            replicas: self.replicas.clone(),
        }
    }

    /// How the owner stands, wherever it is in a move.
    fn standing(&self) -> Standing {
        let uid = self.ledger.owner.as_ref().map(|owner| &owner.pod.uid);
        Standing {
            sidecar: self
                .owner_report()
                .map_or(SidecarView::Unreachable, |report| SidecarView::Report(Box::new(report.clone()))),
            dead: uid.is_some_and(|uid| self.dead.contains_key(uid)),
            lapsed: self.lapsed.owner,
            replaceable: self.assignment.as_ref().is_some_and(|assignment| assignment.take_over)
                && self.missed(),
        }
    }

    /// Whether the owner's silence is more than a look that failed. Fencing sooner would save no time: the end of its lease
    /// counts from when it was last heard.
    fn missed(&self) -> bool {
        self.heard.is_none_or(|at| self.now.duration_since(at) >= SILENCE)
    }

    /// Whether the owner is as good as dead: fenced, silent, and without a lease.
    fn lapsed(&self, uid: &PodUid) -> bool {
        let owns = self.ledger.owner.as_ref().is_some_and(|owner| owner.pod.uid == *uid);
        owns && self.lapsed.owner && !self.reports.contains_key(uid)
    }

    /// Whether the target's code is another than the source's, and can be tried: the worker of a cold swap's target has not
    /// been started yet.
    fn tries_code(&self) -> bool {
        let kind = self.ledger.migration.as_ref().map(|migration| migration.kind);
        kind == Some(Kind::HotSwap) && super::commands::code_change(self).is_some()
    }

    /// The move that the planner permits, unless the ledger has gone on since.
    fn intent(&self) -> Option<Intent> {
        let go = self.assignment.as_ref()?.go.as_ref().filter(|go| go.epoch == self.ledger.epoch)?;
        let to = self.destination.as_ref().filter(|to| to.name_any() == go.hub);
        let cold = to.is_some_and(|to| transfer::is_cold(&self.hub, to));
        let kind = if cold && go.kind == Kind::HotSwap { Kind::ColdSwap } else { go.kind };
        Some(Intent { kind, node: go.node.clone() })
    }

    /// Why the move under way should end: a person's word before a deadline before the planner's.
    pub(crate) fn give_up(&self) -> Option<AbortReason> {
        let migration = self.ledger.migration.as_ref()?;
        if migration.phase != Phase::Prepared {
            return None;
        }
        let a_move = matches!(migration.kind, Kind::HotSwap | Kind::ColdSwap);
        let cancelled =
            self.annotation(annotation::CANCEL_MIGRATION).is_some() || self.is_unwanted_transfer();
        if a_move && cancelled {
            return Some(AbortReason::Cancelled);
        }
        let deadline = self.object.status.as_ref()?.migration.as_ref()?.deadline.0;
        // A source that is going cannot be kept by giving up: its move is tried until the end.
        let source_goes = self.owner_pod().is_some_and(|seen| seen.facts.going());
        if self.now >= deadline && !source_goes {
            let late =
                if self.target_came_up() { AbortReason::DeadlineExceeded } else { AbortReason::TargetFailed };
            return Some(late);
        }
        if self.target_is_hopeless(migration) {
            return Some(AbortReason::TargetFailed);
        }
        self.assignment.as_ref()?.give_up
    }

    /// Whether the target has been able to take over, so that it is not what the move waits for.
    #[must_use]
    pub fn target_came_up(&self) -> bool {
        let report = self.target().and_then(|target| self.reports.get(&target.facts.uid));
        report.is_some_and(|report| match report.role {
            Role::Standby => matches!(report.worker.state, WorkerState::Standby | WorkerState::Gated),
            Role::Delivered { .. }
            | Role::Active { .. }
            | Role::Frozen { .. }
            | Role::Forwarding { .. }
            | Role::Retired { .. } => true,
        })
    }

    /// Whether waiting for the target changes nothing. A start or a recovery has nothing to go back to: it waits until
    /// its deadline for somebody who mends what is wrong, unless its pod will not be started at all. What may be the only
    /// copy of the state is not given up.
    fn target_is_hopeless(&self, migration: &Migration) -> bool {
        let Some(target) = self.target() else { return false };
        let lasting = target.facts.trouble.as_ref().is_some_and(|it| it.gravity == Gravity::Lasting);
        if target.facts.ended && !target.facts.going() {
            return true;
        }
        let a_move = matches!(migration.kind, Kind::HotSwap | Kind::ColdSwap);
        let source_lost = migration.source.as_ref().is_some_and(|source| self.dead.contains_key(&source.uid));
        lasting && a_move && !source_lost && !self.target_came_up()
    }

    fn source_view(&self) -> Incarnation {
        let Some(pod) = self.source() else { return Incarnation::default() };
        let view = match self.pods.get(&pod.name) {
            Some(seen) if seen.facts.uid == pod.uid => PodView::Present(present(seen)),
            Some(_) => PodView::Foreign,
            None => PodView::Absent { live: self.absent.contains(&pod.name) },
        };
        self.incarnation(view, Some(&pod.uid))
    }

    fn target_view(&self) -> Incarnation {
        let Some(migration) = &self.ledger.migration else { return Incarnation::default() };
        let name = &migration.target_name;
        let view = match (self.target(), self.pods.contains_key(name)) {
            _ if name.is_empty() => PodView::Unknown,
            (Some(seen), _) => PodView::Present(present(seen)),
            (None, true) => PodView::Foreign,
            (None, false) => PodView::Absent { live: self.absent.contains(name) },
        };
        self.incarnation(view, self.target_uid())
    }

    fn incarnation(&self, pod: PodView, uid: Option<&PodUid>) -> Incarnation {
        let report = uid.and_then(|uid| self.reports.get(uid));
        Incarnation {
            pod,
            sidecar: report
                .map_or(SidecarView::Unreachable, |report| SidecarView::Report(Box::new(report.clone()))),
            dead: uid.is_some_and(|uid| self.dead.contains_key(uid) || self.lapsed(uid)),
        }
    }
}

fn present(seen: &Sighting) -> Pod {
    Pod {
        uid: seen.facts.uid.clone(),
        deleting: seen.facts.going(),
        ready: seen.facts.ready,
        live: seen.live,
    }
}

/// The hub's limits in the protocol's terms.
#[must_use]
pub fn limits(hub: &ProcessHub) -> Limits {
    let migration = &hub.spec.migration;
    Limits {
        handover: match migration.handover {
            None => Handover::IfCapable,
            Some(true) => Handover::Required,
            Some(false) => Handover::Never,
        },
        state_ttl: migration.state_ttl_milliseconds,
        freeze: hub.spec.worker.drain_timeout_milliseconds
            + 2 * migration.state_query_timeout_milliseconds
            + WAY_MILLISECONDS,
        retention: migration.retention_milliseconds,
    }
}

#[cfg(test)]
#[path = "observation_tests.rs"]
pub(crate) mod tests;

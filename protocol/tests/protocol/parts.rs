//! What the tests of the protocol are put together from.

use processhub_protocol::fence::{Clock, Floor, Record, Role, Step};
use processhub_protocol::handover::{
    Effect, Handover, Incarnation, Intent, Limits, Pod, PodView, ReplicasSeen, SidecarView, Standing, View,
    next,
};
use processhub_protocol::id::{BootId, Digest, Epoch, PodUid, ProcessUid, RecordId, StateId};
use processhub_protocol::ledger::{Kind, Ledger, Migration, Owner, Phase, PodRef, Tenure, pod_name};
use processhub_protocol::replica::Replicas;
use processhub_protocol::wire::{
    Activate, Addressee, Busy, Challenge, CommandKind, Failure, FailureKind, Forward, Freeze, Grant, Import,
    ImportReason, LetGo, Peer, Report, StartInfo, Thaw, VERSION, WorkerState, WorkerView,
};

pub const PROCESS: &str = "cart";

/// The pods of the tests: each is known by the epoch that it was created with.
pub fn uid(born: u64) -> PodUid {
    PodUid(format!("uid-{born}"))
}

pub fn pod(born: u64) -> PodRef {
    PodRef { name: pod_name(PROCESS, Epoch(born)), uid: uid(born), node: format!("n{born}") }
}

pub fn record_id(born: u64) -> RecordId {
    RecordId(format!("record-{born}"))
}

pub fn peer(born: u64) -> Peer {
    Peer::of_this_hub(uid(born), format!("10.0.0.{born}"), 9710)
}

pub fn to(born: u64) -> Addressee {
    Addressee { process: ProcessUid::from(PROCESS), pod: uid(born) }
}

pub fn state(seq: u64) -> StateId {
    StateId { seq, digest: Digest(format!("digest-{seq}")), bytes: 10 * seq }
}

pub fn record(born: u64, floor: u64, step: Step, role: Role) -> Record {
    let first = Record::first(record_id(born), ProcessUid::from(PROCESS), uid(born), Epoch(born));
    Record { floor: Floor { epoch: Epoch(floor), step }, role, ..first }
}

pub fn standby(born: u64) -> Record {
    record(born, 0, Step::Nothing, Role::Standby)
}

pub fn delivered(born: u64, epoch: u64, seq: u64) -> Record {
    record(born, epoch, Step::HandOver, Role::Delivered { epoch: Epoch(epoch), state: state(seq) })
}

pub fn active(born: u64, epoch: u64) -> Record {
    record(born, epoch, Step::TakeOver, Role::Active { epoch: Epoch(epoch), kept: None })
}

pub fn frozen(born: u64, epoch: u64, seq: Option<u64>) -> Record {
    let role = Role::Frozen { epoch: Epoch(epoch), state: seq.map(state), kept: None };
    record(born, epoch, Step::HandOver, role)
}

pub fn forwarding(born: u64, epoch: u64, seq: Option<u64>, successor: u64) -> Record {
    let role = Role::Forwarding { epoch: Epoch(epoch), state: seq.map(state), to: peer(successor) };
    record(born, epoch, Step::TakeOver, role)
}

pub fn clock(boot: &str, milliseconds: u64) -> Clock {
    Clock { boot: BootId::from(boot), milliseconds }
}

pub fn grant(born: u64, boot: &str, issued: u64) -> Grant {
    let challenge = Challenge { boot: BootId::from(boot), issued_milliseconds: issued };
    Grant { challenge, valid_milliseconds: 5_000, record: record_id(born) }
}

pub fn freeze(born: u64, epoch: u64) -> Freeze {
    Freeze {
        to: to(born),
        epoch: Epoch(epoch),
        capture: true,
        drain_timeout_milliseconds: 5_000,
        state_query_timeout_milliseconds: 5_000,
    }
}

pub fn import(born: u64, epoch: u64, seq: u64, source: u64) -> Import {
    Import {
        to: to(born),
        epoch: Epoch(epoch),
        state: state(seq),
        from: peer(source),
        replica: false,
        timeout_milliseconds: 30_000,
        reason: ImportReason::Handover,
        code_change: None,
    }
}

pub fn activate(born: u64, epoch: u64, seq: Option<u64>) -> Activate {
    Activate {
        to: to(born),
        epoch: Epoch(epoch),
        grant: grant(born, "boot", 0),
        state: seq.map(state),
        source: None,
        start: StartInfo::default(),
    }
}

pub fn thaw(born: u64, epoch: u64) -> Thaw {
    Thaw { to: to(born), epoch: Epoch(epoch), grant: grant(born, "boot", 0) }
}

pub fn forward(born: u64, epoch: u64, successor: u64) -> Forward {
    Forward { to: to(born), epoch: Epoch(epoch), peer: peer(successor) }
}

pub fn let_go(born: u64, epoch: u64) -> LetGo {
    LetGo { to: to(born), epoch: Epoch(epoch), drain_timeout_milliseconds: 0 }
}

/// A report of a sidecar whose worker does what the record says.
pub fn report(record: &Record) -> Report {
    let (worker, serving) = match &record.role {
        Role::Standby | Role::Delivered { .. } => (WorkerState::Standby, false),
        Role::Active { .. } => (WorkerState::Active, true),
        Role::Frozen { .. } | Role::Forwarding { .. } | Role::Retired { .. } => {
            (WorkerState::Suspended, false)
        }
    };
    Report {
        protocol: VERSION,
        process: record.process.clone(),
        pod: record.pod.clone(),
        record: record.record.clone(),
        floor: record.floor.epoch,
        role: record.role.clone(),
        challenge: Challenge { boot: BootId::from("boot"), issued_milliseconds: 0 },
        worker: WorkerView { state: worker, can_hand_over: Some(true), ..WorkerView::default() },
        serving,
        serving_for_milliseconds: serving.then_some(60_000),
        frozen_for_milliseconds: matches!(record.role, Role::Frozen { .. }).then_some(10),
        busy: None,
        tried: None,
        failure: None,
        held: 0,
        blackout_microseconds: None,
        stopping: false,
        lost: None,
        checkpoint: None,
        lease: None,
        replicas: None,
    }
}

/// A pod that is there, read live, ready if it serves.
pub fn up(record: &Record) -> Incarnation {
    let report = report(record);
    let ready = report.serving;
    Incarnation {
        pod: PodView::Present(Pod { uid: record.pod.clone(), deleting: false, ready, live: true }),
        sidecar: SidecarView::Report(Box::new(report)),
        dead: false,
    }
}

/// The same without an answer.
pub fn silent(record: &Record) -> Incarnation {
    Incarnation { sidecar: SidecarView::Unreachable, ..up(record) }
}

/// The same, proven dead.
pub fn dead(record: &Record) -> Incarnation {
    Incarnation { dead: true, ..silent(record) }
}

/// A live read found no such pod.
pub fn absent() -> Incarnation {
    Incarnation { pod: PodView::Absent { live: true }, ..Incarnation::default() }
}

/// With a deletion timestamp.
pub fn deleting(incarnation: Incarnation) -> Incarnation {
    with_pod(incarnation, |pod| pod.deleting = true)
}

/// From a cache.
pub fn cached(incarnation: Incarnation) -> Incarnation {
    with_pod(incarnation, |pod| pod.live = false)
}

pub fn with_pod(mut incarnation: Incarnation, change: impl FnOnce(&mut Pod)) -> Incarnation {
    if let PodView::Present(pod) = &mut incarnation.pod {
        change(pod);
    }
    incarnation
}

pub fn busy(incarnation: Incarnation, command: CommandKind, epoch: u64, milliseconds: u64) -> Incarnation {
    reporting(incarnation, |report| report.busy = Some(Busy { command, epoch: Epoch(epoch), milliseconds }))
}

pub fn failed(incarnation: Incarnation, epoch: u64, kind: FailureKind) -> Incarnation {
    reporting(incarnation, |report| {
        report.failure = Some(Failure { epoch: Epoch(epoch), kind, message: String::new() });
    })
}

pub fn reporting(mut incarnation: Incarnation, change: impl FnOnce(&mut Report)) -> Incarnation {
    if let SidecarView::Report(report) = &mut incarnation.sidecar {
        change(report);
    }
    incarnation
}

pub fn owner(born: u64, epoch: u64) -> Owner {
    Owner { pod: pod(born), record: record_id(born), epoch: Epoch(epoch), tenure: Tenure::Unbounded }
}

pub fn leased(born: u64, epoch: u64) -> Owner {
    Owner { tenure: Tenure::Leased, ..owner(born, epoch) }
}

pub fn fenced(born: u64, epoch: u64) -> Owner {
    Owner { tenure: Tenure::Fencing { at: Epoch(epoch) }, ..owner(born, epoch) }
}

/// A move from the pod born with `source` to one with `epoch`.
pub fn migration(kind: Kind, epoch: u64, source: Option<u64>, phase: Phase) -> Migration {
    Migration {
        epoch: Epoch(epoch),
        kind,
        source: source.map(pod),
        target_name: pod_name(PROCESS, Epoch(epoch)),
        target_node: format!("n{epoch}"),
        with_state: !matches!(kind, Kind::Start),
        phase,
    }
}

pub fn ledger(epoch: u64, owner: Option<Owner>, migration: Option<Migration>) -> Ledger {
    Ledger { epoch: Epoch(epoch), owner, migration, replicas: Replicas::default() }
}

/// A leader that sees the two, wants nothing of its own, and for which time has not passed.
pub fn view(ledger: Ledger, source: Incarnation, target: Incarnation) -> View {
    let routed_to = ledger.owner.as_ref().map(|owner| owner.pod.uid.clone());
    let is_owner = |side: &&Incarnation| {
        let uid = side.report().map(|report| &report.pod).or(side.present().map(|pod| &pod.uid));
        uid.is_some() && uid == routed_to.as_ref()
    };
    let owner = [&source, &target].into_iter().find(is_owner);
    let owner = owner.map_or_else(Standing::default, |side| Standing {
        sidecar: side.sidecar.clone(),
        dead: side.dead,
        ..Standing::default()
    });
    View {
        owner,
        ledger,
        intent: None,
        give_up: None,
        source,
        target,
        trial: false,
        routed_to,
        lingering: false,
        leading: true,
        limits: Limits { handover: Handover::IfCapable, state_ttl: 30_000, freeze: 12_000, retention: 5_000 },
        replicas: ReplicasSeen::default(),
    }
}

pub fn intent(kind: Kind) -> Option<Intent> {
    Some(Intent { kind, node: "n9".to_owned() })
}

/// The only effect of the decision.
pub fn only(view: &View) -> Effect {
    let decision = next(view);
    let [effect] = &decision.effects[..] else {
        panic!("one effect was expected: {decision:?}");
    };
    effect.clone()
}

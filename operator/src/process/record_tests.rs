use super::*;
use processhub_crds::MigrationResult;
use processhub_protocol::ledger::{Kind, Lost};

pub(crate) fn around() -> Circumstances {
    Circumstances {
        process: "cart-3".into(),
        now: Timestamp::from_second(1_000).unwrap(),
        deadline: Duration::from_secs(600),
        trigger: MigrationTrigger::Wish,
        restarts: Restarts::default(),
        revision: "new".into(),
        versions: ("1.7".into(), "1.8".into()),
        source_ip: Some("10.0.0.1".into()),
        target_ip: Some("10.0.0.2".into()),
        target_vsn: "1.8".into(),
        source_hub: "cart".into(),
        target_hub: "cart".into(),
        cancelled: MoveReason::Cancelled,
        stateless: false,
        message: Some("because".into()),
        blamed: MoveReason::TargetFailed,
        blackout_milliseconds: Some(7),
    }
}

pub(crate) fn prepare(kind: Kind, source: Option<PodRef>) -> Transition {
    Transition::Prepare { kind, source, node: "n4".into(), with_state: kind != Kind::Start }
}

pub(crate) fn commit(epoch: u64, state: Option<StateId>, lost: Option<Lost>) -> Transition {
    Transition::Commit {
        target: PodRef {
            name: format!("cart-3-{epoch}"),
            uid: PodUid(format!("pod-{epoch}")),
            node: "n4".into(),
        },
        record: RecordId(format!("record-{epoch}")),
        state,
        lost,
        leased: false,
        replicated: true,
    }
}

pub(crate) fn end(result: MoveResult) -> Transition {
    Transition::End { result }
}

pub(crate) fn state_id() -> StateId {
    StateId { seq: 41, digest: "abc".into(), bytes: 1024 }
}

/// Writes a chain of transitions, and checks after each that the status holds the ledger that the protocol means.
pub(crate) fn chain(transitions: &[Transition]) -> HubProcessStatus {
    let mut status = HubProcessStatus::default();
    let mut ledger = Ledger::default();
    for transition in transitions {
        status = write(&status, transition, &around()).unwrap();
        ledger = ledger.after("cart-3", transition).unwrap();
        assert_eq!(read(&status).unwrap(), ledger, "after {transition:?}");
        let json = serde_json::to_value(&status).unwrap();
        assert_eq!(serde_json::from_value::<HubProcessStatus>(json).unwrap(), status);
    }
    status
}

pub(crate) fn started() -> Vec<Transition> {
    vec![prepare(Kind::Start, None), commit(1, None, None), end(MoveResult::Succeeded)]
}

pub(crate) fn owner_pod() -> PodRef {
    PodRef { name: "cart-3-1".into(), uid: "pod-1".into(), node: "n4".into() }
}

#[test]
fn a_move_is_written_and_read_back_at_every_step() {
    for kind in [Kind::HotSwap, Kind::ColdSwap, Kind::Recover] {
        let mut steps = started();
        steps.push(prepare(kind, Some(owner_pod())));
        steps.push(commit(2, Some(state_id()), None));
        steps.push(end(MoveResult::Succeeded));
        let status = chain(&steps);
        let last = status.last_migration.unwrap();
        assert_eq!(last.result, MigrationResult::Succeeded);
        assert_eq!(last.digest.as_deref(), Some("abc"));
        assert_eq!(last.blackout_milliseconds, Some(7));
        assert_eq!(last.source.unwrap().epoch, 1);
        assert_eq!(status.history.len(), 2);
        assert_eq!(status.owner.unwrap().vsn, "1.8");
    }
}

#[test]
fn the_holders_are_written_and_read_back_and_pass_from_owner_to_owner() {
    let holders = |node: &str| Transition::Replicate {
        holders: vec![PodRef { name: "cart-7-1".into(), uid: "pod-7".into(), node: node.into() }],
    };
    assert_eq!(chain(&started()).replicas, None);
    let mut steps = started();
    steps.extend([
        holders("n1"),
        holders("n2"),
        prepare(Kind::Recover, None),
        commit(4, Some(state_id()), None),
    ]);
    let nodes = |steps: &[Transition]| {
        let sets = chain(steps).replicas.unwrap().sets;
        sets.iter().flat_map(|set| &set.holders).map(|holder| holder.node.clone()).collect::<Vec<_>>()
    };
    assert_eq!(nodes(&steps), ["n1", "n2"]);
    steps.push(Transition::Replicated);
    assert_eq!(nodes(&steps), ["n2"]);
    steps.push(Transition::Replicate { holders: Vec::new() });
    assert_eq!(chain(&steps).replicas.unwrap().sets.len(), 2, "a time without holders is remembered");
}

#[test]
fn a_new_pod_because_of_a_crash_is_counted() {
    let crash = |status: &HubProcessStatus, trigger| {
        let around = Circumstances { trigger, ..around() };
        write(status, &prepare(Kind::HotSwap, Some(owner_pod())), &around).unwrap().restarts
    };
    let idle = chain(&started());
    assert_eq!(crash(&idle, MigrationTrigger::Rebalance), []);
    assert_eq!(crash(&idle, MigrationTrigger::Crash), [conditions::time(around().now)]);
}

#[test]
fn an_abort_is_written_and_read_back_for_every_reason() {
    for reason in [
        AbortReason::Cancelled,
        AbortReason::Withdrawn,
        AbortReason::DeadlineExceeded,
        AbortReason::StateQueryTimeout,
        AbortReason::StateTTLExpired,
        AbortReason::CaptureFailed,
        AbortReason::ImportRefused,
        AbortReason::ImportFailed,
        AbortReason::TargetFailed,
        AbortReason::TargetLost,
        AbortReason::SourceLost,
        AbortReason::Regrant,
    ] {
        let mut steps = started();
        steps.push(prepare(Kind::HotSwap, Some(owner_pod())));
        steps.push(Transition::Abort { reason });
        steps.push(end(MoveResult::Aborted));
        let status = chain(&steps);
        assert_eq!(status.epoch, 3);
        assert_eq!(status.owner.unwrap().epoch, 3);
        let last = status.last_migration.unwrap();
        assert_eq!(last.reason, Some(move_reason(reason)));
        assert_eq!(last.message.as_deref(), Some("because"));
    }
}

#[test]
fn a_target_that_failed_is_blamed_for_what_it_was_and_read_back_as_failed() {
    for blamed in
        [MoveReason::TargetFailed, MoveReason::TargetNotReady, MoveReason::NoRoom, MoveReason::QuotaExceeded]
    {
        let mut steps = started();
        steps.push(prepare(Kind::HotSwap, Some(owner_pod())));
        let prepared = chain(&steps);
        let around = Circumstances { blamed, ..around() };
        let failed = Transition::Abort { reason: AbortReason::TargetFailed };
        let aborted = write(&prepared, &failed, &around).unwrap();
        assert_eq!(aborted.migration.as_ref().unwrap().reason, Some(blamed));
        let ledger = read(&prepared).unwrap().after("cart-3", &failed).unwrap();
        assert_eq!(read(&aborted).unwrap(), ledger);
    }
}

#[test]
fn an_upgrade_that_was_undone_is_kept_by_the_code_that_it_was_for_unless_it_was_merely_given_up() {
    let upgrade = Circumstances { trigger: MigrationTrigger::Upgrade, ..around() };
    let undone = |reason| {
        let mut status = chain(&started());
        let steps = [
            prepare(Kind::HotSwap, Some(owner_pod())),
            Transition::Abort { reason },
            end(MoveResult::Aborted),
        ];
        for step in &steps {
            status = write(&status, step, &upgrade).unwrap();
        }
        status.failed_upgrade
    };
    let failed = undone(AbortReason::ImportRefused).unwrap();
    assert_eq!((failed.revision.as_str(), failed.from.as_str(), failed.to.as_str()), ("new", "1.7", "1.8"));
    assert_eq!(
        (failed.reason, failed.message.as_deref()),
        (Some(MoveReason::ImportRefused), Some("because"))
    );
    assert!(undone(AbortReason::Cancelled).is_some(), "a person's word is not overruled");
    assert_eq!(undone(AbortReason::Withdrawn), None);
    assert_eq!(undone(AbortReason::SourceLost), None);
}

#[test]
fn a_commit_names_the_code_of_the_new_owner() {
    let mut steps = started();
    steps.push(prepare(Kind::HotSwap, Some(owner_pod())));
    steps.push(commit(2, Some(state_id()), None));
    let owner = chain(&steps).owner.unwrap();
    assert_eq!((owner.revision.as_str(), owner.vsn.as_str()), ("new", "1.8"));
}

#[test]
fn a_transfer_names_both_hubs_and_the_commit_makes_the_process_the_other_ones() {
    let mut steps = started();
    let transfer = Circumstances { target_hub: "till".into(), ..around() };
    let before = chain(&steps);
    assert_eq!(before.owner.as_ref().unwrap().hub, "cart");
    steps.push(prepare(Kind::HotSwap, Some(owner_pod())));
    let prepared = write(&before, &steps[3], &transfer).unwrap();
    let migration = prepared.migration.clone().unwrap();
    let hubs = (migration.source.unwrap().hub, migration.target.hub);
    assert_eq!(hubs, (Some("cart".into()), Some("till".into())));
    assert_eq!(prepared.owner.as_ref().unwrap().hub, "cart", "until the commit");
    let committed = write(&prepared, &commit(2, Some(state_id()), None), &transfer).unwrap();
    assert_eq!(committed.owner.unwrap().hub, "till");
    let unwanted = Circumstances { cancelled: MoveReason::HubChanged, ..transfer };
    let undone = Transition::Abort { reason: AbortReason::Cancelled };
    let aborted = write(&prepared, &undone, &unwanted).unwrap();
    assert_eq!(aborted.migration.as_ref().unwrap().reason, Some(MoveReason::HubChanged));
    assert_eq!(aborted.owner.as_ref().unwrap().hub, "cart");
    assert_eq!(read(&aborted).unwrap(), read(&prepared).unwrap().after("cart-3", &undone).unwrap());
}

#[test]
fn a_regrant_without_a_move_leaves_no_trace_in_the_history() {
    let mut steps = started();
    steps.push(Transition::Abort { reason: AbortReason::Regrant });
    steps.push(end(MoveResult::Aborted));
    let status = chain(&steps);
    assert_eq!(status.history.len(), 1);
    assert_eq!(status.owner.unwrap().epoch, 2);
}

#[test]
fn a_loss_is_said_on_the_object_unless_there_was_no_state() {
    let mut steps = started();
    steps.push(prepare(Kind::Recover, None));
    steps.push(commit(2, None, Some(Lost { from: 1 })));
    let status = chain(&steps);
    assert_eq!(status.may_miss.unwrap().from, 1);

    let before = chain(&steps[..4]);
    let stateless = Circumstances { stateless: true, ..around() };
    assert_eq!(write(&before, &steps[4], &stateless).unwrap().may_miss, None);
}

#[test]
fn a_transition_that_does_not_apply_and_a_status_without_a_uid_are_refused() {
    let idle = chain(&started());
    assert_eq!(write(&idle, &end(MoveResult::Succeeded), &around()), None);
    let mut steps = started();
    steps.push(prepare(Kind::HotSwap, Some(owner_pod())));
    let mut status = chain(&steps);
    status.migration.as_mut().unwrap().source.as_mut().unwrap().uid = None;
    assert!(read(&status).unwrap_err().to_string().contains("migration.source.uid"));
}

//! Who holds the replicas, and what is recovered from them: owner 1 at epoch 4, holders 11 to 13, target 5.

use processhub_protocol::handover::{
    Decision, Effect, HolderSeen, Incarnation, ReplicasSeen, View, Waiting, next, replication,
};
use processhub_protocol::id::Epoch;
use processhub_protocol::ledger::{Kind, Lost, Phase, PodRef, Transition};
use processhub_protocol::replica::{Mark, ReplicaView, Replicas, Sealed};
use processhub_protocol::wire::ImportReason;

use crate::parts::*;

fn sets(sets: &[&[u64]]) -> Replicas {
    let set = |set: &&[u64]| set.iter().map(|born| pod(*born)).collect::<Vec<PodRef>>();
    Replicas { generation: sets.len() as u64, sets: sets.iter().map(set).collect() }
}

/// An owner that was told of set `generation` and has everything at its holders, or not.
fn serving(ledger_sets: &[&[u64]], choice: &[u64], generation: Option<u64>, complete: bool) -> View {
    let owned = reporting(up(&active(1, 4)), |report| {
        report.replicas = Some(ReplicaView { generation, complete, holders: Vec::new() });
    });
    let mut view = view(ledger(4, Some(owner(1, 4)), None), owned, Incarnation::default());
    view.ledger.replicas = sets(ledger_sets);
    view.replicas.choice = Some(choice.iter().map(|born| pod(*born)).collect());
    view
}

fn choose(holders: &[u64]) -> Option<Effect> {
    let holders = holders.iter().map(|born| pod(*born)).collect();
    Some(Effect::Write(Transition::Replicate { holders }))
}

const TELL: Option<Effect> = Some(Effect::Replicate { epoch: Epoch(4) });

#[test]
fn a_set_is_written_before_its_owner_is_told_and_settled_when_it_has_everything() {
    assert_eq!(replication(&serving(&[], &[11], None, false)), choose(&[11]));
    assert_eq!(replication(&serving(&[&[11]], &[11], None, false)), TELL);
    assert_eq!(replication(&serving(&[&[11]], &[11], Some(1), false)), None);
    assert_eq!(replication(&serving(&[&[11]], &[11], Some(1), true)), None, "there is nothing to settle");
    assert_eq!(replication(&serving(&[&[11]], &[12], Some(1), true)), choose(&[12]));
    let both =
        |generation, complete| replication(&serving(&[&[11], &[12]], &[12], Some(generation), complete));
    assert_eq!(both(1, true), TELL, "what is complete is the set before");
    assert_eq!(both(2, false), None, "the older holders are still needed");
    assert_eq!(both(2, true), Some(Effect::Write(Transition::Replicated)));
}

#[test]
fn without_another_node_the_owner_is_told_so_and_what_was_held_before_stays_known() {
    assert_eq!(
        replication(&serving(&[], &[], None, false)),
        choose(&[]),
        "it may serve, which it waits to be told"
    );
    assert_eq!(replication(&serving(&[&[11], &[]], &[], Some(2), true)), None);
}

#[test]
fn who_does_not_own_or_wants_no_replicas_is_told_nothing() {
    let mut view = serving(&[], &[11], None, false);
    view.leading = false;
    assert_eq!(replication(&view), None);
    let mut view = serving(&[], &[11], None, false);
    view.ledger.owner = Some(owner(1, 6));
    assert_eq!(replication(&view), None, "it is to be granted anew first");
    let mut view = serving(&[], &[11], None, false);
    view.replicas.choice = None;
    assert_eq!(replication(&view), None);
}

fn holds(born: u64, epoch: u64, number: u64) -> HolderSeen {
    HolderSeen::Sealed(Sealed {
        pod: uid(born),
        process: "p".into(),
        epoch: Epoch(5),
        newest: (number > 0).then(|| (Mark { epoch: Epoch(epoch), number }, state(number))),
        exposed: false,
    })
}

/// The owner is dead, and the target of its recovery is ready.
fn recovering(ledger_sets: &[&[u64]], holders: &[(u64, HolderSeen)]) -> View {
    let migration = migration(Kind::Recover, 5, None, Phase::Prepared);
    let mut view =
        view(ledger(5, Some(owner(1, 4)), Some(migration)), Incarnation::default(), up(&standby(5)));
    view.ledger.replicas = sets(ledger_sets);
    view.replicas.holders = holders.iter().map(|(born, seen)| (uid(*born), seen.clone())).collect();
    view
}

fn import(seq: u64, holder: u64) -> Effect {
    let (epoch, reason) = (Epoch(5), ImportReason::Crash);
    Effect::Import { epoch, state: state(seq), reason, replica: Some(uid(holder)) }
}

/// The sequence number from which on something may be missing once the state was imported; panics unless it commits.
fn lost(mut view: View, seq: u64) -> Option<u64> {
    view.target = up(&delivered(5, 5, seq));
    let Effect::Write(Transition::Commit { state: with, lost, .. }) = only(&view) else { panic!("{view:?}") };
    assert_eq!(with, Some(state(seq)));
    lost.map(|Lost { from }| from)
}

#[test]
fn a_recovery_takes_the_newest_of_what_its_holders_have_and_misses_nothing() {
    let unasked = recovering(&[&[11, 12]], &[]);
    assert_eq!(only(&unasked), Effect::SealReplicas { epoch: Epoch(5) });
    let all = recovering(&[&[11, 12]], &[(11, holds(11, 4, 6)), (12, holds(12, 4, 7))]);
    assert_eq!(only(&all), import(7, 12));
    assert_eq!(lost(all, 7), None);
    let of_an_older_epoch = recovering(&[&[11, 12]], &[(11, holds(11, 3, 9)), (12, holds(12, 4, 1))]);
    assert_eq!(only(&of_an_older_epoch), import(1, 12));
}

#[test]
fn another_leader_asks_again_before_it_says_what_is_missing() {
    let mut view = recovering(&[&[11]], &[]);
    view.target = up(&delivered(5, 5, 7));
    assert_eq!(only(&view), Effect::SealReplicas { epoch: Epoch(5) });
}

#[test]
fn one_of_each_set_is_enough_and_one_of_some_is_not() {
    let one = recovering(&[&[11, 12]], &[(11, holds(11, 4, 7)), (12, HolderSeen::Silent)]);
    assert_eq!(only(&one), import(7, 11), "every answer waited for both");
    assert_eq!(lost(one, 7), None);
    let changing = |second| recovering(&[&[11], &[12]], &[(11, holds(11, 4, 7)), (12, second)]);
    assert_eq!(
        next(&changing(HolderSeen::Silent)),
        Decision { effects: Vec::new(), waiting: Waiting::Replicas },
        "answers may have waited for that one alone"
    );
    let gone = changing(HolderSeen::Gone);
    assert_eq!((only(&gone), lost(gone, 7)), (import(7, 11), Some(8)));
    let mut given_up = changing(HolderSeen::Silent);
    given_up.replicas.given_up = true;
    assert_eq!((only(&given_up), lost(given_up, 7)), (import(7, 11), Some(8)));
}

#[test]
fn what_did_not_wait_for_the_holders_may_be_missing() {
    let HolderSeen::Sealed(mut sealed) = holds(11, 4, 7) else { panic!() };
    sealed.exposed = true;
    assert_eq!(lost(recovering(&[&[11]], &[(11, HolderSeen::Sealed(sealed))]), 7), Some(8));
}

#[test]
fn without_any_state_the_recovery_begins_empty_and_says_so() {
    for seen in [HolderSeen::Gone, holds(11, 4, 0)] {
        let Effect::Write(Transition::Commit { state: None, lost, .. }) =
            only(&recovering(&[&[11]], &[(11, seen)]))
        else {
            panic!()
        };
        assert_eq!(lost, Some(Lost { from: 1 }));
    }
}

#[test]
fn an_owner_that_may_come_back_is_not_locked_out() {
    let mut view = recovering(&[&[11]], &[]);
    view.ledger.owner = Some(fenced(1, 4));
    assert_eq!(next(&view), Decision { effects: Vec::new(), waiting: Waiting::LeaseEnd });
    view.owner.lapsed = true;
    assert_eq!(only(&view), Effect::SealReplicas { epoch: Epoch(5) });
}

#[test]
fn a_sealed_source_is_older_than_what_its_successor_had_its_holders_keep() {
    // Source 1 was sealed at 4 for the owner that is lost now.
    let recovery = |holder| {
        let migration = migration(Kind::Recover, 5, Some(1), Phase::Prepared);
        let source = up(&forwarding(1, 4, Some(6), 4));
        let mut view = view(ledger(5, Some(owner(4, 4)), Some(migration)), source, up(&standby(5)));
        view.ledger.replicas = sets(&[&[11]]);
        view.replicas = ReplicasSeen { holders: [(uid(11), holder)].into(), ..ReplicasSeen::default() };
        view
    };
    assert_eq!(only(&recovery(holds(11, 4, 8))), import(8, 11));
    assert_eq!(lost(recovery(holds(11, 4, 8)), 8), None);
    let own = Effect::Import { epoch: Epoch(5), state: state(6), reason: ImportReason::Crash, replica: None };
    assert_eq!(only(&recovery(holds(11, 3, 5))), own);
    assert_eq!(only(&recovery(HolderSeen::Gone)), own);
}

#[test]
fn the_sets_outlive_an_owner_and_go_when_answers_wait_for_nobody() {
    let commit = |replicated| Transition::Commit {
        target: pod(5),
        record: record_id(5),
        state: None,
        lost: None,
        leased: false,
        replicated,
    };
    let before = recovering(&[&[11]], &[]).ledger;
    assert_eq!(before.after(PROCESS, &commit(true)).unwrap().replicas, before.replicas);
    assert_eq!(
        before.after(PROCESS, &commit(false)).unwrap().replicas,
        Replicas { generation: 1, sets: vec![] }
    );
}

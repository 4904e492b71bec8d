//! Whole moves between two sidecars, driven as the operator drives them, under clients that never stop.

use processhub_protocol::fence::Role;
use processhub_protocol::id::Epoch;
use processhub_protocol::wire::{HandOn, WorkerState, path};

use crate::support::Pod;
use crate::support::load::{Load, Route, audit, increment, nothing_lost};
use crate::support::operator::Operator;

#[tokio::test(flavor = "multi_thread")]
async fn a_process_moves_under_load_and_nothing_is_lost() {
    let operator = Operator::new();
    let first = Pod::running("a", 1);
    operator.start(&first, 1).await;
    let route = Route::to(&first);
    let load = Load::start(&route, 8);
    let mut pods = vec![first];
    for epoch in 2..6 {
        let target = Pod::running(&format!("pod-{epoch}"), epoch);
        let source = pods.last().unwrap();
        operator.hand_over(source, &target, epoch).await;
        let report = operator
            .until(source, "forwarding", |report| matches!(report.role, Role::Forwarding { .. }))
            .await;
        assert!(report.blackout_microseconds.is_some_and(|blackout| blackout > 0));
        let blackout = report.blackout_microseconds;
        operator.until(&target, "the blackout", |report| report.blackout_microseconds == blackout).await;
        route.turn(&target);
        pods.push(target);
    }
    let told = load.stop().await;
    let requests = nothing_lost(&operator, pods.last().unwrap(), told).await;
    // Each of the eight clients got through, before and after.
    assert!(requests > 16, "the clients did next to nothing: {requests}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_move_ends_where_it_began() {
    let operator = Operator::new();
    let (source, target) = (Pod::running("a", 1), Pod::running("b", 2));
    operator.start(&source, 1).await;
    let load = Load::start(&Route::to(&source), 8);
    operator.worker(&target, WorkerState::Standby).await;
    let state = operator.seal(&source, 2).await;
    operator.import(&target, &source, 2, &state).await.unwrap();
    let report = operator.thaw(&source, 3).await.unwrap();
    assert!(report.serving && report.blackout_microseconds.is_some(), "{report:#?}");
    // And once more, without the target ever having heard of it.
    operator.seal(&source, 4).await;
    assert!(operator.thaw(&source, 5).await.unwrap().serving);
    nothing_lost(&operator, &source, load.stop().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_cold_swaps_source_held_waits_at_the_target_for_its_worker() {
    let operator = Operator::new();
    let source = Pod::running("a", 1);
    let mut target = Pod::new("b", 2);
    target.config.gated = true;
    target.start_sidecar();
    operator.start(&source, 1).await;
    let state = operator.seal(&source, 2).await;
    let at = source.config.data;
    let waiting = tokio::spawn({
        let operator = operator.clone();
        async move { increment(&operator, at, "one", 1).await.0 }
    });
    operator.until(&source, "a held request", |report| report.held == 1).await;
    operator.import(&target, &source, 2, &state).await.unwrap();
    // The operator has it hand on, because its worker ends before the target is active.
    let hand_on = HandOn { to: source.addressee(), epoch: Epoch(2), peer: target.peer() };
    let report = operator.command(&source, path::HAND_ON, &hand_on).await.unwrap();
    assert!(matches!(report.role, Role::Forwarding { .. }), "{report:#?}");
    operator.until(&target, "the request", |report| report.held == 1).await;
    let report = operator.command(&source, path::HAND_ON, &hand_on).await.unwrap();
    assert_eq!(report.blackout_microseconds, None, "nobody serves yet");
    let begin = std::time::Instant::now();
    let (report, ()) = tokio::join!(operator.activate(&target, 2, Some(state), Some(&source)), async {
        target.start_counter(|_| {});
    });
    assert!(report.unwrap().serving);
    let least = u64::try_from(begin.elapsed().as_micros()).unwrap();
    let told = operator.until(&source, "the blackout", |report| report.blackout_microseconds.is_some()).await;
    assert!(told.blackout_microseconds >= Some(least), "the worker's start is part of it: {told:#?}");
    operator
        .until(&target, "it too", |report| report.blackout_microseconds == told.blackout_microseconds)
        .await;
    assert_eq!(waiting.await.unwrap(), 200);
    assert_eq!(audit(&operator, &target).await.value, 1);
}

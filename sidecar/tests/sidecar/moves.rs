//! Whole moves between two sidecars, driven as the operator drives them, under clients that never stop.

use processhub_protocol::fence::Role;
use processhub_protocol::wire::WorkerState;

use crate::support::Pod;
use crate::support::load::{Load, Route, nothing_lost};
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
    assert!(requests > 100, "the clients did next to nothing: {requests}");
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

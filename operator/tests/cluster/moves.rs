//! Starts, moves, undone moves, recoveries and stops.

use processhub_crds::vocabulary::{MoveReason, annotation};
use processhub_crds::{MigrationKind, MigrationResult, MigrationTrigger};
use processhub_embedded_cluster::Verb;
use serde_json::json;

use crate::world::World;

const CART: &str = "cart-0";

async fn started(migration: serde_json::Value) -> World {
    let mut world = World::new().await;
    world.start_operator();
    world.create_hub("cart", migration).await;
    world.settled(CART).await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wish_moves_a_process_with_its_state_in_six_writes() {
    let mut world = started(json!({ "retentionMilliseconds": 2000 })).await;
    assert_eq!(world.increment(CART).await, Ok(1));
    let from = world.settled(CART).await.owner.unwrap().node;
    let to = world.other_node(&from);
    let before = world.cluster.audit_since(0).last().unwrap().sequence;
    world.wish(CART, annotation::MOVE_TO, &to).await;
    let status = world.until(CART, "moved", |status| status.history.len() == 2).await;
    let last = status.last_migration.unwrap();
    assert_eq!(
        (last.result, last.trigger, last.with_state),
        (MigrationResult::Succeeded, MigrationTrigger::Wish, true)
    );
    assert!(last.blackout_milliseconds.is_some() && last.bytes.is_some());
    assert_eq!(status.owner.unwrap().node, to);
    assert_eq!(world.increment(CART).await, Ok(2));

    let writes: Vec<String> = world
        .cluster
        .audit_since(before)
        .into_iter()
        .filter(|entry| entry.verb.writes() && entry.code < 300)
        .filter(|entry| match entry.resource.as_str() {
            "hubprocesses" => entry.subresource == "status",
            // The kubelet and the scheduler write to pods as well.
            "pods" => entry.subresource.is_empty() && matches!(entry.verb, Verb::Create | Verb::Delete),
            "endpointslices" | "services" | "secrets" => true,
            _ => false,
        })
        .map(|entry| format!("{:?} {}", entry.verb, entry.resource))
        .collect();
    assert_eq!(
        writes,
        [
            "Update hubprocesses",
            "Create pods",
            "Update hubprocesses",
            "Patch endpointslices",
            "Delete pods",
            "Update hubprocesses"
        ],
    );
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_pod_hands_its_process_over_first() {
    let mut world = started(json!({ "retentionMilliseconds": 2000 })).await;
    assert_eq!(world.increment(CART).await, Ok(1));
    let pod = world.settled(CART).await.owner.unwrap().pod;
    world.delete_pod(&pod).await;
    let status = world.until(CART, "moved", |status| status.history.len() == 2).await;
    assert_eq!(status.last_migration.unwrap().trigger, MigrationTrigger::PodDeleted);
    assert_eq!(status.may_miss, None);
    assert_eq!(world.increment(CART).await, Ok(2));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_refuses_the_state_leaves_the_source_serving_with_the_reason_on_the_object() {
    let mut world = World::new().await;
    world.start_operator();
    world.create_hub_with_faults("cart", json!({}), "refuse=import").await;
    world.settled(CART).await;
    assert_eq!(world.increment(CART).await, Ok(1));
    let owner = world.settled(CART).await.owner.unwrap();
    world.wish(CART, annotation::MOVE_TO, &world.other_node(&owner.node)).await;
    let status = world.until(CART, "undone", |status| status.history.len() == 2).await;
    let last = status.last_migration.unwrap();
    assert_eq!((last.result, last.reason), (MigrationResult::Aborted, Some(MoveReason::ImportRefused)));
    assert_eq!(status.owner.unwrap().pod, owner.pod);
    assert_eq!(world.increment(CART).await, Ok(2));
    let object = world.processes().get(CART).await.unwrap();
    let wish = object.metadata.annotations.unwrap_or_default().remove(annotation::MOVE_TO);
    assert_eq!(wish, None, "a wish is one attempt");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_waits_for_its_target_can_be_cancelled() {
    let mut world = started(json!({})).await;
    world.give_faulty_code("cart", "hang=info:600000").await;
    world.until(CART, "moving", |status| status.migration.is_some()).await;
    world.wish(CART, annotation::CANCEL_MIGRATION, "yes").await;
    let status = world.until(CART, "undone", |status| status.history.len() == 2).await;
    assert_eq!(status.last_migration.unwrap().reason, Some(MoveReason::Cancelled));
    let failed = status.failed_upgrade.unwrap();
    assert_eq!(failed.reason, Some(MoveReason::Cancelled), "the roll-out does not begin it again");
    assert_eq!(world.increment(CART).await, Ok(1));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_of_a_dead_node_is_recovered_once_that_is_proven_and_says_what_may_be_missing() {
    let mut world = started(json!({})).await;
    assert_eq!(world.increment(CART).await, Ok(1));
    let owner = world.settled(CART).await.owner.unwrap();
    world.cluster.kill_node(&owner.node).await.unwrap();
    let unknown = |status: &processhub_crds::HubProcessStatus| {
        status.conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "Unknown")
    };
    let status = world.until(CART, "unreachable", unknown).await;
    assert_eq!(status.owner.as_ref().unwrap().uid, owner.uid, "nothing is proven: nothing is taken over");
    world.wish(CART, annotation::CONFIRMED_DEAD, &owner.uid).await;
    // As long as nobody has noticed that the node is dead, too, it may be tried there first.
    let recovered = |status: &processhub_crds::HubProcessStatus| {
        let last = status.last_migration.as_ref();
        last.is_some_and(|last| {
            last.kind == MigrationKind::Recover && last.result == MigrationResult::Succeeded
        })
    };
    let status = world.until(CART, "recovered", recovered).await;
    assert_ne!(status.owner.unwrap().node, owner.node);
    assert!(status.may_miss.is_some(), "the state is gone, and the object says so");
    assert_eq!(world.increment(CART).await, Ok(1));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_swap_carries_the_state_and_ends_the_old_worker_first() {
    let mut world = started(json!({ "strategy": "ColdSwap", "retentionMilliseconds": 2000 })).await;
    assert_eq!(world.increment(CART).await, Ok(1));
    let owner = world.settled(CART).await.owner.unwrap();
    world.wish(CART, annotation::MOVE_TO, &world.other_node(&owner.node)).await;
    let status = world.until(CART, "moved", |status| status.history.len() == 2).await;
    assert_eq!(status.last_migration.unwrap().kind, MigrationKind::ColdSwap);
    let old = world.pods().get_opt(&owner.pod).await.unwrap();
    assert!(old.is_none_or(|pod| {
        pod.status
            .unwrap()
            .container_statuses
            .unwrap()
            .iter()
            .all(|container| container.state.as_ref().is_some_and(|state| state.terminated.is_some()))
    }));
    assert_eq!(world.increment(CART).await, Ok(2));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_process_is_stopped_without_waiting_for_the_end_of_its_grace() {
    // The hook alone may wait for 20 minutes, longer than any test does.
    let world = started(json!({ "stateQueryTimeoutMilliseconds": 600_000 })).await;
    world.processes().delete(CART, &Default::default()).await.unwrap();
    // The hub makes it again: another object, another process, another history.
    let again = world.settled(CART).await;
    assert_eq!(again.history.len(), 1, "{:?}", again.history);
    assert_eq!(again.history[0].kind, MigrationKind::Start);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_while_nothing_happens() {
    let mut world = started(json!({})).await;
    assert_eq!(world.increment(CART).await, Ok(1));
    let quiet = || {
        let entries = world.cluster.audit_since(0);
        let ours = |entry: &&processhub_embedded_cluster::Entry| {
            entry.verb.writes() && (entry.group == "processhub.io" || entry.resource == "endpointslices")
        };
        entries.iter().filter(ours).count()
    };
    // The last counts of the hub follow the last move.
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    let before = quiet();
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    assert_eq!(quiet(), before);
    world.end().await;
}

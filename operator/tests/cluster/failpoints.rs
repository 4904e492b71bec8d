//! The operator dies beside every effect of a move, or loses its answer: the next one finishes or undoes what it finds,
//! and nothing that was acknowledged is lost.

use processhub_crds::MigrationResult;
use processhub_crds::vocabulary::annotation;
use serde_json::json;

use crate::world::World;

const CART: &str = "cart-0";

/// Effects of a move that succeeds.
const MOVE: [&str; 10] = [
    "prepare",
    "read-live",
    "create-pod",
    "freeze",
    "import",
    "commit",
    "activate",
    "route",
    "delete-source",
    "end",
];
/// Effects of the undo of one that is refused.
const UNDO: [&str; 4] = ["abort", "thaw", "delete-target", "end"];

async fn ready() -> World {
    ready_with("").await
}

/// With workers that have these faults.
async fn ready_with(faults: &str) -> World {
    let mut world = World::new().await;
    world.start_operator();
    let migration = json!({ "retentionMilliseconds": 2000 });
    if faults.is_empty() {
        world.create_hub("cart", migration).await;
    } else {
        world.create_hub_with_faults("cart", migration, faults).await;
    }
    world.settled(CART).await;
    world.stop_operator().await;
    world
}

/// Wishes the process to another node with an operator that has this failpoint, then lets another one go on.
async fn survive(world: &mut World, failpoint: &str, result: MigrationResult) {
    let before = world.increment(CART).await.unwrap();
    let status = world.settled(CART).await;
    let (owner, epoch) = (status.owner.unwrap(), status.epoch);
    world.start_operator_with(failpoint);
    world.wish(CART, annotation::MOVE_TO, &world.other_node(&owner.node)).await;
    world.operator_died().await;
    world.start_operator();
    let ended = |status: &processhub_crds::HubProcessStatus| {
        status.migration.is_none() && status.last_migration.as_ref().is_some_and(|last| last.epoch > epoch)
    };
    let status = world.until(CART, "through", ended).await;
    assert_eq!(status.last_migration.unwrap().result, result, "{failpoint}");
    assert_eq!(world.increment(CART).await, Ok(before + 1), "{failpoint}");
    assert_eq!(status.may_miss, None, "{failpoint}");
    world.stop_operator().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_dies_before_any_effect_of_a_move_loses_nothing() {
    let mut world = ready().await;
    for point in MOVE {
        survive(&mut world, &format!("{point}:before"), MigrationResult::Succeeded).await;
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_dies_after_any_effect_of_a_move_loses_nothing() {
    let mut world = ready().await;
    for point in MOVE {
        survive(&mut world, &format!("{point}:after"), MigrationResult::Succeeded).await;
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_dies_beside_any_effect_of_an_undo_leaves_the_source_serving() {
    let mut world = ready_with("refuse=import").await;
    for point in UNDO {
        for when in ["before", "after"] {
            survive(&mut world, &format!("{point}:{when}"), MigrationResult::Aborted).await;
        }
    }
    world.end().await;
}

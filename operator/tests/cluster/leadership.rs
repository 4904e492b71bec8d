//! Two operators, of which one acts.

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use processhub_crds::vocabulary::annotation;
use serde_json::json;
use tokio::sync::oneshot;

use crate::world::{NAMESPACE, World};

const CART: &str = "cart-0";

async fn holder(world: &World) -> Option<String> {
    let leases = Api::<Lease>::namespaced(world.client.clone(), NAMESPACE);
    leases.get("processhub-operator-default").await.unwrap().spec.unwrap().holder_identity
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_stops_gives_the_lease_back_and_the_standby_goes_on() {
    let mut world = World::new().await;
    world.start_operator();
    world.create_hub("cart", json!({ "retentionMilliseconds": 2000 })).await;
    let owner = world.settled(CART).await.owner.unwrap();
    let first = holder(&world).await.unwrap();

    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = async move {
        let _ = stopped.await;
    };
    let options = processhub_operator::Options { identity: "standby".into(), ..world.options() };
    let standby = tokio::spawn(processhub_operator::run(world.client.clone(), options, shutdown));
    world.wish(CART, annotation::MOVE_TO, &world.other_node(&owner.node)).await;
    world.until(CART, "moved", |status| status.history.len() == 2).await;
    assert_eq!(holder(&world).await.as_ref(), Some(&first), "the leader led on");

    world.stop_operator().await;
    let left = holder(&world).await;
    assert!(left.is_none() || left.as_deref() == Some("standby"), "{left:?}");
    world.wish(CART, annotation::MOVE_TO, &owner.node).await;
    let status = world.until(CART, "moved back", |status| status.history.len() == 3).await;
    assert_eq!(status.owner.unwrap().node, owner.node);
    assert_eq!(holder(&world).await.as_deref(), Some("standby"));

    stop.send(()).unwrap();
    standby.await.unwrap().unwrap();
    assert_eq!(holder(&world).await, None);
    world.end().await;
}

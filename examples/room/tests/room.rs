//! The whole contract, and a player's messages.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::net::SocketAddr;

use processhub_sidecar::verify::{Arguments, ClientCall, run};

#[tokio::test]
async fn the_room_keeps_every_rule_of_the_contract() {
    let [_, a, b, c] = std::process::id().to_be_bytes();
    let host = [127, 64 | (a & 0x3f), b, c.max(2)];
    let mut arguments = Arguments::new(vec![env!("CARGO_BIN_EXE_room").to_owned()]);
    arguments.control = SocketAddr::from((host, 9700));
    arguments.listen = SocketAddr::from((host, 8080));
    arguments.change = Some(ClientCall::parse(r#"POST /plays/ann {"points": 3}"#).unwrap());
    arguments.read = Some(ClientCall::parse("GET /scores").unwrap());
    let report = run(arguments).await.unwrap();
    assert!(report.is_right(), "{report}");
}

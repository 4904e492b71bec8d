//! The account's states from version to version, and the whole contract for each version.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::net::SocketAddr;

use account::{Version, v1, v2, v3};
use processhub_sdk::{Imported, OldVsn, Part, Refusal};
use processhub_sidecar::verify::{Arguments, ClientCall, run};
use serde::Serialize;
use serde_json::{Value, json};

/// What a version makes of a state of another one.
fn changed<New: Version>(from: OldVsn, state: &impl Serialize, extra: &Value) -> Result<New, Refusal> {
    let mut imported = Imported::default();
    imported.set(Part::json("state", state)?);
    New::steps().convert(&from, imported, extra)?.json("state")
}

fn up(vsn: &str) -> OldVsn {
    OldVsn::Up(vsn.to_owned())
}

fn down(vsn: &str) -> OldVsn {
    OldVsn::Down(vsn.to_owned())
}

#[test]
fn the_key_is_renamed_up_and_down() {
    let old = v1::Holding { money: 40 };
    let new: v2::Holding = changed(up("1"), &old, &json!({ "bonus": 2 })).unwrap();
    assert_eq!((new.salary, new.show()), (42, json!({ "salary": 42 })));
    let back: v1::Holding = changed(down("2"), &new, &Value::Null).unwrap();
    assert_eq!((back.money, back.show()), (42, json!(42)));
}

#[test]
fn from_1_to_3_the_way_is_through_2() {
    let new: v3::Holding = changed(up("1"), &v1::Holding { money: 40 }, &json!({ "bonus": 2 })).unwrap();
    assert_eq!(new, v3::Holding { salary: 42, currency: "EUR".into() });
    assert_eq!(v3::Holding::steps().accepts_from(), ["2", "1"]);
}

#[test]
fn what_an_older_version_cannot_hold_is_refused() {
    let rich = v3::Holding { salary: 7, currency: "USD".into() };
    let refusal = changed::<v2::Holding>(down("3"), &rich, &Value::Null).unwrap_err();
    assert!(refusal.to_string().contains("no currency but EUR"), "{refusal}");
    let full = v1::Holding { money: u64::MAX };
    let refusal = changed::<v2::Holding>(up("1"), &full, &json!({ "bonus": 1 })).unwrap_err();
    assert!(refusal.to_string().contains("spec.upgrade.extra.bonus"), "{refusal}");
}

#[tokio::test]
async fn every_version_keeps_every_rule_of_the_contract() {
    for vsn in ["1", "2", "3"] {
        let [_, _, a, b] = std::process::id().to_be_bytes();
        let host = [127, 192 | (a >> 2), b, vsn.as_bytes()[0]];
        let mut arguments = Arguments::new(vec![env!("CARGO_BIN_EXE_account").to_owned()]);
        arguments.control = SocketAddr::from((host, 9700));
        arguments.listen = SocketAddr::from((host, 8080));
        arguments.change = Some(ClientCall::parse(r#"POST /deposit {"amount": 5}"#).unwrap());
        arguments.read = Some(ClientCall::parse("GET /balance").unwrap());
        arguments.environment = vec![("ACCOUNT_VSN".into(), vsn.into())];
        let report = run(arguments).await.unwrap();
        assert!(report.is_right(), "version {vsn}: {report}");
    }
}

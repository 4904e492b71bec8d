//! A real, unmodified Redis behind the adapter: its data goes from one to the other, and back after a move that was
//! called off. Skipped, in words, where there is no Redis.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::time::Instant;

use common::Pod;
use serde_json::json;

const QUIESCE: &str = "redis-cli -e -h $ADAPTER_HOST -p $ADAPTER_PORT CLIENT PAUSE 60000 WRITE";
const RESUME: &str = "redis-cli -e -h $ADAPTER_HOST -p $ADAPTER_PORT CLIENT UNPAUSE";
const DUMP: &str = "redis-cli -e -h $ADAPTER_HOST -p $ADAPTER_PORT --rdb -";
const READY: &str = "redis-cli -e -h $ADAPTER_HOST -p $ADAPTER_PORT PING";
const SERVER: &str = "exec redis-server --bind $ADAPTER_HOST --port $ADAPTER_PORT --dir {}/data --save '' \
                      --appendonly no --repl-diskless-sync-delay 0";
const OPTIONS: &[&str] = &[
    "--start",
    "load",
    "--time-limit",
    "60000",
    "--ready-time-limit",
    "60000",
    "--quiesce",
    QUIESCE,
    "--resume",
    RESUME,
    "--dump",
    DUMP,
    "--load",
    "cat >{}/data/dump.rdb",
    "--ready",
    READY,
    "--",
    "sh",
    "-c",
    SERVER,
];

/// Whether there is a Redis; says so if not.
fn redis() -> bool {
    let there = Command::new("redis-server").arg("--version").output().is_ok();
    if !there {
        eprintln!("SKIPPED: redis-server is not installed (apt-get install redis-server)");
    }
    there
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn ask(at: SocketAddr, words: &[&str]) -> String {
    let (host, port) = (at.ip().to_string(), at.port().to_string());
    let output =
        Command::new("redis-cli").args(["-e", "-h", &host, "-p", &port]).args(words).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_moves_with_its_data() {
    if !redis() {
        return;
    }
    let (from, to) = (free(), free());
    let source = Pod::at(from, OPTIONS).await;
    source.begin(1).await;
    ask(from, &["SET", "greeting", "hello"]);
    ask(from, &["SET", "short", "lived", "PX", "3600000"]);
    ask(from, &["EVAL", "for i=1,1000 do redis.call('RPUSH','list',i) end", "0"]);
    // Bytes that do not compress to nothing.
    let fill = "for i=1,64 do redis.call('SET','b:'..i,string.rep(redis.sha1hex(i),6554)) end";
    ask(from, &["EVAL", fill, "0"]);
    // A move that is called off.
    let called_off = source.take(2).await;
    source.done("/v1/resume", json!({"epoch": 3})).await;
    assert_eq!(ask(from, &["INCR", "afterwards"]), "1", "writes go on");
    let began = Instant::now();
    let state = source.take(4).await;
    let taken = began.elapsed();
    assert!(state.seq > called_off.seq && state.bytes.starts_with(b"REDIS"));
    let target = Pod::at(to, OPTIONS).await;
    let began = Instant::now();
    target.apply(5, &state).await;
    target.go_on(5).await;
    println!("{} bytes: taken in {taken:?}, loaded and serving in {:?}", state.bytes.len(), began.elapsed());
    for (words, value) in [
        (&["GET", "greeting"][..], "hello"),
        (&["GET", "afterwards"], "1"),
        (&["LLEN", "list"], "1000"),
        (&["LINDEX", "list", "-1"], "1000"),
        (&["STRLEN", "b:64"], "262160"),
    ] {
        assert_eq!(ask(to, words), value, "{words:?}");
    }
    let left: u64 = ask(to, &["PTTL", "short"]).parse().unwrap();
    assert!((1..=3_600_000).contains(&left), "a key keeps its time: {left}");
    source.core.end().await;
    target.core.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_that_redis_cannot_read_ends_the_move_while_the_source_can_still_go_on() {
    if !redis() {
        return;
    }
    let at = free();
    let target = Pod::at(at, OPTIONS).await;
    let state = common::State { part: "dump".into(), bytes: b"not a dump".to_vec(), seq: 1 };
    let (status, answer) = target.give(2, &state, "Handover").await;
    assert!(status == 422 && answer["message"].as_str().unwrap().contains("before it served"), "{answer}");
    let activate = json!({"epoch": 2, "reason": "Handover", "initial": false});
    target.refused(409, "/v1/activate", activate).await;
}

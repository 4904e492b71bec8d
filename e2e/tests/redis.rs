//! An unmodified Redis moves with its data, under clients that never stop: the manifest of `examples/redis`, as it is.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use processhub_crds::{HubProcess, ProcessHub};
use processhub_e2e::site::{Site, SiteKind};
use processhub_e2e::wait::{Seen, until};
use processhub_local_cluster::CLUSTER_TESTS;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

const MANIFEST: &str = include_str!("../../examples/redis/hub.yaml");
const NAMESPACE: &str = "redis";
const PROCESS: &str = "redis-0";
const PORT: u16 = 6379;
const CLIENTS: usize = 4;
/// Bytes that weigh, in values of 1 MiB.
const BALLAST_MIB: usize = 16;
/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Whether there is a Redis, or it could be installed; why not.
fn redis() -> Result<(), String> {
    let there = || Path::new("/usr/bin/redis-server").exists() && Path::new("/usr/bin/redis-cli").exists();
    if there() {
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        return Err("redis-server is not installed, and only root may install it".into());
    }
    println!("installing redis-server");
    let installed = Command::new("apt-get")
        .args(["install", "--yes", "--no-install-recommends", "redis-server"])
        .env("DEBIAN_FRONTEND", "noninteractive")
        .output();
    match installed {
        Ok(_) if there() => Ok(()),
        Ok(output) => Err(format!(
            "redis-server could not be installed: {}",
            String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default()
        )),
        Err(error) => Err(format!("redis-server is not installed, and there is no apt-get: {error}")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_moves_with_its_data() -> Result<()> {
    if std::env::var(CLUSTER_TESTS).unwrap_or_default() != "embedded" {
        eprintln!(
            "SKIPPED: it needs a cluster in which this machine's Redis runs; set {CLUSTER_TESTS} to embedded"
        );
        return Ok(());
    }
    if let Err(why) = redis() {
        eprintln!("SKIPPED: {why}");
        return Ok(());
    }
    let site = Site::start(SiteKind::Embedded, 3).await?;
    let found = scenario(&site).await;
    if found.is_err() {
        site.keep_logs();
        if let Some(logs) = site.logs() {
            eprintln!("logs: {}", logs.display());
        }
    }
    let stopped = site.stop().await;
    println!("{}", found?);
    stopped
}

async fn scenario(site: &Site) -> Result<String> {
    let namespaces: Api<Namespace> = Api::all(site.client());
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    namespaces.create(&PostParams::default(), &serde_json::from_value(namespace)?).await?;
    let hubs: Api<ProcessHub> = Api::namespaced(site.client(), NAMESPACE);
    let hub: ProcessHub = serde_saphyr::from_str(MANIFEST)?;
    hubs.create(&PostParams::default(), &hub).await.context("the example's hub")?;
    let processes: Api<HubProcess> = Api::namespaced(site.client(), NAMESPACE);
    let first = until("the first owner", PATIENCE, async || {
        let process = processes.get(PROCESS).await?;
        Ok(ready(&process).map_or_else(|| Seen::NotYet(words(&process)), Seen::Yes))
    })
    .await?;
    let address = address(site).await?;
    until("an answer at its address", PATIENCE, async || {
        Redis::connect(address).await?.ask(&["PING"]).await?;
        Ok(Seen::Yes(()))
    })
    .await?;
    let mut redis = Redis::connect(address).await?;
    for number in 0..BALLAST_MIB {
        redis.ask(&["SET", &format!("ballast:{number}"), &pattern(number)]).await?;
    }
    drop(redis);

    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> =
        (0..CLIENTS).map(|client| tokio::spawn(work(client, address, Arc::clone(&stop)))).collect();
    let (mut owner, mut moves) = (first, Vec::new());
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let nodes = site.nodes().await?;
        let to = nodes.into_iter().find(|node| *node != owner).context("another node")?;
        let wish = json!({"metadata": {"annotations": {"processhub.io/move-to": to}}});
        processes.patch(PROCESS, &PatchParams::default(), &Patch::Merge(wish)).await?;
        let record = until("the move", PATIENCE, async || {
            let process = processes.get(PROCESS).await?;
            let status = process.status.clone().unwrap_or_default();
            let moved = ready(&process).as_ref() == Some(&to) && status.migration.is_none();
            Ok(match status.last_migration.filter(|_| moved) {
                Some(record) => Seen::Yes(record),
                None => Seen::NotYet(words(&process)),
            })
        })
        .await?;
        moves.push((record.bytes.unwrap_or_default(), record.blackout_milliseconds.unwrap_or_default()));
        owner = to;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    stop.store(true, Ordering::Relaxed);
    let mut told = Vec::new();
    for client in clients {
        told.push(client.await?);
    }
    judge(address, &told, &moves).await
}

/// Compares what clients were told with what Redis holds.
async fn judge(address: SocketAddr, told: &[Told], moves: &[(u64, u64)]) -> Result<String> {
    let mut redis = Redis::connect(address).await?;
    let (mut acknowledged, mut unknown, mut refused) = (0, 0, 0);
    let mut longest = Duration::ZERO;
    for (client, told) in told.iter().enumerate() {
        let found = redis.ask(&["LRANGE", &format!("log:{client}"), "0", "-1"]).await?;
        let Answer::List(found) = found else { bail!("LRANGE was answered {found:?}") };
        let mut times: BTreeMap<u64, u32> = BTreeMap::new();
        for number in found {
            *times.entry(number.parse()?).or_default() += 1;
        }
        let lost: Vec<_> = told.acknowledged.iter().filter(|number| !times.contains_key(number)).collect();
        ensure!(lost.is_empty(), "client {client}: acknowledged and lost: {lost:?}");
        let twice: Vec<_> = times.iter().filter(|(_, times)| **times > 1).collect();
        ensure!(twice.is_empty(), "client {client}: done twice: {twice:?}");
        let odd: Vec<_> = times
            .keys()
            .filter(|number| !told.acknowledged.contains(number) && !told.unknown.contains(number))
            .collect();
        ensure!(odd.is_empty(), "client {client}: nobody was told of {odd:?}");
        acknowledged += told.acknowledged.len();
        unknown += told.unknown.len();
        refused += told.refused;
        longest = longest.max(told.longest);
    }
    ensure!(acknowledged > 100, "the clients did next to nothing: {acknowledged}");
    for number in 0..BALLAST_MIB {
        let found = redis.ask(&["GET", &format!("ballast:{number}")]).await?;
        ensure!(found == Answer::Text(pattern(number)), "ballast {number} is not what was stored");
    }
    for (bytes, _) in moves {
        ensure!(*bytes > 0, "a move carried no state: {moves:?}");
    }
    Ok(format!(
        "{acknowledged} acknowledged, 0 lost, 0 done twice, {unknown} of unknown outcome, {refused} refused; moves \
         (bytes, blackout in ms) {moves:?}; longest gap of a client {} ms",
        longest.as_millis()
    ))
}

/// A value of 1 MiB that compresses badly enough to stay large.
fn pattern(number: usize) -> String {
    let mut state = number as u64 + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'!' + u8::try_from(state >> 58).unwrap())
    };
    (0..1 << 20).map(|_| next()).collect()
}

/// The owner's node, if it serves.
fn ready(process: &HubProcess) -> Option<String> {
    let status = process.status.as_ref()?;
    let serves =
        status.conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    status.owner.as_ref().filter(|_| serves).map(|owner| owner.node.clone())
}

fn words(process: &HubProcess) -> String {
    let conditions = process.status.iter().flat_map(|status| &status.conditions);
    conditions.map(|c| format!("{} {} {}: {}; ", c.type_, c.status, c.reason, c.message)).collect()
}

async fn address(site: &Site) -> Result<SocketAddr> {
    let services: Api<Service> = Api::namespaced(site.client(), NAMESPACE);
    let service = services.get(PROCESS).await?;
    let address = service.spec.and_then(|spec| spec.cluster_ip).context("a Service without an address")?;
    Ok(SocketAddr::new(address.parse()?, PORT))
}

/// What a client was told.
#[derive(Default)]
struct Told {
    acknowledged: BTreeSet<u64>,
    unknown: BTreeSet<u64>,
    refused: usize,
    /// The longest time between two acknowledgements.
    longest: Duration,
}

/// Appends numbers to a list of its own, each once; never sends one again. Every other client keeps its connection for as
/// long as it lasts.
async fn work(client: usize, address: SocketAddr, stop: Arc<AtomicBool>) -> Told {
    let (mut told, mut kept) = (Told::default(), None);
    let mut last = Instant::now();
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let connection = match kept.take() {
            Some(connection) => Ok(connection),
            None => Redis::connect(address).await,
        };
        let Ok(mut connection) = connection else {
            told.refused += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        match connection.ask(&["RPUSH", &format!("log:{client}"), &number.to_string()]).await {
            Ok(Answer::Number(_)) => {
                told.acknowledged.insert(number);
                told.longest = told.longest.max(last.elapsed());
                last = Instant::now();
                kept = client.is_multiple_of(2).then_some(connection);
            }
            Ok(_) => told.refused += 1,
            Err(_) => {
                told.unknown.insert(number);
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    told
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Text(String),
    Number(i64),
    List(Vec<String>),
    Refused(String),
}

/// A client of Redis, as small as it can be.
struct Redis(BufReader<TcpStream>);

impl Redis {
    async fn connect(address: SocketAddr) -> Result<Self> {
        Ok(Self(BufReader::new(TcpStream::connect(address).await?)))
    }

    async fn ask(&mut self, words: &[&str]) -> Result<Answer> {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        self.0.get_mut().write_all(request.as_bytes()).await?;
        timeout(PATIENCE, self.answer()).await.context("no answer")?
    }

    async fn answer(&mut self) -> Result<Answer> {
        let (kind, rest) = self.line().await?;
        Ok(match kind {
            '+' => Answer::Text(rest),
            '-' => Answer::Refused(rest),
            ':' => Answer::Number(rest.parse()?),
            '$' => Answer::Text(self.text(&rest).await?),
            '*' => {
                let mut list = Vec::new();
                for _ in 0..rest.parse::<usize>()? {
                    let (_, length) = self.line().await?;
                    list.push(self.text(&length).await?);
                }
                Answer::List(list)
            }
            other => bail!("an answer that begins with {other}"),
        })
    }

    async fn line(&mut self) -> Result<(char, String)> {
        let mut line = String::new();
        ensure!(self.0.read_line(&mut line).await? > 0, "the connection has ended");
        let line = line.trim_end();
        let kind = line.chars().next().context("an empty line")?;
        Ok((kind, line[1..].to_owned()))
    }

    async fn text(&mut self, length: &str) -> Result<String> {
        let mut text = vec![0; length.parse::<usize>()? + 2];
        self.0.read_exact(&mut text).await?;
        text.truncate(text.len() - 2);
        Ok(String::from_utf8(text)?)
    }
}

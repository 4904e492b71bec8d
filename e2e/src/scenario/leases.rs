//! Owners that serve by lease, and nodes that nobody hears of any more.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::DeleteParams;
use kube::{Api, ResourceExt};
use processhub_crds::Owner;
use serde_json::json;

use super::Finding;
use crate::load::{Operation, RemoteLoad, Target};
use crate::oracle::account;
use crate::site::{Signal, Site};
use crate::trial::{HubOptions, PORT, Trial};
use crate::wait::{Seen, until};

/// A node loses its power and nobody says so: it is taken over from all the same, what was on it alone is said to be missing,
/// and clients of the other nodes notice nothing.
pub(super) async fn a_lost_node_is_taken_over_by_lease(site: &Site) -> Result<Finding> {
    let (trial, joined, there) = begin(site, leased("lost-lease")).await?;
    let began = Instant::now();
    site.lose(&joined).await?;
    taken_over(&trial, &joined).await?;
    let took = began.elapsed();
    said_and_served(&trial, &there).await?;
    // What is left of it stands in the way of nobody, but the namespace could not be deleted.
    Api::<Node>::all(site.client()).delete(&joined, &DeleteParams::default()).await?;
    let names: Vec<&str> = there.iter().map(|(name, _)| name.as_str()).collect();
    let verdict = trial.finish_excusing(&names).await?;
    verdict.check_planned()?;
    Ok(format!("{} taken over after {:.1} s; {}", there.len(), took.as_secs_f64(), verdict.line()))
}

/// With replicas a lost node takes nothing that was acknowledged: neither of the processes that it owned, nor of those whose
/// replicas it held.
pub(super) async fn a_lost_node_with_replicas_loses_nothing(site: &Site) -> Result<Finding> {
    let name = "twice";
    let replicated = json!({"failover": "OnLease", "checkpoint": {"class": "Sync", "replicas": 1}});
    let (trial, joined, there) = begin(site, HubOptions::of(name, 8).spec(replicated)).await?;
    let all: Vec<String> = (0..8).map(|number| format!("{name}-{number}")).collect();
    for process in &all {
        trial.says(process, "StateDurable", "Replicated").await?;
    }
    trial.under_load(200).await?;
    let began = Instant::now();
    site.lose(&joined).await?;
    taken_over(&trial, &joined).await?;
    let took = began.elapsed();
    trial.under_load(200).await?;
    for process in &all {
        trial.says(process, "StateDurable", "Replicated").await?;
        let status = trial.processes().get(process).await?.status.unwrap_or_default();
        let said = status.may_miss;
        ensure!(said.is_none(), "{process} says that something may be missing: {said:?}");
        let sets = status.replicas.unwrap_or_default().sets;
        let on_it = sets.iter().flat_map(|set| &set.holders).any(|holder| holder.node == joined);
        ensure!(!on_it, "{process} still counts on a node that is lost: {sets:?}");
    }
    Api::<Node>::all(site.client()).delete(&joined, &DeleteParams::default()).await?;
    let verdict = trial.finish().await?;
    verdict.check()?;
    Ok(format!("{} taken over after {:.1} s; {}", there.len(), took.as_secs_f64(), verdict.line()))
}

/// A node is cut off and runs on, with clients of its own that go on asking its owners. By what the clients saw, the old
/// owner acknowledges nothing that was sent once the new one has answered anybody; when the cable is put back, the old pods
/// go.
pub(super) async fn a_cut_off_node_is_taken_over_by_lease(site: &Site) -> Result<Finding> {
    let (trial, joined, there) = begin(site, leased("cut-lease")).await?;
    let cut = cut_off(&trial, &joined, &there).await?;
    ensure!(cut.went_on, "an owner acknowledged nothing after the cut: nothing was tried");
    for (name, _) in &there {
        let status = trial.processes().get(name).await?.status.unwrap_or_default();
        ensure!(status.may_miss.is_some(), "{name} does not say what may be missing");
    }
    let names: Vec<&str> = there.iter().map(|(name, _)| name.as_str()).collect();
    let verdict = trial.finish_excusing(&names).await?;
    verdict.check_planned()?;
    Ok(format!("{}; {}", cut.words, verdict.line()))
}

/// The same where each answer waits for a replica: nothing is missing of what anybody was answered, on the node that was cut
/// off or elsewhere, before the cut or after it.
pub(super) async fn a_cut_off_node_with_replicas_loses_nothing(site: &Site) -> Result<Finding> {
    let replicated = json!({"failover": "OnLease", "checkpoint": {"class": "Sync", "replicas": 1}});
    let (mut trial, joined, there) = begin(site, HubOptions::of("cut-twice", 8).spec(replicated)).await?;
    for (name, _) in &there {
        trial.says(name, "StateDurable", "Replicated").await?;
    }
    let cut = cut_off(&trial, &joined, &there).await?;
    for (name, _) in &there {
        let said = trial.processes().get(name).await?.status.unwrap_or_default().may_miss;
        ensure!(said.is_none(), "{name} says that something may be missing: {said:?}");
    }
    let applied = trial.applied().await?;
    let of_both = account(&cut.history, &applied);
    ensure!(
        of_both.lost + of_both.duplicated == 0,
        "on the node and beside the load: {} lost {:?}, {} duplicated",
        of_both.lost,
        of_both.lost_by_process,
        of_both.duplicated
    );
    let verdict = trial.finish().await?;
    verdict.check()?;
    Ok(format!(
        "{}; {} more acknowledged on the node and beside the load, 0 lost; {}",
        cut.words,
        of_both.acknowledged,
        verdict.line()
    ))
}

/// What came of a cut.
struct Cut {
    /// What the clients on the node, and the impatient ones elsewhere, saw.
    history: Vec<Operation>,
    /// Whether each old owner acknowledged for a moment more.
    went_on: bool,
    /// When what happened.
    words: String,
}

/// Cuts the node off under load of its own, waits until it is taken over, and puts the cable back.
async fn cut_off(trial: &Trial<'_>, joined: &str, there: &[(String, Owner)]) -> Result<Cut> {
    let site = trial.site();
    let mut on_node = site.load_command_on(joined, "island")?;
    on_node.args(["--patience-milliseconds", "3000"]);
    let mut island = RemoteLoad::start(on_node)?;
    island.add(there.iter().map(target).collect::<Result<_>>()?).await?;
    let mut outside = impatient(trial, there).await?;
    let heard = island.operations();
    until("the clients on the node to begin", Duration::from_secs(30), async || {
        let so_far = island.operations() - heard;
        Ok(if so_far >= 20 * there.len() { Seen::Yes(()) } else { Seen::NotYet(so_far.to_string()) })
    })
    .await?;
    let began = Instant::now();
    site.plug(joined, false).await?;
    let cut = now();
    taken_over(trial, joined).await?;
    let took = began.elapsed();
    trial.under_load(200).await?;
    let first = answered(&outside, there, cut).await?;
    let last = island.peek(|history| of_each(history, |_| true, |one| one.sent, u64::max));
    let (mut margins, mut silences, mut went_on) = (Vec::new(), Vec::new(), true);
    for (name, _) in there {
        let last = *last.get(name).with_context(|| format!("nobody asked {name} on the node"))?;
        let first = *first.get(name).with_context(|| format!("nobody asked {name} elsewhere"))?;
        ensure!(last < first, "{name}: the old owner acknowledged what was sent {} us later", last - first);
        went_on &= last > cut;
        margins.push((first - last) / 1000);
        silences.push((first - cut) / 1000);
    }
    site.plug(joined, true).await?;
    site.node_ready(joined).await?;
    old_pods_gone(trial, there).await?;
    trial.settled().await?;
    let mut history = outside.finish().await?;
    history.extend(island.finish().await?);
    outside.stop().await?;
    island.stop().await?;
    let words = format!(
        "{} taken over after {:.1} s; clients elsewhere were answered after at most {} ms, and at least {} ms after the old \
         owner's last acknowledged request",
        there.len(),
        took.as_secs_f64(),
        silences.iter().max().unwrap_or(&0),
        margins.iter().min().unwrap_or(&0),
    );
    Ok(Cut { history, went_on, words })
}

/// Without operators nobody renews: every owner pauses when its lease has ended, requests wait, and go on with the next
/// leader. Nobody is taken over on the strength of that silence.
pub(super) async fn owners_pause_without_an_operator(site: &Site) -> Result<Finding> {
    let trial = Trial::begin(site, "pause-lease", leased("pause-lease"), None).await?;
    trial.under_load(200).await?;
    let before = trial.moves().len();
    let operators = site.operators().await?;
    for operator in &operators {
        site.signal_operator(operator, Signal::STOP).await?;
    }
    let silent = until("every owner to pause", Duration::from_secs(30), async || {
        let so_far = trial.load().operations();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let since = trial.load().operations() - so_far;
        Ok(if since == 0 { Seen::Yes(()) } else { Seen::NotYet(format!("{since} answers in two seconds")) })
    });
    let paused = silent.await;
    for operator in &operators {
        site.signal_operator(operator, Signal::CONT).await?;
    }
    paused?;
    trial.under_load(200).await?;
    trial.settled().await?;
    ensure!(trial.moves().len() == before, "moves because of a pause: {:?}", trial.moves());
    let verdict = trial.finish().await?;
    verdict.check()?;
    Ok(verdict.line())
}

fn leased(name: &str) -> HubOptions {
    HubOptions::of(name, 12).spec(json!({"failover": "OnLease"}))
}

/// A hub under load on all nodes, one of which has just joined and owns some processes.
async fn begin(site: &Site, options: HubOptions) -> Result<(Trial<'_>, String, Vec<(String, Owner)>)> {
    let joined = site.join().await?;
    let name = options.name.clone();
    let trial = Trial::begin(site, &name, options, None).await?;
    trial.balanced().await?;
    trial.settled().await?;
    let there = trial.owners_on(&joined).await?;
    ensure!(!there.is_empty(), "the node owns nothing");
    trial.under_load(200).await?;
    Ok((trial, joined, there))
}

async fn taken_over(trial: &Trial<'_>, node: &str) -> Result<()> {
    trial.evacuated(node).await?;
    trial.settled().await
}

/// Afterwards: what may be missing is said, and clients go on.
async fn said_and_served(trial: &Trial<'_>, there: &[(String, Owner)]) -> Result<()> {
    for (name, _) in there {
        let status = trial.processes().get(name).await?.status.unwrap_or_default();
        ensure!(status.may_miss.is_some(), "{name} does not say what may be missing");
    }
    trial.under_load(200).await
}

/// Further clients of these processes at their stable addresses, who wait for an answer no longer than most people do.
async fn impatient(trial: &Trial<'_>, there: &[(String, Owner)]) -> Result<RemoteLoad> {
    let mut command = trial.site().load_command(trial.namespace());
    command.args(["--run", "outside", "--pause-milliseconds", "50", "--patience-milliseconds", "1000"]);
    let mut load = RemoteLoad::start(command)?;
    let mut targets = Vec::new();
    for (process, _) in there {
        targets.push(Target { process: process.clone(), address: trial.address(process).await? });
    }
    load.add(targets).await?;
    Ok(load)
}

/// When each of them first answered what was sent after the cut.
async fn answered(load: &RemoteLoad, there: &[(String, Owner)], cut: u64) -> Result<BTreeMap<String, u64>> {
    until("clients elsewhere to be answered", Duration::from_secs(30), async || {
        let found = load.peek(|history| of_each(history, |one| one.sent > cut, |one| one.done, u64::min));
        let silent = there.iter().find(|(name, _)| !found.contains_key(name));
        Ok(silent.map_or(Seen::Yes(found), |(name, _)| Seen::NotYet(name.clone())))
    })
    .await
}

async fn old_pods_gone(trial: &Trial<'_>, there: &[(String, Owner)]) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(trial.site().client(), trial.namespace());
    until("the old pods to go", Duration::from_secs(90), async || {
        let present = pods.list(&Default::default()).await?.items;
        let old = |pod: &&Pod| there.iter().any(|(_, owner)| pod.metadata.uid.as_deref() == Some(&owner.uid));
        let left: Vec<_> = present.iter().filter(old).map(ResourceExt::name_any).collect();
        Ok(if left.is_empty() { Seen::Yes(()) } else { Seen::NotYet(left.join(", ")) })
    })
    .await
}

fn target((name, owner): &(String, Owner)) -> Result<Target> {
    let address = owner.ip.parse().with_context(|| format!("the address of {name}: {}", owner.ip))?;
    Ok(Target { process: name.clone(), address: SocketAddr::new(address, PORT) })
}

/// One figure of each process, of its acknowledged operations that count.
fn of_each(
    history: &[Operation],
    counts: impl Fn(&Operation) -> bool,
    figure: impl Fn(&Operation) -> u64,
    better: impl Fn(u64, u64) -> u64,
) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for one in history.iter().filter(|one| one.acknowledged().is_some() && counts(one)) {
        let entry = found.entry(one.process.clone()).or_insert_with(|| figure(one));
        *entry = better(*entry, figure(one));
    }
    found
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

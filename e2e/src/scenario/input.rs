//! Bad input: objects, workers and strangers. Each is refused with words, nothing is lost, nobody else is delayed.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::stream::{StreamExt, TryStreamExt};
use http::Request;
use kube::Client;
use processhub_crds::cases::{Case, Expect, beyond_bounds, rules};
use processhub_crds::{HubProcess, ProcessHub};
use processhub_protocol::wire::path;
use serde_json::{Value, json};

use super::Finding;
use crate::site::Site;
use crate::trial::{HubOptions, Trial};

/// Every rule and every bound of both resources, judged by the API server of this cluster.
pub(super) async fn objects_beyond_their_bounds_are_refused(site: &Site) -> Result<Finding> {
    let trial = Trial::begin(site, "bounds", HubOptions::of("bounds", 2), None).await?;
    let cases: Vec<Case> = rules().into_iter().chain(beyond_bounds()?).collect();
    let count = cases.len();
    let client = site.client();
    let wrong: Vec<String> = futures::stream::iter(cases.into_iter().enumerate())
        .map(|(index, case)| {
            let client = client.clone();
            async move {
                let name = case.name.clone();
                judge(client, "bounds", index, case).await.with_context(|| name)
            }
        })
        .buffer_unordered(8)
        .try_filter_map(|wrong| async { Ok(wrong) })
        .try_collect()
        .await?;
    ensure!(wrong.is_empty(), "{} of {count} cases: {}", wrong.len(), wrong.join("; "));
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    Ok(format!("{count} objects judged; {}", verdict.line()))
}

/// Sends one case as a dry run; what was wrong with the answer.
async fn judge(client: Client, namespace: &str, index: usize, case: Case) -> Result<Option<String>> {
    let Case { name, old, new, status, expect } = case;
    let plural = if new["kind"] == "ProcessHub" { "processhubs" } else { "hubprocesses" };
    let base = format!("/apis/processhub.io/v1alpha1/namespaces/{namespace}/{plural}");
    let answer = if old.is_none() && !status {
        send(&client, "POST", &format!("{base}?dryRun=All&fieldValidation=Strict"), &new).await
    } else {
        let own = format!("{base}/case-{index}");
        store(&client, &base, &format!("case-{index}"), old, &new).await?;
        let answer = change(&client, &own, if status { "/status" } else { "" }, new, true).await;
        send(&client, "DELETE", &own, &Value::Null).await?;
        answer
    };
    Ok(match (answer, expect) {
        (Ok(_), Expect::Accepted) => None,
        (Ok(_), Expect::Refused(words)) => Some(format!("{name}: accepted, not refused with {words:?}")),
        (Err(error), Expect::Accepted) => Some(format!("{name}: refused: {error:#}")),
        (Err(error), Expect::Refused(words)) => {
            let said = format!("{error:#}");
            (!said.contains(field(&words))).then(|| format!("{name}: {words:?} is not in {said:?}"))
        }
    })
}

/// Creates what a case changes; without it, what the case sends but for the status.
async fn store(client: &Client, base: &str, own: &str, old: Option<Value>, new: &Value) -> Result<()> {
    let mut object = old.clone().unwrap_or_else(|| new.clone());
    object["metadata"]["name"] = own.into();
    // No operator is to touch it.
    if object["kind"] == "ProcessHub" {
        object["spec"]["className"] = "nobody".into();
    }
    let state = object.as_object_mut().and_then(|object| object.remove("status"));
    send(client, "POST", base, &object).await.context("the object before")?;
    if let (Some(_), Some(state)) = (old, state) {
        object["status"] = state;
        change(client, &format!("{base}/{own}"), "/status", object, false)
            .await
            .context("its status before")?;
    }
    Ok(())
}

/// Replaces an object, as it stands now.
async fn change(client: &Client, own: &str, part: &str, mut object: Value, dry: bool) -> Result<Value> {
    let query = if dry { "?dryRun=All&fieldValidation=Strict" } else { "" };
    for _ in 0..8 {
        let stored: Value = send(client, "GET", own, &Value::Null).await?;
        for field in ["name", "resourceVersion"] {
            object["metadata"][field] = stored["metadata"][field].clone();
        }
        match send(client, "PUT", &format!("{own}{part}{query}"), &object).await {
            // The operator says something about a process without a hub.
            Err(error) if format!("{error:#}").contains("the object has been modified") => {}
            answer => return answer,
        }
    }
    bail!("the object changes all the time")
}

/// The unit tests name a field as the schema does; the API server words the rest in its own way.
fn field(words: &str) -> &str {
    words.split_once(": ").map_or(words, |(field, _)| field)
}

async fn send(client: &Client, method: &str, path: &str, body: &Value) -> Result<Value> {
    let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(body)? };
    let request =
        Request::builder().method(method).uri(path).header("content-type", "application/json").body(body)?;
    Ok(client.request::<Value>(request).await?)
}

/// A second hub wants names that are taken, and a process of a hub that is none.
pub(super) async fn names_that_are_taken(site: &Site) -> Result<Finding> {
    let trial = Trial::begin(site, "taken", HubOptions::of("taken", 2), None).await?;
    let uid = trial.processes().get("taken-0").await?.metadata.uid;
    let mut second = HubOptions::of("second", 0);
    second.spec = json!({"processes": [{"name": "taken-0"}, {"name": "free"}]});
    trial.create_hub(&second).await?;
    let said = trial.hub_says("second", "Degraded", "already_started").await?;
    ensure!(said.message.contains("taken-0"), "it does not say which: {}", said.message);
    trial.process_settled("free").await?;
    ensure!(trial.processes().get("taken-0").await?.metadata.uid == uid, "the name was taken over");
    let orphan: HubProcess = serde_json::from_value(json!({
        "apiVersion": "processhub.io/v1alpha1", "kind": "HubProcess",
        "metadata": {"name": "lonely"}, "spec": {"hubName": "nowhere"},
    }))?;
    trial.processes().create(&kube::api::PostParams::default(), &orphan).await?;
    trial.says("lonely", "Ready", "HubNotFound").await?;
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    Ok(said.message)
}

/// Templates that pass the schema and cannot be used: the hub says so in words and starts nothing.
pub(super) async fn templates_that_cannot_be_used(site: &Site) -> Result<Finding> {
    let trial = Trial::begin(site, "templates", HubOptions::of("templates", 2), None).await?;
    let bad = [
        ("reserved", "PreStopReserved", json!({"lifecycle": {"preStop": {"sleep": {"seconds": 1}}}})),
        ("refused", "TemplateInvalid", json!({"image": "counter", "ports": [{"containerPort": 70_000}]})),
    ];
    let mut said = Vec::new();
    for (name, reason, over) in bad {
        let mut hub: Value = serde_json::to_value(trial.hubs().get("templates").await?)?;
        hub["metadata"] = json!({"name": name});
        hub["status"] = Value::Null;
        let worker = &mut hub["spec"]["template"]["spec"]["containers"][0];
        for (key, value) in over.as_object().into_iter().flatten() {
            worker[key] = value.clone();
        }
        let hub: ProcessHub = serde_json::from_value(hub)?;
        trial.hubs().create(&kube::api::PostParams::default(), &hub).await?;
        said.push(trial.hub_says(name, "Accepted", reason).await?.message);
    }
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    Ok(said.join("; "))
}

/// Answers of the contract that are too large, too slow, cut short, not JSON, of another version: each move ends with
/// a reason, the process serves on, and one that is well moves meanwhile.
pub(super) async fn workers_that_answer_nonsense(site: &Site) -> Result<Finding> {
    const FAULTS: &[&str] = &[
        "mangle=capture:too-large",
        "mangle=capture:too-slow",
        "mangle=capture:cut-short",
        "mangle=capture:not-json",
        "mangle=read:cut-short",
        "mangle=read:too-large",
        "mangle=suspend:too-slow",
        "refuse=capture",
    ];
    let count = u32::try_from(FAULTS.len())?;
    let options = HubOptions::of("nonsense", count + 1)
        .environment("COUNTER_FAULTS_BY_CLIENTS", "true")
        .spec(json!({"migration": {"stateQueryTimeoutMilliseconds": 1000, "stateTTLMilliseconds": 4000}}));
    let mut trial = Trial::begin(site, "nonsense", options, None).await?;
    let mut epochs = Vec::new();
    for (index, faults) in FAULTS.iter().enumerate() {
        let process = format!("nonsense-{index}");
        trial.set_faults(&process, faults).await?;
        epochs.push(trial.epoch(&process).await?);
        trial.wish_away(&process).await?;
    }
    let well = format!("nonsense-{count}");
    let to = trial.wish_away(&well).await?;
    trial.owned_by(&well, &to).await?;
    let mut reasons = Vec::new();
    for (index, (faults, epoch)) in FAULTS.iter().zip(epochs).enumerate() {
        let process = format!("nonsense-{index}");
        let ended = trial.swap_ended(&process, epoch).await.with_context(|| (*faults).to_owned())?;
        reasons.push(format!("{faults} {} {}", ended.result, ended.reason.unwrap_or_default()));
        trial.process_settled(&process).await.with_context(|| (*faults).to_owned())?;
    }
    for index in 0..FAULTS.len() {
        trial.set_faults(&format!("nonsense-{index}"), "").await?;
    }
    trial.under_load(300).await?;
    let verdict = trial.finish().await?;
    verdict.check()?;
    Ok(format!("{}; {}", reasons.join(", "), verdict.line()))
}

/// A worker of another version of the contract is not started, and delays no other hub.
pub(super) async fn a_worker_of_another_contract(site: &Site) -> Result<Finding> {
    let trial = Trial::begin(site, "version", HubOptions::of("known", 2), None).await?;
    trial.create_hub(&HubOptions::of("foreign", 1).faults("mangle=info:other-version")).await?;
    let said = trial.says("foreign-0", "HandoverCapable", "ContractVersion").await?;
    trial.hub_says("foreign", "Degraded", "ContractVersion").await?;
    let to = trial.wish_away("known-0").await?;
    trial.owned_by("known-0", &to).await?;
    trial.settled().await?;
    let status = trial.processes().get("foreign-0").await?.status.unwrap_or_default();
    ensure!(status.owner.is_none(), "it owns its process: {:?}", status.owner);
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    Ok(format!("{}; {}", said.message, verdict.line()))
}

/// Commands without a token, with a wrong one, for another pod, of an epoch that is over, too large, of no sense.
pub(super) async fn a_stranger_commands_the_sidecar(site: &Site) -> Result<Finding> {
    let mut trial = Trial::begin(site, "stranger", HubOptions::of("stranger", 2), None).await?;
    let owner = trial.owner("stranger-0").await?;
    let other = trial.owner("stranger-1").await?;
    let (mine, others) = (trial.token(&owner.pod).await?, trial.token(&other.pod).await?);
    let uid = trial.processes().get("stranger-0").await?.metadata.uid;
    let freeze = |epoch: u64, pod: &str| {
        json!({
            "to": {"process": uid, "pod": pod}, "epoch": epoch, "capture": true,
            "drainTimeoutMilliseconds": 100, "stateQueryTimeoutMilliseconds": 100,
        })
        .to_string()
    };
    let fresh = owner.epoch + 100;
    let tries = [
        ("no token", None, path::FREEZE, freeze(fresh, &owner.uid), 401),
        ("a made-up token", Some("00".repeat(32)), path::FREEZE, freeze(fresh, &owner.uid), 401),
        ("another pod's token", Some(others), path::FREEZE, freeze(fresh, &owner.uid), 401),
        ("a command for another pod", Some(mine.clone()), path::FREEZE, freeze(fresh, &other.uid), 409),
        ("an epoch that is over", Some(mine.clone()), path::FREEZE, freeze(owner.epoch, &owner.uid), 409),
        ("half a command", Some(mine.clone()), path::FREEZE, "{\"to\":".to_owned(), 400),
        ("another command's body", Some(mine.clone()), path::THAW, freeze(fresh, &owner.uid), 400),
        ("three megabytes", Some(mine.clone()), path::FREEZE, " ".repeat(3 << 20), 400),
        ("an unknown command", Some(mine), "/v1/self-destruct", "{}".to_owned(), 404),
    ];
    for (what, token, path, body, wanted) in tries {
        let answer = trial.command(&owner.pod, token, "POST", path, body).await;
        match answer {
            Ok(answer) if answer.status == wanted => {
                if wanted != 404 {
                    let refusal: Value = serde_json::from_str(&answer.body).context(what)?;
                    ensure!(refusal["message"].as_str().is_some_and(|m| !m.is_empty()), "{what}: {refusal}");
                }
            }
            Ok(answer) => bail!("{what}: {} instead of {wanted}: {}", answer.status, answer.body),
            // A server may close the connection on a body that it does not want to read.
            Err(error) if what == "three megabytes" => drop(error),
            Err(error) => return Err(error.context(what)),
        }
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    trial.under_load(200).await?;
    ensure!(trial.owner("stranger-0").await?.uid == owner.uid, "the owner changed");
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    Ok(format!("9 commands refused; {}", verdict.line()))
}

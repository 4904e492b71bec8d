//! The account of the examples changes its code under load, in Rust and in Python: up, down, from 1 to 3 through 2, and not
//! where a state would lose something.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::Finding;
use super::upgrades::running;
use crate::artifacts::python;
use crate::site::Site;
use crate::trial::{Example, HubOptions, Trial};

/// What comes along with the upgrade from 1 to 2, for everyone.
const BONUS: u64 = 1000;

pub(super) async fn an_account_in_rust_changes_its_code(site: &Site) -> Result<Finding> {
    life(site, "rust", Example::Account).await
}

pub(super) async fn an_account_in_python_changes_its_code(site: &Site) -> Result<Finding> {
    if python().is_none() {
        return Ok("not tried: this machine has no python3".to_owned());
    }
    life(site, "python", Example::PythonAccount).await
}

/// Gives the hub the code of that version.
async fn give(trial: &Trial<'_>, hub: &str, vsn: &str) -> Result<()> {
    let mut template = serde_json::to_value(trial.hubs().get(hub).await?.spec.template)?;
    let environment = template["spec"]["containers"][0]["env"].as_array_mut().context("no environment")?;
    let version = environment.iter_mut().find(|variable| variable["name"] == "ACCOUNT_VSN");
    version.context("no ACCOUNT_VSN")?["value"] = vsn.into();
    trial.change(json!({"vsn": vsn, "template": template})).await
}

/// Gives it and waits until all processes run it.
async fn become_all(trial: &Trial<'_>, hub: &str, vsn: &str) -> Result<()> {
    give(trial, hub, vsn).await?;
    trial.upgraded(hub, 3).await?;
    trial.settled().await?;
    ensure!(running(trial, vsn).await?.len() == 3, "not all run {vsn}");
    trial.under_load(100).await
}

async fn balance(trial: &mut Trial<'_>, process: &str) -> Result<Value> {
    let answer = trial.ask(process, "GET", "/balance", "").await?.answer().await?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.body);
    Ok(serde_json::from_str(&answer.body)?)
}

async fn life(site: &Site, name: &str, example: Example) -> Result<Finding> {
    let hub = format!("{name}-account");
    let (first, second) = (format!("{hub}-0"), format!("{hub}-1"));
    let spec = json!({"vsn": "1", "upgrade": {"extra": {"bonus": BONUS}}});
    let options = HubOptions::of(&hub, 3).example(example).spec(spec).environment("ACCOUNT_VSN", "1");
    let mut trial = Trial::begin(site, &hub, options, None).await?;
    trial.upgraded(&hub, 3).await?;
    trial.under_load(100).await?;
    let before = balance(&mut trial, &first).await?;
    ensure!(before.is_u64(), "version 1 answers {before}");

    become_all(&trial, &hub, "2").await?;
    let renamed = balance(&mut trial, &first).await?;
    ensure!(
        renamed["salary"].as_u64() >= before.as_u64().map(|money| money + BONUS),
        "{before}, then {renamed}"
    );
    become_all(&trial, &hub, "1").await?;
    ensure!(balance(&mut trial, &first).await?.is_u64(), "back in 1");
    become_all(&trial, &hub, "3").await?;
    let now = balance(&mut trial, &first).await?;
    ensure!(now["currency"] == "EUR" && now["salary"].as_u64() >= Some(2 * BONUS), "from 1 to 3: {now}");

    // The second one holds what version 2 cannot: the third goes back, the second does not, the first is not touched.
    let told = trial.ask(&second, "PUT", "/currency", "usd").await?.answer().await?;
    ensure!((200..300).contains(&told.status), "{} {}", told.status, told.body);
    give(&trial, &hub, "2").await?;
    let words = trial.hub_says(&hub, "Degraded", "UpgradeFailed").await?.message;
    ensure!(words.starts_with(&format!("{second} (3->2)")) && words.contains("currency"), "{words}");
    trial.event(&hub, "UpgradeFailed").await?;
    trial.settled().await?;
    trial.under_load(100).await?;
    ensure!(running(&trial, "3").await? == [first.clone(), second.clone()], "not only the third went back");
    ensure!(balance(&mut trial, &second).await?["currency"] == "USD", "the state of the one that stayed");

    become_all(&trial, &hub, "3").await?;
    trial.hub_says(&hub, "Degraded", "AsExpected").await?;
    ensure!(balance(&mut trial, &second).await?["currency"] == "USD", "the state of the one that stayed");
    let verdict = trial.finish().await?;
    verdict.check_planned()?;
    Ok(format!("{words}; {}", verdict.line()))
}

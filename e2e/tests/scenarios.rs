//! Runs the scenarios on the clusters that there are, as tests of their own names, on one cluster each.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use libtest_mimic::{Arguments, Failed, Trial};
use processhub_e2e::scenario::{ALL, Scenario};
use processhub_e2e::site::{Site, SiteKind};
use processhub_e2e::trial::Broken;
use processhub_local_cluster::CLUSTER_TESTS;
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;
use tokio::time::timeout;

/// Nothing takes so long; whoever does hangs.
const BOUND: Duration = Duration::from_secs(300);

/// A cluster that the first scenario starts and the last one leaves to the end of the process.
struct Ground {
    kind: SiteKind,
    runtime: Runtime,
    site: OnceCell<Site>,
}

impl Ground {
    fn new(kind: SiteKind) -> anyhow::Result<Arc<Self>> {
        Ok(Arc::new(Self { kind, runtime: Runtime::new()?, site: OnceCell::new() }))
    }

    /// Two tries: a machine that is shared and slow may miss a bound. A broken promise is never tried again, and a
    /// second try is said.
    fn run(&self, scenario: &Scenario) -> Result<(), Failed> {
        match self.attempt(scenario) {
            Err(error) if !Broken::is_cause_of(&error) => {
                println!("{}: FLAKY, a second try after: {error:#}", scenario.name);
                self.attempt(scenario)
            }
            other => other,
        }
        .map_err(|error| format!("{error:#}").into())
    }

    fn attempt(&self, scenario: &Scenario) -> anyhow::Result<()> {
        let began = Instant::now();
        let found: anyhow::Result<String> = self.runtime.block_on(async {
            let site = self.site.get_or_try_init(|| Site::start(self.kind, 3)).await?;
            let found = timeout(BOUND, (scenario.run)(site)).await.context("it hangs").flatten();
            if found.is_err() {
                site.keep_logs();
                eprintln!("logs: {}", site.logs().display());
            }
            // What failed first is what counts.
            let tidied = site.tidy().await;
            let found = found?;
            tidied.context("afterwards")?;
            Ok(found)
        });
        let took = began.elapsed().as_secs_f64();
        match found {
            Ok(found) => {
                println!("{} ({took:.0} s): {found}", scenario.name);
                Ok(())
            }
            Err(error) => {
                // At once, for whoever watches; the runner says it again at the end.
                println!("{} failed after {took:.0} s: {error:#}", scenario.name);
                Err(error)
            }
        }
    }
}

fn main() -> anyhow::Result<()> {
    let mut arguments = Arguments::from_args();
    // The scenarios of one cluster change its nodes: one after another.
    arguments.test_threads = Some(1);
    let wanted = std::env::var(CLUSTER_TESTS).unwrap_or_default();
    let mut grounds = Vec::new();
    match wanted.as_str() {
        "embedded" => grounds.push(("embedded", Ground::new(SiteKind::Embedded)?)),
        "local" => grounds.push(("local", Ground::new(SiteKind::Local)?)),
        _ => eprintln!(
            "SKIPPED scenarios: they need a cluster; set {CLUSTER_TESTS} to embedded, or to local (as root)"
        ),
    }
    let trials = grounds
        .iter()
        .flat_map(|(prefix, ground)| {
            ALL.iter().map(move |scenario| {
                let ground = Arc::clone(ground);
                let name = match scenario.left_out_on(ground.kind) {
                    None => format!("{prefix}::{}", scenario.name),
                    Some(why) => format!("{prefix}::{} (skipped: {why})", scenario.name),
                };
                let left_out = scenario.left_out_on(ground.kind).is_some();
                Trial::test(name, move || ground.run(scenario)).with_ignored_flag(left_out)
            })
        })
        .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    for (_, ground) in grounds {
        if let Some(Ground { runtime, site, .. }) = Arc::into_inner(ground)
            && let Some(site) = site.into_inner()
        {
            runtime.block_on(site.stop())?;
        }
    }
    conclusion.exit()
}

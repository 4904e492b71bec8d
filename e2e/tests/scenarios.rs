//! Runs the scenarios on the cluster that `PROCESSHUB_CLUSTER_TESTS` names, as tests of their own names. Those that
//! touch only their own namespace run beside each other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::future::Either;
use libtest_mimic::{Arguments, Failed, Trial};
use processhub_e2e::scenario::{ALL, Company, Scenario};
use processhub_e2e::site::{Site, SiteKind};
use processhub_e2e::trial::Broken;
use processhub_local_cluster::CLUSTER_TESTS;
use tokio::runtime::Runtime;
use tokio::sync::{OnceCell, RwLock};
use tokio::time::timeout;

/// How many run at once, unless the command line says otherwise: they wait for the most part, yet each has its load.
const BESIDE: usize = 2;
/// How often a scenario is tried in all.
const TRIES: usize = 3;
/// Nothing takes so long; whoever does hangs.
const BOUND: Duration = Duration::from_secs(450);

/// A cluster that the first scenario starts and the last one leaves to the end of the process.
struct Ground {
    kind: SiteKind,
    runtime: Runtime,
    site: OnceCell<Site>,
    /// Shared by scenarios that run beside each other; one that is alone has it to itself.
    company: RwLock<()>,
}

impl Ground {
    fn new(kind: SiteKind) -> anyhow::Result<Arc<Self>> {
        Ok(Arc::new(Self { kind, runtime: Runtime::new()?, site: OnceCell::new(), company: RwLock::new(()) }))
    }

    /// A machine that is shared and slow may miss a bound, and clients' networks there learn of an address late. A broken
    /// promise is never tried again, and every further try is said.
    fn run(&self, scenario: &Scenario) -> Result<(), Failed> {
        for attempt in 2..=TRIES {
            match self.attempt(scenario) {
                Err(error) if !Broken::is_cause_of(&error) => {
                    println!("{}: FLAKY, try {attempt} after: {error:#}", scenario.name);
                }
                other => return other.map_err(|error| format!("{error:#}").into()),
            }
        }
        self.attempt(scenario).map_err(|error| format!("{error:#}").into())
    }

    fn attempt(&self, scenario: &Scenario) -> anyhow::Result<()> {
        let mut began = Instant::now();
        let found: anyhow::Result<String> = self.runtime.block_on(async {
            let site = self.site.get_or_try_init(|| Site::start(self.kind, 3)).await?;
            let site = site.beside();
            let _company = match scenario.company {
                Company::Welcome => Either::Left(self.company.read().await),
                Company::Alone => Either::Right(self.company.write().await),
            };
            began = Instant::now();
            let found = timeout(BOUND, (scenario.run)(&site)).await.context("it hangs").flatten();
            if found.is_err() {
                site.keep_logs();
                if let Some(logs) = site.logs() {
                    eprintln!("logs: {}", logs.display());
                }
            }
            // What failed first is what counts.
            let tidied = match scenario.company {
                Company::Welcome => site.tidy_own().await,
                Company::Alone => site.tidy().await,
            };
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
    arguments.test_threads.get_or_insert(BESIDE);
    let wanted = std::env::var(CLUSTER_TESTS).unwrap_or_default();
    let ground = match wanted.as_str() {
        "embedded" => Some(("embedded", Ground::new(SiteKind::Embedded)?)),
        "local" => Some(("local", Ground::new(SiteKind::Local)?)),
        _ => {
            eprintln!(
                "SKIPPED scenarios: they need a cluster; set {CLUSTER_TESTS} to embedded, or to local (as root)"
            );
            None
        }
    };
    let trials = ground.as_ref().map_or_else(Vec::new, |(prefix, ground)| trials(prefix, ground));
    let conclusion = libtest_mimic::run(&arguments, trials);
    if let Some((_, ground)) = ground
        && let Some(Ground { runtime, site, .. }) = Arc::into_inner(ground)
        && let Some(site) = site.into_inner()
    {
        runtime.block_on(site.stop())?;
    }
    conclusion.exit()
}

fn trials(prefix: &str, ground: &Arc<Ground>) -> Vec<Trial> {
    let mut trials = Vec::new();
    for scenario in ALL {
        if let Some(why) = scenario.impossible_on(ground.kind) {
            eprintln!("SKIPPED {prefix}::{}: {why}", scenario.name);
            continue;
        }
        let left_out = scenario.left_out_on(ground.kind);
        let why = left_out.map_or_else(String::new, |why| format!(" (skipped: {why})"));
        let ground = Arc::clone(ground);
        let trial = Trial::test(format!("{prefix}::{}{why}", scenario.name), move || ground.run(scenario));
        trials.push(trial.with_ignored_flag(left_out.is_some()));
    }
    trials
}

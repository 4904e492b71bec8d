//! Runs the scenarios on the clusters that there are, as tests of their own names, on one cluster each.

use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};
use processhub_e2e::scenario::ALL;
use processhub_e2e::site::{Site, SiteKind};
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

/// A cluster that the first scenario starts and the last one leaves to the end of the process.
struct Ground {
    kind: SiteKind,
    runtime: Runtime,
    site: OnceCell<Site>,
}

impl Ground {
    fn run(&self, scenario: &processhub_e2e::scenario::Scenario) -> Result<(), Failed> {
        let found: anyhow::Result<String> = self.runtime.block_on(async {
            let site = self.site.get_or_try_init(|| Site::start(self.kind, 3)).await?;
            (scenario.run)(site).await
        });
        match found {
            Ok(found) => {
                println!("{}: {found}", scenario.name);
                Ok(())
            }
            Err(error) => Err(format!("{error:#}").into()),
        }
    }
}

fn main() -> anyhow::Result<()> {
    let mut arguments = Arguments::from_args();
    // The scenarios of one cluster change its nodes: one after another.
    arguments.test_threads = Some(1);
    let mut grounds = Vec::new();
    if processhub_local_cluster::wanted("scenarios on the local cluster") {
        grounds.push((
            "local",
            Arc::new(Ground { kind: SiteKind::Local, runtime: Runtime::new()?, site: OnceCell::new() }),
        ));
    }
    let trials = grounds
        .iter()
        .flat_map(|(prefix, ground)| {
            ALL.iter().map(move |scenario| {
                let ground = Arc::clone(ground);
                Trial::test(format!("{prefix}::{}", scenario.name), move || ground.run(scenario))
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

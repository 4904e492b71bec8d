//! How large the programs are, and how much memory they hold when nothing happens, as they are released.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::ResourceExt;
use kube::api::ListParams;
use rustix::process::Pid;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::artifacts::Binaries;
use crate::oracle::Percentiles;
use crate::site::{SIDECAR, Site, SiteKind};
use crate::trial::{HubOptions, Trial};

const MIB: f64 = 1024.0 * 1024.0;
/// How long nothing happens before memory is looked at.
const CALM: Duration = Duration::from_secs(20);

/// What is measured.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Where it runs
    #[arg(long, value_enum, default_value = "embedded")]
    cluster: SiteKind,
    /// Processes of the hub that the operator holds and whose sidecars are looked at
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=200))]
    processes: u32,
}

/// Measures and prints. Asserts nothing: the limits stand beside the figures.
///
/// # Errors
/// When it cannot be built, or the cluster does not come up.
pub async fn run(options: Options) -> Result<()> {
    ensure!(
        options.cluster.owns_nodes(),
        "it looks at processes of this machine: --cluster embedded or local"
    );
    let binaries = spawn_blocking(Binaries::release).await??;
    for (name, limit) in
        [("processhub-sidecar", " (limit 5 MB)"), ("processhub-operator", ""), ("counter", "")]
    {
        let bytes = std::fs::metadata(binaries.path(name)).with_context(|| name.to_owned())?.len();
        println!("{name:<20} {:>6.2} MB{limit}", bytes as f64 / 1e6);
    }
    let site = Site::start_with(options.cluster, 3, binaries).await?;
    super::on(site, async |site| measure(site, options.processes).await).await
}

async fn measure(site: &Site, processes: u32) -> Result<()> {
    let trial = Trial::create(site, "footprint", HubOptions::of("footprint", processes), None).await?;
    trial.settled().await?;
    sleep(CALM).await;
    let mut sidecars = Vec::new();
    for process in trial.processes().list(&ListParams::default()).await? {
        let owner = trial.owner(&process.name_any()).await?;
        let pids = site.processes(trial.namespace(), &owner.pod, SIDECAR).await?;
        sidecars.push(Memory::of(&pids)?);
    }
    print("sidecar", " (limit 8 MiB)", &sidecars);
    for operator in site.operators().await? {
        let leads = if operator == site.leader().await? { "operator, leading" } else { "operator, waiting" };
        print(leads, "", &[Memory::of(&site.processes_of_operator(&operator).await?)?]);
    }
    Ok(())
}

fn print(what: &str, limit: &str, of: &[Memory]) {
    let spread =
        |part: fn(&Memory) -> u64| Percentiles::of(of.iter().map(|m| part(m) as f64 / MIB).collect());
    let (resident, own) = (spread(|m| m.resident), spread(|m| m.own));
    println!(
        "{what:<20} resident {:.1} MiB (max {:.1}), of which its own {:.1} (max {:.1}){limit}",
        resident.p50, resident.max, own.p50, own.max
    );
}

/// Memory of some processes together, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Memory {
    /// With the pages of the program's file, which all its processes share.
    resident: u64,
    /// Without them.
    own: u64,
}

impl Memory {
    fn of(pids: &[Pid]) -> Result<Self> {
        let mut sum = Self::default();
        for pid in pids {
            let path = Path::new("/proc").join(pid.as_raw_nonzero().to_string()).join("status");
            let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            let one = Self::read(&text).with_context(|| format!("no memory in {}", path.display()))?;
            sum = Self { resident: sum.resident + one.resident, own: sum.own + one.own };
        }
        Ok(sum)
    }

    fn read(status: &str) -> Option<Self> {
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
        };
        Some(Self { resident: field("VmRSS")?, own: field("RssAnon")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_says() {
        let status = "Name:\tx\nVmRSS:\t    2048 kB\nRssAnon:\t 512 kB\n";
        assert_eq!(Memory::read(status), Some(Memory { resident: 2 << 20, own: 512 << 10 }));
        assert_eq!(Memory::read("Name:\tx\n"), None);
    }

    #[test]
    fn this_process_holds_memory() {
        let memory = Memory::of(&[rustix::process::getpid()]).unwrap();
        assert!(memory.resident > memory.own && memory.own > 0);
    }
}

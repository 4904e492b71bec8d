//! `cargo xtask test`: every check there is, in the order in which a mistake is found soonest.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use processhub_e2e::scenario::{ALL, Scenario};
use processhub_e2e::site::SiteKind;
use processhub_local_cluster::CLUSTER_TESTS;

/// Checks formatting, lints, documentation and dependencies, and runs all tests.
#[derive(clap::Args)]
pub struct Arguments {
    /// Leaves out everything that needs a cluster
    #[arg(long)]
    quick: bool,
    /// Every scenario on both clusters instead of on one of them, and 1 000 processes at once
    #[arg(long, conflicts_with = "quick")]
    full: bool,
}

/// What the steps came to.
#[derive(Default)]
struct Summary {
    steps: Vec<(String, Duration)>,
    skipped: Vec<String>,
    flaky: Vec<String>,
    passed: u64,
    ignored: u64,
}

/// Runs all steps, and stops at the first that fails.
///
/// # Errors
/// When a step fails; its own output says why.
pub fn run(arguments: &Arguments) -> Result<()> {
    let mut summary = Summary::default();
    let result = steps(arguments, &mut summary);
    summary.print();
    // The plain closing line that every runner of tests understands.
    println!("{} passed, {} failed, {} skipped", summary.passed, u8::from(result.is_err()), summary.ignored);
    result
}

fn steps(arguments: &Arguments, summary: &mut Summary) -> Result<()> {
    summary.step("formatting", cargo(["fmt", "--all", "--check"]))?;
    summary.step(
        "lints",
        cargo(["clippy", "--workspace", "--all-targets", "--quiet", "--", "--deny", "warnings"]),
    )?;
    let mut documentation = cargo(["doc", "--workspace", "--no-deps", "--quiet"]);
    documentation.env("RUSTDOCFLAGS", "--deny warnings");
    summary.step("documentation", documentation)?;
    dependencies(summary)?;
    let mut tests = cargo(["test", "--workspace", "--no-fail-fast"]);
    tests.env_remove(CLUSTER_TESTS);
    summary.step("tests without a cluster", tests)?;
    if Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_err() {
        summary
            .skip("the adapter in front of a real Redis: needs redis-server (apt-get install redis-server)");
    }
    python(summary)?;
    if arguments.quick {
        summary.skip("clusters: --quick");
        return Ok(());
    }
    let no_local = local_cluster_impossible();
    let mut embedded = scenarios("embedded", arguments.full);
    if !arguments.full && no_local.is_none() {
        // Each scenario once: on real kubelets where it is usual there, because they show more.
        let usual_there =
            |it: &&Scenario| it.impossible_on(SiteKind::Local).or(it.left_out_on(SiteKind::Local)).is_none();
        embedded.arg("--exact");
        for scenario in ALL.iter().filter(usual_there) {
            embedded.args(["--skip", &format!("embedded::{}", scenario.name)]);
        }
        summary.skip(
            "every scenario's run on the other cluster: the usual run tries each on one, --full on both",
        );
    }
    summary.step("scenarios on the embedded cluster", embedded)?;
    let mut tests = cargo(["test", "--workspace", "--test", "redis", "--", "--nocapture"]);
    tests.env(CLUSTER_TESTS, "embedded");
    summary.step("a Redis that moves, on the embedded cluster", tests)?;
    if let Some(why) = no_local {
        summary.skip(&format!("local cluster: {why}"));
        return Ok(());
    }
    // One cluster at a time: its addresses are fixed, and two cores are just enough for one.
    let mut tests =
        cargo(["test", "--workspace", "--no-fail-fast", "--test", "local", "--test", "conformance"]);
    tests.args(["--", "--test-threads=1", "--nocapture"]);
    tests.env(CLUSTER_TESTS, "local");
    summary.step("tests of the local cluster, and of the embedded one against it", tests)?;
    summary.step("scenarios on the local cluster", scenarios("local", arguments.full))
}

fn scenarios(cluster: &str, full: bool) -> Command {
    // Of the whole workspace: for one package alone its dependencies would be built once more, with fewer features.
    let mut tests = cargo(["test", "--workspace", "--test", "scenarios", "--", "--nocapture"]);
    tests.env(CLUSTER_TESTS, cluster);
    if full {
        tests.arg("--include-ignored").env("PROCESSHUB_SCENARIO_PROCESSES", "1000");
    }
    tests
}

/// Oldest Python that the SDK for Python runs on.
const PYTHON: (u8, u8) = (3, 9);

/// The SDK for Python and its examples, which `processhub-sidecar verify` checks too.
fn python(summary: &mut Summary) -> Result<()> {
    let (major, minor) = PYTHON;
    let new_enough = Command::new("python3")
        .args(["-c", &format!("import sys; sys.exit(sys.version_info < ({major}, {minor}))")])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !new_enough {
        summary.skip(&format!("Python SDK: needs python3, version {major}.{minor} or newer"));
        return Ok(());
    }
    summary.step(
        "sidecar to verify with",
        cargo(["build", "--quiet", "--workspace", "--bin", "processhub-sidecar"]),
    )?;
    let mut tests = Command::new("python3");
    tests.current_dir(root().join("sdk/python")).args(["-B", "-m", "tests"]);
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    tests.env("PROCESSHUB_SIDECAR", root().join(target).join("debug/processhub-sidecar"));
    summary.step("tests of the Python SDK", tests)
}

/// Licences, sources and bans. Advisories need a database that is fetched from the network.
fn dependencies(summary: &mut Summary) -> Result<()> {
    let installed = Command::new("cargo")
        .args(["deny", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !installed {
        summary.step("install cargo-deny", cargo(["install", "--locked", "--quiet", "cargo-deny"]))?;
    }
    summary.skip(
        "dependency advisories: their database is not in a package registry (cargo deny check advisories)",
    );
    let mut deny = cargo(["deny", "--log-level", "error", "check", "bans", "licenses", "sources"]);
    deny.stdout(Stdio::inherit());
    summary.step("dependencies", deny)
}

/// Why no local cluster can run here, in words; `None` when it can.
fn local_cluster_impossible() -> Option<String> {
    if !cfg!(target_os = "linux") {
        return Some("needs Linux".to_owned());
    }
    let root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0");
    if !root {
        return Some("needs root (sudo -E cargo xtask test)".to_owned());
    }
    let go = Command::new("go").arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if go.is_err() {
        return Some("needs Go, to build Kubernetes (https://go.dev/dl)".to_owned());
    }
    None
}

fn cargo<const N: usize>(arguments: [&str; N]) -> Command {
    let mut command = processhub_e2e::cargo::cargo();
    // The reason of a failure is its last line; a page of the runtime's frames hides it.
    command.current_dir(root()).args(arguments).env("RUST_LIB_BACKTRACE", "0");
    command
}

fn root() -> PathBuf {
    let mut root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.pop();
    root
}

impl Summary {
    /// Runs one step, passes its output on, and counts the tests in it.
    fn step(&mut self, name: &str, mut command: Command) -> Result<()> {
        println!("== {name}");
        let began = Instant::now();
        let mut child =
            command.stdout(Stdio::piped()).spawn().with_context(|| format!("start {command:?}"))?;
        if let Some(output) = child.stdout.take() {
            for line in BufReader::new(output).lines() {
                let line = line?;
                self.count(&line);
                println!("{line}");
            }
        }
        let status = child.wait()?;
        self.steps.push((name.to_owned(), began.elapsed()));
        if !status.success() {
            bail!("{name}: {status}; run again with: {command:?}");
        }
        Ok(())
    }

    fn skip(&mut self, what: &str) {
        self.skipped.push(what.to_owned());
    }

    /// `test result: ok. 9 passed; 0 failed; 1 ignored; ...`, and scenarios that needed another try.
    fn count(&mut self, line: &str) {
        if line.contains(": FLAKY, ") {
            self.flaky.push(line.to_owned());
        }
        let Some(counts) = line.strip_prefix("test result: ") else { return };
        let number = |what: &str| {
            counts
                .split([';', '.'])
                .find_map(|part| part.trim().strip_suffix(what)?.trim().parse::<u64>().ok())
                .unwrap_or(0)
        };
        self.passed += number(" passed");
        self.ignored += number(" ignored");
    }

    fn print(&self) {
        println!("\n== summary");
        for (name, took) in &self.steps {
            println!("{:>7.1} s  {name}", took.as_secs_f64());
        }
        for what in &self.skipped {
            println!("  skipped  {what}");
        }
        for what in &self.flaky {
            println!("    flaky  {what}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Summary;

    #[test]
    fn counts_the_tests_that_a_runner_reports() {
        let mut summary = Summary::default();
        summary.count(
            "test result: ok. 9 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        );
        summary.count(
            "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        );
        summary.count("running 9 tests");
        assert_eq!((summary.passed, summary.ignored), (10, 2));
    }
}

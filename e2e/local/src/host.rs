//! What the machine must have, and how it gets what it lacks.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{progress, run_aloud};
use crate::daemon::{is_root, on_path, search_path};
use crate::error::{Error, Result};
use crate::network::tool;

/// Programs, and the Debian package that brings each.
const PROGRAMS: [(&str, &str); 13] = [
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("buildah", "buildah"),
    ("ip", "iproute2"),
    ("sysctl", "procps"),
    ("kill", "procps"),
    ("nsenter", "util-linux"),
    ("unshare", "util-linux"),
    ("setsid", "util-linux"),
    ("mount", "mount"),
];
const CNI_PACKAGE: &str = "containernetworking-plugins";
const CNI_PLUGINS: [&str; 3] = ["ptp", "host-local", "loopback"];
const CNI_DIRS: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];
/// Go is not taken from the distribution, whose version is too old.
const GO: &str =
    "Go 1.26 or newer as `go` on PATH (https://go.dev/dl), which builds Kubernetes from its source";

/// What a machine lacks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Missing {
    packages: Vec<&'static str>,
    others: Vec<String>,
}

impl Missing {
    fn find(on_path: impl Fn(&str) -> bool, has_cni: bool, is_root: bool, is_linux: bool) -> Self {
        let mut missing = Self::default();
        if !is_linux {
            missing.others.push("Linux (nodes are network namespaces)".to_owned());
        }
        if !is_root {
            missing.others.push("root (`sudo -E`, or a root shell)".to_owned());
        }
        if !on_path("go") {
            missing.others.push(GO.to_owned());
        }
        let packages = PROGRAMS.iter().filter(|(program, _)| !on_path(program)).map(|(_, package)| *package);
        missing.packages = packages.chain((!has_cni).then_some(CNI_PACKAGE)).collect();
        missing.packages.sort_unstable();
        missing.packages.dedup();
        missing
    }

    fn explain(&self) -> Option<String> {
        let mut lines: Vec<_> = self.others.iter().map(|other| format!("- needs {other}")).collect();
        if !self.packages.is_empty() {
            let packages = self.packages.join(" ");
            lines.push(format!(
                "- needs packages that it may install itself with `cargo xtask cluster up --install`, or you with\n    \
                 apt-get update && apt-get install --yes --no-install-recommends {packages}"
            ));
        }
        (!lines.is_empty()).then(|| lines.join("\n"))
    }
}

/// Checks that this machine can run a cluster, and says all that is missing in one message.
///
/// With `install` and as root, missing Debian packages are installed first.
pub fn check(install: bool) -> Result<()> {
    let mut missing = look();
    if install
        && missing.others.is_empty()
        && !missing.packages.is_empty()
        && on_path("apt-get", &search_path())
    {
        install_packages(&missing.packages)?;
        missing = look();
    }
    match missing.explain() {
        None => Ok(()),
        Some(explanation) => Err(Error::Impossible(explanation)),
    }
}

/// Where the CNI plugins are.
pub(crate) fn cni_plugins() -> Result<PathBuf> {
    find_cni().ok_or_else(|| Error::Impossible(format!("- needs the package {CNI_PACKAGE}")))
}

fn look() -> Missing {
    let path = search_path();
    Missing::find(
        |program| on_path(program, &path),
        find_cni().is_some(),
        is_root().unwrap_or(false),
        cfg!(target_os = "linux"),
    )
}

fn find_cni() -> Option<PathBuf> {
    let complete = |dir: &&&str| CNI_PLUGINS.iter().all(|plugin| Path::new(dir).join(plugin).is_file());
    CNI_DIRS.iter().find(complete).map(PathBuf::from)
}

fn install_packages(packages: &[&str]) -> Result<()> {
    progress(&format!("installing {}", packages.join(" ")));
    let apt = |arguments: &[&str]| {
        let mut command: Command = tool("apt-get");
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        run_aloud(&mut command)
    };
    apt(&["update", "--quiet"])?;
    apt(&[&["install", "--quiet", "--yes", "--no-install-recommends"], packages].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complete_machine_lacks_nothing() {
        assert_eq!(Missing::find(|_| true, true, true, true).explain(), None);
    }

    #[test]
    fn one_message_names_everything_and_each_package_once() {
        let message = Missing::find(|_| false, false, false, false).explain().unwrap();
        for part in ["Linux", "root", "Go 1.26", "apt-get install", CNI_PACKAGE, "containerd", "util-linux"] {
            assert!(message.contains(part), "{part} in {message}");
        }
        assert_eq!(message.matches(" util-linux").count(), 1);
    }

    #[test]
    fn what_apt_cannot_bring_is_not_listed_as_a_package() {
        let missing = Missing::find(|program| program != "go", true, true, true);
        assert!(missing.packages.is_empty());
        assert_eq!(missing.others, [GO]);
    }
}

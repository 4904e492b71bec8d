//! What all operations on one cluster share.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::certificates::Authority;
use crate::command::write_file;
use crate::config;
use crate::daemon;
use crate::error::Result;
use crate::layout::Layout;
use crate::network::Namespace;
use crate::plan::{API_PORT, CONTROL_PLANE};
use crate::slots;
use crate::tools::{Tool, Tools};

/// What `cluster.json` says: all that a command needs to know about a cluster that another process has started.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) name: String,
    /// Where the API server is reached from the host, on 127.0.0.1.
    pub(crate) port: u16,
    pub(crate) fsync: bool,
    pub(crate) node_monitor_grace_milliseconds: u64,
}

/// A cluster as seen by the parts of this crate.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) state: State,
    pub(crate) layout: Layout,
    pub(crate) tools: Tools,
}

impl Machine {
    pub(crate) fn authority(&self) -> Authority {
        Authority::at(self.layout.certificates())
    }

    pub(crate) fn control_plane(&self) -> Namespace {
        self.namespace(slots::CONTROL_PLANE)
    }

    pub(crate) fn namespace(&self, machine: &str) -> Namespace {
        Namespace::of(&self.state.name, machine)
    }

    pub(crate) fn grace(&self) -> Duration {
        Duration::from_millis(self.state.node_monitor_grace_milliseconds)
    }

    /// A part of Kubernetes with its flags, each given as `--name=value`.
    pub(crate) fn part(
        &self,
        namespace: &Namespace,
        part: &str,
        flags: &BTreeMap<&str, String>,
    ) -> Result<Command> {
        let mut command = namespace.command(self.tools.provide(Tool::Testcluster)?);
        command.arg(part);
        command.args(flags.iter().map(|(name, value)| format!("--{name}={value}")));
        Ok(command)
    }

    /// Starts a part of the control plane.
    pub(crate) fn start(&self, part: &str, command: &Command) -> Result<()> {
        daemon::start(&self.state.name, part, &self.layout.log(part), command)
    }

    /// Kills the parts of a cluster that are chosen, as SIGKILL does, and waits for their end.
    pub(crate) fn kill(&self, chosen: impl Fn(&str) -> bool) -> Result<()> {
        daemon::kill(&self.state.name, &self.layout.logs(), chosen)
    }

    /// Makes a certificate and a kubeconfig for a program inside, which proves itself as `user`.
    pub(crate) fn enroll(&self, file: &str, user: &str, group: Option<&str>) -> Result<PathBuf> {
        let server = format!("https://{CONTROL_PLANE}:{API_PORT}");
        self.enroll_at(&server, file, user, group)
    }

    /// As [`Self::enroll`], for an address of the API server that is reached from elsewhere.
    pub(crate) fn enroll_at(
        &self,
        server: &str,
        file: &str,
        user: &str,
        group: Option<&str>,
    ) -> Result<PathBuf> {
        let identity = self.authority().client(file, user, group)?;
        let path = self.layout.kubeconfig(file);
        write_file(&path, &config::kubeconfig(server, &self.authority(), &identity).to_string())?;
        Ok(path)
    }

    /// kubectl of the cluster's own version, as administrator, from the host.
    pub(crate) fn kubectl(&self) -> Result<Command> {
        let mut command = Command::new(self.tools.provide(Tool::Kubectl)?);
        command.env("KUBECONFIG", self.layout.kubeconfig(ADMIN));
        Ok(command)
    }
}

/// The identity that the host's programs use.
pub(crate) const ADMIN: &str = "admin";

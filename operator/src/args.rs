//! The command line.

use std::net::SocketAddr;

use clap::{Parser, Subcommand};

use crate::context::Options;
use crate::failpoint::Failpoint;

/// The operator of ProcessHub for Kubernetes.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the binary can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs the operator until it is told to stop.
    Run(Run),
    /// Prints the resource definitions as YAML, for `kubectl apply --server-side -f -`.
    Crd,
    /// Lists the names that `run --failpoint` takes.
    #[command(hide = true)]
    Failpoints,
}

/// How to run.
#[derive(Debug, clap::Args)]
pub struct Run {
    /// Image of the sidecar in new pods. Pods that run keep theirs.
    #[arg(long, env = "PROCESSHUB_SIDECAR_IMAGE")]
    pub sidecar_image: String,
    /// Which hubs this installation owns: those with this `spec.className`.
    #[arg(long, default_value = "default")]
    pub class: String,
    /// Namespace of the Lease by which operators of one class elect their leader.
    #[arg(long, env = "POD_NAMESPACE", default_value = "processhub-system")]
    pub lease_namespace: String,
    /// This operator's name in the election. No other may have it, not even the same pod after a restart, so that a
    /// random part is added.
    #[arg(long, env = "POD_NAME", default_value = "operator")]
    pub identity: String,
    /// UID of this operator's pod: started again there, it leads at once if the one before it led. Without it the Lease
    /// runs out first.
    #[arg(long, env = "POD_UID")]
    pub pod_uid: Option<String>,
    /// Where /metrics, /healthz and /readyz are served.
    #[arg(long, default_value = "0.0.0.0:9715")]
    pub metrics_address: SocketAddr,
    /// What is logged: a level, or levels by module (`info,processhub_operator=debug`).
    #[arg(long, env = "PROCESSHUB_LOG", default_value = "info")]
    pub log: String,
    /// Ends the operator beside an effect, or loses its answer: NAME:before, NAME:after or NAME:lost.
    #[arg(long, hide = true)]
    pub failpoint: Option<Failpoint>,
}

impl Run {
    /// As options of the library.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn options(self) -> anyhow::Result<Options> {
        let Self {
            sidecar_image,
            class,
            lease_namespace,
            identity,
            pod_uid,
            metrics_address,
            log: _,
            failpoint,
        } = self;
        let mut random = [0; 4];
        getrandom::fill(&mut random).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
        Ok(Options {
            sidecar_image,
            class,
            lease_namespace,
            identity: format!("{identity}_{:08x}", u32::from_ne_bytes(random)),
            pod: pod_uid.filter(|uid| !uid.is_empty()),
            metrics_address: Some(metrics_address),
            failpoint,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn an_operator_that_is_started_again_has_another_name() {
        let options = || {
            let args = ["processhub-operator", "run", "--sidecar-image=x", "--identity=op-0"];
            let Command::Run(run) = Args::parse_from(args).command else { panic!("run") };
            run.options().unwrap()
        };
        let (first, second) = (options(), options());
        assert!(first.identity.starts_with("op-0_"));
        assert_ne!(first.identity, second.identity);
    }
}

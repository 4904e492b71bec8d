//! The system on a cluster that exists already, which KUBECONFIG names. Its nodes and whatever else runs there are
//! somebody else's; an operator that leads there already is used as it is.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use processhub_crds::ProcessHub;
use serde_json::json;
use tokio::task::spawn_blocking;

use super::api::delete_namespace;
use super::{SYSTEM, operator};
use crate::artifacts::{Images, repository};

/// Name of the chart's release.
const RELEASE: &str = "processhub";
/// How long the operators have until they are ready; their image may have to be pulled.
const PATIENCE: &str = "180s";

/// An existing cluster.
pub(super) struct Existing {
    images: Images,
    installed: Option<Installed>,
}

/// What was installed.
struct Installed {
    /// Whether the operators' namespace came with it.
    namespace: bool,
}

impl Existing {
    /// Installs the chart, unless an operator leads.
    pub(super) async fn connect(client: &Client, images: Images) -> Result<Self> {
        let leading = leader(client).await.context("ask the cluster that KUBECONFIG names")?;
        needs("kubectl version --client", "the clients run in a pod, behind it").await?;
        if let Some(leader) = leading {
            println!("{leader} leads on this cluster; it is used as it is");
            return Ok(Self { images, installed: None });
        }
        needs("helm version", "no operator leads on this cluster, and it installs one").await?;
        nothing_would_come_to_life(client).await?;
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let namespace = namespaces.get_opt(SYSTEM).await?.is_none();
        println!("installing the chart in namespace {SYSTEM}");
        let chart: PathBuf = repository().join("charts").join("processhub");
        let (operator, sidecar) = (&images.operator_image, &images.sidecar_image);
        let set = format!("operator.image={operator},sidecar.image={sidecar}");
        let mut helm = Command::new("helm");
        helm.args(["install", RELEASE]).arg(chart).args(["--namespace", SYSTEM, "--create-namespace"]);
        helm.args(["--wait", "--timeout", PATIENCE, "--set", &set]);
        let existing = Self { images, installed: Some(Installed { namespace }) };
        if let Err(error) = run(helm).await {
            // Helm leaves a release behind that did not become ready.
            let _ = existing.stop(client).await;
            return Err(
                error.context("install the chart; can the cluster pull the images? See --operator-image")
            );
        }
        Ok(existing)
    }

    pub(super) fn installed(&self) -> bool {
        self.installed.is_some()
    }

    pub(super) fn images(&self) -> &Images {
        &self.images
    }

    /// The command that runs a program of the clients' image in a pod, with its standard input and output.
    pub(super) fn clients(&self, namespace: &str, program: impl AsRef<OsStr>) -> Command {
        const NAME: &str = "clients";
        let pod = json!({"spec": {
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": false,
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": NAME, "securityContext": {
                "allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": true,
            }}],
        }});
        let mut command = Command::new("kubectl");
        command.args(["run", NAME, "--namespace", namespace, "--image", &self.images.clients_image]);
        command.args(["--image-pull-policy=IfNotPresent", "--restart=Never", "--pod-running-timeout=2m"]);
        command.args(["--override-type=strategic", "--overrides", &pod.to_string()]);
        command.args(["--stdin", "--rm", "--quiet", "--command", "--"]).arg(program);
        command
    }

    /// Takes away what was installed. The definitions of the resources stay, as the chart has it.
    pub(super) async fn stop(self, client: &Client) -> Result<()> {
        let Some(installed) = self.installed else { return Ok(()) };
        let mut helm = Command::new("helm");
        helm.args(["uninstall", RELEASE, "--namespace", SYSTEM, "--wait", "--timeout", PATIENCE]);
        run(helm).await.context("uninstall the chart")?;
        if installed.namespace {
            delete_namespace(client, SYSTEM).await?;
        }
        println!(
            "the chart is uninstalled; the definitions of the resources stay: kubectl delete crd processhubs.processhub.io \
             hubprocesses.processhub.io"
        );
        Ok(())
    }
}

/// The operator that leads, in whatever namespace.
async fn leader(client: &Client) -> Result<Option<String>> {
    let leases: Api<Lease> = Api::all(client.clone());
    let named = ListParams::default().fields(&format!("metadata.name={}", operator::LEASE));
    let now = Timestamp::now();
    Ok(leases.list(&named).await?.into_iter().find_map(|lease| holder(&lease, now)))
}

/// Who holds the Lease, if anybody does.
fn holder(lease: &Lease, now: Timestamp) -> Option<String> {
    let spec = lease.spec.as_ref()?;
    let holder = spec.holder_identity.as_ref().filter(|holder| !holder.is_empty())?;
    let lasts = SignedDuration::from_secs(spec.lease_duration_seconds.unwrap_or_default().into());
    let ends = spec.renew_time.as_ref()?.0.checked_add(lasts).ok()?;
    let namespace = lease.namespace().unwrap_or_default();
    (ends > now).then(|| format!("{holder} (namespace {namespace})"))
}

/// Hubs without an operator may be without one on purpose: what is installed for a demonstration must not run them.
async fn nothing_would_come_to_life(client: &Client) -> Result<()> {
    let hubs: Api<ProcessHub> = Api::all(client.clone());
    match hubs.list(&ListParams::default().limit(1)).await {
        Ok(hubs) => match hubs.items.first() {
            None => Ok(()),
            Some(hub) => bail!(
                "no operator leads on this cluster, yet it has hubs ({}/{}): install the operator that they are meant for",
                hub.namespace().unwrap_or_default(),
                hub.name_any()
            ),
        },
        // No definitions yet.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error.into()),
    }
}

async fn needs(line: &str, why: &str) -> Result<()> {
    let mut words = line.split_whitespace();
    let program = words.next().unwrap_or_default();
    let mut command = Command::new(program);
    command.args(words);
    let there = output(command).await.is_ok_and(|output| output.status.success());
    ensure!(there, "{program} is needed in PATH: {why}");
    Ok(())
}

async fn run(command: Command) -> Result<()> {
    let output = output(command).await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

async fn output(mut command: Command) -> Result<Output> {
    let what = command.get_program().to_string_lossy().into_owned();
    let output = spawn_blocking(move || command.stdin(Stdio::null()).output()).await?;
    output.with_context(|| format!("run {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_that_ran_out_or_was_given_back_has_no_holder() {
        let lease = |holder: &str, renewed: &str| -> Lease {
            serde_json::from_value(json!({
                "metadata": {"name": "l", "namespace": "ops"},
                "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": renewed},
            }))
            .unwrap()
        };
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let fresh = "2026-01-01T00:00:50.000000Z";
        assert_eq!(holder(&lease("a_1", fresh), now).unwrap(), "a_1 (namespace ops)");
        assert_eq!(holder(&lease("", fresh), now), None);
        assert_eq!(holder(&lease("a_1", "2026-01-01T00:00:40.000000Z"), now), None);
    }

    #[test]
    fn the_clients_pod_passes_the_restricted_standard() {
        let existing = Existing { images: Images::default(), installed: None };
        let command = existing.clients("demo", "/processhub-load");
        let arguments: Vec<_> = command.get_args().map(|argument| argument.to_str().unwrap()).collect();
        let overrides = arguments.iter().position(|argument| *argument == "--overrides").unwrap() + 1;
        let pod: serde_json::Value = serde_json::from_str(arguments[overrides]).unwrap();
        assert_eq!(
            pod.pointer("/spec/containers/0/securityContext/allowPrivilegeEscalation"),
            Some(&json!(false))
        );
        // The container of the overrides is the one that is run: they are merged by name.
        assert_eq!(pod["spec"]["containers"][0]["name"], arguments[1]);
        assert_eq!(arguments.last(), Some(&"/processhub-load"));
    }
}

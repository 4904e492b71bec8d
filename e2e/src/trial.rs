//! One hub under load, from its creation to the verdict.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use processhub_crds::{HubProcess, Owner, ProcessHub};
use serde_json::json;
use tokio::sync::mpsc;

use crate::artifacts::COUNTER_IMAGE;
use crate::load::{Operation, RemoteLoad, Target};
use crate::moves::{Move, MoveLog};
use crate::oracle::{Account, Applied, Disorder, Percentiles, account, check_order, longest_gaps};
use crate::site::Site;
use crate::wait::{Seen, until};

/// Port of the example worker.
const PORT: u16 = 8080;

/// What the hub of a trial is like.
#[derive(Clone, Debug)]
pub struct HubOptions {
    /// Name of the hub, and prefix of its processes.
    pub name: String,
    /// Processes.
    pub replicas: u32,
    /// Ballast in each process's state, in bytes.
    pub state_size: u64,
    /// Merged over `spec`.
    pub spec: serde_json::Value,
    /// Further environment of the worker.
    pub environment: Vec<(String, String)>,
}

impl Default for HubOptions {
    fn default() -> Self {
        Self { name: "cart".into(), replicas: 12, state_size: 1024, spec: json!({}), environment: Vec::new() }
    }
}

/// A hub under load.
pub struct Trial<'a> {
    site: &'a Site,
    namespace: String,
    options: HubOptions,
    load: RemoteLoad,
    log: MoveLog,
    targets: BTreeMap<String, Target>,
    began: u64,
}

/// What came of a trial.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Found, lost, duplicated.
    pub account: Account,
    /// Operations that no single counter can have executed.
    pub disorder: Vec<Disorder>,
    /// Every move that ended.
    pub moves: Vec<Move>,
    /// For each process the longest time, in milliseconds, without any answer.
    pub gaps: BTreeMap<String, f64>,
    /// Processes whose ballast did not come through whole.
    pub torn: Vec<String>,
}

impl<'a> Trial<'a> {
    /// Creates namespace and hub, waits until every process serves, and lets the clients begin.
    ///
    /// # Errors
    /// When the hub is refused, or is not ready in time.
    pub async fn begin(
        site: &'a Site,
        namespace: &str,
        options: HubOptions,
        tell: Option<mpsc::UnboundedSender<Move>>,
    ) -> Result<Self> {
        create_namespace(site, namespace).await?;
        let hubs: Api<ProcessHub> = Api::namespaced(site.client(), namespace);
        let hub = serde_json::from_value(hub(&options)).context("the trial's hub")?;
        hubs.create(&PostParams::default(), &hub).await.context("create the hub")?;
        let log = MoveLog::begin(site.client(), namespace, tell);
        let mut command = site.load_command();
        command.args(["--run", &options.name]);
        let load = RemoteLoad::start(command)?;
        let mut trial = Self {
            site,
            namespace: namespace.to_owned(),
            options,
            load,
            log,
            targets: BTreeMap::new(),
            began: now(),
        };
        trial.settled().await?;
        trial.follow().await?;
        trial.began = now();
        Ok(trial)
    }

    /// Namespace of the hub.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The hub's processes.
    #[must_use]
    pub fn processes(&self) -> Api<HubProcess> {
        Api::namespaced(self.site.client(), &self.namespace)
    }

    /// The clients.
    #[must_use]
    pub fn load(&self) -> &RemoteLoad {
        &self.load
    }

    /// Moves that ended so far.
    #[must_use]
    pub fn moves(&self) -> Vec<Move> {
        self.log.so_far()
    }

    /// Changes `spec` of the hub by a merge patch.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn change(&self, spec: serde_json::Value) -> Result<()> {
        let hubs: Api<ProcessHub> = Api::namespaced(self.site.client(), &self.namespace);
        hubs.patch(&self.options.name, &PatchParams::default(), &Patch::Merge(json!({ "spec": spec })))
            .await?;
        Ok(())
    }

    /// Asks for a process to be moved, as a person does.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn wish(&self, process: &str, annotation: &str, value: &str) -> Result<()> {
        let patch = json!({"metadata": {"annotations": {annotation: value}}});
        self.processes().patch(process, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// Waits until as many processes as the hub wants serve, and none of them moves.
    ///
    /// # Errors
    /// When that is not so within five minutes.
    pub async fn settled(&self) -> Result<()> {
        let hubs: Api<ProcessHub> = Api::namespaced(self.site.client(), &self.namespace);
        until("the hub to be settled", Duration::from_secs(300), async || {
            let wanted = hubs.get(&self.options.name).await?.spec.replicas as usize;
            let processes = self.processes().list(&ListParams::default()).await?.items;
            let unsettled: Vec<_> =
                processes.iter().filter(|process| !is_settled(process)).map(describe).collect();
            Ok(if processes.len() == wanted && unsettled.is_empty() {
                Seen::Yes(())
            } else {
                Seen::NotYet(format!("{} of {wanted} processes; {}", processes.len(), unsettled.join("; ")))
            })
        })
        .await
    }

    /// Waits until no process is on the node.
    ///
    /// # Errors
    /// When that is not so within five minutes.
    pub async fn evacuated(&self, node: &str) -> Result<()> {
        until(&format!("{node} to own nothing"), Duration::from_secs(300), async || {
            let there: Vec<_> = self
                .processes()
                .list(&ListParams::default())
                .await?
                .iter()
                .filter(|process| owner_node(process) == Some(node))
                .map(ResourceExt::name_any)
                .collect();
            Ok(if there.is_empty() { Seen::Yes(()) } else { Seen::NotYet(there.join(", ")) })
        })
        .await
    }

    /// The owner of a process.
    ///
    /// # Errors
    /// When there is no such process.
    pub async fn owner(&self, process: &str) -> Result<Option<Owner>> {
        Ok(self.processes().get(process).await?.status.and_then(|status| status.owner))
    }

    /// Node of the owner of a process.
    ///
    /// # Errors
    /// When there is no such process, or no owner.
    pub async fn owner_node(&self, process: &str) -> Result<String> {
        Ok(self.owner(process).await?.context("no owner")?.node)
    }

    /// A schedulable node that the process is not on.
    ///
    /// # Errors
    /// When there is none.
    pub async fn another_node(&self, process: &str) -> Result<String> {
        let here = self.owner_node(process).await?;
        let nodes = self.site.nodes().await?;
        nodes.into_iter().find(|node| *node != here).context("no other node")
    }

    /// Waits until the process is owned on that node.
    ///
    /// # Errors
    /// When that is not so within two minutes.
    pub async fn owned_by(&self, process: &str, node: &str) -> Result<()> {
        self.owner_becomes(process, &format!("{process} to be owned on {node}"), |owner| owner.node == node)
            .await
    }

    /// Waits until the process is owned by another pod than the one with this UID.
    ///
    /// # Errors
    /// When that is not so within two minutes.
    pub async fn owned_by_another_pod(&self, process: &str, uid: &str) -> Result<()> {
        self.owner_becomes(process, &format!("{process} to have another owner"), |owner| owner.uid != uid)
            .await
    }

    async fn owner_becomes(&self, process: &str, what: &str, is: impl Fn(&Owner) -> bool) -> Result<()> {
        until(what, Duration::from_secs(120), async || {
            let process = self.processes().get(process).await?;
            let owner = process.status.as_ref().and_then(|status| status.owner.as_ref());
            Ok(if owner.is_some_and(&is) { Seen::Yes(()) } else { Seen::NotYet(describe(&process)) })
        })
        .await
    }

    /// Waits until these nodes together own at least so many processes.
    ///
    /// # Errors
    /// When that is not so within five minutes.
    pub async fn owned_at_least(&self, nodes: &[String], count: usize) -> Result<()> {
        until(&format!("{nodes:?} to own {count} processes"), Duration::from_secs(300), async || {
            let there = self
                .processes()
                .list(&ListParams::default())
                .await?
                .iter()
                .filter(|process| owner_node(process).is_some_and(|node| nodes.iter().any(|n| n == node)))
                .count();
            Ok(if there >= count { Seen::Yes(()) } else { Seen::NotYet(format!("{there} there")) })
        })
        .await
    }

    /// Waits until the clients have this many more outcomes.
    ///
    /// # Errors
    /// When that is not so within two minutes.
    pub async fn under_load(&self, operations: usize) -> Result<()> {
        let wanted = self.load.operations() + operations;
        until("clients to go on", Duration::from_secs(120), async || {
            let so_far = self.load.operations();
            Ok(if so_far >= wanted { Seen::Yes(()) } else { Seen::NotYet(format!("{so_far} of {wanted}")) })
        })
        .await
    }

    /// Lets clients begin for every process that has none yet.
    ///
    /// # Errors
    /// When a process has no address.
    pub async fn follow(&mut self) -> Result<()> {
        let services: Api<Service> = Api::namespaced(self.site.client(), &self.namespace);
        let mut new = Vec::new();
        for process in self.processes().list(&ListParams::default()).await? {
            let name = process.name_any();
            if self.targets.contains_key(&name) {
                continue;
            }
            let service = services.get(&name).await.with_context(|| format!("the Service of {name}"))?;
            let address =
                service.spec.and_then(|spec| spec.cluster_ip).context("a Service without an address")?;
            let target = Target { process: name.clone(), address: SocketAddr::new(address.parse()?, PORT) };
            self.targets.insert(name, target.clone());
            new.push(target);
        }
        self.load.add(new).await
    }

    /// Ends the load, asks every process what it holds, and judges.
    ///
    /// # Errors
    /// When the clients' process is gone. A process that does not answer counts as holding nothing.
    pub async fn finish(mut self) -> Result<Verdict> {
        let history = self.load.finish().await?;
        let ended = now();
        let targets: Vec<_> = self.targets.values().cloned().collect();
        let answers = self.load.fetch(targets.clone(), "/audit").await?;
        let mut applied = HashMap::new();
        for (process, answer) in answers {
            match answer {
                Ok(text) => {
                    applied.insert(process, read_audit(&text)?);
                }
                Err(error) => tracing::warn!(%process, %error, "no audit"),
            }
        }
        let ballast = self.load.fetch(targets, "/ballast").await?;
        let torn = ballast
            .into_iter()
            .filter(|(_, answer)| !is_whole(answer, self.options.state_size))
            .map(|(process, _)| process)
            .collect();
        let verdict = judge(&history, &applied, self.log.so_far(), torn, (self.began, ended));
        self.load.stop().await?;
        Ok(verdict)
    }
}

impl Verdict {
    /// Whether everything that must hold in every run holds.
    ///
    /// # Errors
    /// What does not.
    pub fn check(&self) -> Result<()> {
        let Account { acknowledged, lost, duplicated, .. } = self.account;
        if acknowledged == 0 {
            bail!("no request was acknowledged: nothing was tried; {:?}", self.account.error_samples);
        }
        if lost > 0 {
            bail!("{lost} acknowledged requests lost: {:?}", self.account.lost_by_process);
        }
        if duplicated > 0 {
            bail!("{duplicated} requests duplicated");
        }
        if let Some(Disorder { earlier, later }) = self.disorder.first() {
            bail!("not linearizable: {earlier:?} before {later:?}");
        }
        if !self.torn.is_empty() {
            bail!("state did not come through whole: {:?}", self.torn);
        }
        Ok(())
    }

    /// [`Verdict::check`], and no client saw an error or an unknown outcome: what a planned move promises.
    ///
    /// # Errors
    /// What does not hold.
    pub fn check_planned(&self) -> Result<()> {
        self.check()?;
        let Account { errors, unknown, error_samples, .. } = &self.account;
        if errors + unknown > 0 {
            bail!("clients saw {errors} errors and {unknown} unknown outcomes: {error_samples:?}");
        }
        Ok(())
    }

    /// The figures in one line.
    #[must_use]
    pub fn line(&self) -> String {
        let Account { acknowledged, lost, duplicated, unknown, errors, .. } = &self.account;
        let swaps = self.moves.iter().filter(|moved| moved.is_swap()).count();
        let (blackout, gap) = (self.blackout(), self.client_gap());
        format!(
            "{acknowledged} acknowledged, {lost} lost, {duplicated} duplicated, {unknown} unknown, {errors} errors; \
             {swaps} moves, blackout p50 {} p99 {} ms, client gap p50 {:.0} p99 {:.0} ms",
            blackout.p50, blackout.p99, gap.p50, gap.p99
        )
    }

    /// Blackouts of the swaps that succeeded, by the sidecars' clock.
    #[must_use]
    pub fn blackout(&self) -> Percentiles {
        Percentiles::of(
            self.moves
                .iter()
                .filter(|moved| moved.is_swap())
                .filter_map(|moved| moved.blackout)
                .map(|milliseconds| milliseconds as f64)
                .collect(),
        )
    }

    /// Longest gaps that clients saw, of the processes that moved.
    #[must_use]
    pub fn client_gap(&self) -> Percentiles {
        let moved: std::collections::BTreeSet<_> =
            self.moves.iter().filter(|moved| moved.is_swap()).map(|moved| moved.process.as_str()).collect();
        Percentiles::of(
            self.gaps
                .iter()
                .filter(|(process, _)| moved.contains(process.as_str()))
                .map(|(_, gap)| *gap)
                .collect(),
        )
    }
}

fn judge(
    history: &[Operation],
    applied: &HashMap<String, Applied>,
    moves: Vec<Move>,
    torn: Vec<String>,
    (from, to): (u64, u64),
) -> Verdict {
    Verdict {
        account: account(history, applied),
        disorder: check_order(history),
        moves: moves.into_iter().filter(|moved| moved.ended >= from).collect(),
        gaps: longest_gaps(history, from, to),
        torn,
    }
}

async fn create_namespace(site: &Site, name: &str) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(site.client());
    let namespace = serde_json::from_value(json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    }))?;
    match namespaces.create(&PostParams::default(), &namespace).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn hub(options: &HubOptions) -> serde_json::Value {
    let mut environment = vec![json!({"name": "STATE_SIZE", "value": options.state_size.to_string()})];
    environment.extend(options.environment.iter().map(|(name, value)| json!({"name": name, "value": value})));
    let mut spec = json!({
        "replicas": options.replicas,
        "migration": {"handover": true, "retentionMilliseconds": 2000},
        "worker": {"port": PORT},
        "template": {"spec": {
            "terminationGracePeriodSeconds": 5,
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "worker",
                "image": COUNTER_IMAGE,
                "imagePullPolicy": "IfNotPresent",
                "env": environment,
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "capabilities": {"drop": ["ALL"]},
                    "readOnlyRootFilesystem": true,
                },
            }],
        }},
    });
    merge(&mut spec, &options.spec);
    json!({
        "apiVersion": "processhub.io/v1alpha1",
        "kind": "ProcessHub",
        "metadata": {"name": options.name},
        "spec": spec,
    })
}

/// JSON merge patch (RFC 7396) without removals.
fn merge(base: &mut serde_json::Value, over: &serde_json::Value) {
    match (base, over) {
        (serde_json::Value::Object(base), serde_json::Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key).or_insert(serde_json::Value::Null), value);
            }
        }
        (base, over) => *base = over.clone(),
    }
}

fn is_settled(process: &HubProcess) -> bool {
    let Some(status) = &process.status else { return false };
    status.migration.is_none()
        && status.owner.is_some()
        && status.conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn describe(process: &HubProcess) -> String {
    let conditions = process.status.as_ref().map(|status| {
        status
            .conditions
            .iter()
            .filter(|condition| matches!(condition.type_.as_str(), "Ready" | "Progressing"))
            .map(|condition| format!("{}={} {}", condition.type_, condition.reason, condition.message))
            .collect::<Vec<_>>()
            .join(", ")
    });
    format!("{}: {}", process.name_any(), conditions.unwrap_or_else(|| "no status".into()))
}

fn owner_node(process: &HubProcess) -> Option<&str> {
    Some(process.status.as_ref()?.owner.as_ref()?.node.as_str())
}

/// What the example worker answers to `GET /audit`.
fn read_audit(text: &str) -> Result<Applied> {
    let audit: counter::Audit = serde_json::from_str(text).context("an audit that cannot be read")?;
    Ok(Applied { clients: audit.clients, duplicates: audit.duplicates })
}

/// Whether the ballast arrived with the length that it was made with and its own digest.
fn is_whole(answer: &Result<String, String>, size: u64) -> bool {
    let Ok(text) = answer else { return false };
    serde_json::from_str::<counter::Weight>(text).is_ok_and(|ballast| ballast.intact && ballast.bytes == size)
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_micros()).unwrap_or(u64::MAX))
}

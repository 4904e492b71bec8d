//! One hub under load, from its creation to the verdict.

mod code;
mod hub;
mod look;
mod sidecar;
mod verdict;

pub use hub::{Example, HubOptions, PORT};
pub use look::condition;
pub use verdict::{Broken, Verdict};

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Service;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use processhub_crds::HubProcess;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::journal::Journal;
use crate::load::{Answer, Answers, Call, Calling, RemoteLoad, Target};
use crate::moves::Move;
use crate::oracle::Applied;
use crate::site::Site;
use crate::wait::{Seen, until};
use verdict::Evidence;

/// How long a process that does not answer at the end is asked again.
const PATIENCE: Duration = Duration::from_secs(20);

/// A hub under load.
pub struct Trial<'a> {
    site: &'a Site,
    namespace: String,
    options: HubOptions,
    load: RemoteLoad,
    journal: Journal,
    targets: BTreeMap<String, Target>,
    /// Processes that were created by hand.
    dynamic: usize,
    began: u64,
    /// Process and moment, in microseconds since the epoch.
    disturbed: Mutex<Vec<(String, u64)>>,
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
        let mut trial = Self::create(site, namespace, options, tell).await?;
        trial.settled().await?;
        trial.follow().await?;
        trial.began = now();
        Ok(trial)
    }

    /// [`Trial::begin`] without waiting, and without clients until [`Trial::follow`].
    ///
    /// # Errors
    /// When the hub is refused.
    pub async fn create(
        site: &'a Site,
        namespace: &str,
        options: HubOptions,
        tell: Option<mpsc::UnboundedSender<Move>>,
    ) -> Result<Self> {
        site.create_trial(namespace).await?;
        let journal = Journal::begin(&site.client(), namespace, tell);
        let mut command = site.load_command(namespace);
        command.args(["--run", &options.name, "--pause-milliseconds", &options.pause().to_string()]);
        command.args(["--speech", options.example.speech().word()]);
        let load = RemoteLoad::start(command)?;
        let trial = Self {
            site,
            namespace: namespace.to_owned(),
            options,
            load,
            journal,
            targets: BTreeMap::new(),
            dynamic: 0,
            began: now(),
            disturbed: Mutex::default(),
        };
        trial.create_hub(&trial.options).await?;
        Ok(trial)
    }

    /// Creates a hub in the trial's namespace.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn create_hub(&self, options: &HubOptions) -> Result<()> {
        let hub = hub::hub(options, options.example.image(self.site));
        let hub = serde_json::from_value(hub).context("the trial's hub")?;
        self.hubs().create(&PostParams::default(), &hub).await.context("create the hub")?;
        Ok(())
    }

    /// Creates a process of the hub, as a person does, pinned to a node or not.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn start_child(&mut self, name: &str, node: Option<&str>) -> Result<()> {
        self.start(&self.options.name, name, node).await?;
        self.dynamic += 1;
        Ok(())
    }

    /// Creates a process of another hub in the trial's namespace.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn start_child_of(&self, hub: &str, name: &str) -> Result<()> {
        self.start(hub, name, None).await
    }

    async fn start(&self, hub: &str, name: &str, node: Option<&str>) -> Result<()> {
        let mut process: HubProcess = serde_json::from_value(json!({
            "apiVersion": "processhub.io/v1alpha1", "kind": "HubProcess",
            "metadata": {"name": name}, "spec": {"hubName": hub},
        }))?;
        process.spec.node_name = node.map(str::to_owned);
        self.processes().create(&PostParams::default(), &process).await?;
        Ok(())
    }

    /// Names the hub that is to have the process.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn transfer(&self, process: &str, hub: &str) -> Result<()> {
        let patch = Patch::Merge(json!({"spec": {"hubName": hub}}));
        self.processes().patch(process, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// The site.
    #[must_use]
    pub fn site(&self) -> &'a Site {
        self.site
    }

    /// Namespace of the hub.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Name of its hub.
    #[must_use]
    pub fn hub(&self) -> &str {
        &self.options.name
    }

    /// The clients.
    #[must_use]
    pub fn load(&self) -> &RemoteLoad {
        &self.load
    }

    /// Moves that ended so far.
    #[must_use]
    pub fn moves(&self) -> Vec<Move> {
        self.journal.moves()
    }

    /// Swaps that ended so far.
    #[must_use]
    pub fn swaps(&self) -> Vec<Move> {
        self.moves().into_iter().filter(Move::is_swap).collect()
    }

    /// Changes `spec` of the hub by a merge patch.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn change(&self, spec: Value) -> Result<()> {
        let patch = Patch::Merge(json!({ "spec": spec }));
        self.hubs().patch(&self.options.name, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Writes an annotation on a process, as a person does.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn wish(&self, process: &str, annotation: &str, value: &str) -> Result<()> {
        let patch = json!({"metadata": {"annotations": {annotation: value}}});
        self.processes().patch(process, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// Asks for the process to be moved to that node.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn wish_for(&self, process: &str, node: &str) -> Result<()> {
        self.wish(process, "processhub.io/move-to", node).await
    }

    /// Asks for the process to be moved to another node, which it names.
    ///
    /// # Errors
    /// When there is no other node, or the API server refuses.
    pub async fn wish_away(&self, process: &str) -> Result<String> {
        let to = self.another_node(process).await?;
        self.wish_for(process, &to).await?;
        Ok(to)
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

    /// From now on the process is disturbed: the verdict says how long its clients then went without an answer.
    pub fn disturb(&self, process: &str) {
        self.disturbed.lock().unwrap_or_else(PoisonError::into_inner).push((process.to_owned(), now()));
    }

    /// Lets clients begin for every process that has none yet, as far as the options say.
    ///
    /// # Errors
    /// When a process has no address.
    pub async fn follow(&mut self) -> Result<()> {
        let mut new = Vec::new();
        let mut processes: Vec<_> = self.list().await?.iter().map(ResourceExt::name_any).collect();
        processes.sort_by_key(|name| (name.len(), name.clone()));
        for name in processes {
            let full = self.targets.len() >= usize::try_from(self.options.driven).unwrap_or(usize::MAX);
            if full || self.targets.contains_key(&name) {
                continue;
            }
            let target = Target { process: name.clone(), address: self.address(&name).await? };
            self.targets.insert(name, target.clone());
            new.push(target);
        }
        self.reachable(new.clone()).await?;
        self.load.add(new).await
    }

    /// Waits until every process answers at its stable address: the nodes learn of a new one a moment after it serves.
    async fn reachable(&mut self, targets: Vec<Target>) -> Result<()> {
        let load = tokio::sync::Mutex::new(&mut self.load);
        until("every process to answer at its address", Duration::from_secs(60), async || {
            let answers = load.lock().await.fetch(targets.clone(), "/healthz").await?;
            let silent = answers.into_iter().find_map(|(process, answer)| Some((process, answer.err()?)));
            Ok(silent.map_or(Seen::Yes(()), |(process, error)| Seen::NotYet(format!("{process}: {error}"))))
        })
        .await
    }

    /// The stable address of a process.
    ///
    /// # Errors
    /// When it has none.
    pub async fn address(&self, process: &str) -> Result<SocketAddr> {
        let services: Api<Service> = Api::namespaced(self.site.client(), &self.namespace);
        let service = services.get(process).await.with_context(|| format!("the Service of {process}"))?;
        let address =
            service.spec.and_then(|spec| spec.cluster_ip).context("a Service without an address")?;
        Ok(SocketAddr::new(address.parse()?, PORT))
    }

    /// Sends one request, from where the clients are.
    ///
    /// # Errors
    /// When the clients' process is gone.
    pub async fn call(&mut self, call: Call) -> Result<Calling> {
        self.load.call(call).await
    }

    /// Sends a request to a process at its stable address.
    ///
    /// # Errors
    /// When it has no address, or the clients' process is gone.
    pub async fn ask(&mut self, process: &str, method: &str, path: &str, body: &str) -> Result<Calling> {
        let call = Call {
            address: self.address(process).await?,
            method: method.to_owned(),
            path: path.to_owned(),
            headers: Vec::new(),
            body: body.to_owned(),
        };
        self.call(call).await
    }

    /// Switches the faults of a process's present worker.
    ///
    /// # Errors
    /// When it does not take them.
    pub async fn set_faults(&mut self, process: &str, faults: &str) -> Result<()> {
        let Answer { status, body } = self.ask(process, "PUT", "/faults", faults).await?.answer().await?;
        ensure!(status == 204, "faults of {process}: {status} {body}");
        Ok(())
    }

    /// Ends the load, asks every process what it holds, and judges.
    ///
    /// # Errors
    /// When the clients' process is gone. A process that does not answer counts as holding nothing.
    pub async fn finish(self) -> Result<Verdict> {
        self.finish_excusing(&[]).await
    }

    /// [`Trial::finish`], where state of these processes was lost by force.
    ///
    /// # Errors
    /// As of [`Trial::finish`].
    pub async fn finish_excusing(mut self, excused: &[&str]) -> Result<Verdict> {
        let history = self.load.finish().await?;
        let ended = now();
        let applied = self.applied().await?;
        let targets: Vec<_> = self.targets.values().cloned().collect();
        let torn = match self.options.example {
            Example::Counter => self.torn(targets).await?,
            Example::Account | Example::PythonAccount => Vec::new(),
        };
        let evidence = Evidence {
            history: &history,
            applied: &applied,
            moves: self.journal.moves(),
            torn,
            usurpers: self.journal.check_ownership(),
            excused,
            span: (self.began, ended),
            disturbed: self.disturbed.into_inner().unwrap_or_else(PoisonError::into_inner),
        };
        let verdict = evidence.judge();
        self.load.stop().await?;
        Ok(verdict)
    }

    /// What each process holds.
    ///
    /// # Errors
    /// When the clients' process is gone. A process that does not answer is left out.
    pub async fn applied(&mut self) -> Result<HashMap<String, Applied>> {
        let targets: Vec<_> = self.targets.values().cloned().collect();
        let (path, read) = self.options.example.audit();
        let mut applied = HashMap::new();
        for (process, answer) in self.ask_all(targets, path).await? {
            match answer {
                Ok(text) => {
                    applied.insert(process, read(&text)?);
                }
                Err(error) => eprintln!("{process} says nothing of what it holds: {error}"),
            }
        }
        Ok(applied)
    }

    /// Asks each process, and those that do not answer once more for a while: a sidecar that was killed a moment ago still
    /// cuts connections.
    async fn ask_all(&mut self, targets: Vec<Target>, path: &str) -> Result<Answers> {
        let until = Instant::now() + PATIENCE;
        let mut answers = Answers::new();
        loop {
            let silent = |target: &&Target| !matches!(answers.get(&target.process), Some(Ok(_)));
            let silent: Vec<_> = targets.iter().filter(silent).cloned().collect();
            if silent.is_empty() || (!answers.is_empty() && Instant::now() >= until) {
                return Ok(answers);
            }
            answers.extend(self.load.fetch(silent, path).await?);
            if answers.values().any(Result::is_err) {
                sleep(Duration::from_millis(500)).await;
            }
        }
    }

    /// The processes whose ballast did not come through whole.
    async fn torn(&mut self, targets: Vec<Target>) -> Result<Vec<String>> {
        let ballast = self.ask_all(targets, "/ballast").await?;
        let torn = ballast.into_iter().filter(|(_, answer)| !is_whole(answer, self.options.state_size));
        Ok(torn.map(|(process, _)| process).collect())
    }
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

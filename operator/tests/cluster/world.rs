//! A cluster in this process with the real sidecar, the example worker and an operator, and what a test does with it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, CustomResourceExt};
use processhub_crds::{HubProcess, HubProcessStatus, ProcessHub};
use processhub_embedded_cluster::{EmbeddedCluster, ImageSpec, Options as ClusterOptions};
use processhub_operator::Options;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub const NAMESPACE: &str = "default";
const SIDECAR_IMAGE: &str = "processhub-sidecar:test";
const WORKER_IMAGE: &str = "counter:test";
/// Far longer than anything here takes on a busy machine; what is awaited decides, never this.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where cargo put the binaries of this profile; builds those of other packages once.
fn binaries() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let operator = PathBuf::from(env!("CARGO_BIN_EXE_processhub-operator"));
        let directory = operator.parent().unwrap().to_owned();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args([
            "build",
            "--quiet",
            "--locked",
            "--package",
            "processhub-sidecar",
            "--package",
            "counter",
        ]);
        if directory.file_name().is_some_and(|profile| profile == "release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success(), "sidecar and counter do not build");
        directory
    })
}

/// A running operator: in this process, or one of its own that a failpoint may end.
enum Operator {
    Here(oneshot::Sender<()>, JoinHandle<anyhow::Result<()>>),
    Apart(Apart),
}

/// A program that does not outlive the test.
struct Apart(Child);

impl Drop for Apart {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub struct World {
    pub cluster: EmbeddedCluster,
    pub client: Client,
    operator: Option<Operator>,
    http: Http<HttpConnector, Full<axum::body::Bytes>>,
    numbers: u64,
}

impl World {
    /// A cluster of three nodes with the resource definitions, and no operator yet.
    pub async fn new() -> Self {
        let directory = binaries();
        let image = |name: &str| ImageSpec::new(directory.join(name));
        let options = ClusterOptions {
            images: [
                (SIDECAR_IMAGE.to_owned(), image("processhub-sidecar")),
                (WORKER_IMAGE.to_owned(), image("counter")),
            ]
            .into(),
            ..ClusterOptions::default()
        };
        let cluster = EmbeddedCluster::start(options.with_nodes(3)).await.unwrap();
        let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig()).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        let client = Client::try_from(config).unwrap();
        let definitions = Api::<CustomResourceDefinition>::all(client.clone());
        for definition in [ProcessHub::crd(), HubProcess::crd()] {
            definitions.create(&PostParams::default(), &definition).await.unwrap();
        }
        let http = Http::builder(TokioExecutor::new()).build_http();
        Self { cluster, client, operator: None, http, numbers: 0 }
    }

    /// What an operator in this process is told.
    pub fn options(&self) -> Options {
        Options {
            sidecar_image: SIDECAR_IMAGE.into(),
            class: "default".into(),
            lease_namespace: NAMESPACE.into(),
            identity: format!("here-{}", self.numbers),
            pod: None,
            metrics_address: None,
            failpoint: None,
        }
    }

    /// Runs an operator in this process.
    pub fn start_operator(&mut self) {
        let options = self.options();
        let (stop, stopped) = oneshot::channel();
        let shutdown = async move {
            let _ = stopped.await;
        };
        let run = tokio::spawn(processhub_operator::run(self.client.clone(), options, shutdown));
        self.operator = Some(Operator::Here(stop, run));
    }

    /// Runs the operator's binary with a failpoint.
    pub fn start_operator_with(&mut self, failpoint: &str) {
        let log = std::fs::File::create(self.cluster.directory().join("operator.log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_processhub-operator"))
            .args(["run", "--sidecar-image", SIDECAR_IMAGE, "--lease-namespace", NAMESPACE])
            .args(["--metrics-address", "127.0.0.1:0", "--failpoint", failpoint])
            .env("KUBECONFIG", self.cluster.kubeconfig())
            .stdout(Stdio::from(log))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.operator = Some(Operator::Apart(Apart(child)));
    }

    /// Waits until the failpoint has ended the operator.
    pub async fn operator_died(&mut self) {
        let Some(Operator::Apart(mut child)) = self.operator.take() else { panic!("no operator apart") };
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = child.0.try_wait().unwrap() {
                break status;
            }
            if begun.elapsed() > PATIENCE {
                panic!("the failpoint did not fire");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert!(!status.success(), "it ended by itself: {status}");
    }

    /// Stops the operator in the orderly way.
    pub async fn stop_operator(&mut self) {
        let Some(Operator::Here(stop, run)) = self.operator.take() else { panic!("no operator here") };
        stop.send(()).unwrap();
        run.await.unwrap().unwrap();
    }

    /// Ends everything.
    pub async fn end(mut self) {
        if self.operator.is_some() {
            self.stop_operator().await;
        }
        self.cluster.shutdown().await;
    }

    /// Creates a hub of one process, `<name>-0`, which moves as `migration` says.
    pub async fn create_hub(&self, name: &str, migration: Value) {
        self.create_hub_of(name, migration, json!([])).await;
    }

    /// As [`World::create_hub`], with workers that misbehave as the counter's `COUNTER_FAULTS` says.
    pub async fn create_hub_with_faults(&self, name: &str, migration: Value, faults: &str) {
        self.create_hub_of(name, migration, json!([{ "name": "COUNTER_FAULTS", "value": faults }])).await;
    }

    async fn create_hub_of(&self, name: &str, migration: Value, environment: Value) {
        let hub = json!({
            "apiVersion": "processhub.io/v1alpha1", "kind": "ProcessHub",
            "metadata": { "name": name },
            "spec": {
                "replicas": 1,
                "migration": migration,
                "template": { "spec": {
                    "terminationGracePeriodSeconds": 5,
                    "containers": [{ "name": "worker", "image": WORKER_IMAGE, "env": environment }],
                } },
            },
        });
        let hubs = Api::<ProcessHub>::namespaced(self.client.clone(), NAMESPACE);
        hubs.create(&PostParams::default(), &serde_json::from_value(hub).unwrap()).await.unwrap();
    }

    /// Gives the hub code that misbehaves as the counter's `COUNTER_FAULTS` says.
    pub async fn give_faulty_code(&self, hub: &str, faults: &str) {
        let patch = json!({ "spec": { "template": { "spec": { "containers": [{
            "name": "worker", "image": WORKER_IMAGE, "env": [{ "name": "COUNTER_FAULTS", "value": faults }],
        }] } } } });
        let hubs = Api::<ProcessHub>::namespaced(self.client.clone(), NAMESPACE);
        hubs.patch(hub, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    }

    pub fn processes(&self) -> Api<HubProcess> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// Sets an annotation of a process.
    pub async fn wish(&self, process: &str, key: &str, value: &str) {
        let patch = json!({ "metadata": { "annotations": { key: value } } });
        self.processes().patch(process, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    }

    /// Waits until `condition` holds of the status; returns it.
    pub async fn until(
        &self,
        process: &str,
        what: &str,
        condition: impl Fn(&HubProcessStatus) -> bool,
    ) -> HubProcessStatus {
        let begun = Instant::now();
        let mut last = None;
        while begun.elapsed() < PATIENCE {
            if let Ok(object) = self.processes().get(process).await {
                let status = object.status.unwrap_or_default();
                if condition(&status) {
                    return status;
                }
                last = Some(status);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{process} is never {what}; last seen: {last:#?}");
    }

    /// Waits until the process serves and nothing is under way.
    pub async fn settled(&self, process: &str) -> HubProcessStatus {
        self.until(process, "settled", |status| status.owner.is_some() && status.migration.is_none()).await
    }

    pub async fn delete_pod(&self, name: &str) {
        self.pods().delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// A node that is not this one.
    pub fn other_node(&self, than: &str) -> String {
        self.cluster.nodes().into_iter().find(|node| node != than).unwrap()
    }

    /// Increments the process's counter through its stable address; returns the new value. Asked once: an error is an
    /// error that a client sees.
    pub async fn increment(&mut self, process: &str) -> Result<u64, String> {
        self.numbers += 1;
        let services = Api::<Service>::namespaced(self.client.clone(), NAMESPACE);
        let service = services.get(process).await.map_err(|error| error.to_string())?;
        let ip = service.spec.unwrap().cluster_ip.unwrap();
        let address: SocketAddr = format!("{ip}:8080").parse().unwrap();
        let body = json!({ "client": format!("client-{}", self.numbers), "number": 1 }).to_string();
        let request = http::Request::post(format!("http://{address}/increment"))
            .header("content-type", "application/json")
            .body(Full::from(body))
            .unwrap();
        let answer = self.http.request(request).await.map_err(|error| format!("{error:?}"))?;
        let status = answer.status();
        let body = answer.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
        let body: Value = serde_json::from_slice(&body).map_err(|error| format!("{status}: {error}"))?;
        body["value"].as_u64().ok_or_else(|| format!("{status}: {body}"))
    }
}

//! The system on the embedded cluster: operators and containers as processes of this machine.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use http::Request;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::PostParams;
use kube::{Api, Client};
use processhub_embedded_cluster::{EmbeddedCluster, Entry, ImageSpec, Options, Verb};
use rustix::process::Pid;

use super::SYSTEM;
use super::audit::{Mark, Write};
use super::crew::{Recipe, Register};
use crate::artifacts::{
    ACCOUNT_IMAGE, ADAPTER_IMAGE, Binaries, COUNTER_IMAGE, PYTHON_IMAGE, ROOM_IMAGE, SIDECAR_IMAGE, python,
};

/// Where operators' metrics may be.
const PORTS: std::ops::Range<u16> = 19_715..19_999;

/// Image of the example `redis`.
const REDIS_IMAGE: &str = "docker.io/library/redis:7.2-bookworm";
/// Where distributions put it.
const REDIS_SERVER: &str = "/usr/bin/redis-server";

/// An embedded cluster.
pub(super) struct Embedded {
    binaries: Binaries,
    cluster: Arc<EmbeddedCluster>,
    directory: PathBuf,
    kubeconfig: PathBuf,
    keep: AtomicBool,
}

impl Embedded {
    pub(super) async fn start(binaries: Binaries, nodes: u8) -> Result<Self> {
        println!("starting the embedded cluster with {nodes} nodes");
        let options = Options { keep_directory: true, pods_per_node: 254, ..Options::default() }
            .with_nodes(usize::from(nodes))
            .with_image(SIDECAR_IMAGE, ImageSpec::new(binaries.path("processhub-sidecar")))
            .with_image(ADAPTER_IMAGE, ImageSpec::new(binaries.path("processhub-adapter")))
            // What a person has installed on this machine stands for an image.
            .with_image(REDIS_IMAGE, ImageSpec::new(REDIS_SERVER))
            .with_image(COUNTER_IMAGE, ImageSpec::new(binaries.path("counter")))
            .with_image(ROOM_IMAGE, ImageSpec::new(binaries.path("room")))
            .with_image(ACCOUNT_IMAGE, ImageSpec::new(binaries.path("account")));
        let options = match python() {
            Some(program) => options.with_image(PYTHON_IMAGE, ImageSpec::new(program)),
            None => options,
        };
        let cluster = EmbeddedCluster::start(options).await?;
        let directory = cluster.directory().to_owned();
        std::fs::create_dir_all(directory.join("operators"))?;
        let kubeconfig = cluster.kubeconfig();
        let keep = AtomicBool::new(false);
        Ok(Self { binaries, cluster: Arc::new(cluster), directory, kubeconfig, keep })
    }

    pub(super) fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig.clone()
    }

    pub(super) fn logs(&self) -> PathBuf {
        self.directory.clone()
    }

    pub(super) fn operator_logs(&self) -> PathBuf {
        self.directory.join("operators")
    }

    /// Lets what was logged outlive the cluster.
    pub(super) fn keep_logs(&self) {
        self.keep.store(true, Ordering::Relaxed);
    }

    pub(super) fn recipe(&self) -> Result<Recipe> {
        let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
        let mut free = PORTS.filter(free);
        let ports = [free.next().context("no free port")?, free.next().context("no free port")?];
        let (program, kubeconfig) = (self.binaries.path("processhub-operator"), self.kubeconfig());
        Ok(Box::new(move |name| {
            let mut command = Command::new(&program);
            let port = ports[usize::from(name.ends_with('1'))];
            command.args(super::operator_arguments(port)).env("KUBECONFIG", &kubeconfig);
            command
        }))
    }

    /// Operators end with the cluster, even if this process is killed.
    pub(super) fn register(&self) -> Register {
        let cluster = Arc::downgrade(&self.cluster);
        Box::new(move |group, runs| match cluster.upgrade() {
            Some(cluster) if runs => cluster.adopt(group),
            Some(cluster) => cluster.disown(group),
            None => {}
        })
    }

    pub(super) fn join(&self) -> Result<String> {
        let name = format!("node-{}", self.cluster.nodes().len() + 1);
        self.cluster.join_node(&name)?;
        Ok(name)
    }

    pub(super) async fn lose(&self, node: &str) -> Result<()> {
        Ok(self.cluster.kill_node(node).await?)
    }

    pub(super) fn plug(&self, node: &str, plugged: bool) -> Result<()> {
        let plug = if plugged { EmbeddedCluster::heal_node } else { EmbeddedCluster::cut_node };
        Ok(plug(&self.cluster, node)?)
    }

    pub(super) async fn serve_api(&self, up: bool) -> Result<()> {
        if up {
            self.cluster.start_apiserver().await?;
        } else {
            self.cluster.stop_apiserver().await;
        }
        Ok(())
    }

    /// The process group of a container.
    pub(super) fn group(&self, namespace: &str, pod: &str, container: &str) -> Result<Pid> {
        let pid = self.cluster.pid(namespace, pod, container).and_then(Pid::from_raw);
        pid.with_context(|| format!("{container} of {pod} does not run"))
    }

    pub(super) fn mark(&self) -> Mark {
        let entries = self.cluster.audit_since(0);
        Mark(entries.last().map_or(0, |entry| entry.sequence))
    }

    pub(super) fn writes_since(&self, mark: Mark) -> Vec<Write> {
        let entries = self.cluster.audit_since(mark.0);
        entries.into_iter().filter(|entry| entry.code < 300).filter_map(write).collect()
    }

    pub(super) async fn stop(self) -> Result<()> {
        match Arc::into_inner(self.cluster) {
            Some(cluster) => cluster.shutdown().await,
            None => bail!("the cluster is still in use"),
        }
        if !self.keep.load(Ordering::Relaxed) {
            // Somebody may have removed it by hand.
            let _ = std::fs::remove_dir_all(&self.directory);
        }
        Ok(())
    }
}

/// Kubelets and controllers of this cluster write without HTTP, so that only operators, tests and people are here.
fn write(entry: Entry) -> Option<Write> {
    let verb = match entry.verb {
        Verb::Get | Verb::List | Verb::Watch => return None,
        Verb::Create => "create",
        Verb::Update => "update",
        Verb::Patch => "patch",
        Verb::Delete => "delete",
        Verb::DeleteCollection => "deletecollection",
    };
    let resource = match entry.subresource.as_str() {
        "" => entry.resource,
        subresource => format!("{}/{subresource}", entry.resource),
    };
    let by_operator = entry.user_agent != super::USER_AGENT && !entry.user_agent.starts_with("kubectl");
    Some(Write { verb: verb.into(), resource, namespace: entry.namespace, name: entry.name, by_operator })
}

/// What the chart installs, as far as the operators need it: definitions and their namespace.
pub(super) async fn install(client: &Client) -> Result<()> {
    for definition in processhub_crds::generate::crds()? {
        let request = Request::post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions")
            .header("content-type", "application/json")
            .body(serde_json::to_vec(&definition)?)?;
        client.request::<serde_json::Value>(request).await.context("install a definition")?;
    }
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let mut system = Namespace::default();
    system.metadata.name = Some(SYSTEM.to_owned());
    namespaces.create(&PostParams::default(), &system).await.context("create the operators' namespace")?;
    Ok(())
}

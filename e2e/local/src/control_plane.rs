//! etcd, the API server, the controllers, the scheduler and the name server, all in one network namespace.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;
use std::time::Duration;

use crate::command::{create_dir, run, run_with_input, wait_until, write_file};
use crate::config;
use crate::daemon;
use crate::error::{Error, Result};
use crate::machine::{ADMIN, Machine};
use crate::network;
use crate::plan::{API_PORT, API_SERVICE, CONTROL_PLANE, FORWARD_PORTS, SERVICE_CIDR};
use crate::tools::Tool;

const ETCD: &str = "etcd";
const API_SERVER: &str = "apiserver";
const CONTROLLERS: &str = "controller-manager";
const SCHEDULER: &str = "scheduler";
const FORWARD: &str = "forward";
const DNS: &str = "coredns";
const DNS_USER: &str = "system:coredns";
const CLUSTER_ADMINS: &str = "system:masters";
const READY: Duration = Duration::from_secs(120);

/// A port of the host on which nobody listens.
pub(crate) fn free_port() -> Result<u16> {
    let free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    FORWARD_PORTS.clone().find(free).ok_or_else(|| Error::Invalid {
        field: "port",
        value: format!("{}-{}", FORWARD_PORTS.start, FORWARD_PORTS.end),
        rule: "all ports of the range are taken on 127.0.0.1; end what listens there",
    })
}

/// Starts everything but the nodes, and returns when the API server is ready.
pub(crate) fn start(machine: &Machine) -> Result<()> {
    let hub = machine.control_plane();
    network::create_hub(&hub)?;
    let authority = machine.authority();
    authority.create(
        &[CONTROL_PLANE, API_SERVICE, Ipv4Addr::LOCALHOST],
        &["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"],
    )?;
    authority.client("kubelet-client", "kube-apiserver-kubelet-client", Some(CLUSTER_ADMINS))?;
    let here = format!("https://127.0.0.1:{}", machine.state.port);
    machine.enroll_at(&here, ADMIN, "admin", Some(CLUSTER_ADMINS))?;
    write_file(&machine.layout.config("audit-policy.json"), &config::audit_policy().to_string())?;

    start_etcd(machine)?;
    start_forward(machine)?;
    start_apiserver(machine)?;
    start_controllers(machine)?;
    start_scheduler(machine)?;
    start_dns(machine)
}

/// Starts the API server and waits until it is ready.
pub(crate) fn start_apiserver(machine: &Machine) -> Result<()> {
    let authority = machine.authority();
    let server = authority.identity(API_SERVER);
    let kubelet_client = authority.identity("kubelet-client");
    let flags = BTreeMap::from([
        ("etcd-servers", "http://127.0.0.1:2379".to_owned()),
        ("secure-port", API_PORT.to_string()),
        // May not be a loopback address: it is what pods are told.
        ("advertise-address", CONTROL_PLANE.to_string()),
        ("tls-cert-file", server.certificate.display().to_string()),
        ("tls-private-key-file", server.key.display().to_string()),
        ("client-ca-file", authority.certificate().display().to_string()),
        ("kubelet-client-certificate", kubelet_client.certificate.display().to_string()),
        ("kubelet-client-key", kubelet_client.key.display().to_string()),
        // Without it `logs` and `exec` look the node's name up.
        ("kubelet-preferred-address-types", "InternalIP".to_owned()),
        ("service-account-issuer", "https://kubernetes.default.svc.cluster.local".to_owned()),
        ("service-account-key-file", authority.service_account_public_key().display().to_string()),
        ("service-account-signing-key-file", authority.service_account_key().display().to_string()),
        ("service-cluster-ip-range", SERVICE_CIDR.to_owned()),
        ("authorization-mode", "Node,RBAC".to_owned()),
        ("enable-admission-plugins", "NodeRestriction".to_owned()),
        ("allow-privileged", "true".to_owned()),
        // Webhooks are called at their pods: there is no kube-proxy beside the API server.
        ("enable-aggregator-routing", "true".to_owned()),
        ("audit-policy-file", machine.layout.config("audit-policy.json").display().to_string()),
        ("audit-log-path", machine.layout.audit_log().display().to_string()),
    ]);
    machine.start(API_SERVER, &machine.part(&machine.control_plane(), API_SERVER, &flags)?)?;
    await_api(machine)
}

/// Kills the API server. With SIGKILL, because on SIGTERM it may take minutes; clients see the same.
pub(crate) fn stop_apiserver(machine: &Machine) -> Result<()> {
    machine.kill(|part| part == API_SERVER)
}

/// Whether the cluster's API server or its store runs.
pub(crate) fn is_running(cluster: &str) -> bool {
    [ETCD, API_SERVER].iter().any(|part| !daemon::find_part(cluster, part).is_empty())
}

fn await_api(machine: &Machine) -> Result<()> {
    wait_until("the API server's readiness", READY, &machine.layout.log(API_SERVER), || {
        // Cheap to ask before the costly question.
        let listens = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, machine.state.port)).is_ok();
        listens
            && machine.kubectl().is_ok_and(|mut kubectl| run(kubectl.args(["get", "--raw=/readyz"])).is_ok())
    })
}

fn start_etcd(machine: &Machine) -> Result<()> {
    create_dir(&machine.layout.etcd())?;
    let (clients, peers) = ("http://127.0.0.1:2379", "http://127.0.0.1:2380");
    let mut flags = BTreeMap::from([
        ("data-dir", machine.layout.etcd().display().to_string()),
        ("listen-client-urls", clients.to_owned()),
        ("advertise-client-urls", clients.to_owned()),
        ("listen-peer-urls", peers.to_owned()),
        ("initial-advertise-peer-urls", peers.to_owned()),
        ("initial-cluster", format!("default={peers}")),
        ("auto-compaction-retention", "10m".to_owned()),
    ]);
    if !machine.state.fsync {
        flags.insert("unsafe-no-fsync", "true".to_owned());
    }
    machine.start(ETCD, &machine.part(&machine.control_plane(), ETCD, &flags)?)
}

fn start_forward(machine: &Machine) -> Result<()> {
    let mut command = Command::new(machine.tools.provide(Tool::Testcluster)?);
    command.arg(FORWARD);
    command.arg(format!("--listen=127.0.0.1:{}", machine.state.port));
    command.arg(format!("--namespace={}", machine.control_plane().path().display()));
    command.arg(format!("--target={CONTROL_PLANE}:{API_PORT}"));
    machine.start(FORWARD, &command)
}

fn start_controllers(machine: &Machine) -> Result<()> {
    let authority = machine.authority();
    let kubeconfig = machine.enroll(CONTROLLERS, "system:kube-controller-manager", None)?;
    let flags = BTreeMap::from([
        ("kubeconfig", kubeconfig.display().to_string()),
        ("use-service-account-credentials", "true".to_owned()),
        ("service-account-private-key-file", authority.service_account_key().display().to_string()),
        ("root-ca-file", authority.certificate().display().to_string()),
        ("leader-elect", "false".to_owned()),
        ("node-monitor-grace-period", format!("{}ms", machine.state.node_monitor_grace_milliseconds)),
        ("node-monitor-period", "1s".to_owned()),
    ]);
    machine.start(CONTROLLERS, &machine.part(&machine.control_plane(), CONTROLLERS, &flags)?)
}

fn start_scheduler(machine: &Machine) -> Result<()> {
    let kubeconfig = machine.enroll(SCHEDULER, "system:kube-scheduler", None)?;
    let flags = BTreeMap::from([
        ("kubeconfig", kubeconfig.display().to_string()),
        ("leader-elect", "false".to_owned()),
    ]);
    machine.start(SCHEDULER, &machine.part(&machine.control_plane(), SCHEDULER, &flags)?)
}

fn start_dns(machine: &Machine) -> Result<()> {
    apply(machine, &config::dns_objects(DNS_USER).to_string())?;
    let kubeconfig = machine.enroll(DNS, DNS_USER, None)?;
    let corefile = machine.layout.config("Corefile");
    write_file(&corefile, &config::corefile(&kubeconfig))?;
    let mut command = machine.control_plane().command(machine.tools.provide(Tool::Coredns)?);
    command.arg("-conf").arg(corefile);
    machine.start(DNS, &command)
}

/// Creates or changes objects, given as JSON or YAML.
pub(crate) fn apply(machine: &Machine, objects: &str) -> Result<()> {
    let mut kubectl = machine.kubectl()?;
    kubectl.args(["apply", "--server-side", "--validate=false", "--filename=-"]);
    run_with_input(&mut kubectl, objects).map(drop)
}

//! The configuration files of the cluster's programs. Pure: values in, text out.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::certificates::{Authority, Identity};
use crate::layout::NodeLayout;
use crate::plan::{CONTROL_PLANE, DNS_SERVICE, POD_CIDR};

/// The tag of the image that holds a pod's namespaces.
pub(crate) const PAUSE_IMAGE: &str = "localhost/processhub-pause:1";

/// How the API server is reached as `identity`.
pub(crate) fn kubeconfig(server: &str, authority: &Authority, identity: &Identity) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "local", "cluster": {
            "server": server,
            "certificate-authority": authority.certificate(),
        }}],
        "users": [{"name": "user", "user": {
            "client-certificate": identity.certificate,
            "client-key": identity.key,
        }}],
        "contexts": [{"name": "local", "context": {"cluster": "local", "user": "user"}}],
        "current-context": "local",
    })
}

/// Every write that tests count, without bodies; each entry carries user, verb, object and time.
pub(crate) fn audit_policy() -> Value {
    json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived", "ResponseStarted"],
        "rules": [
            {
                "level": "Metadata",
                "verbs": ["create", "update", "patch", "delete", "deletecollection"],
                "resources": [
                    {"group": "", "resources": [
                        "pods", "pods/status", "pods/eviction", "pods/binding", "services", "events",
                    ]},
                    {"group": "events.k8s.io", "resources": ["events"]},
                    {"group": "discovery.k8s.io", "resources": ["endpointslices"]},
                    {"group": "coordination.k8s.io", "resources": ["leases"]},
                    {"group": "processhub.io"},
                ],
            },
            {"level": "None"},
        ],
    })
}

/// A kubelet's configuration; `lease` is how long a node may be silent before its lease lapses.
pub(crate) fn kubelet(node: &NodeLayout, cgroup: &str, authority: &Authority, lease: Duration) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": false},
            "x509": {"clientCAFile": authority.certificate()},
        },
        "authorization": {"mode": "AlwaysAllow"},
        "containerRuntimeEndpoint": format!("unix://{}", node.containerd_socket().display()),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup,
        "cgroupsPerQOS": true,
        "enforceNodeAllocatable": [],
        "failCgroupV1": false,
        "failSwapOn": false,
        "localStorageCapacityIsolation": false,
        // All nodes share the disk and memory of one machine: what one reports says nothing about its pods.
        "evictionHard": {
            "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%",
            "memory.available": "1Mi",
        },
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "nodeStatusUpdateFrequency": "2s",
        "nodeStatusReportFrequency": "10s",
        "nodeLeaseDurationSeconds": lease.as_secs().max(1),
        "clusterDNS": [CONTROL_PLANE],
        "clusterDomain": "cluster.local",
        // The machine's own search domains are no part of the cluster.
        "resolvConf": "",
        "podLogsDir": node.pod_logs(),
        "volumePluginDir": node.volume_plugins(),
        "maxPods": 250,
    })
}

/// kube-proxy's configuration for the machine `host` at `address`.
pub(crate) fn proxy(host: &str, address: Ipv4Addr, kubeconfig: &Path) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clusterCIDR": POD_CIDR,
        "hostnameOverride": host,
        "bindAddress": address,
        "clientConnection": {"kubeconfig": kubeconfig},
        // These are settings of the whole machine, which a network namespace may not change.
        "conntrack": {"maxPerCore": 0, "min": 0},
    })
}

/// The pods' network on one node.
pub(crate) fn cni(node: &NodeLayout, subnet: &str) -> Value {
    json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [{
            "type": "ptp",
            "ipMasq": false,
            "ipam": {
                "type": "host-local",
                "dataDir": node.ipam(),
                "ranges": [[{"subnet": subnet}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }],
    })
}

/// containerd's configuration on one node, understood by its versions 1 and 2.
pub(crate) fn containerd(node: &NodeLayout, cni_plugins: &Path) -> String {
    // A JSON string is a TOML basic string, with the same escapes.
    let quoted = |path: &Path| Value::from(path.to_string_lossy()).to_string();
    let socket = node.containerd_socket();
    let ttrpc = socket.with_extension("sock.ttrpc");
    format!(
        r#"version = 2
root = {root}
state = {state}
disabled_plugins = ["io.containerd.nri.v1.nri"]
[grpc]
  address = {socket}
[ttrpc]
  address = {ttrpc}
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = {plugins}
    conf_dir = {networks}
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
"#,
        root = quoted(&node.containerd_root()),
        state = quoted(&node.containerd_state()),
        socket = quoted(&socket),
        ttrpc = quoted(&ttrpc),
        plugins = quoted(cni_plugins),
        networks = quoted(&node.cni_dir()),
    )
}

/// The name server's configuration: the cluster's names and nothing else, since nothing leaves the machine.
pub(crate) fn corefile(kubeconfig: &Path) -> String {
    format!(
        ".:53 {{\n    bind {CONTROL_PLANE}\n    errors\n    ready {CONTROL_PLANE}:8181\n    \
         kubernetes cluster.local in-addr.arpa {{\n        kubeconfig {}\n        ttl 1\n    }}\n}}\n",
        kubeconfig.display()
    )
}

/// What a program outside of any pod resolves names with.
pub(crate) fn client_resolver() -> String {
    format!(
        "nameserver {CONTROL_PLANE}\nsearch default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n"
    )
}

/// The name server's rights, and its Service for those who look for it there.
pub(crate) fn dns_objects(user: &str) -> Value {
    let meta = json!({"name": "kube-dns", "namespace": "kube-system", "labels": {
        "k8s-app": "kube-dns", "kubernetes.io/service-name": "kube-dns",
    }});
    let ports = || {
        json!([
            {"name": "dns", "protocol": "UDP", "port": 53},
            {"name": "dns-tcp", "protocol": "TCP", "port": 53},
        ])
    };
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": user},
            "rules": [
                {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"]},
                {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
            ],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": user},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": user},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta,
            "spec": {"clusterIP": DNS_SERVICE, "ports": ports()},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": meta,
            "addressType": "IPv4",
            "endpoints": [{"addresses": [CONTROL_PLANE], "conditions": {"ready": true}}],
            "ports": ports(),
        },
    ]})
}

/// A Node object that says no more than an address; see [`crate::client`].
pub(crate) fn bare_node(name: &str, address: Ipv4Addr) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name},
        "spec": {"unschedulable": true},
        "status": {"addresses": [{"type": "InternalIP", "address": address}]},
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::layout::Layout;

    fn node() -> NodeLayout {
        Layout::new(PathBuf::from("/x y/cluster")).node("node1")
    }

    #[test]
    fn everything_a_node_writes_is_below_its_directory() {
        let authority = Authority::at(PathBuf::from("/pki"));
        let kubelet = kubelet(&node(), "/phk/node1", &authority, Duration::from_secs(4));
        for field in ["podLogsDir", "volumePluginDir"] {
            assert!(kubelet[field].as_str().unwrap().starts_with("/x y/cluster/nodes/node1/"), "{field}");
        }
        let containerd = containerd(&node(), Path::new("/usr/lib/cni"));
        for key in ["root", "state", "address", "conf_dir"] {
            let line = containerd.lines().find(|line| line.trim_start().starts_with(&format!("{key} = ")));
            assert!(line.unwrap().contains("\"/x y/cluster/nodes/node1/"), "{key}: {line:?}");
        }
        assert!(
            cni(&node(), "10.244.1.0/24")["plugins"][0]["ipam"]["dataDir"]
                .as_str()
                .unwrap()
                .starts_with("/x y/cluster/nodes/node1/")
        );
    }

    #[test]
    fn a_lease_is_never_zero_seconds() {
        let authority = Authority::at(PathBuf::from("/pki"));
        let kubelet = kubelet(&node(), "/phk/node1", &authority, Duration::from_millis(100));
        assert_eq!(kubelet["nodeLeaseDurationSeconds"], 1);
    }

    #[test]
    fn all_writes_of_our_own_kinds_are_audited_and_reads_are_not() {
        let policy = audit_policy();
        let first = &policy["rules"][0];
        assert!(first["resources"].as_array().unwrap().contains(&json!({"group": "processhub.io"})));
        assert!(!first["verbs"].as_array().unwrap().iter().any(|verb| verb == "get" || verb == "watch"));
        assert_eq!(policy["rules"][1], json!({"level": "None"}));
    }
}

//! What the tests share.

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::discovery::ApiResource;
use kube::{Api, Client, Config};
use processhub_embedded_cluster::{EmbeddedCluster, ImageSpec, Options};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long anything that must happen may take on a busy machine; nothing is concluded from how long it took.
const PATIENCE: Duration = Duration::from_secs(60);

/// Options with the test program as image `pod`, and quick probes.
pub fn options(nodes: usize) -> Options {
    let image = ImageSpec::new(env!("CARGO_BIN_EXE_embedded-pod"));
    let quick = Options {
        probe_pace: 0.1,
        lease_period: Duration::from_millis(200),
        node_grace: Duration::from_secs(2),
        orphan_grace: Duration::from_millis(500),
        ..Options::default()
    };
    quick.with_nodes(nodes).with_image("pod", image)
}

/// A client of the cluster.
pub async fn client(cluster: &EmbeddedCluster) -> Client {
    client_of(&cluster.kubeconfig()).await
}

/// A client of the cluster that a kubeconfig names.
pub async fn client_of(kubeconfig: &Path) -> Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

/// Waits until `look` finds something.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "{what}: it did not happen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until the pod is as wished.
pub async fn pod_until(pods: &Api<Pod>, name: &str, what: &str, wished: impl Fn(&Value) -> bool) -> Value {
    eventually(&format!("pod {name} {what}"), || async {
        let pod = pods.get_opt(name).await.unwrap()?;
        let pod = serde_json::to_value(pod).unwrap();
        wished(&pod).then_some(pod)
    })
    .await
}

/// Whether a pod is ready.
pub fn ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// Waits until a pod is gone.
pub async fn gone(pods: &Api<Pod>, name: &str) {
    eventually(&format!("pod {name} goes"), || async {
        pods.get_opt(name).await.unwrap().is_none().then_some(())
    })
    .await;
}

/// Creates an object of a built-in kind from JSON.
pub async fn create<K>(client: &Client, object: Value) -> K
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>
        + serde::de::DeserializeOwned
        + serde::Serialize
        + Clone
        + std::fmt::Debug,
    K::DynamicType: Default,
{
    let api: Api<K> = Api::namespaced(client.clone(), "default");
    api.create(&Default::default(), &serde_json::from_value(object).unwrap()).await.unwrap()
}

/// A container of the test program with the pod's shared journal.
pub fn container(name: &str, port: u16, more: &[&str]) -> Value {
    let mut args = vec![
        "--name".to_owned(),
        name.to_owned(),
        "--listen".to_owned(),
        format!("$(IP):{port}"),
        "--journal=/shared/journal".to_owned(),
    ];
    args.extend(more.iter().map(|m| (*m).to_owned()));
    json!({
        "name": name, "image": "pod", "args": args,
        "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "ports": [{"name": "main", "containerPort": port}],
        "volumeMounts": [{"name": "shared", "mountPath": "/shared"}],
        "readinessProbe": {"httpGet": {"port": "main", "path": "/healthy"}, "periodSeconds": 1},
    })
}

/// A pod of these containers; what comes in `init` starts before.
pub fn pod(name: &str, init: Vec<Value>, containers: Vec<Value>) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": {
        "terminationGracePeriodSeconds": 30, "initContainers": init, "containers": containers,
        "volumes": [{"name": "shared", "emptyDir": {}}]}})
}

/// The journal of a pod.
pub fn journal(cluster: &EmbeddedCluster, pod: &Value) -> PathBuf {
    let node = pod["spec"]["nodeName"].as_str().unwrap();
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    cluster.directory().join("nodes").join(node).join("pods").join(uid).join("volumes/shared/journal")
}

/// A custom kind `things.x.io` with status, scale, a rule and a selectable field.
pub fn definition() -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.x.io"},
        "spec": {"group": "x.io", "scope": "Namespaced",
            "names": {"plural": "things", "kind": "Thing", "shortNames": ["th"]},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas",
                    "statusReplicasPath": ".status.replicas"}},
                "selectableFields": [{"jsonPath": ".spec.hub"}],
                "additionalPrinterColumns": [{"name": "HUB", "type": "string", "jsonPath": ".spec.hub"}],
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": {
                        "hub": {"type": "string", "maxLength": 8},
                        "replicas": {"type": "integer", "minimum": 0, "default": 1}},
                        "x-kubernetes-validations": [{"rule": "!has(oldSelf.hub) || self.hub == oldSelf.hub",
                            "message": "hub_is_immutable", "reason": "FieldValueForbidden", "fieldPath": ".hub"}]},
                    "status": {"type": "object", "properties": {"replicas": {"type": "integer"},
                        "epoch": {"type": "integer"}}}}}}}]}})
}

/// Installs the custom kind and returns its API.
pub async fn things(client: &Client) -> Api<DynamicObject> {
    let crds: Api<
        k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    > = Api::all(client.clone());
    crds.patch("things.x.io", &PatchParams::apply("test"), &Patch::Apply(definition())).await.unwrap();
    Api::namespaced_with(client.clone(), "default", &resource())
}

/// The custom kind, for kube-rs.
pub fn resource() -> ApiResource {
    ApiResource::from_gvk(&kube::core::GroupVersionKind::gvk("x.io", "v1", "Thing"))
}

/// An object of the custom kind.
pub fn thing(name: &str, spec: Value) -> DynamicObject {
    DynamicObject::new(name, &resource()).data(json!({"spec": spec}))
}

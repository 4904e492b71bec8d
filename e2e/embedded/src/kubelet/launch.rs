//! Starting a container: everything that may block, away from the tasks that must not.

use super::container::{Places, Run};
use super::environment::{Context, invocation};
use super::model::Waiting;
use super::node::NodeContext;
use super::probe::Target;
use super::spec::Container;
use super::volumes;
use crate::api::object::Key;
use crate::api::store::ResourceId;
use k8s_openapi::ByteString;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

/// A container that is to be started.
pub struct Launch {
    /// Its node.
    pub node: Arc<NodeContext>,
    /// Its pod's name.
    pub key: Key,
    /// Its pod.
    pub pod: Arc<Value>,
    /// Its pod's address.
    pub address: Ipv4Addr,
    /// Where its pod's files are.
    pub directory: PathBuf,
    /// What it is.
    pub spec: Container,
    /// How often it was started again.
    pub restarts: u32,
    /// The run that this is.
    pub number: u64,
}

impl Launch {
    /// Starts it when it is its turn: hundreds of processes that start at once would leave no processor to an operator,
    /// which in a real cluster has a machine of its own, and kubelets start few at once, too.
    ///
    /// # Errors
    /// What the container waits for.
    pub async fn go(self) -> Result<Run, Waiting> {
        let failed = |why: String| Waiting { reason: "RunContainerError", message: why };
        let turns = self.node.starts.clone();
        let turn = turns.acquire_owned().await.map_err(|e| failed(e.to_string()))?;
        let pause = self.node.options.start_pause;
        let launched = tokio::task::spawn_blocking(move || self.launch()).await;
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            drop(turn);
        });
        launched.map_err(|e| failed(e.to_string()))?
    }

    fn launch(&self) -> Result<Run, Waiting> {
        let image = self.node.options.images.get(&self.spec.image).ok_or_else(|| Waiting {
            reason: "ErrImagePull",
            message: format!(
                "image {:?} is not among the images that this cluster was started with",
                self.spec.image
            ),
        })?;
        let secret = |name: &str| self.data("secrets", name);
        let config_map = |name: &str| self.data("configmaps", name);
        let volumes = volumes::prepare(&self.pod, &self.directory.join("volumes"), &secret, &config_map)?;
        let context = Context {
            pod: &self.pod,
            address: self.address,
            host: self.node.address,
            volumes: &volumes,
            secret: &secret,
            config_map: &config_map,
        };
        let mut invocation = invocation(&self.spec.raw, &context)?;
        let mut variables = vec![
            ("PATH".to_owned(), std::env::var("PATH").unwrap_or_default()),
            ("HOME".to_owned(), "/".to_owned()),
            ("HOSTNAME".to_owned(), self.key.name.clone()),
        ];
        if self.pod.pointer("/spec/automountServiceAccountToken") != Some(&Value::Bool(false)) {
            variables.push(("KUBECONFIG".to_owned(), self.node.kubeconfig.display().to_string()));
        }
        variables.append(&mut invocation.variables);
        invocation.variables = variables;
        let directory = self.directory.join("containers").join(&self.spec.name);
        let log = self.directory.join("logs").join(&self.spec.name).join(format!("{}.log", self.restarts));
        let target = Target {
            address: self.address,
            directory: directory.clone(),
            variables: invocation.variables.clone(),
        };
        let places = Places { directory: &directory, log: &log };
        let run = Run::start(self.number, image, invocation, &places, target, self.node.groups.clone())?;
        self.node.link.log_file(&self.key, &self.spec.name, log);
        Ok(run)
    }

    /// The data of a Secret or ConfigMap of the pod's namespace, as text.
    fn data(&self, plural: &str, name: &str) -> Option<BTreeMap<String, String>> {
        let key = Key::new(self.key.namespace.clone(), name);
        let found = self.node.link.call(|r| Ok(r.store().get(&ResourceId::new("", plural), &key))).ok()??;
        let secret = plural == "secrets";
        let value = |v: &Value| match secret {
            true => serde_json::from_value::<ByteString>(v.clone())
                .map(|b| String::from_utf8_lossy(&b.0).into_owned())
                .unwrap_or_default(),
            false => v.as_str().unwrap_or_default().to_owned(),
        };
        let data = found.get("data").and_then(Value::as_object);
        Some(data.into_iter().flatten().map(|(k, v)| (k.clone(), value(v))).collect())
    }
}

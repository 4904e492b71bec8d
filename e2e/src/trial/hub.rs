//! The hub of a trial.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::artifacts::{ACCOUNT_IMAGE, PYTHON_IMAGE, repository};
use crate::load::Speech;
use crate::oracle::Applied;
use crate::site::Site;

/// Port of the example worker.
pub const PORT: u16 = 8080;

/// Which of the example workers a hub runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Example {
    /// The counter.
    #[default]
    Counter,
    /// The account in Rust.
    Account,
    /// The account in Python.
    PythonAccount,
}

impl Example {
    pub(super) fn image(self, site: &Site) -> &str {
        match self {
            Self::Counter => site.worker_image(),
            Self::Account => ACCOUNT_IMAGE,
            Self::PythonAccount => PYTHON_IMAGE,
        }
    }

    pub(super) fn speech(self) -> Speech {
        match self {
            Self::Counter => Speech::Counter,
            Self::Account | Self::PythonAccount => Speech::Account,
        }
    }

    /// Where it says which requests it holds, and how that is read.
    pub(super) fn audit(self) -> (&'static str, fn(&str) -> Result<Applied>) {
        match self {
            Self::Counter => ("/audit", read_audit),
            Self::Account | Self::PythonAccount => ("/bookings", read_bookings),
        }
    }

    /// What the container runs and with which environment, where the image does not say it.
    fn command(self) -> (Option<Value>, Vec<Value>) {
        match self {
            Self::Counter | Self::Account => (None, Vec::new()),
            Self::PythonAccount => {
                let root = repository();
                let path = [root.join("sdk/python/src"), root.join("examples/account")];
                let path = path.map(|directory| directory.display().to_string()).join(":");
                let command = json!(["python3", "-B", "-m", "account"]);
                (Some(command), vec![json!({"name": "PYTHONPATH", "value": path})])
            }
        }
    }
}

/// What the counter answers to `GET /audit`.
fn read_audit(text: &str) -> Result<Applied> {
    let audit: counter::Audit = serde_json::from_str(text).context("an audit that cannot be read")?;
    Ok(Applied { clients: audit.clients, duplicates: audit.duplicates })
}

/// What the account answers to `GET /bookings`: an `id` of our clients is the client's name and its number.
fn read_bookings(text: &str) -> Result<Applied> {
    let bookings: BTreeMap<String, u64> =
        serde_json::from_str(text).context("bookings that cannot be read")?;
    let mut applied = Applied::default();
    for (id, amount) in bookings {
        let (client, number) = id.rsplit_once('/').with_context(|| format!("a booking of `{id}`"))?;
        let number = number.parse().with_context(|| format!("a booking of `{id}`"))?;
        applied.clients.entry(client.to_owned()).or_default().push((number, number));
        applied.duplicates += amount.saturating_sub(1);
    }
    Ok(applied)
}

/// What the hub of a trial is like.
#[derive(Clone, Debug)]
pub struct HubOptions {
    /// Name of the hub, and prefix of its processes.
    pub name: String,
    /// What its processes are.
    pub example: Example,
    /// Processes.
    pub replicas: u32,
    /// Ballast in each process's state, in bytes.
    pub state_size: u64,
    /// Merged over `spec`.
    pub spec: Value,
    /// Further environment of the worker.
    pub environment: Vec<(String, String)>,
    /// Memory that each worker may use; without bound unless it says so.
    pub memory: Option<&'static str>,
    /// How many of the first processes have clients; all unless it says less.
    pub driven: u32,
}

impl Default for HubOptions {
    fn default() -> Self {
        Self {
            name: "cart".into(),
            example: Example::Counter,
            replicas: 12,
            state_size: 1024,
            spec: json!({}),
            environment: Vec::new(),
            memory: None,
            driven: u32::MAX,
        }
    }
}

impl HubOptions {
    /// A hub of that name with so many processes, and otherwise as usual.
    #[must_use]
    pub fn of(name: &str, replicas: u32) -> Self {
        Self { name: name.to_owned(), replicas, ..Self::default() }
    }

    /// With processes of that kind.
    #[must_use]
    pub fn example(mut self, example: Example) -> Self {
        self.example = example;
        self
    }

    /// With this merged over `spec`; null takes a field away.
    #[must_use]
    pub fn spec(mut self, over: Value) -> Self {
        self.spec = over;
        self
    }

    /// With the checkpoints that a hub has unless it says otherwise; they run beside its moves.
    #[must_use]
    pub fn checkpointed(mut self) -> Self {
        self.spec["checkpoint"] = Value::Null;
        self
    }

    /// With one more variable in the worker's environment.
    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With these faults in every worker from its start.
    #[must_use]
    pub fn faults(self, faults: &str) -> Self {
        self.environment("COUNTER_FAULTS", faults)
    }

    /// With so much memory for each worker.
    #[must_use]
    pub fn memory(mut self, limit: &'static str) -> Self {
        self.memory = Some(limit);
        self
    }

    /// With clients for the first so many processes only.
    #[must_use]
    pub fn driven(mut self, driven: u32) -> Self {
        self.driven = driven;
        self
    }

    /// With so many bytes of ballast in each process's state.
    #[must_use]
    pub fn state_size(mut self, bytes: u64) -> Self {
        self.state_size = bytes;
        self
    }

    /// Pause of each client, in milliseconds: all together send at most about a thousand requests a second, so that
    /// two cores have time for the cluster.
    #[must_use]
    pub fn pause(&self) -> u32 {
        (2 * self.replicas.min(self.driven)).max(5)
    }
}

/// The object.
pub(super) fn hub(options: &HubOptions, image: &str) -> Value {
    let (command, mut environment) = options.example.command();
    environment.push(json!({"name": "STATE_SIZE", "value": options.state_size.to_string()}));
    environment.extend(options.environment.iter().map(|(name, value)| json!({"name": name, "value": value})));
    let mut spec = json!({
        "replicas": options.replicas,
        "migration": {"handover": true, "retentionMilliseconds": 2000},
        "worker": {"port": PORT},
        // Half of the scenarios choose another one: a kept state might hide what a move loses, and it might disturb it.
        "checkpoint": {"class": "None"},
        "template": {"spec": {
            "terminationGracePeriodSeconds": 5,
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "worker",
                "image": image,
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
    if let Some(command) = command {
        spec["template"]["spec"]["containers"][0]["command"] = command;
    }
    if let Some(memory) = options.memory {
        spec["template"]["spec"]["containers"][0]["resources"] = json!({"limits": {"memory": memory}});
    }
    merge(&mut spec, &options.spec);
    json!({
        "apiVersion": "processhub.io/v1alpha1",
        "kind": "ProcessHub",
        "metadata": {"name": options.name},
        "spec": spec,
    })
}

/// JSON merge patch (RFC 7396).
fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                if value.is_null() {
                    base.remove(key);
                } else {
                    merge(base.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (base, over) => *base = over.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bookings_are_read_as_the_requests_that_were_applied() {
        let applied =
            read_bookings(r#"{"run-a-0-kept/1": 1, "run-a-0-kept/3": 1, "run-a-0-fresh/1": 2}"#).unwrap();
        assert!(applied.holds("run-a-0-kept", 3) && !applied.holds("run-a-0-kept", 2));
        assert_eq!((applied.clients.len(), applied.duplicates), (2, 1));
        assert!(read_bookings(r#"{"lunch": 1}"#).is_err());
    }
}

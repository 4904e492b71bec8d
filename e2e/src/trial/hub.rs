//! The hub of a trial.

use serde_json::{Value, json};

/// Port of the example worker.
pub const PORT: u16 = 8080;

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
    pub spec: Value,
    /// Further environment of the worker.
    pub environment: Vec<(String, String)>,
    /// How many of the first processes have clients; all unless it says less.
    pub driven: u32,
}

impl Default for HubOptions {
    fn default() -> Self {
        Self {
            name: "cart".into(),
            replicas: 12,
            state_size: 1024,
            spec: json!({}),
            environment: Vec::new(),
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

    /// With this merged over `spec`; null takes a field away.
    #[must_use]
    pub fn spec(mut self, over: Value) -> Self {
        self.spec = over;
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

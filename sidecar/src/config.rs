//! What the operator tells a sidecar, by environment.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use processhub_protocol::contract::{DEFAULT_CONTROL, ENV_CONTROL, ENV_LISTEN};
use processhub_protocol::id::{Epoch, PodUid, ProcessUid};
use processhub_protocol::wire::{CONTROL_PORT, CheckpointClass};

use crate::auth::Credentials;

/// Everything that a sidecar knows before it has read its disk.
#[derive(Clone, Debug)]
pub struct Config {
    /// Namespace of the process.
    pub namespace: String,
    /// Hub of the process.
    pub hub: String,
    /// Name of the process.
    pub name: String,
    /// UID of the process.
    pub process: ProcessUid,
    /// UID of this pod.
    pub pod: PodUid,
    /// The epoch that this pod was created with.
    pub born: Epoch,
    /// Where the control endpoints are served: the pod's address.
    pub control: SocketAddr,
    /// Where clients are served: the pod's address and the worker's port.
    pub data: SocketAddr,
    /// Where the worker serves its contract.
    pub worker_control: SocketAddr,
    /// Where the worker serves its clients.
    pub worker_listen: SocketAddr,
    /// What it speaks with them.
    pub protocol: Protocol,
    /// Whether the worker is not started before this pod is activated (cold swap).
    pub gated: bool,
    /// Whether it serves only while it holds a lease.
    pub leased: bool,
    /// Folder of the record and the kept states; on a disk that survives restarts of the container.
    pub state_dir: PathBuf,
    /// When the worker's state is captured while it serves.
    pub checkpoint: Checkpoint,
    /// Bounds of what is held during a blackout.
    pub hold: HoldLimits,
    /// How long a pod that ends goes on forwarding.
    pub retention: Duration,
    /// How long the worker's `preStop` hook may wait.
    pub hook_bound: Duration,
    /// The hub's key.
    pub credentials: Credentials,
}

/// What a worker speaks with its clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1: requests are held and sent on one by one.
    #[default]
    Http,
    /// Anything: connections are held and passed through.
    Tcp,
}

impl std::str::FromStr for Protocol {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "HTTP" => Ok(Self::Http),
            "TCP" => Ok(Self::Tcp),
            _ => Err(()),
        }
    }
}

/// When the worker's state is captured while it serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// What an answer waits for; `None` decides for each answer: `Sync` where the worker numbers it, else `Async`.
    pub class: Option<CheckpointClass>,
    /// The least time between two captures that no answer waits for.
    pub period: Duration,
    /// With how many sidecars of other nodes the newest one is kept.
    pub replicas: u32,
}

impl Default for Checkpoint {
    fn default() -> Self {
        Self { class: None, period: Duration::from_secs(1), replicas: 0 }
    }
}

impl Checkpoint {
    /// Whether every answer goes out before its change is on disk.
    #[must_use]
    pub fn exposes_all(&self) -> bool {
        matches!(self.class, Some(CheckpointClass::None | CheckpointClass::Async))
    }
}

/// Bounds of what is held during a blackout. Beyond any of them a request is answered 503.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldLimits {
    /// Requests held at once.
    pub requests: usize,
    /// Bytes of their bodies.
    pub bytes: usize,
    /// How long one is held.
    pub time: Duration,
}

impl Default for HoldLimits {
    fn default() -> Self {
        Self { requests: 256, bytes: 8 << 20, time: Duration::from_secs(10) }
    }
}

/// A variable that is missing or malformed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not set.
    #[error("{0} is not set: the operator sets it on the container `processhub-sidecar`")]
    Missing(&'static str),
    /// Set to something else than it should be.
    #[error("{name} is not {expected}: correct it on the container `processhub-sidecar`")]
    Malformed {
        /// The variable.
        name: &'static str,
        /// What it should be.
        expected: &'static str,
    },
}

impl Config {
    /// Reads the variables through `lookup`.
    ///
    /// # Errors
    /// The first variable that is missing or malformed. The key's value is never part of the message.
    pub fn read(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let read = Reader { lookup };
        let ip: IpAddr = read.parsed("PROCESSHUB_POD_IP", "an IP address")?;
        let port: u16 = read.parsed("PROCESSHUB_PORT", "a port")?;
        let control_port = read.parsed_or("PROCESSHUB_CONTROL_PORT", "a port", CONTROL_PORT)?;
        let defaults = HoldLimits::default();
        let malformed_key = ConfigError::Malformed {
            name: "PROCESSHUB_KEY",
            expected: "the hub's key in hexadecimal (at least 16 bytes)",
        };
        Ok(Self {
            namespace: read.text("PROCESSHUB_NAMESPACE")?,
            hub: read.text("PROCESSHUB_HUB")?,
            name: read.text("PROCESSHUB_PROCESS")?,
            process: ProcessUid(read.text("PROCESSHUB_PROCESS_UID")?),
            pod: PodUid(read.text("PROCESSHUB_POD_UID")?),
            born: Epoch(read.parsed("PROCESSHUB_EPOCH", "an integer")?),
            control: SocketAddr::new(ip, control_port),
            data: SocketAddr::new(ip, port),
            worker_control: read.parsed_or(
                ENV_CONTROL,
                "an address and port",
                DEFAULT_CONTROL.parse().map_err(|_| ConfigError::Missing(ENV_CONTROL))?,
            )?,
            worker_listen: read.parsed_or(
                ENV_LISTEN,
                "an address and port",
                SocketAddr::from(([127, 0, 0, 1], port)),
            )?,
            protocol: read.parsed_or("PROCESSHUB_PROTOCOL", "HTTP or TCP", Protocol::default())?,
            gated: read.parsed_or("PROCESSHUB_GATED", "true or false", false)?,
            leased: read.parsed_or("PROCESSHUB_LEASED", "true or false", false)?,
            state_dir: read.parsed_or(
                "PROCESSHUB_STATE_DIR",
                "a path",
                PathBuf::from("/var/lib/processhub"),
            )?,
            checkpoint: Checkpoint {
                class: match (read.lookup)("PROCESSHUB_CHECKPOINT_CLASS").as_deref() {
                    None | Some("" | "Auto") => None,
                    Some("None") => Some(CheckpointClass::None),
                    Some("Async") => Some(CheckpointClass::Async),
                    Some("Sync") => Some(CheckpointClass::Sync),
                    Some(_) => {
                        return Err(ConfigError::Malformed {
                            name: "PROCESSHUB_CHECKPOINT_CLASS",
                            expected: "Auto, None, Async or Sync",
                        });
                    }
                },
                period: read
                    .milliseconds_or("PROCESSHUB_CHECKPOINT_MILLISECONDS", Checkpoint::default().period)?,
                replicas: read.parsed_or("PROCESSHUB_CHECKPOINT_REPLICAS", "an integer", 0)?,
            },
            hold: HoldLimits {
                requests: read.parsed_or("PROCESSHUB_HOLD_REQUESTS", "an integer", defaults.requests)?,
                bytes: read.parsed_or("PROCESSHUB_HOLD_BYTES", "an integer", defaults.bytes)?,
                time: read.milliseconds_or("PROCESSHUB_HOLD_MILLISECONDS", defaults.time)?,
            },
            retention: read.milliseconds_or("PROCESSHUB_RETENTION_MILLISECONDS", Duration::from_secs(5))?,
            hook_bound: read.milliseconds_or("PROCESSHUB_HOOK_MILLISECONDS", Duration::from_secs(3600))?,
            credentials: Credentials::from_hex(&read.text("PROCESSHUB_KEY")?).ok_or(malformed_key)?,
        })
    }

    /// [`Config::read`] from this program's environment.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::read(|name| std::env::var(name).ok())
    }
}

struct Reader<F> {
    lookup: F,
}

impl<F: Fn(&str) -> Option<String>> Reader<F> {
    fn text(&self, name: &'static str) -> Result<String, ConfigError> {
        (self.lookup)(name).filter(|value| !value.is_empty()).ok_or(ConfigError::Missing(name))
    }

    fn parsed<T: std::str::FromStr>(
        &self,
        name: &'static str,
        expected: &'static str,
    ) -> Result<T, ConfigError> {
        self.text(name)?.parse().map_err(|_| ConfigError::Malformed { name, expected })
    }

    fn parsed_or<T: std::str::FromStr>(
        &self,
        name: &'static str,
        expected: &'static str,
        default: T,
    ) -> Result<T, ConfigError> {
        match (self.lookup)(name).filter(|value| !value.is_empty()) {
            None => Ok(default),
            Some(value) => value.parse().map_err(|_| ConfigError::Malformed { name, expected }),
        }
    }

    fn milliseconds_or(&self, name: &'static str, default: Duration) -> Result<Duration, ConfigError> {
        let default = u64::try_from(default.as_millis()).unwrap_or(u64::MAX);
        self.parsed_or(name, "an integer (milliseconds)", default).map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup<'a>(changed: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        move |name| {
            let changed = changed.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
            let value = changed.or(match name {
                "PROCESSHUB_NAMESPACE" => Some("default"),
                "PROCESSHUB_HUB" => Some("carts"),
                "PROCESSHUB_PROCESS" => Some("cart-0"),
                "PROCESSHUB_PROCESS_UID" => Some("p-1"),
                "PROCESSHUB_POD_UID" => Some("u-1"),
                "PROCESSHUB_EPOCH" => Some("3"),
                "PROCESSHUB_POD_IP" => Some("10.0.0.7"),
                "PROCESSHUB_PORT" => Some("8080"),
                "PROCESSHUB_KEY" => Some("000102030405060708090a0b0c0d0e0f"),
                _ => None,
            })?;
            (!value.is_empty()).then(|| value.to_owned())
        }
    }

    #[test]
    fn what_the_operator_leaves_out_has_the_documented_default() {
        let config = Config::read(lookup(&[])).unwrap();
        assert_eq!(config.control, "10.0.0.7:9710".parse().unwrap());
        assert_eq!(config.data, "10.0.0.7:8080".parse().unwrap());
        assert_eq!(config.worker_control, "127.0.0.1:9700".parse().unwrap());
        assert_eq!(config.worker_listen, "127.0.0.1:8080".parse().unwrap());
        assert_eq!(config.hold, HoldLimits::default());
        assert_eq!(config.checkpoint, Checkpoint::default());
        assert!(!config.gated);
        assert_eq!(config.protocol, Protocol::Http);
        assert_eq!(Config::read(lookup(&[("PROCESSHUB_PROTOCOL", "TCP")])).unwrap().protocol, Protocol::Tcp);
    }

    #[test]
    fn a_bad_value_is_named_and_the_key_is_never_shown() {
        let error = Config::read(lookup(&[("PROCESSHUB_PORT", "70000")])).unwrap_err().to_string();
        assert!(error.contains("PROCESSHUB_PORT"), "{error}");
        let error = Config::read(lookup(&[("PROCESSHUB_PROTOCOL", "tcp")])).unwrap_err().to_string();
        assert!(error.contains("PROCESSHUB_PROTOCOL is not HTTP or TCP"), "{error}");
        let error = Config::read(lookup(&[("PROCESSHUB_CHECKPOINT_CLASS", "sync")])).unwrap_err().to_string();
        assert!(error.contains("PROCESSHUB_CHECKPOINT_CLASS"), "{error}");
        let error = Config::read(lookup(&[("PROCESSHUB_KEY", "secret")])).unwrap_err().to_string();
        assert!(error.contains("PROCESSHUB_KEY") && !error.contains("secret"), "{error}");
        let error = Config::read(lookup(&[("PROCESSHUB_POD_UID", "")])).unwrap_err().to_string();
        assert!(error.contains("PROCESSHUB_POD_UID"), "{error}");
        assert!(!format!("{:?}", Config::read(lookup(&[])).unwrap()).contains("0001020304"));
    }
}

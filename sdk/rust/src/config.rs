//! Where a worker serves, and as whom.

use std::net::{AddrParseError, SocketAddr};
use std::time::Duration;

use processhub_protocol::contract::{
    DEFAULT_CONTROL, ENV_CONTROL, ENV_HUB, ENV_LISTEN, ENV_NAMESPACE, ENV_PROCESS,
};

/// Where clients are served when `PROCESSHUB_LISTEN` is absent.
const DEFAULT_LISTEN: &str = "127.0.0.1:8080";

/// Where a worker serves, and as whom.
#[derive(Clone, Debug)]
pub struct Config {
    /// Namespace of the process; empty when it runs without a sidecar.
    pub namespace: String,
    /// Hub of the process; empty when it runs without a sidecar.
    pub hub: String,
    /// Name of the process; empty when it runs without a sidecar.
    pub process: String,
    /// Where the sidecar reaches the worker.
    pub control: SocketAddr,
    /// Where clients reach the worker (through the sidecar).
    pub listen: SocketAddr,
    /// Paths, compared whole, that are answered in every state: health checks. They must not change the state.
    pub probe_paths: Vec<String>,
    /// How long requests may still run after SIGTERM.
    pub shutdown_grace: Duration,
}

/// An environment that does not say where to serve.
#[derive(Debug, thiserror::Error)]
#[error(
    "environment variable {name} is `{value}`, which is not an address and port such as 127.0.0.1:9700: {source}"
)]
pub struct ConfigError {
    name: &'static str,
    value: String,
    source: AddrParseError,
}

impl Config {
    /// Reads the `PROCESSHUB_*` environment that the operator gives to each worker.
    ///
    /// # Errors
    /// An address that is none, by the name of its variable.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_lookup(|name| std::env::var(name).ok())
    }

    /// As [`Config::from_env`], from any source of variables.
    ///
    /// # Errors
    /// An address that is none, by the name of its variable.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let address = |name: &'static str, default: &str| {
            let value = lookup(name).unwrap_or_else(|| default.to_owned());
            value.parse().map_err(|source| ConfigError { name, value, source })
        };
        Ok(Self {
            namespace: lookup(ENV_NAMESPACE).unwrap_or_default(),
            hub: lookup(ENV_HUB).unwrap_or_default(),
            process: lookup(ENV_PROCESS).unwrap_or_default(),
            control: address(ENV_CONTROL, DEFAULT_CONTROL)?,
            listen: address(ENV_LISTEN, DEFAULT_LISTEN)?,
            probe_paths: Vec::new(),
            shutdown_grace: Duration::from_secs(25),
        })
    }

    /// Answers these paths in every state.
    #[must_use]
    pub fn probes<I: IntoIterator<Item: Into<String>>>(mut self, paths: I) -> Self {
        self.probe_paths.extend(paths.into_iter().map(Into::into));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_says_who_and_where() {
        let config = Config::from_lookup(|name| {
            Some(match name {
                "PROCESSHUB_NAMESPACE" => "shop".into(),
                "PROCESSHUB_HUB" => "cart".into(),
                "PROCESSHUB_PROCESS" => "cart-3".into(),
                "PROCESSHUB_CONTROL" => "127.1.0.4:9700".into(),
                "PROCESSHUB_LISTEN" => "127.1.0.4:8080".into(),
                other => panic!("{other}"),
            })
        })
        .unwrap();
        assert_eq!(
            (config.namespace.as_str(), config.hub.as_str(), config.process.as_str()),
            ("shop", "cart", "cart-3")
        );
        assert_eq!(config.control.to_string(), "127.1.0.4:9700");
        assert_eq!(config.listen.to_string(), "127.1.0.4:8080");
    }

    #[test]
    fn without_an_environment_the_defaults_of_the_contract_hold() {
        let config = Config::from_lookup(|_| None).unwrap();
        assert_eq!(config.control.to_string(), DEFAULT_CONTROL);
        assert_eq!(config.listen.to_string(), DEFAULT_LISTEN);
    }

    #[test]
    fn a_bad_address_is_refused_by_its_variable() {
        let lookup = |name: &str| (name == ENV_LISTEN).then(|| "8080".to_owned());
        let error = Config::from_lookup(lookup).unwrap_err().to_string();
        assert!(error.contains("PROCESSHUB_LISTEN is `8080`"), "{error}");
    }
}

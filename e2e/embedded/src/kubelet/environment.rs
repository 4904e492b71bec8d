//! A container's command and environment, worked out from the pod.

use super::model::Waiting;
use crate::api::object::{list, text};
use crate::subnet::loopback_of;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// What a container's variables may refer to.
pub struct Context<'a> {
    /// The pod as the API server has it.
    pub pod: &'a Value,
    /// The pod's address.
    pub address: Ipv4Addr,
    /// The node's address.
    pub host: Ipv4Addr,
    /// Where each volume is on this machine.
    pub volumes: &'a BTreeMap<String, PathBuf>,
    /// The data of a Secret, decoded.
    pub secret: &'a dyn Fn(&str) -> Option<BTreeMap<String, String>>,
    /// The data of a ConfigMap.
    pub config_map: &'a dyn Fn(&str) -> Option<BTreeMap<String, String>>,
}

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// The container's `command`, or empty.
    pub command: Vec<String>,
    /// The container's `args`, or `None` where the image's apply.
    pub args: Option<Vec<String>>,
    /// Variables, in order.
    pub variables: Vec<(String, String)>,
}

/// Works out what to run; references to Secrets and ConfigMaps that are missing make the container wait.
///
/// Two things differ from a real container, because there is none: text that begins with the path of one of the
/// container's volume mounts gets the real directory instead, and in variables named `PROCESSHUB_*` the address
/// 127.0.0.1 becomes the pod's own loopback address.
///
/// # Errors
/// What the container waits for.
pub fn invocation(container: &Value, context: &Context<'_>) -> Result<Invocation, Waiting> {
    let mounts = mounts(container, context.volumes);
    let mut variables: Vec<(String, String)> = Vec::new();
    for source in list(container, "/envFrom") {
        variables.extend(all_of(source, context)?);
    }
    for variable in list(container, "/env") {
        let name = text(variable, "/name").to_owned();
        let value = match variable.get("valueFrom") {
            None => expand(text(variable, "/value"), &variables),
            Some(source) => match from(source, context)? {
                Some(value) => value,
                None => continue,
            },
        };
        variables.retain(|(n, _)| *n != name);
        variables.push((name, value));
    }
    let words = |field: &str| -> Option<Vec<String>> {
        let words = container.get(field)?.as_array()?;
        Some(words.iter().filter_map(Value::as_str).map(|w| place(&expand(w, &variables), &mounts)).collect())
    };
    let (command, args) = (words("command").unwrap_or_default(), words("args"));
    let loopback = loopback_of(context.address).to_string();
    let variables = variables
        .into_iter()
        .map(|(name, value)| {
            let value = place(&value, &mounts);
            let own = name.starts_with("PROCESSHUB_");
            (name, if own { value.replace("127.0.0.1", &loopback) } else { value })
        })
        .collect();
    Ok(Invocation { command, args, variables })
}

/// The container's mount paths and what they are on this machine, longest first.
pub fn mounts(container: &Value, volumes: &BTreeMap<String, PathBuf>) -> Vec<(String, PathBuf)> {
    let mut mounts: Vec<(String, PathBuf)> = list(container, "/volumeMounts")
        .iter()
        .filter_map(|m| {
            let mut real = volumes.get(text(m, "/name"))?.clone();
            let sub = text(m, "/subPath");
            if !sub.is_empty() {
                real.push(sub);
            }
            Some((text(m, "/mountPath").trim_end_matches('/').to_owned(), real))
        })
        .filter(|(path, _)| !path.is_empty())
        .collect();
    mounts.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
    mounts
}

/// Puts the real directory in place of a mount path at the beginning of a text, or after its first `=`.
fn place(value: &str, mounts: &[(String, PathBuf)]) -> String {
    let (head, tail) = match value.split_once('=') {
        Some((flag, path)) if flag.starts_with('-') => (format!("{flag}="), path),
        _ => (String::new(), value),
    };
    for (path, real) in mounts {
        if let Some(rest) = tail.strip_prefix(path.as_str())
            && (rest.is_empty() || rest.starts_with('/'))
        {
            return format!("{head}{}{rest}", real.display());
        }
    }
    value.to_owned()
}

/// Replaces `$(NAME)` by variables that are defined already; `$$(NAME)` stays `$(NAME)`.
fn expand(value: &str, variables: &[(String, String)]) -> String {
    let mut result = String::new();
    let mut rest = value;
    while let Some(at) = rest.find('$') {
        result.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$$") {
            result.push('$');
            rest = after;
            continue;
        }
        let reference = rest.strip_prefix("$(").and_then(|r| r.split_once(')'));
        match reference.and_then(|(name, after)| Some((variables.iter().find(|(n, _)| n == name)?, after))) {
            Some(((_, found), after)) => {
                result.push_str(found);
                rest = after;
            }
            None => {
                result.push('$');
                rest = &rest[1..];
            }
        }
    }
    result.push_str(rest);
    result
}

fn from(source: &Value, context: &Context<'_>) -> Result<Option<String>, Waiting> {
    if let Some(field) = source.get("fieldRef") {
        return Ok(Some(pod_field(text(field, "/fieldPath"), context)));
    }
    for (kind, word, lookup) in
        [("secretKeyRef", "secret", context.secret), ("configMapKeyRef", "configmap", context.config_map)]
    {
        if let Some(reference) = source.get(kind) {
            let (name, key) = (text(reference, "/name"), text(reference, "/key"));
            let optional = crate::api::object::flag(reference, "/optional");
            return match lookup(name) {
                None if optional => Ok(None),
                None => Err(missing(format!("{word} {name:?} not found"))),
                Some(data) => match data.get(key) {
                    Some(value) => Ok(Some(value.clone())),
                    None if optional => Ok(None),
                    None => Err(missing(format!("couldn't find key {key} in {word} {name}"))),
                },
            };
        }
    }
    Ok(Some(String::new()))
}

fn all_of(source: &Value, context: &Context<'_>) -> Result<Vec<(String, String)>, Waiting> {
    let prefix = text(source, "/prefix");
    for (kind, word, lookup) in
        [("secretRef", "secret", context.secret), ("configMapRef", "configmap", context.config_map)]
    {
        if let Some(reference) = source.get(kind) {
            let name = text(reference, "/name");
            return match lookup(name) {
                Some(data) => Ok(data.into_iter().map(|(k, v)| (format!("{prefix}{k}"), v)).collect()),
                None if crate::api::object::flag(reference, "/optional") => Ok(Vec::new()),
                None => Err(missing(format!("{word} {name:?} not found"))),
            };
        }
    }
    Ok(Vec::new())
}

fn missing(message: String) -> Waiting {
    Waiting { reason: "CreateContainerConfigError", message }
}

fn pod_field(path: &str, context: &Context<'_>) -> String {
    match path {
        "status.podIP" | "status.podIPs" => context.address.to_string(),
        "status.hostIP" | "status.hostIPs" => context.host.to_string(),
        path => {
            let keyed = path.split_once("['").and_then(|(map, rest)| Some((map, rest.strip_suffix("']")?)));
            let (map, key) = keyed.unwrap_or((path, ""));
            let found = context.pod.pointer(&format!("/{}", map.replace('.', "/")));
            let found = if keyed.is_some() { found.and_then(|m| m.get(key)) } else { found };
            found.and_then(Value::as_str).unwrap_or_default().to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run(container: Value) -> Result<Invocation, Waiting> {
        let pod =
            json!({"metadata": {"name": "p", "uid": "u", "labels": {"a": "b"}}, "spec": {"nodeName": "n1"}});
        let volumes = BTreeMap::from([("state".to_owned(), PathBuf::from("/real"))]);
        let data = |name: &str| (name == "s").then(|| BTreeMap::from([("k".to_owned(), "v".to_owned())]));
        let context = Context {
            pod: &pod,
            address: Ipv4Addr::new(127, 0, 1, 2),
            host: Ipv4Addr::new(127, 3, 0, 1),
            volumes: &volumes,
            secret: &data,
            config_map: &data,
        };
        invocation(&container, &context)
    }

    fn variables(env: Value) -> Vec<(String, String)> {
        run(json!({"env": env, "volumeMounts": [{"name": "state", "mountPath": "/var/state"}]}))
            .unwrap()
            .variables
    }

    #[test]
    fn variables_refer_to_the_pod_to_secrets_and_to_each_other() {
        let found = variables(json!([
            {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a']"}}},
            {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            {"name": "ALL", "value": "$(NAME)-$(KEY)-$(NONE)-$$(NAME)"}]));
        let values: Vec<&str> = found.iter().map(|(_, v)| v.as_str()).collect();
        assert_eq!(values, ["p", "127.0.1.2", "b", "v", "p-v-$(NONE)-$(NAME)"]);
    }

    #[test]
    fn our_own_variables_get_the_pods_loopback_and_paths_the_real_directory() {
        let found = variables(json!([
            {"name": "PROCESSHUB_CONTROL", "value": "127.0.0.1:9700"},
            {"name": "OTHER", "value": "127.0.0.1:9700"},
            {"name": "PROCESSHUB_STATE", "value": "/var/state/record"},
            {"name": "SIMILAR", "value": "/var/states"}]));
        let values: Vec<&str> = found.iter().map(|(_, v)| v.as_str()).collect();
        assert_eq!(values, ["127.1.1.2:9700", "127.0.0.1:9700", "/real/record", "/var/states"]);
    }

    #[test]
    fn arguments_are_expanded_and_placed() {
        let found = run(
            json!({"args": ["--dir=/var/state/x", "$(A)", "/var/state"], "env": [{"name": "A", "value": "1"}],
            "volumeMounts": [{"name": "state", "mountPath": "/var/state/"}]}),
        );
        assert_eq!(found.unwrap().args.unwrap(), ["--dir=/real/x", "1", "/real"]);
    }

    #[test]
    fn a_missing_secret_makes_the_container_wait() {
        let refused =
            run(json!({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "none", "key": "k"}}}]}));
        assert_eq!(refused.unwrap_err(), missing("secret \"none\" not found".into()));
        let optional = run(
            json!({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "none", "key": "k", "optional": true}}}]}),
        );
        assert!(optional.unwrap().variables.is_empty());
    }
}

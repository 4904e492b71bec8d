//! The tables that `kubectl get` shows.

use super::jsonpath;
use super::kinds::{Column, Kind};
use super::object::{self, flag, list, text};
use jiff::Timestamp;
use serde_json::{Value, json};

/// What of each object a row carries beside its cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Include {
    /// Nothing.
    None,
    /// The metadata.
    Metadata,
    /// The whole object.
    Object,
}

/// The table of these objects.
pub fn table(kind: &Kind, objects: &[&Value], include: Include, version: &str, now: Timestamp) -> Value {
    let columns = columns(kind);
    let definitions: Vec<Value> = columns
        .iter()
        .map(|c| {
            let format = if c.name == "Name" { "name" } else { "" };
            json!({"name": c.name, "type": "string", "format": format, "description": "", "priority": c.priority})
        })
        .collect();
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let mut cells = vec![json!(object::name(object))];
            match &kind.custom {
                Some(_) => cells.extend(kind.columns.iter().map(|c| custom_cell(object, c, now))),
                None => cells.extend(builtin_cells(kind, object, now)),
            }
            let mut row = json!({"cells": cells});
            match include {
                Include::None => {}
                Include::Metadata => row["object"] = partial(object),
                Include::Object => row["object"] = (*object).clone(),
            }
            row
        })
        .collect();
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": version},
        "columnDefinitions": definitions, "rows": rows})
}

/// The metadata of an object, as `PartialObjectMetadata`.
pub fn partial(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

fn columns(kind: &Kind) -> Vec<Column> {
    let mut columns = vec![("Name", 0)];
    if kind.custom.is_none() {
        columns.extend(builtin_columns(kind));
    }
    let named = columns.into_iter().map(|(name, priority)| Column {
        name: name.to_owned(),
        kind: "string".to_owned(),
        path: String::new(),
        priority,
    });
    named.chain(kind.columns.iter().cloned()).collect()
}

fn custom_cell(object: &Value, column: &Column, now: Timestamp) -> Value {
    let found = jsonpath::find(object, &column.path);
    match found.as_slice() {
        [] | [Value::Null] => Value::Null,
        [one] if column.kind == "date" => json!(age(one.as_str().unwrap_or_default(), now)),
        [one] if !one.is_object() && !one.is_array() => (*one).clone(),
        many => json!(many.iter().map(|v| jsonpath::shown(v)).collect::<Vec<_>>().join(",")),
    }
}

fn builtin_columns(kind: &Kind) -> Vec<(&'static str, i64)> {
    match kind.plural.as_str() {
        "pods" => vec![("Ready", 0), ("Status", 0), ("Restarts", 0), ("Age", 0), ("IP", 1), ("Node", 1)],
        "nodes" => vec![("Status", 0), ("Roles", 0), ("Age", 0), ("Version", 0), ("Internal-IP", 1)],
        "services" => vec![("Type", 0), ("Cluster-IP", 0), ("Port(s)", 0), ("Age", 0), ("Selector", 1)],
        "endpointslices" => vec![("AddressType", 0), ("Ports", 0), ("Endpoints", 0), ("Age", 0)],
        "namespaces" => vec![("Status", 0), ("Age", 0)],
        "events" => vec![("Last Seen", 0), ("Type", 0), ("Reason", 0), ("Object", 0), ("Message", 0)],
        "secrets" => vec![("Type", 0), ("Data", 0), ("Age", 0)],
        "configmaps" => vec![("Data", 0), ("Age", 0)],
        "leases" => vec![("Holder", 0), ("Age", 0)],
        _ => vec![("Age", 0)],
    }
}

fn builtin_cells(kind: &Kind, object: &Value, now: Timestamp) -> Vec<Value> {
    let born = age(text(object, "/metadata/creationTimestamp"), now);
    let or_none = |text: &str| if text.is_empty() { "<none>".to_owned() } else { text.to_owned() };
    let size = |field: &str| object.get(field).and_then(Value::as_object).map_or(0, serde_json::Map::len);
    let cells: Vec<String> = match kind.plural.as_str() {
        "pods" => {
            let (ready, restarts) = readiness(object);
            let status = pod_status(object);
            let (ip, node) = (text(object, "/status/podIP"), text(object, "/spec/nodeName"));
            vec![ready, status, restarts.to_string(), born, or_none(ip), or_none(node)]
        }
        "nodes" => vec![
            node_status(object),
            "<none>".to_owned(),
            born,
            text(object, "/status/nodeInfo/kubeletVersion").to_owned(),
            text(object, "/status/addresses/0/address").to_owned(),
        ],
        "services" => {
            let ports =
                list(object, "/spec/ports").iter().map(|p| format!("{}/{}", p["port"], text(p, "/protocol")));
            let selector = object::strings(object, "/spec/selector");
            let selector: Vec<String> = selector.iter().map(|(k, v)| format!("{k}={v}")).collect();
            vec![
                text(object, "/spec/type").to_owned(),
                text(object, "/spec/clusterIP").to_owned(),
                or_none(&ports.collect::<Vec<_>>().join(",")),
                born,
                or_none(&selector.join(",")),
            ]
        }
        "endpointslices" => {
            let ports = list(object, "/ports").iter().map(|p| p["port"].to_string());
            let addresses = list(object, "/endpoints").iter().flat_map(|e| list(e, "/addresses"));
            vec![
                text(object, "/addressType").to_owned(),
                ports.collect::<Vec<_>>().join(","),
                or_none(&addresses.filter_map(Value::as_str).collect::<Vec<_>>().join(",")),
                born,
            ]
        }
        "namespaces" => vec![text(object, "/status/phase").to_owned(), born],
        "events" => event_cells(object, now),
        "secrets" => vec![text(object, "/type").to_owned(), size("data").to_string(), born],
        "configmaps" => vec![(size("data") + size("binaryData")).to_string(), born],
        "leases" => vec![text(object, "/spec/holderIdentity").to_owned(), born],
        _ => vec![born],
    };
    cells.into_iter().map(Value::from).collect()
}

fn event_cells(event: &Value, now: Timestamp) -> Vec<String> {
    let seen = ["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"]
        .into_iter()
        .map(|p| text(event, p))
        .find(|t| !t.is_empty())
        .unwrap_or_default();
    let about = &event["involvedObject"];
    vec![
        age(seen, now),
        text(event, "/type").to_owned(),
        text(event, "/reason").to_owned(),
        format!("{}/{}", text(about, "/kind").to_lowercase(), text(about, "/name")),
        text(event, "/message").trim().to_owned(),
    ]
}

fn readiness(pod: &Value) -> (String, i64) {
    let mut statuses = list(pod, "/status/containerStatuses").iter().collect::<Vec<_>>();
    let mut total = list(pod, "/spec/containers").len();
    for (spec, status) in
        list(pod, "/spec/initContainers").iter().zip(list(pod, "/status/initContainerStatuses"))
    {
        if text(spec, "/restartPolicy") == "Always" {
            statuses.push(status);
            total += 1;
        }
    }
    let ready = statuses.iter().filter(|s| flag(s, "/ready")).count();
    let restarts = statuses.iter().filter_map(|s| s["restartCount"].as_i64()).sum();
    (format!("{ready}/{total}"), restarts)
}

fn pod_status(pod: &Value) -> String {
    if object::deleting(pod) {
        return "Terminating".to_owned();
    }
    let own = text(pod, "/status/reason");
    if !own.is_empty() {
        return own.to_owned();
    }
    let init = list(pod, "/spec/initContainers").len();
    for (index, status) in list(pod, "/status/initContainerStatuses").iter().enumerate() {
        let sidecar = text(pod, &format!("/spec/initContainers/{index}/restartPolicy")) == "Always";
        let waiting = text(status, "/state/waiting/reason");
        if (sidecar && flag(status, "/started")) || status["state"]["terminated"]["exitCode"] == 0 {
            continue;
        }
        return match waiting {
            "" | "PodInitializing" => format!("Init:{index}/{init}"),
            reason => format!("Init:{reason}"),
        };
    }
    let statuses = list(pod, "/status/containerStatuses");
    let reasons = ["/state/waiting/reason", "/state/terminated/reason"];
    let found = statuses.iter().flat_map(|s| reasons.map(|r| text(s, r))).find(|r| !r.is_empty());
    found.unwrap_or(text(pod, "/status/phase")).to_owned()
}

fn node_status(node: &Value) -> String {
    let mut words = vec![match object::condition(node, "Ready") {
        Some(c) if text(c, "/status") == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }];
    if flag(node, "/spec/unschedulable") {
        words.push("SchedulingDisabled");
    }
    words.join(",")
}

/// The time since a moment, as kubectl writes it.
pub fn age(since: &str, now: Timestamp) -> String {
    let Ok(since) = since.parse::<Timestamp>() else { return "<unknown>".to_owned() };
    let seconds = (now.as_second() - since.as_second()).max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=599 if seconds % 60 != 0 => format!("{minutes}m{}s", seconds % 60),
        120..=10_799 => format!("{minutes}m"),
        10_800..=28_799 if minutes % 60 != 0 => format!("{hours}h{}m", minutes % 60),
        10_800..=172_799 => format!("{hours}h"),
        172_800..=691_199 if hours % 24 != 0 => format!("{days}d{}h", hours % 24),
        _ => format!("{days}d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::kinds::Catalog;

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    #[test]
    fn a_pods_row() {
        let pods = Catalog::builtin().find("", "v1", "pods").unwrap();
        let pod = json!({"metadata": {"name": "a", "creationTimestamp": "2027-01-15T07:58:00Z"},
            "spec": {"nodeName": "n1", "containers": [{"name": "w"}],
                "initContainers": [{"name": "s", "restartPolicy": "Always"}]},
            "status": {"phase": "Running", "podIP": "127.0.1.1",
                "initContainerStatuses": [{"ready": true, "started": true, "restartCount": 1, "state": {"running": {}}}],
                "containerStatuses": [{"ready": false, "restartCount": 2,
                    "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}});
        let table = table(&pods, &[&pod], Include::Metadata, "5", now());
        assert_eq!(
            table["rows"][0]["cells"],
            json!(["a", "1/2", "CrashLoopBackOff", "3", "2m", "127.0.1.1", "n1"])
        );
        assert_eq!(table["columnDefinitions"][5]["priority"], 1);
        assert_eq!(table["rows"][0]["object"]["metadata"]["name"], "a");
    }

    #[test]
    fn a_custom_kinds_cells_come_from_its_columns() {
        let object = json!({"status": {"n": 3}, "metadata": {"creationTimestamp": "2027-01-15T07:00:00Z"}});
        let column = |kind: &str, path: &str| Column {
            name: "X".into(),
            kind: kind.into(),
            path: path.into(),
            priority: 0,
        };
        assert_eq!(custom_cell(&object, &column("integer", ".status.n"), now()), json!(3));
        assert_eq!(custom_cell(&object, &column("date", ".metadata.creationTimestamp"), now()), json!("60m"));
        assert_eq!(custom_cell(&object, &column("string", ".status.none"), now()), Value::Null);
    }

    #[test]
    fn ages() {
        let at =
            |seconds: i64| age(&Timestamp::from_second(1_800_000_000 - seconds).unwrap().to_string(), now());
        assert_eq!([5, 130, 3600, 90_000].map(at), ["5s", "2m10s", "60m", "25h"]);
    }
}

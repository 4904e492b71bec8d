//! What was written to the API server, by whom, in order.

use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

/// A place in the record of requests.
#[derive(Clone, Copy, Debug)]
pub struct Mark(pub(super) u64);

/// A write that the API server accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verb: String,
    /// `pods`, `hubprocesses/status`, ...
    pub resource: String,
    /// Empty for objects of the cluster.
    pub namespace: String,
    /// Empty where the request does not name its object.
    pub name: String,
    /// Whether an operator sent it.
    pub by_operator: bool,
}

impl Write {
    /// Whether an operator sent it for a process of this namespace, as far as moves count: without events, without the
    /// hub's own status (it counts its moving processes, once for any number of moves), and without a person's wish,
    /// which the operator takes back.
    #[must_use]
    pub fn is_of_a_move(&self, namespace: &str) -> bool {
        let of_hub = self.resource.starts_with("processhubs");
        let other = of_hub || matches!(self.resource.as_str(), "events" | "hubprocesses");
        self.by_operator && self.namespace == namespace && !other
    }

    /// In short, for a person.
    #[must_use]
    pub fn line(&self) -> String {
        format!("{} {} {}", self.verb, self.resource, self.name)
    }
}

/// Reads the real API server's audit log from an offset on.
pub(super) fn read_log(path: &Path, from: Mark) -> Result<Vec<Write>> {
    let mut file = std::fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
    file.seek(SeekFrom::Start(from.0))?;
    // The last line may be half written.
    Ok(BufReader::new(file)
        .lines()
        .map_while(std::io::Result::ok)
        .filter_map(|line| serde_json::from_str(&line).ok())
        .filter_map(|event| read_event(&event))
        .collect())
}

fn read_event(event: &Value) -> Option<Write> {
    let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    if event.pointer("/responseStatus/code")?.as_u64()? >= 300 {
        return None;
    }
    let resource = match text("/objectRef/subresource") {
        "" => text("/objectRef/resource").to_owned(),
        subresource => format!("{}/{subresource}", text("/objectRef/resource")),
    };
    let agent = text("/userAgent");
    Some(Write {
        verb: text("/verb").to_owned(),
        resource,
        namespace: text("/objectRef/namespace").to_owned(),
        name: text("/objectRef/name").to_owned(),
        by_operator: is_operator(text("/user/username"), agent),
    })
}

/// The operator runs as the chart's service account; outside of the cluster it is known by not being the test.
fn is_operator(user: &str, agent: &str) -> bool {
    user.starts_with("system:serviceaccount:processhub-system:")
        || (user.starts_with("admin") && agent != super::USER_AGENT && !agent.starts_with("kubectl"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_accepted_write_is_read_with_its_subresource_and_its_author() {
        let mut event = json!({
            "verb": "update", "userAgent": "kube", "user": {"username": "system:serviceaccount:processhub-system:p"},
            "objectRef": {"resource": "hubprocesses", "subresource": "status", "namespace": "a", "name": "b"},
            "responseStatus": {"code": 200},
        });
        let write = read_event(&event).unwrap();
        assert_eq!(write.line(), "update hubprocesses/status b");
        assert!(write.by_operator);
        assert!(write.is_of_a_move("a") && !write.is_of_a_move("b"));
        assert!(!Write { resource: "processhubs/status".into(), ..write }.is_of_a_move("a"));
        event["responseStatus"]["code"] = json!(409);
        assert_eq!(read_event(&event), None);
    }

    #[test]
    fn the_test_itself_is_no_operator() {
        assert!(!is_operator("admin", super::super::USER_AGENT));
        assert!(!is_operator("system:node:n1", "kubelet"));
    }
}

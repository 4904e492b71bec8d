//! Giving a pod its node.

use super::Registry;
use crate::api::error::{ApiError, Result};
use crate::api::kinds::Kind;
use crate::api::object::{self, Key, text};
use serde_json::json;

impl Registry {
    /// Assigns a pod to a node, as the scheduler does.
    ///
    /// # Errors
    /// 404, or 409 when the pod has a node or is being deleted.
    pub fn bind(&mut self, kind: &Kind, key: &Key, node: &str) -> Result<()> {
        let pod = self.get(kind, key)?;
        let refuse = |why: &str| Err(ApiError::conflict("", "pods/binding", &key.name, why));
        if object::deleting(&pod) {
            return refuse(&format!("pod {} is being deleted, cannot be assigned to a host", key.name));
        }
        let present = text(&pod, "/spec/nodeName");
        if !present.is_empty() {
            return refuse(&format!("pod {} is already assigned to node {present:?}", key.name));
        }
        let mut pod = (*pod).clone();
        pod["spec"]["nodeName"] = node.into();
        let scheduled = json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null,
            "lastTransitionTime": self.stamp()});
        pod["status"]["conditions"] = json!([scheduled]);
        self.commit(kind, pod);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::WriteOptions;
    use super::super::tests::{kind, pod, registry};
    use super::*;

    #[test]
    fn a_pod_is_bound_once() {
        let mut registry = registry();
        let pods = kind(&registry, "pods");
        registry.create(&pods, "default", pod("a"), &WriteOptions::default()).unwrap();
        let key = Key::new("default", "a");
        registry.bind(&pods, &key, "n1").unwrap();
        let bound = registry.get(&pods, &key).unwrap();
        assert_eq!(text(&bound, "/spec/nodeName"), "n1");
        assert!(object::is_true(&bound, "PodScheduled"));
        assert!(registry.bind(&pods, &key, "n2").is_err());
    }
}

//! A pod's volumes as directories.

use super::model::Waiting;
use crate::api::object::{list, text};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Looks up the data of a Secret or ConfigMap by name.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<BTreeMap<String, String>>;

/// Makes the directories of a pod's volumes below `root` and fills in Secrets and ConfigMaps. What an `emptyDir` holds
/// already is kept: it lives as long as the pod.
///
/// # Errors
/// What the pod waits for.
pub fn prepare(
    pod: &Value,
    root: &Path,
    secret: Lookup<'_>,
    config_map: Lookup<'_>,
) -> Result<BTreeMap<String, PathBuf>, Waiting> {
    let mut volumes = BTreeMap::new();
    for volume in list(pod, "/spec/volumes") {
        let name = text(volume, "/name");
        let directory = root.join(name);
        let failed = |why: String| Waiting {
            reason: "ContainerCreating",
            message: format!("MountVolume.SetUp failed for volume {name:?} : {why}"),
        };
        fs::create_dir_all(&directory).map_err(|e| failed(e.to_string()))?;
        let data = if let Some(source) = volume.get("secret") {
            found(secret, source, "/secretName", "secret").map_err(failed)?
        } else if let Some(source) = volume.get("configMap") {
            found(config_map, source, "/name", "configmap").map_err(failed)?
        } else if volume.get("emptyDir").is_some() {
            BTreeMap::new()
        } else {
            return Err(failed("this cluster has only emptyDir, secret and configMap volumes".to_owned()));
        };
        for (key, value) in data {
            fs::write(directory.join(key), value).map_err(|e| failed(e.to_string()))?;
        }
        volumes.insert(name.to_owned(), directory);
    }
    Ok(volumes)
}

fn found(
    lookup: Lookup<'_>,
    source: &Value,
    pointer: &str,
    word: &str,
) -> Result<BTreeMap<String, String>, String> {
    let name = text(source, pointer);
    match lookup(name) {
        Some(data) => Ok(data),
        None if crate::api::object::flag(source, "/optional") => Ok(BTreeMap::new()),
        None => Err(format!("{word} {name:?} not found")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn secrets_become_files_and_empty_directories_stay() {
        let root = tempfile::tempdir().unwrap();
        let pod = json!({"spec": {"volumes": [{"name": "state", "emptyDir": {}},
            {"name": "keys", "secret": {"secretName": "s"}}]}});
        let secret = |name: &str| (name == "s").then(|| BTreeMap::from([("k".to_owned(), "v".to_owned())]));
        let nothing = |_: &str| None;
        let volumes = prepare(&pod, root.path(), &secret, &nothing).unwrap();
        assert_eq!(fs::read_to_string(volumes["keys"].join("k")).unwrap(), "v");
        fs::write(volumes["state"].join("kept"), "1").unwrap();
        prepare(&pod, root.path(), &secret, &nothing).unwrap();
        assert!(volumes["state"].join("kept").exists());
        let waits = prepare(&pod, root.path(), &nothing, &nothing).unwrap_err();
        assert!(waits.message.contains("secret \"s\" not found"), "{}", waits.message);
    }
}

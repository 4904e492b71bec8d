//! Which kinds are served, under which paths, with which subresources and columns.

use super::crd::Custom;
use super::object;
use super::store::ResourceId;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A column of `kubectl get`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Heading.
    pub name: String,
    /// OpenAPI type: `string`, `integer`, `number`, `boolean`, `date`.
    pub kind: String,
    /// JSON path of the cell, for custom kinds; built-in kinds compute theirs.
    pub path: String,
    /// 0 is always shown, above 0 only with `-o wide`.
    pub priority: i64,
}

/// Where a custom kind keeps what `/scale` reads and writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scale {
    /// JSON pointer of the wished number.
    pub spec: String,
    /// JSON pointer of the present number.
    pub status: String,
    /// JSON pointer of the label selector as text, or empty.
    pub selector: String,
}

/// How the stored and the served form of a kind differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Only `apiVersion` may differ.
    Same,
    /// events.k8s.io/v1, stored as core/v1.
    NewEvent,
}

/// One served kind of one version.
#[derive(Clone, Debug)]
pub struct Kind {
    /// API group, empty for core.
    pub group: String,
    /// Version.
    pub version: String,
    /// Kind, for example `Pod`.
    pub kind: String,
    /// Plural, as in paths.
    pub plural: String,
    /// Singular, for kubectl.
    pub singular: String,
    /// Short names, for kubectl.
    pub short_names: Vec<String>,
    /// Categories, for kubectl.
    pub categories: Vec<String>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Where objects are stored.
    pub storage: ResourceId,
    /// Whether `/status` is served.
    pub status: bool,
    /// `/scale`, if served.
    pub scale: Option<Scale>,
    /// Whether `metadata.generation` counts changes.
    pub generation: bool,
    /// Whether a PUT without `resourceVersion` overwrites.
    pub unconditional_update: bool,
    /// Columns of custom kinds.
    pub columns: Vec<Column>,
    /// Paths for field selectors.
    pub selectable: Vec<String>,
    /// Schema and rules of a custom kind.
    pub custom: Option<Arc<Custom>>,
    pub(super) form: Form,
}

impl Kind {
    /// `group/version`, or the version alone for the core group.
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    /// The subresources that are served.
    pub fn subresources(&self) -> Vec<&'static str> {
        let mut all = Vec::new();
        if self.status {
            all.push("status");
        }
        if self.scale.is_some() {
            all.push("scale");
        }
        if self.is("", "pods") {
            all.extend(["eviction", "binding", "log"]);
        }
        if self.is("", "namespaces") {
            all.push("finalize");
        }
        all
    }

    /// Whether the kind is stored as this resource.
    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.storage.group == group && self.storage.plural == plural
    }

    /// The object as it is shown through this version.
    pub fn served(&self, stored: &Arc<Value>) -> Arc<Value> {
        match self.form {
            Form::Same if object::text(stored, "/apiVersion") == self.api_version() => stored.clone(),
            Form::Same => {
                let mut copy = (**stored).clone();
                copy["apiVersion"] = self.api_version().into();
                Arc::new(copy)
            }
            Form::NewEvent => Arc::new(rename_event(stored, "events.k8s.io/v1", false)),
        }
    }

    /// The object as it is stored.
    pub fn stored(&self, served: Value) -> Value {
        match self.form {
            Form::Same => served,
            Form::NewEvent => rename_event(&served, "v1", true),
        }
    }

    /// The path for field selectors of the stored form.
    pub fn stored_path(&self, selector: &str) -> String {
        match self.form {
            Form::Same => selector.to_owned(),
            Form::NewEvent => selector.replace("regarding.", "involvedObject."),
        }
    }
}

/// `group/version`, or the version alone for the core group.
pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

const EVENT_FIELDS: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("count", "deprecatedCount"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("source", "deprecatedSource"),
    ("reportingComponent", "reportingController"),
];

fn rename_event(event: &Value, version: &str, to_core: bool) -> Value {
    let mut copy = event.clone();
    if let Some(map) = copy.as_object_mut() {
        for (core, new) in EVENT_FIELDS {
            let (from, to) = if to_core { (new, core) } else { (core, new) };
            if let Some(value) = map.remove(from) {
                map.insert(to.to_owned(), value);
            }
        }
        map.insert("apiVersion".to_owned(), version.into());
    }
    copy
}

/// All served kinds.
#[derive(Debug)]
pub struct Catalog {
    kinds: BTreeMap<(String, String, String), Arc<Kind>>,
}

impl Catalog {
    /// The built-in kinds.
    pub fn builtin() -> Self {
        let kinds = builtin().into_iter().map(|k| (id(&k), Arc::new(k))).collect();
        Self { kinds }
    }

    /// The kind at a path.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Kind>> {
        self.kinds.get(&(group.to_owned(), version.to_owned(), plural.to_owned())).cloned()
    }

    /// A kind that an owner reference or an object names.
    pub fn find_kind(&self, api_version: &str, kind: &str) -> Option<Arc<Kind>> {
        self.kinds.values().find(|k| k.kind == kind && k.api_version() == api_version).cloned()
    }

    /// A kind that is stored under this resource.
    pub fn of_storage(&self, storage: &ResourceId) -> Option<Arc<Kind>> {
        self.kinds.values().find(|k| k.storage == *storage).cloned()
    }

    /// All kinds, ordered by group, version and plural.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.kinds.values()
    }

    /// Replaces what is served for a custom resource; an empty list ends it.
    pub fn serve_custom(&mut self, storage: &ResourceId, kinds: Vec<Kind>) {
        self.kinds.retain(|_, k| k.custom.is_none() || k.storage != *storage);
        self.kinds.extend(kinds.into_iter().map(|k| (id(&k), Arc::new(k))));
    }
}

fn id(kind: &Kind) -> (String, String, String) {
    (kind.group.clone(), kind.version.clone(), kind.plural.clone())
}

/// A custom kind; what the definition leaves open is filled in by [`super::crd`].
pub(super) fn custom(group: &str, version: &str, plural: &str, schema: Arc<Custom>) -> Kind {
    Kind { custom: Some(schema), unconditional_update: false, ..base(group, version, plural, "") }
}

fn base(group: &str, version: &str, plural: &str, kind: &str) -> Kind {
    Kind {
        group: group.to_owned(),
        version: version.to_owned(),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
        singular: kind.to_lowercase(),
        short_names: Vec::new(),
        categories: Vec::new(),
        namespaced: true,
        storage: ResourceId::new(group, plural),
        status: false,
        scale: None,
        generation: false,
        unconditional_update: true,
        columns: Vec::new(),
        selectable: Vec::new(),
        custom: None,
        form: Form::Same,
    }
}

fn builtin() -> Vec<Kind> {
    let core = |plural: &str, kind: &str, short: &str| Kind {
        short_names: (!short.is_empty()).then(|| short.to_owned()).into_iter().collect(),
        ..base("", "v1", plural, kind)
    };
    let cluster = |kind: Kind| Kind { namespaced: false, ..kind };
    let with_status = |kind: Kind| Kind { status: true, ..kind };
    let selecting = |kind: Kind, fields: &[&str]| Kind {
        selectable: fields.iter().map(|&f| f.to_owned()).collect(),
        ..kind
    };
    let event_fields = [
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ];
    vec![
        selecting(cluster(with_status(core("namespaces", "Namespace", "ns"))), &["status.phase"]),
        Kind {
            generation: true,
            categories: vec!["all".to_owned()],
            ..selecting(
                with_status(core("pods", "Pod", "po")),
                &[
                    "spec.nodeName",
                    "spec.restartPolicy",
                    "spec.schedulerName",
                    "spec.serviceAccountName",
                    "spec.hostNetwork",
                    "status.phase",
                    "status.podIP",
                    "status.nominatedNodeName",
                ],
            )
        },
        selecting(cluster(with_status(core("nodes", "Node", "no"))), &["spec.unschedulable"]),
        Kind {
            categories: vec!["all".to_owned()],
            ..selecting(with_status(core("services", "Service", "svc")), &["spec.clusterIP", "spec.type"])
        },
        selecting(core("secrets", "Secret", ""), &["type"]),
        core("configmaps", "ConfigMap", "cm"),
        core("serviceaccounts", "ServiceAccount", "sa"),
        selecting(core("events", "Event", "ev"), &event_fields),
        Kind {
            storage: ResourceId::new("", "events"),
            form: Form::NewEvent,
            short_names: vec!["ev".to_owned()],
            ..selecting(
                base("events.k8s.io", "v1", "events", "Event"),
                &[
                    "involvedObject.kind",
                    "involvedObject.namespace",
                    "involvedObject.name",
                    "involvedObject.uid",
                    "reason",
                    "type",
                ],
            )
        },
        Kind { unconditional_update: false, ..base("coordination.k8s.io", "v1", "leases", "Lease") },
        Kind { generation: true, ..base("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice") },
        Kind {
            generation: true,
            short_names: vec!["pdb".to_owned()],
            ..with_status(base("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget"))
        },
        Kind {
            generation: true,
            unconditional_update: false,
            short_names: vec!["crd".to_owned(), "crds".to_owned()],
            ..cluster(with_status(base(
                "apiextensions.k8s.io",
                "v1",
                "customresourcedefinitions",
                "CustomResourceDefinition",
            )))
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_event_versions_show_one_stored_object() {
        let catalog = Catalog::builtin();
        let new = catalog.find("events.k8s.io", "v1", "events").unwrap();
        let sent = json!({"apiVersion": "events.k8s.io/v1", "note": "n", "regarding": {"name": "a"},
            "reportingController": "c"});
        let stored = new.stored(sent.clone());
        assert_eq!(stored["message"], "n");
        assert_eq!(stored["involvedObject"]["name"], "a");
        assert_eq!(stored["reportingComponent"], "c");
        assert_eq!(*new.served(&Arc::new(stored)), sent);
    }

    #[test]
    fn kinds_are_found_by_path_and_by_reference() {
        let catalog = Catalog::builtin();
        assert_eq!(catalog.find("", "v1", "pods").unwrap().kind, "Pod");
        assert_eq!(catalog.find_kind("coordination.k8s.io/v1", "Lease").unwrap().plural, "leases");
        assert!(catalog.find("", "v2", "pods").is_none());
    }
}

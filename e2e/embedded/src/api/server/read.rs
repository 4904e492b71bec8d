//! Reading one object or many.

use super::Call;
use super::render::{self, Form};
use crate::api::error::Result;
use crate::api::object::Key;
use crate::api::selector::{Fields, Labels};
use crate::api::table;
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;

/// Both selectors and the namespace of a list, watch or collection.
pub struct Selection {
    namespace: Option<String>,
    name: Option<String>,
    labels: Labels,
    fields: Fields,
}

impl Selection {
    /// The selection that the request asks for.
    ///
    /// # Errors
    /// 400 for a selector that cannot be read.
    pub fn of(call: &Call) -> Result<Self> {
        let fields = call.kind.stored_path(call.query.text("fieldSelector"));
        Ok(Self {
            namespace: call.path.namespace.clone(),
            name: call.path.name.clone(),
            labels: Labels::parse(call.query.text("labelSelector"))?,
            fields: Fields::parse(&fields, &call.kind.selectable)?,
        })
    }

    /// Whether a stored object belongs to it.
    pub fn matches(&self, object: &Value) -> bool {
        let key = Key::of(object);
        self.namespace.as_ref().is_none_or(|n| *n == key.namespace)
            && self.name.as_ref().is_none_or(|n| *n == key.name)
            && self.labels.matches(object)
            && self.fields.matches(object)
    }

    /// The stored objects that belong to it, and the revision they were read at.
    pub fn list(&self, call: &Call) -> (Vec<Arc<Value>>, u64) {
        call.api.with(|registry| {
            let store = registry.store();
            let single = self.namespace.as_deref().and_then(|n| self.fields.single(n));
            let objects = match single {
                Some(key) => store.get(&call.kind.storage, &key).into_iter().collect(),
                None => store.list(&call.kind.storage, self.namespace.as_deref()),
            };
            (objects.into_iter().filter(|o| self.matches(o)).collect(), store.revision())
        })
    }
}

/// GET of one object.
pub fn get(call: &Call) -> Result<Response> {
    let object = call.api.with(|r| r.get(&call.kind, &call.path.key()))?;
    Ok(render::written(call, StatusCode::OK, &call.kind.served(&object), &[]))
}

/// GET of a collection.
pub fn list(call: &Call) -> Result<Response> {
    let (objects, revision) = Selection::of(call)?.list(call);
    let served: Vec<Arc<Value>> = objects.iter().map(|o| call.kind.served(o)).collect();
    let version = revision.to_string();
    let answer = match Form::of(call) {
        Form::Table(include) => {
            let now = call.api.with(|r| r.now());
            let objects: Vec<&Value> = served.iter().map(|o| &**o).collect();
            table::table(&call.kind, &objects, include, &version, now)
        }
        Form::Partial => {
            let items: Vec<Value> = served.iter().map(|o| table::partial(o)).collect();
            json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                "metadata": {"resourceVersion": version}, "items": items})
        }
        Form::Object => {
            let items: Vec<&Value> = served.iter().map(|o| &**o).collect();
            json!({"kind": format!("{}List", call.kind.kind), "apiVersion": call.kind.api_version(),
                "metadata": {"resourceVersion": version}, "items": items})
        }
    };
    Ok(render::json(StatusCode::OK, &answer))
}

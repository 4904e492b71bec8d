//! What a URL asks for.

use crate::api::error::{ApiError, Reason, Result};
use crate::api::object::Key;

/// A parsed path of a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path {
    /// API group, empty for core.
    pub group: String,
    /// Version.
    pub version: String,
    /// The namespace, if the path has one.
    pub namespace: Option<String>,
    /// Plural name.
    pub plural: String,
    /// The object, unless the path is that of a collection.
    pub name: Option<String>,
    /// The subresource, if the path has one.
    pub subresource: Option<String>,
}

impl Path {
    /// Parses `/api/v1/...` or `/apis/{group}/{version}/...`.
    ///
    /// # Errors
    /// 404 for anything else.
    pub fn parse(path: &str) -> Result<Self> {
        let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return Err(unknown()),
        };
        let base = Self { group: group.to_owned(), version: version.to_owned(), ..Self::default() };
        let owned = |text: &str| Some(text.to_owned());
        let of_namespace = |sub: &str| ["status", "finalize"].contains(&sub);
        match *rest {
            ["namespaces", name, sub] if of_namespace(sub) => Ok(Self {
                plural: "namespaces".to_owned(),
                name: owned(name),
                subresource: owned(sub),
                ..base
            }),
            ["namespaces", namespace, plural] => {
                Ok(Self { namespace: owned(namespace), plural: plural.to_owned(), ..base })
            }
            ["namespaces", namespace, plural, name] => {
                Ok(Self { namespace: owned(namespace), plural: plural.to_owned(), name: owned(name), ..base })
            }
            ["namespaces", namespace, plural, name, sub] => Ok(Self {
                namespace: owned(namespace),
                plural: plural.to_owned(),
                name: owned(name),
                subresource: owned(sub),
                ..base
            }),
            [plural] => Ok(Self { plural: plural.to_owned(), ..base }),
            [plural, name] => Ok(Self { plural: plural.to_owned(), name: owned(name), ..base }),
            [plural, name, sub] => {
                Ok(Self { plural: plural.to_owned(), name: owned(name), subresource: owned(sub), ..base })
            }
            _ => Err(unknown()),
        }
    }

    /// Namespace and name; empty where the path has none.
    pub fn key(&self) -> Key {
        Key::new(self.namespace.clone().unwrap_or_default(), self.name.clone().unwrap_or_default())
    }
}

/// The answer to a path that nothing is served at.
pub fn unknown() -> ApiError {
    ApiError::new(Reason::NotFound, "the server could not find the requested resource")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let status = Path::parse("/apis/x.io/v1/namespaces/d/things/a/status").unwrap();
        assert_eq!((status.group.as_str(), status.plural.as_str()), ("x.io", "things"));
        assert_eq!(status.key(), Key::new("d", "a"));
        assert_eq!(status.subresource.as_deref(), Some("status"));
        let namespace = Path::parse("/api/v1/namespaces/d").unwrap();
        assert_eq!((namespace.plural.as_str(), namespace.name.as_deref()), ("namespaces", Some("d")));
        let pods = Path::parse("/api/v1/namespaces/d/pods").unwrap();
        assert_eq!((pods.plural.as_str(), pods.namespace.as_deref()), ("pods", Some("d")));
        assert!(Path::parse("/metrics").is_err());
    }
}

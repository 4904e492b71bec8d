//! The parameters of a request.

use crate::api::error::{ApiError, Result};
use crate::api::registry::{FieldValidation, WriteOptions};
use http::Uri;
use std::collections::BTreeMap;

/// The query of a URL.
#[derive(Clone, Debug, Default)]
pub struct Query(BTreeMap<String, String>);

impl Query {
    /// Parses the query.
    ///
    /// # Errors
    /// 400 when it cannot be decoded.
    pub fn parse(uri: &Uri) -> Result<Self> {
        axum::extract::Query::try_from_uri(uri)
            .map(|axum::extract::Query(map)| Self(map))
            .map_err(|e| ApiError::bad_request(e.to_string()))
    }

    /// A parameter's text, "" where it is absent.
    pub fn text(&self, name: &str) -> &str {
        self.0.get(name).map(String::as_str).unwrap_or_default()
    }

    /// Whether a parameter is set to true.
    pub fn flag(&self, name: &str) -> bool {
        ["true", "1"].contains(&self.text(name))
    }

    /// Whether the request is a dry run.
    pub fn dry_run(&self) -> bool {
        self.text("dryRun") == "All"
    }

    /// What a write says beside its body.
    ///
    /// # Errors
    /// 400 for a validation mode that does not exist.
    pub fn write_options(&self) -> Result<WriteOptions> {
        let validation = match self.text("fieldValidation") {
            "Strict" => FieldValidation::Strict,
            "" | "Warn" => FieldValidation::Warn,
            "Ignore" => FieldValidation::Ignore,
            other => {
                return Err(ApiError::bad_request(format!(
                    "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
                )));
            }
        };
        Ok(WriteOptions {
            dry_run: self.dry_run(),
            validation,
            manager: self.text("fieldManager").to_owned(),
            trusted: false,
        })
    }
}

//! Labels and node selectors, by the rules that the API server has for them.

use std::collections::BTreeMap;

use super::FieldError;
use crate::vocabulary::label;

pub(super) fn is_reserved(key: &str) -> bool {
    key.starts_with(label::PREFIX)
}

/// Every key and value is one that the API server takes.
pub(super) fn check(field: &str, labels: &BTreeMap<String, String>, errors: &mut Vec<FieldError>) {
    for (key, value) in labels {
        if !is_key(key) {
            errors.push(FieldError::new(
                field,
                format!("{key:?} is not a label key; use [prefix/]name with a name of at most 63 characters"),
            ));
        }
        if !(value.is_empty() || is_word(value)) {
            errors.push(FieldError::new(
                field,
                format!(
                    "the value of {key} is not a label value; use at most 63 of A-Z, a-z, 0-9, '-', '_' and '.', \
                     with a letter or digit at both ends"
                ),
            ));
        }
    }
}

/// As [`check`], and none has the operator's prefix.
pub(super) fn check_unreserved(field: &str, labels: &BTreeMap<String, String>, errors: &mut Vec<FieldError>) {
    check(field, labels, errors);
    for key in labels.keys().filter(|key| is_reserved(key)) {
        errors.push(FieldError::new(
            field,
            format!("{key}: the prefix {} is reserved; use a prefix of your own", label::PREFIX),
        ));
    }
}

fn is_key(key: &str) -> bool {
    match key.split_once('/') {
        None => is_word(key),
        Some((prefix, name)) => is_subdomain(prefix) && is_word(name),
    }
}

fn is_word(text: &str) -> bool {
    let at_ends = |c: char| c.is_ascii_alphanumeric();
    text.len() <= 63
        && text.starts_with(at_ends)
        && text.ends_with(at_ends)
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

fn is_subdomain(text: &str) -> bool {
    text.len() <= 253
        && text.split('.').all(|part| {
            !part.is_empty()
                && !part.starts_with('-')
                && !part.ends_with('-')
                && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        })
}

//! Names of hubs, processes and replicas.

use crate::limits::MAX_REPLICAS;

/// A DNS label that begins with a letter, because a Service of that name is made, and has at most `max` characters.
pub(super) fn is_name(name: &str, max: usize) -> bool {
    name.len() <= max
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

pub(super) fn remedy(max: usize) -> String {
    format!(
        "at most {max} characters of a-z, 0-9 and '-', beginning with a letter and not ending with '-'; choose another name"
    )
}

/// The name of a hub's replica.
pub(super) fn replica(hub: &str, ordinal: u32) -> String {
    format!("{hub}-{ordinal}")
}

/// Whether the name is, or after scaling would be, that of a replica of the hub.
pub(super) fn is_replica(hub: &str, name: &str) -> bool {
    name.strip_prefix(hub)
        .and_then(|rest| rest.strip_prefix('-'))
        .and_then(|ordinal| ordinal.parse::<u32>().ok())
        .is_some_and(|ordinal| ordinal < MAX_REPLICAS && replica(hub, ordinal) == name)
}

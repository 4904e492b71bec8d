//! How the code of a hub's processes changes, and what is known of the code that they run.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::limits::MAX_REVISIONS;
use crate::vocabulary::{MoveReason, vocabulary};

/// How the processes of a hub get to its code when `vsn` or `template` changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Upgrade {
    /// How one process gets to the new code. Absent: as `migration.strategy`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strategy: Option<UpgradeStrategy>,
    /// How many processes change their code at once; the limits of `migration` hold as well.
    #[schemars(range(min = 1, max = 10_000))]
    pub max_concurrent: u32,
    /// How many processes keep the code that they run: the replicas with the lowest ordinals, then the others by name.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub partition: u32,
    /// Given to the worker's code change. At most 16 KiB as JSON.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::schema::config")]
    pub extra: BTreeMap<String, Value>,
}

impl Default for Upgrade {
    fn default() -> Self {
        Self { strategy: None, max_concurrent: 1, partition: 0, extra: BTreeMap::new() }
    }
}

vocabulary! {
    /// How one process gets to new code.
    UpgradeStrategy {
        /// A pod with the new code beside the old one, on the same node.
        HotSwap = "HotSwap",
        /// As `HotSwap`; the new worker starts only when the old one has ended.
        ColdSwap = "ColdSwap",
        /// The worker's image changes in the same pod. Not available in this version.
        InPlace = "InPlace",
        /// The worker loads the new code itself. Not available in this version.
        Live = "Live",
    }
}

/// One code of a hub: what a pod of a process was made from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    /// Its name: a digest of `spec.template` and `spec.vsn`.
    #[schemars(length(max = 16))]
    pub name: String,
    /// Its place in the order in which the hub had its codes.
    pub number: u64,
    /// `spec.vsn` of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub vsn: String,
    /// `spec.template` of it, kept while a process runs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::kept_template")]
    pub template: Option<PodTemplateSpec>,
}

impl Revision {
    /// For people: its `vsn`, or its name where it has none.
    #[must_use]
    pub fn label(&self) -> &str {
        if self.vsn.is_empty() { &self.name } else { &self.vsn }
    }
}

/// How many of the newest codes keep their template though no process runs them: a move to one may be under way.
const SPARE: u64 = 2;

/// The codes of a hub after it was given `present`, oldest first. Old ones that are not `used` by a process lose their
/// template, and the oldest of these go when there are too many; a code that comes back keeps its number.
#[must_use]
pub fn revisions(known: &[Revision], present: &Revision, used: impl Fn(&str) -> bool) -> Vec<Revision> {
    let mut all = known.to_vec();
    let next = all.iter().map(|revision| revision.number).max().unwrap_or(0) + 1;
    match all.iter_mut().find(|revision| revision.name == present.name) {
        Some(same) => same.template.clone_from(&present.template),
        None => all.push(Revision { number: next, ..present.clone() }),
    }
    let newest = all.iter().map(|revision| revision.number).max().unwrap_or(0);
    let keeps = |revision: &Revision| {
        let spare = revision.number + SPARE > newest;
        spare || revision.name == present.name || used(&revision.name)
    };
    for revision in &mut all {
        if !keeps(revision) {
            revision.template = None;
        }
    }
    while all.len() > MAX_REVISIONS {
        let Some(oldest) = all.iter().position(|revision| !keeps(revision)) else { break };
        all.remove(oldest);
    }
    all
}

/// Whether a process that gets from one code to the other goes down: to a version that the hub had before the one that
/// the process runs. Codes of one version are one for this; what is not known is newer than all that is.
#[must_use]
pub fn is_down(revisions: &[Revision], from: &str, to: &str) -> bool {
    let place = |name: &str| {
        let found = revisions.iter().find(|revision| revision.name == name)?;
        let same = |other: &&Revision| !found.vsn.is_empty() && other.vsn == found.vsn;
        revisions.iter().filter(same).map(|revision| revision.number).chain([found.number]).min()
    };
    match (place(from), place(to)) {
        (Some(from), Some(to)) => to < from,
        (None, _) | (_, None) => false,
    }
}

/// An upgrade of a process that was undone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailedUpgrade {
    /// Name of the code that it was to get.
    #[schemars(length(max = 16))]
    pub revision: String,
    /// The version that it runs.
    #[schemars(length(max = 64))]
    pub from: String,
    /// The version that it was to get.
    #[schemars(length(max = 64))]
    pub to: String,
    /// Why it was undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<MoveReason>,
    /// The words that belong to the reason, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub message: Option<String>,
    /// When it was undone.
    pub time: Time,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(name: &str) -> Revision {
        Revision { name: name.into(), template: Some(PodTemplateSpec::default()), ..Revision::default() }
    }

    fn outline(all: &[Revision]) -> Vec<(&str, u64, bool)> {
        all.iter().map(|it| (it.name.as_str(), it.number, it.template.is_some())).collect()
    }

    #[test]
    fn a_code_that_comes_back_keeps_its_number_and_gets_its_template_back() {
        let first = revisions(&[], &revision("a"), |_| false);
        let both = revisions(&first, &revision("b"), |name| name == "a");
        assert_eq!(outline(&both), [("a", 1, true), ("b", 2, true)]);
        let third = revisions(&both, &revision("c"), |_| false);
        assert_eq!(
            outline(&third),
            [("a", 1, false), ("b", 2, true), ("c", 3, true)],
            "a move to b may be under way"
        );
        let back = revisions(&third, &revision("a"), |name| name == "c");
        assert_eq!(outline(&back), [("a", 1, true), ("b", 2, true), ("c", 3, true)]);
    }

    #[test]
    fn the_oldest_unused_codes_are_forgotten_first_and_none_that_is_used() {
        let mut all = Vec::new();
        for index in 0..MAX_REVISIONS + 3 {
            all = revisions(&all, &revision(&format!("r{index}")), |name| name == "r1");
        }
        let names: Vec<_> = all.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(all.len(), MAX_REVISIONS);
        assert!(names.contains(&"r1") && !names.contains(&"r0") && !names.contains(&"r2"), "{names:?}");
        assert_eq!(
            all.last().map(|it| it.number),
            Some(MAX_REVISIONS as u64 + 3),
            "numbers are not used again"
        );
    }

    #[test]
    fn down_is_back_to_a_version_that_the_hub_had_before() {
        let of = |name: &str, number, vsn: &str| Revision { number, vsn: vsn.into(), ..revision(name) };
        let all = [of("a", 1, "1.8"), of("b", 2, "1.9"), of("c", 3, "1.8"), of("d", 4, "")];
        assert!(!is_down(&all, "a", "b") && is_down(&all, "b", "a"));
        assert!(is_down(&all, "b", "c"), "another template of the old version");
        assert!(!is_down(&all, "a", "c") && !is_down(&all, "c", "a"), "one version");
        assert!(
            !is_down(&all, "c", "d") && is_down(&all, "d", "c"),
            "without a version the order of the codes counts"
        );
        assert!(!is_down(&all, "b", "gone") && !is_down(&all, "gone", "b"));
    }

    #[test]
    fn a_code_without_a_version_is_called_by_its_name() {
        let named = Revision { name: "abc".into(), vsn: "1.9".into(), ..Revision::default() };
        assert_eq!((named.label(), Revision { vsn: String::new(), ..named.clone() }.label()), ("1.9", "abc"));
    }
}

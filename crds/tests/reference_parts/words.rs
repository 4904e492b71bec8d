//! The closed vocabularies, from their enums and doc comments.

use processhub_crds::vocabulary::{
    EventReason, HubCondition, HubReason, LossReason, MoveReason, ProcessCondition, ProcessReason,
};
use processhub_crds::{MigrationKind, MigrationPhase, MigrationResult, MigrationTrigger};
use serde_json::Value;

use super::{head, line, row};

/// Every vocabulary with its title, in the order of the reference.
pub fn tables() -> String {
    macro_rules! tables {
        ($($title:literal: $name:ty),+ $(,)?) => {
            [$(table($title, &serde_json::to_value(schemars::schema_for!($name)).unwrap(), <$name>::ALL.len())),+]
        };
    }
    tables![
        "Conditions of a hub": HubCondition,
        "Reasons of a hub's conditions": HubReason,
        "Conditions of a process": ProcessCondition,
        "Reasons of a process's conditions": ProcessReason,
        "Kinds of migrations": MigrationKind,
        "Phases of a migration": MigrationPhase,
        "Results of a migration": MigrationResult,
        "Triggers of a migration": MigrationTrigger,
        "Reasons of a migration that did not succeed": MoveReason,
        "Reasons of a loss": LossReason,
        "Reasons of events": EventReason,
    ]
    .join("\n")
}

fn table(title: &str, schema: &Value, count: usize) -> String {
    let words = schema["oneOf"].as_array().unwrap();
    assert_eq!(words.len(), count, "{title}: a word without a doc comment");
    let mut text = format!("### {title}\n\n{}", head(&["word", "meaning"]));
    for word in words {
        let (name, meaning) = (word["const"].as_str().unwrap(), word["description"].as_str().unwrap());
        text.push_str(&row(&[&format!("`{name}`"), &line(meaning)]));
    }
    text
}

/// Every reason that can stand on an object or in an event.
pub fn on_objects() -> Vec<&'static str> {
    let mut words = Vec::new();
    words.extend(HubReason::ALL.iter().map(|word| word.as_str()));
    words.extend(ProcessReason::ALL.iter().map(|word| word.as_str()));
    words.extend(MoveReason::ALL.iter().map(|word| word.as_str()));
    words.extend(LossReason::ALL.iter().map(|word| word.as_str()));
    words.extend(EventReason::ALL.iter().map(|word| word.as_str()));
    words.sort_unstable();
    words.dedup();
    words
}

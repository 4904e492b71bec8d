//! No word of the vocabulary is there for nothing: some line of the operator, or of the validation, writes it.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;
use std::path::Path;

use processhub_crds::MigrationTrigger;
use processhub_crds::vocabulary::{EventReason, HubReason, LossReason, MoveReason, ProcessReason};

/// All code without its tests, by file.
fn code(roots: &[&str]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for root in roots {
        read(&Path::new(env!("CARGO_MANIFEST_DIR")).join(root), &mut found);
    }
    found
}

fn read(path: &Path, found: &mut BTreeMap<String, String>) {
    if path.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| read(&entry.unwrap().path(), found));
        return;
    }
    let name = path.to_string_lossy().into_owned();
    if name.ends_with(".rs") && !name.ends_with("tests.rs") {
        let text = fs::read_to_string(path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        found.insert(name, code.to_owned());
    }
}

/// Whether the word stands somewhere as a value, not as the pattern of a match or the side of a comparison.
fn written(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].trim_end();
        let after = &code[at + word.len()..];
        let whole = !after.starts_with(|c: char| c.is_alphanumeric() || c == '_');
        let named = code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let after = after.trim_start().trim_start_matches(')').trim_start();
        let pattern = before.ends_with('|') || ["=>", "|", "if "].iter().any(|sign| after.starts_with(sign));
        let compared = before.ends_with("==") || before.ends_with("!=");
        whole && !named && !pattern && !compared
    })
}

fn unwritten<T: Copy + Debug>(enum_: &str, words: &[T], code: &BTreeMap<String, String>) -> Vec<String> {
    let names = words.iter().map(|word| format!("{word:?}"));
    let missing = names.filter(|name| {
        let aliases = [enum_, "R"].map(|path| format!("{path}::{name}"));
        !code.values().any(|code| aliases.iter().any(|word| written(code, word)))
    });
    missing.map(|name| format!("{enum_}::{name}")).collect()
}

#[test]
fn every_word_is_written_by_some_line() {
    let code = code(&["src", "../crds/src/validate.rs", "../crds/src/validate"]);
    let mut missing = unwritten("HubReason", HubReason::ALL, &code);
    missing.extend(unwritten("ProcessReason", ProcessReason::ALL, &code));
    missing.extend(unwritten("EventReason", EventReason::ALL, &code));
    missing.extend(unwritten("LossReason", LossReason::ALL, &code));
    missing.extend(unwritten("MoveReason", MoveReason::ALL, &code));
    missing.extend(unwritten("MigrationTrigger", MigrationTrigger::ALL, &code));
    assert!(missing.is_empty(), "nothing writes {missing:?}: take them out of the vocabulary");
}

/// A move's reason is the word for an abort's, so that the protocol has to know each of them for something.
#[test]
fn every_reason_to_abort_is_decided_on_by_some_line() {
    let mut code = code(&["src", "../protocol/src/handover"]);
    code.retain(|name, _| !name.ends_with("words.rs") && !name.ends_with("record.rs"));
    let of_enum = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol/src/ledger.rs"));
    let of_enum = of_enum.unwrap();
    let body = of_enum.split("pub enum AbortReason {").nth(1).unwrap().split("\n}").next().unwrap();
    let names: Vec<&str> = body
        .lines()
        .map(str::trim)
        .filter(|line| line.ends_with(','))
        .map(|line| line.trim_end_matches(','))
        .filter(|line| line.chars().all(char::is_alphanumeric))
        .collect();
    assert!(names.len() > 8, "{names:?}");
    let undecided: Vec<&&str> = names
        .iter()
        .filter(|name| !code.values().any(|code| written(code, &format!("AbortReason::{name}"))))
        .collect();
    assert!(undecided.is_empty(), "nothing aborts for {undecided:?}");
}

#[test]
fn a_pattern_or_a_comparison_is_not_a_line_that_writes() {
    assert!(written("condition(true, A::B, words)", "A::B"));
    assert!(written("x => A::B,", "A::B"));
    assert!(written("Some(A::B) if late => Some(A::C)", "A::C"));
    for pattern in
        ["A::B => x", "A::C | A::B => x", "A::B | A::C", "x == A::B {", "Some(A::B) => x", "A::Bee", "AA::B"]
    {
        assert!(!written(pattern, "A::B"), "{pattern}");
    }
}

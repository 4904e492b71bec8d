//! Holds the documentation to the repository: links, commands, variables and metrics that it names are there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::Parser;
use clap::error::ErrorKind;

use crate::Arguments;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Files below `folder` with this ending, without what is built.
fn files(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && name != "node_modules" && !name.starts_with('.') {
                files(&path, ending, found);
            }
        } else if name.ends_with(ending) {
            found.push(path);
        }
    }
}

fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    files(&root(), ".md", &mut found);
    assert!(found.contains(&root().join("docs/guide.md")));
    found
}

/// The text outside of fenced code.
fn prose(text: &str) -> String {
    let mut fenced = false;
    let outside = text.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    });
    outside.collect::<Vec<_>>().join("\n")
}

/// The text without what stands between backquotes.
fn unquoted(text: &str) -> String {
    text.split('`').step_by(2).collect()
}

fn links(text: &str) -> Vec<String> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.map(str::to_owned).collect()
}

/// The anchors of a document's headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| slug(line.trim_start_matches('#').trim())).collect()
}

fn slug(heading: &str) -> String {
    let kept = heading
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || "-_ ".contains(*c))
        .collect::<String>();
    kept.replace(' ', "-")
}

#[test]
fn every_link_and_anchor_leads_somewhere() {
    let mut broken = Vec::new();
    for document in documents() {
        let text = prose(&read(&document));
        for link in links(&unquoted(&text))
            .iter()
            .filter(|link| !link.contains("://") && !link.starts_with("mailto:"))
        {
            let (file, anchor) =
                link.split_once('#').map_or((link.as_str(), None), |(file, anchor)| (file, Some(anchor)));
            let target =
                if file.is_empty() { document.clone() } else { document.with_file_name("").join(file) };
            let there = target.exists();
            let anchored = anchor.is_none_or(|anchor| {
                there
                    && target.extension().is_some_and(|end| end == "md")
                    && anchors(&prose(&read(&target))).contains(anchor)
            });
            if !there || !anchored {
                broken.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// What is said to be typed, up to a comment or the end of the code.
fn commands(text: &str) -> Vec<String> {
    let rests = text.split("cargo xtask").skip(1);
    rests.map(|rest| rest.split(['`', '\n', '#', ')']).next().unwrap_or_default().trim().to_owned()).collect()
}

#[test]
fn every_command_that_is_named_exists() {
    let mut wrong = Vec::new();
    for document in documents() {
        for command in commands(&read(&document)).iter().filter(|command| !command.is_empty()) {
            let pattern = command.contains(['<', '[', '|', '…']);
            let first = command.split([' ', '|']).next().unwrap_or_default();
            let words = if pattern { first } else { command.as_str() };
            if let Err(error) =
                Arguments::try_parse_from(["xtask"].into_iter().chain(words.split_whitespace()))
            {
                let needs_more = matches!(
                    error.kind(),
                    ErrorKind::MissingRequiredArgument
                        | ErrorKind::MissingSubcommand
                        | ErrorKind::DisplayHelp
                        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
                );
                if !needs_more {
                    wrong.push(format!("{}: cargo xtask {command}: {}", document.display(), error.kind()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Every `PREFIX_WORD` in a text.
fn words(text: &str, prefix: &str) -> BTreeSet<String> {
    let continues = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let found = text.match_indices(prefix).map(|(at, _)| {
        let word: String = text[at..].chars().take_while(|c| continues(*c)).collect();
        word.trim_end_matches('_').to_owned()
    });
    found.filter(|word| word.len() > prefix.len()).collect()
}

fn sources(folders: &[&str]) -> String {
    let mut found = Vec::new();
    for folder in folders {
        files(&root().join(folder), ".rs", &mut found);
    }
    found.iter().map(|path| read(path)).collect()
}

#[test]
fn every_variable_is_in_the_reference_and_none_is_invented() {
    let reference = words(&read(&root().join("docs/reference.md")), "PROCESSHUB_");
    let used = words(&sources(&["operator/src", "sidecar/src", "protocol/src"]), "PROCESSHUB_");
    let known = words(&sources(&["operator", "sidecar", "protocol", "sdk", "e2e", "xtask"]), "PROCESSHUB_");
    assert_eq!(
        used.difference(&reference).collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "not in docs/reference.md"
    );
    for document in documents() {
        let invented: Vec<_> = words(&read(&document), "PROCESSHUB_").difference(&known).cloned().collect();
        assert!(invented.is_empty(), "{}: {invented:?}", document.display());
    }
}

/// The names that are registered with a metrics registry, with their prefix.
fn metrics(source: &str) -> BTreeSet<String> {
    let quoted = |text: &str| text.split('"').nth(1).map(str::to_owned);
    let prefix = source.split("with_prefix(").nth(1).and_then(quoted).unwrap();
    let code = source.split("#[cfg(test)]").next().unwrap_or_default();
    let calls = code.split(".register").skip(1).filter(|call| call.starts_with(['(', '_']));
    calls.filter_map(quoted).map(|name| format!("{prefix}_{name}")).collect()
}

#[test]
fn every_metric_is_in_the_reference() {
    let reference = read(&root().join("docs/reference.md"));
    for source in ["operator/src/metrics.rs", "sidecar/src/metrics.rs"] {
        let names = metrics(&read(&root().join(source)));
        assert!(!names.is_empty(), "{source}");
        let missing: Vec<_> = names.iter().filter(|name| !reference.contains(&format!("`{name}"))).collect();
        assert!(missing.is_empty(), "docs/reference.md does not mention {missing:?} of {source}");
    }
}

#[test]
fn a_broken_link_and_an_unknown_command_are_found() {
    let text = "[`a`](b.md#c) `cargo xtask nothing` `](z)`\n```\n[x](y)\n```\n";
    assert_eq!(links(&unquoted(&prose(text))), ["b.md#c"]);
    assert_eq!(commands(text), ["nothing"]);
    assert!(Arguments::try_parse_from(["xtask", "nothing"]).is_err());
    assert_eq!(slug("Install, upgrade, `uninstall`"), "install-upgrade-uninstall");
    assert_eq!(
        metrics(r#"Registry::with_prefix("p"); r.register("a", "b", c); r.register_with_unit("d", "e")"#)
            .len(),
        2
    );
    assert_eq!(words("`X_A_B` X_ X_C,", "X_"), ["X_A_B", "X_C"].map(String::from).into());
}

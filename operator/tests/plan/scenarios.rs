//! Runs every script beside this file and compares what it prints with the golden output. `UPDATE_GENERATED=1` writes
//! the golden outputs anew.

use std::fs;
use std::path::{Path, PathBuf};

use crate::script;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plan")
}

#[test]
fn every_scenario_prints_what_it_printed_when_it_was_judged_right() {
    let mut different = Vec::new();
    let mut count = 0;
    let mut scripts: Vec<PathBuf> =
        fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    scripts.sort();
    for script in scripts.iter().filter(|path| path.extension().is_some_and(|it| it == "txt")) {
        count += 1;
        let printed = script::run(&fs::read_to_string(script).unwrap());
        let golden = folder().join("expected").join(script.file_name().unwrap());
        if std::env::var_os("UPDATE_GENERATED").is_some() {
            fs::create_dir_all(golden.parent().unwrap()).unwrap();
            fs::write(&golden, printed).unwrap();
            continue;
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        if expected != printed {
            different.push(format!("{}:\n{}", golden.display(), first_difference(&expected, &printed)));
        }
    }
    assert!(count >= 8, "only {count} scenarios were found");
    assert!(different.is_empty(), "look at the change, then UPDATE_GENERATED=1:\n{}", different.join("\n"));
}

fn first_difference(expected: &str, printed: &str) -> String {
    let mut expected = expected.lines();
    let mut printed = printed.lines();
    for number in 1.. {
        let (old, new) = (expected.next(), printed.next());
        if old != new {
            return format!("line {number}\n-{}\n+{}", old.unwrap_or("<end>"), new.unwrap_or("<end>"));
        }
        if old.is_none() {
            break;
        }
    }
    "the ends of the lines differ".to_owned()
}

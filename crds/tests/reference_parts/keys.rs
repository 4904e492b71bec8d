//! Annotations, labels and finalizers. They are constants, so that their names and doc comments are read from the
//! source.

use processhub_crds::vocabulary::{annotation, finalizer, label};

use super::{head, line, row};

const SOURCE: &str = include_str!("../../src/vocabulary/keys.rs");

/// One table for each module of constants.
pub fn tables() -> String {
    let mut text = String::new();
    let mut comment = String::new();
    for source in SOURCE.lines().map(str::trim) {
        if let Some(more) = source.strip_prefix("///") {
            comment.push_str(more);
        } else if let Some(module) = source.strip_prefix("pub mod ") {
            let title = match module.trim_end_matches(" {") {
                "annotation" => "Annotations",
                "label" => "Labels",
                "finalizer" => "Finalizers",
                other => panic!("no title for {other}"),
            };
            let gap = if text.is_empty() { "" } else { "\n" };
            let head = head(&["key", "meaning"]);
            text.push_str(&format!("{gap}### {title}\n\n{}\n\n{head}", line(&std::mem::take(&mut comment))));
        } else if source.starts_with("pub const ") {
            let key = source.split('"').nth(1).unwrap();
            text.push_str(&row(&[&format!("`{key}`"), &line(&std::mem::take(&mut comment))]));
        }
    }
    // Whoever writes them in another form gets told here.
    for key in [annotation::MOVE_TO, annotation::CONFIRMED_DEAD, label::PROCESS_UID, finalizer::COLD_SWAP] {
        assert!(text.contains(&format!("| `{key}` |")), "{key} is not in the table");
    }
    text
}

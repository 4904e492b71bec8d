//! Which node has which place in the address plan.
//!
//! A place is never given twice in a cluster's life, not even to a machine that comes back under its old name: whoever
//! still speaks to a lost node's address must meet silence there, as in a real network, and not its successor.

use std::fs::{self, File};
use std::io::Write;

use crate::command::create_dir;
use crate::error::{Error, Result, file_error};
use crate::layout::Layout;
use crate::plan::MAX_NODES;

/// Names that are machines of the cluster without being nodes.
pub(crate) const CONTROL_PLANE: &str = "cp";
pub(crate) const CLIENT: &str = "client";

/// A node's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) number: u8,
    pub(crate) node: String,
}

/// Takes the next free place for a node of that name, or of the name `node<place>`. Safe against others who do the
/// same at the same time.
pub(crate) fn claim(layout: &Layout, name: Option<&str>) -> Result<Slot> {
    if let Some(name) = name {
        crate::plan::check_name("node", name)?;
        if name == CONTROL_PLANE || name == CLIENT || layout.node(name).dir().exists() {
            return Err(Error::Invalid { field: "node", value: name.to_owned(), rule: "is taken" });
        }
    }
    create_dir(&layout.slots())?;
    for number in 1..=MAX_NODES {
        let path = layout.slots().join(number.to_string());
        let node = name.map_or_else(|| format!("node{number}"), str::to_owned);
        match File::create_new(&path) {
            Ok(mut file) => {
                file.write_all(node.as_bytes()).map_err(file_error("write", &path))?;
                return Ok(Slot { number, node });
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(file_error("create", &path)(error)),
        }
    }
    Err(Error::Invalid {
        field: "nodes",
        value: (u16::from(MAX_NODES) + 1).to_string(),
        rule: "a cluster sees at most 200 nodes in its life; take it down and start another",
    })
}

/// The present nodes, in the order of their places.
pub(crate) fn present(layout: &Layout) -> Vec<Slot> {
    let mut all: Vec<Slot> = Vec::new();
    for entry in fs::read_dir(layout.slots()).into_iter().flatten().flatten() {
        let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let (Some(number), Ok(node)) = (number, fs::read_to_string(entry.path())) else { continue };
        all.push(Slot { number, node });
    }
    all.sort_by_key(|slot| slot.number);
    newest_of_each(all).into_iter().filter(|slot| layout.node(&slot.node).dir().exists()).collect()
}

/// The place of a present node.
pub(crate) fn find(layout: &Layout, name: &str) -> Result<Slot> {
    let nodes = present(layout);
    if let Some(slot) = nodes.iter().find(|slot| slot.node == name) {
        return Ok(slot.clone());
    }
    let known: Vec<_> = nodes.into_iter().map(|slot| slot.node).collect();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    Err(Error::NoSuchNode { name: name.to_owned(), known })
}

fn newest_of_each(sorted: Vec<Slot>) -> Vec<Slot> {
    let last = |slot: &Slot| sorted.iter().rev().find(|other| other.node == slot.node) == Some(slot);
    sorted.iter().filter(|slot| last(slot)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster() -> (tempfile::TempDir, Layout) {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().to_owned());
        (dir, layout)
    }

    fn join(layout: &Layout, name: Option<&str>) -> Slot {
        let slot = claim(layout, name).unwrap();
        create_dir(layout.node(&slot.node).dir()).unwrap();
        slot
    }

    #[test]
    fn a_machine_that_comes_back_gets_another_place() {
        let (_dir, layout) = cluster();
        let first = join(&layout, Some("cart"));
        fs::remove_dir_all(layout.node("cart").dir()).unwrap();
        assert!(find(&layout, "cart").is_err());
        let second = join(&layout, Some("cart"));
        assert_ne!(first.number, second.number);
        assert_eq!(find(&layout, "cart").unwrap(), second);
    }

    #[test]
    fn nodes_are_named_by_their_place_and_listed_in_order() {
        let (_dir, layout) = cluster();
        for _ in 0..11 {
            join(&layout, None);
        }
        let names: Vec<_> = present(&layout).into_iter().map(|slot| slot.node).collect();
        assert_eq!(names[0], "node1");
        assert_eq!(names[10], "node11");
    }

    #[test]
    fn taken_and_reserved_names_are_refused() {
        let (_dir, layout) = cluster();
        join(&layout, Some("a"));
        for name in ["a", "cp", "client", "../x"] {
            assert!(claim(&layout, Some(name)).is_err(), "{name}");
        }
    }

    #[test]
    fn a_wrong_name_is_answered_with_the_right_ones() {
        let (_dir, layout) = cluster();
        assert!(find(&layout, "x").unwrap_err().to_string().contains("none"));
        join(&layout, None);
        assert!(find(&layout, "x").unwrap_err().to_string().contains("node1"));
    }
}

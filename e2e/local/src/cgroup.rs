//! Control groups: each node has one at the top, for its pods. They outlive the processes that were in them, so they
//! are removed by hand.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::command::{create_dir, wait_until};
use crate::error::{Result, file_error};

const ROOT: &str = "/sys/fs/cgroup";
/// What the kubelet limits or counts.
const CONTROLLERS: [&str; 5] = ["cpu", "cpuset", "memory", "pids", "hugetlb"];
const EMPTIED: Duration = Duration::from_secs(10);

/// The machine's control groups.
enum Groups {
    /// One hierarchy.
    Unified,
    /// One hierarchy per controller, each with its directory.
    PerController(Vec<PathBuf>),
}

/// Makes a group at the top.
pub(crate) fn create(group: &str) -> Result<()> {
    match groups() {
        Groups::Unified => {
            let offered = read(&Path::new(ROOT).join("cgroup.controllers"))?;
            let path = Path::new(ROOT).join(group);
            create_dir(&path)?;
            for controller in
                CONTROLLERS.into_iter().filter(|name| offered.split_whitespace().any(|o| o == *name))
            {
                for control in
                    [Path::new(ROOT).join("cgroup.subtree_control"), path.join("cgroup.subtree_control")]
                {
                    fs::write(&control, format!("+{controller}")).map_err(file_error("write", &control))?;
                }
            }
            Ok(())
        }
        Groups::PerController(hierarchies) => hierarchies.iter().try_for_each(|hierarchy| {
            let path = hierarchy.join(group);
            create_dir(&path)?;
            // A new group may use no processor and no memory until it is told which.
            for file in ["cpuset.cpus", "cpuset.mems"].into_iter().filter(|file| path.join(file).exists()) {
                let inherited = read(&hierarchy.join(file))?;
                fs::write(path.join(file), inherited).map_err(file_error("write", &path.join(file)))?;
            }
            Ok(())
        }),
    }
}

/// Removes a group at the top and all below it. What lived in it must have been killed.
pub(crate) fn remove(group: &str) -> Result<()> {
    for path in hierarchies().into_iter().map(|hierarchy| hierarchy.join(group)) {
        // A killed process is in its group until the kernel has let go of it.
        wait_until(format!("the end of all in {}", path.display()), EMPTIED, &path, || {
            !path.is_dir() || remove_tree(&path).is_ok()
        })?;
    }
    Ok(())
}

/// The groups at the top whose names begin with `prefix`.
pub(crate) fn groups_with(prefix: &str) -> Vec<String> {
    let mut groups: Vec<_> = hierarchies()
        .iter()
        .filter_map(|hierarchy| fs::read_dir(hierarchy).ok())
        .flat_map(|entries| entries.flatten())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with(prefix))
        .collect();
    groups.sort();
    groups.dedup();
    groups
}

fn groups() -> Groups {
    let root = Path::new(ROOT);
    if root.join("cgroup.controllers").exists() {
        return Groups::Unified;
    }
    // A hybrid machine has the unified hierarchy beside the others, without controllers; the kubelet ignores it.
    let entries = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    // cpu,cpuacct and the like are reached by links of their single names; each is wanted once.
    Groups::PerController(entries.filter(|path| path.is_dir() && !path.is_symlink()).collect())
}

fn hierarchies() -> Vec<PathBuf> {
    match groups() {
        Groups::Unified => vec![PathBuf::from(ROOT)],
        Groups::PerController(hierarchies) => hierarchies,
    }
}

fn remove_tree(path: &Path) -> Result<()> {
    for entry in fs::read_dir(path).map_err(file_error("list", path))?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    // The files in a group are no files: only the directory itself is removed, never its content.
    fs::remove_dir(path).map_err(file_error("remove control group", path))
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(file_error("read", path))
}

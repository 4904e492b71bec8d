//! Taking a cluster down, or what a killed run has left of one.

use std::fs;

use crate::cgroup;
use crate::command::remove_dir;
use crate::daemon;
use crate::error::{Result, file_error};
use crate::layout::Layout;
use crate::network;

/// Ends every process of the cluster of that name, removes its namespaces, control groups and files, and leaves the
/// logs. Whatever is not there is fine, so it may be repeated.
pub(crate) fn sweep(cluster: &str, layout: &Layout) -> Result<()> {
    for init in daemon::find(cluster).into_iter().filter(|daemon| daemon.is_init) {
        // It may have ended by itself since.
        let _ = daemon::signal(init.pid, "KILL");
    }
    daemon::kill(cluster, &layout.logs(), |_| true)?;
    for namespace in network::namespaces_of(cluster) {
        namespace.delete()?;
    }
    for group in cgroup::groups_with(&format!("{cluster}-")) {
        cgroup::remove(&group)?;
    }
    remove_files(layout)
}

/// Only in a directory that is a cluster's.
fn remove_files(layout: &Layout) -> Result<()> {
    if !layout.state().exists() {
        return Ok(());
    }
    let entries = fs::read_dir(layout.dir()).map_err(file_error("list", layout.dir()))?;
    for path in entries.flatten().map(|entry| entry.path()) {
        if path == layout.logs() || path == layout.state() {
            continue;
        }
        if path.is_dir() {
            remove_dir(&path)?;
        } else {
            fs::remove_file(&path).map_err(file_error("remove", &path))?;
        }
    }
    // Last, because without it nothing else may be removed.
    fs::remove_file(layout.state()).map_err(file_error("remove", &layout.state()))
}

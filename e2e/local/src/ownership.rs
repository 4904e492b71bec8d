//! Who a cluster belongs to: at most one process on this machine at a time.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use crate::command::create_dir;
use crate::control_plane;
use crate::error::{Error, Result, file_error};

const DIR: &str = "/run/lock";

/// A lock on a cluster's name. The system lets go of it when its holder ends, however it ends, which is how a cluster
/// that is in use is told from one that a killed process has left. Its content is the directory of a cluster that was
/// meant to outlive its holder.
#[derive(Debug)]
pub(crate) struct Ownership {
    name: String,
    path: PathBuf,
    file: File,
}

impl Ownership {
    /// Takes the name, or says that it is taken.
    pub(crate) fn take(name: &str) -> Result<Self> {
        create_dir(DIR.as_ref())?;
        let path = Path::new(DIR).join(format!("processhub-local-cluster-{name}"));
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(file_error("open", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { name: name.to_owned(), path, file }),
            Err(TryLockError::WouldBlock) => Err(Error::AlreadyRunning {
                name: name.to_owned(),
                place: String::new(),
                remedy: "wait until the process that owns it has ended, or give this one another name",
            }),
            Err(TryLockError::Error(error)) => Err(file_error("lock", &path)(error)),
        }
    }

    /// Remembers that the cluster in `dir` runs on without an owner.
    pub(crate) fn detach(&self, dir: &Path) -> Result<()> {
        self.file.set_len(0).map_err(file_error("empty", &self.path))?;
        let text = dir.to_string_lossy();
        (&self.file).write_all(text.as_bytes()).map_err(file_error("write", &self.path))
    }

    /// An error if a cluster of this name was detached and still runs; else forgets that there was one.
    pub(crate) fn refuse_detached(&self) -> Result<()> {
        let mut dir = String::new();
        (&self.file).read_to_string(&mut dir).map_err(file_error("read", &self.path))?;
        if !dir.is_empty() && control_plane::is_running(&self.name) {
            return Err(Error::AlreadyRunning {
                name: self.name.clone(),
                place: format!(" in {dir}"),
                remedy: "end it with `cargo xtask cluster down`",
            });
        }
        self.file.set_len(0).map_err(file_error("empty", &self.path))?;
        (&self.file).rewind().map_err(file_error("rewind", &self.path))
    }
}

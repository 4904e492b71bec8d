//! A directory out of its stream: unpacked beside what is there, checked, and only then put in its place.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use tar::{Archive, EntryType};

use crate::archive::{Digest, FORMAT, Hashing, MANIFEST, MAX_ENTRIES, Manifest, OWN, PREFIX};

/// Longest manifest that is read.
const MAX_MANIFEST: u64 = 4096;

/// Why a directory could not be restored. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Not what an adapter writes.
    #[error("the archive of the directory is not whole: {0}")]
    Broken(String),
    /// Larger than allowed.
    #[error("the directory has more than --max-state-bytes {0}: raise that here as well")]
    TooLarge(u64),
    /// The disk.
    #[error("{what}: {why}")]
    Disk {
        /// What was tried.
        what: String,
        /// What the system says.
        why: io::Error,
    },
}

fn broken(what: impl ToString) -> RestoreError {
    RestoreError::Broken(what.to_string())
}

fn disk(what: &str, path: &Path) -> impl FnOnce(io::Error) -> RestoreError {
    let what = format!("{what} {}", path.display());
    move |why| RestoreError::Disk { what, why }
}

/// A directory that was unpacked and is not in place. Dropped, it is removed.
#[derive(Debug)]
pub struct Staged {
    root: PathBuf,
    own: PathBuf,
    /// What was in it.
    pub manifest: Manifest,
}

impl Drop for Staged {
    fn drop(&mut self) {
        // What stays is removed before the next attempt.
        let _ = remove(&self.own);
    }
}

/// Unpacks an archive beside the content of `root`, and checks it against its own manifest.
///
/// # Errors
/// See [`RestoreError`].
pub fn unpack(archive: impl Read, root: &Path, most: u64) -> Result<Staged, RestoreError> {
    let own = root.join(OWN);
    remove(&own).map_err(disk("clear", &own))?;
    let incoming = own.join("incoming");
    fs::create_dir_all(&incoming).map_err(disk("create", &incoming))?;
    let empty = Manifest { format: FORMAT, entries: 0, bytes: 0, digest: String::new() };
    let mut staged = Staged { root: root.to_owned(), own, manifest: empty };
    staged.manifest = Unpacking::new(&incoming, most).all(archive)?;
    Ok(staged)
}

impl Staged {
    /// Puts it in the place of whatever the directory holds. When that fails half-way, what was there is put back.
    ///
    /// # Errors
    /// What the system says.
    pub fn install(self) -> Result<(), RestoreError> {
        let (incoming, outgoing) = (self.own.join("incoming"), self.own.join("outgoing"));
        fs::create_dir_all(&outgoing).map_err(disk("create", &outgoing))?;
        let swapped = swap(&self.root, &outgoing).and_then(|()| swap(&incoming, &self.root));
        if let Err(error) = swapped {
            let back = swap(&self.root, &incoming).and_then(|()| swap(&outgoing, &self.root));
            if let Err(error) = back {
                tracing::error!(%error, "what the directory held before could not be put back");
            }
            return Err(error);
        }
        Ok(())
    }
}

/// Moves everything but the adapter's own folder.
fn swap(from: &Path, to: &Path) -> Result<(), RestoreError> {
    for entry in fs::read_dir(from).map_err(disk("read", from))? {
        let name = entry.map_err(disk("read", from))?.file_name();
        if name != OWN {
            let (old, new) = (from.join(&name), to.join(&name));
            let metadata = fs::symlink_metadata(&old).map_err(disk("read", &old))?;
            let mode = metadata.permissions().mode();
            // A folder that its owner may not write cannot be moved either.
            let sealed = metadata.is_dir() && mode & 0o200 == 0;
            if sealed {
                fs::set_permissions(&old, Permissions::from_mode(mode | 0o700))
                    .map_err(disk("open", &old))?;
            }
            fs::rename(&old, &new).map_err(disk("move", &old))?;
            if sealed {
                fs::set_permissions(&new, Permissions::from_mode(mode)).map_err(disk("seal", &new))?;
            }
        }
    }
    Ok(())
}

/// Removes a tree, whatever the permissions of its folders.
fn remove(tree: &Path) -> io::Result<()> {
    match fs::symlink_metadata(tree) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(_) => {}
    }
    let mut folders = vec![tree.to_owned()];
    while let Some(folder) = folders.pop() {
        fs::set_permissions(&folder, Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    fs::remove_dir_all(tree)
}

struct Unpacking<'a> {
    root: &'a Path,
    most: u64,
    bytes: u64,
    entries: u64,
    digest: Digest,
    /// Made last, so that nothing is ever written through one.
    links: Vec<(PathBuf, PathBuf)>,
    /// Permissions are given last, deepest first, so that a folder that may not be written can be filled.
    folders: Vec<(PathBuf, u32, u64)>,
}

impl<'a> Unpacking<'a> {
    fn new(root: &'a Path, most: u64) -> Self {
        Self {
            root,
            most,
            bytes: 0,
            entries: 0,
            digest: Digest::default(),
            links: Vec::new(),
            folders: Vec::new(),
        }
    }

    fn all(mut self, archive: impl Read) -> Result<Manifest, RestoreError> {
        let mut manifest: Option<Manifest> = None;
        for entry in Archive::new(archive).entries().map_err(broken)? {
            let mut entry = entry.map_err(broken)?;
            let path = entry.path().map_err(broken)?.into_owned();
            if manifest.is_some() {
                return Err(broken("something follows its end"));
            }
            if path == Path::new(MANIFEST) {
                let mut text = Vec::new();
                entry.by_ref().take(MAX_MANIFEST).read_to_end(&mut text).map_err(broken)?;
                manifest =
                    Some(serde_json::from_slice(&text).map_err(|_| broken("its end is not readable"))?);
                continue;
            }
            self.entry(&mut entry, &path)?;
        }
        let manifest = manifest.ok_or_else(|| broken("its end is missing"))?;
        if manifest.format != FORMAT {
            return Err(broken(format!("it is of format {}, this adapter reads {FORMAT}", manifest.format)));
        }
        let found =
            Manifest { format: FORMAT, entries: self.entries, bytes: self.bytes, digest: self.digest.end() };
        if found != manifest {
            return Err(broken(format!(
                "it should have {} entries, {} bytes and digest {:.16}, it has {}, {} and {:.16}",
                manifest.entries, manifest.bytes, manifest.digest, found.entries, found.bytes, found.digest
            )));
        }
        for (path, target) in &self.links {
            symlink(target, path).map_err(disk("link", path))?;
        }
        for (path, mode, modified) in self.folders.iter().rev() {
            File::open(path)
                .and_then(|folder| folder.set_modified(time(*modified)))
                .map_err(disk("date", path))?;
            fs::set_permissions(path, Permissions::from_mode(*mode))
                .map_err(disk("give permissions to", path))?;
        }
        Ok(manifest)
    }

    fn entry(&mut self, entry: &mut tar::Entry<'_, impl Read>, path: &Path) -> Result<(), RestoreError> {
        let relative = relative(path)?;
        let header = entry.header();
        let (mode, modified) = (header.mode().map_err(broken)? & 0o7777, header.mtime().map_err(broken)?);
        let (kind, size) = (header.entry_type(), entry.size());
        let to = self.root.join(&relative);
        self.entries += 1;
        if self.entries > MAX_ENTRIES as u64 {
            return Err(broken(format!("it has more than {MAX_ENTRIES} entries")));
        }
        match kind {
            EntryType::Directory => {
                self.digest.entry(b'd', &relative, mode, 0);
                fs::create_dir(&to).map_err(disk("create", &to))?;
                self.folders.push((to, mode, modified));
            }
            EntryType::Symlink => {
                let target = entry.link_name().map_err(broken)?.ok_or_else(|| broken("a link to nothing"))?;
                let name = target.as_os_str();
                self.digest.entry(b'l', &relative, mode, name.len() as u64);
                self.digest.content(name.as_encoded_bytes());
                self.links.push((to, target.into_owned()));
            }
            EntryType::Regular => {
                self.bytes = self.bytes.saturating_add(size);
                if self.bytes > self.most {
                    return Err(RestoreError::TooLarge(self.most));
                }
                self.digest.entry(b'f', &relative, mode, size);
                let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&to);
                let mut file = BufWriter::with_capacity(256 << 10, file.map_err(disk("create", &to))?);
                let mut reader = Hashing { inner: entry, digest: &mut self.digest, read: 0 };
                io::copy(&mut reader, &mut file).map_err(disk("write", &to))?;
                file.flush().map_err(disk("write", &to))?;
                let file = file.get_ref();
                file.set_permissions(Permissions::from_mode(mode))
                    .map_err(disk("give permissions to", &to))?;
                file.set_modified(time(modified)).map_err(disk("date", &to))?;
            }
            _ => return Err(broken("it has an entry that is no file, directory or symbolic link")),
        }
        Ok(())
    }
}

/// The path below the directory; nothing that could leave it.
fn relative(path: &Path) -> Result<PathBuf, RestoreError> {
    let inside = path.strip_prefix(PREFIX).map_err(|_| broken("it has an entry outside of the directory"))?;
    let plain = inside.components().all(|component| matches!(component, Component::Normal(_)));
    if plain && inside.components().next().is_some_and(|first| first.as_os_str() != OWN) {
        Ok(inside.to_owned())
    } else {
        Err(broken("it has an entry outside of the directory"))
    }
}

fn time(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

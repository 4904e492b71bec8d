//! A directory as a stream: a tar whose last entry says what was in it, so that nothing can be missing unnoticed.
//!
//! Files, directories and symbolic links are taken, with their permissions and times of change. Owners are not: all of
//! it belongs to who restores it. Sockets and named pipes are left out, because whoever made them makes them again.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tar::{Builder, EntryType, Header};

/// What every entry of the directory begins with.
pub const PREFIX: &str = "data";
/// Name of the last entry.
pub const MANIFEST: &str = "manifest.json";
/// The adapter's own folder in the directory: never part of the state.
pub const OWN: &str = ".processhub-adapter";
/// Version of this layout.
pub const FORMAT: u32 = 1;
/// Most entries in a directory.
pub const MAX_ENTRIES: usize = 1_000_000;

/// What was in a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// Entries.
    pub entries: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// blake3 over names, kinds, permissions and contents of all entries, in their order.
    pub digest: String,
}

/// Why a directory could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Something of it could not be read.
    #[error("{path}: {why}; the adapter has to run as the application's user", path = .path.display())]
    Unreadable {
        /// What.
        path: PathBuf,
        /// What the system says.
        why: io::Error,
    },
    /// Devices cannot move.
    #[error("{path} is a device: only files, directories and symbolic links can move", path = .0.display())]
    Device(PathBuf),
    /// Larger than allowed.
    #[error(
        "the directory has {bytes} bytes, --max-state-bytes is {most}: raise that, or make the state smaller"
    )]
    TooLarge {
        /// Bytes that were found.
        bytes: u64,
        /// The bound.
        most: u64,
    },
    /// More entries than allowed.
    #[error("the directory has more than {MAX_ENTRIES} entries")]
    TooMany,
}

/// A directory at one point in time.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
    entries: Vec<Entry>,
    bytes: u64,
}

#[derive(Debug)]
struct Entry {
    /// Below the root.
    path: PathBuf,
    mode: u32,
    modified: u64,
    kind: Kind,
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Directory,
    File(Seen),
    Link(PathBuf),
}

/// What tells a file that was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

impl Seen {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            bytes: metadata.len(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl Tree {
    /// Looks at everything in `root`, and reads no file yet.
    ///
    /// # Errors
    /// See [`ArchiveError`].
    pub fn survey(root: &Path, most: u64) -> Result<Self, ArchiveError> {
        let mut tree = Self { root: root.to_owned(), entries: Vec::new(), bytes: 0 };
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            tree.list(&folder, &mut folders)?;
            if tree.bytes > most {
                return Err(ArchiveError::TooLarge { bytes: tree.bytes, most });
            }
        }
        // Folders come before what is in them, and the order is the same each time.
        tree.entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(tree)
    }

    fn list(&mut self, folder: &Path, folders: &mut Vec<PathBuf>) -> Result<(), ArchiveError> {
        let at = self.root.join(folder);
        let unreadable = |path: &Path| {
            let path = path.to_owned();
            move |why| ArchiveError::Unreadable { path, why }
        };
        for entry in fs::read_dir(&at).map_err(unreadable(&at))? {
            let name = entry.map_err(unreadable(&at))?.file_name();
            if folder.as_os_str().is_empty() && name == OWN {
                continue;
            }
            let (path, real) = (folder.join(&name), at.join(&name));
            let metadata = fs::symlink_metadata(&real).map_err(unreadable(&real))?;
            let kind = metadata.file_type();
            let kind = if kind.is_dir() {
                folders.push(path.clone());
                Kind::Directory
            } else if kind.is_file() {
                self.bytes = self.bytes.saturating_add(metadata.len());
                Kind::File(Seen::of(&metadata))
            } else if kind.is_symlink() {
                Kind::Link(fs::read_link(&real).map_err(unreadable(&real))?)
            } else if kind.is_socket() || kind.is_fifo() {
                tracing::debug!(path = %real.display(), "left out: sockets and pipes are no state");
                continue;
            } else {
                return Err(ArchiveError::Device(real));
            };
            if self.entries.len() >= MAX_ENTRIES {
                return Err(ArchiveError::TooMany);
            }
            let modified = u64::try_from(metadata.mtime()).unwrap_or(0);
            self.entries.push(Entry { path, mode: metadata.mode() & 0o7777, modified, kind });
        }
        Ok(())
    }

    /// Bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// When a file cannot be read or is no longer what it was at the survey, or `out` fails.
    pub fn write(&self, out: impl Write) -> io::Result<()> {
        let mut builder = Builder::new(out);
        let mut digest = Digest::default();
        for entry in &self.entries {
            let path = Path::new(PREFIX).join(&entry.path);
            let mut header = Header::new_gnu();
            header.set_mode(entry.mode);
            header.set_mtime(entry.modified);
            match &entry.kind {
                Kind::Directory => {
                    digest.entry(b'd', &entry.path, entry.mode, 0);
                    header.set_entry_type(EntryType::Directory);
                    header.set_size(0);
                    builder.append_data(&mut header, path, io::empty())?;
                }
                Kind::Link(target) => {
                    digest.entry(b'l', &entry.path, entry.mode, target.as_os_str().len() as u64);
                    digest.content(target.as_os_str().as_bytes());
                    header.set_entry_type(EntryType::Symlink);
                    header.set_size(0);
                    builder.append_link(&mut header, path, target)?;
                }
                Kind::File(seen) => {
                    digest.entry(b'f', &entry.path, entry.mode, seen.bytes);
                    header.set_entry_type(EntryType::Regular);
                    header.set_size(seen.bytes);
                    let real = self.root.join(&entry.path);
                    let changed = || {
                        io::Error::other(format!(
                            "{} changed while it was captured: the application still runs, or something else \
                             writes there",
                            real.display()
                        ))
                    };
                    let file = File::open(&real)?;
                    let before = Seen::of(&file.metadata()?);
                    if before != *seen {
                        return Err(changed());
                    }
                    let mut reader = Hashing { inner: file.take(seen.bytes), digest: &mut digest, read: 0 };
                    builder.append_data(&mut header, path, &mut reader)?;
                    let read = reader.read;
                    if read != seen.bytes || Seen::of(&reader.inner.into_inner().metadata()?) != *seen {
                        return Err(changed());
                    }
                }
            }
        }
        let manifest = Manifest {
            format: FORMAT,
            entries: self.entries.len() as u64,
            bytes: self.bytes,
            digest: digest.end(),
        };
        let manifest = serde_json::to_vec(&manifest)?;
        let mut header = Header::new_gnu();
        header.set_mode(0o600);
        header.set_size(manifest.len() as u64);
        builder.append_data(&mut header, MANIFEST, manifest.as_slice())?;
        builder.into_inner()?.flush()
    }
}

/// What both sides hash.
#[derive(Default)]
pub(crate) struct Digest(blake3::Hasher);

impl Digest {
    /// An entry begins; `bytes` of content follow.
    pub(crate) fn entry(&mut self, kind: u8, path: &Path, mode: u32, bytes: u64) {
        let name = path.as_os_str().as_bytes();
        self.0.update(&[kind]);
        self.0.update(&(name.len() as u64).to_le_bytes());
        self.0.update(name);
        self.0.update(&mode.to_le_bytes());
        self.0.update(&bytes.to_le_bytes());
    }

    pub(crate) fn content(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn end(&self) -> String {
        self.0.finalize().to_hex().to_string()
    }
}

/// Reads, and hashes what was read.
pub(crate) struct Hashing<'a, R> {
    pub(crate) inner: R,
    pub(crate) digest: &'a mut Digest,
    pub(crate) read: u64,
}

impl<R: Read> Read for Hashing<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.digest.content(&buffer[..read]);
        self.read += read as u64;
        Ok(read)
    }
}

//! A state on its way in: slices become a file in the adapter's folder.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use processhub_protocol::contract::assembly::{Assembly, Place};
use processhub_protocol::contract::{ErrorBody, ErrorCode, Name, PartName, PartSize};
use tokio::fs::{File, OpenOptions};
use tokio::io::AsyncWriteExt;

/// The one import that is under way. A slice of another one ends it.
#[derive(Debug)]
pub struct Import {
    folder: PathBuf,
    /// The one part that this adapter takes.
    part: PartName,
    most: u64,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    name: Name,
    assembly: Assembly,
    file: Option<File>,
}

fn disk(error: &io::Error) -> ErrorBody {
    ErrorBody::new(ErrorCode::Internal, &format!("the adapter's folder --work: {error}"))
}

impl Import {
    /// Nothing yet; files go to `folder`.
    #[must_use]
    pub fn new(folder: &Path, part: PartName, most: u64) -> Self {
        Self { folder: folder.to_owned(), part, most, open: None }
    }

    fn path(&self) -> PathBuf {
        self.folder.join(format!("import.{}", self.part))
    }

    /// Stores one slice.
    ///
    /// # Errors
    /// Those of [`Assembly::place`], `CannotAccept` for a part of another kind of worker, `TooLarge`.
    pub async fn put(
        &mut self,
        import: &Name,
        part: &PartName,
        offset: u64,
        slice: Bytes,
    ) -> Result<(), ErrorBody> {
        if part != &self.part {
            return Err(foreign(part, &self.part));
        }
        if offset.saturating_add(slice.len() as u64) > self.most {
            let message =
                format!("the state has more than --max-state-bytes {}: raise that here as well", self.most);
            return Err(ErrorBody::new(ErrorCode::TooLarge, &message));
        }
        if self.open.as_ref().is_none_or(|open| &open.name != import) {
            // Checked before the old one goes: a stray slice in mid-part ends nothing.
            Assembly::default().place(part, offset, slice.len())?;
            self.open = None;
        }
        let path = self.path();
        let open = self.open.get_or_insert_with(|| Open {
            name: import.clone(),
            assembly: Assembly::default(),
            file: None,
        });
        match open.assembly.place(part, offset, slice.len())? {
            Place::Again => return Ok(()),
            Place::Start => {
                open.assembly.lost(part);
                let mut options = OpenOptions::new();
                options.write(true).create(true).truncate(true).mode(0o600);
                open.file = Some(options.open(&path).await.map_err(|error| disk(&error))?);
            }
            Place::Append => {}
        }
        let Some(file) = &mut open.file else {
            open.assembly.lost(part);
            let message = "the part has no place to go: start it over at offset 0";
            return Err(ErrorBody::new(ErrorCode::Internal, message));
        };
        let written = match file.write_all(&slice).await {
            Ok(()) => file.flush().await,
            error => error,
        };
        if let Err(error) = written {
            open.assembly.lost(part);
            open.file = None;
            return Err(disk(&error));
        }
        open.assembly.stored(part, offset, slice.len());
        Ok(())
    }

    /// The file that holds the state, if what came in is exactly `expected`.
    ///
    /// # Errors
    /// `Incomplete`; `CannotAccept` for the state of another kind of worker.
    pub async fn complete(&mut self, import: &Name, expected: &[PartSize]) -> Result<PathBuf, ErrorBody> {
        match expected {
            [only] if only.name == self.part => {}
            [other, ..] => return Err(foreign(&other.name, &self.part)),
            [] => {
                let message =
                    format!("the state has no part `{}`: another kind of worker wrote it", self.part);
                return Err(ErrorBody::new(ErrorCode::CannotAccept, &message));
            }
        }
        let none = Assembly::default();
        let open = self.open.as_ref().filter(|open| &open.name == import);
        open.map_or(&none, |open| &open.assembly).complete(expected)?;
        let path = self.path();
        if open.is_none_or(|open| open.file.is_none()) {
            // A part of no bytes needs no slice.
            tokio::fs::write(&path, b"").await.map_err(|error| disk(&error))?;
        }
        Ok(path)
    }

    /// Forgets an import, and what came in of it.
    pub async fn delete(&mut self, import: &Name) {
        if self.open.as_ref().is_some_and(|open| &open.name == import) {
            self.clear().await;
        }
    }

    /// Forgets whatever there is.
    pub async fn clear(&mut self) {
        self.open = None;
        // There may be none; what stays is overwritten by the next.
        let _ = tokio::fs::remove_file(self.path()).await;
    }
}

fn foreign(part: &PartName, own: &PartName) -> ErrorBody {
    let message = format!(
        "the state has a part `{part}`, this adapter takes `{own}`: source and target need the same kind of options \
         (--directory, or --dump and --load)"
    );
    ErrorBody::new(ErrorCode::CannotAccept, &message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(part: &str, bytes: u64) -> [PartSize; 1] {
        [PartSize { name: part.parse().unwrap(), bytes }]
    }

    #[tokio::test]
    async fn slices_become_a_file_and_a_new_import_ends_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let part: PartName = "dump".parse().unwrap();
        let (a, b): (Name, Name) = ("a".parse().unwrap(), "b".parse().unwrap());
        let mut import = Import::new(folder.path(), part.clone(), 10);
        import.put(&a, &part, 0, Bytes::from_static(b"old")).await.unwrap();
        import.put(&b, &part, 0, Bytes::from_static(b"12")).await.unwrap();
        import.put(&b, &part, 2, Bytes::from_static(b"345")).await.unwrap();
        import.put(&b, &part, 2, Bytes::from_static(b"345")).await.unwrap();
        let refused = import.put(&a, &part, 3, Bytes::from_static(b"x")).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::WrongOffset);
        assert_eq!(import.complete(&b, &size("dump", 6)).await.unwrap_err().code, ErrorCode::Incomplete);
        let path = import.complete(&b, &size("dump", 5)).await.unwrap();
        assert_eq!(std::fs::read(path).unwrap(), b"12345");
        let refused = import.put(&b, &part, 5, Bytes::from_static(b"123456")).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::TooLarge);
        import.clear().await;
        let path = import.complete(&a, &size("dump", 0)).await.unwrap();
        assert_eq!(std::fs::read(path).unwrap(), b"");
    }

    #[tokio::test]
    async fn the_state_of_another_kind_of_worker_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let name: Name = "a".parse().unwrap();
        let mut import = Import::new(folder.path(), "dump".parse().unwrap(), 10);
        let refused = import.put(&name, &"directory".parse().unwrap(), 0, Bytes::new()).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::CannotAccept);
        assert!(refused.message.contains("this adapter takes `dump`"), "{}", refused.message);
        assert!(import.complete(&name, &size("state", 0)).await.is_err());
        assert!(import.complete(&name, &[]).await.is_err());
    }
}

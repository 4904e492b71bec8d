//! A directory goes through its stream and comes back as it was; anything else changes nothing.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use processhub_adapter::archive::{ArchiveError, OWN, Tree};
use processhub_adapter::restore::{RestoreError, unpack};

const MOST: u64 = 1 << 20;

fn sample(root: &Path) {
    fs::create_dir_all(root.join("deep/er")).unwrap();
    fs::write(root.join("deep/er/file"), vec![7; 300_000]).unwrap();
    fs::write(root.join("empty"), "").unwrap();
    fs::write(root.join("n".repeat(200)), "a long name").unwrap();
    fs::write(root.join("script"), "#!/bin/sh").unwrap();
    fs::set_permissions(root.join("script"), Permissions::from_mode(0o750)).unwrap();
    symlink("deep/er/file", root.join("link")).unwrap();
    symlink("/nowhere", root.join("dangling")).unwrap();
    fs::create_dir(root.join("sealed")).unwrap();
    fs::write(root.join("sealed/in"), "in").unwrap();
    fs::set_permissions(root.join("sealed"), Permissions::from_mode(0o500)).unwrap();
    fs::create_dir_all(root.join(OWN).join("incoming")).unwrap();
}

fn archive(root: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    Tree::survey(root, MOST).unwrap().write(&mut bytes).unwrap();
    bytes
}

/// Everything in a directory: path, mode, time of change, and content or target.
fn look(root: &Path) -> Vec<(PathBuf, u32, i64, Vec<u8>)> {
    let (mut seen, mut folders) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let content = if metadata.is_dir() {
                folders.push(path.clone());
                Vec::new()
            } else if metadata.is_symlink() {
                fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
            } else {
                fs::read(&path).unwrap()
            };
            let modified = if metadata.is_symlink() { 0 } else { metadata.mtime() };
            seen.push((path.strip_prefix(root).unwrap().to_owned(), metadata.mode(), modified, content));
        }
    }
    seen.retain(|(path, ..)| !path.starts_with(OWN));
    seen.sort();
    seen
}

#[test]
fn a_directory_comes_back_as_it_was_and_takes_the_place_of_what_was_there() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    sample(from.path());
    fs::create_dir(to.path().join("old")).unwrap();
    fs::write(to.path().join("old/file"), "old").unwrap();
    fs::write(to.path().join("empty"), "not empty").unwrap();
    let bytes = archive(from.path());
    assert_eq!(bytes, archive(from.path()), "the same bytes each time");
    let staged = unpack(bytes.as_slice(), to.path(), MOST).unwrap();
    assert!(to.path().join("old/file").exists(), "nothing has changed yet");
    assert_eq!(staged.manifest.entries, 10);
    staged.install().unwrap();
    assert_eq!(look(to.path()), look(from.path()));
    assert!(!to.path().join(OWN).exists(), "nothing of the adapter's own stays");
}

#[test]
fn sockets_are_left_out() {
    let from = tempfile::tempdir().unwrap();
    let _socket = UnixListener::bind(from.path().join("socket")).unwrap();
    let to = tempfile::tempdir().unwrap();
    let staged = unpack(archive(from.path()).as_slice(), to.path(), MOST).unwrap();
    assert_eq!(staged.manifest.entries, 0);
}

#[test]
fn a_directory_that_is_too_large_is_refused_with_both_figures() {
    let from = tempfile::tempdir().unwrap();
    sample(from.path());
    let error = Tree::survey(from.path(), 1000).unwrap_err();
    assert!(matches!(error, ArchiveError::TooLarge { bytes: 300_000.., most: 1000 }), "{error}");
    let to = tempfile::tempdir().unwrap();
    let error = unpack(archive(from.path()).as_slice(), to.path(), 1000).unwrap_err();
    assert!(matches!(error, RestoreError::TooLarge(1000)), "{error}");
    assert!(look(to.path()).is_empty());
}

#[test]
fn a_file_that_changes_meanwhile_is_noticed() {
    let from = tempfile::tempdir().unwrap();
    sample(from.path());
    let tree = Tree::survey(from.path(), MOST).unwrap();
    fs::OpenOptions::new().append(true).open(from.path().join("script")).unwrap().write_all(b"!").unwrap();
    let error = tree.write(std::io::sink()).unwrap_err().to_string();
    assert!(error.contains("script changed while it was captured"), "{error}");
}

#[test]
fn whatever_is_cut_damaged_or_missing_changes_nothing() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    sample(from.path());
    fs::write(to.path().join("kept"), "kept").unwrap();
    let whole = archive(from.path());
    let before = look(to.path());
    let mut damaged = whole.clone();
    let at = whole.windows(100).position(|window| window.iter().all(|byte| *byte == 7)).unwrap() + 50;
    damaged[at] = 8;
    // An archive without its last entry: two empty blocks are its regular end.
    let mut without_end = whole.clone();
    let end = whole.windows(13).rposition(|window| window == b"manifest.json").unwrap();
    without_end.truncate(end);
    without_end.extend([0; 1024]);
    for (what, bytes) in [
        ("damaged", damaged),
        ("no end", without_end),
        ("half", whole[..whole.len() / 2].to_vec()),
        ("none", Vec::new()),
    ] {
        let error = unpack(bytes.as_slice(), to.path(), MOST).unwrap_err();
        let known = matches!(error, RestoreError::Broken(_) | RestoreError::Disk { .. });
        assert!(known, "{what}: {error}");
        assert_eq!(look(to.path()), before, "{what}");
        assert!(!to.path().join(OWN).exists(), "{what}");
    }
}

#[test]
fn an_archive_cannot_write_outside_of_the_directory() {
    let outside = tempfile::tempdir().unwrap();
    let to = outside.path().join("data");
    fs::create_dir(&to).unwrap();
    for path in ["data/../evil", "evil", "/evil", &format!("data/{OWN}/evil")] {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(4);
        header.set_mode(0o600);
        // As no honest writer does it.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        builder.append(&header, b"evil".as_slice()).unwrap();
        let error = unpack(builder.into_inner().unwrap().as_slice(), &to, MOST).unwrap_err().to_string();
        assert!(error.contains("outside of the directory"), "{path}: {error}");
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
}

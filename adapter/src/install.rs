//! Brings this program to a container of somebody else's image.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Context;

/// Name of the program.
pub const NAME: &str = "processhub-adapter";

/// Copies the running program to `folder`, whole or not at all.
///
/// # Errors
/// When the folder cannot be written.
pub fn install(folder: &Path) -> anyhow::Result<()> {
    let own = std::env::current_exe().context("the adapter does not know its own file")?;
    let (part, whole) = (folder.join(format!(".{NAME}.part")), folder.join(NAME));
    fs::copy(&own, &part).with_context(|| format!("copy {} to {}", own.display(), part.display()))?;
    fs::set_permissions(&part, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("make {} executable", part.display()))?;
    fs::rename(&part, &whole).with_context(|| format!("write {}", whole.display()))
}

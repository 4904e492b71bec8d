//! `cargo xtask generate`: writes what is generated from the code.
//!
//! Each generated file has a test that fails when the file is stale, and rewrites it when it is asked to. Running those
//! tests is therefore all there is to do, and what is written is what will be compared.

use anyhow::{Context, Result, bail};
use processhub_e2e::cargo::cargo;

/// Crates and the tests in them that write files.
const WRITERS: [(&str, &str); 3] = [
    ("processhub-crds", "the_yaml_beside_the_types_is_up_to_date"),
    ("processhub-crds", "the_reference_is_up_to_date"),
    ("processhub-sdk", "the_published_document_is_the_code_s"),
];

/// Writes every generated file.
///
/// # Errors
/// When a crate does not build or a file cannot be written; its own output says why.
pub fn run() -> Result<()> {
    for (package, test) in WRITERS {
        let status = cargo()
            .args(["test", "--quiet", "--package", package, test])
            .env("UPDATE_GENERATED", "1")
            .status()
            .context("cargo cannot be started")?;
        if !status.success() {
            bail!("the generated files of {package} could not be written");
        }
    }
    Ok(())
}

//! The binaries and images that the clusters run, built from this checkout.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use processhub_local_cluster::{ImageBuild, build_image};

/// A directory with built binaries, for those who have some and do not want to wait for a build.
const BINARIES: &str = "PROCESSHUB_BINARIES";
/// Image of the operator.
pub const OPERATOR_IMAGE: &str = "localhost/processhub-operator:dev";
/// Image of the sidecar.
pub const SIDECAR_IMAGE: &str = "localhost/processhub-sidecar:dev";
/// Image of the adapter.
pub const ADAPTER_IMAGE: &str = "localhost/processhub-adapter:dev";
/// Image of the example worker.
pub const COUNTER_IMAGE: &str = "localhost/processhub-counter:dev";

/// Where the built binaries lie.
#[derive(Clone, Debug)]
pub struct Binaries {
    dir: PathBuf,
    root: PathBuf,
}

impl Binaries {
    /// Builds them with the profile `cluster`: optimised, static where the system allows it. Prints what it does.
    ///
    /// # Errors
    /// When there is no cargo or the code does not compile.
    pub fn build() -> Result<Self> {
        let root = repository();
        if let Some(dir) = std::env::var_os(BINARIES) {
            println!("using the binaries in {}", dir.display());
            return Ok(Self { dir: dir.into(), root });
        }
        let host = host_triple()?;
        println!("building operator, sidecar, adapter, example worker and clients (profile cluster)");
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo
            .current_dir(&root)
            .args(["build", "--locked", "--quiet", "--profile", "cluster", "--target", &host])
            .args(["--package", "processhub-operator", "--package", "processhub-sidecar"])
            .args([
                "--package",
                "processhub-adapter",
                "--package",
                "counter",
                "--package",
                "processhub-e2e",
                "--bins",
            ]);
        if host.ends_with("linux-gnu") {
            let variable = format!("CARGO_TARGET_{}_RUSTFLAGS", host.to_uppercase().replace('-', "_"));
            cargo.env(variable, "-C target-feature=+crt-static");
        }
        let status = cargo.status().context("run cargo")?;
        if !status.success() {
            bail!("cargo build failed: {status}");
        }
        Ok(Self { dir: root.join("target").join(host).join("cluster"), root })
    }

    /// A binary by name.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The repository that they were built from.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Builds the images from the Dockerfile's targets, around these binaries; the archives, ready to be loaded.
    ///
    /// # Errors
    /// When buildah is missing or fails.
    pub fn images(&self) -> Result<Vec<PathBuf>> {
        let context = self.dir.join("images");
        let prebuilt = context.join("bin");
        std::fs::create_dir_all(&prebuilt)?;
        for name in ["processhub-operator", "processhub-sidecar", "processhub-adapter", "counter"] {
            std::fs::copy(self.path(name), prebuilt.join(name)).with_context(|| format!("copy {name}"))?;
        }
        [
            ("operator", OPERATOR_IMAGE),
            ("sidecar", SIDECAR_IMAGE),
            ("adapter", ADAPTER_IMAGE),
            ("counter", COUNTER_IMAGE),
        ]
        .into_iter()
        .map(|(target, tag)| {
            let archive = context.join(format!("{target}.tar"));
            let build = ImageBuild {
                dockerfile: self.root.join("Dockerfile"),
                target: Some(target.to_owned()),
                context: context.clone(),
                named_contexts: Vec::new(),
                arguments: vec![
                    ("BINARIES".to_owned(), "prebuilt".to_owned()),
                    ("PREBUILT".to_owned(), "bin".to_owned()),
                ],
                tag: tag.to_owned(),
            };
            build_image(&build, &archive).with_context(|| format!("build the image {tag}"))?;
            Ok(archive)
        })
        .collect()
    }
}

fn repository() -> PathBuf {
    let mut root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.pop();
    root
}

fn host_triple() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("run rustc")?;
    String::from_utf8(output.stdout)?
        .lines()
        .find_map(|line| line.strip_prefix("host: ").map(str::to_owned))
        .context("rustc does not say its host")
}

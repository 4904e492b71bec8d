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
/// Image of the account, on the embedded cluster.
pub const ACCOUNT_IMAGE: &str = "localhost/processhub-account:dev";
/// Image of the game room.
pub const ROOM_IMAGE: &str = "localhost/processhub-room:dev";
/// Image with Python, on the embedded cluster.
pub const PYTHON_IMAGE: &str = "localhost/python:3";
/// Image of the clients.
pub const CLIENTS_IMAGE: &str = "localhost/processhub-clients:dev";
/// Targets of the Dockerfile and how their images are tagged.
const IMAGES: [(&str, &str); 6] = [
    ("operator", OPERATOR_IMAGE),
    ("sidecar", SIDECAR_IMAGE),
    ("adapter", ADAPTER_IMAGE),
    ("counter", COUNTER_IMAGE),
    ("room", ROOM_IMAGE),
    ("clients", CLIENTS_IMAGE),
];

/// Images that a cluster pulls by name.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Images, with --cluster kubeconfig")]
pub struct Images {
    /// The operator's, where none leads yet
    #[arg(long, value_name = "IMAGE", default_value = OPERATOR_IMAGE)]
    pub operator_image: String,
    /// The sidecar's, where no operator leads yet
    #[arg(long, value_name = "IMAGE", default_value = SIDECAR_IMAGE)]
    pub sidecar_image: String,
    /// The example worker's (target `counter` of the Dockerfile)
    #[arg(long, value_name = "IMAGE", default_value = COUNTER_IMAGE)]
    pub worker_image: String,
    /// The clients' (target `clients` of the Dockerfile)
    #[arg(long, value_name = "IMAGE", default_value = CLIENTS_IMAGE)]
    pub clients_image: String,
}

impl Default for Images {
    /// As the local cluster has them.
    fn default() -> Self {
        Self {
            operator_image: OPERATOR_IMAGE.to_owned(),
            sidecar_image: SIDECAR_IMAGE.to_owned(),
            worker_image: COUNTER_IMAGE.to_owned(),
            clients_image: CLIENTS_IMAGE.to_owned(),
        }
    }
}

/// Where the built binaries lie.
#[derive(Clone, Debug)]
pub struct Binaries {
    dir: PathBuf,
    root: PathBuf,
}

/// How they are compiled.
#[derive(Clone, Copy, Debug)]
enum Profile {
    /// Optimised, and quick to build again.
    Cluster,
    /// As in the images that are released.
    Release,
}

impl Binaries {
    /// Builds them with the profile `cluster`: optimised, static where the system allows it. Prints what it does.
    ///
    /// # Errors
    /// When there is no cargo or the code does not compile.
    pub fn build() -> Result<Self> {
        if let Some(dir) = std::env::var_os(BINARIES) {
            println!("using the binaries in {}", dir.display());
            return Ok(Self { dir: dir.into(), root: repository() });
        }
        Self::compile(Profile::Cluster)
    }

    /// Builds them as the Dockerfile does, which takes minutes.
    ///
    /// # Errors
    /// When there is no cargo or the code does not compile.
    pub fn release() -> Result<Self> {
        Self::compile(Profile::Release)
    }

    fn compile(profile: Profile) -> Result<Self> {
        let root = repository();
        let profile = match profile {
            Profile::Cluster => "cluster",
            Profile::Release => "release",
        };
        let host = host_triple()?;
        println!("building operator, sidecar, adapter, example workers and clients (profile {profile})");
        let mut cargo = crate::cargo::cargo();
        cargo
            .current_dir(&root)
            .args(["build", "--locked", "--quiet", "--profile", profile, "--target", &host])
            .args(["--package", "processhub-operator", "--package", "processhub-sidecar"])
            .args(["--package", "processhub-adapter", "--package", "counter", "--package", "account"])
            .args(["--package", "room", "--package", "processhub-e2e", "--bins"]);
        if host.ends_with("linux-gnu") {
            let variable = format!("CARGO_TARGET_{}_RUSTFLAGS", host.to_uppercase().replace('-', "_"));
            cargo.env(variable, "-C target-feature=+crt-static");
        }
        let status = cargo.status().context("run cargo")?;
        if !status.success() {
            bail!("cargo build failed: {status}");
        }
        Ok(Self { dir: root.join("target").join(host).join(profile), root })
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
        for name in [
            "processhub-operator",
            "processhub-sidecar",
            "processhub-adapter",
            "counter",
            "room",
            "processhub-load",
        ] {
            std::fs::copy(self.path(name), prebuilt.join(name)).with_context(|| format!("copy {name}"))?;
        }
        IMAGES
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

/// This checkout.
pub(crate) fn repository() -> PathBuf {
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

/// This machine's Python itself, behind whatever stands for it in the path; none where there is none.
#[must_use]
pub fn python() -> Option<PathBuf> {
    let mut command = Command::new("python3");
    let output = command.args(["-c", "import sys; print(sys.executable)"]).output().ok()?;
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    (output.status.success() && path.is_absolute()).then_some(path)
}

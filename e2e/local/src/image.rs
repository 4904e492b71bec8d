//! Container images, built by buildah into files that a cluster's nodes load.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{create_dir, progress, run, write_file};
use crate::config::PAUSE_IMAGE;
use crate::error::{Result, file_error};
use crate::network::tool;
use crate::tools::{Tool, Tools};

/// What to build an image from.
#[derive(Clone, Debug)]
pub struct ImageBuild {
    /// The Dockerfile.
    pub dockerfile: PathBuf,
    /// The stage to build; the last one when not given.
    pub target: Option<String>,
    /// What `COPY` copies from.
    pub context: PathBuf,
    /// What `COPY --from=<name>` copies from, beside the stages.
    pub named_contexts: Vec<(String, PathBuf)>,
    /// Values of the Dockerfile's `ARG`s.
    pub arguments: Vec<(String, String)>,
    /// The image's name with its tag, for example `localhost/processhub-operator:test`. Pods use it with
    /// `imagePullPolicy: IfNotPresent` or `Never`.
    pub tag: String,
}

/// Builds an image into `output`, a file that [`crate::LocalCluster::load`] takes. Needs root and no cluster.
///
/// Nothing is pulled that the Dockerfile does not ask for; layers are cached from one build to the next.
pub fn build_image(build: &ImageBuild, output: &Path) -> Result<()> {
    let storage = Tools::of_user().cache().join("containers");
    let mut bud = buildah(&storage);
    bud.args(["bud", "--isolation", "chroot", "--layers", "--quiet", "--file"]).arg(&build.dockerfile);
    if let Some(target) = &build.target {
        bud.args(["--target", target]);
    }
    for (name, context) in &build.named_contexts {
        bud.arg("--build-context").arg(format!("{name}={}", context.display()));
    }
    for (name, value) in &build.arguments {
        bud.arg("--build-arg").arg(format!("{name}={value}"));
    }
    run(bud.args(["--tag", &build.tag]).arg(&build.context))?;
    save_image(&storage, &build.tag, output)
}

fn save_image(storage: &Path, tag: &str, output: &Path) -> Result<()> {
    if let Some(parent) = output.parent() {
        create_dir(parent)?;
    }
    // buildah adds to an archive that is there, and refuses to when it holds the same image.
    let unfinished = output.with_extension("unfinished");
    if unfinished.exists() {
        std::fs::remove_file(&unfinished).map_err(file_error("remove", &unfinished))?;
    }
    let archive = format!("docker-archive:{}:{tag}", unfinished.display());
    run(buildah(storage).args(["push", "--quiet", tag]).arg(archive))?;
    std::fs::rename(&unfinished, output).map_err(file_error("rename", &unfinished))
}

fn buildah(storage: &Path) -> Command {
    let mut command = tool("buildah");
    command.args(["--storage-driver", "vfs"]);
    command.arg("--root").arg(storage.join("root")).arg("--runroot").arg(storage.join("run"));
    command
}

/// The image that holds each pod's namespaces, as a file.
pub(crate) fn pause_image(tools: &Tools) -> Result<PathBuf> {
    let binary = tools.provide(Tool::Pause)?;
    let output = binary.with_extension("tar");
    if output.is_file() {
        return Ok(output);
    }
    progress("building the pause image");
    let context = binary.with_extension("context");
    create_dir(&context)?;
    let dockerfile = context.join("Dockerfile");
    write_file(&dockerfile, "FROM scratch\nCOPY pause /pause\nUSER 65535:65535\nENTRYPOINT [\"/pause\"]\n")?;
    std::fs::copy(&binary, context.join("pause")).map_err(file_error("copy", &binary))?;
    let build = ImageBuild {
        dockerfile,
        target: None,
        context,
        named_contexts: Vec::new(),
        arguments: Vec::new(),
        tag: PAUSE_IMAGE.to_owned(),
    };
    build_image(&build, &output)?;
    Ok(output)
}

/// Loads an image file into a node's containerd.
pub(crate) fn import(socket: &Path, image: &Path) -> Result<()> {
    let mut command = tool("ctr");
    command.arg("--address").arg(socket).args(["--namespace", "k8s.io", "images", "import"]).arg(image);
    run(&mut command).map(drop)
}

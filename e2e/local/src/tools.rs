//! The cluster's programs, built from their Go modules once and kept.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};

use crate::command::{create_dir, progress, run, run_aloud};
use crate::error::{Error, Result, file_error};
use crate::network::tool;

/// The version of Kubernetes that the cluster runs.
pub const KUBERNETES_VERSION: &str = "1.35.4";

/// A program that is built from source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tool {
    /// All parts of Kubernetes, etcd, and our own small ones.
    Testcluster,
    Kubectl,
    Helm,
    Coredns,
    /// What holds a pod's namespaces; runs in a container, so it is static.
    Pause,
}

impl Tool {
    fn name(self) -> &'static str {
        match self {
            Self::Testcluster => "testcluster",
            Self::Kubectl => "kubectl",
            Self::Helm => "helm",
            Self::Coredns => "coredns",
            Self::Pause => "pause",
        }
    }

    /// The module's directory below `go/`, the sources in it that are our own, and the package to build.
    fn source(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Testcluster => ("", "testcluster", "./testcluster"),
            Self::Kubectl => ("", "", "k8s.io/kubernetes/cmd/kubectl"),
            Self::Helm => ("helm", "", "helm.sh/helm/v3/cmd/helm"),
            Self::Coredns => ("coredns", ".", "."),
            Self::Pause => ("", "pause", "./pause"),
        }
    }

    fn linker_flags(self) -> String {
        match self {
            Self::Testcluster | Self::Kubectl => {
                let package = "k8s.io/component-base/version";
                let mut parts = KUBERNETES_VERSION.split('.');
                let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
                format!(
                    "-s -w -X {package}.gitVersion=v{KUBERNETES_VERSION} -X {package}.gitMajor={major} \
                     -X {package}.gitMinor={minor}"
                )
            }
            Self::Helm | Self::Coredns | Self::Pause => "-s -w".to_owned(),
        }
    }

    fn first_build(self) -> &'static str {
        match self {
            Self::Testcluster => "about 7 minutes on two cores the first time on a machine",
            Self::Kubectl | Self::Helm | Self::Coredns => "about a minute the first time",
            Self::Pause => "seconds",
        }
    }
}

/// The cache of built programs.
#[derive(Clone, Debug)]
pub(crate) struct Tools {
    cache: PathBuf,
    source: PathBuf,
    /// What this process has asked for before; looking at the sources again would cost more than most uses.
    known: Arc<Mutex<BTreeMap<Tool, PathBuf>>>,
}

impl Tools {
    /// The cache of the user who runs this: `$PROCESSHUB_CACHE`, `$XDG_CACHE_HOME/processhub` or
    /// `~/.cache/processhub`.
    pub(crate) fn of_user() -> Self {
        let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let cache = from("PROCESSHUB_CACHE")
            .or_else(|| from("XDG_CACHE_HOME").map(|dir| dir.join("processhub")))
            .or_else(|| from("HOME").map(|dir| dir.join(".cache/processhub")))
            .unwrap_or_else(|| std::env::temp_dir().join("processhub"));
        Self { cache, source: Path::new(env!("CARGO_MANIFEST_DIR")).join("go"), known: Arc::default() }
    }

    /// Where files may be kept from one run to the next.
    pub(crate) fn cache(&self) -> &Path {
        &self.cache
    }

    /// The program's path; builds it when its source, or the compiler, is not the one of the cached build.
    pub(crate) fn provide(&self, which: Tool) -> Result<PathBuf> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(binary) = known.get(&which) {
            return Ok(binary.clone());
        }
        let binary = self.find_or_build(which)?;
        known.insert(which, binary.clone());
        Ok(binary)
    }

    fn find_or_build(&self, which: Tool) -> Result<PathBuf> {
        let binary = self.cache.join("bin").join(format!("{}-{}", which.name(), self.key(which)?));
        if binary.is_file() {
            return Ok(binary);
        }
        create_dir(&self.cache.join("bin"))?;
        let lock_path = self.cache.join("build.lock");
        let lock = File::create(&lock_path).map_err(file_error("create", &lock_path))?;
        lock.lock().map_err(file_error("lock", &lock_path))?;
        // Another run may have built it while this one waited for the lock.
        if !binary.is_file() {
            self.build(which, &binary)?;
        }
        Ok(binary)
    }

    fn build(&self, which: Tool, binary: &Path) -> Result<()> {
        progress(&format!("building {} ({})", which.name(), which.first_build()));
        let (module, _, package) = which.source();
        let unfinished = binary.with_extension("unfinished");
        let mut command = go(&self.source.join(module));
        command.args(["build", "-v", "-mod=readonly", "-ldflags", &which.linker_flags(), "-o"]);
        command.arg(&unfinished).arg(package);
        if which == Tool::Pause {
            command.env("CGO_ENABLED", "0");
        }
        run_aloud(&mut command)?;
        fs::rename(&unfinished, binary).map_err(file_error("rename", &unfinished))
    }

    fn key(&self, which: Tool) -> Result<String> {
        let (module, own, package) = which.source();
        let module = self.source.join(module);
        let mut files = vec![module.join("go.mod"), module.join("go.sum")];
        if !own.is_empty() {
            files.extend(go_files(&module.join(own))?);
        }
        let mut hash = Sha256::new();
        for part in [package, &which.linker_flags(), &run(go(&module).arg("version"))?] {
            hash.update(part);
            hash.update([0]);
        }
        for file in files {
            hash.update(fs::read(&file).map_err(file_error("read", &file))?);
            hash.update([0]);
        }
        Ok(hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
    }
}

fn go(module: &Path) -> Command {
    let mut command = tool("go");
    command.current_dir(module).env("GOWORK", "off");
    command
}

fn go_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).map_err(file_error("list", dir))?;
    let mut files: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "go"))
        .collect();
    files.sort();
    if files.is_empty() {
        let nothing = std::io::Error::new(std::io::ErrorKind::NotFound, "no Go files");
        return Err(Error::File { action: "list", path: dir.to_owned(), source: nothing });
    }
    Ok(files)
}

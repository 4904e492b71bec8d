//! Where a cluster keeps what it writes: all of it below one directory.

use std::path::{Path, PathBuf};

/// The files of one cluster.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    dir: PathBuf,
}

impl Layout {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// What a later command needs to know; its presence marks the directory as a cluster's.
    pub(crate) fn state(&self) -> PathBuf {
        self.dir.join("cluster.json")
    }

    pub(crate) fn certificates(&self) -> PathBuf {
        self.dir.join("certificates")
    }

    pub(crate) fn kubeconfig(&self, user: &str) -> PathBuf {
        self.dir.join("kubeconfig").join(format!("{user}.json"))
    }

    pub(crate) fn config(&self, file: &str) -> PathBuf {
        self.dir.join("config").join(file)
    }

    pub(crate) fn etcd(&self) -> PathBuf {
        self.dir.join("etcd")
    }

    pub(crate) fn audit_log(&self) -> PathBuf {
        self.dir.join("audit.log")
    }

    pub(crate) fn images(&self) -> PathBuf {
        self.dir.join("images")
    }

    /// One file per node that ever was; see [`crate::slots`].
    pub(crate) fn slots(&self) -> PathBuf {
        self.dir.join("slots")
    }

    pub(crate) fn nodes(&self) -> PathBuf {
        self.dir.join("nodes")
    }

    pub(crate) fn node(&self, name: &str) -> NodeLayout {
        NodeLayout { dir: self.nodes().join(name) }
    }

    /// Outlives the cluster, so that a failure can still be looked into.
    pub(crate) fn logs(&self) -> PathBuf {
        self.dir.join("log")
    }

    pub(crate) fn log(&self, part: &str) -> PathBuf {
        self.logs().join(format!("{}.log", part.replace('/', "-")))
    }
}

/// The files of one node: its disk.
#[derive(Clone, Debug)]
pub(crate) struct NodeLayout {
    dir: PathBuf,
}

impl NodeLayout {
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn containerd_root(&self) -> PathBuf {
        self.dir.join("containerd")
    }

    /// What containerd loses with its machine's power.
    pub(crate) fn containerd_state(&self) -> PathBuf {
        self.dir.join("state")
    }

    pub(crate) fn containerd_socket(&self) -> PathBuf {
        self.dir.join("containerd.sock")
    }

    pub(crate) fn containerd_config(&self) -> PathBuf {
        self.dir.join("containerd.toml")
    }

    pub(crate) fn cni_dir(&self) -> PathBuf {
        self.dir.join("cni")
    }

    pub(crate) fn ipam(&self) -> PathBuf {
        self.dir.join("ipam")
    }

    pub(crate) fn kubelet_config(&self) -> PathBuf {
        self.dir.join("kubelet.json")
    }

    pub(crate) fn kubelet_root(&self) -> PathBuf {
        self.dir.join("kubelet")
    }

    pub(crate) fn kubelet_certificates(&self) -> PathBuf {
        self.dir.join("kubelet-certificates")
    }

    pub(crate) fn pod_logs(&self) -> PathBuf {
        self.dir.join("pod-logs")
    }

    pub(crate) fn volume_plugins(&self) -> PathBuf {
        self.dir.join("volume-plugins")
    }

    pub(crate) fn proxy_config(&self) -> PathBuf {
        self.dir.join("proxy.json")
    }

    /// Created by the node's first process when it is up.
    pub(crate) fn ready(&self) -> PathBuf {
        self.dir.join("ready")
    }
}

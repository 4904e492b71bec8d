//! The kinds of clusters.

/// Which kind of cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum SiteKind {
    /// In memory, pods as local processes: needs nothing but Rust.
    Embedded,
    /// Real Kubernetes on this machine: needs Linux and root.
    Local,
    /// The cluster that KUBECONFIG names: needs kubectl, and images that it can pull.
    Kubeconfig,
}

impl SiteKind {
    /// Whether nodes may be started, drained and killed there: they are nobody else's.
    #[must_use]
    pub fn owns_nodes(self) -> bool {
        match self {
            Self::Embedded | Self::Local => true,
            Self::Kubeconfig => false,
        }
    }
}

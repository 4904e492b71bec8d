//! Names that are never confused with one another, and the epoch.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }
    };
}

identifier! {
    /// The UID of a `HubProcess` object. A new object of the same name is another process.
    ProcessUid
}
identifier! {
    /// The UID of a pod: with the epoch it was created with, one incarnation of a process.
    PodUid
}
identifier! {
    /// Minted by a sidecar's first boot and kept in its record. A pod that answers with another one has lost its
    /// volume, and with it every promise that the old one made.
    RecordId
}
identifier! {
    /// Random per start of a sidecar. A grant that answers a challenge of another boot is void.
    BootId
}
identifier! {
    /// Hexadecimal digest chained over all parts of a captured state.
    Digest
}

/// Counts changes of ownership of one process. Every command that changes ownership carries one that was never used
/// before, retries and aborts included. 0 stands for "none yet"; at most 2^53 - 1, so that it survives JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The next epoch.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The worker's own count of its changes of state, as it says it in a capture.
pub type Seq = u64;

/// What a captured state is known by: two captures with the same identity hold the same bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StateId {
    /// The worker's sequence number at the capture.
    pub seq: Seq,
    /// Digest over all parts.
    pub digest: Digest,
    /// Sum of the parts' lengths in bytes.
    pub bytes: u64,
}

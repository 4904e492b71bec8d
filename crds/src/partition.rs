//! Which side of a network that fell apart may take processes over.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::vocabulary::vocabulary;

/// Who may take over from nodes that do not answer, where `failover` is `OnLease`. Two owners are kept apart by leases; this
/// keeps a side that reaches few nodes from taking everything to these few.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PartitionTolerance {
    /// How it is judged whether enough members are reached.
    pub strategy: PartitionStrategy,
    /// `StaticQuorum`: how many nodes must be reached. `DynamicQuorum`: how many percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 5000))]
    pub quorum_size: Option<u32>,
    /// `DynamicQuorum`: for how long a node that was lost is counted.
    #[schemars(range(min = 1, max = 86_400))]
    pub threshold_seconds: u32,
    /// `MajorityQuorum`: how many members there are at least, also while fewer have joined.
    #[schemars(range(min = 1, max = 5000))]
    pub initial_cluster_size: u32,
    /// `MajorityQuorum`: whether a node counts as long as Kubernetes lists it; else only while it is Ready or its processes
    /// answer.
    pub track_max_size: bool,
}

impl Default for PartitionTolerance {
    fn default() -> Self {
        Self {
            strategy: PartitionStrategy::default(),
            quorum_size: None,
            threshold_seconds: 30,
            initial_cluster_size: 1,
            track_max_size: true,
        }
    }
}

vocabulary! {
    /// How it is judged whether enough members are reached.
    #[derive(Default)]
    PartitionStrategy {
        /// More than half of them.
        #[default]
        MajorityQuorum = "MajorityQuorum",
        /// At least `quorumSize` nodes.
        StaticQuorum = "StaticQuorum",
        /// At least `quorumSize` percent of those that are reached or were lost within the last `thresholdSeconds`.
        DynamicQuorum = "DynamicQuorum",
        /// Both sides run on. Not available in this version.
        Divergence = "Divergence",
    }
}

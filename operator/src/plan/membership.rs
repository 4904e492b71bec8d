//! Which nodes a hub may use, and why not the others.

use std::collections::BTreeMap;
use std::fmt;

use super::affinity;
use super::inputs::{Hub, Match, Node, Taint, TaintEffect, Toleration};

/// What a hub can do with a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fitness {
    /// It may be a target.
    Fit,
    /// Cordoned: nothing new is started there; what runs there stays until its pod is asked to go.
    Cordoned,
    /// It has a taint of this key that the template does not tolerate; otherwise as cordoned.
    Tainted(String),
    /// Not ready, or cut off: never a target; what runs there may still serve and is left alone until proven dead.
    NotReady,
    /// It can hold no pods at all.
    NoPods,
    /// It is being deleted: what runs there has to leave.
    Deleting,
    /// It lacks this label of the hub's node selector: not a member, what runs there has to leave.
    NotSelected(String),
    /// It does not meet this requirement of the template's node affinity: no pod of the hub is ever scheduled there.
    NotMatched(String),
}

impl Fitness {
    /// Whether the node may be a target.
    #[must_use]
    pub fn is_fit(&self) -> bool {
        *self == Self::Fit
    }

    /// Whether a process that is there stays there although nothing new may come.
    #[must_use]
    pub fn keeps(&self) -> bool {
        match self {
            Self::Cordoned | Self::Tainted(_) | Self::NotReady | Self::NoPods => true,
            Self::Fit | Self::Deleting | Self::NotSelected(_) | Self::NotMatched(_) => false,
        }
    }

    /// Whether the node got lost, as opposed to having been taken out by somebody.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        match self {
            Self::NotReady => true,
            Self::Fit
            | Self::Cordoned
            | Self::Tainted(_)
            | Self::NoPods
            | Self::Deleting
            | Self::NotSelected(_)
            | Self::NotMatched(_) => false,
        }
    }
}

impl fmt::Display for Fitness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fit => f.write_str("fit"),
            Self::Cordoned => f.write_str("cordoned"),
            Self::Tainted(key) => write!(f, "taint {key} is not tolerated"),
            Self::NotReady => f.write_str("not ready"),
            Self::NoPods => f.write_str("no room for pods"),
            Self::Deleting => f.write_str("being deleted"),
            Self::NotSelected(label) => write!(f, "label {label} is not as selected"),
            Self::NotMatched(requirement) => {
                write!(f, "the template's node affinity is not met: {requirement}")
            }
        }
    }
}

/// Judges every node of the cluster.
#[must_use]
pub fn membership(hub: &Hub, nodes: &BTreeMap<String, Node>) -> BTreeMap<String, Fitness> {
    nodes.iter().map(|(name, node)| (name.clone(), fitness(hub, name, node))).collect()
}

/// The gravest reason first: what forces processes out stands above what keeps new ones away.
fn fitness(hub: &Hub, name: &str, node: &Node) -> Fitness {
    let unselected = hub.node_selector.iter().find(|(key, value)| node.labels.get(key) != Some(value));
    if let Some((key, _)) = unselected {
        return Fitness::NotSelected(key.clone());
    }
    let terms = hub.affinity.as_deref().unwrap_or_default();
    if let Some(requirement) = affinity::unmet(terms, name, &node.labels) {
        return Fitness::NotMatched(requirement.to_string());
    }
    if node.deleting {
        return Fitness::Deleting;
    }
    if !node.ready {
        return Fitness::NotReady;
    }
    if node.unschedulable {
        return Fitness::Cordoned;
    }
    if let Some(taint) = node.taints.iter().find(|taint| repels(hub, taint)) {
        return Fitness::Tainted(taint.key.clone());
    }
    if node.pods == Some(0) {
        return Fitness::NoPods;
    }
    Fitness::Fit
}

fn repels(hub: &Hub, taint: &Taint) -> bool {
    match taint.effect {
        TaintEffect::PreferNoSchedule => false,
        TaintEffect::NoSchedule | TaintEffect::NoExecute => {
            !hub.tolerations.iter().any(|toleration| tolerates(toleration, taint))
        }
    }
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.is_none_or(|effect| effect == taint.effect);
    let key = match &toleration.key {
        Some(key) => *key == taint.key,
        None => toleration.matches == Match::Exists,
    };
    let value = match &toleration.matches {
        Match::Exists => true,
        Match::Equal(value) => *value == taint.value,
    };
    effect && key && value
}

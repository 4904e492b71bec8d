//! Proof of death: when an incarnation certainly runs no more, and never will again. Pure.
//!
//! Without clocks: a process serves as long as it runs, whatever the control plane does. That a pod's object is gone
//! proves nothing by itself, because a kubelet that is cut off runs on; nor does a node that does not answer.

use std::time::Duration;

use processhub_protocol::id::PodUid;

use super::incarnation::PodFacts;

/// How much longer than the pod's grace period a kubelet is given to end a pod that the API server no longer lists.
pub const KUBELET_RESERVE: Duration = Duration::from_secs(30);

/// What is known of one incarnation.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// The incarnation.
    pub pod: &'a PodUid,
    /// Its pod's object; `None` if a live read did not find it.
    pub facts: Option<&'a PodFacts>,
    /// Its node.
    pub node: NodeEvidence,
    /// Value of the annotation `processhub.io/confirmed-dead`.
    pub confirmed: Option<&'a str>,
    /// What was seen since its object is gone.
    pub gone: Option<GoneEvidence>,
}

/// What is known of the node that an incarnation was bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeEvidence {
    /// It was bound to none, or its node could not be read.
    Unknown,
    /// Its Node object is there, without or with the taint `node.kubernetes.io/out-of-service`.
    Present {
        /// Whether it has the taint.
        out_of_service: bool,
    },
    /// A live read did not find its Node object.
    Deleted,
}

/// What was seen since a pod's object is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GoneEvidence {
    /// For how long it is gone, by this operator's own observation.
    pub for_: Duration,
    /// The pod's grace period.
    pub grace: Duration,
    /// Whether, before that, its kubelet was seen to report that every container has ended.
    pub ended: bool,
    /// Whether the node's kubelet was seen to renew its Lease after grace and reserve had passed: it works, and has
    /// had the time to end what is not listed any more.
    pub renewed: bool,
}

impl GoneEvidence {
    /// Whether the kubelet has had the time that it needs.
    #[must_use]
    pub fn waited(&self) -> bool {
        self.for_ >= self.grace + KUBELET_RESERVE
    }
}

/// Why an incarnation is certainly dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Its kubelet reported every container ended.
    ContainersEnded,
    /// Somebody vouches with the taint that its node is down.
    OutOfService,
    /// Its Node was deleted: somebody's statement that the machine is gone.
    NodeDeleted,
    /// Somebody vouches for it by name.
    ConfirmedDead,
    /// Its object is gone, and its kubelet has worked for long enough since.
    KubeletWorkedSince,
}

impl Proof {
    /// For people.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::ContainersEnded => "its kubelet reported every container ended",
            Self::OutOfService => "its node has the out-of-service taint",
            Self::NodeDeleted => "its Node was deleted",
            Self::ConfirmedDead => "a person confirmed it",
            Self::KubeletWorkedSince => "its pod is gone and its kubelet has worked for long enough since",
        }
    }
}

/// The proof, if there is one.
#[must_use]
pub fn prove(evidence: &Evidence<'_>) -> Option<Proof> {
    if evidence.confirmed == Some(evidence.pod.0.as_str()) {
        return Some(Proof::ConfirmedDead);
    }
    match evidence.node {
        NodeEvidence::Present { out_of_service: true } => return Some(Proof::OutOfService),
        NodeEvidence::Deleted => return Some(Proof::NodeDeleted),
        NodeEvidence::Unknown | NodeEvidence::Present { out_of_service: false } => {}
    }
    match (evidence.facts, evidence.gone) {
        (Some(facts), _) => facts.ended.then_some(Proof::ContainersEnded),
        (None, Some(gone)) if gone.ended => Some(Proof::ContainersEnded),
        (None, Some(gone)) => (gone.waited() && gone.renewed).then_some(Proof::KubeletWorkedSince),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::incarnation::tests::pod;
    use serde_json::{Value, json};

    const NODE: NodeEvidence = NodeEvidence::Present { out_of_service: false };

    fn with(status: Value, node: NodeEvidence, confirmed: Option<&str>) -> Option<Proof> {
        let facts = PodFacts::of(&pod(status)).unwrap();
        prove(&Evidence { pod: &facts.uid, facts: Some(&facts), node, confirmed, gone: None })
    }

    fn gone(seconds: u64, renewed: bool) -> Option<Proof> {
        gone_and(false, seconds, renewed)
    }

    fn gone_and(ended: bool, seconds: u64, renewed: bool) -> Option<Proof> {
        let (for_, grace) = (Duration::from_secs(seconds), Duration::from_secs(80));
        let gone = GoneEvidence { for_, grace, ended, renewed };
        prove(&Evidence { pod: &"pod-18".into(), facts: None, node: NODE, confirmed: None, gone: Some(gone) })
    }

    #[test]
    fn nothing_is_proven_of_a_pod_that_runs_or_does_not_answer() {
        assert_eq!(with(json!({ "phase": "Running" }), NODE, None), None);
        assert_eq!(with(json!({ "phase": "Unknown" }), NodeEvidence::Unknown, None), None);
        // What the pod garbage collector and the taint manager write.
        assert_eq!(with(json!({ "phase": "Failed" }), NODE, None), None);
    }

    #[test]
    fn containers_that_the_kubelet_reported_ended_are_a_proof() {
        let ended = json!({ "phase": "Failed", "containerStatuses": [{ "name": "worker", "image": "",
            "imageID": "", "ready": false, "restartCount": 0, "state": { "terminated": { "exitCode": 1 } } }] });
        assert_eq!(with(ended, NODE, None), Some(Proof::ContainersEnded));
    }

    #[test]
    fn a_statement_about_the_node_is_a_proof() {
        let tainted = NodeEvidence::Present { out_of_service: true };
        assert_eq!(with(json!({}), tainted, None), Some(Proof::OutOfService));
        assert_eq!(with(json!({}), NodeEvidence::Deleted, None), Some(Proof::NodeDeleted));
    }

    #[test]
    fn a_person_confirms_one_incarnation_and_no_other() {
        assert_eq!(with(json!({}), NODE, Some("pod-18")), Some(Proof::ConfirmedDead));
        assert_eq!(with(json!({}), NODE, Some("pod-17")), None);
        assert_eq!(with(json!({}), NODE, Some("true")), None);
    }

    #[test]
    fn a_pod_that_is_gone_is_dead_only_after_its_kubelet_has_worked_long_enough() {
        assert_eq!(gone(0, false), None);
        assert_eq!(gone(109, true), None, "renewed too early: grace 80 and reserve 30 have not passed");
        assert_eq!(gone(1_000_000, false), None, "a kubelet that is cut off runs its pods on");
        assert_eq!(gone(110, true), Some(Proof::KubeletWorkedSince));
    }

    #[test]
    fn a_pod_that_is_gone_and_had_ended_before_is_dead_at_once() {
        assert_eq!(gone_and(true, 0, false), Some(Proof::ContainersEnded));
    }
}

use std::collections::BTreeMap;
use std::sync::Arc;

use processhub_crds::HubProcess;
use serde_json::{Value, json};

use super::*;
use crate::assignments::{FailedMove, OwnerState, ProcessFacts};
use crate::hub::observe::Seen;
use crate::plan::fixture::{self, Populate};
use crate::plan::{Inputs, plan};

/// A hub with its processes, and what its status says.
struct Scene {
    hub: ProcessHub,
    objects: BTreeMap<String, Arc<HubProcess>>,
    inputs: Inputs,
    refused: Option<(HubReason, &'static str)>,
}

fn scene(replicas: u32) -> Scene {
    let hub: ProcessHub = serde_json::from_value(json!({
        "apiVersion": "processhub.io/v1alpha1", "kind": "ProcessHub",
        "metadata": { "name": "cart", "namespace": "shop", "uid": "hub-1", "generation": 4 },
        "spec": { "replicas": replicas,
                  "template": { "spec": { "containers": [{ "name": "worker", "image": "cart:1" }] } } },
    }))
    .unwrap();
    let inputs = fixture::inputs(replicas, &["n1", "n2"]);
    Scene { hub, objects: BTreeMap::new(), inputs, refused: None }
}

impl Scene {
    fn process(&mut self, name: &str, node: &str, status: Value) -> &mut ProcessFacts {
        let object: HubProcess = serde_json::from_value(json!({
            "apiVersion": "processhub.io/v1alpha1", "kind": "HubProcess",
            "metadata": { "name": name, "namespace": "shop", "uid": name }, "spec": { "hubName": "cart" },
            "status": status,
        }))
        .unwrap();
        self.objects.insert(name.to_owned(), Arc::new(object));
        self.inputs.serving(name, node)
    }

    fn serving(&mut self, name: &str, node: &str) -> &mut ProcessFacts {
        self.process(name, node, ready("True", "Serving"))
    }

    fn status(&self) -> ProcessHubStatus {
        let mut verdict = Verdict::accepted_for_tests(&self.hub);
        if let Some((reason, message)) = self.refused {
            (verdict.hub, verdict.reason, verdict.message) = (None, reason, message.to_owned());
        }
        let (_, report) = plan(&self.inputs);
        let seen = Seen { inputs: self.inputs.clone(), objects: self.objects.clone() };
        let sources = Sources { hub: &self.hub, seen: &seen, verdict: &verdict, report: &report };
        status(&sources, Timestamp::UNIX_EPOCH)
    }

    /// `type=status reason` of each condition.
    fn conditions(&self) -> Vec<String> {
        let status = self.status();
        status.conditions.iter().map(|it| format!("{}={} {}", it.type_, it.status, it.reason)).collect()
    }
}

fn ready(status: &str, reason: &str) -> Value {
    json!({
        "epoch": 1,
        "owner": { "pod": "p", "uid": "u", "recordId": "r", "node": "n1", "ip": "", "epoch": 1 },
        "conditions": [{ "type": "Ready", "status": status, "reason": reason, "message": "",
                         "lastTransitionTime": "2026-01-01T00:00:00Z" }],
    })
}

#[test]
fn a_hub_at_rest_says_so_in_every_condition() {
    let mut scene = scene(2);
    scene.serving("cart-0", "n1");
    scene.serving("cart-1", "n2");
    let status = scene.status();
    assert_eq!((status.desired, status.ready, status.moving, status.replicas), (2, 2, 0, 2));
    assert_eq!(status.selector, "processhub.io/hub=cart");
    assert_eq!((status.members.count, status.observed_generation), (2, Some(4)));
    assert_eq!(
        scene.conditions(),
        [
            "Accepted=True Valid",
            "Ready=True Serving",
            "Progressing=False Settled",
            "Rebalanced=True Settled",
            "Degraded=False AsExpected",
        ]
    );
}

#[test]
fn a_new_hub_starts_its_processes_and_one_without_nodes_says_why_it_cannot() {
    let mut scene = scene(2);
    assert_eq!(scene.conditions()[1..3], ["Ready=False Starting", "Progressing=True Scaling"]);
    scene.inputs.nodes.get_mut("n1").unwrap().unschedulable = true;
    scene.inputs.nodes.get_mut("n2").unwrap().ready = false;
    assert_eq!(scene.conditions()[1], "Ready=False no_target_nodes");
    let message = &scene.status().conditions[1].message;
    assert!(message.contains("n1 (cordoned), n2 (not ready)"), "{message}");
}

#[test]
fn a_process_that_no_node_can_take_is_not_said_to_be_under_way() {
    let mut scene = scene(1);
    scene.serving("cart-0", "n1");
    let facts = scene.process("guest", "", json!({}));
    (facts.owner, facts.node) = (OwnerState::None, None);
    let process = scene.inputs.processes.get_mut("guest").unwrap();
    (process.managed, process.child.pin) = (false, Some("n9".into()));
    assert_eq!(
        scene.conditions()[1..4],
        ["Ready=False Starting", "Progressing=False Settled", "Rebalanced=False no_target_nodes"]
    );
    let status = scene.status();
    assert!(status.conditions[1].message.ends_with("no node for guest"), "{}", status.conditions[1].message);
}

#[test]
fn a_process_that_does_not_serve_is_named() {
    let mut scene = scene(2);
    scene.serving("cart-0", "n1");
    scene.process("cart-1", "n2", ready("Unknown", "OwnerUnreachable")).owner = OwnerState::Unreachable;
    let conditions = scene.conditions();
    assert_eq!(conditions[1], "Ready=False ProcessesNotReady");
    assert_eq!(conditions[4], "Degraded=True OwnerUnreachable");
    let status = scene.status();
    assert!(status.conditions.iter().filter(|it| it.message.contains("cart-1")).count() == 2);
}

#[test]
fn an_unbalanced_hub_says_what_its_moves_wait_for() {
    let mut scene = scene(6);
    for i in 0..6 {
        scene.serving(&format!("cart-{i}"), "n1");
    }
    assert_eq!(scene.conditions()[2..4], ["Progressing=True Rebalancing", "Rebalanced=False LimitReached"]);
    scene.inputs.hub.paused = true;
    assert_eq!(scene.conditions()[2..4], ["Progressing=False Paused", "Rebalanced=False Paused"]);
}

#[test]
fn what_needs_a_person_is_told_the_gravest_first() {
    let mut scene = scene(1);
    scene.inputs.hub.handover = processhub_protocol::handover::Handover::Never;
    scene.serving("cart-0", "n1");
    assert_eq!(scene.conditions()[4], "Degraded=False HandoverDisabled");
    scene.serving("cart-0", "n1").failed =
        Some(FailedMove { to: "n2".into(), reason: None, at: Timestamp::UNIX_EPOCH, times: 3 });
    assert_eq!(scene.conditions()[4], "Degraded=True MigrationsFailing");
    scene.inputs.hub.replicas = 2;
    scene.inputs.taken = [("cart-1".to_owned(), "other".to_owned())].into();
    assert_eq!(scene.conditions()[4], "Degraded=True already_started");
    let mut lost = ready("True", "Serving");
    lost["mayMiss"] = json!({ "from": 7, "reason": "NodeLost", "time": "2026-01-01T00:00:00Z" });
    scene.process("cart-0", "n1", lost);
    assert_eq!(scene.conditions()[4], "Degraded=True StateLost");
}

#[test]
fn a_refused_hub_says_why_and_keeps_its_processes() {
    let mut scene = scene(2);
    scene.serving("cart-0", "n1");
    scene.inputs.hub.accepted = false;
    scene.refused =
        Some((HubReason::HandoverWithReplicationNotSupported, "handover_with_replication_not_supported"));
    let status = scene.status();
    assert_eq!(scene.conditions()[0], "Accepted=False HandoverWithReplicationNotSupported");
    assert_eq!((status.desired, status.ready), (2, 1));
}

#[test]
fn a_status_that_says_the_same_is_the_same() {
    let mut scene = scene(1);
    scene.serving("cart-0", "n1");
    let first = scene.status();
    scene.hub.status = Some(first.clone());
    assert_eq!(scene.status(), first, "nothing to write in a steady state");
}

#[test]
fn workers_of_another_contract_are_named_with_the_remedy() {
    let mut scene = scene(1);
    let capable = json!({ "type": "HandoverCapable", "status": "False", "reason": "ContractVersion", "message": "",
                          "lastTransitionTime": "2026-01-01T00:00:00Z" });
    scene.process("cart-0", "n1", json!({ "epoch": 1, "conditions": [capable] }));
    let status = scene.status();
    let degraded = conditions::get(&status.conditions, "Degraded").unwrap();
    assert_eq!((degraded.status.as_str(), degraded.reason.as_str()), ("True", "ContractVersion"));
    assert!(degraded.message.contains("cart-0") && degraded.message.contains("SDK"), "{}", degraded.message);
}

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
        let seen =
            Seen { inputs: self.inputs.clone(), objects: self.objects.clone(), arriving: BTreeMap::new() };
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
fn a_hub_by_lease_says_whether_it_could_take_over() {
    let mut scene = scene(2);
    scene.inputs.hub.on_lease = true;
    scene.serving("cart-0", "n1");
    scene.serving("cart-1", "n2").owner = OwnerState::Unreachable;
    assert_eq!(scene.conditions()[5], "QuorumAvailable=False QuorumLost");
    let message = &scene.status().conditions[5].message;
    assert!(message.contains("1 members are reached, 2 are needed; not reached: n2"), "{message}");
    scene.inputs.facts("cart-1").owner = OwnerState::Serving;
    assert_eq!(scene.conditions()[5], "QuorumAvailable=True QuorumReached");
    scene.hub.status = Some(scene.status());
    scene.inputs.hub.on_lease = false;
    assert_eq!(scene.conditions()[5], "QuorumAvailable=True QuorumNotNeeded");
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

/// Three processes of which one runs the hub's new code.
fn rolling() -> Scene {
    let mut scene = scene(3);
    let code =
        |name: &str, label: &str| crate::plan::Code { name: name.into(), label: label.into(), usable: true };
    scene.inputs.hub.upgrade = crate::plan::Upgrade {
        present: "new".into(),
        codes: vec![code("old", "1.8"), code("new", "1.9")],
        cold: false,
        max_concurrent: 1,
        partition: 0,
    };
    for (name, node, revision) in [("cart-0", "n1", "old"), ("cart-1", "n2", "old"), ("cart-2", "n1", "new")]
    {
        scene.serving(name, node).code.revision = revision.into();
    }
    scene
}

fn progress(scene: &Scene) -> (String, String) {
    let status = scene.status();
    let said = conditions::get(&status.conditions, "Progressing").unwrap();
    (said.reason.clone(), said.message.clone())
}

#[test]
fn a_roll_out_says_who_runs_what() {
    let mut scene = rolling();
    assert_eq!(scene.status().upgraded, 1);
    let (reason, message) = progress(&scene);
    assert_eq!(reason, "Upgrading");
    assert!(message.starts_with("1 run 1.9, 2 run 1.8; 0 change"), "{message}");
    scene.inputs.hub.paused = true;
    assert_eq!(progress(&scene).0, "Paused");
    scene.inputs.hub.paused = false;
    scene.inputs.hub.upgrade.partition = 2;
    let (reason, message) = progress(&scene);
    assert_eq!(reason, "UpgradePartitioned");
    assert!(message.contains("spec.upgrade.partition"), "{message}");
}

#[test]
fn a_roll_out_that_has_stopped_says_why_who_serves_and_what_to_do() {
    let mut scene = rolling();
    let failed = crate::assignments::FailedUpgrade {
        revision: "new".into(),
        message: "(1.8->1.9): 422 unknown key money".into(),
    };
    scene.inputs.facts("cart-1").code.failed = Some(failed);
    let (reason, message) = progress(&scene);
    assert_eq!(reason, "UpgradeFailed");
    let words = "cart-1 (1.8->1.9): 422 unknown key money. 1 run 1.9, 2 run 1.8, all serve; stopped.";
    assert!(message.starts_with(words), "{message}");
    assert!(
        scene.conditions().contains(&"Degraded=True UpgradeFailed".to_owned()),
        "{:?}",
        scene.conditions()
    );
}

#[test]
fn the_codes_that_processes_run_keep_their_templates() {
    let mut scene = scene(1);
    scene.serving("cart-0", "n1");
    let first = scene.status().revisions;
    assert_eq!((first.len(), first[0].number, first[0].template.is_some()), (1, 1, true));
    scene.hub.status.get_or_insert_default().revisions = first;
    for vsn in ["2", "3", "4"] {
        scene.hub.spec.vsn = vsn.into();
        let next = scene.status().revisions;
        scene.hub.status.get_or_insert_default().revisions = next;
    }
    let kept: Vec<bool> =
        scene.status().revisions.iter().map(|revision| revision.template.is_some()).collect();
    // The owner was started before codes had names: it runs the first. 2 is run by nobody, 3 was the last before 4.
    assert_eq!(kept, [true, false, true, true]);
    scene.refused = Some((HubReason::TemplateInvalid, "no"));
    scene.hub.spec.vsn = "5".into();
    assert_eq!(scene.status().revisions.len(), 4, "code that cannot be used is not written down");
}

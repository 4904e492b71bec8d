//! A cluster in which plans are carried out at once and moves go the way that moves go.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use processhub_crds::MigrationTrigger;
use processhub_crds::vocabulary::{MoveReason, ProcessReason};
use processhub_operator::assignments::{
    FailedMove, FailedUpgrade, Moving, MovingPhase, OwnerState, ProcessFacts,
};
use processhub_operator::plan::{Child, Hub, Inputs, Node, Plan, Process, Report, lint, plan};
use processhub_protocol::id::Epoch;
use processhub_protocol::ledger::Kind;

use crate::fixture;

/// How long one step of a move takes.
const STEP: SignedDuration = SignedDuration::from_millis(100);
/// How long a pod that is asked to go has.
const GRACE: SignedDuration = SignedDuration::from_secs(60);

pub struct World {
    pub inputs: Inputs,
    /// Moves that ended well since the last look; first starts and recoveries are not among them.
    pub moved: usize,
    /// The nodes at which a process's next moves fail, or the code that it refuses.
    pub refusing: BTreeMap<String, String>,
    /// Most moves that were under way at once.
    pub busiest: usize,
    /// The processes whose last move began because their pod is killed at a deadline.
    hurried: BTreeSet<String>,
    /// Every move that was begun for the balance between nodes that are there, with process, source and target.
    pub rebalanced: Vec<(String, String, String)>,
}

impl World {
    pub fn new(replicas: u32) -> Self {
        let hub = Hub { max_concurrent: 4, max_concurrent_per_node: 2, ..fixture::hub(replicas, &[]) };
        let inputs = Inputs { hub, ..fixture::inputs(replicas, &[]) };
        Self {
            inputs,
            moved: 0,
            refusing: BTreeMap::new(),
            busiest: 0,
            hurried: BTreeSet::new(),
            rebalanced: Vec::new(),
        }
    }

    pub fn add_node(&mut self, name: &str) {
        self.inputs.nodes.insert(name.to_owned(), Node { ready: true, ..Node::default() });
    }

    pub fn add_dynamic(&mut self, name: &str) {
        self.inputs.processes.entry(name.to_owned()).or_insert_with(|| fresh(name, false, Child::default()));
    }

    /// Takes a node out of the cluster: what ran there is proven dead.
    pub fn lose_node(&mut self, node: &str) {
        self.inputs.nodes.remove(node);
        for facts in self.facts() {
            if facts.node.as_deref() == Some(node) {
                facts.owner = OwnerState::Dead;
            }
        }
    }

    /// `kubectl drain`: cordons, and asks every pod there to go.
    pub fn drain(&mut self, node: &str) {
        if let Some(node) = self.inputs.nodes.get_mut(node) {
            node.unschedulable = true;
        }
        let names: Vec<String> = self.at(node);
        for name in names {
            self.delete_pod(&name);
        }
    }

    pub fn delete_pod(&mut self, process: &str) {
        let until = self.inputs.now + GRACE;
        if let Some(facts) = self.inputs.processes.get_mut(process).and_then(|it| it.facts.as_mut())
            && matches!(facts.owner, OwnerState::Serving | OwnerState::NotServing)
        {
            facts.owner = OwnerState::Leaving { until };
        }
    }

    /// Names of the processes whose owner is on this node.
    pub fn at(&self, node: &str) -> Vec<String> {
        let at = |process: &Process| process.owner_node() == Some(node);
        self.inputs
            .processes
            .iter()
            .filter(|(_, process)| at(process))
            .map(|(name, _)| name.clone())
            .collect()
    }

    fn facts(&mut self) -> impl Iterator<Item = &mut ProcessFacts> {
        self.inputs.processes.values_mut().filter_map(|process| process.facts.as_mut())
    }

    pub fn under_way(&self) -> usize {
        self.inputs.processes.values().filter_map(|it| it.facts.as_ref()?.moving.as_ref()).count()
    }

    /// Plans, checks the plan, and carries it out.
    pub fn plan(&mut self) -> (Plan, Report) {
        let (plan, report) = plan(&self.inputs);
        assert_eq!(lint(&self.inputs, &plan), [], "{report}");
        self.inputs.memory = plan.memory.clone();
        self.carry_out(&plan);
        let upgrade = &self.inputs.hub.upgrade;
        for facts in self.inputs.processes.values_mut().filter_map(|process| process.facts.as_mut()) {
            if upgrade.runs(facts) == upgrade.present {
                facts.code.failed = None;
            }
        }
        (plan, report)
    }

    fn carry_out(&mut self, plan: &Plan) {
        let processes = &mut self.inputs.processes;
        for (name, child) in &plan.children.create {
            processes.insert(name.clone(), fresh(name, true, child.clone()));
        }
        for (name, child) in &plan.children.update {
            if let Some(process) = processes.get_mut(name) {
                process.child = child.clone();
            }
        }
        for name in &plan.children.delete {
            processes.remove(name);
        }
        for (name, process) in processes {
            let Some(facts) = &mut process.facts else { continue };
            let assignment = plan.assignments.get(name).cloned().unwrap_or_default();
            let refused = assignment.held.as_ref().is_some_and(|held| {
                matches!(
                    held.reason,
                    ProcessReason::NotAMember | ProcessReason::NoTargetNodes | ProcessReason::Draining
                )
            });
            if refused || facts.moving.is_none() && facts.wish == facts.node {
                facts.wish = None;
            }
            if let Some(moving) = &mut facts.moving {
                if assignment.give_up.is_some() && moving.phase == MovingPhase::Prepared {
                    moving.phase = MovingPhase::Aborted;
                    facts.epoch = facts.epoch.next();
                }
                continue;
            }
            if let Some(go) = assignment.go.as_ref().filter(|go| go.epoch == facts.epoch) {
                let kind = match facts.owner {
                    OwnerState::None => Kind::Start,
                    OwnerState::Dead => Kind::Recover,
                    _ => go.kind,
                };
                facts.epoch = facts.epoch.next();
                let from = facts.node.as_ref().filter(|node| self.inputs.nodes.contains_key(*node));
                if let Some(from) = from.filter(|_| go.trigger == MigrationTrigger::Rebalance) {
                    self.rebalanced.push((name.clone(), from.clone(), go.node.clone()));
                }
                if matches!(facts.owner, OwnerState::Leaving { .. }) {
                    self.hurried.insert(name.clone());
                } else {
                    self.hurried.remove(name);
                }
                facts.moving = Some(Moving {
                    kind,
                    trigger: go.trigger,
                    from: facts.node.clone(),
                    to: go.node.clone(),
                    phase: MovingPhase::Prepared,
                    revision: go.revision.clone(),
                });
            }
        }
        self.busiest = self.busiest.max(self.under_way_at_once());
    }

    /// Moves that count against the limit of the hub.
    pub fn under_way_at_once(&self) -> usize {
        self.swaps().count()
    }

    /// Those of them that had to wait for it.
    pub fn limited_at_once(&self) -> usize {
        self.swaps().filter(|name| !self.hurried.contains(*name)).count()
    }

    fn swaps(&self) -> impl Iterator<Item = &String> {
        let moving = |process: &Process| process.facts.as_ref()?.moving.as_ref().map(|moving| moving.kind);
        let swaps = move |process: &Process| matches!(moving(process), Some(Kind::HotSwap | Kind::ColdSwap));
        self.inputs.processes.iter().filter(move |(_, process)| swaps(process)).map(|(name, _)| name)
    }

    /// Takes every move one step further.
    pub fn progress(&mut self) {
        let now = self.inputs.now + STEP;
        self.inputs.now = now;
        let nodes = &self.inputs.nodes;
        for (name, process) in &mut self.inputs.processes {
            let Some(facts) = &mut process.facts else { continue };
            if let OwnerState::Leaving { until } = facts.owner
                && until <= now
            {
                facts.owner = OwnerState::Dead;
            }
            let Some(mut moving) = facts.moving.take() else { continue };
            let up = nodes.get(&moving.to).is_some_and(|node| node.ready);
            let upgrade = moving.trigger == MigrationTrigger::Upgrade;
            let fails =
                !up || self.refusing.get(name) == Some(if upgrade { &moving.revision } else { &moving.to });
            let swap = matches!(moving.kind, Kind::HotSwap | Kind::ColdSwap);
            moving.phase = match moving.phase {
                MovingPhase::Prepared if fails && upgrade => {
                    let message = "422".to_owned();
                    facts.code.failed = Some(FailedUpgrade { revision: moving.revision.clone(), message });
                    facts.epoch = facts.epoch.next();
                    MovingPhase::Aborted
                }
                MovingPhase::Prepared if fails => {
                    let times = facts.failed.as_ref().map_or(0, |failed| failed.times) + 1;
                    let reason = if up { MoveReason::ImportRefused } else { MoveReason::TargetLost };
                    facts.failed =
                        Some(FailedMove { to: moving.to.clone(), reason: Some(reason), at: now, times });
                    facts.epoch = facts.epoch.next();
                    MovingPhase::Aborted
                }
                MovingPhase::Prepared if swap && facts.owner != OwnerState::Dead => MovingPhase::Frozen,
                MovingPhase::Prepared | MovingPhase::Frozen => {
                    facts.node = Some(moving.to.clone());
                    facts.code.revision.clone_from(&moving.revision);
                    facts.owner = OwnerState::Serving;
                    facts.settled_by_wish &= upgrade;
                    MovingPhase::Committed
                }
                MovingPhase::Committed => {
                    facts.failed = None;
                    facts.owner = if up { OwnerState::Serving } else { facts.owner };
                    facts.settled_by_wish =
                        moving.trigger == MigrationTrigger::Wish || upgrade && facts.settled_by_wish;
                    self.moved += usize::from(swap);
                    continue;
                }
                MovingPhase::Aborted => {
                    // A wish is one attempt.
                    if moving.trigger == MigrationTrigger::Wish {
                        facts.wish = None;
                    }
                    continue;
                }
            };
            facts.moving = Some(moving);
        }
    }

    /// Plans and waits until nothing is left to do. Returns the last report.
    pub fn settle(&mut self) -> Report {
        for _ in 0..3_000 {
            let wishes = self.facts().any(|facts| facts.wish.is_some());
            let (plan, report) = self.plan();
            if plan.is_empty() && self.under_way() == 0 && !wishes {
                match plan.wake {
                    None => {
                        let (again, reason) = self.plan();
                        assert!(
                            again.is_empty(),
                            "planning again changes something:\n{report}then\n{reason}"
                        );
                        return report;
                    }
                    Some(wake) => self.wait_until(wake),
                }
            }
            self.progress();
        }
        panic!("does not settle: {}", self.plan().1)
    }

    fn wait_until(&mut self, milliseconds: u64) {
        let at = Timestamp::from_millisecond(i64::try_from(milliseconds).unwrap()).unwrap();
        self.inputs.now = self.inputs.now.max(at);
    }
}

fn fresh(name: &str, managed: bool, child: Child) -> Process {
    let facts = ProcessFacts {
        epoch: Epoch(0),
        node: None,
        owner: OwnerState::None,
        ..fixture::facts(name, "nowhere")
    };
    Process { managed, child, facts: Some(facts), ..Process::default() }
}

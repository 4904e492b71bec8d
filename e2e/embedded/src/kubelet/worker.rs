//! One pod on its node: feeds the machine, does what it says, and reports.

use super::container::{Happening, Run};
use super::launch::Launch;
use super::machine::Machine;
use super::model::{BackOff, Effect, Input, Waiting};
use super::node::NodeContext;
use super::probe::attempt;
use super::spec::Pod;
use super::status::{self, Facts};
use crate::api::error::Reason;
use crate::api::object::{self, Key, text};
use crate::api::registry::{DeleteOptions, Part, WriteOptions};
use jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;

/// What the API server has of the pod.
#[derive(Clone, Debug)]
pub enum View {
    /// This.
    Present(Arc<Value>),
    /// Nothing any more: it was deleted by force, or with its node.
    Removed,
}

/// How a look at the API server about this pod ended.
enum Reported {
    Done,
    Gone,
    CutOff,
}

struct Worker {
    node: Arc<NodeContext>,
    key: Key,
    facts: Facts,
    pod: Arc<Value>,
    machine: Machine,
    runs: BTreeMap<usize, Run>,
    sender: UnboundedSender<Happening>,
    removed: bool,
    finished: bool,
    unreported: bool,
    directory: PathBuf,
}

/// Runs a pod at an address until it is gone.
pub async fn run(
    node: Arc<NodeContext>,
    pod: Arc<Value>,
    address: Ipv4Addr,
    mut views: watch::Receiver<View>,
) {
    let (sender, mut happenings) = unbounded_channel();
    let mut worker = Worker::new(node, pod, address, sender);
    worker.look(&views.borrow_and_update().clone());
    loop {
        let over = worker.settle();
        if over {
            break;
        }
        worker.wait(&mut views, &mut happenings).await;
    }
    worker.clean_up();
}

impl Worker {
    fn new(
        node: Arc<NodeContext>,
        pod: Arc<Value>,
        address: Ipv4Addr,
        sender: UnboundedSender<Happening>,
    ) -> Self {
        let uid = object::uid(&pod).to_owned();
        let back_off = BackOff {
            first: node.options.back_off,
            limit: node.options.back_off_limit,
            reset: node.options.back_off_reset,
        };
        let before = |name: &str| restarts(&pod, name);
        let machine = Machine::new(Pod::of(&pod), &before, back_off);
        let over = ["Succeeded", "Failed"].contains(&text(&pod, "/status/phase"));
        Self {
            key: Key::of(&pod),
            directory: node.directory.join("pods").join(&uid),
            facts: Facts { address, host: node.address, start: Timestamp::now(), uid },
            node,
            machine,
            pod,
            runs: BTreeMap::new(),
            sender,
            removed: false,
            finished: over,
            unreported: !over,
        }
    }

    /// Takes in what the API server has.
    fn look(&mut self, view: &View) {
        let now = Timestamp::now();
        let effects = match view {
            View::Removed => {
                self.removed = true;
                let grace = self.pod.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_u64);
                self.machine.terminate(Duration::from_secs(grace.unwrap_or(30)), now)
            }
            View::Present(pod) => {
                self.pod = pod.clone();
                self.unreported |= !self.finished;
                if self.finished {
                    return;
                }
                if object::deleting(pod) {
                    let grace = pod.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_u64);
                    self.machine.terminate(Duration::from_secs(grace.unwrap_or_default()), now)
                } else {
                    self.machine.update(Pod::of(pod), now)
                }
            }
        };
        self.perform(effects);
    }

    /// Does what is due and reports; true when the pod is over and gone.
    fn settle(&mut self) -> bool {
        if !self.finished {
            let effects = self.machine.tick(Timestamp::now());
            self.perform(effects);
        }
        if self.removed {
            return self.finished;
        }
        if self.unreported {
            match self.report() {
                Reported::Done => self.unreported = false,
                // Its removal is on the way.
                Reported::Gone => {
                    self.unreported = false;
                    return self.finished;
                }
                Reported::CutOff => return false,
            }
        }
        if self.finished && object::deleting(&self.pod) {
            return match self.remove() {
                Reported::Done | Reported::Gone => true,
                Reported::CutOff => {
                    self.unreported = true;
                    false
                }
            };
        }
        false
    }

    async fn wait(
        &mut self,
        views: &mut watch::Receiver<View>,
        happenings: &mut UnboundedReceiver<Happening>,
    ) {
        let now = Timestamp::now();
        let wake = if self.finished { None } else { self.machine.wake(now) };
        let timer = async {
            match wake {
                Some(at) => tokio::time::sleep(at.duration_since(now).unsigned_abs()).await,
                None => std::future::pending().await,
            }
        };
        let mut link = self.node.link.clone();
        let opened = async {
            match self.unreported {
                true => link.opened().await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = views.changed() => match changed {
                Ok(()) => {
                    let view = views.borrow_and_update().clone();
                    self.look(&view);
                }
                // The node's task is over, and this one is about to be aborted.
                Err(_) => std::future::pending().await,
            },
            Some(happening) = happenings.recv() => {
                self.unreported = true;
                match happening {
                    Happening::Did(container, run, input) => self.happened(container, run, input),
                    Happening::Launched(container, run, result) => self.launched(container, run, result),
                }
            }
            () = timer => {}
            () = opened => {}
        }
    }

    fn happened(&mut self, container: usize, run: u64, input: Input) {
        if matches!(input, Input::Exited(_)) && self.runs.get(&container).is_some_and(|r| r.number() == run) {
            self.drop_run(container);
        }
        let passed = input == Input::StartupPassed;
        let effects = self.machine.handle(container, run, input, Timestamp::now());
        if passed {
            self.probe(container, true);
        }
        self.perform(effects);
    }

    fn drop_run(&mut self, container: usize) {
        if let Some(run) = self.runs.remove(&container) {
            self.node.pids.forget(&self.key, &self.machine.containers[container].spec.name, run.pid());
        }
    }

    fn probe(&mut self, container: usize, started: bool) {
        let spec = &self.machine.containers[container].spec;
        let pace = self.node.options.probe_pace;
        if let Some(run) = self.runs.get_mut(&container) {
            run.probe(container, spec, started, pace, &self.sender);
        }
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            self.unreported = true;
            match effect {
                Effect::Start { container, run } => self.start(container, run),
                Effect::StopLiveness(container) => {
                    if let Some(run) = self.runs.get_mut(&container) {
                        run.stop_liveness();
                    }
                }
                Effect::Hook(container) => self.hook(container),
                Effect::Terminate(container) => {
                    if let Some(run) = self.runs.get(&container) {
                        run.terminate();
                    }
                }
                Effect::Kill(container) => {
                    if let Some(run) = self.runs.get(&container) {
                        run.kill();
                    }
                }
                Effect::Finished => self.finished = true,
            }
        }
    }

    fn hook(&mut self, container: usize) {
        let Some(run) = self.runs.get(&container) else { return };
        let Some(action) = self.machine.containers[container].spec.pre_stop.clone() else { return };
        let (target, sender, number) = (run.target().clone(), self.sender.clone(), run.number());
        // It ends by itself when the container it calls is gone, and the pod's task does not wait for it.
        tokio::spawn(async move {
            if let Err(error) = attempt(&action, &target).await {
                tracing::debug!(%error, "a preStop hook failed");
            }
            let _ = sender.send(Happening::Did(container, number, Input::HookDone));
        });
    }

    fn start(&self, container: usize, number: u64) {
        let c = &self.machine.containers[container];
        let launch = Launch {
            node: self.node.clone(),
            key: self.key.clone(),
            pod: self.pod.clone(),
            address: self.facts.address,
            directory: self.directory.clone(),
            spec: c.spec.clone(),
            restarts: c.restarts,
            number,
        };
        let sender = self.sender.clone();
        // If the worker is gone when it is done, the run is dropped with the message, which ends it.
        tokio::spawn(async move {
            let result = launch.go().await.map(Box::new);
            let _ = sender.send(Happening::Launched(container, number, result));
        });
    }

    fn launched(&mut self, container: usize, number: u64, result: Result<Box<Run>, Waiting>) {
        let input = match result {
            Ok(mut run) => {
                let name = &self.machine.containers[container].spec.name;
                self.node.pids.remember(&self.key, name, run.pid());
                run.attend(container, &self.sender);
                self.runs.insert(container, *run);
                Input::Started
            }
            Err(waiting) => Input::Refused(waiting),
        };
        let started = input == Input::Started;
        let effects = self.machine.handle(container, number, input, Timestamp::now());
        if started {
            let gated = self.machine.containers[container].spec.startup.is_some();
            self.probe(container, !gated);
        }
        self.perform(effects);
    }

    /// Writes the status if it differs from what the API server has.
    fn report(&self) -> Reported {
        let now = Timestamp::now();
        let result = self.node.link.call(|registry| {
            let kind = registry
                .catalog()
                .find("", "v1", "pods")
                .ok_or_else(crate::api::error::ApiError::unavailable)?;
            let pod = registry.get(&kind, &self.key)?;
            if object::uid(&pod) != self.facts.uid {
                return Ok(false);
            }
            let mut new = (*pod).clone();
            new["status"] = status::status(&self.machine, &self.facts, &pod, now);
            registry.replace(&kind, &self.key, Part::Status, new, &WriteOptions::trusted()).map(|_| true)
        });
        reported(result)
    }

    /// Removes the object of a pod that has ended.
    fn remove(&self) -> Reported {
        let options = DeleteOptions::now(&self.facts.uid);
        let result = self.node.link.call(|registry| {
            let kind = registry
                .catalog()
                .find("", "v1", "pods")
                .ok_or_else(crate::api::error::ApiError::unavailable)?;
            registry.delete(&kind, &self.key, &options).map(|_| true)
        });
        reported(result)
    }

    fn clean_up(&mut self) {
        self.runs.clear();
        // The logs are kept until the cluster ends.
        let _ = std::fs::remove_dir_all(self.directory.join("volumes"));
        let _ = std::fs::remove_dir_all(self.directory.join("containers"));
    }
}

fn reported(result: crate::api::error::Result<bool>) -> Reported {
    match result {
        Ok(true) => Reported::Done,
        Ok(false) => Reported::Gone,
        Err(error) => match error.reason {
            Reason::NotFound | Reason::Conflict => Reported::Gone,
            Reason::ServiceUnavailable => Reported::CutOff,
            _ => {
                tracing::warn!(%error, "a pod's status was refused");
                Reported::Done
            }
        },
    }
}

/// How often a container was started before this kubelet took the pod.
fn restarts(pod: &Value, name: &str) -> u32 {
    let statuses = ["/status/initContainerStatuses", "/status/containerStatuses"];
    let found = statuses.into_iter().flat_map(|p| object::list(pod, p)).find(|s| text(s, "/name") == name);
    found.map_or(0, |s| {
        let before = s["restartCount"].as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or_default();
        before + u32::from(!text(s, "/containerID").is_empty())
    })
}

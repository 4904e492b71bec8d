use super::*;
use serde_json::{Value, json};

const BACK_OFF: BackOff = BackOff {
    first: Duration::from_secs(10),
    limit: Duration::from_secs(300),
    reset: Duration::from_secs(600),
};

/// A machine with a clock that the test sets, and the effects as words.
struct Bench {
    machine: Machine,
    now: Timestamp,
}

impl Bench {
    fn new(pod: Value) -> Self {
        Self {
            machine: Machine::new(Pod::of(&pod), &|_| 0, BACK_OFF),
            now: Timestamp::from_second(1_800_000_000).unwrap(),
        }
    }

    fn words(&self, effects: Vec<Effect>) -> Vec<String> {
        let name = |i: usize| self.machine.containers[i].spec.name.as_str();
        effects
            .into_iter()
            .filter_map(|e| match e {
                Effect::Start { container, .. } => Some(format!("start {}", name(container))),
                Effect::StopLiveness(_) => None,
                Effect::Hook(i) => Some(format!("hook {}", name(i))),
                Effect::Terminate(i) => Some(format!("term {}", name(i))),
                Effect::Kill(i) => Some(format!("kill {}", name(i))),
                Effect::Finished => Some("finished".to_owned()),
            })
            .collect()
    }

    fn tick(&mut self, seconds: i64) -> Vec<String> {
        self.now += SignedDuration::from_secs(seconds);
        let effects = self.machine.tick(self.now);
        self.words(effects)
    }

    fn feed(&mut self, name: &str, input: Input) -> Vec<String> {
        let index = self.machine.containers.iter().position(|c| c.spec.name == name).unwrap();
        let run = self.machine.containers[index].run;
        let effects = self.machine.handle(index, run, input, self.now);
        self.words(effects)
    }

    fn end(&mut self, grace: u64) -> Vec<String> {
        let effects = self.machine.terminate(Duration::from_secs(grace), self.now);
        self.words(effects)
    }

    fn container(&self, name: &str) -> &Container {
        self.machine.containers.iter().find(|c| c.spec.name == name).unwrap()
    }
}

fn with_sidecar() -> Value {
    json!({"spec": {"terminationGracePeriodSeconds": 30,
        "initContainers": [{"name": "setup", "image": "i"},
            {"name": "sidecar", "image": "s", "restartPolicy": "Always",
             "startupProbe": {"tcpSocket": {"port": 1}}}],
        "containers": [{"name": "worker", "image": "w", "lifecycle": {"preStop": {"sleep": {"seconds": 1}}}}]}})
}

fn running() -> Bench {
    let mut bench = Bench::new(with_sidecar());
    bench.tick(0);
    bench.feed("setup", Input::Started);
    bench.feed("setup", Input::Exited(0));
    bench.feed("sidecar", Input::Started);
    bench.feed("sidecar", Input::StartupPassed);
    bench.feed("worker", Input::Started);
    bench
}

#[test]
fn init_containers_and_the_start_up_probe_of_a_sidecar_gate_what_comes_after() {
    let mut bench = Bench::new(with_sidecar());
    assert_eq!(bench.tick(0), ["start setup"]);
    assert!(bench.feed("setup", Input::Started).is_empty());
    assert_eq!(bench.feed("setup", Input::Exited(0)), ["start sidecar"]);
    assert!(bench.feed("sidecar", Input::Started).is_empty(), "the probe has not passed");
    assert_eq!(bench.feed("sidecar", Input::StartupPassed), ["start worker"]);
    assert!(bench.machine.initialized);
}

#[test]
fn the_gate_holds_only_the_first_start() {
    let mut bench = running();
    assert_eq!(bench.feed("sidecar", Input::Exited(1)), ["start sidecar"]);
    assert_eq!(bench.feed("worker", Input::Exited(1)), ["start worker"]);
}

#[test]
fn the_first_crash_restarts_at_once_and_the_next_ones_back_off() {
    let mut bench = running();
    assert_eq!(bench.feed("worker", Input::Exited(137)), ["start worker"]);
    bench.feed("worker", Input::Started);
    assert!(bench.feed("worker", Input::Exited(1)).is_empty());
    assert!(bench.container("worker").backing_off(bench.now));
    assert_eq!(bench.machine.wake(bench.now), Some(bench.now + SignedDuration::from_secs(10)));
    assert!(bench.tick(9).is_empty());
    assert_eq!(bench.tick(1), ["start worker"]);
    bench.feed("worker", Input::Started);
    assert!(bench.feed("worker", Input::Exited(1)).is_empty());
    assert!(bench.tick(19).is_empty());
    assert_eq!(bench.tick(1), ["start worker"]);
    assert_eq!(bench.container("worker").restarts, 3);
    assert_eq!(bench.container("worker").last.as_ref().unwrap().code, 1);
    bench.feed("worker", Input::Started);
    bench.tick(600);
    assert_eq!(bench.feed("worker", Input::Exited(1)), ["start worker"], "a long run ends the series");
}

#[test]
fn the_end_is_hook_worker_sidecar() {
    let mut bench = running();
    assert_eq!(bench.end(30), ["hook worker"]);
    assert_eq!(bench.feed("worker", Input::HookDone), ["term worker"]);
    assert_eq!(bench.feed("worker", Input::Exited(0)), ["term sidecar"]);
    assert_eq!(bench.feed("sidecar", Input::Exited(0)), ["finished"]);
    assert!(bench.tick(1000).is_empty());
    assert_eq!(bench.machine.wake(bench.now), None);
}

#[test]
fn a_sidecar_that_ends_while_the_pod_ends_is_not_started_again() {
    let mut bench = running();
    bench.end(30);
    assert!(bench.feed("sidecar", Input::Exited(0)).is_empty());
    assert_eq!(bench.feed("worker", Input::HookDone), ["term worker"]);
    assert_eq!(bench.feed("worker", Input::Exited(0)), ["finished"]);
}

#[test]
fn a_used_up_grace_tells_the_rest_and_kills_it_two_seconds_later() {
    let mut bench = running();
    bench.end(4);
    bench.feed("worker", Input::HookDone);
    assert!(bench.tick(3).is_empty());
    assert_eq!(bench.tick(1), ["term sidecar", "kill worker"]);
    assert!(bench.tick(1).is_empty());
    assert_eq!(bench.tick(1), ["kill sidecar"]);
}

#[test]
fn a_hook_that_uses_up_the_grace_is_cut_off() {
    let mut bench = running();
    bench.end(4);
    assert_eq!(bench.tick(4), ["term sidecar", "term worker"]);
    assert_eq!(bench.tick(2), ["kill sidecar", "kill worker"]);
    bench.feed("worker", Input::Exited(137));
    assert_eq!(bench.feed("sidecar", Input::Exited(137)), ["finished"]);
}

#[test]
fn an_unhealthy_container_is_stopped_with_its_hook_and_started_again() {
    let mut bench = running();
    assert_eq!(bench.feed("worker", Input::Unhealthy), ["hook worker"]);
    assert!(bench.feed("worker", Input::Unhealthy).is_empty());
    assert_eq!(bench.feed("worker", Input::HookDone), ["term worker"]);
    assert_eq!(bench.feed("worker", Input::Exited(143)), ["start worker"]);
}

#[test]
fn a_new_image_restarts_only_its_container_and_at_once() {
    let mut bench = running();
    let mut pod = with_sidecar();
    pod["spec"]["containers"][0]["image"] = "w:2".into();
    let effects = bench.machine.update(Pod::of(&pod), bench.now);
    assert_eq!(bench.words(effects), ["hook worker"]);
    bench.feed("worker", Input::HookDone);
    assert_eq!(bench.feed("worker", Input::Exited(0)), ["start worker"]);
    assert_eq!(bench.container("worker").spec.image, "w:2");
}

#[test]
fn a_start_that_is_refused_is_tried_again_later() {
    let mut bench = Bench::new(json!({"spec": {"containers": [{"name": "worker", "image": "none"}]}}));
    assert_eq!(bench.tick(0), ["start worker"]);
    let refused = Waiting { reason: "ErrImagePull", message: "no such image".into() };
    assert!(bench.feed("worker", Input::Refused(refused.clone())).is_empty());
    assert_eq!(bench.container("worker").state, State::Waiting(refused));
    assert!(bench.tick(9).is_empty());
    assert_eq!(bench.tick(1), ["start worker"]);
}

#[test]
fn what_is_said_of_an_earlier_run_is_ignored() {
    let mut bench = running();
    bench.feed("worker", Input::Exited(1));
    bench.feed("worker", Input::Started);
    let effects = bench.machine.handle(2, 1, Input::Exited(1), bench.now);
    assert!(effects.is_empty());
    assert!(matches!(bench.container("worker").state, State::Running { .. }));
}

#[test]
fn a_pod_whose_work_is_done_ends_its_sidecars() {
    let mut pod = with_sidecar();
    pod["spec"]["restartPolicy"] = "Never".into();
    let mut bench = Bench::new(pod);
    bench.tick(0);
    bench.feed("setup", Input::Started);
    bench.feed("setup", Input::Exited(0));
    bench.feed("sidecar", Input::Started);
    bench.feed("sidecar", Input::StartupPassed);
    bench.feed("worker", Input::Started);
    assert_eq!(bench.feed("worker", Input::Exited(0)), ["term sidecar"]);
    assert_eq!(bench.feed("sidecar", Input::Exited(0)), ["finished"]);
    assert!(bench.machine.over(bench.container("worker")));
}

#[test]
fn readiness_counts_only_after_the_start_up_probe() {
    let mut bench = Bench::new(json!({"spec": {"containers": [{"name": "worker", "image": "w",
        "startupProbe": {"tcpSocket": {"port": 1}}, "readinessProbe": {"tcpSocket": {"port": 1}}}]}}));
    bench.tick(0);
    bench.feed("worker", Input::Started);
    bench.feed("worker", Input::Ready(true));
    assert!(!bench.container("worker").ready);
    bench.feed("worker", Input::StartupPassed);
    assert!(!bench.container("worker").ready);
    bench.feed("worker", Input::Ready(true));
    assert!(bench.container("worker").ready);
}

//! What the kubelet does for one pod, as a state machine without I/O and without a clock.
//!
//! It is told what happened and answers what to do. Start order, restarts with back-off and the order of termination are
//! those that were measured on real kubelets.

use super::model::{BackOff, Container, Effect, Exit, Input, State, Stop, Waiting};
use super::spec::{Pod, Restart, Role};
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// After the grace period is used up, what is still there gets this long between SIGTERM and SIGKILL.
const LAST_GRACE: Duration = Duration::from_secs(2);
/// The longest wait before an image or a missing reference is tried again.
const RETRY_LIMIT: Duration = Duration::from_secs(300);

/// The pod's machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The containers, in starting order.
    pub containers: Vec<Container>,
    /// Whether initialisation is over; it is not repeated.
    pub initialized: bool,
    restart: Restart,
    grace: Duration,
    back_off: BackOff,
    terminating: Option<Timestamp>,
    finished: bool,
}

fn after(now: Timestamp, wait: Duration) -> Timestamp {
    now + SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX)
}

impl Machine {
    /// The machine of a pod of which nothing runs; `restarts` is how often each container was restarted before.
    pub fn new(pod: Pod, restarts: &dyn Fn(&str) -> u32, back_off: BackOff) -> Self {
        let containers = pod
            .containers
            .into_iter()
            .map(|spec| Container {
                restarts: restarts(&spec.name),
                state: State::Waiting(Waiting { reason: "PodInitializing", message: String::new() }),
                last: None,
                started: false,
                ready: false,
                run: 0,
                failures: 0,
                not_before: None,
                stop: None,
                kill_at: None,
                replaced: false,
                spec,
            })
            .collect();
        let (restart, grace) = (pod.restart, pod.grace);
        Self { containers, initialized: false, restart, grace, back_off, terminating: None, finished: false }
    }

    /// Whether the pod was told to end.
    pub fn terminating(&self) -> bool {
        self.terminating.is_some()
    }

    /// Whether a main container will not run again, if it has ended.
    pub fn over(&self, container: &Container) -> bool {
        match (&container.state, self.restart) {
            (State::Ended(_), Restart::Never) => true,
            (State::Ended(exit), Restart::OnFailure) => exit.code == 0,
            _ => false,
        }
    }

    /// Takes in what happened to run `run` of a container.
    pub fn handle(&mut self, container: usize, run: u64, input: Input, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        if let Some(c) = self.containers.get_mut(container).filter(|c| c.run == run) {
            match input {
                Input::Unhealthy if c.stop.is_none() => {
                    Self::stop(c, container, after(now, self.grace), &mut effects);
                }
                input => Self::note(c, input, now, &self.back_off),
            }
        }
        self.advance(now, &mut effects);
        effects
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.advance(now, &mut effects);
        effects
    }

    /// Begins the end of the pod, at most `grace` long. A second call changes nothing.
    pub fn terminate(&mut self, grace: Duration, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.terminating.is_none() {
            let deadline = after(now, grace);
            self.terminating = Some(deadline);
            for index in 0..self.containers.len() {
                effects.push(Effect::StopLiveness(index));
            }
        }
        self.advance(now, &mut effects);
        effects
    }

    /// Takes over new images: a running container with another one is stopped and started again.
    pub fn update(&mut self, pod: Pod, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        for (index, spec) in pod.containers.into_iter().enumerate() {
            let Some(c) = self.containers.get_mut(index) else { continue };
            if c.spec.image == spec.image {
                continue;
            }
            c.spec = spec;
            c.not_before = None;
            c.failures = 0;
            if c.alive() && c.stop.is_none() {
                c.replaced = true;
                Self::stop(c, index, after(now, self.grace), &mut effects);
            }
        }
        self.advance(now, &mut effects);
        effects
    }

    /// When time alone makes a difference next, after everything that was due at `now` was done.
    pub fn wake(&self, now: Timestamp) -> Option<Timestamp> {
        let stops = self.containers.iter().filter(|c| c.alive()).filter_map(|c| c.kill_at);
        let starts = self.containers.iter().filter(|c| !c.alive()).filter_map(|c| c.not_before);
        let next = match self.terminating {
            Some(deadline) => stops.chain([deadline]).filter(|t| *t > now).min(),
            None => stops.chain(starts).filter(|t| *t > now).min(),
        };
        next.filter(|_| !self.finished)
    }

    fn note(c: &mut Container, input: Input, now: Timestamp, back_off: &BackOff) {
        match input {
            Input::Started => {
                c.state = State::Running { since: now };
                c.started = c.spec.startup.is_none();
                c.ready = c.started && c.spec.readiness.is_none();
            }
            Input::Refused(waiting) => {
                c.failures += 1;
                c.not_before = Some(after(now, doubled(back_off.first, c.failures, RETRY_LIMIT)));
                c.state = State::Waiting(waiting);
            }
            Input::Exited(code) => {
                let started = match c.state {
                    State::Running { since } => since,
                    _ => now,
                };
                let exit = Exit { code, started, finished: now };
                c.started = false;
                c.ready = false;
                c.stop = None;
                c.kill_at = None;
                if !std::mem::take(&mut c.replaced) {
                    if now.duration_since(started).unsigned_abs() >= back_off.reset {
                        c.failures = 0;
                    }
                    c.failures += 1;
                    let wait = match c.failures {
                        1 => Duration::ZERO,
                        n => doubled(back_off.first, n - 1, back_off.limit),
                    };
                    c.not_before = Some(after(now, wait));
                }
                c.state = State::Ended(exit);
            }
            Input::StartupPassed => {
                c.started = true;
                c.ready = c.spec.readiness.is_none();
            }
            Input::Ready(ready) => c.ready = ready && c.started,
            // It is being stopped already.
            Input::Unhealthy => {}
            Input::HookDone => {
                if c.stop == Some(Stop::Hook) {
                    c.stop = Some(Stop::Hooked);
                }
            }
        }
    }

    fn stop(c: &mut Container, index: usize, kill_at: Timestamp, effects: &mut Vec<Effect>) {
        c.kill_at = Some(kill_at);
        if c.spec.pre_stop.is_some() {
            c.stop = Some(Stop::Hook);
            effects.push(Effect::Hook(index));
        } else {
            c.stop = Some(Stop::Hooked);
        }
    }

    fn advance(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        match self.terminating {
            Some(deadline) => self.wind_down(deadline, now, effects),
            None => {
                self.start_due(now, effects);
                self.end_with_the_main_ones(now, effects);
            }
        }
        self.push_stops(now, effects);
    }

    /// Starts what its order and its back-off allow.
    fn start_due(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        for index in 0..self.containers.len() {
            let c = &self.containers[index];
            if c.spec.role == Role::Main {
                self.initialized = true;
            }
            let wanted = match (&c.state, c.spec.role) {
                (State::Starting | State::Running { .. }, _) => false,
                (State::Waiting(_), Role::Init) => !self.initialized,
                (State::Waiting(_), _) => true,
                (State::Ended(_), Role::Sidecar) => true,
                (State::Ended(exit), Role::Init) => exit.code != 0 && self.restart != Restart::Never,
                (State::Ended(_), Role::Main) => !self.over(c),
            };
            if wanted && c.not_before.is_none_or(|t| t <= now) {
                effects.push(self.start(index));
            }
            if !self.initialized && !self.containers[index].passed() {
                return;
            }
        }
    }

    fn start(&mut self, index: usize) -> Effect {
        let c = &mut self.containers[index];
        if let State::Ended(exit) = &c.state {
            c.last = Some(exit.clone());
            c.restarts += 1;
        }
        c.state = State::Starting;
        c.run += 1;
        c.started = false;
        c.ready = false;
        Effect::Start { container: index, run: c.run }
    }

    /// A pod whose work is done, or whose initialisation failed for good, stops its sidecars.
    fn end_with_the_main_ones(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let failed_init = self.restart == Restart::Never
            && self.containers.iter().any(|c| {
                c.spec.role == Role::Init && matches!(&c.state, State::Ended(exit) if exit.code != 0)
            });
        let mut mains = self.containers.iter().filter(|c| c.spec.role == Role::Main);
        if failed_init || (self.initialized && mains.all(|c| self.over(c))) {
            effects.extend(self.terminate(self.grace, now));
        }
    }

    /// Main containers first; native sidecars after them, the last one first.
    fn wind_down(&mut self, deadline: Timestamp, now: Timestamp, effects: &mut Vec<Effect>) {
        let late = now >= deadline;
        let last = after(deadline, LAST_GRACE);
        for index in 0..self.containers.len() {
            let c = &mut self.containers[index];
            if c.alive() && c.stop.is_none() && c.state != State::Starting {
                let kill_at = if c.spec.role == Role::Sidecar { last } else { deadline };
                Self::stop(c, index, kill_at, effects);
            }
        }
        let mut before = self.containers.iter().any(|c| c.alive() && c.spec.role != Role::Sidecar);
        for index in (0..self.containers.len()).rev() {
            let c = &mut self.containers[index];
            if c.spec.role != Role::Sidecar || !c.alive() {
                continue;
            }
            let turn = !before || late;
            if turn && late && c.stop == Some(Stop::Hook) {
                c.stop = Some(Stop::Hooked);
            }
            if turn && c.stop == Some(Stop::Hooked) {
                c.stop = Some(Stop::Told);
                effects.push(Effect::Terminate(index));
            }
            before = true;
        }
        if !self.finished && !self.containers.iter().any(Container::alive) {
            self.finished = true;
            effects.push(Effect::Finished);
        }
    }

    /// SIGTERM to what is due, SIGKILL to what is overdue.
    fn push_stops(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let terminating = self.terminating.is_some();
        for (index, c) in self.containers.iter_mut().enumerate() {
            if !matches!(c.state, State::Running { .. }) {
                continue;
            }
            let waits_its_turn = terminating && c.spec.role == Role::Sidecar;
            if c.stop == Some(Stop::Hooked) && !waits_its_turn {
                c.stop = Some(Stop::Told);
                effects.push(Effect::Terminate(index));
            }
            if c.kill_at.is_some_and(|t| t <= now) {
                match c.stop {
                    // The hook has used up the grace: the container is told, and killed a little later.
                    Some(Stop::Hook) => {
                        c.stop = Some(Stop::Told);
                        c.kill_at = Some(after(now, LAST_GRACE));
                        effects.push(Effect::Terminate(index));
                    }
                    Some(Stop::Hooked | Stop::Told) => {
                        c.stop = Some(Stop::Killed);
                        c.kill_at = None;
                        effects.push(Effect::Kill(index));
                    }
                    Some(Stop::Killed) | None => {}
                }
            }
        }
    }
}

fn doubled(first: Duration, times: u32, limit: Duration) -> Duration {
    first.saturating_mul(1_u32.checked_shl(times.saturating_sub(1)).unwrap_or(u32::MAX)).min(limit)
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;

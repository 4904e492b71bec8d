//! One request of one client, on its way through up to four incarnations that follow one another.
//!
//! A second, small model beside the one of ownership: what decides is the shipped [`passage`] and [`follows`]; what may
//! happen is every order in which the courses of the incarnations change (as the model of ownership lets them: one serves at
//! a time, and forwarding goes upwards), in which connections break before, while or after a request is executed, and in
//! which waiting ends. One request is enough: requests meet one another only where they wait, and waiting may end at any
//! moment here.

use std::collections::{HashMap, VecDeque};

use processhub_protocol::id::Epoch;
use processhub_protocol::passage::{Course, Passage, follows, passage};

/// Incarnations, in the order in which they own the process; the place of each is its epoch.
const PODS: usize = 4;

/// Where a request is at one sidecar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum At {
    /// It is not there.
    #[default]
    Nowhere,
    /// It is there, and goes or waits.
    Here {
        /// Which sidecar sent it; `None` for the client.
        from: Option<u8>,
        /// Where it is sent instead of to the successor, which has itself been succeeded.
        onward: Option<u8>,
    },
    /// Its bytes have reached the own worker.
    Worker { from: Option<u8> },
    /// Its bytes have reached another sidecar, whose answer is awaited.
    Sent { from: Option<u8>, to: u8 },
}

/// What the client knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Client {
    /// Nothing yet.
    #[default]
    Waits,
    /// That it was executed.
    Executed,
    /// That it was not (503).
    NotExecuted,
    /// That nobody knows (502, or its own connection broke).
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct State {
    courses: [Course; PODS],
    /// To whom each forwards.
    successors: [u8; PODS],
    request: [At; PODS],
    sent: bool,
    client: Client,
    executions: u8,
}

/// What was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Broken {
    /// The request was executed twice.
    ExecutedTwice,
    /// It was executed, or still may be, and the client was told that it was not.
    ToldWrong,
    /// A sidecar sent on what another one had sent on.
    ForwardedTwice,
    /// It never ends.
    Endless,
}

/// What an exploration found.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Distinct states.
    pub states: usize,
    /// Transitions.
    pub transitions: usize,
    /// The broken promise and the steps to it.
    pub refuted: Option<(Broken, Vec<String>)>,
}

/// Explores everything that can happen to the request.
#[must_use]
pub fn explore() -> Outcome {
    let mut courses = [Course::Standby; PODS];
    courses[0] = Course::Serve;
    let first = State {
        courses,
        successors: [0; PODS],
        request: [At::Nowhere; PODS],
        sent: false,
        client: Client::Waits,
        executions: 0,
    };
    let mut known = HashMap::from([(first, 0_usize)]);
    let mut parents: Vec<(usize, String)> = vec![(0, String::new())];
    let mut states = vec![first];
    let mut backward: Vec<Vec<usize>> = vec![Vec::new()];
    let mut work = VecDeque::from([0]);
    let mut transitions = 0;
    while let Some(at) = work.pop_front() {
        let mut steps = Steps { from: states[at], out: Vec::new() };
        steps.all();
        for (words, state, broken) in steps.out {
            transitions += 1;
            if let Some(broken) = broken.or_else(|| state.broken()) {
                let mut trace = way(&parents, at);
                trace.push(words);
                return Outcome { states: states.len(), transitions, refuted: Some((broken, trace)) };
            }
            let number = *known.entry(state).or_insert(states.len());
            if number == states.len() {
                states.push(state);
                parents.push((at, words));
                backward.push(Vec::new());
                work.push_back(number);
            }
            backward[number].push(at);
        }
    }
    let refuted = endless(&states, &backward).map(|at| (Broken::Endless, way(&parents, at)));
    Outcome { states: states.len(), transitions, refuted }
}

fn way(parents: &[(usize, String)], at: usize) -> Vec<String> {
    let (mut at, mut steps) = (at, Vec::new());
    while at != 0 {
        let (parent, words) = &parents[at];
        steps.push(words.clone());
        at = *parent;
    }
    steps.reverse();
    steps
}

/// The first state from which the client never learns anything.
fn endless(states: &[State], backward: &[Vec<usize>]) -> Option<usize> {
    let mut ends: Vec<bool> = states.iter().map(|state| state.client != Client::Waits).collect();
    let mut work: Vec<usize> = (0..states.len()).filter(|at| ends[*at]).collect();
    while let Some(at) = work.pop() {
        for from in &backward[at] {
            if !std::mem::replace(&mut ends[*from], true) {
                work.push(*from);
            }
        }
    }
    ends.iter().position(|ends| !ends)
}

impl State {
    fn broken(&self) -> Option<Broken> {
        let may_be_executed = self.request.iter().any(|at| *at != At::Nowhere);
        if self.executions > 1 {
            Some(Broken::ExecutedTwice)
        } else if self.client == Client::NotExecuted && (self.executions > 0 || may_be_executed) {
            Some(Broken::ToldWrong)
        } else {
            None
        }
    }

    /// What the sidecar in `at` answers goes to whom it has it from.
    fn answer(&mut self, at: usize, answer: Client) {
        let from = match std::mem::take(&mut self.request[at]) {
            At::Nowhere => return,
            At::Here { from, .. } | At::Worker { from } | At::Sent { from, .. } => from,
        };
        match from {
            None if self.client == Client::Waits => self.client = answer,
            None => {}
            // It relays what it is told, unless it does not wait for it any more.
            Some(sender) => {
                let sender = usize::from(sender);
                if matches!(self.request[sender], At::Sent { to, .. } if usize::from(to) == at) {
                    self.answer(sender, answer);
                }
            }
        }
    }
}

struct Steps {
    from: State,
    out: Vec<(String, State, Option<Broken>)>,
}

impl Steps {
    fn all(&mut self) {
        for at in 0..PODS {
            self.arrive(at);
            self.go(at);
            self.turn(at);
        }
    }

    fn push(&mut self, words: String, change: impl FnOnce(&mut State)) {
        let mut state = self.from;
        change(&mut state);
        self.out.push((words, state, None));
    }

    /// The client sends it, to whomever it believes in.
    fn arrive(&mut self, at: usize) {
        if self.from.sent {
            return;
        }
        if self.from.courses[at] == Course::Closed {
            self.push(format!("the client finds nobody at {at}"), |state| {
                state.sent = true;
                state.client = Client::NotExecuted;
            });
        } else {
            self.push(format!("the client sends the request to {at}"), |state| {
                state.sent = true;
                state.request[at] = At::Here { from: None, onward: None };
            });
        }
    }

    /// What the sidecar in `at` does with it.
    fn go(&mut self, at: usize) {
        match self.from.request[at] {
            At::Nowhere => {}
            At::Here { from, onward } => {
                self.pass(at, from, onward);
                // The hold is over, or too much is held.
                self.push(format!("{at} does not hold it any longer"), |state| {
                    state.answer(at, Client::NotExecuted);
                });
            }
            At::Worker { from } => {
                self.push(format!("{at}'s worker executes it"), |state| {
                    state.executions += 1;
                    state.answer(at, Client::Executed);
                });
                self.push(format!("{at}'s worker executes it, and the answer is lost"), |state| {
                    state.executions += 1;
                    state.answer(at, Client::Unknown);
                });
                self.push(format!("{at}'s worker is gone before it executes it"), |state| {
                    state.answer(at, Client::Unknown);
                });
                self.push(format!("{at}'s worker says that it does not serve"), |state| {
                    state.request[at] = At::Here { from, onward: None };
                });
            }
            At::Sent { from, to } => {
                // The other one goes on with it.
                self.push(format!("the connection from {at} to {to} breaks"), |state| {
                    state.request[at] = At::Here { from, onward: None };
                    state.answer(at, Client::Unknown);
                });
            }
        }
    }

    fn pass(&mut self, at: usize, from: Option<u8>, onward: Option<u8>) {
        match passage(self.from.courses[at], from.is_some()) {
            Passage::Wait => {}
            Passage::Serve => self.push(format!("{at} gives it to its worker"), |state| {
                state.request[at] = At::Worker { from };
            }),
            Passage::Forward => {
                let to = onward.unwrap_or(self.from.successors[at]);
                let there = usize::from(to);
                if self.from.request[there] == At::Nowhere && self.from.courses[there] != Course::Closed {
                    self.push(format!("{at} sends it on to {to}"), |state| {
                        state.request[at] = At::Sent { from, to };
                        state.request[there] = At::Here { from: number(at), onward: None };
                    });
                    if let Some((_, _, broken)) = self.out.last_mut().filter(|_| from.is_some()) {
                        *broken = Some(Broken::ForwardedTwice);
                    }
                }
            }
            Passage::NotServing | Passage::Stopping => {
                self.push(format!("{at} refuses it"), |state| state.answer(at, Client::NotExecuted));
            }
            Passage::ForwardedOnce => {
                let told = self.from.successors[at];
                self.push(format!("{at} says that it belongs to {told}"), |state| {
                    state.request[at] = At::Nowhere;
                    let sender = from.map_or(0, usize::from);
                    if let At::Sent { from, to } = state.request[sender] {
                        let goes =
                            to == number(at).unwrap_or(to) && follows(epoch(at), epoch(usize::from(told)));
                        let onward = goes.then_some(told);
                        state.request[sender] = At::Here { from, onward };
                    }
                });
            }
        }
    }

    /// The course of an incarnation changes as its record and its worker do.
    fn turn(&mut self, at: usize) {
        let courses = self.from.courses;
        let serves = courses.contains(&Course::Serve);
        let later = courses[at + 1..].iter().any(|course| *course != Course::Standby);
        let sealed = courses[..at]
            .iter()
            .all(|course| matches!(course, Course::Hold | Course::Forward | Course::Closed));
        match courses[at] {
            Course::Standby if sealed => self.course(at, Course::Hold, "is activated"),
            Course::Serve => self.course(at, Course::Hold, "is frozen, or its worker is gone"),
            Course::Hold if !serves && !later => self.course(at, Course::Serve, "serves"),
            Course::Hold | Course::Standby | Course::Forward | Course::Closed => {}
        }
        if matches!(courses[at], Course::Hold | Course::Forward) {
            for to in at + 1..PODS {
                let further = courses[at] == Course::Hold || to > usize::from(self.from.successors[at]);
                // The successor owns the process: from here it is sealed for good.
                if further && courses[to] != Course::Closed && !courses[at + 1..to].contains(&Course::Serve) {
                    self.push(format!("{at} forwards to {to} from now on"), |state| {
                        state.courses[at] = Course::Forward;
                        state.successors[at] = number(to).unwrap_or(0);
                    });
                }
            }
        }
        if courses[at] != Course::Standby && courses[at] != Course::Closed {
            // What it holds is answered; what it has sent is cut.
            self.push(format!("{at} ends"), |state| {
                let told = match state.request[at] {
                    At::Here { .. } => Client::NotExecuted,
                    At::Nowhere | At::Worker { .. } | At::Sent { .. } => Client::Unknown,
                };
                state.answer(at, told);
                state.courses[at] = Course::Closed;
            });
        }
    }

    fn course(&mut self, at: usize, course: Course, words: &str) {
        self.push(format!("{at} {words}"), |state| {
            // What is in flight when the flow stops finishes, or is cut at the end of the drain.
            state.courses[at] = course;
        });
    }
}

fn number(at: usize) -> Option<u8> {
    u8::try_from(at).ok()
}

fn epoch(at: usize) -> Epoch {
    Epoch(at as u64)
}

//! Breadth first over everything that can happen, then backward from rest: what cannot reach rest is stuck.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::time::{Duration, Instant};

use crate::model::{Config, Edge, Model};
use crate::promise::{self, Promise};
use crate::state::State;
use crate::step::Step;

/// What an exploration found.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Name of the configuration.
    pub name: &'static str,
    /// Distinct states.
    pub states: usize,
    /// Transitions.
    pub transitions: usize,
    /// Steps to the farthest state.
    pub depth: usize,
    /// States in which a pod more than the bound allows was wanted; what would follow there is not explored.
    pub cut: usize,
    /// How long it took.
    pub took: Duration,
    /// A broken promise and how it came to it; none when everything holds.
    pub refuted: Option<Refutation>,
}

/// A promise that does not hold, with the steps to where it broke.
#[derive(Clone, Debug)]
pub struct Refutation {
    /// The promise.
    pub promise: Promise,
    /// The steps, in words.
    pub trace: Vec<String>,
}

type Fingerprint = u128;

#[derive(Default)]
struct Explored {
    known: HashMap<Fingerprint, u32, BuildHasherDefault<Identity>>,
    parents: Vec<u32>,
    prints: Vec<Fingerprint>,
    /// Per transition: from, to.
    edges: Vec<(u32, u32)>,
    rests: Vec<u32>,
    cut: usize,
    depth: usize,
}

/// Explores `config` up to `limit` states.
///
/// # Panics
/// With more than `limit` states: the configuration is larger than meant.
pub fn explore(config: Config, limit: usize) -> Outcome {
    let started = Instant::now();
    let name = config.name;
    let mut model = Model::new(config);
    let mut explored = Explored::default();
    let broken = forward(&mut model, &mut explored, limit);
    let refuted = match broken {
        Some((from, promise)) => Some(refutation(&mut model, &explored, from, promise)),
        None if !watched(&model, Promise::Ends) => None,
        None => stuck(&explored).map(|at| refutation(&mut model, &explored, at, Promise::Ends)),
    };
    Outcome {
        name,
        states: explored.prints.len(),
        transitions: explored.edges.len(),
        depth: explored.depth,
        cut: explored.cut,
        took: started.elapsed(),
        refuted,
    }
}

/// All reachable states, or the first one from which a step breaks a promise.
fn forward(model: &mut Model, explored: &mut Explored, limit: usize) -> Option<(u32, Promise)> {
    let first = model.first();
    explored.add(model, &first, 0);
    let mut frontier = vec![(0, first)];
    let mut edges = Vec::new();
    while !frontier.is_empty() {
        let mut next = Vec::new();
        for (from, state) in frontier {
            model.successors(&state, &mut edges);
            if model.exhausted {
                explored.cut += 1;
                explored.rests.push(from);
            }
            for Edge { state, broken, .. } in edges.drain(..) {
                if let Some(promise) = broken.filter(|promise| watched(model, *promise)) {
                    return Some((from, promise));
                }
                let (to, new) = explored.add(model, &state, from);
                explored.edges.push((from, to));
                if new {
                    next.push((to, state));
                }
            }
        }
        assert!(explored.prints.len() <= limit, "{}: more than {limit} states", model.config.name);
        explored.depth += usize::from(!next.is_empty());
        frontier = next;
    }
    None
}

fn watched(model: &Model, promise: Promise) -> bool {
    model.config.only.is_none_or(|only| only == promise)
}

impl Explored {
    fn add(&mut self, model: &Model, state: &State, parent: u32) -> (u32, bool) {
        let print = fingerprint(state);
        // infallible: the limit on states is far below 2^32
        let number = u32::try_from(self.prints.len()).unwrap_or(u32::MAX);
        let known = *self.known.entry(print).or_insert(number);
        if known != number {
            return (known, false);
        }
        self.parents.push(parent);
        self.prints.push(print);
        if promise::rests(model, state) {
            self.rests.push(number);
        }
        (number, true)
    }
}

/// The state nearest to the beginning from which no rest can be reached.
fn stuck(explored: &Explored) -> Option<u32> {
    let count = explored.prints.len();
    let mut offsets = vec![0usize; count + 1];
    for (_, to) in &explored.edges {
        offsets[*to as usize + 1] += 1;
    }
    for at in 0..count {
        offsets[at + 1] += offsets[at];
    }
    let mut sources = vec![0u32; explored.edges.len()];
    let mut filled = offsets.clone();
    for (from, to) in &explored.edges {
        sources[filled[*to as usize]] = *from;
        filled[*to as usize] += 1;
    }
    let mut ends = vec![false; count];
    let mut work = explored.rests.clone();
    for at in &work {
        ends[*at as usize] = true;
    }
    while let Some(at) = work.pop() {
        for from in &sources[offsets[at as usize]..offsets[at as usize + 1]] {
            if !std::mem::replace(&mut ends[*from as usize], true) {
                work.push(*from);
            }
        }
    }
    // Breadth first numbers the nearer state lower.
    ends.iter().position(|ends| !ends).and_then(|at| u32::try_from(at).ok())
}

/// The steps to state `at`, and the step there that breaks `promise` if one does; found by walking the way again.
fn refutation(model: &mut Model, explored: &Explored, at: u32, promise: Promise) -> Refutation {
    let mut way = vec![at];
    while let Some(last) = way.last().copied().filter(|last| *last != 0) {
        way.push(explored.parents[last as usize]);
    }
    way.reverse();
    let mut trace = Vec::new();
    let mut state = model.first();
    let mut edges = Vec::new();
    for number in &way[1..] {
        model.successors(&state, &mut edges);
        let print = explored.prints[*number as usize];
        let Some(edge) = edges.drain(..).find(|edge| fingerprint(&edge.state) == print) else {
            break;
        };
        trace.push(edge.step.words(model));
        state = edge.state;
    }
    model.successors(&state, &mut edges);
    if let Some(edge) = edges.drain(..).find(|edge| edge.broken == Some(promise)) {
        trace.push(edge.step.words(model));
        state = edge.state;
    }
    if promise == Promise::Ends {
        let (example, last) = dead_end(model, &state);
        trace.extend(example.iter().map(|step| format!("for example: {}", step.words(model))));
        state = last;
    }
    trace.push(format!("then: {}", crate::words::state_of_all(model, &state)));
    trace.push(format!("BROKEN: {}", promise.words()));
    Refutation { promise, trace }
}

/// The way from a stuck state to where the fewest things can still happen, among the nearest few thousand states.
fn dead_end(model: &mut Model, from: &State) -> (Vec<Step>, State) {
    let mut reached = vec![(0, None, from.clone())];
    let mut known = HashMap::from([(fingerprint(from), ())]);
    let mut edges = Vec::new();
    let (mut best, mut fewest) = (0, usize::MAX);
    let mut at = 0;
    while at < reached.len() && reached.len() < 4096 {
        let state = reached[at].2.clone();
        model.successors(&state, &mut edges);
        if edges.len() < fewest {
            (best, fewest) = (at, edges.len());
        }
        for edge in edges.drain(..) {
            if known.insert(fingerprint(&edge.state), ()).is_none() {
                reached.push((at, Some(edge.step), edge.state));
            }
        }
        at += 1;
    }
    let last = reached[best].2.clone();
    let mut steps = Vec::new();
    while let (before, Some(step), _) = &reached[best] {
        steps.push(*step);
        best = *before;
    }
    steps.reverse();
    (steps, last)
}

/// 128 bits of two independently mixed lanes: with ten million states the odds of a collision are below 10^-24.
fn fingerprint(state: &State) -> Fingerprint {
    let mut lanes = Lanes { left: 0x9e37_79b9_7f4a_7c15, right: 0xd1b5_4a32_d192_ed03 };
    state.hash(&mut lanes);
    (u128::from(lanes.left) << 64) | u128::from(lanes.right)
}

struct Lanes {
    left: u64,
    right: u64,
}

impl Lanes {
    fn mix(lane: u64, word: u64, with: u64) -> u64 {
        let product = u128::from(lane ^ word) * u128::from(with);
        // The low and the high half, folded: every bit of the word reaches every bit of the lane.
        #[expect(clippy::cast_possible_truncation, reason = "the two halves are meant")]
        let folded = (product as u64) ^ ((product >> 64) as u64);
        folded.wrapping_add(with)
    }
}

impl Hasher for Lanes {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(u64::from(value));
    }

    fn write_u16(&mut self, value: u16) {
        self.write_u64(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.left = Self::mix(self.left, value, 0xa076_1d64_78bd_642f);
        self.right = Self::mix(self.right, value.rotate_left(32), 0xe703_7ed1_a0b4_28db);
    }

    fn finish(&self) -> u64 {
        self.left ^ self.right
    }
}

/// Fingerprints are well mixed already.
#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn write(&mut self, _bytes: &[u8]) {}

    fn write_u128(&mut self, value: u128) {
        #[expect(clippy::cast_possible_truncation, reason = "any half will do")]
        let half = value as u64;
        self.0 = half;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

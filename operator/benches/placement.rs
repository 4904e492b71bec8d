//! Times the placement of 100 000 processes over 1 000 nodes, and the whole plan around it. Prints; asserts nothing.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use processhub_operator::assignments::ProcessFacts;
use processhub_operator::plan::placement::{Free, Slot, place};
use processhub_operator::plan::{Hub, Inputs, Node, Process, plan};
use processhub_protocol::id::Epoch;

// Each of those who share it needs a part of it.
#[allow(dead_code, clippy::unwrap_used)]
#[path = "../src/plan/fixture.rs"]
mod fixture;

const PROCESSES: usize = 100_000;
const NODES: usize = 1_000;
const ROUNDS: usize = 15;
/// What a new placement after a join may take at the median.
const LIMIT: Duration = Duration::from_millis(5);

fn main() {
    let processes: Vec<String> = (0..PROCESSES).map(|i| format!("cart-{i}")).collect();
    let nodes: Vec<String> = (0..=NODES).map(|i| format!("node-{i:04}.example.internal")).collect();
    let slots = |count: usize| -> Vec<Slot<'_>> {
        nodes[..count].iter().map(|name| Slot { name, fixed: 0, wished: 0, room: u32::MAX }).collect()
    };
    let free = |at: &[Option<usize>]| -> Vec<Free<'_>> {
        processes.iter().zip(at).map(|(name, at)| Free { name, at: *at, ..Free::default() }).collect()
    };

    let nowhere = free(&vec![None; PROCESSES]);
    let placed = place(&slots(NODES), &[], &nowhere);
    report("cold", None, || place(&slots(NODES), &[], &nowhere));

    let settled = free(&placed);
    report("nothing to do", None, || place(&slots(NODES), &[], &settled));

    let joined = report("one node joins", Some(LIMIT), || place(&slots(NODES + 1), &[], &settled));
    let moved = placed.iter().zip(&joined).filter(|(from, to)| from != to);
    let between_old = moved.clone().filter(|(_, to)| **to != Some(NODES)).count();
    let mut loads: BTreeMap<usize, usize> = BTreeMap::new();
    for slot in joined.iter().flatten() {
        *loads.entry(*slot).or_default() += 1;
    }
    let max = loads.values().max().copied().unwrap_or(0);
    println!(
        "  {} moved (ideal {}), {between_old} between old members, max/avg load {:.4}",
        moved.count(),
        PROCESSES.div_ceil(NODES + 1),
        max as f64 * (NODES + 1) as f64 / PROCESSES as f64,
    );

    let gone: Vec<Option<usize>> = placed.iter().map(|slot| slot.filter(|slot| *slot != NODES - 1)).collect();
    let homeless = free(&gone);
    report("one node leaves", None, || place(&slots(NODES - 1), &[], &homeless));

    let mut inputs = inputs(&processes, &nodes, &placed);
    let (settled, _) = plan(&inputs);
    inputs.memory = settled.memory;
    report("plan: nothing", None, || plan(&inputs).0);
    inputs.nodes.insert(nodes[NODES].clone(), Node { ready: true, ..Node::default() });
    let permitted = report("plan: joins", None, || plan(&inputs).1.moves.misplaced);
    println!("  {permitted} misplaced");
}

/// A settled hub whose processes are where they were placed.
fn inputs(processes: &[String], nodes: &[String], placed: &[Option<usize>]) -> Inputs {
    let hub = Hub { max_concurrent: 32, max_concurrent_per_node: 8, debounce: 0, ..fixture::hub(0, &[]) };
    let fit = Node { ready: true, ..Node::default() };
    Inputs {
        hub,
        nodes: nodes[..NODES].iter().map(|name| (name.clone(), fit.clone())).collect(),
        processes: processes
            .iter()
            .zip(placed)
            .map(|(name, slot)| (name.clone(), process(name, slot.map(|slot| nodes[slot].clone()))))
            .collect(),
        ..fixture::inputs(0, &[])
    }
}

fn process(name: &str, node: Option<String>) -> Process {
    let facts = ProcessFacts { epoch: Epoch(1), node, ..fixture::facts(name, "nowhere") };
    Process { facts: Some(facts), ..Process::default() }
}

fn report<T>(what: &str, limit: Option<Duration>, mut work: impl FnMut() -> T) -> T {
    let mut times: Vec<Duration> = Vec::new();
    let mut result = work();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        result = black_box(work());
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let p50 = times[ROUNDS / 2];
    let beside = limit.map_or_else(String::new, |limit| {
        format!(" (limit of p50 {limit:?}: {})", if p50 <= limit { "met" } else { "missed" })
    });
    println!("{what:<16} p50 {p50:?}, min {:?}, max {:?}{beside}", times[0], times[ROUNDS - 1]);
    result
}

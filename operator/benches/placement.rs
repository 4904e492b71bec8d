//! Times the placement of 100 000 processes over 1 000 nodes, and the whole plan around it. Prints; asserts nothing.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use processhub_operator::plan::placement::{Free, Slot, place};

const PROCESSES: usize = 100_000;
const NODES: usize = 1_000;
const ROUNDS: usize = 15;

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
    let placed = place(&slots(NODES), &nowhere);
    report("cold", || place(&slots(NODES), &nowhere));

    let settled = free(&placed);
    report("nothing to do", || place(&slots(NODES), &settled));

    let joined = report("one node joins", || place(&slots(NODES + 1), &settled));
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
    report("one node leaves", || place(&slots(NODES - 1), &homeless));
}

fn report<T>(what: &str, mut work: impl FnMut() -> T) -> T {
    let mut times: Vec<Duration> = Vec::new();
    let mut result = work();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        result = black_box(work());
        times.push(start.elapsed());
    }
    times.sort_unstable();
    println!("{what:<16} p50 {:?}, min {:?}, max {:?}", times[ROUNDS / 2], times[0], times[ROUNDS - 1]);
    result
}

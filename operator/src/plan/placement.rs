//! Which slot each process belongs to: sticky and balanced, rendezvous hashing where there is a choice.
//!
//! The processes where they are are the memory of the placement. Every slot gets its fair share, in whole numbers; who
//! is above its share gives up just the surplus, who is below takes just what is missing. So the loads differ by at
//! most one, a join moves only what the new member takes, and a second placement of the result changes nothing. Among
//! equals the highest rendezvous score decides ([`score`]), which needs no agreement between leaders and is stable
//! when nodes come and go. Nothing here depends on the order of events.
//!
//! Cost: linear in the processes, plus scores only for what has to move.

use std::cmp::Reverse;

use xxhash_rust::xxh3::xxh3_64;

/// A member that may be a target.
#[derive(Clone, Debug)]
pub struct Slot<'a> {
    /// Its name.
    pub name: &'a str,
    /// How many processes are there, or will be, that are not free to go elsewhere (pins). They count as load.
    pub fixed: u32,
    /// How many processes are there because a person sent them there. They count as load, but nobody else is moved away
    /// for them, nor taken from others in their place.
    pub wished: u32,
    /// How many processes it can hold, all included.
    pub room: u32,
}

/// A process that may be anywhere.
#[derive(Clone, Debug, Default)]
pub struct Free<'a> {
    /// Its name.
    pub name: &'a str,
    /// The slot where it is, or that it is on its way to.
    pub at: Option<usize>,
    /// The slot that it is still able to go back to at no cost, because it has not left yet.
    pub origin: Option<usize>,
    /// A slot that refused it lately: taken only if there is no other.
    pub avoid: Option<usize>,
}

/// The rendezvous score of a process on a node: xxh3 of both names, mixed. Fixed for ever: changing it moves the
/// processes of every hub.
#[must_use]
pub fn score(process: &str, node: &str) -> u64 {
    mix(xxh3_64(process.as_bytes()), xxh3_64(node.as_bytes()))
}

fn mix(process: u64, node: u64) -> u64 {
    finish(process ^ spread(node))
}

/// One of both hashes is multiplied, so that equal names do not cancel out.
fn spread(node: u64) -> u64 {
    node.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The finalizer of splitmix64.
fn finish(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The slot of each process, in the order of `free`; `None` where no slot has room.
///
/// `held` are the loads of nodes that take nothing new and keep what they have: lost from sight, cordoned. They are
/// counted as if they were slots, so that the others share among themselves just what is theirs, and nothing has to go
/// back when such a node returns with all that it had.
#[must_use]
pub fn place(slots: &[Slot<'_>], held: &[u32], free: &[Free<'_>]) -> Vec<Option<usize>> {
    let mut placed: Vec<Option<usize>> = free.iter().map(|process| process.at).collect();
    let mut loads = vec![0_u32; slots.len()];
    for slot in placed.iter().flatten() {
        loads[*slot] += 1;
    }
    let wished: usize = slots.iter().map(|slot| slot.wished as usize).sum();
    let shares = shares(slots, held, &loads, free.len() + wished);
    let mut missing: Vec<u32> = (0..slots.len())
        .map(|i| shares[i].saturating_sub(slots[i].wished).saturating_sub(loads[i]))
        .collect();

    release_surplus(slots, free, &shares, &loads, &mut missing, &mut placed);
    fill(slots, free, &mut missing, &mut placed);
    placed
}

/// How many free and wished processes each slot should have: the level, in whole numbers, at which all loads are as even as the
/// fixed ones and the room allow. The remainder stays where most processes are, so that the fewest move.
fn shares(slots: &[Slot<'_>], held: &[u32], loads: &[u32], free: usize) -> Vec<u32> {
    let at_level = |level: u32| {
        let open = slots.iter().map(|slot| level.min(slot.room).saturating_sub(slot.fixed));
        open.chain(held.iter().map(|load| level.min(*load))).map(u64::from).sum::<u64>()
    };
    let free = free as u64 + held.iter().copied().map(u64::from).sum::<u64>();
    let (mut low, mut high) = (0_u32, slots.iter().map(|slot| slot.room).max().unwrap_or(0));
    // The highest level that needs no more processes than there are.
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if at_level(middle) <= free { low = middle } else { high = middle - 1 }
    }
    let mut shares: Vec<u32> =
        slots.iter().map(|slot| low.min(slot.room).saturating_sub(slot.fixed)).collect();
    // Who cannot give anything away has the first part of the remainder already.
    let above = held.iter().filter(|load| **load > low).count() as u64;
    let rest = (free - at_level(low).min(free)).saturating_sub(above);
    let mut raised: Vec<usize> =
        (0..slots.len()).filter(|i| slots[*i].fixed <= low && slots[*i].room > low).collect();
    // Most above its share first; the rest by name, which is the order of the slots.
    raised.sort_by_key(|i| (Reverse(loads[*i].saturating_sub(shares[*i]).min(1)), *i));
    for i in raised.into_iter().take(usize::try_from(rest).unwrap_or(usize::MAX)) {
        shares[i] += 1;
    }
    shares
}

/// Takes the surplus out of every slot that is above its share. First goes who has not come yet and whose origin would
/// have it back, then who has the lowest score there.
fn release_surplus(
    slots: &[Slot<'_>],
    free: &[Free<'_>],
    shares: &[u32],
    loads: &[u32],
    missing: &mut [u32],
    placed: &mut [Option<usize>],
) {
    let mut buckets: Vec<Vec<usize>> = vec![Vec::new(); slots.len()];
    if shares.iter().zip(loads).all(|(share, load)| load <= share) {
        return;
    }
    for (process, slot) in placed.iter().enumerate() {
        if let Some(slot) = slot
            && loads[*slot] > shares[*slot]
        {
            buckets[*slot].push(process);
        }
    }
    for (slot, bucket) in buckets.iter().enumerate().filter(|(_, bucket)| !bucket.is_empty()) {
        let mut surplus = (loads[slot] - shares[slot]) as usize;
        for process in bucket {
            if surplus == 0 {
                break;
            }
            if let Some(origin) = free[*process].origin
                && origin != slot
                && missing[origin] > 0
            {
                missing[origin] -= 1;
                placed[*process] = Some(origin);
                surplus -= 1;
            }
        }
        if surplus == 0 {
            continue;
        }
        let node = xxh3_64(slots[slot].name.as_bytes());
        // Who would only come back, because the others refused it lately, goes last.
        let mut rest: Vec<(bool, u64, usize)> = bucket
            .iter()
            .filter(|process| placed[**process] == Some(slot))
            .map(|process| (&free[*process], *process))
            .map(|(it, process)| (it.avoid.is_some(), mix(xxh3_64(it.name.as_bytes()), node), process))
            .collect();
        let surplus = surplus.min(rest.len());
        if surplus > 0 && surplus < rest.len() {
            rest.select_nth_unstable(surplus - 1);
        }
        for (_, _, process) in &rest[..surplus] {
            placed[*process] = None;
        }
    }
}

/// Gives every process without a slot the one that it scores highest on, of those that miss one.
fn fill(slots: &[Slot<'_>], free: &[Free<'_>], missing: &mut [u32], placed: &mut [Option<usize>]) {
    let mut open: Vec<(u64, usize)> = (0..slots.len())
        .filter(|slot| missing[*slot] > 0)
        .map(|slot| (spread(xxh3_64(slots[slot].name.as_bytes())), slot))
        .collect();
    let mut refused = Vec::new();
    for process in 0..placed.len() {
        if placed[process].is_some() {
            continue;
        }
        let hash = xxh3_64(free[process].name.as_bytes());
        let avoid = free[process].avoid;
        let mut best: Option<(u64, usize)> = None;
        for (position, (node, slot)) in open.iter().enumerate() {
            let score = finish(hash ^ node);
            if best.is_none_or(|(highest, _)| score > highest) && avoid != Some(*slot) {
                best = Some((score, position));
            }
        }
        let Some((_, position)) = best else {
            refused.push(process);
            continue;
        };
        let slot = open[position].1;
        placed[process] = Some(slot);
        missing[slot] -= 1;
        if missing[slot] == 0 {
            open.remove(position);
        }
    }
    overflow(slots, free, &refused, missing, placed);
}

/// Of a process that found nothing missing elsewhere than in the slot that refused it: the least loaded other slot with
/// room, at the cost of the balance; else that slot again.
fn overflow(
    slots: &[Slot<'_>],
    free: &[Free<'_>],
    refused: &[usize],
    missing: &mut [u32],
    placed: &mut [Option<usize>],
) {
    let picky: Vec<usize> =
        refused.iter().copied().filter(|process| free[*process].avoid.is_some()).collect();
    if picky.is_empty() {
        return;
    }
    let mut loads: Vec<u32> = slots.iter().map(|slot| slot.fixed + slot.wished).collect();
    for slot in placed.iter().flatten() {
        loads[*slot] += 1;
    }
    for process in picky {
        let Free { name, at, avoid, .. } = free[process];
        let stays = |slot: usize| at != Some(slot);
        let other = (0..slots.len())
            .filter(|slot| avoid != Some(*slot) && loads[*slot] < slots[*slot].room)
            .min_by_key(|slot| (stays(*slot), loads[*slot], Reverse(score(name, slots[*slot].name)), *slot))
            .or_else(|| avoid.filter(|slot| missing[*slot] > 0));
        if let Some(slot) = other {
            loads[slot] += 1;
            missing[slot] = missing[slot].saturating_sub(1);
        }
        placed[process] = other;
    }
}

#[cfg(test)]
#[path = "placement_tests.rs"]
mod tests;

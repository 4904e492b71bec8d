use proptest::prelude::*;

use super::*;

/// Scores that must never change, because a change would move the processes of every hub.
const VECTORS: &str = include_str!("rendezvous.vectors");

#[test]
fn the_rendezvous_scores_are_the_committed_ones() {
    assert_eq!(xxh3_64(b""), 0x2d06_8005_38d3_94c2, "the vector of the xxh3 specification");
    let mut checked = 0;
    for line in VECTORS.lines().filter(|line| !line.starts_with('#')) {
        let [process, node, expected] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            panic!("a line of the vectors is not `process node score`: {line:?}")
        };
        assert_eq!(format!("{:016x}", score(process, node)), expected, "{process} on {node}");
        checked += 1;
    }
    assert!(checked >= 12, "only {checked} vectors");
}

/// What `place` should do, without any of its cleverness: pours the free processes in one by one.
fn poured(slots: &[Slot<'_>], loads: &[u32], free: usize) -> Vec<u32> {
    let mut shares = vec![0_u32; slots.len()];
    for _ in 0..free {
        let next = (0..slots.len())
            .filter(|i| slots[*i].fixed + shares[*i] < slots[*i].room)
            .min_by_key(|i| (slots[*i].fixed + shares[*i], shares[*i] >= loads[*i], *i));
        match next {
            Some(i) => shares[i] += 1,
            None => break,
        }
    }
    shares
}

fn loads(slots: usize, places: &[Option<usize>]) -> Vec<u32> {
    let mut loads = vec![0; slots];
    for slot in places.iter().flatten() {
        loads[*slot] += 1;
    }
    loads
}

#[derive(Debug, Clone)]
struct Case {
    slots: Vec<(u32, u32)>,
    at: Vec<Option<usize>>,
}

fn case() -> impl Strategy<Value = Case> {
    (1_usize..9).prop_flat_map(|n| {
        let slot = (0_u32..6, prop_oneof![4 => Just(u32::MAX), 1 => 0_u32..12]);
        let at = proptest::option::weighted(0.7, 0..n);
        (proptest::collection::vec(slot, n), proptest::collection::vec(at, 0..60))
            .prop_map(|(slots, at)| Case { slots, at })
    })
}

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|i| format!("{prefix}{i:03}")).collect()
}

fn frees<'a>(names: &'a [String], at: &[Option<usize>]) -> Vec<Free<'a>> {
    names.iter().zip(at).map(|(name, at)| Free { name, at: *at, ..Free::default() }).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn everybody_has_a_fair_place_and_as_few_move_as_that_takes(case in case()) {
        let (nodes, processes) = (names("n", case.slots.len()), names("p", case.at.len()));
        let slots: Vec<_> = nodes.iter().zip(&case.slots)
            .map(|(name, (fixed, room))| Slot { name, fixed: *fixed, wished: 0, room: *room }).collect();
        let free = frees(&processes, &case.at);
        let placed = place(&slots, &[], &free);

        let before = loads(slots.len(), &case.at);
        let naive = poured(&slots, &before, free.len());
        let after = loads(slots.len(), &placed);
        let sorted = |shares: &[u32]| {
            let mut loads: Vec<u32> = slots.iter().zip(shares).map(|(s, n)| s.fixed + n).collect();
            loads.sort_unstable();
            loads
        };
        prop_assert_eq!(sorted(&after), sorted(&naive), "as even as pouring one by one");
        for (slot, load) in slots.iter().zip(&after) {
            prop_assert!(*load <= slot.room.saturating_sub(slot.fixed), "{} is over its room", slot.name);
        }
        let moved = placed.iter().zip(&case.at).filter(|(to, at)| at.is_some() && to != at).count();
        let least: u32 = before.iter().zip(&naive).map(|(load, share)| load.saturating_sub(*share)).sum();
        prop_assert_eq!(moved, least as usize, "as few moves as the naive shares need");
        prop_assert_eq!(place(&slots, &[], &frees(&processes, &placed)), placed, "placing again changes nothing");
    }

    #[test]
    fn a_join_moves_only_to_the_new_member_and_a_leave_only_from_the_old_one(
        count in 2_usize..40, processes in 0_usize..400, pick in any::<prop::sample::Index>(),
    ) {
        let (nodes, processes) = (names("n", count), names("p", processes));
        let slots: Vec<_> = nodes.iter().map(|name| Slot { name, fixed: 0, wished: 0, room: u32::MAX }).collect();
        let whole = place(&slots, &[], &frees(&processes, &vec![None; processes.len()]));
        let gone = pick.index(count);

        let fewer: Vec<_> = slots.iter().enumerate().filter(|(i, _)| *i != gone).map(|(_, s)| s.clone()).collect();
        let without = |slot: usize| (slot != gone).then(|| if slot > gone { slot - 1 } else { slot });
        let at: Vec<_> = whole.iter().map(|slot| slot.and_then(without)).collect();
        let left = place(&fewer, &[], &frees(&processes, &at));
        for (from, to) in at.iter().zip(&left) {
            prop_assert!(from.is_none() || from == to, "a leave moved somebody who was not concerned");
        }

        let with = |slot: usize| if slot >= gone { slot + 1 } else { slot };
        let at: Vec<_> = left.iter().map(|slot| slot.map(with)).collect();
        let joined = place(&slots, &[], &frees(&processes, &at));
        let moved: Vec<_> = at.iter().zip(&joined).filter(|(from, to)| from != to).collect();
        prop_assert!(moved.iter().all(|(_, to)| **to == Some(gone)), "a join moved between old members");
        prop_assert!(moved.len() <= processes.len().div_ceil(count), "{} moved", moved.len());
    }
}

#[test]
fn a_thousand_nodes_are_balanced_within_two_percent() {
    let (nodes, processes) = (names("n", 100), names("p", 10_000));
    let slots: Vec<_> = nodes.iter().map(|name| Slot { name, fixed: 0, wished: 0, room: u32::MAX }).collect();
    let placed = place(&slots, &[], &frees(&processes, &vec![None; processes.len()]));
    assert!(loads(slots.len(), &placed).iter().all(|load| *load == 100));
}

#[test]
fn the_remainder_follows_the_names_and_not_the_order_of_the_nodes() {
    let processes = names("p", 6);
    let slots = ["a", "b", "c"].map(|name| Slot { name, fixed: 0, wished: 0, room: u32::MAX });
    let placed = place(&slots, &[], &frees(&processes, &[None; 6]));
    // Which process is where is decided by the scores alone, until a node has its share.
    let first = placed[0].unwrap();
    let best = (0..3).max_by_key(|slot| score("p000", slots[*slot].name)).unwrap();
    assert_eq!(first, best);
}

#[test]
fn who_was_refused_by_a_node_goes_elsewhere_even_at_the_cost_of_the_balance() {
    let slots = ["a", "b"].map(|name| Slot { name, fixed: 0, wished: 0, room: u32::MAX });
    let free = [
        Free { name: "p0", at: Some(0), ..Free::default() },
        Free { name: "p1", at: None, avoid: Some(1), ..Free::default() },
    ];
    assert_eq!(place(&slots, &[], &free), [Some(0), Some(0)]);
    let alone = [Slot { name: "b", fixed: 0, wished: 0, room: u32::MAX }];
    assert_eq!(
        place(&alone, &[], &[Free { name: "p1", at: None, avoid: Some(0), ..Free::default() }]),
        [Some(0)]
    );
}

#[test]
fn of_a_surplus_another_one_goes_than_the_one_that_was_refused() {
    let slots = ["a", "b"].map(|name| Slot { name, fixed: 0, wished: 0, room: u32::MAX });
    for refused in 0..4 {
        let processes = names("p", 4);
        let mut free = frees(&processes, &[Some(0), Some(0), Some(0), Some(1)]);
        free[refused].avoid = Some(1);
        let placed = place(&slots, &[], &free);
        assert_eq!(loads(2, &placed), [2, 2]);
        assert_eq!(placed[refused], free[refused].at, "the refused one stays");
    }
}

#[test]
fn a_move_that_has_not_frozen_goes_back_when_its_origin_returns() {
    let slots = ["a", "b"].map(|name| Slot { name, fixed: 0, wished: 0, room: u32::MAX });
    let processes = names("p", 4);
    // All four are on b or on their way to it; two of them have not left a.
    for pair in [[0, 1], [1, 2], [2, 3]] {
        let mut free = frees(&processes, &[Some(1); 4]);
        for process in pair {
            free[process].origin = Some(0);
        }
        let placed = place(&slots, &[], &free);
        let expected: Vec<_> = (0..4).map(|process| Some(usize::from(!pair.contains(&process)))).collect();
        assert_eq!(placed, expected);
    }
}

#[test]
fn what_a_node_holds_that_takes_nothing_new_counts_in_the_shares_of_the_others() {
    let slots = ["a", "b", "new"].map(|name| Slot { name, fixed: 0, wished: 0, room: u32::MAX });
    let processes = names("p", 12);
    let at: Vec<_> = (0..12).map(|i| Some(i % 2)).collect();
    // Of 18 on four nodes everybody has 4 or 5.
    let placed = place(&slots, &[6], &frees(&processes, &at));
    assert_eq!(loads(3, &placed), [5, 4, 3]);
    let placed = place(&slots, &[8], &frees(&processes, &at));
    assert_eq!(loads(3, &placed), [5, 5, 2], "its three too many are for the new one, when it is back");
    // A node that holds less than its share keeps nobody from having it.
    let placed = place(&slots, &[1], &frees(&processes, &at));
    assert_eq!(loads(3, &placed), [4, 4, 4]);
}

#[test]
fn without_room_nobody_is_placed() {
    let slots = [Slot { name: "a", fixed: 1, wished: 0, room: 2 }];
    let processes = names("p", 3);
    assert_eq!(place(&slots, &[], &frees(&processes, &[None; 3])).iter().flatten().count(), 1);
    assert_eq!(place(&[], &[], &frees(&processes, &[None; 3])), [None; 3]);
}

#[test]
fn nobody_is_moved_on_account_of_those_that_a_person_sent_somewhere() {
    let slots = [("a", 2), ("b", 0)].map(|(name, wished)| Slot { name, fixed: 0, wished, room: u32::MAX });
    let processes = names("p", 2);
    let at = [Some(0), Some(0)];
    assert_eq!(place(&slots, &[], &frees(&processes, &at)), at);
    // But who is new goes where there is less.
    let processes = names("p", 4);
    let placed = place(&slots, &[], &frees(&processes, &[Some(0), Some(0), None, None]));
    assert_eq!(placed, [Some(0), Some(0), Some(1), Some(1)]);
}

proptest! {
    #[test]
    fn with_wishes_everybody_has_a_place_and_placing_again_changes_nothing(
        case in case(), wished in proptest::collection::vec(0_u32..5, 9),
    ) {
        let (nodes, processes) = (names("n", case.slots.len()), names("p", case.at.len()));
        let slots: Vec<_> = nodes.iter().zip(&case.slots).zip(wished)
            .map(|((name, (fixed, _)), wished)| Slot { name, fixed: *fixed, wished, room: u32::MAX }).collect();
        let placed = place(&slots, &[], &frees(&processes, &case.at));
        prop_assert!(placed.iter().all(Option::is_some));
        prop_assert_eq!(place(&slots, &[], &frees(&processes, &placed)), placed);
    }
}

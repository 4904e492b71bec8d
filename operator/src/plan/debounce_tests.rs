use super::*;

const DEBOUNCE: u64 = 500;

/// Plays observations at their times and keeps the memory.
#[derive(Default)]
struct Play {
    memory: Memory,
}

impl Play {
    fn at(&mut self, now: u64, fit: &[&str], lost: &[&str]) -> Members {
        let fit = fit.iter().map(|name| ((*name).to_owned(), Fitness::Fit));
        let lost = lost.iter().map(|name| ((*name).to_owned(), Fitness::NotReady));
        let nodes = fit.chain(lost).collect();
        let (memory, members) = settle(&self.memory, &nodes, now, DEBOUNCE);
        self.memory = memory;
        members
    }
}

fn targets(members: &Members) -> Vec<&str> {
    members.targets.iter().map(String::as_str).collect()
}

#[test]
fn a_new_leader_takes_the_nodes_as_they_are() {
    let members = Play::default().at(0, &["a", "b"], &["c"]);
    assert_eq!(targets(&members), ["a", "b"]);
    assert_eq!((members.steadiness, members.wake), (Steadiness::Steady, None));
}

#[test]
fn joins_are_collected_until_it_is_quiet() {
    let mut play = Play::default();
    play.at(0, &["a"], &[]);
    let first = play.at(1000, &["a", "b"], &[]);
    assert_eq!(targets(&first), ["a"], "not a target before the debouncing is over");
    assert_eq!(first.steadiness, Steadiness::Debouncing { until: 1500 });
    assert_eq!(first.wake, Some(1500));
    let second = play.at(1400, &["a", "b", "c"], &[]);
    assert_eq!(second.steadiness, Steadiness::Debouncing { until: 1900 });
    assert_eq!(play.at(1899, &["a", "b", "c"], &[]).steadiness, Steadiness::Debouncing { until: 1900 });
    let done = play.at(1900, &["a", "b", "c"], &[]);
    assert_eq!((targets(&done), done.steadiness.clone()), (vec!["a", "b", "c"], Steadiness::Steady));
}

#[test]
fn a_cluster_that_never_rests_is_rebalanced_all_the_same() {
    let mut play = Play::default();
    play.at(0, &["a"], &[]);
    let names: Vec<String> = (0..10).map(|i| format!("n{i}")).collect();
    let mut steady_at = None;
    for (i, _) in names.iter().enumerate() {
        let mut fit = vec!["a"];
        fit.extend(names[..=i].iter().map(String::as_str));
        let now = 1000 + 400 * i as u64;
        if play.at(now, &fit, &[]).steadiness == Steadiness::Steady {
            steady_at = steady_at.or(Some(now));
        }
    }
    assert_eq!(steady_at, Some(1000 + 4 * 500), "four times the debounce time after the first join");
}

#[test]
fn a_lost_node_is_no_target_at_once_and_one_that_is_back_in_time_causes_nothing() {
    let mut play = Play::default();
    play.at(0, &["a", "b", "c"], &[]);
    let lost = play.at(100, &["a", "b"], &["c"]);
    assert_eq!(targets(&lost), ["a", "b"]);
    assert!(matches!(lost.steadiness, Steadiness::Debouncing { .. }));
    // Back before the debouncing is over; it is on probation first.
    assert!(!targets(&play.at(200, &["a", "b", "c"], &[])).contains(&"c"));
    let back = play.at(1200, &["a", "b", "c"], &[]);
    assert_eq!(targets(&play.at(1700, &["a", "b", "c"], &[])), ["a", "b", "c"], "{back:?}");
}

#[test]
fn a_node_that_flaps_has_to_be_fit_for_longer_each_time() {
    let mut play = Play::default();
    let mut now = 0;
    play.at(now, &["a", "b", "c"], &[]);
    let mut waits = Vec::new();
    for _ in 0..9 {
        now += 1_000;
        play.at(now, &["a", "b"], &["c"]);
        now += 1_000;
        let back = play.at(now, &["a", "b", "c"], &[]);
        assert!(!back.targets.contains("c"));
        let mut waited = 0;
        while !play.at(now + waited, &["a", "b", "c"], &[]).targets.contains("c") {
            waited += 500;
        }
        waits.push(waited);
        now += waited;
    }
    assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]), "{waits:?}");
    assert!(waits[0] <= 2_000 && waits[8] >= LONGEST_PROBATION, "{waits:?}");
    // A clean record after ten quiet minutes.
    now += FORGIVEN;
    play.at(now, &["a", "b", "c"], &[]);
    play.at(now + 1, &["a", "b"], &["c"]);
    play.at(now + 2, &["a", "b", "c"], &[]);
    play.at(now + 1_100, &["a", "b", "c"], &[]);
    assert!(play.at(now + 1_600, &["a", "b", "c"], &[]).targets.contains("c"));
}

#[test]
fn when_more_than_half_is_lost_at_once_nothing_is_rebalanced_until_two_thirds_are_back() {
    let mut play = Play::default();
    let all = ["a", "b", "c", "d", "e", "f"];
    play.at(0, &all, &[]);
    let lost = play.at(1_000, &["a", "b"], &["c", "d", "e", "f"]);
    let until = 1_000 + LOSS_HOLD;
    assert_eq!(lost.steadiness, Steadiness::TooManyLost { have: 2, had: 6, until });
    assert_eq!(targets(&lost), ["a", "b"], "what is left can still take who has to go somewhere");
    let some = play.at(20_000, &["a", "b", "c"], &["d", "e", "f"]);
    assert!(matches!(some.steadiness, Steadiness::TooManyLost { .. }));
    play.at(60_000, &["a", "b", "c", "d"], &["e", "f"]);
    let back = play.at(63_000, &["a", "b", "c", "d"], &["e", "f"]);
    assert_eq!((targets(&back), back.steadiness.clone()), (vec!["a", "b", "c", "d"], Steadiness::Steady));
}

#[test]
fn a_loss_that_lasts_is_accepted_in_the_end() {
    let mut play = Play::default();
    play.at(0, &["a", "b", "c"], &[]);
    play.at(1_000, &["a"], &[]);
    assert!(matches!(play.at(200_000, &["a"], &[]).steadiness, Steadiness::TooManyLost { .. }));
    assert_eq!(play.at(1_000 + LOSS_HOLD, &["a"], &[]).steadiness, Steadiness::Steady);
}

#[test]
fn half_of_the_members_is_not_too_many_and_nodes_taken_out_by_somebody_are_not_lost() {
    let mut play = Play::default();
    play.at(0, &["a", "b"], &[]);
    assert!(matches!(play.at(1_000, &["a"], &["b"]).steadiness, Steadiness::Debouncing { .. }));

    let mut memory = Memory::default();
    let nodes = |cordoned: &[&str]| -> BTreeMap<String, Fitness> {
        ["a", "b", "c"]
            .map(|name| {
                let fitness = if cordoned.contains(&name) { Fitness::Cordoned } else { Fitness::Fit };
                (name.to_owned(), fitness)
            })
            .into()
    };
    (memory, _) = settle(&memory, &nodes(&[]), 0, DEBOUNCE);
    let (_, members) = settle(&memory, &nodes(&["b", "c"]), 1_000, DEBOUNCE);
    assert!(matches!(members.steadiness, Steadiness::Debouncing { .. }), "{members:?}");
}

#[test]
fn the_only_members_there_are_are_used_at_once() {
    let mut play = Play::default();
    play.at(0, &[], &[]);
    assert_eq!(targets(&play.at(10, &["a"], &[])), ["a"]);
}

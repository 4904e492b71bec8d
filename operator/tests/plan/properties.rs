//! Random histories of nodes, processes and people.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use processhub_operator::assignments::OwnerState;
use processhub_operator::plan::{Child, Fitness, Report, plan};

use crate::world::World;

#[derive(Clone, Debug)]
enum Event {
    Join(u8),
    Lose(u8),
    Cordon(u8, bool),
    Ready(u8, bool),
    Drain(u8),
    DeletePod(u8),
    Wish(u8, u8),
    Pin(u8, Option<u8>),
    Refuse(u8, Option<u8>),
    Scale(u8),
    Dynamic(u8),
    Pause(bool),
    Forget,
    Run(u8),
}

const NODES: u8 = 6;
const PROCESSES: u8 = 16;

fn event() -> impl Strategy<Value = Event> {
    let node = || 0..NODES;
    let process = || 0..PROCESSES;
    prop_oneof![
        3 => node().prop_map(Event::Join),
        1 => node().prop_map(Event::Lose),
        2 => (node(), any::<bool>()).prop_map(|(n, on)| Event::Cordon(n, on)),
        2 => (node(), any::<bool>()).prop_map(|(n, on)| Event::Ready(n, on)),
        1 => node().prop_map(Event::Drain),
        2 => process().prop_map(Event::DeletePod),
        2 => (process(), node()).prop_map(|(p, n)| Event::Wish(p, n)),
        1 => (process(), proptest::option::of(node())).prop_map(|(p, n)| Event::Pin(p, n)),
        1 => (process(), proptest::option::of(node())).prop_map(|(p, n)| Event::Refuse(p, n)),
        2 => process().prop_map(Event::Scale),
        1 => process().prop_map(Event::Dynamic),
        1 => any::<bool>().prop_map(Event::Pause),
        1 => Just(Event::Forget),
        4 => (1_u8..12).prop_map(Event::Run),
    ]
}

fn node(n: u8) -> String {
    format!("n{n}")
}

fn process(p: u8) -> String {
    format!("cart-{p}")
}

fn happen(world: &mut World, event: &Event) {
    match event {
        Event::Join(n) => world.add_node(&node(*n)),
        Event::Lose(n) => world.lose_node(&node(*n)),
        Event::Cordon(n, on) => change_node(world, *n, |node| node.unschedulable = *on),
        Event::Ready(n, on) => change_node(world, *n, |node| node.ready = *on),
        Event::Drain(n) => world.drain(&node(*n)),
        Event::DeletePod(p) => world.delete_pod(&process(*p)),
        Event::Wish(p, n) => {
            let facts = world.inputs.processes.get_mut(&process(*p)).and_then(|it| it.facts.as_mut());
            if let Some(facts) = facts {
                facts.wish = Some(node(*n));
            }
        }
        Event::Pin(p, n) => {
            if let Some(process) = world.inputs.processes.get_mut(&process(*p)) {
                process.child = Child { pin: n.map(node), ..Child::default() };
            }
        }
        Event::Refuse(p, Some(n)) => drop(world.refusing.insert(process(*p), node(*n))),
        Event::Refuse(p, None) => drop(world.refusing.remove(&process(*p))),
        Event::Scale(count) => world.inputs.hub.replicas = u32::from(*count),
        Event::Dynamic(p) => world.add_dynamic(&format!("guest-{p}")),
        Event::Pause(on) => world.inputs.hub.paused = *on,
        // A new leader remembers nothing.
        Event::Forget => world.inputs.memory = Default::default(),
        Event::Run(steps) => {
            for _ in 0..*steps {
                world.plan();
                assert!(world.limited_at_once() <= world.inputs.hub.max_concurrent as usize);
                world.progress();
            }
        }
    }
}

fn change_node(world: &mut World, n: u8, change: impl FnOnce(&mut processhub_operator::plan::Node)) {
    if let Some(node) = world.inputs.nodes.get_mut(&node(n)) {
        change(node);
    }
}

/// What must hold once everything that was going on has ended: judged anew from the world, not from the plan.
fn judge(world: &World, report: &Report) {
    let targets = &report.membership.targets;
    let fit = |name: &String| world.inputs.nodes.get(name).is_some_and(|it| it.ready && !it.unschedulable);
    assert!(targets.iter().all(fit), "an unfit node is a target: {report}");
    let mut loads: BTreeMap<&str, Load> = targets.iter().map(|it| (it.as_str(), Load::default())).collect();
    // What stays on nodes that take nothing new.
    let mut held: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, process) in &world.inputs.processes {
        let facts = process.facts.as_ref().unwrap();
        let at = facts.node.as_deref();
        assert!(facts.moving.is_none() && facts.wish.is_none(), "{name} is not at rest");
        if let Some(pin) = &process.child.pin {
            let possible =
                !report.membership.others.contains_key(pin) && world.inputs.nodes.contains_key(pin);
            assert!(!possible || at == Some(pin), "{name} is not where it is pinned");
            if let Some(load) = loads.get_mut(pin.as_str()) {
                load.pinned += 1;
            } else if let Some(at) = at.filter(|at| !loads.contains_key(at)) {
                *held.entry(at).or_default() += 1;
            }
            continue;
        }
        if targets.is_empty() {
            continue;
        }
        assert_eq!(facts.owner, OwnerState::Serving, "{name} is not served: {report}");
        let at = at.unwrap();
        match loads.get_mut(at) {
            Some(load) if facts.settled_by_wish => load.wished += 1,
            Some(load) => load.free += 1,
            None => {
                let why = report.membership.others.get(at);
                assert!(why.is_some_and(Fitness::keeps), "{name} is on {at}: {why:?}");
                *held.entry(at).or_default() += 1;
            }
        }
    }
    let most = fair(&loads, &held);
    for (name, load) in &loads {
        assert!(load.free == 0 || load.free + load.pinned <= most, "{name} has {load:?} of {most}: {report}");
    }
}

#[derive(Debug, Default)]
struct Load {
    pinned: usize,
    wished: usize,
    free: usize,
}

/// The most that a member has when all that is not pinned is poured over the members one by one, and over the nodes that
/// hold something up to what they hold.
fn fair(loads: &BTreeMap<&str, Load>, held: &BTreeMap<&str, usize>) -> usize {
    let members = loads.values().map(|load| (load.pinned, usize::MAX));
    let mut poured: Vec<(usize, usize)> = members.chain(held.values().map(|held| (0, *held))).collect();
    let free = loads.values().map(|load| load.wished + load.free).chain(held.values().copied()).sum();
    let mut most = 0;
    for _ in 0..free {
        let open = poured.iter_mut().filter(|(load, room)| load < room);
        if let Some((least, _)) = open.min_by_key(|(load, _)| *load) {
            *least += 1;
            most = most.max(*least);
        }
    }
    most
}

/// What happens to members, and nothing else.
fn change_of_members() -> impl Strategy<Value = Event> {
    let node = || 0..NODES;
    prop_oneof![
        3 => node().prop_map(Event::Join),
        1 => node().prop_map(Event::Lose),
        2 => (node(), any::<bool>()).prop_map(|(n, on)| Event::Cordon(n, on)),
        3 => (node(), any::<bool>()).prop_map(|(n, on)| Event::Ready(n, on)),
        1 => node().prop_map(Event::Drain),
        4 => (1_u8..40).prop_map(Event::Run),
    ]
}

/// The node that an event takes out of the members, if it does.
fn unsettled(event: &Event) -> Option<String> {
    match event {
        Event::Lose(n) | Event::Drain(n) | Event::Cordon(n, true) | Event::Ready(n, false) => Some(node(*n)),
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// A member that was there all the time has its share from the beginning on: others may take from it, and beside
    /// what has to leave elsewhere it gets back no more than was taken, should those others take nothing new any more.
    #[test]
    fn a_member_that_was_there_all_the_time_gets_for_the_balance_no_more_than_it_gave(
        replicas in 1_u32..30,
        events in proptest::collection::vec(change_of_members(), 1..16),
    ) {
        let mut world = World::new(replicas);
        let mut steady: BTreeSet<String> = (0..3).map(node).collect();
        steady.iter().for_each(|node| world.add_node(node));
        world.settle();
        world.rebalanced.clear();
        for event in &events {
            if let Some(node) = unsettled(event) {
                steady.remove(&node);
            }
            happen(&mut world, event);
        }
        world.settle();
        for node in &steady {
            let given = world.rebalanced.iter().filter(|(_, from, _)| from == node).count();
            let got = world.rebalanced.iter().filter(|(_, _, to)| to == node).count();
            prop_assert!(got <= given, "{node} was there all the time: {:?}", world.rebalanced);
        }
    }
}

/// A member that is lost from sight while another joins, and comes back: what it had stays its own.
#[test]
fn a_member_that_comes_back_after_a_join_gives_only_to_the_new_one() {
    let mut world = World::new(18);
    ["n1", "n2", "n3"].iter().for_each(|node| world.add_node(node));
    world.settle();
    world.inputs.nodes.get_mut("n3").unwrap().ready = false;
    world.add_node("n4");
    world.settle();
    world.inputs.nodes.get_mut("n3").unwrap().ready = true;
    world.settle();
    let targets: BTreeSet<&str> = world.rebalanced.iter().map(|(_, _, to)| to.as_str()).collect();
    assert_eq!(targets, ["n4"].into(), "{:?}", world.rebalanced);
    assert_eq!(["n1", "n2", "n3", "n4"].map(|node| world.at(node).len()), [5, 4, 5, 4]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn whatever_happened_it_settles_balanced_and_then_nothing_is_left_to_do(
        events in proptest::collection::vec(event(), 1..40),
    ) {
        let mut world = World::new(8);
        world.add_node("n0");
        world.add_node("n1");
        for event in &events {
            happen(&mut world, event);
        }
        world.inputs.hub.paused = false;
        world.refusing.clear();
        let report = world.settle();
        judge(&world, &report);
    }

    #[test]
    fn equal_inputs_give_equal_plans(events in proptest::collection::vec(event(), 1..20)) {
        let mut world = World::new(8);
        world.add_node("n0");
        for event in &events {
            happen(&mut world, event);
        }
        let (first, second) = (plan(&world.inputs).0, plan(&world.inputs.clone()).0);
        prop_assert_eq!(first.assignments, second.assignments);
        prop_assert_eq!(first.children, second.children);
        prop_assert_eq!(first.memory, second.memory);
    }
}

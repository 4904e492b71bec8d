//! Random histories of nodes, processes and people.

use std::collections::BTreeMap;

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
                assert!(world.under_way_at_once() <= world.inputs.hub.max_concurrent as usize);
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
            }
        }
    }
    let most = fair(&loads);
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

/// The most that anybody has when all that is not pinned is poured over the members one by one.
fn fair(loads: &BTreeMap<&str, Load>) -> usize {
    let mut poured: Vec<usize> = loads.values().map(|load| load.pinned).collect();
    let mut most = 0;
    for _ in 0..loads.values().map(|load| load.wished + load.free).sum() {
        if let Some(least) = poured.iter_mut().min() {
            *least += 1;
            most = most.max(*least);
        }
    }
    most
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

//! The little language of the scenarios: one command a line, `#` for remarks.

use std::fmt::Write as _;

use k8s_openapi::jiff::SignedDuration;
use processhub_crds::DistributionStrategy;
use processhub_operator::assignments::Assignment;
use processhub_operator::plan::{Child, Code, Plan, Report, Taint, TaintEffect, Upgrade};

use crate::world::World;

/// Runs a script; returns what it printed.
pub fn run(script: &str) -> String {
    let mut world = World::new(0);
    let mut out = String::new();
    for (number, line) in script.lines().enumerate() {
        writeln!(out, "{}{line}", if line.is_empty() || line.starts_with('#') { "" } else { "> " }).unwrap();
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        if !command(&mut world, &words, &mut out) {
            panic!("line {}: {line:?} is not a command", number + 1);
        }
    }
    out
}

fn command(world: &mut World, words: &[&str], out: &mut String) -> bool {
    hub(world, words) || node(world, words) || process(world, words) || time(world, words, out)
}

fn hub(world: &mut World, words: &[&str]) -> bool {
    let hub = &mut world.inputs.hub;
    match words {
        ["replicas", count] => hub.replicas = count.parse().unwrap(),
        ["limits", all, node] => {
            hub.max_concurrent = all.parse().unwrap();
            hub.max_concurrent_per_node = node.parse().unwrap();
        }
        ["code", vsn] => give_code(&mut hub.upgrade, vsn),
        ["upgrade", at_once, kept] => {
            hub.upgrade.max_concurrent = at_once.parse().unwrap();
            hub.upgrade.partition = kept.parse().unwrap();
        }
        ["guided"] => hub.distribution = DistributionStrategy::Guided,
        ["select", label] => drop(hub.node_selector.insert(pair(label))),
        ["pause"] => hub.paused = true,
        ["unpause"] => hub.paused = false,
        ["refuse-hub"] => hub.accepted = false,
        ["list", name] => drop(hub.listed.insert((*name).to_owned(), Child::default())),
        ["list", name, pin] => {
            let child = Child { pin: Some((*pin).to_owned()), ..Child::default() };
            hub.listed.insert((*name).to_owned(), child);
        }
        ["unlist", name] => drop(hub.listed.remove(*name)),
        ["taken", name, by] => drop(world.inputs.taken.insert((*name).to_owned(), (*by).to_owned())),
        _ => return false,
    }
    true
}

/// A code that comes back keeps its place.
fn give_code(upgrade: &mut Upgrade, vsn: &str) {
    upgrade.present = vsn.to_owned();
    upgrade.max_concurrent = upgrade.max_concurrent.max(1);
    if upgrade.codes.iter().all(|code| code.name != vsn) {
        upgrade.codes.push(Code { name: vsn.to_owned(), label: vsn.to_owned(), usable: true });
    }
}

fn node(world: &mut World, words: &[&str]) -> bool {
    match words {
        ["join", nodes @ ..] => nodes.iter().for_each(|node| world.add_node(node)),
        ["lose", nodes @ ..] => nodes.iter().for_each(|node| world.lose_node(node)),
        ["drain", node] => world.drain(node),
        [
            what @ ("cordon" | "uncordon" | "cut-off" | "ready" | "taint" | "label" | "full"),
            name,
            rest @ ..,
        ] => {
            let node = world.inputs.nodes.get_mut(*name).unwrap_or_else(|| panic!("no node {name}"));
            match (*what, rest) {
                ("cordon", []) => node.unschedulable = true,
                ("uncordon", []) => node.unschedulable = false,
                ("cut-off", []) => node.ready = false,
                ("ready", []) => node.ready = true,
                ("taint", [key]) => node.taints.push(Taint {
                    key: (*key).to_owned(),
                    value: String::new(),
                    effect: TaintEffect::NoSchedule,
                }),
                ("label", [label]) => node.labels.extend([pair(label)]),
                ("full", [pods]) => node.pods = pods.parse().ok(),
                _ => return false,
            }
        }
        _ => return false,
    }
    true
}

fn process(world: &mut World, words: &[&str]) -> bool {
    match words {
        ["dynamic", name] => world.add_dynamic(name),
        ["delete-pod", name] => world.delete_pod(name),
        ["refuse", name, node] => drop(world.refusing.insert((*name).to_owned(), (*node).to_owned())),
        ["wish", name, node] => {
            let process =
                world.inputs.processes.get_mut(*name).unwrap_or_else(|| panic!("no process {name}"));
            process.facts.as_mut().unwrap().wish = Some((*node).to_owned());
        }
        ["pin", name, node] => {
            let process =
                world.inputs.processes.get_mut(*name).unwrap_or_else(|| panic!("no process {name}"));
            process.child.pin = Some((*node).to_owned());
        }
        _ => return false,
    }
    true
}

fn time(world: &mut World, words: &[&str], out: &mut String) -> bool {
    match words {
        ["wait", milliseconds] => {
            let milliseconds = milliseconds.parse().unwrap();
            world.inputs.now += SignedDuration::from_millis(milliseconds);
        }
        ["plan"] => {
            let (plan, report) = world.plan();
            print(&plan, &report, out);
        }
        // Plans and lets time pass, so many times.
        ["run", times] => {
            let times: u32 = times.parse().unwrap();
            for _ in 0..times {
                world.plan();
                world.progress();
            }
            summary(world, out);
        }
        ["settle"] => {
            world.settle();
            summary(world, out);
        }
        _ => return false,
    }
    true
}

fn pair(label: &str) -> (String, String) {
    let (key, value) = label.split_once('=').unwrap_or_else(|| panic!("{label} is not key=value"));
    (key.to_owned(), value.to_owned())
}

fn print(plan: &Plan, report: &Report, out: &mut String) {
    for line in report.to_string().lines() {
        writeln!(out, "  {line}").unwrap();
    }
    for (name, Assignment { go, give_up, held, lets_go: _, take_over: _ }) in &plan.assignments {
        if let Some(go) = go {
            writeln!(out, "  {name} -> {} ({})", go.node, go.trigger).unwrap();
        }
        if let Some(reason) = give_up {
            writeln!(out, "  {name} gives up: {reason:?}").unwrap();
        }
        if let Some(held) = held {
            writeln!(out, "  {name} held: {}: {}", held.reason, held.message).unwrap();
        }
    }
    if let Some(wake) = plan.wake {
        writeln!(out, "  again at {wake}").unwrap();
    }
}

fn summary(world: &mut World, out: &mut String) {
    writeln!(
        out,
        "  {} moved, at most {} at once, {} under way",
        std::mem::take(&mut world.moved),
        std::mem::take(&mut world.busiest),
        world.under_way()
    )
    .unwrap();
    for node in world.inputs.nodes.keys() {
        writeln!(out, "  {node}: {}", world.at(node).join(" ")).unwrap();
    }
    let lost: Vec<&str> = world
        .inputs
        .processes
        .iter()
        .filter(|(_, process)| process.owner_node().is_none_or(|node| !world.inputs.nodes.contains_key(node)))
        .map(|(name, _)| name.as_str())
        .collect();
    if !lost.is_empty() {
        writeln!(out, "  nowhere: {}", lost.join(" ")).unwrap();
    }
}

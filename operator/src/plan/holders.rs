//! Who holds the replicas of a process: pods of other nodes, each on a node of its own. Sticky: who holds one goes on with it
//! while it can; where one is missing the rendezvous score decides, of nodes first and then of the pods there, so that
//! processes spread over all of them and a change moves only what it has to.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use processhub_protocol::ledger::PodRef;

use super::placement::score;

/// The holders of `process`, whose owner is on `home`: at most `wanted` of them. `present` hold it now; `fit` are all pods
/// that could.
#[must_use]
pub fn holders(process: &str, home: &str, wanted: usize, present: &[PodRef], fit: &[PodRef]) -> Vec<PodRef> {
    let mut chosen: Vec<PodRef> = Vec::new();
    for pod in present.iter().filter(|pod| fit.contains(pod)) {
        take(&mut chosen, home, wanted, pod);
    }
    let mut nodes: BTreeMap<&str, &PodRef> = BTreeMap::new();
    for pod in fit {
        let best = nodes.entry(&pod.node).or_insert(pod);
        if score(process, &pod.uid.0) > score(process, &best.uid.0) {
            *best = pod;
        }
    }
    let mut nodes: Vec<_> = nodes.into_iter().collect();
    nodes.sort_by_key(|(node, _)| Reverse(score(process, node)));
    for (_, pod) in nodes {
        take(&mut chosen, home, wanted, pod);
    }
    chosen
}

fn take(chosen: &mut Vec<PodRef>, home: &str, wanted: usize, pod: &PodRef) {
    let taken = pod.node == home || chosen.iter().any(|other| other.node == pod.node);
    if chosen.len() < wanted && !taken {
        chosen.push(pod.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, node: &str) -> PodRef {
        PodRef { name: name.into(), uid: name.into(), node: node.into() }
    }

    /// Five pods on each of so many nodes.
    fn pods(nodes: usize) -> Vec<PodRef> {
        (0..nodes * 5).map(|number| pod(&format!("p{number}"), &format!("n{}", number % nodes))).collect()
    }

    #[test]
    fn holders_are_on_other_nodes_and_on_different_ones() {
        for wanted in 0..4 {
            let chosen = holders("cart", "n1", wanted, &[], &pods(3));
            assert_eq!(chosen.len(), wanted.min(2), "there are two other nodes");
            assert!(chosen.iter().all(|pod| pod.node != "n1"));
        }
        let both = holders("cart", "n1", 2, &[], &pods(3));
        assert_ne!(both[0].node, both[1].node);
        assert!(holders("cart", "n0", 2, &[], &pods(1)).is_empty(), "there is no other node");
    }

    #[test]
    fn who_holds_goes_on_and_only_what_is_missing_is_chosen() {
        let all = pods(4);
        for process in ["a", "b", "c", "d", "e"] {
            let before = holders(process, "n0", 2, &[], &all);
            assert_eq!(holders(process, "n0", 2, &before, &all), before);
            let more = [all.clone(), vec![pod("new", "n9")]].concat();
            assert_eq!(holders(process, "n0", 2, &before, &more), before, "a join moves nothing");
            let left: Vec<_> = all.iter().filter(|pod| **pod != before[0]).cloned().collect();
            let after = holders(process, "n0", 2, &before, &left);
            assert_eq!(after[0], before[1]);
            assert_eq!(after.len(), 2);
            let moved = holders(process, &before[1].node, 2, &before, &all);
            assert_eq!(moved[0], before[0], "the owner came to the other one's node");
            assert_eq!(holders(process, "n0", 1, &before, &all), before[..1]);
        }
    }

    #[test]
    fn processes_spread_over_nodes_and_pods() {
        let all = pods(5);
        let mut loads: BTreeMap<String, usize> = BTreeMap::new();
        for number in 0..1000 {
            for pod in holders(&format!("process-{number}"), "n0", 1, &[], &all) {
                *loads.entry(pod.name).or_default() += 1;
            }
        }
        assert_eq!(loads.len(), 20, "each pod of another node");
        assert!(loads.values().all(|load| (20..=90).contains(load)), "{loads:?}");
    }
}

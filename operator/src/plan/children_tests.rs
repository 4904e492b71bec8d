use super::*;
use crate::plan::fixture::hub;

fn there(names: &[&str], managed: bool) -> BTreeMap<String, Process> {
    names.iter().map(|name| ((*name).to_owned(), Process { managed, ..Process::default() })).collect()
}

#[test]
fn replicas_and_listed_processes_are_created() {
    let result = children(&hub(2, &["blue"]), &there(&[], true), &BTreeMap::new());
    assert_eq!(result.create.keys().collect::<Vec<_>>(), ["blue", "cart-0", "cart-1"]);
    assert_eq!((result.desired, result.replicas), (3, 0));
}

#[test]
fn scaling_down_deletes_the_highest_ordinals_first_and_numbers_are_not_words() {
    let names = ["cart-0", "cart-1", "cart-2", "cart-9", "cart-10"];
    let result = children(&hub(2, &[]), &there(&names, true), &BTreeMap::new());
    assert_eq!(result.delete, ["cart-10", "cart-9", "cart-2"]);
    assert_eq!(result.replicas, 2);
}

#[test]
fn dynamic_processes_are_never_touched_and_count_as_desired() {
    let mut processes = there(&["cart-0"], true);
    processes.extend(there(&["cart-7", "guest"], false));
    let result = children(&hub(1, &[]), &processes, &BTreeMap::new());
    assert_eq!(result.delete, Vec::<String>::new());
    assert_eq!((result.desired, result.replicas), (3, 1));
    // Also where the hub comes to want their name.
    let result = children(&hub(8, &["guest"]), &processes, &BTreeMap::new());
    assert!(!result.create.contains_key("cart-7") && result.update.is_empty());
    assert_eq!((result.desired, result.replicas), (9, 2));
}

#[test]
fn a_name_that_another_hub_has_is_reported_and_not_created() {
    let taken = BTreeMap::from([("cart-1".to_owned(), "other".to_owned())]);
    let result = children(&hub(2, &[]), &there(&[], true), &taken);
    assert_eq!(result.create.keys().collect::<Vec<_>>(), ["cart-0"]);
    assert_eq!(result.taken, taken);
}

#[test]
fn a_listed_process_that_changed_is_updated_and_an_equal_one_is_not() {
    let mut hub = hub(0, &["blue", "red"]);
    hub.listed.insert("blue".into(), Child { pin: Some("n1".into()), ..Child::default() });
    let result = children(&hub, &there(&["blue", "red"], true), &BTreeMap::new());
    assert_eq!(result.update.keys().collect::<Vec<_>>(), ["blue"]);
    assert_eq!(result.update["blue"].pin.as_deref(), Some("n1"));
}

#[test]
fn what_a_person_put_on_a_process_stays() {
    let mut processes = there(&["cart-0", "blue"], true);
    for process in processes.values_mut() {
        process.child.labels.insert("team".into(), "shop".into());
    }
    if let Some(replica) = processes.get_mut("cart-0") {
        replica.child.pin = Some("n2".into());
    }
    assert!(children(&hub(1, &["blue"]), &processes, &BTreeMap::new()).update.is_empty());
}

#[test]
fn a_hub_that_is_not_accepted_or_goes_away_creates_and_deletes_nothing() {
    let processes = there(&["cart-5"], true);
    for hub in [Hub { accepted: false, ..hub(2, &[]) }, Hub { deleting: true, ..hub(2, &[]) }] {
        let result = children(&hub, &processes, &BTreeMap::new());
        assert!(result.create.is_empty() && result.delete.is_empty());
        assert_eq!(result.desired, 2);
    }
}

#[test]
fn one_that_is_being_deleted_is_created_again_only_once_it_is_gone() {
    let mut processes = there(&["cart-0"], true);
    processes.entry("cart-0".into()).and_modify(|process| process.deleting = true);
    let result = children(&hub(1, &[]), &processes, &BTreeMap::new());
    assert!(result.create.is_empty() && result.delete.is_empty());
    assert_eq!(result.replicas, 0);
}

#[test]
fn only_the_canonical_number_is_an_ordinal() {
    assert_eq!(ordinal("cart", "cart-12"), Some(12));
    for other in ["cart-012", "cart-+1", "cart-", "cart", "cart-x", "cart-1-2", "art-1"] {
        assert_eq!(ordinal("cart", other), None, "{other}");
    }
}

#[test]
fn a_listed_process_whose_list_has_lost_a_label_is_brought_up() {
    let mut hub = hub(0, &["blue"]);
    let labelled = Child {
        labels: [("team".to_owned(), "shop".to_owned())].into(),
        listed_labels: ["team".to_owned()].into(),
        ..Child::default()
    };
    let process = Process { managed: true, child: labelled.clone(), ..Process::default() };
    let processes = BTreeMap::from([("blue".to_owned(), process)]);
    let update = |hub: &Hub| children(hub, &processes, &BTreeMap::new()).update;
    assert_eq!(update(&hub).keys().collect::<Vec<_>>(), ["blue"]);
    hub.listed.insert("blue".into(), labelled);
    assert!(update(&hub).is_empty());
}

//! The shipped machines hold in every configuration, and fail without any single rule.

use processhub_model::explore::Outcome;
use processhub_model::model::Config;
use processhub_model::requests::{self, Broken};
use processhub_model::run::{self, Job};
use processhub_model::scenario;
use processhub_protocol::rules::{self, Rule};

fn told(outcome: &Outcome) -> String {
    let trace = outcome.refuted.as_ref().map_or_else(String::new, |refuted| refuted.trace.join("\n  "));
    format!("{}\n  {trace}", outcome.name)
}

#[test]
fn the_shipped_machines_hold_whatever_happens() {
    let jobs = scenario::all().into_iter().map(|config| Job { config, without: None }).collect();
    run::run(jobs, |_, outcome| {
        assert!(outcome.refuted.is_none(), "{}", told(outcome));
        assert_eq!(
            outcome.cut, 0,
            "{}: the bound on pods was met, so not everything was explored",
            outcome.name
        );
    });
}

#[test]
fn every_rule_is_needed() {
    let refutations = scenario::refutations();
    let rules: Vec<Rule> = refutations.iter().map(|(rule, _)| *rule).collect();
    assert_eq!(rules, Rule::ALL);
    let jobs = refutations.into_iter().map(|(rule, config)| Job { config, without: Some(rule) }).collect();
    run::run(jobs, |job, outcome| {
        let refuted = outcome.refuted.as_ref();
        let refuted = refuted.unwrap_or_else(|| panic!("without {:?} nothing is broken", job.without));
        assert_eq!(Some(refuted.promise), job.config.only);
        assert!(refuted.trace.len() > 3, "the way there is told: {}", told(outcome));
        assert!(refuted.trace.last().is_some_and(|last| last.starts_with("BROKEN: ")), "{}", told(outcome));
    });
}

#[test]
fn with_its_rule_each_of_those_configurations_holds() {
    let whole = |config: Config| Config { only: None, pods: 6, epochs: 100, ..config };
    let jobs = scenario::refutations()
        .into_iter()
        .map(|(_, config)| Job { config: whole(config), without: None })
        .collect();
    run::run(jobs, |_, outcome| {
        assert!(outcome.refuted.is_none(), "{}", told(outcome));
        assert_eq!(outcome.cut, 0, "{}", outcome.name);
    });
}

#[test]
fn no_request_is_forwarded_or_executed_twice_or_waits_for_ever() {
    let outcome = requests::explore();
    assert_eq!(outcome.refuted, None);
    assert!(outcome.states > 1_000, "{} states: nothing was explored", outcome.states);
}

#[test]
fn without_its_rule_a_request_is_forwarded_twice() {
    let refuted = rules::without(Rule::ForwardUpwards, requests::explore).refuted;
    let (broken, trace) = refuted.expect("nothing is broken");
    assert_eq!(broken, Broken::ForwardedTwice);
    assert!(trace.len() > 3, "the way there is told: {trace:?}");
}

#[test]
fn the_same_configuration_is_explored_the_same_way() {
    let explore = || {
        let mut seen = Vec::new();
        let (rule, config) = scenario::refutations().swap_remove(4);
        run::run(vec![Job { config, without: Some(rule) }], |_, outcome| {
            seen.push((outcome.states, outcome.transitions, told(outcome)));
        });
        seen
    };
    assert_eq!(explore(), explore());
}

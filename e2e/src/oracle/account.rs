//! Found, lost, duplicated: the clients' history against what the processes hold in the end.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Serialize;

use crate::load::{Operation, Outcome};

/// What one process holds in the end: each client's applied numbers as inclusive ranges, and how often a number came
/// twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// By client: ranges of numbers.
    pub clients: BTreeMap<String, Vec<(u64, u64)>>,
    /// Applications beyond the first of a number.
    pub duplicates: u64,
}

/// The balance of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    /// Operations that were answered with a value.
    pub acknowledged: u64,
    /// Acknowledged operations that the process still holds.
    pub found: u64,
    /// Acknowledged operations that it does not hold.
    pub lost: u64,
    /// Operations that were applied more than once, or answered with a value that another one got too.
    pub duplicated: u64,
    /// Operations whose client cannot know what came of them.
    pub unknown: u64,
    /// Operations that a client saw fail.
    pub errors: u64,
    /// Lost operations by process, for the person who has to look.
    pub lost_by_process: BTreeMap<String, u64>,
    /// The first few things that clients saw fail.
    pub error_samples: Vec<String>,
}

/// How many failures are quoted.
const SAMPLES: usize = 8;

/// Balances the history against what the processes hold.
#[must_use]
pub fn account(history: &[Operation], applied: &HashMap<String, Applied>) -> Account {
    let mut balance = Account::default();
    let mut values: HashSet<(&str, u64)> = HashSet::new();
    let nothing = Applied::default();
    for operation in history {
        match &operation.outcome {
            Outcome::Acknowledged { value } => {
                balance.acknowledged += 1;
                if !values.insert((&operation.process, *value)) {
                    balance.duplicated += 1;
                }
                let held = applied.get(&operation.process).unwrap_or(&nothing);
                if held.holds(&operation.client, operation.number) {
                    balance.found += 1;
                } else {
                    balance.lost += 1;
                    *balance.lost_by_process.entry(operation.process.clone()).or_default() += 1;
                }
            }
            Outcome::Unknown { message } => {
                balance.unknown += 1;
                balance.sample(operation, message);
            }
            Outcome::Refused { status, message } => {
                balance.errors += 1;
                balance.sample(operation, &format!("{status} {message}"));
            }
        }
    }
    balance.duplicated += applied.values().map(|held| held.duplicates).sum::<u64>();
    balance
}

impl Account {
    fn sample(&mut self, operation: &Operation, what: &str) {
        if self.error_samples.len() < SAMPLES {
            self.error_samples.push(format!("{} number {}: {what}", operation.client, operation.number));
        }
    }
}

impl Applied {
    /// Whether this client's number was applied.
    #[must_use]
    pub fn holds(&self, client: &str, number: u64) -> bool {
        self.clients
            .get(client)
            .is_some_and(|ranges| ranges.iter().any(|(from, to)| (*from..=*to).contains(&number)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(number: u64, outcome: Outcome) -> Operation {
        Operation {
            process: "p".into(),
            client: "c".into(),
            number,
            fresh: false,
            sent: number,
            done: number,
            outcome,
        }
    }

    fn holding(ranges: &[(u64, u64)], duplicates: u64) -> HashMap<String, Applied> {
        let clients = BTreeMap::from([("c".to_owned(), ranges.to_vec())]);
        HashMap::from([("p".to_owned(), Applied { clients, duplicates })])
    }

    #[test]
    fn counts_what_is_missing_as_lost() {
        let history: Vec<_> = (1..=3).map(|n| operation(n, Outcome::Acknowledged { value: n })).collect();
        let balance = account(&history, &holding(&[(1, 1), (3, 3)], 0));
        assert_eq!((balance.acknowledged, balance.found, balance.lost), (3, 2, 1));
        assert_eq!(balance.lost_by_process["p"], 1);
    }

    #[test]
    fn counts_a_value_given_twice_and_a_number_applied_twice() {
        let history = [
            operation(1, Outcome::Acknowledged { value: 7 }),
            operation(2, Outcome::Acknowledged { value: 7 }),
        ];
        assert_eq!(account(&history, &holding(&[(1, 2)], 2)).duplicated, 3);
    }

    #[test]
    fn keeps_unknown_apart_from_errors() {
        let history = [
            operation(1, Outcome::Unknown { message: "cut".into() }),
            operation(2, Outcome::Refused { status: 503, message: "full".into() }),
        ];
        let balance = account(&history, &holding(&[], 0));
        assert_eq!((balance.unknown, balance.errors, balance.lost), (1, 1, 0));
        assert_eq!(balance.error_samples.len(), 2);
    }

    #[test]
    fn a_process_that_holds_nothing_has_lost_all() {
        let history = [operation(1, Outcome::Acknowledged { value: 1 })];
        assert_eq!(account(&history, &HashMap::new()).lost, 1);
    }
}

//! Which numbered requests were applied, kept so compactly that all of them fit in every answer to an audit.

use processhub_sdk::{Table, Value};
use serde::{Deserialize, Serialize};

/// Longest name of a client, in bytes.
pub const MAX_CLIENT: usize = 128;
/// Most clients that are remembered.
pub const MAX_CLIENTS: usize = 10_000;
/// Most gaps between the numbers of one client.
pub const MAX_RANGES: usize = 10_000;
/// Largest number of a request: the largest that JSON keeps exactly.
pub const MAX_NUMBER: u64 = (1 << 53) - 1;

/// The counter, and for each client the numbers of its requests that were applied.
///
/// A request that comes twice is counted twice, on purpose: hiding it would hide a fault of whatever delivered it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ledger {
    /// The part `state`.
    pub(crate) totals: Value<Totals>,
    /// The part `table.clients`: for each client the applied numbers, as inclusive ranges in order.
    pub(crate) clients: Table<String, Vec<(u64, u64)>>,
}

/// What all clients together did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Totals {
    value: u64,
    duplicates: u64,
}

/// What came of one increment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Increment {
    /// The counter after it: no other increment ever gets this value.
    pub value: u64,
    /// Whether this client's number had been applied before.
    pub duplicate: bool,
}

/// A request that was not applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// The client's name.
    #[error("`client` must have 1 to {MAX_CLIENT} bytes")]
    Client,
    /// The number.
    #[error("`number` must be at most 2^53 - 1")]
    Number,
    /// One client too many.
    #[error("more than {MAX_CLIENTS} clients: reuse a name")]
    Clients,
    /// Too many gaps.
    #[error("more than {MAX_RANGES} gaps in the numbers of `client`: count without gaps")]
    Gaps,
}

impl Ledger {
    /// Applies one numbered request.
    ///
    /// # Errors
    /// A request outside the bounds; nothing was changed.
    pub fn increment(&mut self, client: &str, number: u64) -> Result<Increment, BadRequest> {
        if client.is_empty() || client.len() > MAX_CLIENT {
            return Err(BadRequest::Client);
        }
        if number > MAX_NUMBER {
            return Err(BadRequest::Number);
        }
        if !self.clients.contains_key(client) && self.clients.len() >= MAX_CLIENTS {
            return Err(BadRequest::Clients);
        }
        let mut ranges = self.clients.get(client).cloned().unwrap_or_default();
        let duplicate = !insert(&mut ranges, number)?;
        self.clients.insert(client.to_owned(), ranges);
        self.totals.value += 1;
        self.totals.duplicates += u64::from(duplicate);
        Ok(Increment { value: self.totals.value, duplicate })
    }

    /// The counter.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.totals.value
    }

    /// Applications beyond the first of a number.
    #[must_use]
    pub fn duplicates(&self) -> u64 {
        self.totals.duplicates
    }

    /// For each client the applied numbers, as inclusive ranges in order.
    #[must_use]
    pub fn clients(&self) -> &Table<String, Vec<(u64, u64)>> {
        &self.clients
    }

    /// Whether the counter is the sum of what it counts; a ledger that was damaged on its way is not.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let ordered = |ranges: &[(u64, u64)]| {
            ranges.iter().all(|(from, to)| from <= to && *to <= MAX_NUMBER)
                && ranges.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0)
        };
        let ranges = || self.clients.iter().flat_map(|(_, ranges)| ranges);
        let counted = ranges().map(|(from, to)| u128::from(to.saturating_sub(*from)) + 1);
        self.clients.iter().all(|(_, ranges)| ordered(ranges))
            && counted.sum::<u128>() + u128::from(self.duplicates()) == u128::from(self.value())
    }
}

/// Whether `number` is new in the ordered, disjoint ranges that do not touch.
fn insert(ranges: &mut Vec<(u64, u64)>, number: u64) -> Result<bool, BadRequest> {
    let next = ranges.partition_point(|(from, _)| *from <= number);
    let before = next.checked_sub(1);
    if before.is_some_and(|at| number <= ranges[at].1) {
        return Ok(false);
    }
    let joins_before = before.filter(|at| ranges[*at].1 + 1 == number);
    let joins_next = ranges.get(next).is_some_and(|(from, _)| number + 1 == *from);
    match (joins_before, joins_next) {
        (Some(at), true) => {
            ranges[at].1 = ranges[next].1;
            ranges.remove(next);
        }
        (Some(at), false) => ranges[at].1 = number,
        (None, true) => ranges[next].0 = number,
        (None, false) if ranges.len() >= MAX_RANGES => return Err(BadRequest::Gaps),
        (None, false) => ranges.insert(next, (number, number)),
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(numbers: &[u64]) -> Ledger {
        let mut ledger = Ledger::default();
        for number in numbers {
            ledger.increment("c", *number).unwrap();
        }
        ledger
    }

    #[test]
    fn numbers_in_any_order_become_ranges() {
        for numbers in [[1, 2, 3, 7, 8], [8, 3, 1, 7, 2], [2, 1, 3, 8, 7]] {
            let ledger = after(&numbers);
            assert_eq!(ledger.clients().get("c").unwrap(), &[(1, 3), (7, 8)], "{numbers:?}");
            assert_eq!((ledger.value(), ledger.duplicates()), (5, 0));
            assert!(ledger.is_sound());
        }
    }

    #[test]
    fn a_number_that_comes_twice_is_counted_twice_and_shown() {
        let mut ledger = after(&[1, 2, 3]);
        assert_eq!(ledger.increment("c", 2), Ok(Increment { value: 4, duplicate: true }));
        assert_eq!(ledger.duplicates(), 1);
        assert!(ledger.is_sound());
    }

    #[test]
    fn clients_number_for_themselves() {
        let mut ledger = after(&[1]);
        assert_eq!(ledger.increment("d", 1), Ok(Increment { value: 2, duplicate: false }));
    }

    #[test]
    fn every_bound_is_kept_and_a_refused_request_changes_nothing() {
        let mut ledger = after(&[1]);
        let before = ledger.clone();
        assert_eq!(ledger.increment("", 1), Err(BadRequest::Client));
        assert_eq!(ledger.increment(&"x".repeat(MAX_CLIENT + 1), 1), Err(BadRequest::Client));
        assert_eq!(ledger.increment("c", MAX_NUMBER + 1), Err(BadRequest::Number));
        assert_eq!(ledger, before);
        for n in 1..MAX_RANGES as u64 {
            ledger.increment("c", 1 + 2 * n).unwrap();
        }
        assert_eq!(ledger.increment("c", MAX_NUMBER), Err(BadRequest::Gaps));
        assert_eq!(
            ledger.increment("c", 2),
            Ok(Increment { value: MAX_RANGES as u64 + 1, duplicate: false })
        );
        for n in 1..MAX_CLIENTS {
            ledger.increment(&format!("c{n}"), 1).unwrap();
        }
        assert_eq!(ledger.increment("one more", 1), Err(BadRequest::Clients));
        assert!(ledger.is_sound());
    }

    #[test]
    fn a_damaged_ledger_is_seen() {
        let damaged: [(u64, &[(u64, u64)]); 4] =
            [(2, &[(1, 1)]), (4, &[(1, 2), (2, 3)]), (2, &[(1, 1), (2, 2)]), (0, &[(2, 1)])];
        for (value, ranges) in damaged {
            let ledger = Ledger {
                totals: Value::new(Totals { value, duplicates: 0 }),
                clients: [("c".to_owned(), ranges.to_vec())].into_iter().collect(),
            };
            assert!(!ledger.is_sound(), "{ledger:?}");
        }
    }
}

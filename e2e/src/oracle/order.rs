//! Linearizability of a counter, from a history in which every answer is the value after the increment.
//!
//! Distinct values already give one order of all acknowledged increments; what is left to check is that it agrees with
//! real time: an operation that was sent after another one's answer must have got the greater value.

use std::collections::BTreeMap;

use crate::load::Operation;

/// Two operations that no single counter can have executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disorder {
    /// Was answered before `later` was sent, with a greater or the same value.
    pub earlier: Operation,
    /// Was sent after `earlier`'s answer.
    pub later: Operation,
}

/// The first violation of real-time order for each process that has one.
#[must_use]
pub fn check_order(history: &[Operation]) -> Vec<Disorder> {
    let mut processes: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in history.iter().filter(|operation| operation.acknowledged().is_some()) {
        processes.entry(&operation.process).or_default().push(operation);
    }
    processes.values_mut().filter_map(|operations| first_disorder(operations)).collect()
}

/// Goes through the operations in the order in which they were sent, and keeps the greatest value among those that had
/// been answered by then.
fn first_disorder(operations: &mut [&Operation]) -> Option<Disorder> {
    let mut by_answer: Vec<&Operation> = operations.to_vec();
    by_answer.sort_by_key(|operation| operation.done);
    operations.sort_by_key(|operation| operation.sent);
    let mut answered = by_answer.into_iter().peekable();
    let mut greatest: Option<&Operation> = None;
    for later in operations.iter() {
        while let Some(earlier) = answered.next_if(|earlier| earlier.done < later.sent) {
            if greatest.is_none_or(|known| earlier.acknowledged() > known.acknowledged()) {
                greatest = Some(earlier);
            }
        }
        if let Some(earlier) = greatest
            && earlier.acknowledged() >= later.acknowledged()
        {
            return Some(Disorder { earlier: earlier.clone(), later: (*later).clone() });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Outcome;

    fn operation(sent: u64, done: u64, value: u64) -> Operation {
        Operation {
            process: "p".into(),
            client: "c".into(),
            number: sent,
            fresh: false,
            sent,
            done,
            outcome: Outcome::Acknowledged { value },
        }
    }

    #[test]
    fn accepts_concurrent_operations_in_either_order() {
        assert!(check_order(&[operation(1, 10, 2), operation(2, 9, 1)]).is_empty());
    }

    #[test]
    fn refuses_a_value_that_goes_back() {
        let disorder = check_order(&[operation(1, 2, 5), operation(3, 4, 5), operation(6, 7, 4)]);
        assert_eq!(disorder[0].later.sent, 3);
    }

    #[test]
    fn judges_each_process_alone() {
        let mut other = operation(5, 6, 1);
        other.process = "q".into();
        assert!(check_order(&[operation(1, 2, 3), other]).is_empty());
    }
}

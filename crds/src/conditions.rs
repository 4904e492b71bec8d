//! Keeps a list of conditions the way the Kubernetes API conventions ask for.
//!
//! `lastTransitionTime` changes only when the status does, a reader can tell from `observedGeneration` whether a
//! condition is about the present spec, and the caller learns whether there is anything to write at all.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use crate::limits::MAX_MESSAGE;
use crate::vocabulary::{HubCondition, HubReason, ProcessCondition, ProcessReason, Status};

/// A condition as it should be from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    type_: &'static str,
    status: Status,
    reason: &'static str,
    message: String,
    observed_generation: Option<i64>,
}

impl Wanted {
    /// A condition of a hub. The message is cut to what the schema allows.
    pub fn hub(type_: HubCondition, status: impl Into<Status>, reason: HubReason, message: &str) -> Self {
        Self::new(type_.as_str(), status.into(), reason.as_str(), message)
    }

    /// A condition of a process. The message is cut to what the schema allows.
    pub fn process(
        type_: ProcessCondition,
        status: impl Into<Status>,
        reason: ProcessReason,
        message: &str,
    ) -> Self {
        Self::new(type_.as_str(), status.into(), reason.as_str(), message)
    }

    fn new(type_: &'static str, status: Status, reason: &'static str, message: &str) -> Self {
        Self {
            type_,
            status,
            reason,
            message: bounded(message, MAX_MESSAGE).to_owned(),
            observed_generation: None,
        }
    }

    /// Says which generation of the spec the condition is about.
    #[must_use]
    pub fn observed(mut self, generation: Option<i64>) -> Self {
        self.observed_generation = generation;
        self
    }
}

/// Puts `wanted` into `conditions`, in the place of the one of the same type or at the end, and says whether anything
/// changed: only then is there something to write.
pub fn set(conditions: &mut Vec<Condition>, wanted: Wanted, now: Timestamp) -> bool {
    let Wanted { type_, status, reason, message, observed_generation } = wanted;
    let old = conditions.iter_mut().find(|condition| condition.type_ == type_);
    let since = match &old {
        Some(old) if old.status == status.as_str() => old.last_transition_time.clone(),
        _ => time(now),
    };
    let new = Condition {
        type_: type_.to_owned(),
        status: status.as_str().to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation,
        last_transition_time: since,
    };
    match old {
        Some(old) if *old == new => false,
        Some(old) => {
            *old = new;
            true
        }
        None => {
            conditions.push(new);
            true
        }
    }
}

/// The condition of that type (the text of a [`HubCondition`] or [`ProcessCondition`]), if there is one.
pub fn get<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// A time as the API server keeps it: whole seconds. A status that holds a finer one is never equal to the same status
/// read back, and would be written again and again.
pub fn time(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

/// The longest beginning of `text` that has at most `max` bytes and ends at a character.
pub fn bounded(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn ready(status: bool, reason: ProcessReason, message: &str) -> Wanted {
        Wanted::process(ProcessCondition::Ready, status, reason, message).observed(Some(1))
    }

    #[test]
    fn a_new_condition_begins_now() {
        let mut conditions = Vec::new();
        assert!(set(&mut conditions, ready(true, ProcessReason::Serving, "pod a-1"), at(10)));
        let condition = get(&conditions, "Ready").unwrap();
        assert_eq!(condition.last_transition_time, Time(at(10)));
        assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("True", "Serving"));
        assert_eq!(condition.observed_generation, Some(1));
        assert!(get(&conditions, "Progressing").is_none());
    }

    #[test]
    fn the_same_condition_changes_nothing() {
        let mut conditions = Vec::new();
        set(&mut conditions, ready(true, ProcessReason::Serving, "pod a-1"), at(10));
        let before = conditions.clone();
        assert!(!set(&mut conditions, ready(true, ProcessReason::Serving, "pod a-1"), at(20)));
        assert_eq!(conditions, before);
    }

    #[test]
    fn another_reason_message_or_generation_is_a_change_but_no_transition() {
        let mut conditions = Vec::new();
        set(&mut conditions, ready(false, ProcessReason::Starting, "x"), at(10));
        assert!(set(&mut conditions, ready(false, ProcessReason::Moving, "x"), at(20)));
        assert!(set(&mut conditions, ready(false, ProcessReason::Moving, "y"), at(30)));
        assert!(set(&mut conditions, ready(false, ProcessReason::Moving, "y").observed(Some(2)), at(40)));
        assert_eq!(conditions[0].last_transition_time, Time(at(10)));
        assert_eq!(conditions.len(), 1);
    }

    #[test]
    fn another_status_is_a_transition() {
        let mut conditions = Vec::new();
        set(&mut conditions, ready(true, ProcessReason::Serving, "x"), at(10));
        let unknown =
            Wanted::process(ProcessCondition::Ready, Status::Unknown, ProcessReason::OwnerUnreachable, "x");
        assert!(set(&mut conditions, unknown, at(20)));
        assert_eq!(conditions[0].last_transition_time, Time(at(20)));
    }

    #[test]
    fn conditions_keep_their_order() {
        let mut conditions = Vec::new();
        let hub = |type_, reason| Wanted::hub(type_, true, reason, "");
        set(&mut conditions, hub(HubCondition::Accepted, HubReason::Valid), at(1));
        set(&mut conditions, hub(HubCondition::Ready, HubReason::Serving), at(1));
        set(
            &mut conditions,
            Wanted::hub(HubCondition::Accepted, false, HubReason::InvalidConfig, "x"),
            at(2),
        );
        let types: Vec<_> = conditions.iter().map(|condition| condition.type_.as_str()).collect();
        assert_eq!(types, ["Accepted", "Ready"]);
    }

    #[test]
    fn a_time_survives_the_way_to_the_api_server_and_back() {
        let fine = Timestamp::new(10, 999_000_000).unwrap();
        let mut conditions = Vec::new();
        set(&mut conditions, ready(true, ProcessReason::Serving, "x"), fine);
        let json = serde_json::to_value(&conditions).unwrap();
        assert_eq!(serde_json::from_value::<Vec<Condition>>(json).unwrap(), conditions);
    }

    #[test]
    fn a_message_is_cut_at_a_character_to_what_the_schema_allows() {
        let mut conditions = Vec::new();
        let long = "ü".repeat(MAX_MESSAGE);
        set(&mut conditions, ready(true, ProcessReason::Serving, &long), at(10));
        assert_eq!(conditions[0].message.len(), MAX_MESSAGE);
        assert_eq!(bounded("aüb", 2), "a");
        assert_eq!(bounded("aüb", 9), "aüb");
    }
}

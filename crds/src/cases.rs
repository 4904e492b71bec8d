//! Objects that the API server must accept or refuse, with the words of the refusal.
//!
//! One list for every judge: the unit tests evaluate it without a cluster, and the tests of the clusters send it to
//! an API server. A judge that disagrees with another is wrong.

mod bounds;
mod hub;
mod process;

use serde_json::Value;

pub use bounds::beyond_bounds;

/// One object, and what must become of it.
#[derive(Clone, Debug)]
pub struct Case {
    /// What is tried, as a sentence's beginning.
    pub name: String,
    /// What is there before, for an update; absent for a creation.
    pub old: Option<Value>,
    /// What is sent.
    pub new: Value,
    /// Whether it is sent to the status subresource.
    pub status: bool,
    /// What must become of it.
    pub expect: Expect,
}

/// What must become of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// It is stored.
    Accepted,
    /// It is refused, with an answer that contains this.
    Refused(String),
}

impl Case {
    fn create(name: &str, new: Value, expect: Expect) -> Self {
        Self { name: name.to_owned(), old: None, new, status: false, expect }
    }
}

fn refused(words: &str) -> Expect {
    Expect::Refused(words.to_owned())
}

/// Every rule, with what it accepts and what it refuses.
pub fn rules() -> Vec<Case> {
    hub::cases().into_iter().chain(process::cases()).collect()
}

/// The smallest hub.
pub fn hub() -> Value {
    hub::smallest()
}

/// The smallest process.
pub fn process() -> Value {
    process::smallest()
}

#[cfg(test)]
mod tests;

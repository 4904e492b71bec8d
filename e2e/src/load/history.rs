//! What the clients did and saw, one line an operation, so that it can be written by one process and judged by another.

use serde::{Deserialize, Serialize};

/// One request to add one to a process's counter, numbered by its client and never sent twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// The process it was sent to.
    pub process: String,
    /// The client's name, unique in a run.
    pub client: String,
    /// The client's number for it, counted from 1 for each process.
    pub number: u64,
    /// Whether it was sent on a connection of its own.
    pub fresh: bool,
    /// Wall clock when it was sent, in microseconds since the epoch.
    pub sent: u64,
    /// Wall clock when its outcome was known.
    pub done: u64,
    /// What came of it.
    pub outcome: Outcome,
}

/// What a client knows of an operation afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Outcome {
    /// Answered: the counter's value after it.
    Acknowledged {
        /// That value; no other operation may ever get it.
        value: u64,
    },
    /// Refused before it was executed: the answer's status, or no connection (0).
    Refused {
        /// HTTP status.
        status: u16,
        /// What the answer said, cut to a line.
        message: String,
    },
    /// It may or may not have been executed.
    Unknown {
        /// What was seen.
        message: String,
    },
}

impl Operation {
    /// The value, if it was acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> Option<u64> {
        match self.outcome {
            Outcome::Acknowledged { value } => Some(value),
            Outcome::Refused { .. } | Outcome::Unknown { .. } => None,
        }
    }
}

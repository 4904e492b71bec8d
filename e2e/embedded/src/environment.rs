//! Clock and randomness of a cluster outside of a simulation.

use crate::api::registry::Environment;
use std::hash::{BuildHasher, RandomState};

/// The machine's clock, and numbers from the standard library's random hash keys.
#[derive(Debug, Default)]
pub struct Machine {
    keys: RandomState,
    count: u64,
}

impl Environment for Machine {
    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::now()
    }

    fn random(&mut self) -> u64 {
        self.count += 1;
        self.keys.hash_one(self.count)
    }
}

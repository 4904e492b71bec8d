//! The exhaustive exploration of the shipped state machines.

pub mod explore;
pub mod intern;
pub mod message;
pub mod model;
pub mod names;
pub mod operator;
pub mod promise;
pub mod scenario;
pub mod sidecar;
pub mod state;
pub mod step;
pub mod surroundings;
pub mod words;

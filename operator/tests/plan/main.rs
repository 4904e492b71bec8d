//! The planner as a whole: scripted scenarios with golden outputs, and properties over random histories.

// Helpers of tests may panic as tests may; clippy knows only the tests themselves.
#![allow(clippy::unwrap_used)]

mod properties;
mod scenarios;
mod script;
mod world;

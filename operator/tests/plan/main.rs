//! The planner as a whole: scripted scenarios with golden outputs, and properties over random histories.

// Helpers of tests may panic as tests may; clippy knows only the tests themselves.
#![allow(clippy::unwrap_used)]

// Each of those who share it needs a part of it.
#[allow(dead_code)]
#[path = "../../src/plan/fixture.rs"]
mod fixture;
mod properties;
mod scenarios;
mod script;
mod world;

//! The planner as a whole: scripted scenarios with golden outputs, and properties over random histories.

mod properties;
mod scenarios;
mod script;
mod world;

//! The API server: a synchronous core ([`store`], [`registry`]) with thin routes ([`server`]).

pub mod audit;
mod builtin;
mod crd;
mod discovery;
pub mod error;
pub mod handle;
mod jsonpath;
pub mod kinds;
pub mod object;
mod patch;
mod pods;
pub mod registry;
mod schema;
pub mod selector;
pub mod server;
pub mod store;
mod table;

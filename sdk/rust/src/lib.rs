//! What the author of a worker uses: implement [`Worker`] for the thing that holds the state, hand it to [`run`] together
//! with the router that serves clients, and the process can be moved, upgraded and brought back with its state.
//!
//! ```no_run
//! use std::sync::{Arc, Mutex};
//!
//! use axum::{Router, extract::State, routing::post};
//! use processhub_sdk::{ApplyContext, Config, Imported, Part, Refusal, Worker, run};
//!
//! #[derive(Default)]
//! struct Tally(Mutex<u64>);
//!
//! impl Worker for Tally {
//!     type State = u64;
//!
//!     fn capture(&self) -> Result<Vec<Part>, Refusal> {
//!         Ok(vec![Part::json("state", &*self.0.lock().unwrap())?])
//!     }
//!
//!     fn decode(&self, state: &Imported, _: &ApplyContext) -> Result<u64, Refusal> {
//!         state.json("state")
//!     }
//!
//!     fn install(&self, state: u64) {
//!         *self.0.lock().unwrap() = state;
//!     }
//! }
//!
//! async fn add(State(tally): State<Arc<Tally>>) -> String {
//!     let mut value = tally.0.lock().unwrap();
//!     *value += 1;
//!     value.to_string()
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), processhub_sdk::RunError> {
//!     let tally = Arc::new(Tally::default());
//!     let clients = Router::new().route("/add", post(add)).with_state(tally.clone());
//!     run(tally, clients, Config::from_env()?).await
//! }
//! ```
//!
//! What the library takes care of: a client's request runs only while the worker is Active, anything else is answered
//! 503 with `ProcessHub-State` and is not executed; `suspend` is answered only when the last request is done, so that
//! what was answered is in the capture; a state is decoded before the old one is replaced, so that a refused one changes
//! nothing; stale and repeated commands are told apart; everything that comes in is bounded.
//!
//! What is left to the author: change the state only in client requests and in the methods of [`Worker`], or stop what
//! else changes it in [`Worker::suspend`]; no timers and no effects outside before [`Worker::activate`].

mod capture;
mod clients;
mod config;
mod control;
mod core;
mod gate;
mod import;
#[cfg(test)]
mod openapi;
mod part;
mod server;
mod steps;
mod tracked;
mod worker;

pub use axum;
pub use bytes::Bytes;
pub use config::{Config, ConfigError};
pub use import::{ImportSink, Imported, MemorySink};
pub use part::{Part, PartSource, Pieces};
pub use processhub_protocol::contract::{
    CapturePurpose, Consent, ConsentRequest, Direction, Name, PartName, ProcessInfo, Reason, WorkerState,
};
pub use processhub_protocol::id::{Epoch, Seq};
pub use server::{RunError, Server, run};
pub use steps::Steps;
pub use tracked::{Blob, Key, Record, Table, Tables, Track, Tracked, TrackedPart, Value};
pub use worker::{Activation, ApplyContext, CodeChange, OldVsn, Refusal, Worker};

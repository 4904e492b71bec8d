//! Clients that make loss and duplication visible: they number their requests, never send one twice, and know nothing
//! of a process but its stable address.

mod client;
mod driver;
mod history;
mod remote;

pub use client::{Client, ClientOptions, Speech, fetch, send};
pub use driver::{Load, Target};
pub use history::{Operation, Outcome};
pub use remote::{Answer, Answers, Call, Calling, Order, RemoteLoad, Word};

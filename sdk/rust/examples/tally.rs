//! The worker of the guide (docs/guide.md): it counts, and its count moves with it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use processhub_sdk::axum::{Router, extract::State, routing::post};
use processhub_sdk::{ApplyContext, Config, Imported, Part, Refusal, RunError, Worker, run};

#[derive(Default)]
struct Tally(Mutex<u64>);

impl Tally {
    fn value(&self) -> MutexGuard<'_, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Worker for Tally {
    type State = u64;

    /// The worker is suspended: no request runs, nothing changes the value.
    fn capture(&self) -> Result<Vec<Part>, Refusal> {
        Ok(vec![Part::json("state", &*self.value())?])
    }

    /// Makes a state out of bytes and changes nothing yet: what is refused here aborts the move, and the source goes on.
    fn decode(&self, state: &Imported, _: &ApplyContext) -> Result<u64, Refusal> {
        state.json("state")
    }

    /// Takes the place of the present state.
    fn install(&self, state: u64) {
        *self.value() = state;
    }
}

async fn add(State(tally): State<Arc<Tally>>) -> String {
    let mut value = tally.value();
    *value += 1;
    format!("{value}\n")
}

#[tokio::main]
async fn main() -> Result<(), RunError> {
    let tally = Arc::new(Tally::default());
    let clients = Router::new().route("/add", post(add)).with_state(Arc::clone(&tally));
    run(tally, clients, Config::from_env()?).await
}

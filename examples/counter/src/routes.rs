//! What clients may ask.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use crate::ballast::{Weight, weigh as weigh_ballast};
use crate::faults::{Fault, Point};
use crate::ledger::Increment;
use crate::worker::{Counter, Origin};

/// Longest key of the table, in bytes.
const MAX_KEY: usize = 256;
/// Longest value of the table, and longest body of a request, in bytes.
const MAX_BODY: usize = 64 << 10;
/// Most entries of the table.
const MAX_ENTRIES: usize = 10_000;
/// Longest delay that a client may ask for, in milliseconds.
const MAX_DELAY: u64 = 60_000;

/// Answered in every state of the worker.
pub const HEALTH: &str = "/healthz";

type Refused = (StatusCode, String);

/// The clients' router. `faults`: whether they may switch faults on.
pub fn router(counter: Arc<Counter>, faults: bool) -> Router {
    let mut router = Router::new()
        .route("/increment", post(increment))
        .route("/audit", get(audit))
        .route("/table/{key}", put(write).get(read))
        .route("/ballast", get(weigh))
        .route("/origin", get(origin))
        .route(HEALTH, get(async || "ok\n"));
    if faults {
        router = router.route("/faults", put(set_faults));
    }
    router.layer(DefaultBodyLimit::max(MAX_BODY)).with_state(counter)
}

#[derive(Deserialize)]
struct Numbered {
    client: String,
    number: u64,
}

#[derive(Deserialize)]
struct Delay {
    #[serde(default)]
    delay: u64,
}

async fn increment(
    State(counter): State<Arc<Counter>>,
    Query(Delay { delay }): Query<Delay>,
    body: Result<Json<Numbered>, JsonRejection>,
) -> Result<Json<Increment>, Refused> {
    let Json(Numbered { client, number }) = body.map_err(|error| (error.status(), error.body_text()))?;
    if delay > MAX_DELAY {
        return Err((StatusCode::BAD_REQUEST, format!("`delay` is at most {MAX_DELAY} milliseconds")));
    }
    tokio::time::sleep(Duration::from_millis(delay)).await;
    if counter.faults.strike_request(Point::Increment).await {
        return Err((StatusCode::UNPROCESSABLE_ENTITY, "refused, as the test asked for".into()));
    }
    let done = counter.holdings.change(|holdings| holdings.ledger.increment(&client, number));
    counter.faults.strike_request(Point::Answer).await;
    done.map(Json).map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))
}

/// What a checker compares with the history of the clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// The counter.
    pub value: u64,
    /// Applications beyond the first of a client's number.
    pub duplicates: u64,
    /// For each client the applied numbers, as inclusive ranges in order.
    pub clients: std::collections::BTreeMap<String, Vec<(u64, u64)>>,
}

async fn audit(State(counter): State<Arc<Counter>>) -> Json<Audit> {
    let ledger = counter.holdings.read(|holdings| holdings.ledger.clone());
    let clients = ledger.clients().iter().map(|(client, ranges)| (client.clone(), ranges.clone()));
    Json(Audit { value: ledger.value(), duplicates: ledger.duplicates(), clients: clients.collect() })
}

async fn write(
    State(counter): State<Arc<Counter>>,
    Path(key): Path<String>,
    value: String,
) -> Result<StatusCode, Refused> {
    if key.len() > MAX_KEY {
        return Err((StatusCode::BAD_REQUEST, format!("a key has at most {MAX_KEY} bytes")));
    }
    counter.holdings.change(|holdings| {
        if !holdings.table.contains_key(&key) && holdings.table.len() >= MAX_ENTRIES {
            let message = format!("the table has at most {MAX_ENTRIES} entries");
            return Err((StatusCode::INSUFFICIENT_STORAGE, message));
        }
        holdings.table.insert(key, value);
        Ok(StatusCode::NO_CONTENT)
    })
}

async fn read(State(counter): State<Arc<Counter>>, Path(key): Path<String>) -> Result<String, StatusCode> {
    counter.holdings.read(|holdings| holdings.table.get(&key).cloned()).ok_or(StatusCode::NOT_FOUND)
}

/// What this worker was told of the state that it was given; null for one that began here.
async fn origin(State(counter): State<Arc<Counter>>) -> Json<Option<Origin>> {
    Json(counter.origin())
}

async fn weigh(State(counter): State<Arc<Counter>>) -> Result<Json<Weight>, Refused> {
    let (pieces, made_as) =
        counter.holdings.read(|holdings| (Arc::clone(holdings.ballast.pieces()), *holdings.made_as));
    let weighed = tokio::task::spawn_blocking(move || weigh_ballast(&pieces, made_as)).await;
    weighed.map(Json).map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

async fn set_faults(State(counter): State<Arc<Counter>>, body: String) -> Result<StatusCode, Refused> {
    let faults: Result<Vec<Fault>, _> = body.split_whitespace().map(str::parse).collect();
    counter.faults.set(faults.map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?);
    Ok(StatusCode::NO_CONTENT)
}

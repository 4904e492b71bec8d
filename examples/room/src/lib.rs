//! A game room over WebSocket. When the process moves its players' connections are closed with 1012, "come again"; they
//! connect again, wait until the new owner serves, and find their scores.
//!
//! | request | |
//! |---|---|
//! | `GET /room?player=ann`, a WebSocket | `{"n": 1, "points": 3}` is answered `{"n": 1, "score": 3}`; plays of others come as `{"player": "bob", "score": 7}` |
//! | `POST /plays/ann`, the same body | the same answer, for players without a WebSocket; without `n` it is the next play |
//! | `GET /scores` | `{"ann": {"plays": 1, "score": 3}}` |
//! | `GET /healthz` | 200 in every state |
//!
//! A player numbers its plays from 1 and says the last one again when its answer was lost with a connection: a number that
//! has been played is answered and not played again. So nothing is lost and nothing counts twice, whatever happens between.

mod room;
mod socket;

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use processhub_sdk::Config;
use serde_json::Value;

pub use room::{Play, Player, Refused, Room, Score};

/// Answered in every state of the worker.
const HEALTH: &str = "/healthz";

/// Serves a room until SIGTERM.
///
/// # Errors
/// When an address is not to be had, or serving ends by itself.
pub async fn run(at: Config) -> anyhow::Result<()> {
    let room = Arc::new(Room::default());
    Ok(processhub_sdk::run(Arc::clone(&room), clients(room), at.probes([HEALTH])).await?)
}

fn clients(room: Arc<Room>) -> Router {
    Router::new()
        .route("/room", get(socket::enter))
        .route("/plays/{player}", post(play))
        .route("/scores", get(async |State(room): State<Arc<Room>>| Json(room.scores())))
        .route(HEALTH, get(async || StatusCode::OK))
        .with_state(room)
}

async fn play(
    State(room): State<Arc<Room>>,
    Path(player): Path<String>,
    Json(play): Json<Play>,
) -> Result<Json<Score>, (StatusCode, Json<Value>)> {
    room.play(&player, play).map(Json).map_err(|refused| (refused.status(), Json(refused.body())))
}

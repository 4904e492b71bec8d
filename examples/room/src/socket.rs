//! A player's WebSocket.

use std::sync::Arc;

use axum::Json;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;

use crate::room::{Play, Refused, Room, check_name};

/// Largest message of a player, in bytes.
const MAX_MESSAGE: usize = 4096;

/// Who enters.
#[derive(Deserialize)]
pub(crate) struct Who {
    player: String,
}

/// Lets a player in.
pub(crate) async fn enter(
    State(room): State<Arc<Room>>,
    Query(who): Query<Who>,
    upgrade: WebSocketUpgrade,
) -> Response {
    if let Err(refused) = check_name(&who.player) {
        return (refused.status(), Json(refused.body())).into_response();
    }
    upgrade.max_message_size(MAX_MESSAGE).on_upgrade(async move |mut socket| {
        let end = stay(&room, &who.player, &mut socket).await;
        if let Some(code) = end {
            // Who has gone already cannot be told.
            let _ = socket.send(Message::Close(Some(CloseFrame { code, reason: "".into() }))).await;
        }
    })
}

/// Plays until the player goes; with which code the room ends it, if it is the room that does.
async fn stay(room: &Room, player: &str, socket: &mut WebSocket) -> Option<u16> {
    let mut news = room.news();
    loop {
        let answer = tokio::select! {
            said = socket.recv() => match said?.ok()? {
                Message::Text(text) => match play(room, player, &text) {
                    Ok(answer) => answer,
                    Err(Refused::Closed) => return Some(close_code::RESTART),
                    Err(refused @ Refused::Rule(_)) => refused.body(),
                },
                Message::Binary(_) => return Some(close_code::UNSUPPORTED),
                Message::Ping(_) | Message::Pong(_) => continue,
                Message::Close(_) => return None,
            },
            told = news.recv() => match told {
                Ok((other, score)) if other != player => json!({ "player": other, "score": score }),
                // It is the player's own, or one that a slow player has missed.
                Ok(_) | Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return None,
            },
        };
        socket.send(Message::Text(answer.to_string().into())).await.ok()?;
    }
}

fn play(room: &Room, player: &str, text: &str) -> Result<Value, Refused> {
    let play: Play = serde_json::from_str(text)
        .map_err(|error| Refused::Rule(format!("a play is {{\"n\": 1, \"points\": 3}}: {error}")))?;
    room.play(player, play).map(|score| json!(score))
}

//! A game room over WebSocket moves with its players: the manifest of `examples/room`, as it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::Finding;
use crate::site::Site;
use crate::trial::{HubOptions, Trial};

const MANIFEST: &str = include_str!("../../../examples/room/hub.yaml");
const ROOM: &str = "room-0";
const PLAYERS: usize = 4;
const POINTS: u64 = 3;
const MOVES: u64 = 3;
/// How long an answer may take, a move included.
const PATIENCE: Duration = Duration::from_secs(30);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What a player has been through.
#[derive(Debug, Default)]
struct Diary {
    name: String,
    /// Plays that were answered.
    plays: u64,
    /// Plays that were said again over another connection.
    again: u64,
    /// Connections that were ended with "come again".
    restarts: u64,
    /// Connections that ended in any other way.
    breaks: Vec<String>,
}

/// How a connection ended.
enum End {
    /// In an orderly way, with status 1012.
    Restart,
    /// Otherwise.
    Broken(String),
}

/// Players come again when they are told to, and nothing is lost and nothing counts twice.
pub(super) async fn a_game_room_moves_with_its_players(site: &Site) -> Result<Finding> {
    let manifest: Value = serde_saphyr::from_str(MANIFEST)?;
    let options = HubOptions::of("room", 2).driven(0).spec(manifest["spec"].clone()).checkpointed();
    let mut trial = Trial::create(site, "room", options, None).await?;
    trial.settled().await?;
    let address = trial.address(ROOM).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let players: Vec<_> = (0..PLAYERS)
        .map(|player| {
            let url = format!("ws://{address}/room?player=player-{player}");
            tokio::spawn(play(format!("player-{player}"), url, Arc::clone(&stop)))
        })
        .collect();
    for _ in 0..MOVES {
        sleep(Duration::from_secs(1)).await;
        let before = trial.epoch(ROOM).await?;
        let to = trial.wish_away(ROOM).await?;
        let moved = trial.swap_ended(ROOM, before).await?;
        ensure!(moved.succeeded() && moved.to.as_deref() == Some(&to), "{moved:?}");
    }
    sleep(Duration::from_secs(1)).await;
    stop.store(true, Ordering::Relaxed);
    let mut diaries = Vec::new();
    for player in players {
        diaries.push(player.await??);
    }
    let answer = trial.ask(ROOM, "GET", "/scores", "").await?.answer().await?;
    judge(&diaries, &serde_json::from_str(&answer.body)?)
}

fn judge(diaries: &[Diary], scores: &Value) -> Result<Finding> {
    for Diary { name, plays, breaks, restarts, .. } in diaries {
        ensure!(*plays > 20, "{name} did next to nothing: {plays} plays");
        let expected = json!({"plays": plays, "score": plays * POINTS});
        ensure!(scores[name] == expected, "{name} was answered {expected}, the room has {}", scores[name]);
        // A connection that was made while the process moved may lead through the old pod, and ends with that once more.
        ensure!(
            (MOVES..=2 * MOVES).contains(restarts),
            "{name}: one or two \"come again\" for each of {MOVES} moves, not {restarts}"
        );
        ensure!(breaks.is_empty(), "{name}: {breaks:?}");
    }
    let sum = |of: fn(&Diary) -> u64| diaries.iter().map(of).sum::<u64>();
    Ok(format!(
        "{} plays answered, 0 lost, 0 twice, {} said again, {} connections ended with 1012, none otherwise",
        sum(|diary| diary.plays),
        sum(|diary| diary.again),
        sum(|diary| diary.restarts),
    ))
}

/// Plays without a pause; says a play again whose answer was lost with the connection.
async fn play(name: String, url: String, stop: Arc<AtomicBool>) -> Result<Diary> {
    let mut diary = Diary { name, ..Diary::default() };
    while !stop.load(Ordering::Relaxed) {
        let (mut socket, _) =
            timeout(PATIENCE, connect_async(&url)).await.context("nobody lets players in")??;
        let end = loop {
            if stop.load(Ordering::Relaxed) {
                // Who is not there any more need not be told.
                let _ = socket.close(None).await;
                return Ok(diary);
            }
            let n = diary.plays + 1;
            match one(&mut socket, n).await? {
                Ok(()) => diary.plays = n,
                Err(end) => break end,
            }
            sleep(Duration::from_millis(5)).await;
        };
        diary.again += 1;
        match end {
            End::Restart => diary.restarts += 1,
            End::Broken(how) => diary.breaks.push(how),
        }
    }
    Ok(diary)
}

/// One play, until its answer; news of others are listened to.
async fn one(socket: &mut Socket, n: u64) -> Result<Result<(), End>> {
    let play = json!({"n": n, "points": POINTS}).to_string();
    // Whether the other side is still there shows when it is listened to.
    let _ = socket.send(Message::text(play)).await;
    loop {
        let heard = timeout(PATIENCE, socket.next()).await.context("no answer to a play")?;
        let text = match heard {
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(Message::Close(Some(frame)))) if frame.code == CloseCode::Restart => {
                return Ok(Err(End::Restart));
            }
            Some(Ok(Message::Close(frame))) => return Ok(Err(End::Broken(format!("{frame:?}")))),
            Some(Ok(_)) => continue,
            Some(Err(error)) => return Ok(Err(End::Broken(error.to_string()))),
            None => return Ok(Err(End::Broken("the connection has ended".to_owned()))),
        };
        let said: Value = serde_json::from_str(&text)?;
        if said.get("player").is_some() {
            continue;
        }
        ensure!(said == json!({"n": n, "score": n * POINTS}), "play {n} was answered {said}");
        return Ok(Ok(()));
    }
}

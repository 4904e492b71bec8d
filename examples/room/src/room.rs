//! The room's state and its rules.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::StatusCode;
use processhub_sdk::{Activation, Reason, Refusal, Table, Tables, Track, Tracked, TrackedPart, Worker};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::broadcast;

/// Most that one play is worth.
const MAX_POINTS: u64 = 1000;
/// Longest name of a player.
const MAX_NAME: usize = 32;
/// Most players that a room remembers.
const MAX_PLAYERS: usize = 10_000;
/// Plays that a slow player may miss the news of.
const NEWS: usize = 256;

/// A play, numbered by its player.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Play {
    /// From 1 on, without gaps. Without it, it is the next one, and may count twice if it is said again.
    pub n: Option<u64>,
    /// What it is worth.
    pub points: u64,
}

/// The answer to a play.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Score {
    /// The play's number.
    pub n: u64,
    /// What the player has now.
    pub score: u64,
}

/// What the room knows of a player.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Player {
    /// How many plays have been played.
    pub plays: u64,
    /// What they were worth together.
    pub score: u64,
}

/// Why a play does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The room is moving; nothing was changed.
    Closed,
    /// The play breaks the rule that these words name.
    Rule(String),
}

impl Refused {
    /// The answer over HTTP.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Closed => StatusCode::SERVICE_UNAVAILABLE,
            Self::Rule(_) => StatusCode::BAD_REQUEST,
        }
    }

    /// The answer's body.
    #[must_use]
    pub fn body(&self) -> Value {
        match self {
            Self::Closed => json!({ "error": "the room is moving; come again" }),
            Self::Rule(words) => json!({ "error": words }),
        }
    }
}

#[derive(Clone, Default)]
struct Floor {
    players: Table<String, Player>,
}

impl Tables for Floor {
    fn parts(&mut self) -> Vec<(&'static str, &mut dyn TrackedPart)> {
        vec![("table.players", &mut self.players)]
    }
}

/// A room.
pub struct Room {
    floor: Tracked<Floor>,
    /// Plays come over connections that outlive their request, so that the library does not know when they end: the room
    /// itself lets nothing change while it is suspended. Read and written only with the floor held.
    open: AtomicBool,
    news: broadcast::Sender<(String, u64)>,
}

impl Default for Room {
    fn default() -> Self {
        let news = broadcast::Sender::new(NEWS);
        Self { floor: Tracked::new(Floor::default()), open: AtomicBool::new(false), news }
    }
}

impl Room {
    /// Plays, or answers again what was played already.
    ///
    /// # Errors
    /// When the room is closed or the play breaks a rule. Nothing was changed then.
    pub fn play(&self, player: &str, play: Play) -> Result<Score, Refused> {
        check_name(player)?;
        if play.points > MAX_POINTS {
            return Err(Refused::Rule(format!("points: at most {MAX_POINTS}")));
        }
        let already = self.floor.read(|floor| self.played(floor, player, play))?;
        if let Some(score) = already {
            return Ok(score);
        }
        let score = self.floor.try_change(|floor| {
            // Another connection of the same player may have been faster.
            if let Some(score) = self.played(floor, player, play)? {
                return Ok(score);
            }
            let mut known = floor.players.get(player).copied().unwrap_or_default();
            known.plays += 1;
            known.score += play.points;
            floor.players.insert(player.to_owned(), known);
            Ok(Score { n: known.plays, score: known.score })
        })?;
        // Nobody may be listening.
        let _ = self.news.send((player.to_owned(), score.score));
        Ok(score)
    }

    /// The score, if that number was played already; a refusal if it cannot be played.
    fn played(&self, floor: &Floor, player: &str, play: Play) -> Result<Option<Score>, Refused> {
        if !self.open.load(Ordering::Relaxed) {
            return Err(Refused::Closed);
        }
        let known = floor.players.get(player);
        if known.is_none() && floor.players.len() >= MAX_PLAYERS {
            return Err(Refused::Rule(format!("the room is full: it remembers {MAX_PLAYERS} players")));
        }
        let known = known.copied().unwrap_or_default();
        let next = known.plays + 1;
        match play.n.unwrap_or(next) {
            n if n == next => Ok(None),
            n if (1..next).contains(&n) => Ok(Some(Score { n, score: known.score })),
            _ => Err(Refused::Rule(format!("n: the next play of {player} is {next}"))),
        }
    }

    /// What all players have.
    #[must_use]
    pub fn scores(&self) -> BTreeMap<String, Player> {
        self.floor.read(|floor| floor.players.iter().map(|(name, player)| (name.clone(), *player)).collect())
    }

    /// Tells of every play from now on: who, and its score.
    #[must_use]
    pub fn news(&self) -> broadcast::Receiver<(String, u64)> {
        self.news.subscribe()
    }

    fn set_open(&self, open: bool) {
        self.floor.read(|_| self.open.store(open, Ordering::Relaxed));
    }
}

/// Letters, digits and hyphens.
///
/// # Errors
/// When a name has anything else, is empty or too long.
pub(crate) fn check_name(name: &str) -> Result<(), Refused> {
    let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(good) {
        return Ok(());
    }
    Err(Refused::Rule(format!("player: 1 to {MAX_NAME} of a-z, 0-9 and -")))
}

impl Worker for Room {
    type State = ();

    fn tracked(&self) -> Option<&dyn Track> {
        Some(&self.floor)
    }

    fn activate(&self, _: &Activation) -> Result<(), Refusal> {
        self.set_open(true);
        Ok(())
    }

    fn suspend(&self, _: Reason) -> Result<(), Refusal> {
        self.set_open(false);
        Ok(())
    }

    fn resume(&self) {
        self.set_open(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn play(n: u64, points: u64) -> Play {
        Play { n: Some(n), points }
    }

    fn open() -> Room {
        let room = Room::default();
        room.set_open(true);
        room
    }

    #[test]
    fn a_play_counts_once_however_often_it_is_said() {
        let room = open();
        let mut news = room.news();
        assert_eq!(room.play("ann", play(1, 3)), Ok(Score { n: 1, score: 3 }));
        assert_eq!(room.play("ann", play(1, 3)), Ok(Score { n: 1, score: 3 }));
        assert_eq!(room.play("ann", play(2, 4)), Ok(Score { n: 2, score: 7 }));
        assert_eq!(room.scores()["ann"], Player { plays: 2, score: 7 });
        assert_eq!(news.try_recv(), Ok(("ann".into(), 3)));
        assert_eq!(news.try_recv(), Ok(("ann".into(), 7)));
        assert!(news.try_recv().is_err());
    }

    #[test]
    fn what_breaks_a_rule_is_refused_in_words_and_changes_nothing() {
        let room = open();
        for (player, said, words) in [
            ("ann", play(2, 3), "n: the next play of ann is 1"),
            ("ann", play(0, 3), "n: the next play of ann is 1"),
            ("ann", play(1, 1001), "points: at most 1000"),
            ("Ann", play(1, 3), "player: 1 to 32 of a-z, 0-9 and -"),
            ("", play(1, 3), "player: 1 to 32 of a-z, 0-9 and -"),
        ] {
            assert_eq!(room.play(player, said), Err(Refused::Rule(words.to_owned())));
        }
        assert!(room.scores().is_empty());
    }

    #[test]
    fn a_room_that_is_suspended_changes_no_more() {
        let room = open();
        room.suspend(Reason::Handover).unwrap();
        assert_eq!(room.play("ann", play(1, 3)), Err(Refused::Closed));
        room.resume();
        assert!(room.play("ann", play(1, 3)).is_ok());
    }
}

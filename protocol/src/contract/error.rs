//! Refusals: what a worker says when it does not do as it was asked, and what its caller does about it.

use serde::{Deserialize, Serialize};

use super::{MAX_MESSAGE, WorkerState};
use crate::id::Epoch;

/// Body of every answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErrorBody {
    /// What kind of refusal it is.
    pub code: ErrorCode,
    /// What was wrong and what mends it, for people; at most [`MAX_MESSAGE`] bytes. Never holds bytes of the state.
    #[serde(default)]
    pub message: String,
    /// With `StaleEpoch` and `WrongState`: what the worker is doing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<WorkerState>,
    /// With `StaleEpoch` and `WrongState`: the highest epoch that the worker has seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// With `WrongOffset`: how many bytes of the part the worker has; the next slice starts there, or at 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub have: Option<u64>,
}

/// The kinds of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ErrorCode {
    /// The command's epoch is below the highest seen, or another command has used it.
    StaleEpoch,
    /// The call does not fit the worker's state.
    WrongState,
    /// The slice neither continues the part nor starts it over.
    WrongOffset,
    /// Not every byte of every part was uploaded.
    Incomplete,
    /// A delta on another `seq` than the one that the worker holds, or the worker takes no deltas.
    WrongBase,
    /// `activate` says `initial` and a state was applied, or does not say it and none was.
    InitialMismatch,
    /// The worker cannot take this state.
    CannotAccept,
    /// Larger than the contract or the worker allows.
    TooLarge,
    /// Not what the contract describes.
    BadRequest,
    /// No such capture, part or call.
    NotFound,
    /// This worker has no state to capture.
    NoState,
    /// Not now.
    Busy,
    /// The worker failed.
    Internal,
    /// A code that this side does not know.
    #[serde(other)]
    Other,
}

impl ErrorCode {
    /// The HTTP status that goes with the code.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::StaleEpoch
            | Self::WrongState
            | Self::WrongOffset
            | Self::Incomplete
            | Self::WrongBase
            | Self::InitialMismatch => 409,
            Self::CannotAccept => 422,
            Self::TooLarge => 413,
            Self::BadRequest => 400,
            Self::NotFound => 404,
            Self::NoState => 501,
            Self::Busy => 503,
            Self::Internal | Self::Other => 500,
        }
    }
}

impl ErrorBody {
    /// A refusal with a cleaned message.
    #[must_use]
    pub fn new(code: ErrorCode, message: &str) -> Self {
        Self { code, message: clean(message), state: None, epoch: None, have: None }
    }

    /// What a caller received, made fit to be shown: the message is cleaned and cut.
    #[must_use]
    pub fn cleaned(mut self) -> Self {
        self.message = clean(&self.message);
        self
    }
}

/// One line of at most [`MAX_MESSAGE`] bytes: control characters become spaces, so that a message cannot forge lines of
/// a log or move a terminal's cursor.
#[must_use]
pub fn clean(message: &str) -> String {
    let mut clean = String::with_capacity(message.len().min(MAX_MESSAGE));
    for character in message.trim().chars() {
        let character = if character.is_control() { ' ' } else { character };
        if clean.len() + character.len_utf8() > MAX_MESSAGE {
            break;
        }
        clean.push(character);
    }
    clean
}

/// Whether this HTTP status on a call that a worker need not have (`capture`, `consent`, `code-change`) says that it has
/// none.
#[must_use]
pub fn is_not_offered(status: u16) -> bool {
    matches!(status, 404 | 405 | 501)
}

/// What a caller does about an answer (rule 8 of the contract).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Disposition {
    /// Done as asked.
    Done,
    /// `capture` only: this worker has no state, it moves without.
    NoState,
    /// Abort; the same would be refused again.
    Abort,
    /// Not now: repeat while there is time.
    Wait,
    /// Repeat a few times, then abort.
    Retry,
}

impl Disposition {
    /// From the HTTP status of an answer of any call; `capture` says whether the call was `POST /v1/capture`.
    #[must_use]
    pub fn of(status: u16, capture: bool) -> Self {
        match status {
            200..=299 => Self::Done,
            status if capture && is_not_offered(status) => Self::NoState,
            413 | 422 => Self::Abort,
            429 | 503 => Self::Wait,
            _ => Self::Retry,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_short_line_whatever_came_in() {
        assert_eq!(clean("  two\nlines\u{1b}[2J "), "two lines [2J");
        let long = clean(&"é".repeat(MAX_MESSAGE));
        assert_eq!(long.len(), MAX_MESSAGE);
        assert!(long.chars().all(|character| character == 'é'));
    }

    #[test]
    fn a_code_of_a_later_version_is_still_a_refusal() {
        let body: ErrorBody =
            serde_json::from_str(r#"{"code":"FromTheFuture","message":"x","more":1}"#).unwrap();
        assert_eq!(body.code, ErrorCode::Other);
    }

    #[test]
    fn the_caller_knows_what_to_do_from_the_status_alone() {
        assert_eq!(Disposition::of(204, false), Disposition::Done);
        for status in [404, 405, 501] {
            assert_eq!(Disposition::of(status, true), Disposition::NoState);
            assert_eq!(Disposition::of(status, false), Disposition::Retry);
        }
        assert_eq!(Disposition::of(422, true), Disposition::Abort);
        assert_eq!(Disposition::of(413, false), Disposition::Abort);
        assert_eq!(Disposition::of(429, true), Disposition::Wait);
        assert_eq!(Disposition::of(503, false), Disposition::Wait);
        assert_eq!(Disposition::of(409, false), Disposition::Retry);
        assert_eq!(Disposition::of(500, true), Disposition::Retry);
    }

    #[test]
    fn optional_fields_are_left_out() {
        let text = serde_json::to_string(&ErrorBody::new(ErrorCode::Busy, "later")).unwrap();
        assert_eq!(text, r#"{"code":"Busy","message":"later"}"#);
    }
}

//! The words in which faults are asked for.

use std::str::FromStr;

/// One fault. As text `name` or `name=value`, see [`Fault::from_str`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// `refuse=POINT`: says no (422) there.
    Refuse(Point),
    /// `hang=POINT:MILLISECONDS`: is slow there.
    Hang(Point, u64),
    /// `crash=POINT`: ends there, at once, with status 70.
    Crash(Point),
    /// `exit=POINT:STATUS`: ends there, at once, with that status.
    Exit(Point, u8),
    /// `exhaust=POINT`: takes memory there until it is ended for it.
    Exhaust(Point),
    /// `mangle=CALL:HOW`: answers that call of the contract wrongly.
    Mangle(Call, How),
    /// `number=HOW`: numbers its answers to clients wrongly.
    Number(Numbering),
}

/// Where a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Point {
    /// In the suspend hook.
    Suspend,
    /// While the state is captured for a move.
    Capture,
    /// While the state is captured for a checkpoint.
    Checkpoint,
    /// While a state that came in is decoded.
    Import,
    /// In the activate hook.
    Activate,
    /// While its code changes.
    CodeChange,
    /// When a caller of the contract goes away in the middle of a call.
    Hangup,
    /// In a client's increment, before it is applied.
    Increment,
    /// In a client's increment, after it was applied and before it is answered.
    Answer,
}

/// A call of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// `GET /v1/info`
    Info,
    /// `POST /v1/consent`
    Consent,
    /// `POST /v1/suspend`
    Suspend,
    /// `POST /v1/resume`
    Resume,
    /// `POST /v1/capture` for a move
    Capture,
    /// `POST /v1/capture` for a checkpoint
    Checkpoint,
    /// `GET /v1/capture/{id}/{part}`
    Read,
    /// `PUT /v1/import/{id}/{part}`
    Put,
    /// `POST /v1/import/{id}/apply`
    Apply,
    /// `POST /v1/code-change`
    CodeChange,
    /// `POST /v1/activate`
    Activate,
}

/// What is wrong with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    /// A megabyte where a few bytes were to be.
    TooLarge,
    /// Ten seconds late.
    TooSlow,
    /// Its connection breaks off half-way.
    CutShort,
    /// Text that is no JSON.
    NotJson,
    /// Of version 2 of the contract.
    OtherVersion,
    /// 204 to everything: refusals are lost.
    AlwaysYes,
    /// 204, and nothing is done.
    Pretended,
    /// 501: not implemented.
    Missing,
    /// 409 `WrongState`, whatever the state is.
    WrongState,
    /// 409 to a call that comes again.
    Once,
    /// Another answer every time.
    Fickle,
    /// A delta on another number than the one that was asked for.
    OtherSince,
    /// 204 to whoever says what he has: nothing changed.
    Unchanged,
    /// 204 to a delta, and nothing is done.
    DeltaPretended,
    /// 400 to a `mayMiss`.
    NoMayMiss,
    /// 400 to a field that it does not know.
    Strict,
    /// The same `instance` after each start.
    SameInstance,
}

/// What is wrong with the numbers of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Numbering {
    /// Numbers that no state has yet.
    Ahead,
    /// The same one for ever.
    Stuck,
    /// No number at all.
    Text,
}

/// A text that names no fault.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no fault: use refuse=POINT, hang=POINT:MILLISECONDS, crash=POINT, exhaust=POINT, exit=POINT:STATUS, \
     mangle=CALL:HOW or number=ahead|stuck|text, with POINT one of suspend capture checkpoint import activate code-change hangup increment \
     answer, CALL one of info consent suspend resume capture checkpoint read put apply code-change activate, HOW one of \
     too-large too-slow cut-short not-json other-version always-yes pretended missing wrong-state once fickle \
     other-since unchanged delta-pretended no-may-miss strict same-instance"
)]
pub struct UnknownFault(String);

impl FromStr for Fault {
    type Err = UnknownFault;

    fn from_str(text: &str) -> Result<Self, UnknownFault> {
        parse(text).ok_or_else(|| UnknownFault(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Fault> {
    let (kind, value) = text.split_once('=')?;
    Some(match kind {
        "refuse" => Fault::Refuse(point(value)?),
        "crash" => Fault::Crash(point(value)?),
        "exhaust" => Fault::Exhaust(point(value)?),
        "hang" => {
            let (at, milliseconds) = value.split_once(':')?;
            Fault::Hang(point(at)?, milliseconds.parse().ok()?)
        }
        "exit" => {
            let (at, status) = value.split_once(':')?;
            Fault::Exit(point(at)?, status.parse().ok()?)
        }
        "mangle" => {
            let (at, how) = value.split_once(':')?;
            Fault::Mangle(call(at)?, manner(how)?)
        }
        "number" => Fault::Number(match value {
            "ahead" => Numbering::Ahead,
            "stuck" => Numbering::Stuck,
            "text" => Numbering::Text,
            _ => return None,
        }),
        _ => return None,
    })
}

fn point(text: &str) -> Option<Point> {
    Some(match text {
        "suspend" => Point::Suspend,
        "capture" => Point::Capture,
        "checkpoint" => Point::Checkpoint,
        "code-change" => Point::CodeChange,
        "hangup" => Point::Hangup,
        "import" => Point::Import,
        "activate" => Point::Activate,
        "increment" => Point::Increment,
        "answer" => Point::Answer,
        _ => return None,
    })
}

fn call(text: &str) -> Option<Call> {
    Some(match text {
        "info" => Call::Info,
        "suspend" => Call::Suspend,
        "resume" => Call::Resume,
        "capture" => Call::Capture,
        "checkpoint" => Call::Checkpoint,
        "consent" => Call::Consent,
        "code-change" => Call::CodeChange,
        "read" => Call::Read,
        "put" => Call::Put,
        "apply" => Call::Apply,
        "activate" => Call::Activate,
        _ => return None,
    })
}

fn manner(text: &str) -> Option<How> {
    Some(match text {
        "too-large" => How::TooLarge,
        "too-slow" => How::TooSlow,
        "cut-short" => How::CutShort,
        "not-json" => How::NotJson,
        "other-version" => How::OtherVersion,
        "always-yes" => How::AlwaysYes,
        "pretended" => How::Pretended,
        "missing" => How::Missing,
        "wrong-state" => How::WrongState,
        "once" => How::Once,
        "fickle" => How::Fickle,
        "other-since" => How::OtherSince,
        "unchanged" => How::Unchanged,
        "delta-pretended" => How::DeltaPretended,
        "no-may-miss" => How::NoMayMiss,
        "strict" => How::Strict,
        "same-instance" => How::SameInstance,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_from_text() {
        assert_eq!("refuse=import".parse(), Ok(Fault::Refuse(Point::Import)));
        assert_eq!("hang=capture:250".parse(), Ok(Fault::Hang(Point::Capture, 250)));
        assert_eq!("crash=answer".parse(), Ok(Fault::Crash(Point::Answer)));
        assert_eq!("exhaust=increment".parse(), Ok(Fault::Exhaust(Point::Increment)));
        assert_eq!("mangle=info:too-large".parse(), Ok(Fault::Mangle(Call::Info, How::TooLarge)));
        assert_eq!(
            "mangle=checkpoint:unchanged".parse(),
            Ok(Fault::Mangle(Call::Checkpoint, How::Unchanged))
        );
        assert_eq!("number=ahead".parse(), Ok(Fault::Number(Numbering::Ahead)));
        for bad in [
            "",
            "number=up",
            "refuse",
            "refuse=lunch",
            "hang=capture",
            "hang=capture:soon",
            "mangle=info",
            "sulk=capture",
        ] {
            assert!(bad.parse::<Fault>().unwrap_err().to_string().contains("is no fault"), "{bad}");
        }
    }
}

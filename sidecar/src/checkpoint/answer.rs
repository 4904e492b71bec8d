//! When an answer of the own worker may go to its client.

use http::{HeaderMap, Method, StatusCode};
use processhub_protocol::contract::{CaptureMode, HEADER_SEQ, MAX_INTEGER};
use processhub_protocol::id::Seq;
use processhub_protocol::wire::CheckpointClass;

use super::{Need, Vain};
use crate::fence::Stored;
use crate::sidecar::{Live, Seen, Sidecar};

/// An answer, as far as it matters here.
#[derive(Clone, Debug)]
pub(crate) struct Answered {
    /// Its number, where the worker gave it one.
    seq: Option<Seq>,
    /// Its request may have changed the state.
    changes: bool,
    /// The connection is another protocol's from here on.
    switched: bool,
}

/// What is to be done before it goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// Nothing: it tells of nothing that could be lost.
    Go,
    /// Nothing but remembering that it went.
    GoExposed,
    /// The state with its number has to be on disk.
    Seq(Seq),
    /// A state captured from now on has to be on disk.
    Capture,
}

impl Answered {
    pub(crate) fn new(method: &Method, status: StatusCode, headers: &HeaderMap) -> Self {
        let number = headers.get(HEADER_SEQ).and_then(|value| value.to_str().ok()?.parse().ok());
        Self {
            seq: number.filter(|seq| *seq <= MAX_INTEGER),
            changes: !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS),
            switched: status == StatusCode::SWITCHING_PROTOCOLS,
        }
    }

    /// `class` is what the hub chose, `live` whether the worker can be captured while it serves.
    fn rule(&self, class: Option<CheckpointClass>, live: bool) -> Rule {
        match (class, self.seq) {
            (Some(CheckpointClass::None | CheckpointClass::Async), _) => Rule::GoExposed,
            // What an upgraded connection changes has no number, and nobody can hold it back.
            _ if !live || self.switched => Rule::GoExposed,
            (_, Some(seq)) => Rule::Seq(seq),
            (Some(CheckpointClass::Sync), None) if self.changes => Rule::Capture,
            (Some(CheckpointClass::Sync), None) => Rule::Go,
            (None, None) => Rule::GoExposed,
        }
    }
}

impl Live {
    /// Whether the worker can be captured while it serves.
    pub(crate) fn captures_live(&self) -> bool {
        matches!(&self.worker, Seen::Contract(info) if info.capture == CaptureMode::Live)
            && self.can_hand_over != Some(false)
    }
}

impl Sidecar {
    /// Waits until this answer may go out. `line` is the worker that its request went to.
    ///
    /// # Errors
    /// The worker has died with what the answer tells of, or its state was not to be had in time: what came of the request
    /// is not known.
    pub(crate) async fn secure(&self, answered: Answered, line: u64) -> Result<(), Vain> {
        let live = self.live().captures_live();
        let need = match answered.rule(self.config.checkpoint.class, live) {
            Rule::Go => return Ok(()),
            Rule::GoExposed => {
                return self.expose(&answered, line).await;
            }
            Rule::Seq(seq) => Need::Seq(seq),
            Rule::Capture => Need::After(self.checkpoints.progress.borrow().begun),
        };
        let met = tokio::time::timeout(self.config.hold.time, self.checkpoints.met(need, line)).await;
        met.unwrap_or_else(|_| {
            tracing::warn!("an answer could not be made durable in time");
            Err(Vain)
        })?;
        if let Need::Seq(seq) = need {
            let mut live = self.live();
            live.exposure.released = live.exposure.released.max(seq);
        }
        Ok(())
    }

    /// An answer goes out whose change may be in no state on disk; where that is the exception it is noted on disk, for a
    /// sidecar that starts anew.
    async fn expose(&self, answered: &Answered, line: u64) -> Result<(), Vain> {
        {
            let exposure = &mut self.live().exposure;
            // What its worker's death took has been reckoned up: this answer is not in that, so it must not go out.
            if self.checkpoints.line() != line {
                return Err(Vain);
            }
            match answered.seq {
                _ if answered.switched => exposure.opaque = true,
                Some(seq) => exposure.released = exposure.released.max(seq),
                None => exposure.unnumbered += 1,
            }
        }
        self.note_exposure().await;
        self.holders_know_of_exposure().await
    }

    /// A connection is passed through to the worker on which nobody here knows what an answer is.
    pub(crate) async fn expose_connection(&self) {
        self.live().exposure.opaque = true;
        self.note_exposure().await;
    }

    async fn note_exposure(&self) {
        if self.config.checkpoint.exposes_all() || self.fence.stored().exposed {
            return;
        }
        let commit = self.fence.commit(|stored| Ok(Stored { exposed: true, ..stored.clone() }));
        if let Err(error) = commit.await {
            tracing::warn!(%error, "not noted that an answer went out before its state was on disk");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(method: Method, seq: Option<Seq>) -> Answered {
        let mut headers = HeaderMap::new();
        if let Some(seq) = seq {
            headers.insert(HEADER_SEQ, seq.into());
        }
        Answered::new(&method, StatusCode::OK, &headers)
    }

    #[test]
    fn an_answer_goes_out_when_its_class_allows_it() {
        use CheckpointClass as C;
        let (get, post) = (Method::GET, Method::POST);
        for (class, method, seq, rule) in [
            (Some(C::None), &post, Some(7), Rule::GoExposed),
            (Some(C::Async), &post, Some(7), Rule::GoExposed),
            (Some(C::Sync), &post, Some(7), Rule::Seq(7)),
            // Also what is only read may tell of a change that is not on disk yet.
            (Some(C::Sync), &get, Some(7), Rule::Seq(7)),
            (Some(C::Sync), &post, None, Rule::Capture),
            (Some(C::Sync), &get, None, Rule::Go),
            (None, &post, Some(7), Rule::Seq(7)),
            (None, &post, None, Rule::GoExposed),
        ] {
            let answered = answered(method.clone(), seq);
            assert_eq!(answered.rule(class, true), rule, "{class:?} {method} {seq:?}");
            assert_eq!(answered.rule(class, false), Rule::GoExposed, "{class:?} without live capture");
        }
    }

    #[test]
    fn a_number_that_is_none_is_no_number() {
        let mut headers = HeaderMap::new();
        for text in ["", "-1", "x", "9007199254740992", "18446744073709551616"] {
            headers.insert(HEADER_SEQ, text.parse().unwrap());
            assert_eq!(Answered::new(&Method::POST, StatusCode::OK, &headers).seq, None, "{text}");
        }
    }

    #[test]
    fn nothing_is_promised_for_an_upgraded_connection() {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER_SEQ, 7u64.into());
        let answered = Answered::new(&Method::GET, StatusCode::SWITCHING_PROTOCOLS, &headers);
        assert_eq!(answered.rule(Some(CheckpointClass::Sync), true), Rule::GoExposed);
    }
}

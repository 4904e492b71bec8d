//! A state on its way out: the parts of the captures that are held, and how much of each was given out.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use axum::body::HttpBody;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use processhub_protocol::contract::{
    CaptureAnswer, CapturePart, CapturePurpose, CaptureSummary, ErrorBody, ErrorCode, MAX_PARTS, Name,
    PartName, PartSize,
};
use tokio::sync::mpsc;

use crate::part::PartSource;
use crate::tracked::Snapshot;

/// The captures of a worker: for each purpose at most one that can be read, and the counts of the one that was deleted
/// last. A move and a checkpoint do not get into each other's way.
#[derive(Default)]
pub(crate) struct Captures {
    held: BTreeMap<CapturePurpose, Held>,
    deleted: BTreeMap<CapturePurpose, (Name, CaptureSummary)>,
    count: u64,
}

struct Held {
    answer: CaptureAnswer,
    parts: BTreeMap<PartName, Out>,
}

#[derive(Clone)]
struct Out {
    source: Arc<dyn PartSource>,
    /// Bytes that the longest read so far gave out.
    given: Arc<AtomicU64>,
}

impl Captures {
    /// The capture that is held for that purpose, if any: the same state is captured once.
    pub(crate) fn held(&self, purpose: CapturePurpose) -> Option<&CaptureAnswer> {
        self.held.get(&purpose).map(|held| &held.answer)
    }

    /// Holds a new capture in place of any other of that purpose.
    pub(crate) fn hold(
        &mut self,
        purpose: CapturePurpose,
        instance: &str,
        vsn: String,
        snapshot: Snapshot,
    ) -> Result<CaptureAnswer, ErrorBody> {
        let Snapshot { seq, since, parts } = snapshot;
        if parts.len() > MAX_PARTS {
            let message =
                format!("the worker captured {} parts, at most {MAX_PARTS} are allowed", parts.len());
            return Err(ErrorBody::new(ErrorCode::Internal, &message));
        }
        self.count += 1;
        let name = format!("{instance}-{}", self.count);
        let capture =
            name.parse().map_err(|_| ErrorBody::new(ErrorCode::Internal, "the capture got a bad name"))?;
        let mut answer = CaptureAnswer { capture, seq, vsn, since, parts: Vec::new() };
        let mut held = BTreeMap::new();
        for part in parts {
            let (name, source) = (part.name().clone(), Arc::clone(part.source()));
            answer.parts.push(CapturePart { name: name.clone(), bytes: source.size() });
            if held.insert(name.clone(), Out { source, given: Arc::default() }).is_some() {
                let message = format!("the worker captured two parts named `{name}`");
                return Err(ErrorBody::new(ErrorCode::Internal, &message));
            }
        }
        self.held.insert(purpose, Held { answer: answer.clone(), parts: held });
        Ok(answer)
    }

    /// The bytes of one part.
    pub(crate) fn read(&self, capture: &Name, part: &PartName) -> Result<PartBody, ErrorBody> {
        let held = self.held.values().find(|held| &held.answer.capture == capture);
        let out = held.and_then(|held| held.parts.get(part)).cloned();
        out.map(PartBody::start).ok_or_else(|| {
            let message =
                format!("no part `{part}` of a capture `{capture}`: it was deleted, or the worker resumed");
            ErrorBody::new(ErrorCode::NotFound, &message)
        })
    }

    /// Forgets a capture and says how long its parts were.
    pub(crate) fn delete(&mut self, capture: &Name) -> Result<CaptureSummary, ErrorBody> {
        let purpose = self.held.iter().find(|(_, held)| &held.answer.capture == capture);
        let purpose = purpose.map(|(purpose, _)| *purpose);
        if let Some((purpose, held)) = purpose.and_then(|purpose| self.held.remove_entry(&purpose)) {
            let size = |(name, out): (PartName, Out)| PartSize {
                name,
                bytes: out.source.size().unwrap_or_else(|| out.given.load(Ordering::Relaxed)),
            };
            let summary = CaptureSummary { parts: held.parts.into_iter().map(size).collect() };
            self.deleted.insert(purpose, (capture.clone(), summary));
        }
        match self.deleted.values().find(|(name, _)| name == capture) {
            Some((_, summary)) => Ok(summary.clone()),
            None => {
                let message = format!("no capture `{capture}`: the worker has restarted or resumed since");
                Err(ErrorBody::new(ErrorCode::NotFound, &message))
            }
        }
    }

    /// The state may change from now on.
    pub(crate) fn clear(&mut self) {
        self.held.clear();
    }
}

/// The bytes of a part as they are produced, a few pieces ahead of the reader at most.
pub(crate) struct PartBody {
    pieces: mpsc::Receiver<std::io::Result<Bytes>>,
    size: Option<u64>,
}

impl PartBody {
    fn start(out: Out) -> Self {
        let (sender, pieces) = mpsc::channel(2);
        let size = out.source.size();
        tokio::task::spawn_blocking(move || {
            let mut given = 0;
            for piece in out.source.pieces() {
                given += piece.as_ref().map_or(0, |piece| piece.len() as u64);
                out.given.fetch_max(given, Ordering::Relaxed);
                let last = piece.is_err();
                // A reader that went away needs no more.
                if sender.blocking_send(piece).is_err() || last {
                    break;
                }
            }
        });
        Self { pieces, size }
    }
}

impl HttpBody for PartBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        self.pieces.poll_recv(cx).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }

    fn size_hint(&self) -> SizeHint {
        self.size.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

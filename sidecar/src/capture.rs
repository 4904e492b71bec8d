//! The worker's state onto disk, for a move and for a checkpoint alike.

use std::future::Future;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use processhub_protocol::contract::{
    CaptureAnswer, CapturePart, CapturePurpose, CaptureRequest, CaptureSummary, Disposition, PartSize,
};
use processhub_protocol::id::Seq;
use processhub_protocol::wire::FailureKind;
use tokio::time::Instant;

use crate::keeper::{Manifest, Recorder};
use crate::sidecar::Sidecar;
use crate::worker::WorkerError;

/// How often a refused call is repeated before it is given up.
const ATTEMPTS: u32 = 3;
/// Pause before a call is repeated.
const PAUSE: Duration = Duration::from_millis(20);

/// Why a state was not captured.
pub(crate) struct Failed {
    /// What kind of failure it is.
    pub(crate) kind: FailureKind,
    /// In words.
    pub(crate) message: String,
    /// Nothing listens where the worker should: it is dead, and its state with it.
    pub(crate) dead: bool,
}

impl Failed {
    pub(crate) fn capture(message: impl ToString) -> Self {
        Self { kind: FailureKind::CaptureFailed, message: message.to_string(), dead: false }
    }
}

/// Whose state it must be. A worker that was started anew may answer a capture with what it begins with.
pub(crate) struct Whose<'a> {
    /// The start of the worker that holds the state.
    pub(crate) instance: &'a str,
    /// The lowest number that its state can have.
    pub(crate) least: Seq,
}

impl From<WorkerError> for Failed {
    fn from(error: WorkerError) -> Self {
        let kind =
            if error.timed_out() { FailureKind::StateQueryTimeout } else { FailureKind::CaptureFailed };
        Self { kind, message: error.to_string(), dead: error.unreachable() }
    }
}

/// What a capture came to.
pub(crate) enum Captured {
    /// The state is on disk.
    State(Manifest),
    /// It is the one that the request named.
    Unchanged,
    /// The worker has none.
    NoState,
}

impl Sidecar {
    /// Captures as `request` says, into `recorder`; on disk when this returns. `time` bounds each call and each pause of a
    /// stream. The caller has the turn at the worker ([`crate::checkpoint`]) and has seen `whose` before: seen again when
    /// all was read, it is who gave all of it.
    pub(crate) async fn capture(
        &self,
        request: &CaptureRequest,
        whose: Whose<'_>,
        mut recorder: Recorder,
        time: Duration,
    ) -> Result<Captured, Failed> {
        let answer = match self.repeat(time, true, || self.worker.capture(request, time)).await {
            Ok(Some(answer)) => answer,
            Ok(None) if request.unless_seq.is_some() => return Ok(Captured::Unchanged),
            Ok(None) => return Err(Failed::capture("the worker answered 204 and was not asked to")),
            Err(error) if error.disposition(true) == Disposition::NoState => {
                self.change(|live| live.can_hand_over = Some(false));
                return Ok(Captured::NoState);
            }
            Err(error) => return Err(error.into()),
        };
        if answer.since.is_some() {
            return Err(Failed::capture("the worker captured a delta and was asked for the whole state"));
        }
        if answer.seq < whose.least {
            let message =
                format!("the worker's state has number {}, and {} is kept", answer.seq, whose.least);
            return Err(Failed::capture(message));
        }
        let mut sizes = Vec::with_capacity(answer.parts.len());
        for part in &answer.parts {
            sizes.push(self.read_part(&answer, part, &mut recorder, time).await?);
        }
        let agreed = self.agreed(&answer, sizes, whose.instance);
        let recorded = async { recorder.finish(answer.seq, answer.vsn.clone()).await?.synced().await };
        let manifest = match request.purpose {
            // By its file alone it is the newest state (`crate::keeper`): it must not be there before it is known to be whole.
            CapturePurpose::Checkpoint => {
                agreed.await?;
                recorded.await.map_err(Failed::capture)?
            }
            // Only a record makes it one, and its blackout waits.
            CapturePurpose::Handover => {
                let (recorded, agreed) = tokio::join!(recorded, agreed);
                agreed?;
                recorded.map_err(Failed::capture)?
            }
        };
        self.metrics.state_bytes.set(manifest.state.bytes);
        Ok(Captured::State(manifest))
    }

    /// Whether the worker gave out what arrived here, and is still the one that was asked.
    async fn agreed(
        &self,
        answer: &CaptureAnswer,
        mut arrived: Vec<PartSize>,
        instance: &str,
    ) -> Result<(), Failed> {
        let (summary, still) =
            tokio::join!(self.worker.end_capture(&answer.capture), self.is_still(instance));
        still?;
        let CaptureSummary { parts: mut given } = summary?;
        given.sort_by(|a, b| a.name.cmp(&b.name));
        arrived.sort_by(|a, b| a.name.cmp(&b.name));
        let cut = "the worker gave out other lengths than arrived here: the capture was cut short";
        if given == arrived { Ok(()) } else { Err(Failed::capture(cut)) }
    }

    /// Whether the worker is the start of it that is meant.
    pub(crate) async fn is_still(&self, instance: &str) -> Result<(), Failed> {
        let now = self.worker.info().await?.instance;
        if now == instance {
            return Ok(());
        }
        Err(Failed { dead: true, ..Failed::capture("the worker was started anew meanwhile") })
    }

    async fn read_part(
        &self,
        answer: &CaptureAnswer,
        part: &CapturePart,
        recorder: &mut Recorder,
        time: Duration,
    ) -> Result<PartSize, Failed> {
        recorder.part(part.name.clone(), part.bytes).await.map_err(Failed::capture)?;
        let mut body = self.worker.part(&answer.capture, &part.name, time).await?;
        let mut bytes = 0;
        while let Some(piece) = next_piece(&mut body, part, time).await? {
            bytes += piece.len() as u64;
            recorder.bytes(piece).await.map_err(Failed::capture)?;
        }
        Ok(PartSize { name: part.name.clone(), bytes })
    }

    /// Calls until it is done, as the contract says: later when the worker asks for it, a few times otherwise.
    pub(crate) async fn repeat<T, F>(
        &self,
        time: Duration,
        capture: bool,
        mut call: impl FnMut() -> F,
    ) -> Result<T, WorkerError>
    where
        F: Future<Output = Result<T, WorkerError>>,
    {
        let deadline = Instant::now() + time;
        let mut attempts = 0;
        loop {
            let error = match call().await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            attempts += 1;
            let again = match error.disposition(capture) {
                Disposition::Wait => true,
                Disposition::Retry => attempts < ATTEMPTS && !error.timed_out() && !error.unreachable(),
                Disposition::Done | Disposition::NoState | Disposition::Abort => false,
            };
            if !again || Instant::now() + PAUSE >= deadline {
                return Err(error);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn next_piece(
    body: &mut Incoming,
    part: &CapturePart,
    time: Duration,
) -> Result<Option<bytes::Bytes>, Failed> {
    loop {
        let frame = tokio::time::timeout(time, body.frame()).await.map_err(|_| Failed {
            kind: FailureKind::StateQueryTimeout,
            message: format!("part `{}` of the capture stands still", part.name),
            dead: false,
        })?;
        match frame {
            None => return Ok(None),
            Some(Ok(frame)) => {
                if let Ok(bytes) = frame.into_data() {
                    return Ok(Some(bytes));
                }
            }
            Some(Err(_)) => {
                return Err(Failed::capture(format!("part `{}` of the capture was cut short", part.name)));
            }
        }
    }
}

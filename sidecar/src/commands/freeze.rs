//! Freeze: hold, drain, suspend, capture, record. Let go: hold, drain, record.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use processhub_protocol::contract::error::clean;
use processhub_protocol::contract::{
    CaptureAnswer, CapturePart, CapturePurpose, CaptureRequest, Disposition, PartSize, Reason, SuspendRequest,
};
use processhub_protocol::fence::Role;
use processhub_protocol::id::{Epoch, StateId};
use processhub_protocol::wire::{Failure, FailureKind, Freeze, LetGo};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Outcome;
use crate::fence::{CommitError, Stored};
use crate::keeper::Recorder;
use crate::sidecar::{Fenced, Seen, Sidecar};
use crate::worker::WorkerError;

/// How often a refused call is repeated before the freeze is given up.
const ATTEMPTS: u32 = 3;
/// Pause before a call is repeated.
const PAUSE: Duration = Duration::from_millis(20);

/// Why a freeze did not come to its end.
struct Failed {
    kind: FailureKind,
    message: String,
}

impl Failed {
    fn capture(message: impl ToString) -> Self {
        Self { kind: FailureKind::CaptureFailed, message: message.to_string() }
    }
}

impl From<WorkerError> for Failed {
    fn from(error: WorkerError) -> Self {
        let kind =
            if error.timed_out() { FailureKind::StateQueryTimeout } else { FailureKind::CaptureFailed };
        Self { kind, message: error.to_string() }
    }
}

impl Sidecar {
    /// Holds from now on, whatever comes of it: only a thaw or a forward ends that.
    pub(super) async fn freeze(self: &Arc<Self>, command: &Freeze, cancel: &CancellationToken) -> Outcome {
        self.change(|live| live.failure = None);
        self.fence_off();
        let sealed = tokio::select! {
            sealed = self.seal(command) => sealed,
            () = cancel.cancelled() => return Ok(()),
        };
        let failed = match sealed {
            Ok(state) => {
                let (freeze, seal) = (command.clone(), state.clone());
                let commit = self.fence.commit(move |stored| {
                    let record = stored.record.freeze_done(&freeze, seal)?;
                    Ok(Stored { record, ..stored.clone() })
                });
                match commit.await {
                    Ok(_) => {
                        let now = self.clock.milliseconds();
                        self.change(|live| {
                            live.frozen_since = Some(now);
                            live.dirty &= state.is_none();
                        });
                        return Ok(());
                    }
                    Err(CommitError::Refused(refusal)) => return Err(refusal),
                    Err(error) => Failed::capture(error),
                }
            }
            Err(failed) => failed,
        };
        tracing::warn!(epoch = %command.epoch, kind = ?failed.kind, "the freeze failed: {}", failed.message);
        self.change(|live| {
            live.failure =
                Some(Failure { epoch: command.epoch, kind: failed.kind, message: clean(&failed.message) });
        });
        Ok(())
    }

    /// The process was deleted: what is in flight may finish, and nothing is acknowledged after that.
    pub(super) async fn let_go(self: &Arc<Self>, command: &LetGo) -> Outcome {
        self.fence_off();
        self.drain(command.epoch, command.drain_timeout_milliseconds).await;
        let order = command.clone();
        let commit = self.fence.commit(move |stored| {
            let record = stored.record.let_go_done(&order)?;
            Ok(Stored { record, source: None, ..stored.clone() })
        });
        commit.await.map_err(|error| self.refused(error))?;
        self.settle();
        Ok(())
    }

    /// Requests are held from now on; when that was so before, the same blackout goes on.
    fn fence_off(&self) {
        self.change(|live| {
            let since = live.fenced.map_or_else(Instant::now, |fenced| fenced.since);
            live.fenced = Some(Fenced { since });
        });
    }

    /// Lets what is in flight finish, and cuts what does not.
    async fn drain(&self, epoch: Epoch, milliseconds: u64) {
        let time = Duration::from_millis(milliseconds);
        if tokio::time::timeout(time, self.hold.drained()).await.is_err() {
            tracing::warn!(%epoch, "requests still in flight after the drain are cut");
            self.hold.cut();
        }
    }

    async fn seal(&self, command: &Freeze) -> Result<Option<StateId>, Failed> {
        self.drain(command.epoch, command.drain_timeout_milliseconds).await;
        let contract = !matches!(self.live().worker, Seen::Plain);
        let time = Duration::from_millis(command.state_query_timeout_milliseconds);
        let request = SuspendRequest { epoch: command.epoch, reason: Reason::Handover };
        if !command.capture {
            // Nothing is carried over, so a worker that cannot be suspended, or has crashed, loses nothing by it: its
            // sidecar relays nothing more.
            if contract
                && let Err(error) = self.repeat(time, false, || self.worker.suspend(&request, time)).await
            {
                tracing::warn!(epoch = %command.epoch, %error, "sealed without suspending the worker");
            }
            return Ok(None);
        }
        if !contract {
            return Ok(None);
        }
        self.repeat(time, false, || self.worker.suspend(&request, time)).await?;
        self.capture(command.epoch, time).await
    }

    /// The worker's state onto disk; `None` when it has none.
    async fn capture(&self, epoch: Epoch, time: Duration) -> Result<Option<StateId>, Failed> {
        let request =
            CaptureRequest { epoch, purpose: CapturePurpose::Handover, since: None, unless_seq: None };
        let answer = match self.repeat(time, true, || self.worker.capture(&request, time)).await {
            Ok(answer) => {
                answer.ok_or_else(|| Failed::capture("the worker answered 204 and was not asked to"))?
            }
            Err(error) if error.disposition(true) == Disposition::NoState => {
                self.change(|live| live.can_hand_over = Some(false));
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        if answer.since.is_some() {
            return Err(Failed::capture("the worker captured a delta and was asked for the whole state"));
        }
        let mut recorder = self.keeper.record();
        let mut sizes = Vec::with_capacity(answer.parts.len());
        for part in &answer.parts {
            sizes.push(self.read_part(&answer, part, &mut recorder, time).await?);
        }
        let synced = async { recorder.finish(answer.seq, answer.vsn.clone()).await?.synced().await };
        let (synced, summary) = tokio::join!(synced, self.worker.end_capture(&answer.capture));
        let mut given = summary?.parts;
        given.sort_by(|a, b| a.name.cmp(&b.name));
        sizes.sort_by(|a, b| a.name.cmp(&b.name));
        if given != sizes {
            return Err(Failed::capture(
                "the worker gave out other lengths than arrived here: the capture was cut short",
            ));
        }
        let manifest = synced.map_err(Failed::capture)?;
        self.metrics.state_bytes.set(manifest.state.bytes);
        Ok(Some(manifest.state))
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
    async fn repeat<T, F>(
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

    /// Whether a freeze left this pod sealed.
    pub(crate) fn frozen(&self) -> bool {
        matches!(self.fence.record().role, Role::Frozen { .. })
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

//! Carries out the commands of the contract: asks the machine, does the work, tells the machine.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use bytes::Bytes;
use processhub_protocol::contract::machine::{Abilities, Machine, Step};
use processhub_protocol::contract::{
    ActivateRequest, ApplyRequest, CONTRACT_VERSION, CaptureAnswer, CaptureMode, CaptureRequest,
    CaptureSummary, CodeChangeRequest, ConsentAnswer, ConsentRequest, ErrorBody, ErrorCode, Info, Name,
    PartName, Reason, ResumeRequest, SuspendRequest,
};
use tokio::sync::{Mutex as AsyncMutex, oneshot};

use crate::capture::{Captures, PartBody};
use crate::gate::Gate;
use crate::import::{Import, Imported};
use crate::tracked::Snapshot;
use crate::worker::{Activation, ApplyContext, CodeChange, OldVsn, Refusal, Worker};

/// A worker with everything that the contract asks of it.
pub(crate) struct Core<W> {
    worker: Arc<W>,
    instance: String,
    pub(crate) gate: Arc<Gate>,
    import: Mutex<Import>,
    captures: Mutex<Captures>,
    /// Held while one command does its work: the worker's methods are called one at a time.
    one_at_a_time: Arc<AsyncMutex<()>>,
}

type Answer<T> = Result<T, ErrorBody>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<W: Worker> Core<W> {
    pub(crate) fn new(worker: Arc<W>) -> Arc<Self> {
        let random = || RandomState::new().build_hasher().finish();
        let tracked = worker.tracked().is_some();
        let abilities = Abilities { live: tracked || worker.captured_live(), deltas: tracked };
        let counting = Arc::clone(&worker);
        let numbers = Box::new(move || counting.tracked().map(|tracked| tracked.number()));
        Arc::new(Self {
            worker,
            instance: format!("{:016x}{:016x}", random(), random()),
            gate: Arc::new(Gate::new(Machine::new(abilities), numbers)),
            import: Mutex::default(),
            captures: Mutex::default(),
            one_at_a_time: Arc::default(),
        })
    }

    /// Runs `work` on a thread that may block, alone. Once begun it goes through, also when the caller hangs up: a hook
    /// that ran is never forgotten by the machine. The thread is not the runtime's, which would wait for it: a method
    /// that hangs must not keep the program from ending.
    async fn alone<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Answer<T> + Send + 'static,
    ) -> Answer<T> {
        let turn = Arc::clone(&self.one_at_a_time).lock_owned().await;
        let core = Arc::clone(self);
        let (sender, done) = oneshot::channel();
        let thread = thread::Builder::new().name("worker".into()).spawn(move || {
            let _turn = turn;
            // Nobody listens any more when the caller hung up.
            let _ = sender.send(work(&core));
        });
        let failed = |what: &str| ErrorBody::new(ErrorCode::Internal, what);
        thread.map_err(|error| failed(&format!("the worker has no thread for this call: {error}")))?;
        done.await.unwrap_or_else(|_| Err(failed("the worker panicked in this call; its log says why")))
    }

    pub(crate) fn info(&self) -> Info {
        let (state, epoch) = self.gate.machine(|machine| (machine.state(), machine.epoch()));
        let vsn = self.worker.vsn();
        let (capture, delta_from) = match self.worker.tracked() {
            Some(_) => (CaptureMode::Live, vec![vsn.clone()]),
            None if self.worker.captured_live() => (CaptureMode::Live, Vec::new()),
            None => (CaptureMode::Suspended, Vec::new()),
        };
        Info {
            contract: CONTRACT_VERSION,
            instance: self.instance.clone(),
            vsn,
            state,
            epoch,
            seq: self.gate.seq(),
            capture,
            delta_from,
            accepts_from: self.worker.accepts_from(),
            load: self.worker.load(),
            consent: self.worker.asks_consent(),
        }
    }

    pub(crate) async fn consent(self: &Arc<Self>, request: ConsentRequest) -> Answer<ConsentAnswer> {
        if !self.worker.asks_consent() {
            return Err(Refusal::not_offered("this worker does not ask to be asked: just move it").0);
        }
        self.alone(move |core| {
            core.gate.machine(|machine| machine.consent())?;
            Ok(ConsentAnswer { answer: core.worker.consent(&request) })
        })
        .await
    }

    pub(crate) async fn suspend(self: &Arc<Self>, request: SuspendRequest) -> Answer<()> {
        let SuspendRequest { epoch, reason } = request;
        self.alone(move |core| core.gate.machine(|machine| machine.suspend(epoch))).await?;
        self.gate.drained(epoch).await?;
        self.alone(move |core| {
            if core.gate.machine(|machine| machine.drained(epoch))? == Step::Again {
                return Ok(());
            }
            let stopped = core.worker.suspend(reason);
            // Whatever the worker did to its state by itself ended here.
            core.gate.advance();
            core.gate.machine(|machine| machine.suspended(epoch, stopped.is_ok()));
            stopped.map_err(|refusal| refusal.0)
        })
        .await
    }

    pub(crate) async fn resume(self: &Arc<Self>, request: ResumeRequest) -> Answer<()> {
        let ResumeRequest { epoch } = request;
        self.alone(move |core| {
            if core.gate.machine(|machine| machine.resume(epoch))? == Step::Run {
                // The capture goes first: from here on the state is no longer what it says.
                lock(&core.captures).clear();
                core.worker.resume();
                core.gate.machine(|machine| machine.resumed(epoch));
            }
            Ok(())
        })
        .await
    }

    /// `None`: nothing changed since `unlessSeq`.
    pub(crate) async fn capture(self: &Arc<Self>, request: CaptureRequest) -> Answer<Option<CaptureAnswer>> {
        self.alone(move |core| {
            let CaptureRequest { epoch, purpose, since, unless_seq } = request;
            core.gate.machine(|machine| machine.capture(epoch))?;
            core.worker.before_capture(purpose).map_err(|refusal| refusal.0)?;
            let (seq, tracked) = match core.worker.tracked() {
                // Before the capture: what runs meanwhile may be in it, and has its number later.
                None => (core.gate.seq(), None),
                Some(tracked) => {
                    let snapshot = tracked.snapshot(since).map_err(|refusal| refusal.0)?;
                    (snapshot.seq, Some(snapshot))
                }
            };
            if unless_seq == Some(seq) {
                return Ok(None);
            }
            let delta_on = tracked.as_ref().and_then(|snapshot| snapshot.since);
            let held = lock(&core.captures).held(purpose).cloned();
            if let Some(held) = held.filter(|held| (held.seq, held.since) == (seq, delta_on)) {
                return Ok(Some(held));
            }
            let snapshot = match tracked {
                Some(snapshot) => snapshot,
                None => {
                    let parts = core.worker.capture().map_err(|refusal| refusal.0)?;
                    Snapshot { seq, since: None, parts }
                }
            };
            lock(&core.captures).hold(purpose, &core.instance, core.worker.vsn(), snapshot).map(Some)
        })
        .await
    }

    pub(crate) async fn change_code(self: &Arc<Self>, request: CodeChangeRequest) -> Answer<()> {
        self.alone(move |core| {
            if core.gate.machine(|machine| machine.change_code(&request))? == Step::Again {
                return Ok(());
            }
            let CodeChangeRequest { from, to, direction, extra, .. } = request.clone();
            let own = core.worker.vsn();
            if from != own {
                let message = format!("this worker is `{own}`, not `{from}`: ask GET /v1/info first");
                return Err(ErrorBody::new(ErrorCode::CannotAccept, &message));
            }
            let change = CodeChange { from: OldVsn::new(direction, &from), to: to.clone(), extra };
            core.worker.change_code(&change).map_err(|refusal| refusal.0)?;
            // What was captured is the state as the other code had it.
            lock(&core.captures).clear();
            match core.worker.tracked() {
                Some(tracked) => tracked.renew(),
                None => drop(core.gate.advance()),
            }
            let own = core.worker.vsn();
            if own != to {
                let message = format!("`change_code` was done, and `vsn` says `{own}` instead of `{to}`");
                return Err(ErrorBody::new(ErrorCode::Internal, &message));
            }
            core.gate.machine(|machine| machine.code_changed(&request));
            Ok(())
        })
        .await
    }

    pub(crate) fn read(&self, capture: &Name, part: &PartName) -> Answer<PartBody> {
        lock(&self.captures).read(capture, part)
    }

    pub(crate) fn delete_capture(&self, capture: &Name) -> Answer<CaptureSummary> {
        lock(&self.captures).delete(capture)
    }

    pub(crate) fn upload(&self) -> Answer<()> {
        self.gate.machine(|machine| machine.upload())
    }

    pub(crate) async fn put(
        self: &Arc<Self>,
        import: Name,
        part: PartName,
        offset: u64,
        slice: Bytes,
    ) -> Answer<()> {
        self.alone(move |core| {
            core.upload()?;
            lock(&core.import).put(core.worker.as_ref(), &import, &part, offset, slice)
        })
        .await
    }

    pub(crate) async fn apply(self: &Arc<Self>, import: Name, request: ApplyRequest) -> Answer<()> {
        self.alone(move |core| {
            if core.gate.machine(|machine| machine.apply(&import, &request))? == Step::Again {
                return Ok(());
            }
            core.accepts(&request)?;
            let imported = lock(&core.import).complete(&import, &request.parts)?;
            core.take(imported, &request).map_err(|refusal| refusal.0)?;
            if !request.dry_run {
                // The bytes have done their duty, and would stand beside the state until it is activated.
                lock(&core.import).delete(&import);
                core.gate.machine(|machine| machine.applied(&import, &request));
            }
            Ok(())
        })
        .await
    }

    /// Makes what came in the worker's state, or for a trial sees whether it could be.
    fn take(&self, imported: Imported, request: &ApplyRequest) -> Result<(), Refusal> {
        let context = ApplyContext {
            epoch: request.epoch,
            reason: request.reason,
            vsn: request.vsn.clone(),
            direction: request.direction,
            extra: request.extra.clone(),
            seq: request.seq,
        };
        self.worker.accept(&context)?;
        // A state of this very version needs no conversion, also where the hub's code changed around it. A delta is always
        // of this version.
        let imported = if request.vsn != self.worker.vsn() {
            let from = OldVsn::new(request.direction, &request.vsn);
            self.worker.code_change(&from, imported, &request.extra)?
        } else {
            imported
        };
        let merge = request.reason == Reason::Merge;
        if let Some(tracked) = self.worker.tracked() {
            let install = tracked.stage(&imported, request.since, merge)?;
            if !request.dry_run {
                install(request.seq);
            }
            return Ok(());
        }
        let mut state = self.worker.decode(&imported, &context)?;
        if merge {
            state = self.worker.merge(state)?;
        }
        if !request.dry_run {
            self.worker.install(state);
            self.gate.set_seq(request.seq);
        }
        Ok(())
    }

    fn accepts(&self, request: &ApplyRequest) -> Answer<()> {
        let vsn = &request.vsn;
        let (own, others) = (self.worker.vsn(), self.worker.accepts_from());
        if request.since.is_some() && *vsn != own {
            let message = format!(
                "a delta of version `{vsn}`: this worker is `{own}`, send a whole state without `since`"
            );
            return Err(ErrorBody::new(ErrorCode::WrongBase, &message));
        }
        if *vsn == own || others.iter().any(|known| known == vsn) {
            return Ok(());
        }
        let message = format!(
            "the state is of version `{vsn}`, this worker is `{own}` and accepts [{}]: add it to `accepts_from`",
            others.join(", ")
        );
        Err(ErrorBody::new(ErrorCode::CannotAccept, &message))
    }

    pub(crate) async fn delete_import(self: &Arc<Self>, import: Name) -> Answer<()> {
        self.alone(move |core| {
            lock(&core.import).delete(&import);
            Ok(())
        })
        .await
    }

    pub(crate) async fn activate(self: &Arc<Self>, request: ActivateRequest) -> Answer<()> {
        self.alone(move |core| {
            let ActivateRequest { epoch, reason, initial, process, may_miss } = request;
            if core.gate.machine(|machine| machine.activate(epoch, initial))? == Step::Again {
                return Ok(());
            }
            let activation = Activation { epoch, reason, initial, process, may_miss };
            if initial {
                core.worker.initial(&activation).map_err(|refusal| refusal.0)?;
            }
            core.worker.activate(&activation).map_err(|refusal| refusal.0)?;
            lock(&core.import).clear();
            core.gate.machine(|machine| machine.activated(epoch));
            Ok(())
        })
        .await
    }
}

//! Carries out the commands of the contract: asks the machine, does the work, tells the machine.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use bytes::Bytes;
use processhub_protocol::contract::machine::Step;
use processhub_protocol::contract::{
    ActivateRequest, ApplyRequest, CONTRACT_VERSION, CaptureAnswer, CaptureMode, CaptureRequest,
    CaptureSummary, ErrorBody, ErrorCode, Info, Name, PartName, ResumeRequest, SuspendRequest,
};
use tokio::sync::{Mutex as AsyncMutex, oneshot};

use crate::capture::{Captures, PartBody};
use crate::gate::Gate;
use crate::import::Import;
use crate::worker::{Activation, ApplyContext, Worker};

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
        Arc::new(Self {
            worker,
            instance: format!("{:016x}{:016x}", random(), random()),
            gate: Arc::new(Gate::new()),
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
        Info {
            contract: CONTRACT_VERSION,
            instance: self.instance.clone(),
            vsn: self.worker.vsn(),
            state,
            epoch,
            seq: self.gate.seq(),
            capture: CaptureMode::Suspended,
            delta_from: Vec::new(),
            accepts_from: self.worker.accepts_from(),
            load: self.worker.load(),
            consent: false,
        }
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
            core.gate.machine(|machine| machine.capture(request.epoch))?;
            let seq = core.gate.seq();
            if request.unless_seq == Some(seq) {
                return Ok(None);
            }
            if let Some(held) = lock(&core.captures).held() {
                return Ok(Some(held.clone()));
            }
            let parts = core.worker.capture().map_err(|refusal| refusal.0)?;
            lock(&core.captures).hold(&core.instance, core.worker.vsn(), seq, parts).map(Some)
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
            core.accepts(&request.vsn)?;
            let imported = lock(&core.import).complete(&import, &request.parts)?;
            let context = ApplyContext {
                epoch: request.epoch,
                reason: request.reason,
                vsn: request.vsn.clone(),
                direction: request.direction,
                extra: request.extra.clone(),
                seq: request.seq,
            };
            let state = core.worker.decode(&imported, &context).map_err(|refusal| refusal.0)?;
            if request.dry_run {
                return Ok(());
            }
            core.worker.install(state);
            core.gate.set_seq(request.seq);
            core.gate.machine(|machine| machine.applied(&import, &request));
            Ok(())
        })
        .await
    }

    fn accepts(&self, vsn: &str) -> Answer<()> {
        let (own, others) = (self.worker.vsn(), self.worker.accepts_from());
        if vsn == own || others.iter().any(|known| known == vsn) {
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

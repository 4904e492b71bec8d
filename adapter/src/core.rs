//! The commands of the contract, carried out on the application: asks the machine, does the work, tells the machine.

mod apply;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use axum::body::Body;
use processhub_protocol::contract::machine::{Machine, Step};
use processhub_protocol::contract::{
    ActivateRequest, CONTRACT_VERSION, CaptureAnswer, CaptureMode, CaptureRequest, CaptureSummary, ErrorBody,
    ErrorCode, Info, Name, PartName, ResumeRequest, SuspendRequest, WorkerState,
};
use processhub_protocol::id::Seq;
use tokio::net::TcpStream;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, mpsc};
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use crate::application::{Application, ApplicationError, Ended};
use crate::archive::{ArchiveError, Tree};
use crate::capture::{Captures, Source};
use crate::import::Import;
use crate::plan::{Plan, Quiet, StartAt, Store};
use crate::shell::{self, CommandError, Named};

/// How often an application whose state is a directory is started again by the adapter, within [`RESTART_WINDOW`].
const RESTARTS: usize = 3;
const RESTART_WINDOW: Duration = Duration::from_secs(600);
/// How long one look at whether the application serves may take.
const LOOK: Duration = Duration::from_secs(5);
/// In the adapter's folder: the directory holds this very pod's process, which was activated here.
const OWNED: &str = "owned";

type Answer<T> = Result<T, ErrorBody>;

/// An adapter at work.
pub struct Core {
    plan: Plan,
    listen: SocketAddr,
    instance: String,
    face: Mutex<Face>,
    captures: Mutex<Captures>,
    /// Held while one command does its work.
    work: Arc<AsyncMutex<Work>>,
}

/// What is told without waiting for the work.
#[derive(Default)]
struct Face {
    machine: Machine,
    seq: Seq,
}

struct Work {
    application: Application,
    import: Import,
    /// A state has come in and no activate has followed: an application that runs does so with that state, or with a part
    /// of it.
    loaded: bool,
    restarts: VecDeque<Instant>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn internal(error: impl ToString) -> ErrorBody {
    ErrorBody::new(ErrorCode::Internal, &error.to_string())
}

impl Core {
    /// Checks what the plan needs on this machine, and starts the application if it is to run in Standby. The receiver
    /// is told each end of the application: see [`Core::ended`].
    ///
    /// # Errors
    /// A folder or a program that is not there, by its option.
    pub async fn open(
        plan: Plan,
        listen: SocketAddr,
    ) -> anyhow::Result<(Arc<Self>, mpsc::UnboundedReceiver<Ended>)> {
        std::fs::create_dir_all(&plan.work).with_context(|| {
            format!(
                "--work {}: cannot be made; mount an emptyDir there, or name another folder",
                plan.work.display()
            )
        })?;
        if let Store::Directory(directory) = &plan.store {
            anyhow::ensure!(
                directory.is_dir(),
                "--directory {}: is no directory; mount the volume with the application's files there",
                directory.display()
            );
        }
        if let Some(program) = plan.application.first() {
            anyhow::ensure!(
                found(program),
                "the application `{program}` is not there, or may not be run: name a program of this image after --"
            );
        }
        let mut seed = [0; 16];
        getrandom::fill(&mut seed).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
        let instance = seed.iter().map(|byte| format!("{byte:02x}")).collect();
        let part = plan.part().parse().map_err(|_| anyhow::anyhow!("a part without a name"))?;
        let (tell, ends) = mpsc::unbounded_channel();
        let application = Application::new(plan.application.clone(), variables(&plan, listen), tell);
        let import = Import::new(&plan.work, part, plan.limits.state_bytes);
        let mut work = Work { application, import, loaded: false, restarts: VecDeque::new() };
        if plan.start == StartAt::Standby {
            work.application.start()?;
        }
        let core = Self {
            plan,
            listen,
            instance,
            face: Mutex::default(),
            captures: Mutex::default(),
            work: Arc::new(AsyncMutex::new(work)),
        };
        Ok((Arc::new(core), ends))
    }

    /// The application has ended. Nothing to do if it was told to, or is not needed now; otherwise it is started again
    /// where its files are its state.
    ///
    /// # Errors
    /// When the state is gone with it, or it has ended too often: the adapter has to end too, so that the sidecar begins
    /// a recovery.
    pub async fn ended(self: &Arc<Self>, end: Ended) -> anyhow::Result<()> {
        let mut work = Arc::clone(&self.work).lock_owned().await;
        if !work.application.surprised(&end) {
            return Ok(());
        }
        let Ended { how, .. } = end;
        match (&self.plan.store, self.state()) {
            // A start that fails is answered to who asked for it; what came in is still there for the next.
            (_, WorkerState::Standby) if self.plan.start != StartAt::Standby => Ok(()),
            (Store::Directory(_), WorkerState::Standby | WorkerState::Suspended) => Ok(()),
            (Store::Directory(_), WorkerState::Active) => {
                let now = Instant::now();
                work.restarts.retain(|restart| now.duration_since(*restart) < RESTART_WINDOW);
                anyhow::ensure!(
                    work.restarts.len() < RESTARTS,
                    "the application ended with {how}, and {RESTARTS} times before within {} s",
                    RESTART_WINDOW.as_secs()
                );
                work.restarts.push_back(now);
                tracing::error!(%how, "the application ended; it is started again on its directory");
                work.application.start()?;
                Ok(())
            }
            (Store::Commands { .. }, _) => {
                anyhow::bail!("the application ended with {how}, and its state with it")
            }
        }
    }

    /// Ends the application.
    pub async fn end(&self) {
        let mut work = self.work.lock().await;
        if let Err(error) = work.application.stop(self.plan.limits.query).await {
            tracing::error!(%error, "it is killed with the container");
        }
    }

    /// What the worker is doing.
    #[must_use]
    pub fn state(&self) -> WorkerState {
        lock(&self.face).machine.state()
    }

    /// Does a command's work alone. Once begun it goes through, also when the caller hangs up: what was done to the
    /// application is never forgotten by the machine.
    async fn alone<T, F>(
        self: &Arc<Self>,
        work: impl FnOnce(Arc<Self>, OwnedMutexGuard<Work>) -> F,
    ) -> Answer<T>
    where
        T: Send + 'static,
        F: Future<Output = Answer<T>> + Send + 'static,
    {
        let turn = Arc::clone(&self.work).lock_owned().await;
        let done = tokio::spawn(work(Arc::clone(self), turn)).await;
        done.unwrap_or_else(|_| Err(internal("the adapter panicked in this call; its log says why")))
    }

    fn machine<T>(&self, work: impl FnOnce(&mut Machine) -> T) -> T {
        work(&mut lock(&self.face).machine)
    }

    /// `GET /v1/info`.
    #[must_use]
    pub fn info(&self) -> Info {
        let face = lock(&self.face);
        Info {
            contract: CONTRACT_VERSION,
            instance: self.instance.clone(),
            vsn: self.plan.vsn.clone(),
            state: face.machine.state(),
            epoch: face.machine.epoch(),
            seq: face.seq,
            capture: CaptureMode::Suspended,
            delta_from: Vec::new(),
            accepts_from: self.plan.accepts_from.clone(),
            load: 0,
            consent: false,
        }
    }

    /// `POST /v1/suspend`: the application is kept from changing its state. No client reaches it any more: the sidecar
    /// has seen to that before it calls.
    ///
    /// # Errors
    /// The machine's, and `Internal` when the application cannot be kept still; it then goes on as before.
    pub async fn suspend(self: &Arc<Self>, request: SuspendRequest) -> Answer<()> {
        let SuspendRequest { epoch, .. } = request;
        self.alone(move |core: Arc<Self>, mut work: OwnedMutexGuard<Work>| async move {
            core.machine(|machine| machine.suspend(epoch))?;
            if core.machine(|machine| machine.drained(epoch))? == Step::Again {
                return Ok(());
            }
            let quiet = core.quiesce(&mut work).await;
            let mut face = lock(&core.face);
            // Whatever clients did was done before this.
            face.seq += 1;
            face.machine.suspended(epoch, quiet.is_ok());
            quiet
        })
        .await
    }

    async fn quiesce(&self, work: &mut Work) -> Answer<()> {
        match &self.plan.quiet {
            Quiet::AsItIs => Ok(()),
            Quiet::Stopped => work.application.stop(self.plan.limits.query).await.map_err(internal),
            Quiet::Commands { quiesce, .. } => {
                let quiet = self.command("--quiesce", quiesce, work).await;
                if let Err(error) = &quiet {
                    tracing::error!(
                        error = error.message,
                        "the application may be half-way still: --resume is run"
                    );
                    // Its own failure is in the log; the first one is what is told.
                    let _ = self.wake(work).await;
                }
                quiet
            }
        }
    }

    /// `POST /v1/resume`: the application goes on.
    ///
    /// # Errors
    /// The machine's, and `Internal` when it does not go on; it stays suspended and is asked again.
    pub async fn resume(self: &Arc<Self>, request: ResumeRequest) -> Answer<()> {
        let ResumeRequest { epoch } = request;
        self.alone(move |core: Arc<Self>, mut work: OwnedMutexGuard<Work>| async move {
            if core.machine(|machine| machine.resume(epoch))? == Step::Run {
                // The capture goes first: from here on the state is no longer what it says.
                lock(&core.captures).clear();
                core.wake(&mut work).await?;
                core.machine(|machine| machine.resumed(epoch));
            }
            Ok(())
        })
        .await
    }

    async fn wake(&self, work: &mut Work) -> Answer<()> {
        match &self.plan.quiet {
            Quiet::AsItIs => Ok(()),
            Quiet::Stopped => self.serve(work).await,
            Quiet::Commands { resume, .. } => self.command("--resume", resume, work).await,
        }
    }

    /// `POST /v1/capture`; `None` when nothing changed since `unlessSeq`.
    ///
    /// # Errors
    /// The machine's; `TooLarge`; `Internal` with what the command or the disk said.
    pub async fn capture(self: &Arc<Self>, request: CaptureRequest) -> Answer<Option<CaptureAnswer>> {
        self.alone(move |core: Arc<Self>, work: OwnedMutexGuard<Work>| async move {
            let seq = {
                let mut face = lock(&core.face);
                face.machine.capture(request.epoch)?;
                face.seq
            };
            if request.unless_seq == Some(seq) {
                return Ok(None);
            }
            if let Some(held) = lock(&core.captures).held() {
                return Ok(Some(held.clone()));
            }
            let source = core.take(&work).await?;
            let (vsn, part) = (&core.plan.vsn, core.plan.part());
            lock(&core.captures).hold(&core.instance, vsn, seq, part, source).map(Some)
        })
        .await
    }

    async fn take(&self, work: &Work) -> Answer<Source> {
        let most = self.plan.limits.state_bytes;
        match &self.plan.store {
            Store::Directory(directory) => {
                let directory = directory.clone();
                let tree = spawn_blocking(move || Tree::survey(&directory, most)).await.map_err(internal)?;
                tree.map(Source::Tree).map_err(|error| {
                    let code = match error {
                        ArchiveError::TooLarge { .. } | ArchiveError::TooMany => ErrorCode::TooLarge,
                        ArchiveError::Device(_) => ErrorCode::CannotAccept,
                        ArchiveError::Unreadable { .. } => ErrorCode::Internal,
                    };
                    ErrorBody::new(code, &error.to_string())
                })
            }
            Store::Commands { dump, .. } => {
                let path = self.plan.work.join("capture");
                let named = Named { option: "--dump", command: dump };
                let environment = self.environment(work);
                let dumped = shell::dump(named, &environment, self.plan.limits.query, &path, most).await;
                let bytes = dumped.map_err(|error| match error {
                    CommandError::TooLarge { .. } => ErrorBody::new(ErrorCode::TooLarge, &error.to_string()),
                    _ => internal(error),
                })?;
                Ok(Source::File { path, bytes })
            }
        }
    }

    /// `GET /v1/capture/{capture}/{part}`.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn read(&self, capture: &Name, part: &PartName) -> Answer<Body> {
        lock(&self.captures).read(capture, part)
    }

    /// `DELETE /v1/capture/{capture}`.
    ///
    /// # Errors
    /// `NotFound`; `Internal` when it could not be read to its end.
    pub fn delete_capture(&self, capture: &Name) -> Answer<CaptureSummary> {
        lock(&self.captures).delete(capture)
    }

    /// `POST /v1/activate`: the application serves.
    ///
    /// # Errors
    /// The machine's, and `Internal` when the application does not serve; it stays in Standby and is asked again.
    pub async fn activate(self: &Arc<Self>, request: ActivateRequest) -> Answer<()> {
        self.alone(move |core: Arc<Self>, mut work: OwnedMutexGuard<Work>| async move {
            let ActivateRequest { epoch, initial, .. } = request;
            if core.machine(|machine| machine.activate(epoch, initial))? == Step::Again {
                return Ok(());
            }
            if initial {
                core.fresh(&mut work).await?;
            }
            core.serve(&mut work).await?;
            core.own()?;
            work.loaded = false;
            work.import.clear().await;
            core.machine(|machine| machine.activated(epoch));
            Ok(())
        })
        .await
    }

    /// Starts the application unless it runs, and waits until it serves.
    async fn serve(&self, work: &mut Work) -> Answer<()> {
        if work.application.is_ready() {
            return Ok(());
        }
        work.application.start().map_err(internal)?;
        let environment = self.environment(work);
        let look = || self.look(&environment);
        let ready = work.application.ready(self.plan.limits.ready, look).await;
        if let Err(ApplicationError::NotReady { .. }) = &ready {
            // The next attempt begins with a new start.
            work.application.stop(self.plan.limits.query).await.map_err(internal)?;
        }
        ready.map_err(internal)
    }

    /// Whether the application serves.
    async fn look(&self, environment: &shell::Environment) -> Result<(), String> {
        match &self.plan.ready {
            Some(command) => {
                let looked = shell::run(Named { option: "--ready", command }, environment, LOOK);
                looked.await.map_err(|error| error.to_string())
            }
            None => {
                let connected = TcpStream::connect(self.listen).await.map(drop);
                connected.map_err(|error| format!("{}: {error}", self.listen))
            }
        }
    }

    async fn command(&self, option: &'static str, command: &str, work: &Work) -> Answer<()> {
        let environment = self.environment(work);
        shell::run(Named { option, command }, &environment, self.plan.limits.query).await.map_err(internal)
    }

    fn environment(&self, work: &Work) -> Vec<(String, String)> {
        let pid = work.application.pid().map(|pid| ("ADAPTER_APPLICATION_PID".to_owned(), pid.to_string()));
        variables(&self.plan, self.listen).into_iter().chain(pid).collect()
    }

    /// Whether the directory is known to hold what this pod's process wrote, from before a restart of the container.
    fn owned(&self) -> bool {
        self.plan.work.join(OWNED).exists()
    }

    fn own(&self) -> Answer<()> {
        match self.plan.store {
            Store::Directory(_) => std::fs::write(self.plan.work.join(OWNED), "").map_err(internal),
            Store::Commands { .. } => Ok(()),
        }
    }

    fn disown(&self) -> Answer<()> {
        match std::fs::remove_file(self.plan.work.join(OWNED)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(internal(error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// What the application and its commands learn.
fn variables(plan: &Plan, listen: SocketAddr) -> Vec<(String, String)> {
    let mut variables = vec![
        ("ADAPTER_HOST".to_owned(), listen.ip().to_string()),
        ("ADAPTER_PORT".to_owned(), listen.port().to_string()),
    ];
    if let Store::Directory(directory) = &plan.store {
        variables.push(("ADAPTER_DIRECTORY".to_owned(), directory.display().to_string()));
    }
    variables
}

/// Whether there is such a program, as a shell would look for it.
fn found(program: &str) -> bool {
    use std::os::unix::fs::PermissionsExt;
    let runs = |path: &Path| {
        std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    if program.contains('/') {
        return runs(Path::new(program));
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
    std::env::split_paths(&path).any(|folder| runs(&folder.join(program)))
}

//! Listeners, connections, and the order in which a sidecar ends.

use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use processhub_protocol::fence::Role;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, Span};

use crate::clock::Clock;
use crate::config::{Config, Protocol};
use crate::control;
use crate::net::{Listener, Net, Stream};
use crate::sidecar::Sidecar;

/// How long a client may stay silent: between requests, and before the end of a request's head.
const CLIENT_SILENCE: Duration = Duration::from_secs(120);
/// The same for the control port, which anyone in the cluster may reach.
const CONTROL_SILENCE: Duration = Duration::from_secs(30);
/// Longest request head, in bytes.
const MAX_HEAD: usize = 64 << 10;
/// Connections at once; more wait to be accepted.
const CLIENTS: usize = 16_384;
const CONTROLLERS: usize = 256;
/// How long connections that are in use may take to end.
const LINGER: Duration = Duration::from_secs(2);
/// Pause after a failed accept (for example: no file descriptor left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A sidecar that serves.
pub struct Running {
    sidecar: Arc<Sidecar>,
    /// No new connections or requests on kept-alive ones.
    closing: CancellationToken,
    tasks: TaskTracker,
    /// Names process and pod on each line of the log.
    span: Span,
}

impl Running {
    /// Opens record, states and listeners, and begins to supervise the worker.
    ///
    /// # Errors
    /// When the disk fails or an address cannot be had.
    pub async fn start(config: Config, net: Arc<dyn Net>, clock: Arc<dyn Clock>) -> anyhow::Result<Self> {
        let span = tracing::info_span!("sidecar", process = %config.name, pod = %config.pod);
        let sidecar = span.in_scope(|| Sidecar::open(config, Arc::clone(&net), clock))?;
        let data = net.bind(sidecar.config.data).await?;
        let control = net.bind(sidecar.config.control).await?;
        let (closing, tasks) = (CancellationToken::new(), TaskTracker::new());
        let running = Self { sidecar, closing, tasks, span };
        running.tasks.spawn(Arc::clone(&running.sidecar).supervise().instrument(running.span.clone()));
        let checkpoints = Arc::clone(&running.sidecar).keep_checkpoints();
        running.tasks.spawn(checkpoints.instrument(running.span.clone()));
        running.tasks.spawn(Arc::clone(&running.sidecar).watch_lease().instrument(running.span.clone()));
        running.tasks.spawn(Arc::clone(&running.sidecar).replicate().instrument(running.span.clone()));
        running.tasks.spawn(Arc::clone(&running.sidecar).announce().instrument(running.span.clone()));
        match running.sidecar.config.protocol {
            Protocol::Http => running.serve_clients(data),
            Protocol::Tcp => running.serve_connections(data),
        }
        running.serve_control(control);
        Ok(running)
    }

    /// The sidecar that is served.
    #[must_use]
    pub fn sidecar(&self) -> &Arc<Sidecar> {
        &self.sidecar
    }

    /// Ends in order, as a native sidecar does after its worker is gone: a sealed pod stays until its state was taken, until
    /// what it has handed on is answered, and for the retention after that, to forward what still arrives; the kubelet bounds
    /// it all.
    pub async fn stop(self) {
        let sidecar = &self.sidecar;
        sidecar.until(|sidecar| !sidecar.frozen()).await;
        if matches!(sidecar.fence.record().role, Role::Forwarding { .. }) {
            // Where the successor waits for this worker's end it is told now, and the clients' requests wait at the successor.
            let ended = tokio::time::timeout(sidecar.config.retention, sidecar.worker_ends()).await;
            if ended == Ok(true) {
                sidecar.change(|live| live.ended = true);
                sidecar.until(|sidecar| sidecar.live().fenced.is_none()).await;
            }
            tokio::time::sleep(sidecar.config.retention).await;
        }
        // What is held is answered 503; what is in flight may end.
        sidecar.change(|live| live.closed = true);
        self.closing.cancel();
        sidecar.down.cancel();
        self.tasks.close();
        if tokio::time::timeout(LINGER, self.tasks.wait()).await.is_err() {
            tracing::warn!("connections still in use are closed");
        }
    }

    fn serve_clients(&self, listener: Box<dyn Listener>) {
        let sidecar = Arc::clone(&self.sidecar);
        self.accept(listener, CLIENTS, move |stream, closing| {
            let sidecar = Arc::clone(&sidecar);
            let service = service_fn(move |request| Arc::clone(&sidecar).proxy(request));
            let connection = builder(CLIENT_SILENCE).serve_connection(TokioIo::new(stream), service);
            async move {
                let mut connection = std::pin::pin!(connection.with_upgrades());
                tokio::select! {
                    // A client's broken connection is the client's business.
                    _ = connection.as_mut() => return,
                    () = closing.cancelled() => connection.as_mut().graceful_shutdown(),
                }
                let _ = connection.await;
            }
        });
    }

    /// The flow itself ends connections, also when this sidecar does.
    fn serve_connections(&self, listener: Box<dyn Listener>) {
        let sidecar = Arc::clone(&self.sidecar);
        self.accept(listener, CLIENTS, move |stream, _| Arc::clone(&sidecar).connection(stream));
    }

    fn serve_control(&self, listener: Box<dyn Listener>) {
        let router = control::router(Arc::clone(&self.sidecar));
        self.accept(listener, CONTROLLERS, move |stream, closing| {
            let service = TowerToHyperService::new(router.clone());
            let connection = builder(CONTROL_SILENCE).serve_connection(TokioIo::new(stream), service);
            async move {
                let mut connection = std::pin::pin!(connection);
                tokio::select! {
                    _ = connection.as_mut() => return,
                    () = closing.cancelled() => connection.as_mut().graceful_shutdown(),
                }
                let _ = connection.await;
            }
        });
    }

    fn accept<F>(
        &self,
        mut listener: Box<dyn Listener>,
        most: usize,
        serve: impl Fn(Box<dyn Stream>, CancellationToken) -> F + Send + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let (tasks, closing, span) = (self.tasks.clone(), self.closing.clone(), self.span.clone());
        let places = Arc::new(Semaphore::new(most));
        self.tasks.spawn(async move {
            loop {
                let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
                let accepted = tokio::select! {
                    () = closing.cancelled() => return,
                    accepted = listener.accept() => accepted,
                };
                match accepted {
                    Ok(stream) => {
                        let connection = serve(stream, closing.clone());
                        let served = async move {
                            connection.await;
                            drop(place);
                        };
                        tasks.spawn(served.instrument(span.clone()));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        });
    }
}

fn builder(silence: Duration) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(silence).max_buf_size(MAX_HEAD);
    builder
}

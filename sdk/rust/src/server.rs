//! Serves a worker: the contract on one address, its clients on another, until it is told to stop.

use std::future::{Future, IntoFuture};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::{Listener, ListenerExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::clients;
use crate::config::{Config, ConfigError};
use crate::control;
use crate::core::Core;
use crate::worker::Worker;

/// Why a worker could not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The environment does not say where to serve.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An address is not to be had.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// Serving ended by itself.
    #[error("serving failed: {0}")]
    Serve(#[from] io::Error),
}

/// Both addresses of a worker, bound and not yet served.
pub struct Server {
    control: TcpListener,
    listen: TcpListener,
    config: Config,
    map_contract: Box<dyn FnOnce(Router) -> Router + Send>,
}

impl Server {
    /// Binds both addresses; port 0 takes a free one.
    ///
    /// # Errors
    /// [`RunError::Bind`].
    pub async fn bind(config: Config) -> Result<Self, RunError> {
        let bind = async |address| {
            TcpListener::bind(address).await.map_err(|source| RunError::Bind { address, source })
        };
        let (control, listen) = (bind(config.control).await?, bind(config.listen).await?);
        Ok(Self { control, listen, config, map_contract: Box::new(|contract| contract) })
    }

    /// Puts something around the contract's routes: a log of the calls, or a fault that a test wants.
    #[must_use]
    pub fn map_contract(mut self, map: impl FnOnce(Router) -> Router + Send + 'static) -> Self {
        self.map_contract = Box::new(map);
        self
    }

    /// Where the sidecar reaches the worker.
    ///
    /// # Errors
    /// What the system says.
    pub fn control_address(&self) -> io::Result<SocketAddr> {
        self.control.local_addr()
    }

    /// Where clients reach the worker.
    ///
    /// # Errors
    /// What the system says.
    pub fn listen_address(&self) -> io::Result<SocketAddr> {
        self.listen.local_addr()
    }

    /// Serves until `stop` is done; then lets requests that run finish within `config.shutdown_grace`.
    ///
    /// # Errors
    /// [`RunError::Serve`].
    pub async fn serve<W: Worker>(
        self,
        worker: Arc<W>,
        clients: Router,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), RunError> {
        let core = Core::new(worker);
        let clients = clients::guarded(clients, Arc::clone(&core.gate), &self.config.probe_paths);
        let (stopping, stopped) = watch::channel(false);
        let until = |mut stopped: watch::Receiver<bool>| async move {
            // An error means that the sender is gone, which is a stop too.
            let _ = stopped.wait_for(|stop| *stop).await;
        };
        let clients = axum::serve(at_once(self.listen), clients)
            .with_graceful_shutdown(until(stopped.clone()))
            .into_future();
        // The contract is answered to the end: the sidecar asks for as long as requests run.
        let control =
            axum::serve(at_once(self.control), (self.map_contract)(control::routes(core))).into_future();
        let grace = self.config.shutdown_grace;
        let overdue = async move {
            until(stopped).await;
            tokio::time::sleep(grace.max(Duration::from_millis(1))).await;
        };
        tokio::pin!(clients, control, overdue, stop);
        let mut told = false;
        loop {
            tokio::select! {
                () = &mut stop, if !told => {
                    told = true;
                    stopping.send_replace(true);
                }
                served = &mut clients => return Ok(served?),
                served = &mut control => return Ok(served?),
                () = &mut overdue => return Ok(()),
            }
        }
    }
}

/// Sends what is written at once: the last small piece of an answer must not wait for the acknowledgement of the one
/// before it, least of all while the process is frozen.
fn at_once(listener: TcpListener) -> impl Listener<Io = TcpStream, Addr = SocketAddr> {
    listener.tap_io(|stream| {
        // A connection that is gone already is served as one that ends.
        let _ = stream.set_nodelay(true);
    })
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// [`RunError`].
pub async fn run<W: Worker>(worker: Arc<W>, clients: Router, config: Config) -> Result<(), RunError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    Server::bind(config).await?.serve(worker, clients, stop).await
}

//! The API server's socket, which can be closed with every connection on it, as when the process ends.

use axum::Router;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use std::net::SocketAddr;
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// How many clients may wait to be accepted: an operator that starts hundreds of processes opens as many connections at
/// once, and one that finds no place tries again only after a second.
const BACKLOG: u32 = 4096;

/// Binds a socket on which many clients may connect at once.
///
/// # Errors
/// When the address is taken.
pub fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A running server, on a thread of its own: whatever pods and tests do to the other threads, it answers. Dropping it
/// closes the socket and all connections.
#[derive(Debug)]
pub struct Server {
    task: JoinHandle<()>,
    stop: watch::Sender<bool>,
    runtime: Option<Runtime>,
}

impl Server {
    /// Serves the router on a socket that is bound already.
    ///
    /// # Errors
    /// When the thread cannot be started or cannot take the socket.
    pub fn start(listener: TcpListener, router: Router) -> std::io::Result<Self> {
        // It moves to the thread's own runtime.
        let listener = listener.into_std()?;
        let runtime =
            Builder::new_multi_thread().worker_threads(1).thread_name("apiserver").enable_all().build()?;
        let (stop, stopped) = watch::channel(false);
        let task = {
            let _entered = runtime.enter();
            let listener = TcpListener::from_std(listener)?;
            tokio::spawn(accept(listener, router, stopped))
        };
        Ok(Self { task, stop, runtime: Some(runtime) })
    }

    /// Closes the socket and every connection, and waits until they are closed.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        // It can only have panicked, and then everything is closed, too.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(runtime) = self.runtime.take() {
            // Waiting would block the caller's runtime, if it is in one.
            runtime.shutdown_background();
        }
    }
}

async fn accept(listener: TcpListener, router: Router, mut stopped: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                // A socket without it only answers later.
                let _ = stream.set_nodelay(true);
                let service = TowerToHyperService::new(router.clone());
                connections.spawn(async move {
                    let served = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                    if let Err(error) = served {
                        tracing::debug!(%error, "connection to the API server ended");
                    }
                });
            }
            Some(_) = connections.join_next() => {}
            _ = stopped.wait_for(|stopped| *stopped) => break,
        }
    }
    drop(listener);
    connections.shutdown().await;
}

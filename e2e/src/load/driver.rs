//! Many clients at once.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Client, ClientOptions, Operation};

/// A process and its stable address.
#[derive(Clone, Debug)]
pub struct Target {
    /// The process's name.
    pub process: String,
    /// Its Service's address and port.
    pub address: SocketAddr,
}

/// Clients at work. Dropping it stops them.
pub struct Load {
    stop: watch::Sender<bool>,
    clients: JoinSet<()>,
    history: Arc<Mutex<Vec<Operation>>>,
    pause: Duration,
    run: String,
}

impl Load {
    /// A load without clients; `run` makes their names unique among several loads on the same processes.
    #[must_use]
    pub fn new(run: &str, pause: Duration) -> Self {
        let (stop, _) = watch::channel(false);
        Self { stop, clients: JoinSet::new(), history: Arc::default(), pause, run: run.to_owned() }
    }

    /// Two clients for the target: one that keeps its connection and one that opens a new one each time.
    pub fn add(&mut self, target: &Target) {
        for fresh in [false, true] {
            let how = if fresh { "fresh" } else { "kept" };
            let client = Client::new(ClientOptions {
                name: format!("{}-{}-{how}", self.run, target.process),
                process: target.process.clone(),
                address: target.address,
                fresh,
                pause: self.pause,
                patience: Duration::from_secs(60),
            });
            self.clients.spawn(work(client, Arc::clone(&self.history), self.stop.subscribe()));
        }
    }

    /// How many operations have an outcome so far.
    #[must_use]
    pub fn operations(&self) -> usize {
        self.history.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Runs `look` on what has been recorded so far.
    pub fn peek<T>(&self, look: impl FnOnce(&[Operation]) -> T) -> T {
        look(&self.history.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets every client finish the request that it is at, and gives the whole history.
    pub async fn finish(mut self) -> Vec<Operation> {
        self.stop.send_replace(true);
        while self.clients.join_next().await.is_some() {}
        std::mem::take(&mut *self.history.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn work(mut client: Client, history: Arc<Mutex<Vec<Operation>>>, mut stop: watch::Receiver<bool>) {
    while !*stop.borrow() {
        let operation = client.step().await;
        let failed = operation.acknowledged().is_none();
        history.lock().unwrap_or_else(PoisonError::into_inner).push(operation);
        // A refused client looks again soon, with its next number: nobody hammers a server that said no.
        let pause = if failed { client.pause().max(Duration::from_millis(50)) } else { client.pause() };
        if !pause.is_zero() {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stop.changed() => {}
            }
        }
    }
}

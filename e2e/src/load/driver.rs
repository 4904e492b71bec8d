//! Many clients at once.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::{Client, ClientOptions, Operation, Speech};

/// A process and its stable address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    tell: mpsc::UnboundedSender<Operation>,
    pause: Duration,
    run: String,
    speech: Speech,
    patience: Duration,
}

/// How long a client waits for an answer, unless told otherwise.
const PATIENCE: Duration = Duration::from_secs(60);

impl Load {
    /// A load without clients, which tells every outcome; `run` makes the clients' names unique among several loads on
    /// the same processes.
    #[must_use]
    pub fn new(run: &str, pause: Duration, tell: mpsc::UnboundedSender<Operation>) -> Self {
        let (stop, _) = watch::channel(false);
        let (run, speech, patience) = (run.to_owned(), Speech::default(), PATIENCE);
        Self { stop, clients: JoinSet::new(), tell, pause, run, speech, patience }
    }

    /// Clients that wait no longer than so long for an answer.
    #[must_use]
    pub fn for_at_most(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Clients that talk to this worker.
    #[must_use]
    pub fn to(mut self, speech: Speech) -> Self {
        self.speech = speech;
        self
    }

    /// Two clients for the target: one that keeps its connection and one that opens a new one each time.
    pub fn add(&mut self, target: &Target) {
        for fresh in [false, true] {
            let how = if fresh { "fresh" } else { "kept" };
            let client = Client::new(ClientOptions {
                speech: self.speech,
                name: format!("{}-{}-{how}", self.run, target.process),
                process: target.process.clone(),
                address: target.address,
                fresh,
                pause: self.pause,
                patience: self.patience,
            });
            self.clients.spawn(work(client, self.tell.clone(), self.stop.subscribe()));
        }
    }

    /// Lets every client finish the request that it is at.
    pub async fn finish(&mut self) {
        self.stop.send_replace(true);
        while self.clients.join_next().await.is_some() {}
    }
}

async fn work(mut client: Client, tell: mpsc::UnboundedSender<Operation>, mut stop: watch::Receiver<bool>) {
    while !*stop.borrow() {
        let operation = client.step().await;
        let failed = operation.acknowledged().is_none();
        if tell.send(operation).is_err() {
            return;
        }
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

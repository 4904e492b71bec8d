//! The same clients in a process of their own, so that they can live in another network namespace than the judge.
//!
//! The process is told what to do by JSON lines on its standard input ([`Order`]) and answers by JSON lines on its
//! standard output ([`Word`]).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::oneshot;

use super::{Operation, Target};

/// What was fetched, by process; an error's text for those that did not answer.
pub type Answers = HashMap<String, Result<String, String>>;

/// One request of a test, beside the clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Where to.
    pub address: SocketAddr,
    /// HTTP method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// Body, sent as JSON.
    pub body: String,
}

/// What was answered to a [`Call`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Body as text.
    pub body: String,
}

/// A [`Call`] that is under way.
#[derive(Debug)]
pub struct Calling(oneshot::Receiver<Result<Answer, String>>);

impl Calling {
    /// Waits for the answer.
    ///
    /// # Errors
    /// When there is none within a minute, or no connection.
    pub async fn answer(self) -> Result<Answer> {
        let answer =
            tokio::time::timeout(Duration::from_secs(60), self.0).await.context("no answer in time")?;
        answer.context("the clients' process ended")?.map_err(anyhow::Error::msg)
    }
}

/// What the clients' process is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "camelCase")]
pub enum Order {
    /// Two clients for each of these.
    Add {
        /// The processes.
        targets: Vec<Target>,
    },
    /// Let every client finish its request, send no more, and say [`Word::Finished`].
    Finish,
    /// `GET path` of each of these, and say [`Word::Fetched`].
    Fetch {
        /// What the answer is recognised by.
        id: u64,
        /// The processes.
        targets: Vec<Target>,
        /// Path and query.
        path: String,
    },
    /// Send this request, and say [`Word::Called`].
    Call {
        /// What the answer is recognised by.
        id: u64,
        /// The request.
        call: Call,
    },
}

/// What the clients' process says.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "word", rename_all = "camelCase")]
pub enum Word {
    /// An operation has its outcome.
    Operation {
        /// Which and what.
        operation: Operation,
    },
    /// All clients have stopped.
    Finished,
    /// What the processes answered; an error's text for those that did not.
    Fetched {
        /// The order's.
        id: u64,
        /// By process.
        answers: Answers,
    },
    /// What was answered to a [`Call`]; an error's text where nothing was.
    Called {
        /// The order's.
        id: u64,
        /// The answer.
        answer: Result<Answer, String>,
    },
}

#[derive(Default)]
struct Heard {
    history: Vec<Operation>,
    finished: bool,
    waiting: HashMap<u64, oneshot::Sender<Answers>>,
    calling: HashMap<u64, oneshot::Sender<Result<Answer, String>>>,
    finish: Option<oneshot::Sender<()>>,
}

/// Clients at work in another process, which ends with this handle.
pub struct RemoteLoad {
    child: Child,
    orders: ChildStdin,
    heard: Arc<Mutex<Heard>>,
    next: u64,
}

impl RemoteLoad {
    /// Starts the clients' process. `command` runs the `processhub-load` binary, where the clients are to live.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(command: std::process::Command) -> Result<Self> {
        let mut child = Command::from(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("start the clients' process")?;
        let orders = child.stdin.take().context("the clients' standard input")?;
        let words = child.stdout.take().context("the clients' standard output")?;
        let heard = Arc::new(Mutex::new(Heard::default()));
        let sink = Arc::clone(&heard);
        tokio::spawn(async move {
            let mut lines = BufReader::new(words).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                match serde_json::from_str(&line) {
                    Ok(word) => hear(&sink, word),
                    Err(error) => tracing::warn!(%error, "a line that is no word"),
                }
            }
        });
        Ok(Self { child, orders, heard, next: 0 })
    }

    /// Adds two clients for each target.
    ///
    /// # Errors
    /// When the clients' process is gone.
    pub async fn add(&mut self, targets: Vec<Target>) -> Result<()> {
        self.order(&Order::Add { targets }).await
    }

    /// How many operations have an outcome so far.
    #[must_use]
    pub fn operations(&self) -> usize {
        self.peek(<[Operation]>::len)
    }

    /// Runs `look` on what has been recorded so far.
    pub fn peek<T>(&self, look: impl FnOnce(&[Operation]) -> T) -> T {
        look(&self.heard.lock().unwrap_or_else(PoisonError::into_inner).history)
    }

    /// `GET path` of each target, from where the clients are.
    ///
    /// # Errors
    /// When the clients' process is gone or does not answer within two minutes.
    pub async fn fetch(&mut self, targets: Vec<Target>, path: &str) -> Result<Answers> {
        self.next += 1;
        let (tell, told) = oneshot::channel();
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).waiting.insert(self.next, tell);
        self.order(&Order::Fetch { id: self.next, targets, path: path.to_owned() }).await?;
        tokio::time::timeout(Duration::from_secs(120), told)
            .await
            .context("the clients' process does not answer")?
            .context("the clients' process ended")
    }

    /// Sends one request from where the clients are, and returns while it is under way.
    ///
    /// # Errors
    /// When the clients' process is gone.
    pub async fn call(&mut self, call: Call) -> Result<Calling> {
        self.next += 1;
        let (tell, told) = oneshot::channel();
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).calling.insert(self.next, tell);
        self.order(&Order::Call { id: self.next, call }).await?;
        Ok(Calling(told))
    }

    /// Lets every client finish its request and gives the whole history. The process stays for [`RemoteLoad::fetch`].
    ///
    /// # Errors
    /// When the clients' process is gone, or a client does not finish within two minutes.
    pub async fn finish(&mut self) -> Result<Vec<Operation>> {
        let (tell, told) = oneshot::channel();
        {
            let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            if heard.finished {
                bail!("the load was finished before");
            }
            heard.finish = Some(tell);
        }
        self.order(&Order::Finish).await?;
        tokio::time::timeout(Duration::from_secs(120), told)
            .await
            .context("the clients do not finish")?
            .context("the clients' process ended")?;
        Ok(std::mem::take(&mut self.heard.lock().unwrap_or_else(PoisonError::into_inner).history))
    }

    /// Ends the clients' process.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub async fn stop(mut self) -> Result<()> {
        drop(self.orders);
        self.child.wait().await.context("wait for the clients' process")?;
        Ok(())
    }

    async fn order(&mut self, order: &Order) -> Result<()> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        self.orders.write_all(&line).await.context("the clients' process is gone")
    }
}

fn hear(heard: &Mutex<Heard>, word: Word) {
    let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
    match word {
        Word::Operation { operation } => heard.history.push(operation),
        Word::Finished => {
            heard.finished = true;
            if let Some(tell) = heard.finish.take() {
                // Nobody waits any more: nothing to tell.
                let _ = tell.send(());
            }
        }
        Word::Fetched { id, answers } => {
            if let Some(tell) = heard.waiting.remove(&id) {
                let _ = tell.send(answers);
            }
        }
        Word::Called { id, answer } => {
            if let Some(tell) = heard.calling.remove(&id) {
                let _ = tell.send(answer);
            }
        }
    }
}

//! The clients' way where the worker speaks something else than HTTP: connections instead of requests.
//!
//! A new connection goes to the own worker, to the successor, or is held until there is one of them. An established one
//! cannot move: nobody but the worker knows what its bytes mean. When the flow stops nothing more is read from the client;
//! where the worker owes an answer it has a moment to give it, then it is told that the client has ended, and closes.
//! What it answered before its end reaches the client, then the client sees an orderly end of its connection and connects
//! again.
//!
//! A byte that was read from a client and not written to the worker is dropped with its connection: no byte stream is
//! ever sent to two workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use processhub_protocol::fence::Role;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::hold::{Entry, Permit, Refused, Successor, Ticket, Way};
use crate::net::Stream;
use crate::sidecar::Sidecar;

/// Pause before the worker, or the successor, is tried again; grows with the attempts.
const PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);
/// How long a connection to either may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a worker that was sent something, and has not said anything since, may take to answer before it is told of the
/// end. A server that takes the end of a request's connection for a cancellation would else never answer it.
const ANSWER: Duration = Duration::from_millis(200);
/// The silence after which an answer counts as whole.
const QUIET: Duration = Duration::from_millis(5);
/// How much one held connection may have sent already, in bytes.
const EARLY: usize = 64 << 10;
/// Bytes that are copied at once.
const PIECE: usize = 32 << 10;
/// How long a client may take to see that its connection has ended. Were it closed with unread bytes in it, the client's
/// system would throw away the last answer.
const LINGER: Duration = Duration::from_secs(1);

type Connection = Box<dyn Stream>;

/// A client, and what it has sent while it was held.
struct Client {
    stream: Connection,
    early: Vec<u8>,
}

/// What came of waiting.
enum Waited {
    Way(Way),
    /// The client has left.
    Gone,
}

impl Sidecar {
    /// Serves one connection of a client.
    pub(crate) async fn connection(self: Arc<Self>, stream: Connection) {
        let mut client = Client { stream, early: Vec::new() };
        let deadline = Instant::now() + self.config.hold.time;
        let mut pause = PAUSE;
        loop {
            // A pod in Standby may be about to serve: its source sends on what comes to it.
            let standby = matches!(self.fence.record().role, Role::Standby | Role::Delivered { .. });
            let way = match self.hold.enter(standby) {
                Entry::Go(way) => way,
                Entry::Wait(ticket) => match client.wait(ticket, deadline).await {
                    Waited::Way(way) => way,
                    Waited::Gone => return,
                },
            };
            match way {
                // It came while this pod was in Standby, and belongs elsewhere by now: not sent on yet, so it may be.
                Way::Refuse(Refused::ForwardedOnce) if Instant::now() < deadline => {}
                Way::Refuse(refused) => return self.metrics.refused(refused),
                Way::Serve(permit) => match self.connect(self.config.worker_listen).await {
                    Some(worker) => {
                        self.expose_connection().await;
                        return client.serve(worker, permit).await;
                    }
                    None => {
                        drop(permit);
                        self.doubt_worker();
                    }
                },
                Way::Forward(Successor { address, .. }) => {
                    if let Some(successor) = self.connect(address).await {
                        self.metrics.forwarded.inc();
                        let (stop, cut) = (self.down.clone(), CancellationToken::new());
                        return client.relay(successor, &stop, &cut, ()).await;
                    }
                }
            }
            if Instant::now() >= deadline {
                return self.metrics.refused(Refused::HoldExpired);
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn connect(&self, address: std::net::SocketAddr) -> Option<Connection> {
        timeout(CONNECT_TIMEOUT, self.net.connect(address)).await.ok()?.ok()
    }
}

impl Client {
    /// Holds the connection until it has a way. It is read meanwhile, within the bound, because only so is it noticed
    /// when the client leaves.
    async fn wait(&mut self, mut ticket: Ticket, deadline: Instant) -> Waited {
        let mut piece = vec![0; PIECE];
        loop {
            let room = EARLY - self.early.len();
            let most = room.min(piece.len());
            tokio::select! {
                biased;
                way = ticket.way() => return Waited::Way(way),
                () = tokio::time::sleep_until(deadline) => {
                    return Waited::Way(Way::Refuse(Refused::HoldExpired));
                }
                read = self.stream.read(&mut piece[..most]), if room > 0 => match read {
                    Ok(0) | Err(_) => return Waited::Gone,
                    Ok(length) => {
                        if !ticket.reserve(length) {
                            return Waited::Way(Way::Refuse(Refused::HoldFull));
                        }
                        self.early.extend_from_slice(&piece[..length]);
                    }
                },
            }
        }
    }

    async fn serve(self, worker: Connection, permit: Permit) {
        let (stop, cut) = (permit.tunnels().clone(), permit.cut().clone());
        self.relay(worker, &stop, &cut, permit).await;
    }

    /// Copies both ways until the far side has ended. `stop`: the far side is told that the client has ended; `cut`: no
    /// byte goes either way any more. `permit` is given back as soon as nothing more can reach the client.
    async fn relay<T>(self, far: Connection, stop: &CancellationToken, cut: &CancellationToken, permit: T) {
        let (mut near_read, mut near_write) = split(self.stream);
        let (mut far_read, mut far_write) = split(far);
        let debt = Debt::default();
        let up = async {
            if upwards(&self.early, &mut near_read, &mut far_write, &debt, stop).await {
                // The far side ends when it has answered.
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            () = cut.cancelled() => {}
            // An error ends the connection as an end does: whichever side it was, nothing more gets through.
            _ = copy(&mut far_read, &mut near_write, || debt.paid()) => {}
            () = up => {}
        }
        drop((far_read, far_write));
        // The end is on its way before anybody counts this connection as done.
        let ended = near_write.shutdown().await;
        drop(permit);
        if ended.is_ok() {
            let _ = timeout(LINGER, discard(&mut near_read)).await;
        }
    }
}

/// From the client to the far side; whether the far side may still answer.
async fn upwards(
    early: &[u8],
    from: &mut ReadHalf<Connection>,
    to: &mut WriteHalf<Connection>,
    debt: &Debt,
    stop: &CancellationToken,
) -> bool {
    let copying = async {
        if !early.is_empty() {
            debt.owed();
            to.write_all(early).await?;
        }
        copy(from, to, || debt.owed()).await
    };
    let copied = tokio::select! {
        biased;
        () = stop.cancelled() => {
            debt.settled().await;
            Ok(())
        }
        copied = copying => copied,
    };
    // Refused where the far side is gone; then it has nothing more to say either.
    copied.is_ok() && to.shutdown().await.is_ok()
}

/// Copies to the end; `passed` is told of each piece before it is written.
async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    passed: impl Fn(),
) -> std::io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        let length = from.read(&mut piece).await?;
        if length == 0 {
            return Ok(());
        }
        passed();
        to.write_all(&piece[..length]).await?;
    }
}

/// Whether the far side owes an answer, as far as anybody can tell who does not know its protocol.
#[derive(Default)]
struct Debt {
    owes: AtomicBool,
    spoke: Notify,
}

impl Debt {
    fn owed(&self) {
        self.owes.store(true, Ordering::Relaxed);
    }

    fn paid(&self) {
        self.owes.store(false, Ordering::Relaxed);
        self.spoke.notify_one();
    }

    /// Waits, for a moment, until what was asked is answered.
    async fn settled(&self) {
        let answered = async {
            while self.owes.load(Ordering::Relaxed) {
                self.spoke.notified().await;
                while timeout(QUIET, self.spoke.notified()).await.is_ok() {}
            }
        };
        // It may not be something that is answered.
        let _ = timeout(ANSWER, answered).await;
    }
}

async fn discard(from: &mut ReadHalf<Connection>) {
    let mut piece = [0; 4096];
    while let Ok(1..) = from.read(&mut piece).await {}
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    /// A client and a worker with a relay between them.
    fn relay(stop: &CancellationToken, cut: &CancellationToken) -> (DuplexStream, DuplexStream) {
        let ((client, near), (far, worker)) = (duplex(1024), duplex(1024));
        let client_side = Client { stream: Box::new(near), early: b"early ".to_vec() };
        let (stop, cut) = (stop.clone(), cut.clone());
        tokio::spawn(async move { client_side.relay(Box::new(far), &stop, &cut, ()).await });
        (client, worker)
    }

    async fn heard(stream: &mut DuplexStream, length: usize) -> String {
        let mut bytes = vec![0; length];
        stream.read_exact(&mut bytes).await.unwrap();
        String::from_utf8(bytes).unwrap()
    }

    async fn end(stream: &mut DuplexStream) -> String {
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn bytes_go_both_ways_and_an_end_goes_with_them() {
        let token = CancellationToken::new();
        let (mut client, mut worker) = relay(&token, &token);
        client.write_all(b"bird").await.unwrap();
        assert_eq!(heard(&mut worker, 10).await, "early bird");
        worker.write_all(b"worm").await.unwrap();
        assert_eq!(heard(&mut client, 4).await, "worm");
        client.shutdown().await.unwrap();
        assert_eq!(end(&mut worker).await, "");
        worker.write_all(b"bye").await.unwrap();
        drop(worker);
        assert_eq!(end(&mut client).await, "bye");
    }

    #[tokio::test]
    async fn a_stop_lets_an_answer_that_is_owed_through_and_nothing_more_in() {
        let (stop, cut) = (CancellationToken::new(), CancellationToken::new());
        let (mut client, mut worker) = relay(&stop, &cut);
        assert_eq!(heard(&mut worker, 6).await, "early ");
        stop.cancel();
        client.write_all(b"too late").await.unwrap();
        worker.write_all(b"answer").await.unwrap();
        assert_eq!(heard(&mut client, 6).await, "answer");
        assert_eq!(end(&mut worker).await, "", "the worker is told of the end, and of nothing else");
        drop(worker);
        assert_eq!(end(&mut client).await, "");
    }

    #[tokio::test]
    async fn a_cut_ends_a_connection_whose_worker_does_not() {
        let (stop, cut) = (CancellationToken::new(), CancellationToken::new());
        let (mut client, mut worker) = relay(&stop, &cut);
        assert_eq!(heard(&mut worker, 6).await, "early ");
        cut.cancel();
        assert_eq!(end(&mut client).await, "");
        assert_eq!(end(&mut worker).await, "");
        assert!(worker.write_all(b"too late").await.is_err());
    }
}

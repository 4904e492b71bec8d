//! Upgraded connections: bytes that pass through unread, and how they end when the process moves.

use std::io;
use std::time::Duration;

use http::{HeaderMap, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, sink, split};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// A WebSocket's Close with status 1012, "service restart": come again (RFC 6455 5.5.1, IANA's registry of close codes).
const CLOSE: [u8; 4] = [0x88, 2, (1012_u16 >> 8) as u8, 1012_u16 as u8];
/// How long a client gets to take that in.
const PARTING: Duration = Duration::from_secs(1);
const BUFFER: usize = 16 << 10;

/// What is spoken on an upgraded connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// RFC 6455: its end can be said.
    WebSocket,
    /// Something else: it can only be cut.
    Other,
}

impl Protocol {
    /// What the client of this request asks for.
    pub(super) fn asked_for(headers: &HeaderMap) -> Self {
        let asked = headers.get(header::UPGRADE).map(|value| value.as_bytes());
        if asked.is_some_and(|asked| asked.eq_ignore_ascii_case(b"websocket")) {
            Self::WebSocket
        } else {
            Self::Other
        }
    }
}

/// Joins the two ends of an upgraded connection until one closes or `ended`. Then a WebSocket's client is told to come
/// again, unless the worker was in the middle of a frame.
pub(super) fn join(near: OnUpgrade, far: OnUpgrade, protocol: Protocol, ended: CancellationToken) {
    tokio::spawn(async move {
        let joined = tokio::select! {
            joined = async { tokio::try_join!(near, far) } => joined,
            () = ended.cancelled() => return,
        };
        let Ok((near, far)) = joined else { return };
        // How it broke is nobody's business here.
        let _ = carry(TokioIo::new(near), TokioIo::new(far), protocol, ended).await;
    });
}

async fn carry(
    near: impl AsyncRead + AsyncWrite,
    far: impl AsyncRead + AsyncWrite,
    protocol: Protocol,
    ended: CancellationToken,
) -> io::Result<()> {
    let ((mut from_client, mut to_client), (mut from_worker, mut to_worker)) = (split(near), split(far));
    let mut frames = Frames::default();
    let inward = async {
        copy(&mut from_client, &mut to_worker).await?;
        to_worker.shutdown().await
    };
    let outward = relay(&mut from_worker, &mut to_client, &mut frames);
    let both = async { tokio::try_join!(inward, outward).map(|_| ()) };
    tokio::select! {
        over = both => return over,
        () = ended.cancelled() => {}
    }
    if protocol == Protocol::WebSocket && frames.between() {
        let parting = async {
            to_client.write_all(&CLOSE).await?;
            to_client.shutdown().await?;
            // What is left unread would reset the connection before the client has read the end of it.
            copy(&mut from_client, &mut sink()).await
        };
        let _ = timeout(PARTING, parting).await;
    }
    Ok(())
}

/// Passes on what the worker says. May be given up at any moment: `frames` has seen what was written, and nothing else.
async fn relay(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    frames: &mut Frames,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            let written = to.write(rest).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            let (done, left) = rest.split_at(written);
            frames.follow(done);
            rest = left;
        }
        to.flush().await?;
    }
}

/// Follows the frames of a WebSocket (RFC 6455 5.2) to know where one ends.
#[derive(Debug, Default)]
struct Frames {
    /// Of the head that is coming in: at most 2 bytes, 8 of a length and 4 of a mask.
    head: Vec<u8>,
    /// Bytes of the payload that are still to come.
    payload: u64,
}

impl Frames {
    /// Whether the last frame has ended and the next has not begun.
    fn between(&self) -> bool {
        self.head.is_empty() && self.payload == 0
    }

    fn follow(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.payload > 0 {
                let skipped = usize::try_from(self.payload).unwrap_or(usize::MAX).min(bytes.len());
                self.payload -= skipped as u64;
                bytes = &bytes[skipped..];
                continue;
            }
            self.head.push(*first);
            bytes = rest;
            if let Some(payload) = payload_of(&self.head) {
                self.payload = payload;
                self.head.clear();
            }
        }
    }
}

/// How long the payload of a frame is, once its head is whole.
fn payload_of(head: &[u8]) -> Option<u64> {
    let [_, second, rest @ ..] = head else { return None };
    let (length, extended) = match second & 0x7f {
        126 => (rest.first_chunk().map(|bytes| u64::from(u16::from_be_bytes(*bytes))), 2),
        127 => (rest.first_chunk().map(|bytes| u64::from_be_bytes(*bytes)), 8),
        length => (Some(u64::from(length)), 0),
    };
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    length.filter(|_| rest.len() == extended + mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(length: usize, masked: bool) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut frame = vec![0x82];
        match length {
            0..126 => frame.push(mask | length as u8),
            126..65_536 => {
                frame.push(mask | 126);
                frame.extend((length as u16).to_be_bytes());
            }
            _ => {
                frame.push(mask | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend(vec![0x7f; length + if masked { 4 } else { 0 }]);
        frame
    }

    #[test]
    fn the_end_of_a_frame_is_known_however_its_bytes_come() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536, 100_000] {
            for masked in [false, true] {
                let bytes = frame(length, masked);
                for step in [1, 7, bytes.len()] {
                    let (mut frames, mut seen) = (Frames::default(), 0);
                    for piece in bytes.chunks(step) {
                        assert!(frames.between() == (seen == 0), "{length} {masked} {seen}");
                        frames.follow(piece);
                        seen += piece.len();
                    }
                    assert!(frames.between(), "{length} {masked} {step}: {frames:?}");
                }
            }
        }
    }

    #[test]
    fn frames_follow_each_other() {
        let mut frames = Frames::default();
        let two = [frame(3, false), frame(200, false)].concat();
        frames.follow(&two);
        assert!(frames.between());
        frames.follow(&two[..9]);
        assert!(!frames.between());
    }

    async fn ended(protocol: Protocol, said: &[u8]) -> Vec<u8> {
        let ((mut client, near), (mut worker, far)) = (tokio::io::duplex(4096), tokio::io::duplex(4096));
        let stop = CancellationToken::new();
        let carried = tokio::spawn(carry(near, far, protocol, stop.clone()));
        worker.write_all(said).await.unwrap();
        let mut heard = vec![0; said.len()];
        client.read_exact(&mut heard).await.unwrap();
        stop.cancel();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        drop(client);
        carried.await.unwrap().unwrap();
        rest
    }

    #[tokio::test]
    async fn a_websocket_is_told_to_come_again_between_two_frames_and_nothing_else_is() {
        assert_eq!(ended(Protocol::WebSocket, &frame(5, false)).await, [0x88, 2, 3, 0xf4]);
        assert_eq!(ended(Protocol::WebSocket, &frame(5, false)[..4]).await, b"");
        assert_eq!(ended(Protocol::Other, &frame(5, false)).await, b"");
    }
}

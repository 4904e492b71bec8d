//! A request's body that can be sent again as long as nobody has executed the request.
//!
//! What was read from the client is remembered up to a bound; so a request that the worker refused unread, or that met no
//! listener, can be held and sent later. Beyond the bound it can be sent only once.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::client::BoxError;

/// Bytes of one request that are remembered after they were sent.
const REMEMBERED: usize = 64 << 10;

/// The body of one client's request.
#[derive(Debug)]
pub struct Request {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct Shared {
    read: Vec<Bytes>,
    length: usize,
    /// More was sent than is remembered.
    forgotten: bool,
    rest: Incoming,
    /// The only attempt that may read; earlier ones are void.
    attempt: u64,
}

/// One attempt to send it.
#[derive(Debug)]
pub struct Attempt {
    shared: Arc<Mutex<Shared>>,
    attempt: u64,
    next: usize,
}

impl Request {
    /// Of a request that just came in.
    #[must_use]
    pub fn new(rest: Incoming) -> Self {
        let shared = Shared { read: Vec::new(), length: 0, forgotten: false, rest, attempt: 0 };
        Self { shared: Arc::new(Mutex::new(shared)) }
    }

    /// The body to send now; `None` when it was sent before and is not remembered whole.
    #[must_use]
    pub fn attempt(&self) -> Option<Attempt> {
        let mut shared = lock(&self.shared);
        if shared.forgotten {
            return None;
        }
        shared.attempt += 1;
        Some(Attempt { shared: Arc::clone(&self.shared), attempt: shared.attempt, next: 0 })
    }

    /// Reads on while the request is held: the next piece's length, `None` at the end. What was read is not lost when
    /// this is dropped.
    ///
    /// # Errors
    /// When the client has left or sends nonsense.
    pub async fn read(&self) -> Result<Option<usize>, hyper::Error> {
        std::future::poll_fn(|cx| {
            let mut shared = lock(&self.shared);
            loop {
                match ready!(Pin::new(&mut shared.rest).poll_frame(cx)) {
                    None => return Poll::Ready(Ok(None)),
                    Some(Err(error)) => return Poll::Ready(Err(error)),
                    Some(Ok(frame)) => {
                        if let Ok(bytes) = frame.into_data() {
                            let length = bytes.len();
                            shared.length += length;
                            shared.read.push(bytes);
                            return Poll::Ready(Ok(Some(length)));
                        }
                    }
                }
            }
        })
        .await
    }
}

impl Attempt {
    /// In the form that the client takes.
    #[must_use]
    pub fn boxed(self) -> crate::client::Body {
        BodyExt::boxed_unsync(self)
    }
}

impl Body for Attempt {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let mut shared = lock(&this.shared);
        if shared.attempt != this.attempt {
            return Poll::Ready(Some(Err("the request is sent anew".into())));
        }
        if let Some(bytes) = shared.read.get(this.next).cloned() {
            this.next += 1;
            if shared.length > REMEMBERED {
                shared.forgotten = true;
            }
            if shared.forgotten
                && let Some(sent) = shared.read.get_mut(this.next - 1)
            {
                *sent = Bytes::new();
            }
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        match ready!(Pin::new(&mut shared.rest).poll_frame(cx)) {
            Some(Ok(frame)) => {
                if let Some(bytes) = frame.data_ref() {
                    shared.length = shared.length.saturating_add(bytes.len());
                    if shared.length > REMEMBERED {
                        shared.forgotten = true;
                        shared.read.clear();
                        this.next = 0;
                    } else {
                        shared.read.push(bytes.clone());
                        this.next += 1;
                    }
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(error.into()))),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        let shared = lock(&self.shared);
        shared.read.len() <= self.next && shared.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let shared = lock(&self.shared);
        let unsent: usize = shared.read.iter().skip(self.next).map(Bytes::len).sum();
        let (unsent, rest) = (unsent as u64, shared.rest.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(unsent));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(unsent));
        }
        hint
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

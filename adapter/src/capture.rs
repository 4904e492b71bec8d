//! A state on its way out: one part, read as often as asked, with what went wrong on the way.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use processhub_protocol::contract::{
    CaptureAnswer, CapturePart, CaptureSummary, ErrorBody, ErrorCode, Name, PartName, PartSize,
};
use processhub_protocol::id::Seq;
use tokio::sync::mpsc;

use crate::archive::Tree;

/// Bytes that are handed on at once.
const PIECE: usize = 1 << 20;

/// Where the bytes come from.
#[derive(Debug)]
pub enum Source {
    /// A file that nobody changes.
    File {
        /// Where.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// A directory that nobody changes.
    Tree(Tree),
}

/// What is known of a captured part.
#[derive(Debug)]
struct Out {
    source: Source,
    /// Bytes that the longest reading gave out.
    given: AtomicU64,
    /// Why a reading ended too early.
    failed: Mutex<Option<String>>,
}

impl Out {
    fn failed(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The one capture that can be read, and what is known of the one that was deleted last.
#[derive(Debug, Default)]
pub struct Captures {
    held: Option<(CaptureAnswer, Arc<Out>)>,
    deleted: Option<(Name, Result<CaptureSummary, ErrorBody>)>,
    count: u64,
}

impl Captures {
    /// The capture that is held: the same state is captured once.
    #[must_use]
    pub fn held(&self) -> Option<&CaptureAnswer> {
        self.held.as_ref().map(|(answer, _)| answer)
    }

    /// Holds a new capture.
    ///
    /// # Errors
    /// `Internal` for a name that the contract does not allow.
    pub fn hold(
        &mut self,
        instance: &str,
        vsn: &str,
        seq: Seq,
        part: &str,
        source: Source,
    ) -> Result<CaptureAnswer, ErrorBody> {
        let named = |what: &str| ErrorBody::new(ErrorCode::Internal, &format!("`{what}` is no name"));
        self.count += 1;
        let capture = format!("{instance}-{}", self.count);
        let capture: Name = capture.parse().map_err(|_| named(&capture))?;
        let name: PartName = part.parse().map_err(|_| named(part))?;
        let bytes = match &source {
            Source::File { bytes, .. } => Some(*bytes),
            Source::Tree(_) => None,
        };
        let parts = vec![CapturePart { name, bytes }];
        let answer = CaptureAnswer { capture, seq, vsn: vsn.to_owned(), since: None, parts };
        let out = Out { source, given: AtomicU64::new(0), failed: Mutex::default() };
        self.held = Some((answer.clone(), Arc::new(out)));
        Ok(answer)
    }

    /// The bytes of the part. When they cannot be read to their end the stream ends early, and who deletes the capture is
    /// told why.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn read(&self, capture: &Name, part: &PartName) -> Result<Body, ErrorBody> {
        let held = self.held.as_ref();
        let held = held
            .filter(|(answer, _)| &answer.capture == capture && answer.parts.iter().any(|p| &p.name == part));
        let (_, out) = held.ok_or_else(|| {
            let message = format!("no part `{part}` of a capture `{capture}`: it was deleted, or taken back");
            ErrorBody::new(ErrorCode::NotFound, &message)
        })?;
        Ok(stream(Arc::clone(out)))
    }

    /// Forgets a capture and says how long its part was.
    ///
    /// # Errors
    /// `NotFound`, and `Internal` with the reason when it could not be read to its end.
    pub fn delete(&mut self, capture: &Name) -> Result<CaptureSummary, ErrorBody> {
        if let Some((answer, out)) = self.held.take_if(|(answer, _)| &answer.capture == capture) {
            let summary = match out.failed().as_ref() {
                Some(why) => Err(ErrorBody::new(ErrorCode::Internal, why)),
                None => {
                    let size = |part: CapturePart| PartSize {
                        name: part.name,
                        bytes: part.bytes.unwrap_or_else(|| out.given.load(Ordering::Relaxed)),
                    };
                    Ok(CaptureSummary { parts: answer.parts.into_iter().map(size).collect() })
                }
            };
            self.deleted = Some((capture.clone(), summary));
        }
        match &self.deleted {
            Some((name, summary)) if name == capture => summary.clone(),
            _ => {
                let message =
                    format!("no capture `{capture}`: it was taken back, or the adapter has restarted");
                Err(ErrorBody::new(ErrorCode::NotFound, &message))
            }
        }
    }

    /// The state may change from now on.
    pub fn clear(&mut self) {
        self.held = None;
    }
}

fn stream(out: Arc<Out>) -> Body {
    let (sender, mut pieces) = mpsc::channel::<io::Result<Bytes>>(2);
    tokio::task::spawn_blocking(move || {
        let mut sink = Sink { sender, piece: BytesMut::new(), given: 0, gone: false };
        let written = match &out.source {
            Source::File { path, bytes } => file(path, *bytes, &mut sink),
            Source::Tree(tree) => tree.write(&mut sink),
        };
        let written = written.and_then(|()| sink.flush());
        out.given.fetch_max(sink.given, Ordering::Relaxed);
        // A reader that left early needs no reason.
        if let Err(error) = written
            && !sink.gone
        {
            tracing::error!(%error, "the capture could not be read to its end");
            *out.failed() = Some(error.to_string());
        }
    });
    Body::from_stream(futures::stream::poll_fn(move |cx| pieces.poll_recv(cx)))
}

fn file(path: &PathBuf, bytes: u64, sink: &mut Sink) -> io::Result<()> {
    let copied = io::copy(&mut File::open(path)?.take(bytes), sink)?;
    if copied == bytes {
        Ok(())
    } else {
        Err(io::Error::other("the dump on the adapter's disk was cut short"))
    }
}

/// Collects small writes and hands on pieces, a few ahead of the reader at most.
struct Sink {
    sender: mpsc::Sender<io::Result<Bytes>>,
    piece: BytesMut,
    given: u64,
    gone: bool,
}

impl Sink {
    fn hand_on(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = self.piece.split().freeze();
        self.given += piece.len() as u64;
        self.sender.blocking_send(Ok(piece)).map_err(|_| {
            self.gone = true;
            io::ErrorKind::BrokenPipe.into()
        })
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        if self.piece.len() >= PIECE {
            self.hand_on()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hand_on()
    }
}

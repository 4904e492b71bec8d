//! A state for another sidecar: the sealed one, the checkpoint that is offered, a replica that is held.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use bytes::{Buf, Bytes};
use http::{StatusCode, header};
use http_body::{Frame, SizeHint};
use processhub_protocol::contract::PartName;
use processhub_protocol::id::{Digest, Epoch, ProcessUid};
use processhub_protocol::wire::{Refusal, RefusalCode};
use serde::Deserialize;
use tokio::sync::mpsc;

use super::{Sidecars, refusal};
use crate::fence::blocking;
use crate::keeper::{CHUNK, Kept};
use crate::sidecar::Sidecar;

/// Chunks that are read ahead of the network.
const AHEAD: usize = 1;

#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    /// Epoch of the move that asks.
    epoch: Epoch,
    /// First byte; a multiple of the chunk's length.
    #[serde(default)]
    offset: u64,
    /// Digest of the checkpoint that is asked for, where it is one.
    checkpoint: Option<Digest>,
    /// The process whose replica is asked for, where it is one.
    process: Option<ProcessUid>,
}

pub(super) async fn manifest(State(sidecar): Sidecars, Query(asked): Query<Asked>) -> Response {
    match find(&sidecar, &asked).await {
        Ok(kept) => Json(kept.manifest()).into_response(),
        Err(refused) => refusal(&refused),
    }
}

pub(super) async fn part(
    State(sidecar): Sidecars,
    Path(name): Path<String>,
    Query(asked): Query<Asked>,
) -> Response {
    let refuse = |code, message: String| {
        refusal(&Refusal { code, message, floor: sidecar.fence.record().floor.epoch })
    };
    let Ok(name) = name.parse::<PartName>() else {
        return refuse(RefusalCode::BadRequest, "the path does not end in a part's name".to_owned());
    };
    if !asked.offset.is_multiple_of(CHUNK as u64) {
        return refuse(RefusalCode::BadRequest, format!("`offset` is not a multiple of {CHUNK}"));
    }
    let kept = match find(&sidecar, &asked).await {
        Ok(kept) => kept,
        Err(refused) => return refusal(&refused),
    };
    let Some(bytes) = kept.manifest().parts.iter().find(|part| part.name == name).map(|part| part.bytes)
    else {
        return refuse(RefusalCode::WrongState, format!("the state has no part `{name}`; read the manifest"));
    };
    let left = bytes.saturating_sub(asked.offset);
    let body = Body::new(Chunks { chunks: stream(kept, name, asked.offset), left });
    (StatusCode::OK, [(header::CONTENT_TYPE, "application/octet-stream")], body).into_response()
}

async fn find(sidecar: &Sidecar, asked: &Asked) -> Result<Kept, Refusal> {
    match (&asked.process, &asked.checkpoint) {
        (Some(process), _) => sidecar.replica(process, asked.epoch).await,
        (None, Some(digest)) => sidecar.offered(asked.epoch, digest),
        (None, None) => sealed(sidecar, asked.epoch).await,
    }
}

/// Only a sealed state, and not for a move that is older than the seal.
async fn sealed(sidecar: &Sidecar, epoch: Epoch) -> Result<Kept, Refusal> {
    let record = sidecar.fence.record();
    let refuse = |code, message| Refusal { code, message, floor: record.floor.epoch };
    let Some(state) = record.exportable(epoch) else {
        let message =
            format!("no state is sealed here for epoch {epoch}; this pod is {}", record.role.name());
        return Err(refuse(RefusalCode::WrongRole, message));
    };
    let (keeper, state) = (sidecar.keeper.clone(), state.clone());
    blocking(move || keeper.find(&state))
        .await
        .map_err(|error| refuse(RefusalCode::Busy, format!("the state cannot be read: {error}")))
}

fn stream(kept: Kept, part: PartName, mut offset: u64) -> mpsc::Receiver<io::Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        loop {
            let chunk = kept.chunk(&part, offset).await;
            let end = match &chunk {
                Ok(bytes) if bytes.is_empty() => return,
                Ok(bytes) => {
                    offset += bytes.len() as u64;
                    false
                }
                // The stream breaks, so that nobody takes it for whole.
                Err(_) => true,
            };
            if sender.send(chunk).await.is_err() || end {
                return;
            }
        }
    });
    receiver
}

/// Chunks as a body of known length.
struct Chunks {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    left: u64,
}

impl http_body::Body for Chunks {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        this.chunks.poll_recv(cx).map(|chunk| {
            chunk.map(|chunk| {
                chunk.map(|bytes| {
                    this.left = this.left.saturating_sub(bytes.remaining() as u64);
                    Frame::data(bytes)
                })
            })
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

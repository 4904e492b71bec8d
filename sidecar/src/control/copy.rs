//! A copy of the state of a worker that serves, for the trial of other code. It goes through this sidecar and stays nowhere.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use processhub_protocol::contract::{CaptureMode, CapturePurpose, CaptureRequest, Name, PartName};
use processhub_protocol::fence::Role;
use processhub_protocol::id::Epoch;
use processhub_protocol::wire::{Refusal, RefusalCode};
use serde::Deserialize;

use super::{Sidecars, refusal};
use crate::sidecar::{Seen, Sidecar};

/// How long the worker may take to begin with its answer.
const TIME: Duration = Duration::from_secs(5);

#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    /// Epoch of the move that asks.
    epoch: Epoch,
}

/// 204: there is nothing to copy while the worker serves.
pub(super) async fn capture(State(sidecar): Sidecars, Query(asked): Query<Asked>) -> Response {
    // The worker as last seen may be from before it was activated: its epoch is that of the record.
    let epoch = match serving(&sidecar, asked.epoch) {
        Ok(epoch) => epoch,
        Err(refused) => return refusal(&refused),
    };
    let live = match &sidecar.live().worker {
        Seen::Contract(info) => info.capture == CaptureMode::Live,
        Seen::Plain | Seen::Nothing => false,
    };
    if !live {
        return StatusCode::NO_CONTENT.into_response();
    }
    let request = CaptureRequest { epoch, purpose: CapturePurpose::Handover, since: None, unless_seq: None };
    match sidecar.worker.capture(&request, TIME).await {
        Ok(Some(answer)) => Json(answer).into_response(),
        Ok(None) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => {
            tracing::warn!(%error, "no copy of the state for a trial");
            StatusCode::NO_CONTENT.into_response()
        }
    }
}

pub(super) async fn part(
    State(sidecar): Sidecars,
    Path((capture, part)): Path<(String, String)>,
    Query(asked): Query<Asked>,
) -> Response {
    let refuse = |code, message: String| {
        refusal(&Refusal { code, message, floor: sidecar.fence.record().floor.epoch })
    };
    if let Err(refused) = serving(&sidecar, asked.epoch) {
        return refusal(&refused);
    }
    let (Ok(capture), Ok(part)) = (capture.parse::<Name>(), part.parse::<PartName>()) else {
        return refuse(RefusalCode::BadRequest, "the path does not end in a capture and a part".to_owned());
    };
    match sidecar.worker.part(&capture, &part, TIME).await {
        Ok(body) => (StatusCode::OK, [(header::CONTENT_TYPE, "application/octet-stream")], Body::new(body))
            .into_response(),
        Err(error) => refuse(RefusalCode::WrongState, format!("the copy is gone: {error}")),
    }
}

/// Only an owner has a state, and not for a move that is older than its ownership; the epoch at which it serves.
fn serving(sidecar: &Sidecar, epoch: Epoch) -> Result<Epoch, Refusal> {
    let record = sidecar.fence.record();
    match record.role {
        Role::Active { epoch: serves, .. } if epoch > serves => Ok(serves),
        _ => Err(Refusal {
            code: RefusalCode::WrongRole,
            message: format!("nothing is copied here for epoch {epoch}; this pod is {}", record.role.name()),
            floor: record.floor.epoch,
        }),
    }
}

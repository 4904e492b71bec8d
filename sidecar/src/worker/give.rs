//! Gives a kept state to the worker: its parts in slices, then `apply`.

use std::time::Duration;

use processhub_protocol::contract::{ApplyRequest, Direction, ErrorCode, Name, Reason};
use processhub_protocol::id::Epoch;
use serde_json::Value;

use super::{Worker, WorkerError};
use crate::keeper::{CHUNK, Kept, ManifestPart};

/// How often a slice is sent again before the import is given up.
const ATTEMPTS: u32 = 3;

/// For what a state is given.
#[derive(Clone, Copy, Debug)]
pub struct Given {
    /// The epoch at which the worker will be activated.
    pub epoch: Epoch,
    /// Why.
    pub reason: Reason,
    /// How long `apply` may take.
    pub time: Duration,
}

impl Worker {
    /// Gives `kept` to the worker; its state is that one when this returns. On an error nothing of it stays.
    ///
    /// # Errors
    /// The worker's, or `Malformed` when the kept state cannot be read.
    pub async fn give(&self, kept: &Kept, given: Given) -> Result<(), WorkerError> {
        let digest: String = kept.manifest().state.digest.0.chars().take(32).collect();
        let import: Name = format!("i{}-{digest}", given.epoch)
            .parse()
            .map_err(|_| WorkerError::Malformed("the state's digest is no name".to_owned()))?;
        let result = self.upload_and_apply(kept, given, &import).await;
        if result.is_err() {
            // Best effort: a worker that restarted has forgotten it anyway, and the next import starts its parts over.
            let _ = self.end_import(&import).await;
        }
        result
    }

    async fn upload_and_apply(&self, kept: &Kept, given: Given, import: &Name) -> Result<(), WorkerError> {
        let manifest = kept.manifest();
        for part in &manifest.parts {
            self.upload(kept, part, import).await?;
        }
        let request = ApplyRequest {
            epoch: given.epoch,
            reason: given.reason,
            vsn: manifest.vsn.clone(),
            direction: Direction::Up,
            extra: Value::Null,
            seq: manifest.state.seq,
            since: None,
            parts: manifest.sizes(),
            dry_run: false,
        };
        self.apply(import, &request, given.time).await
    }

    async fn upload(&self, kept: &Kept, part: &ManifestPart, import: &Name) -> Result<(), WorkerError> {
        let (mut offset, mut attempts) = (0u64, 0);
        while offset < part.bytes {
            let bytes = kept
                .chunk(&part.name, offset)
                .await
                .map_err(|error| WorkerError::Malformed(error.to_string()))?;
            let length = bytes.len() as u64;
            let error = match self.slice(import, &part.name, offset, bytes).await {
                Ok(()) => {
                    (offset, attempts) = (offset + length, 0);
                    continue;
                }
                Err(error) => error,
            };
            attempts += 1;
            if attempts >= ATTEMPTS
                || matches!(error.code(), Some(ErrorCode::CannotAccept | ErrorCode::TooLarge))
            {
                return Err(error);
            }
            if let WorkerError::Refused { body, .. } = &error
                && let Some(have) = body.have
            {
                // Slices begin at multiples of a chunk; a worker that has something else starts over.
                offset = if have.is_multiple_of(CHUNK as u64) && have <= part.bytes { have } else { 0 };
            }
        }
        Ok(())
    }
}

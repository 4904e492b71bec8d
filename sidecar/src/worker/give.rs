//! Gives a kept state to the worker: its parts in slices, then `apply`.

use std::time::Duration;

use bytes::BytesMut;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use processhub_protocol::contract::{
    ApplyRequest, CaptureAnswer, Direction, ErrorCode, Name, PartName, PartSize, Reason,
};
use processhub_protocol::id::{Epoch, Seq};
use processhub_protocol::wire::CodeChange;
use serde_json::Value;

use super::{Worker, WorkerError};
use crate::keeper::{CHUNK, Kept, ManifestPart};

/// How long a stream may stand still.
const QUIET: Duration = Duration::from_secs(3);
/// How often a slice is sent again before the import is given up.
const ATTEMPTS: u32 = 3;

/// Why a part was not passed on.
#[derive(Debug)]
pub enum PassError {
    /// It did not come.
    Stream(String),
    /// The worker did not take it.
    Worker(WorkerError),
}

/// For what a state is given.
#[derive(Clone, Debug)]
pub struct Given {
    /// The epoch at which the worker will be activated.
    pub epoch: Epoch,
    /// Why.
    pub reason: Reason,
    /// The state was written by other code.
    pub change: Option<CodeChange>,
    /// How long `apply` may take.
    pub time: Duration,
}

impl Given {
    /// The version of the code that wrote the state: what it says itself counts.
    fn vsn(&self, of_state: &str) -> String {
        match &self.change {
            Some(change) if of_state.is_empty() => change.from.clone(),
            Some(_) | None => of_state.to_owned(),
        }
    }

    fn request(&self, vsn: &str, seq: Seq, parts: Vec<PartSize>) -> ApplyRequest {
        ApplyRequest {
            epoch: self.epoch,
            reason: self.reason,
            vsn: self.vsn(vsn),
            direction: self.change.as_ref().map_or(Direction::Up, |change| change.direction),
            extra: self.extra(),
            seq,
            since: None,
            parts,
            dry_run: false,
        }
    }

    fn extra(&self) -> Value {
        let text = self.change.as_ref().map_or("", |change| change.extra.as_str());
        // The operator wrote it as JSON; were it none, the worker would better see it than miss it.
        if text.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
        }
    }
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
        let result = self.upload_and_apply(kept, &given, &import).await;
        if result.is_err() {
            // A worker that restarted has forgotten it anyway, and the next import starts its parts over.
            self.forget(&import).await;
        }
        result
    }

    /// Asks whether the worker would take the state whose parts were passed on.
    ///
    /// # Errors
    /// The worker's.
    pub async fn offer(
        &self,
        import: &Name,
        copy: &CaptureAnswer,
        parts: Vec<PartSize>,
        given: &Given,
    ) -> Result<(), WorkerError> {
        let request = ApplyRequest { dry_run: true, ..given.request(&copy.vsn, copy.seq, parts) };
        self.apply(import, &request, given.time).await
    }

    /// Passes the bytes of a part on as they come; their number.
    ///
    /// # Errors
    /// When the stream breaks, or the worker does not take them.
    pub async fn pass_on(
        &self,
        import: &Name,
        part: &PartName,
        mut body: Incoming,
    ) -> Result<u64, PassError> {
        let (mut offset, mut buffer, mut more) = (0u64, BytesMut::new(), true);
        while more {
            while more && buffer.len() < CHUNK {
                match tokio::time::timeout(QUIET, body.frame()).await {
                    Err(_) => return Err(PassError::Stream(format!("part `{part}` stands still"))),
                    Ok(None) => more = false,
                    Ok(Some(Err(error))) => return Err(PassError::Stream(error.to_string())),
                    Ok(Some(Ok(frame))) => {
                        if let Ok(bytes) = frame.into_data() {
                            buffer.extend_from_slice(&bytes);
                        }
                    }
                }
            }
            while buffer.len() >= CHUNK || (!more && !buffer.is_empty()) {
                let bytes = buffer.split_to(buffer.len().min(CHUNK)).freeze();
                let length = bytes.len() as u64;
                self.slice(import, part, offset, bytes).await.map_err(PassError::Worker)?;
                offset += length;
            }
        }
        Ok(offset)
    }

    /// Lets the worker forget what was uploaded. Best effort: it forgets it anyway when it is activated or restarts.
    pub async fn forget(&self, import: &Name) {
        let _ = self.end_import(import).await;
    }

    async fn upload_and_apply(&self, kept: &Kept, given: &Given, import: &Name) -> Result<(), WorkerError> {
        let manifest = kept.manifest();
        for part in &manifest.parts {
            self.upload(kept, part, import).await?;
        }
        let request = given.request(&manifest.vsn, manifest.state.seq, manifest.sizes());
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

#[cfg(test)]
mod tests {
    use super::*;

    fn given(change: Option<CodeChange>) -> Given {
        Given { epoch: Epoch(1), reason: Reason::CodeChange, change, time: Duration::ZERO }
    }

    #[test]
    fn a_state_that_names_its_version_is_believed_and_the_hub_helps_out_where_it_does_not() {
        let change =
            CodeChange { from: "1.8".into(), direction: Direction::Down, extra: r#"{"a":1}"#.into() };
        let told = given(Some(change));
        assert_eq!((told.vsn("1.7"), told.vsn("")), ("1.7".into(), "1.8".into()));
        assert_eq!(told.extra(), serde_json::json!({ "a": 1 }));
        assert_eq!((given(None).vsn(""), given(None).extra()), (String::new(), Value::Null));
    }
}

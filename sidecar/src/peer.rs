//! What a sidecar asks of another one: a state, to forward, to hold a replica.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use processhub_protocol::contract::{CaptureAnswer, Name, PartName};
use processhub_protocol::id::{Epoch, ProcessUid, StateId};
use processhub_protocol::replica::Offer;
use processhub_protocol::wire::{Forward, Peer, Refusal, Report, TOKEN_HEADER, path};

use crate::auth::Credentials;
use crate::client::{Call, CallError, Client, full};
use crate::keeper::{CHUNK, Manifest, ManifestPart, RecordError, Recorder, Written};

/// How long a small call may take, and how long a stream may stand still.
const QUIET: Duration = Duration::from_secs(3);
/// Pause before a broken stream is taken up again.
const PAUSE: Duration = Duration::from_millis(100);
/// Largest manifest that is read.
const MAX_MANIFEST: usize = 16 << 20;
/// Largest report that is read.
const MAX_REPORT: usize = 256 << 10;
/// How often a chunk with a wrong checksum is asked for again.
const BAD_CHUNKS: u32 = 3;

/// Why a peer did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// Its address is none.
    #[error("`{0}` is not an IP address")]
    Address(String),
    /// No answer.
    #[error("the other sidecar: {0}")]
    Call(#[from] CallError),
    /// It refused.
    #[error("the other sidecar answered {status}: {message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What it said.
        message: String,
    },
    /// What it sent is not what was asked for.
    #[error("the other sidecar sent {0}")]
    Wrong(String),
    /// This pod's disk.
    #[error("{0}")]
    Record(#[from] RecordError),
}

impl PeerError {
    /// Whether asking again would give the same.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::Address(_) | Self::Wrong(_) | Self::Record(_) => true,
            Self::Refused { status, .. } => (400..500).contains(status),
            Self::Call(_) => false,
        }
    }
}

/// A state at another sidecar.
#[derive(Clone, Copy, Debug)]
pub struct Remote<'a> {
    /// The sidecar.
    pub from: &'a Peer,
    /// The epoch that asks for it.
    pub epoch: Epoch,
    /// The state.
    pub state: &'a StateId,
    /// What it is there.
    pub place: Place<'a>,
}

/// What a state is to the sidecar that has it.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// That which it has sealed.
    Sealed,
    /// The checkpoint that it offers its holders.
    Checkpoint,
    /// Its replica of this process.
    Replica(&'a ProcessUid),
}

impl Remote<'_> {
    /// What is asked for; `part` is empty or begins with a slash.
    fn target(&self, part: &str) -> String {
        let (path, epoch) = (path::STATE, self.epoch);
        match self.place {
            Place::Sealed => format!("{path}{part}?epoch={epoch}"),
            Place::Checkpoint => format!("{path}{part}?epoch={epoch}&checkpoint={}", self.state.digest),
            Place::Replica(process) => format!("{path}{part}?epoch={epoch}&process={process}"),
        }
    }
}

/// The other sidecars of this hub, and of one that a process comes from.
#[derive(Clone, Debug)]
pub struct Peers {
    client: Arc<ClientBox>,
    credentials: Credentials,
}

/// Keeps `Debug` off the client.
struct ClientBox(Client);

impl std::fmt::Debug for ClientBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl Peers {
    /// Reached through `client`, shown `credentials`.
    #[must_use]
    pub fn new(client: Client, credentials: Credentials) -> Self {
        Self { client: Arc::new(ClientBox(client)), credentials }
    }

    /// Tells the sealed source to forward here.
    ///
    /// # Errors
    /// See [`PeerError`].
    pub async fn forward(&self, to: &Peer, command: &Forward) -> Result<Report, PeerError> {
        let body = serde_json::to_vec(command).map_err(|error| PeerError::Wrong(error.to_string()))?;
        let body = self.call(to, Method::POST, path::FORWARD, body.into(), MAX_REPORT).await?;
        serde_json::from_slice(&body).map_err(|error| PeerError::Wrong(format!("no report: {error}")))
    }

    /// Asks a source that serves for a copy of its state; `None` when it has none to give.
    ///
    /// # Errors
    /// See [`PeerError`].
    pub async fn copy(&self, from: &Peer, epoch: Epoch) -> Result<Option<CaptureAnswer>, PeerError> {
        let query = format!("{}?epoch={epoch}", path::COPY);
        let body = self.call(from, Method::POST, &query, Bytes::new(), MAX_MANIFEST).await?;
        if body.is_empty() {
            return Ok(None);
        }
        let answer: CaptureAnswer = serde_json::from_slice(&body)
            .map_err(|error| PeerError::Wrong(format!("no description of a copy: {error}")))?;
        answer.check().map_err(|what| PeerError::Wrong(format!("a bad description of a copy: {what}")))?;
        Ok(Some(answer))
    }

    /// The bytes of one part of a copy, as they come.
    ///
    /// # Errors
    /// See [`PeerError`].
    pub async fn copied_part(
        &self,
        from: &Peer,
        epoch: Epoch,
        capture: &Name,
        part: &PartName,
    ) -> Result<Incoming, PeerError> {
        self.open(from, &format!("{}/{capture}/{part}?epoch={epoch}", path::COPY)).await
    }

    /// Offers a holder a state. `Ok` when it has it on its disk.
    ///
    /// # Errors
    /// See [`PeerError`]; a holder that is still fetching refuses with 503.
    pub async fn offer(&self, to: &Peer, offer: &Offer) -> Result<(), PeerError> {
        let body = serde_json::to_vec(offer).map_err(|error| PeerError::Wrong(error.to_string()))?;
        self.call(to, Method::POST, path::REPLICA, body.into(), MAX_REPORT).await.map(|_| ())
    }

    /// Fetches a state into `recorder`; its file may still be being synced then. Takes up broken streams where they broke,
    /// without end: the caller bounds the time.
    ///
    /// # Errors
    /// What asking again would not mend; see [`PeerError::is_final`].
    pub async fn pull(&self, remote: Remote<'_>, mut recorder: Recorder) -> Result<Written, PeerError> {
        let announced = loop {
            match self.manifest(remote).await {
                Ok(manifest) => break manifest,
                Err(error) if error.is_final() => return Err(error),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        };
        if announced.state != *remote.state {
            return Err(PeerError::Wrong("the manifest of another state".to_owned()));
        }
        announced.check().map_err(|what| PeerError::Wrong(format!("a bad manifest: {what}")))?;
        for part in &announced.parts {
            recorder.part(part.name.clone(), Some(part.bytes)).await?;
            self.pull_part(remote, part, &mut recorder).await?;
        }
        let written = recorder.finish(announced.state.seq, announced.vsn.clone()).await?;
        if written.manifest.state != *remote.state {
            return Err(PeerError::Wrong("bytes with another digest".to_owned()));
        }
        Ok(written)
    }

    async fn pull_part(
        &self,
        remote: Remote<'_>,
        part: &ManifestPart,
        recorder: &mut Recorder,
    ) -> Result<(), PeerError> {
        let (mut offset, mut bad) = (0u64, 0);
        while offset < part.bytes {
            let before = offset;
            match self.stream(remote, part, &mut offset, recorder).await {
                Ok(()) => {}
                Err(PeerError::Wrong(what)) => {
                    bad = if offset > before { 1 } else { bad + 1 };
                    if bad >= BAD_CHUNKS {
                        return Err(PeerError::Wrong(what));
                    }
                }
                Err(error) if error.is_final() => return Err(error),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
        Ok(())
    }

    /// Reads one stream from `offset` on, chunk by chunk, until it ends or breaks.
    async fn stream(
        &self,
        remote: Remote<'_>,
        part: &ManifestPart,
        offset: &mut u64,
        recorder: &mut Recorder,
    ) -> Result<(), PeerError> {
        let target = format!("{}&offset={offset}", remote.target(&format!("/{}", part.name)));
        let mut body = self.open(remote.from, &target).await?;
        let mut buffer = BytesMut::new();
        while *offset < part.bytes {
            let wanted = (part.bytes - *offset).min(CHUNK as u64) as usize;
            while buffer.len() < wanted {
                let frame = tokio::time::timeout(QUIET, body.frame()).await;
                match frame.map_err(|_| CallError::TimedOut(QUIET))? {
                    Some(Ok(frame)) => {
                        if let Ok(bytes) = frame.into_data() {
                            buffer.extend_from_slice(&bytes);
                        }
                    }
                    Some(Err(error)) => return Err(CallError::Broken(error.to_string()).into()),
                    None => return Err(CallError::Broken("the stream ended early".to_owned()).into()),
                }
            }
            let index = usize::try_from(*offset / CHUNK as u64).unwrap_or(usize::MAX);
            if part.crc32c.get(index) != Some(&crc32c::crc32c(&buffer[..wanted])) {
                return Err(PeerError::Wrong(format!("part `{}` with a wrong checksum", part.name)));
            }
            recorder.bytes(buffer.copy_to_bytes(wanted)).await?;
            *offset += wanted as u64;
        }
        Ok(())
    }

    async fn manifest(&self, remote: Remote<'_>) -> Result<Manifest, PeerError> {
        let body =
            self.call(remote.from, Method::GET, &remote.target(""), Bytes::new(), MAX_MANIFEST).await?;
        serde_json::from_slice(&body).map_err(|error| PeerError::Wrong(format!("no manifest: {error}")))
    }

    async fn open(&self, from: &Peer, target: &str) -> Result<Incoming, PeerError> {
        let mut request = Request::new(full(Bytes::new()));
        *request.uri_mut() = target.parse().map_err(|_| PeerError::Wrong("no path".to_owned()))?;
        *request.headers_mut() = self.headers(from);
        let answer = tokio::time::timeout(QUIET, self.client.0.send(address(from)?, request)).await;
        let response = answer.unwrap_or(Err(CallError::TimedOut(QUIET)))?;
        if response.status() == StatusCode::OK {
            return Ok(response.into_body());
        }
        let status = response.status().as_u16();
        let body =
            tokio::time::timeout(QUIET, Limited::new(response.into_body(), MAX_REPORT).collect()).await;
        let body = body.ok().and_then(Result::ok).map(|body| body.to_bytes()).unwrap_or_default();
        Err(refused(status, &body))
    }

    async fn call(
        &self,
        to: &Peer,
        method: Method,
        path: &str,
        body: Bytes,
        longest: usize,
    ) -> Result<Bytes, PeerError> {
        let (address, headers) = (address(to)?, self.headers(to));
        let call = Call { address, method, path, headers, body, json: true, time: QUIET, longest };
        let (status, body) = self.client.0.call(call).await?;
        if status.is_success() {
            return Ok(body);
        }
        Err(refused(status.as_u16(), &body))
    }

    fn headers(&self, to: &Peer) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Ok(token) = HeaderValue::from_str(&self.credentials.for_peer(to)) {
            headers.insert(TOKEN_HEADER, token);
        }
        headers
    }
}

fn refused(status: u16, body: &[u8]) -> PeerError {
    let message = serde_json::from_slice::<Refusal>(body)
        .map_or_else(|_| "no further description".to_owned(), |refusal| refusal.message);
    PeerError::Refused { status, message }
}

fn address(peer: &Peer) -> Result<SocketAddr, PeerError> {
    // An address and never a name: what is connected to does not depend on what a resolver says.
    let ip: IpAddr = peer.address.parse().map_err(|_| PeerError::Address(peer.address.clone()))?;
    Ok(SocketAddr::new(ip, peer.control_port))
}

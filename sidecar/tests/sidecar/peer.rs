//! A source whose streams break or carry wrong bytes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::routing::get;
use bytes::Bytes;
use processhub_protocol::id::Epoch;
use processhub_protocol::wire::Peer;
use processhub_sidecar::auth::Credentials;
use processhub_sidecar::client::Client;
use processhub_sidecar::keeper::{CHUNK, Keeper, Manifest};
use processhub_sidecar::net::Tcp;
use processhub_sidecar::peer::{PeerError, Peers, Place, Remote};

use crate::support::{KEY, Pod};

/// What the source does on its n-th call for a part.
#[derive(Clone, Copy)]
enum Act {
    /// Sends so many bytes and breaks off.
    Break(usize),
    /// Sends wrong bytes.
    Lie,
    /// Sends the rest.
    Send,
}

struct Source {
    manifest: Manifest,
    bytes: Bytes,
    acts: Vec<Act>,
    offsets: Mutex<Vec<usize>>,
}

#[derive(serde::Deserialize)]
struct Asked {
    offset: usize,
}

async fn part(State(source): State<Arc<Source>>, Query(Asked { offset }): Query<Asked>) -> Body {
    let call = {
        let mut offsets = source.offsets.lock().unwrap();
        offsets.push(offset);
        offsets.len() - 1
    };
    let rest = source.bytes.slice(offset..);
    match source.acts.get(call).copied().unwrap_or(Act::Send) {
        Act::Send => Body::from(rest),
        Act::Lie => Body::from(vec![b'?'; rest.len()]),
        Act::Break(length) => {
            let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(2);
            sender.send(Ok(rest.slice(..length))).await.unwrap();
            sender.send(Err(std::io::Error::other("broken"))).await.unwrap();
            Body::new(http_body_util::StreamBody::new(Frames(receiver)))
        }
    }
}

struct Frames(tokio::sync::mpsc::Receiver<Result<Bytes, std::io::Error>>);

impl futures::Stream for Frames {
    type Item = Result<http_body::Frame<Bytes>, std::io::Error>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|frame| frame.map(|bytes| bytes.map(http_body::Frame::data)))
    }
}

/// Pulls a state of two and a half chunks from such a source; what came of it, and the offsets that were asked for.
async fn pull(acts: Vec<Act>) -> (Result<bool, PeerError>, Vec<usize>) {
    let (there, here) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bytes: Bytes = (0..CHUNK * 5 / 2).map(|at| (at % 253) as u8).collect();
    let mut recorder = Keeper::open(there.path()).unwrap().record();
    recorder.part("state".parse().unwrap(), None).await.unwrap();
    recorder.bytes(bytes.clone()).await.unwrap();
    let manifest = recorder.finish(7, "1".into()).await.unwrap().synced().await.unwrap();
    let state = manifest.state.clone();
    let source = Arc::new(Source { manifest, bytes, acts, offsets: Mutex::default() });
    // An address that no other test has.
    let address: SocketAddr = Pod::new("source", 1).config.control;
    let router = Router::new()
        .route(
            "/v1/state",
            get(async |State(source): State<Arc<Source>>| axum::Json(source.manifest.clone())),
        )
        .route("/v1/state/state", get(part))
        .with_state(Arc::clone(&source));
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let keeper = Keeper::open(here.path()).unwrap();
    let peers = Peers::new(Client::new(Arc::new(Tcp)), Credentials::from_hex(KEY).unwrap());
    let from = Peer::of_this_hub("source".into(), address.ip().to_string(), address.port());
    let remote = Remote { from: &from, epoch: Epoch(2), state: &state, place: Place::Sealed };
    let pulled = peers.pull(remote, keeper.record()).await;
    let whole = pulled.map(|written| written.manifest == source.manifest && keeper.find(&state).is_ok());
    server.abort();
    let offsets = source.offsets.lock().unwrap().clone();
    (whole, offsets)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_stream_is_taken_up_where_it_broke() {
    let (pulled, offsets) = pull(vec![Act::Break(CHUNK + CHUNK / 3), Act::Break(0), Act::Send]).await;
    assert!(pulled.unwrap());
    assert_eq!(offsets, [0, CHUNK, CHUNK], "whole chunks are kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_are_asked_for_again_a_few_times() {
    let (pulled, offsets) = pull(vec![Act::Lie, Act::Break(CHUNK), Act::Lie, Act::Send]).await;
    assert!(pulled.unwrap());
    assert_eq!(offsets, [0, 0, CHUNK, CHUNK]);
    let (pulled, offsets) = pull(vec![Act::Lie; 9]).await;
    assert!(matches!(pulled, Err(PeerError::Wrong(_))));
    assert_eq!(offsets, [0, 0, 0]);
}

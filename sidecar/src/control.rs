//! The control endpoints. Each route stands under a comment that says who may call it and why.

mod copy;
mod state;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use processhub_protocol::contract::error::clean;
use processhub_protocol::wire::{Refusal, RefusalCode, path};
use serde::de::DeserializeOwned;

use crate::commands::{Command, Outcome};
use crate::sidecar::Sidecar;

/// Largest command: the process's configuration is the largest thing in one.
const MAX_COMMAND: usize = 2 << 20;
/// How long a command's body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(10);

type Sidecars = State<Arc<Sidecar>>;

/// All routes.
pub fn router(sidecar: Arc<Sidecar>) -> Router {
    let trusted = Router::new()
        // The operator: it decides from reports alone, and each carries the challenge that its next grant answers.
        .route(path::REPORT, get(report))
        // The operator, from Prepared: only it knows that a target is ready. Stops the process until a thaw or a forward.
        .route(path::FREEZE, post(|s: Sidecars, b: Request| command(s, b, Command::Freeze)))
        // The operator, from Prepared, where the code changes. Makes this sidecar fetch from the peer that the command names.
        .route(path::TRIAL, post(|s: Sidecars, b: Request| command(s, b, Command::Trial)))
        // The operator, when the source is sealed. Makes this sidecar fetch from the peer that the command names.
        .route(path::IMPORT, post(|s: Sidecars, b: Request| command(s, b, Command::Import)))
        // The operator, after Committed: a grant, which answers a challenge of this boot.
        .route(path::ACTIVATE, post(|s: Sidecars, b: Request| command(s, b, Command::Activate)))
        // The operator, after Aborted: a grant, as above.
        .route(path::THAW, post(|s: Sidecars, b: Request| command(s, b, Command::Thaw)))
        // The operator, while this pod owns its process: a grant, as above, beside whatever else is carried out.
        .route(path::RENEW, post(renew))
        // The target's sidecar, once it serves: only it knows the moment.
        .route(path::FORWARD, post(|s: Sidecars, b: Request| command(s, b, Command::Forward)))
        // The operator, after Committed, where the target's worker waits for the end of this pod's.
        .route(path::HAND_ON, post(|s: Sidecars, b: Request| command(s, b, Command::HandOn)))
        // The operator, when the process's object is gone: nobody takes the process over.
        .route(path::LET_GO, post(|s: Sidecars, b: Request| command(s, b, Command::LetGo)))
        // The target's sidecar: a copy of the state, before anything is frozen.
        .route(path::COPY, post(copy::capture))
        // The target's sidecar: the bytes of one part of it.
        .route(&format!("{}/{{capture}}/{{part}}", path::COPY), get(copy::part))
        // The operator, while this pod owns its process: who holds its replicas; a grant, as above.
        .route(path::REPLICATE, post(replicate))
        // An owner's sidecar: makes this one fetch a state from it and keep it.
        .route(path::REPLICA, post(offer))
        // The operator, for a recovery: nothing of an older epoch is taken any more.
        .route(path::SEAL, post(seal))
        // The target's sidecar: what the sealed state consists of. A holder's: the checkpoint that it is offered. The target's
        // of a recovery: the replica.
        .route(path::STATE, get(state::manifest))
        // The target's sidecar: the bytes of one part.
        .route(&format!("{}/{{part}}", path::STATE), get(state::part))
        .layer(middleware::from_fn_with_state(Arc::clone(&sidecar), authenticated));
    let open = Router::new()
        // The kubelet, which shows no identity: returns when the worker may be stopped. It only waits and is reported as
        // a hint; the operator reads the pod before it acts on it.
        .route(path::PRE_STOP, get(pre_stop))
        // The kubelet: may the worker be started. Says nothing else.
        .route(path::START, get(|State(s): Sidecars| async move { s.start_probe() }))
        // The kubelet: does this pod serve. Says nothing else.
        .route(path::READY, get(|State(s): Sidecars| async move { s.ready_probe() }))
        // The kubelet: does this sidecar run.
        .route(path::LIVE, get(|| async { StatusCode::OK }))
        // Prometheus, which has no key of the hub: numbers without names, no state.
        .route(path::METRICS, get(metrics));
    trusted
        .merge(open)
        .fallback(|| async { StatusCode::NOT_FOUND })
        .layer(DefaultBodyLimit::max(MAX_COMMAND))
        .with_state(sidecar)
}

async fn authenticated(State(sidecar): Sidecars, request: Request, next: Next) -> Response {
    match sidecar.config.credentials.authenticate(&sidecar.config.pod, request.headers()) {
        Some(_caller) => next.run(request).await,
        None => {
            sidecar.metrics.unauthenticated.inc();
            // The floor stays unsaid to who may be anyone.
            let message =
                "`processhub-token` is missing or not this pod's; read the pod's UID and the hub's key again";
            let floor = processhub_protocol::id::Epoch(0);
            refusal(&Refusal { code: RefusalCode::Unauthenticated, message: message.to_owned(), floor })
        }
    }
}

async fn report(State(sidecar): Sidecars) -> Response {
    Json(sidecar.report()).into_response()
}

async fn command<T: DeserializeOwned>(
    State(sidecar): Sidecars,
    request: Request,
    command: impl Fn(T) -> Command,
) -> Response {
    match parsed(&sidecar, request).await {
        Ok(parsed) => answer(&sidecar, sidecar.obey(command(parsed)).await),
        Err(refused) => refused,
    }
}

async fn renew(State(sidecar): Sidecars, request: Request) -> Response {
    match parsed(&sidecar, request).await {
        Ok(command) => answer(&sidecar, sidecar.renew(&command)),
        Err(refused) => refused,
    }
}

async fn replicate(State(sidecar): Sidecars, request: Request) -> Response {
    match parsed(&sidecar, request).await {
        Ok(command) => answer(&sidecar, sidecar.replicate_to(command)),
        Err(refused) => refused,
    }
}

async fn offer(State(sidecar): Sidecars, request: Request) -> Response {
    match parsed(&sidecar, request).await {
        Ok(offer) => match sidecar.hold_replica(offer).await {
            Ok(()) => StatusCode::NO_CONTENT.into_response(),
            Err(refused) => refusal(&refused),
        },
        Err(refused) => refused,
    }
}

async fn seal(State(sidecar): Sidecars, request: Request) -> Response {
    match parsed(&sidecar, request).await {
        Ok(command) => match sidecar.seal_replica(&command).await {
            Ok(sealed) => Json(sealed).into_response(),
            Err(refused) => refusal(&refused),
        },
        Err(refused) => refused,
    }
}

fn answer(sidecar: &Sidecar, outcome: Outcome) -> Response {
    match outcome {
        Ok(()) => Json(sidecar.report()).into_response(),
        Err(refused) => refusal(&refused),
    }
}

/// The body of a command, or the answer to what is none.
async fn parsed<T: DeserializeOwned>(sidecar: &Sidecar, request: Request) -> Result<T, Response> {
    let bad = |message: String| {
        let floor = sidecar.fence.record().floor.epoch;
        refusal(&Refusal { code: RefusalCode::BadRequest, message: clean(&message), floor })
    };
    let body = tokio::time::timeout(BODY_TIME, axum::body::to_bytes(request.into_body(), MAX_COMMAND)).await;
    let body: Bytes = match body {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return Err(bad(format!("the body is cut short or longer than {MAX_COMMAND} bytes"))),
        Err(_) => return Err(bad(format!("the body did not arrive within {} s", BODY_TIME.as_secs()))),
    };
    serde_json::from_slice(&body).map_err(|error| bad(format!("the body is not this command: {error}")))
}

async fn pre_stop(State(sidecar): Sidecars) -> StatusCode {
    sidecar.pre_stop().await;
    StatusCode::OK
}

async fn metrics(State(sidecar): Sidecars) -> Response {
    let text = {
        let age = sidecar.checkpoints.age(&sidecar.live().exposure);
        sidecar.metrics.text(sidecar.hold.held(), age)
    };
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, HeaderValue::from_static(kind))], text).into_response()
}

fn refusal(refusal: &Refusal) -> Response {
    let status = StatusCode::from_u16(refusal.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, Json(refusal)).into_response()
}

//! The clients' way: every request of the process comes in here.
//!
//! A request goes to the own worker, to the successor, or is held. Once a byte of it has reached either it is never sent
//! again, unless the answer says that it was not executed; if the answer is lost the client gets 502 `outcome_unknown`.

mod answer;
mod body;
mod headers;
mod onward;
mod tunnel;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use processhub_protocol::passage::follows;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::checkpoint::Answered;
use crate::client::{Body, CallError};
use crate::hold::{Entry, Permit, Refused, Successor, Ticket, Way};
use crate::sidecar::{Seen, Sidecar};

use answer::{guarded, outcome_unknown, plain, refusal};
use onward::Onward;
use tunnel::Protocol;

/// Pause before a request that was not executed is sent again; grows with the attempts.
const PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// What a probe is told instead of the worker's answer.
const HELD: &str = "held by its sidecar";

/// One client's request.
struct Exchange {
    parts: Parts,
    body: body::Request,
    forwarded: bool,
    probe: bool,
    /// Where it is sent instead of to the successor, which has itself been succeeded.
    onward: Option<Successor>,
    upgrade: Option<hyper::upgrade::OnUpgrade>,
}

/// What came of sending a request.
enum Sent {
    /// The answer.
    Answered(Response<Body>),
    /// It was not executed and may be sent again.
    NotExecuted,
    /// It was not executed, because the process has moved on, to there.
    MovedOn(Onward),
    /// Something was sent, and what came of it is unknown.
    Unknown,
}

impl Sidecar {
    /// Answers one request of a client.
    pub(crate) async fn proxy(
        self: Arc<Self>,
        mut request: Request<Incoming>,
    ) -> Result<Response<Body>, Infallible> {
        if request.method() == Method::CONNECT {
            let message = "this is the address of one process, not a proxy";
            return Ok(answer::error(StatusCode::NOT_IMPLEMENTED, "not_implemented", message));
        }
        let forwarded = self.forwarded(request.headers());
        let probe = headers::is_probe(request.headers());
        let upgrade = headers::wants_upgrade(request.headers()).then(|| hyper::upgrade::on(&mut request));
        let (mut parts, incoming) = request.into_parts();
        headers::clean_request(&mut parts.headers, upgrade.is_some());
        let request =
            Exchange { parts, body: body::Request::new(incoming), forwarded, probe, onward: None, upgrade };
        if probe && let Some(answer) = self.probe() {
            return Ok(answer);
        }
        Ok(self.pass(request).await)
    }

    /// Whether another sidecar of the hub sent this on, so that it is not sent on again (rule 15).
    fn forwarded(&self, headers: &http::HeaderMap) -> bool {
        headers.contains_key(headers::FORWARDED)
            && self.config.credentials.authenticate(&self.config.pod, headers).is_some()
    }

    /// The kubelet's probes of the worker: the worker's business while it serves; otherwise answered here, so that no
    /// probe kills a worker that is held.
    fn probe(&self) -> Option<Response<Body>> {
        if self.serving() {
            return None;
        }
        let live = self.live();
        // A worker that should serve and does not do as it is told: the kubelet restarts it.
        if live.stuck && !matches!(live.worker, Seen::Nothing) {
            let message = "the worker does not take the role that it is given";
            return Some(answer::error(StatusCode::SERVICE_UNAVAILABLE, "stuck", message));
        }
        Some(plain(StatusCode::OK, HELD))
    }

    async fn pass(&self, mut request: Exchange) -> Response<Body> {
        let deadline = Instant::now() + self.config.hold.time;
        let mut pause = PAUSE;
        loop {
            let way = match self.hold.enter(request.forwarded) {
                Entry::Go(way) => way,
                // The flow was turned just now; a probe never waits.
                Entry::Wait(_) if request.probe => return plain(StatusCode::OK, HELD),
                Entry::Wait(ticket) => self.wait(ticket, &request.body, deadline).await,
            };
            let sent = match way {
                Way::Refuse(Refused::ForwardedOnce) => return self.point_onward(),
                Way::Refuse(refused) => return self.turn_away(refused),
                Way::Serve(permit) => self.to_worker(&mut request, permit).await,
                Way::Forward(successor) => {
                    let successor = request.onward.clone().unwrap_or(successor);
                    self.to_successor(&mut request, &successor).await
                }
            };
            match sent {
                Sent::Answered(answer) => return answer,
                Sent::Unknown => {
                    self.metrics.outcome_unknown.inc();
                    return outcome_unknown();
                }
                Sent::NotExecuted | Sent::MovedOn(_) if Instant::now() >= deadline => {
                    return self.turn_away(Refused::HoldExpired);
                }
                Sent::MovedOn(onward) if self.follows(&onward) => {
                    request.onward = self.successor(&onward.to);
                }
                Sent::NotExecuted | Sent::MovedOn(_) => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Holds a request until it has a way. Its body is read meanwhile, within the bound, because only so is it noticed
    /// when the client leaves.
    async fn wait(&self, mut ticket: Ticket, body: &body::Request, deadline: Instant) -> Way {
        let mut reading = true;
        loop {
            tokio::select! {
                biased;
                way = ticket.way() => return way,
                () = tokio::time::sleep_until(deadline) => return Way::Refuse(Refused::HoldExpired),
                read = body.read(), if reading => match read {
                    Ok(Some(length)) => {
                        if !ticket.reserve(length) {
                            return Way::Refuse(Refused::HoldFull);
                        }
                    }
                    Ok(None) => reading = false,
                    Err(_) => return Way::Refuse(Refused::HoldExpired),
                },
            }
        }
    }

    async fn to_worker(&self, request: &mut Exchange, permit: Permit) -> Sent {
        let mut headers = request.parts.headers.clone();
        headers::for_worker(&mut headers, &self.config.name, permit.epoch);
        let tunnels = permit.tunnels().clone();
        let (method, line) = (request.parts.method.clone(), self.checkpoints.line());
        let work = async {
            match self.send(request, headers, self.config.worker_listen, tunnels).await {
                Sent::Answered(answer) => {
                    let answered = Answered::new(&method, answer.status(), answer.headers());
                    self.secure(answered, line).await.map_or(Sent::Unknown, |()| Sent::Answered(answer))
                }
                sent => sent,
            }
        };
        let sent = tokio::select! {
            biased;
            // First: what is relayed, and what is not, is decided before the worker is suspended.
            () = permit.cut().cancelled() => Sent::Unknown,
            sent = work => sent,
        };
        match sent {
            // Somebody else may acknowledge by now.
            Sent::Answered(_) if !self.may_acknowledge() => Sent::Unknown,
            Sent::Answered(answer) => Sent::Answered(guarded(answer, permit)),
            Sent::NotExecuted | Sent::MovedOn(_) => {
                self.doubt_worker();
                Sent::NotExecuted
            }
            Sent::Unknown => {
                self.kick.notify_one();
                Sent::Unknown
            }
        }
    }

    async fn to_successor(&self, request: &mut Exchange, successor: &Successor) -> Sent {
        let mut headers = request.parts.headers.clone();
        headers::for_successor(&mut headers, &successor.token);
        let tunnels = self.down.clone();
        match self.send(request, headers, successor.address, tunnels).await {
            Sent::Answered(mut answer) => {
                self.metrics.forwarded.inc();
                // The client's next connection finds the new route.
                headers::close(answer.headers_mut());
                Sent::Answered(answer)
            }
            sent => sent,
        }
    }

    async fn send(
        &self,
        request: &mut Exchange,
        headers: http::HeaderMap,
        address: SocketAddr,
        tunnels: CancellationToken,
    ) -> Sent {
        let Some(attempt) = request.body.attempt() else {
            // It was refused unexecuted and is not at hand any more: the client has it.
            return Sent::Answered(self.turn_away(Refused::HoldFull));
        };
        let mut outgoing = Request::new(attempt.boxed());
        *outgoing.method_mut() = request.parts.method.clone();
        *outgoing.uri_mut() = request.parts.uri.clone();
        *outgoing.headers_mut() = headers;
        let mut response = match self.client.send(address, outgoing).await {
            Ok(response) => response,
            Err(CallError::Unreachable(_)) => return Sent::NotExecuted,
            Err(error) => {
                tracing::debug!(%error, "an answer was lost");
                return Sent::Unknown;
            }
        };
        if response.status() == StatusCode::SERVICE_UNAVAILABLE && headers::not_executed(response.headers()) {
            return Onward::read(response.headers()).map_or(Sent::NotExecuted, Sent::MovedOn);
        }
        let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let far = switched.then(|| hyper::upgrade::on(&mut response));
        let (mut parts, body) = response.into_parts();
        headers::clean_response(&mut parts.headers, switched);
        if let (Some(far), Some(near)) = (far, request.upgrade.take()) {
            tunnel::join(near, far, Protocol::asked_for(&request.parts.headers), tunnels);
        }
        Sent::Answered(Response::from_parts(parts, answer::relayed(body)))
    }

    /// A request that was forwarded to here, from where the process has moved on: nobody forwards it a second time
    /// (rule 15), but who sent it is told where it belongs.
    fn point_onward(&self) -> Response<Body> {
        let mut answer = self.turn_away(Refused::ForwardedOnce);
        if let Some((epoch, to)) = self.succeeded_by() {
            Onward { epoch, to }.write(answer.headers_mut());
        }
        answer
    }

    /// Whether a successor's word of its own successor is to be believed: forwarding goes only upwards. Where one is
    /// followed again and again, the deadline ends it.
    fn follows(&self, onward: &Onward) -> bool {
        self.succeeded_by().is_some_and(|(epoch, _)| follows(epoch, onward.epoch))
    }

    fn turn_away(&self, refused: Refused) -> Response<Body> {
        self.metrics.refused(refused);
        refusal(refused)
    }
}

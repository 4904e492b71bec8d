//! Faults that a test switches on: a worker that refuses, hangs, dies or talks nonsense. Nothing of this is how a worker
//! is written; the rest of the example does not need it.

mod words;

pub use words::{Call, Fault, How, Numbering, Point, UnknownFault};

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use processhub_sdk::Refusal;
use serde_json::{Value, json};

/// How much memory a worker takes that is to exhaust it, in MiB.
const MOST_MEMORY: usize = 512;

/// The faults that are switched on.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    on: BTreeSet<Fault>,
    /// Calls that came already, for those that are answered only once.
    seen: BTreeSet<(Call, Vec<u8>)>,
    count: u64,
}

impl Faults {
    /// These and no others.
    pub fn set(&self, faults: impl IntoIterator<Item = Fault>) {
        let on = faults.into_iter().collect();
        *self.lock() = Inner { on, ..Inner::default() };
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self) -> BTreeSet<Fault> {
        self.lock().on.clone()
    }

    /// A number that grows.
    fn count(&self) -> u64 {
        let mut inner = self.lock();
        inner.count += 1;
        inner.count
    }

    /// Whether this call, with this body, came before.
    fn again(&self, call: Call, body: &[u8]) -> bool {
        !self.lock().seen.insert((call, body.to_vec()))
    }

    /// For code on a thread that may block: hangs, dies or refuses as it was told for this point.
    ///
    /// # Errors
    /// A refusal that was switched on.
    pub fn strike(&self, at: Point) -> Result<(), Refusal> {
        std::thread::sleep(self.delay(at));
        self.crash(at);
        if self.get().contains(&Fault::Refuse(at)) {
            return Err(Refusal::cannot_accept("refused, as the test asked for"));
        }
        Ok(())
    }

    /// For code of a task: as [`Faults::strike`]; true if the request is to be refused.
    pub async fn strike_request(&self, at: Point) -> bool {
        tokio::time::sleep(self.delay(at)).await;
        self.crash(at);
        self.get().contains(&Fault::Refuse(at))
    }

    fn delay(&self, at: Point) -> Duration {
        let delays = self.get().into_iter().filter_map(|fault| match fault {
            Fault::Hang(point, milliseconds) if point == at => Some(milliseconds),
            _ => None,
        });
        Duration::from_millis(delays.sum())
    }

    fn crash(&self, at: Point) {
        if self.get().contains(&Fault::Exhaust(at)) {
            exhaust();
        }
        let status = self.get().into_iter().find_map(|fault| match fault {
            Fault::Crash(point) if point == at => Some(70),
            Fault::Exit(point, status) if point == at => Some(status),
            _ => None,
        });
        if let Some(status) = status {
            std::process::exit(status.into());
        }
    }

    /// Puts the mangled answers between the contract and its caller.
    pub fn mangle(&self, contract: Router) -> Router {
        contract.layer(middleware::from_fn_with_state(self.clone(), mangle))
    }

    /// Puts the wrong numbers on what clients are answered.
    pub fn number(&self, clients: Router) -> Router {
        clients.layer(middleware::from_fn_with_state(self.clone(), number))
    }

    fn manner(&self, call: Call) -> Option<How> {
        self.get().into_iter().find_map(|fault| match fault {
            Fault::Mangle(at, how) if at == call => Some(how),
            _ => None,
        })
    }
}

/// Takes memory until the kernel ends this program; where nothing limits it, it ends itself before the machine suffers.
fn exhaust() -> ! {
    let hoard: Vec<Vec<u8>> = (0..MOST_MEMORY).map(|_| std::hint::black_box(vec![1; 1 << 20])).collect();
    drop(std::hint::black_box(hoard));
    std::process::exit(70)
}

async fn number(State(faults): State<Faults>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let wrong = faults.get().into_iter().find_map(|fault| match fault {
        Fault::Number(Numbering::Ahead) => Some(HeaderValue::from(1_000_000 + faults.count())),
        Fault::Number(Numbering::Stuck) => Some(HeaderValue::from_static("1")),
        Fault::Number(Numbering::Text) => Some(HeaderValue::from_static("soon")),
        _ => None,
    });
    if let Some(wrong) = wrong {
        response.headers_mut().insert("processhub-seq", wrong);
    }
    response
}

async fn mangle(State(faults): State<Faults>, request: Request, next: Next) -> Response {
    let Some(call) = call_of(&request).filter(|_| !faults.get().is_empty()) else {
        return next.run(request).await;
    };
    // Slices and answers without a body go through as they are.
    if matches!(call, Call::Info | Call::Read | Call::Put) {
        return answer(&faults, call, &[], request, next).await;
    }
    let (head, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, 2 << 20).await else {
        faults.crash(Point::Hangup);
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let said: Value = serde_json::from_slice(&body).unwrap_or_default();
    let call = if call == Call::Capture && said["purpose"] == "Checkpoint" { Call::Checkpoint } else { call };
    let request = Request::from_parts(head, Body::from(body.clone()));
    answer(&faults, call, &body, request, next).await
}

async fn answer(faults: &Faults, call: Call, body: &[u8], request: Request, next: Next) -> Response {
    let said: Value = serde_json::from_slice(body).unwrap_or_default();
    let has = |field: &str| !said[field].is_null();
    let done = || StatusCode::NO_CONTENT.into_response();
    let bad = || StatusCode::BAD_REQUEST.into_response();
    let conflict =
        || (StatusCode::CONFLICT, axum::Json(json!({"code": "WrongState", "message": "no"}))).into_response();
    match faults.manner(call) {
        Some(How::TooLarge) => Body::from(vec![b' '; 1 << 20]).into_response(),
        Some(How::TooSlow) => {
            tokio::time::sleep(Duration::from_secs(10)).await;
            next.run(request).await
        }
        Some(How::CutShort) => {
            let mut response = Response::new(Body::new(Half(Some(Bytes::from_static(b"{\"capt")))));
            response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("400"));
            response
        }
        Some(How::NotJson) => "yes, gladly".into_response(),
        Some(How::OtherVersion) => rewrite(next.run(request).await, |body| body["contract"] = json!(2)).await,
        Some(How::SameInstance) => {
            rewrite(next.run(request).await, |body| body["instance"] = json!("me")).await
        }
        Some(How::OtherSince) if has("since") => {
            rewrite(next.run(request).await, |body| body["since"] = json!(0)).await
        }
        Some(How::AlwaysYes) => {
            next.run(request).await;
            done()
        }
        Some(How::Pretended) => done(),
        Some(How::Unchanged) if has("unlessSeq") => done(),
        Some(How::DeltaPretended) if has("since") => done(),
        Some(How::NoMayMiss) if has("mayMiss") => bad(),
        Some(How::Strict) if has("fromTheFuture") => bad(),
        Some(How::Once) if faults.again(call, body) => conflict(),
        Some(How::WrongState) => conflict(),
        Some(How::Fickle) => {
            let whole = axum::body::to_bytes(next.run(request).await.into_body(), 1 << 30).await;
            let mut bytes = whole.unwrap_or_default().to_vec();
            if faults.again(call, b"") {
                bytes.push(b'!');
            }
            bytes.into_response()
        }
        Some(How::Missing) => StatusCode::NOT_IMPLEMENTED.into_response(),
        None
        | Some(
            How::OtherSince | How::Unchanged | How::DeltaPretended | How::NoMayMiss | How::Strict | How::Once,
        ) => next.run(request).await,
    }
}

fn call_of(request: &Request) -> Option<Call> {
    let mut segments = request.uri().path().strip_prefix("/v1/")?.split('/');
    Some(match (request.method().as_str(), segments.next()?, segments.next(), segments.next()) {
        ("GET", "info", None, None) => Call::Info,
        ("POST", "consent", None, None) => Call::Consent,
        ("POST", "code-change", None, None) => Call::CodeChange,
        ("POST", "suspend", None, None) => Call::Suspend,
        ("POST", "resume", None, None) => Call::Resume,
        ("POST", "capture", None, None) => Call::Capture,
        ("GET", "capture", Some(_), Some(_)) => Call::Read,
        ("PUT", "import", Some(_), Some(_)) => Call::Put,
        ("POST", "import", Some(_), Some("apply")) => Call::Apply,
        ("POST", "activate", None, None) => Call::Activate,
        _ => return None,
    })
}

/// The same answer with a changed body; one that is no JSON, or no success, stays as it is.
async fn rewrite(response: Response, change: impl FnOnce(&mut Value)) -> Response {
    let (head, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap_or_default();
    match serde_json::from_slice::<Value>(&bytes) {
        Ok(mut body) if head.status == StatusCode::OK => {
            change(&mut body);
            axum::Json(body).into_response()
        }
        _ => Response::from_parts(head, Body::from(bytes)),
    }
}

/// A body that promises more than it gives.
struct Half(Option<Bytes>);

impl axum::body::HttpBody for Half {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, std::io::Error>>> {
        let piece = self.0.take().ok_or_else(|| std::io::Error::other("cut short"));
        std::task::Poll::Ready(Some(piece.map(http_body::Frame::data)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_a_422_at_its_point_only() {
        let faults = Faults::default();
        faults.set([Fault::Refuse(Point::Import)]);
        assert!(faults.strike(Point::Import).is_err());
        assert!(faults.strike(Point::Capture).is_ok());
        faults.set([]);
        assert!(faults.strike(Point::Import).is_ok());
    }
}

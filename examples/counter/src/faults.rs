//! Faults that a test switches on: a worker that refuses, hangs, dies or talks nonsense. Nothing of this is how a worker
//! is written; the rest of the example does not need it.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use processhub_sdk::Refusal;

/// One fault. As text `name` or `name=value`, see [`Fault::from_str`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// `refuse=POINT`: says no (422) there.
    Refuse(Point),
    /// `hang=POINT:MILLISECONDS`: is slow there.
    Hang(Point, u64),
    /// `crash=POINT`: ends there, at once, with status 70.
    Crash(Point),
    /// `mangle=CALL:HOW`: answers that call of the contract wrongly.
    Mangle(Call, How),
}

/// Where a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Point {
    /// In the suspend hook.
    Suspend,
    /// While the state is captured.
    Capture,
    /// While a state that came in is decoded.
    Import,
    /// In the activate hook.
    Activate,
    /// In a client's increment, before it is applied.
    Increment,
    /// In a client's increment, after it was applied and before it is answered.
    Answer,
}

/// A call of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// `GET /v1/info`
    Info,
    /// `POST /v1/suspend`
    Suspend,
    /// `POST /v1/resume`
    Resume,
    /// `POST /v1/capture`
    Capture,
    /// `GET /v1/capture/{id}/{part}`
    Read,
    /// `PUT /v1/import/{id}/{part}`
    Put,
    /// `POST /v1/import/{id}/apply`
    Apply,
    /// `POST /v1/activate`
    Activate,
}

/// What is wrong with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    /// A megabyte where a few bytes were to be.
    TooLarge,
    /// Ten seconds late.
    TooSlow,
    /// Its connection breaks off half-way.
    CutShort,
    /// Text that is no JSON.
    NotJson,
    /// Of version 2 of the contract.
    OtherVersion,
    /// 204 to everything: refusals are lost.
    AlwaysYes,
    /// 204, and nothing is done.
    Pretended,
    /// 501: not implemented.
    Missing,
}

/// A text that names no fault.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no fault: use refuse=POINT, hang=POINT:MILLISECONDS, crash=POINT or mangle=CALL:HOW, with POINT one of \
     suspend capture import activate increment answer, CALL one of info suspend resume capture read put apply activate, \
     HOW one of too-large too-slow cut-short not-json other-version always-yes pretended missing"
)]
pub struct UnknownFault(String);

impl FromStr for Fault {
    type Err = UnknownFault;

    fn from_str(text: &str) -> Result<Self, UnknownFault> {
        parse(text).ok_or_else(|| UnknownFault(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Fault> {
    let (kind, value) = text.split_once('=')?;
    Some(match kind {
        "refuse" => Fault::Refuse(point(value)?),
        "crash" => Fault::Crash(point(value)?),
        "hang" => {
            let (at, milliseconds) = value.split_once(':')?;
            Fault::Hang(point(at)?, milliseconds.parse().ok()?)
        }
        "mangle" => {
            let (at, how) = value.split_once(':')?;
            Fault::Mangle(call(at)?, manner(how)?)
        }
        _ => return None,
    })
}

fn point(text: &str) -> Option<Point> {
    Some(match text {
        "suspend" => Point::Suspend,
        "capture" => Point::Capture,
        "import" => Point::Import,
        "activate" => Point::Activate,
        "increment" => Point::Increment,
        "answer" => Point::Answer,
        _ => return None,
    })
}

fn call(text: &str) -> Option<Call> {
    Some(match text {
        "info" => Call::Info,
        "suspend" => Call::Suspend,
        "resume" => Call::Resume,
        "capture" => Call::Capture,
        "read" => Call::Read,
        "put" => Call::Put,
        "apply" => Call::Apply,
        "activate" => Call::Activate,
        _ => return None,
    })
}

fn manner(text: &str) -> Option<How> {
    Some(match text {
        "too-large" => How::TooLarge,
        "too-slow" => How::TooSlow,
        "cut-short" => How::CutShort,
        "not-json" => How::NotJson,
        "other-version" => How::OtherVersion,
        "always-yes" => How::AlwaysYes,
        "pretended" => How::Pretended,
        "missing" => How::Missing,
        _ => return None,
    })
}

/// The faults that are switched on.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<BTreeSet<Fault>>>);

impl Faults {
    /// These and no others.
    pub fn set(&self, faults: impl IntoIterator<Item = Fault>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = faults.into_iter().collect();
    }

    fn get(&self) -> BTreeSet<Fault> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
        if self.get().contains(&Fault::Crash(at)) {
            std::process::exit(70);
        }
    }

    /// Puts the mangled answers between the contract and its caller.
    pub fn mangle(&self, contract: Router) -> Router {
        contract.layer(middleware::from_fn_with_state(self.clone(), mangle))
    }

    fn manner(&self, call: Call) -> Option<How> {
        self.get().into_iter().find_map(|fault| match fault {
            Fault::Mangle(at, how) if at == call => Some(how),
            _ => None,
        })
    }
}

async fn mangle(State(faults): State<Faults>, request: Request, next: Next) -> Response {
    let how = call_of(&request).and_then(|call| faults.manner(call));
    let large = || Body::from(vec![b' '; 1 << 20]);
    match how {
        None => next.run(request).await,
        Some(How::TooLarge) => large().into_response(),
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
        Some(How::OtherVersion) => other_version(next.run(request).await).await,
        Some(How::AlwaysYes) => {
            next.run(request).await;
            StatusCode::NO_CONTENT.into_response()
        }
        Some(How::Pretended) => StatusCode::NO_CONTENT.into_response(),
        Some(How::Missing) => StatusCode::NOT_IMPLEMENTED.into_response(),
    }
}

fn call_of(request: &Request) -> Option<Call> {
    let mut segments = request.uri().path().strip_prefix("/v1/")?.split('/');
    Some(match (request.method().as_str(), segments.next()?, segments.next(), segments.next()) {
        ("GET", "info", None, None) => Call::Info,
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

async fn other_version(response: Response) -> Response {
    let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap_or_default();
    let Ok(mut body) = serde_json::from_slice::<serde_json::Value>(&body) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    body["contract"] = serde_json::json!(2);
    axum::Json(body).into_response()
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
    fn faults_are_read_from_text() {
        assert_eq!("refuse=import".parse(), Ok(Fault::Refuse(Point::Import)));
        assert_eq!("hang=capture:250".parse(), Ok(Fault::Hang(Point::Capture, 250)));
        assert_eq!("crash=answer".parse(), Ok(Fault::Crash(Point::Answer)));
        assert_eq!("mangle=info:too-large".parse(), Ok(Fault::Mangle(Call::Info, How::TooLarge)));
        for bad in
            ["", "refuse", "refuse=lunch", "hang=capture", "hang=capture:soon", "mangle=info", "sulk=capture"]
        {
            assert!(bad.parse::<Fault>().unwrap_err().to_string().contains("is no fault"), "{bad}");
        }
    }

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

//! The commands of an operator, one by one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use processhub_protocol::fence::Role;
use processhub_protocol::id::{Epoch, StateId};
use processhub_protocol::replica::{Replicate, Seal, Sealed};
use processhub_protocol::wire::{
    Activate, Freeze, Grant, Import, ImportReason, Refusal, Renew, Report, StartInfo, TOKEN_HEADER, Thaw,
    WorkerState, path,
};
use processhub_sidecar::client::{Call, CallError, Client};
use processhub_sidecar::net::Tcp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{PATIENCE, Pod};

/// How an answer came out.
pub type Answer = Result<Report, Refusal>;

#[derive(Clone)]
pub struct Operator {
    client: Client,
}

impl Operator {
    pub fn new() -> Self {
        Self { client: Client::new(Arc::new(Tcp)) }
    }

    pub async fn get(&self, address: SocketAddr, path: &str, headers: HeaderMap) -> (StatusCode, Bytes) {
        self.ask(address, Method::GET, path, headers, Bytes::new()).await.unwrap()
    }

    pub async fn ask(
        &self,
        address: SocketAddr,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), CallError> {
        let call =
            Call { address, method, path, headers, body, json: true, time: PATIENCE, longest: 64 << 20 };
        self.client.call(call).await
    }

    pub fn token(&self, pod: &Pod) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(TOKEN_HEADER, pod.config.credentials.for_pod(&pod.config.pod).parse().unwrap());
        headers
    }

    pub async fn command(&self, pod: &Pod, path: &str, body: &impl Serialize) -> Answer {
        let body = serde_json::to_vec(body).unwrap();
        let answer = self.ask(pod.config.control, Method::POST, path, self.token(pod), body.into()).await;
        let (status, body) = answer.unwrap();
        if status.is_success() { Ok(parse(&body)) } else { Err(parse(&body)) }
    }

    pub async fn report(&self, pod: &Pod) -> Report {
        let (status, body) = self.get(pod.config.control, path::REPORT, self.token(pod)).await;
        assert_eq!(status, StatusCode::OK);
        parse(&body)
    }

    /// The first report that fits; the last one that did not is shown when none does.
    pub async fn until(&self, pod: &Pod, what: &str, fits: impl Fn(&Report) -> bool) -> Report {
        let begin = Instant::now();
        loop {
            let report = self.report(pod).await;
            if fits(&report) {
                return report;
            }
            assert!(begin.elapsed() < PATIENCE, "{what} did not come about: {report:#?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn worker(&self, pod: &Pod, state: WorkerState) -> Report {
        self.until(pod, "the worker's state", |report| report.worker.state == state).await
    }

    pub async fn grant(&self, pod: &Pod) -> Grant {
        let report = self.report(pod).await;
        Grant { challenge: report.challenge, valid_milliseconds: 10_000, record: report.record }
    }

    pub async fn renew(&self, pod: &Pod, epoch: u64) -> Answer {
        let renew = Renew { to: pod.addressee(), epoch: Epoch(epoch), grant: self.grant(pod).await };
        self.command(pod, path::RENEW, &renew).await
    }

    /// Tells an owner who holds its replicas.
    pub async fn replicate(&self, pod: &Pod, epoch: u64, generation: u64, holders: &[&Pod]) -> Answer {
        let command = Replicate {
            to: pod.addressee(),
            epoch: Epoch(epoch),
            grant: self.grant(pod).await,
            generation,
            holders: holders.iter().map(|holder| holder.peer()).collect(),
        };
        self.command(pod, path::REPLICATE, &command).await
    }

    /// Has a holder refuse everything below `epoch` of the process of `owner`.
    pub async fn seal_replica(&self, holder: &Pod, owner: &Pod, epoch: u64) -> Result<Sealed, Refusal> {
        let seal = Seal { process: owner.config.process.clone(), epoch: Epoch(epoch) };
        let body = serde_json::to_vec(&seal).unwrap();
        let answer =
            self.ask(holder.config.control, Method::POST, path::SEAL, self.token(holder), body.into());
        let (status, body) = answer.await.unwrap();
        if status.is_success() { Ok(parse(&body)) } else { Err(parse(&body)) }
    }

    pub fn freeze_command(&self, pod: &Pod, epoch: u64) -> Freeze {
        Freeze {
            to: pod.addressee(),
            epoch: Epoch(epoch),
            capture: true,
            drain_timeout_milliseconds: 5000,
            state_query_timeout_milliseconds: 5000,
        }
    }

    pub async fn freeze(&self, pod: &Pod, epoch: u64) -> Answer {
        self.command(pod, path::FREEZE, &self.freeze_command(pod, epoch)).await
    }

    /// Freezes and expects it to work; the sealed state.
    pub async fn seal(&self, pod: &Pod, epoch: u64) -> StateId {
        let report = self.freeze(pod, epoch).await.unwrap();
        match report.role {
            Role::Frozen { state: Some(state), .. } => state,
            _ => panic!("not sealed: {report:#?}"),
        }
    }

    pub async fn import(&self, target: &Pod, source: &Pod, epoch: u64, state: &StateId) -> Answer {
        let import = Import {
            to: target.addressee(),
            epoch: Epoch(epoch),
            state: state.clone(),
            from: source.peer(),
            replica: false,
            timeout_milliseconds: 20_000,
            reason: ImportReason::Handover,
            code_change: None,
        };
        self.command(target, path::IMPORT, &import).await
    }

    pub async fn activate(
        &self,
        pod: &Pod,
        epoch: u64,
        state: Option<StateId>,
        source: Option<&Pod>,
    ) -> Answer {
        self.activate_with(pod, epoch, state, source, self.grant(pod).await).await
    }

    pub async fn activate_with(
        &self,
        pod: &Pod,
        epoch: u64,
        state: Option<StateId>,
        source: Option<&Pod>,
        grant: Grant,
    ) -> Answer {
        let command = Activate {
            to: pod.addressee(),
            epoch: Epoch(epoch),
            grant,
            start: StartInfo { initial: state.is_none() && source.is_none(), ..StartInfo::default() },
            state,
            source: source.map(Pod::peer),
        };
        self.command(pod, path::ACTIVATE, &command).await
    }

    pub async fn thaw(&self, pod: &Pod, epoch: u64) -> Answer {
        self.thaw_with(pod, epoch, self.grant(pod).await).await
    }

    pub async fn thaw_with(&self, pod: &Pod, epoch: u64, grant: Grant) -> Answer {
        let command = Thaw { to: pod.addressee(), epoch: Epoch(epoch), grant };
        self.command(pod, path::THAW, &command).await
    }

    /// First start of a process.
    pub async fn start(&self, pod: &Pod, epoch: u64) {
        self.worker(pod, WorkerState::Standby).await;
        let report = self.activate(pod, epoch, None, None).await.unwrap();
        assert!(report.serving, "{report:#?}");
    }

    /// The whole move up to the point where the target serves.
    pub async fn hand_over(&self, source: &Pod, target: &Pod, epoch: u64) {
        self.worker(target, WorkerState::Standby).await;
        let state = self.seal(source, epoch).await;
        let report = self.import(target, source, epoch, &state).await.unwrap();
        assert!(matches!(report.role, Role::Delivered { .. }), "{report:#?}");
        let report = self.activate(target, epoch, Some(state), Some(source)).await.unwrap();
        assert!(report.serving, "{report:#?}");
    }
}

pub fn parse<T: DeserializeOwned>(body: &[u8]) -> T {
    serde_json::from_slice(body).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(body)))
}

//! Talking to a sidecar as the operator does, or as somebody does who should not.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{Api, ResourceExt};
use processhub_protocol::fence::Role;
use processhub_protocol::id::PodUid;
use processhub_protocol::wire::{CONTROL_PORT, Report, TOKEN_HEADER, path};
use processhub_sidecar::auth::Credentials;

use super::Trial;
use crate::load::{Answer, Call};
use crate::wait::{Seen, until};

impl Trial<'_> {
    /// Sends a request to a pod's sidecar with this token, or none.
    ///
    /// # Errors
    /// When the pod has no address, or does not answer.
    pub async fn command(
        &mut self,
        pod: &str,
        token: Option<String>,
        method: &str,
        path: &str,
        body: String,
    ) -> Result<Answer> {
        let pods: Api<Pod> = Api::namespaced(self.site.client(), &self.namespace);
        let ip = pods.get(pod).await?.status.and_then(|status| status.pod_ip);
        let call = Call {
            address: SocketAddr::new(ip.context("a pod without an address")?.parse()?, CONTROL_PORT),
            method: method.to_owned(),
            path: path.to_owned(),
            headers: token.map(|token| (TOKEN_HEADER.to_owned(), token)).into_iter().collect(),
            body,
        };
        self.call(call).await?.answer().await
    }

    /// The token that this pod's sidecar takes.
    ///
    /// # Errors
    /// When the hub has no key.
    pub async fn token(&self, pod: &str) -> Result<String> {
        let pods: Api<Pod> = Api::namespaced(self.site.client(), &self.namespace);
        let uid = pods.get(pod).await?.uid().context("a pod without a UID")?;
        let secrets: Api<Secret> = Api::namespaced(self.site.client(), &self.namespace);
        let secret = secrets.get(&format!("processhub-{}", self.options.name)).await?;
        let key = secret.data.and_then(|mut data| data.remove("key")).context("a Secret without a key")?;
        let credentials = Credentials::from_hex(&String::from_utf8(key.0)?).context("a bad key")?;
        Ok(credentials.for_pod(&PodUid::from(uid.as_str())))
    }

    /// What a pod's sidecar says of itself.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn report(&mut self, pod: &str) -> Result<Report> {
        let token = self.token(pod).await?;
        let answer = self.command(pod, Some(token), "GET", path::REPORT, String::new()).await?;
        anyhow::ensure!(answer.status == 200, "{pod} answered {}: {}", answer.status, answer.body);
        serde_json::from_str(&answer.body).context("a report")
    }

    /// Waits until a pod's sidecar holds requests for a move.
    ///
    /// # Errors
    /// When it does not within half a minute.
    pub async fn frozen(&mut self, pod: &str) -> Result<Report> {
        self.reports(pod, "that it is frozen", |report| matches!(report.role, Role::Frozen { .. })).await
    }

    /// Waits until a pod's sidecar holds the state of its predecessor.
    ///
    /// # Errors
    /// When it does not within half a minute.
    pub async fn delivered(&mut self, pod: &str) -> Result<Report> {
        self.reports(pod, "that it holds the state", |report| matches!(report.role, Role::Delivered { .. }))
            .await
    }

    /// Waits until the sidecar of a pod says that this is so.
    ///
    /// # Errors
    /// When it does not within half a minute.
    pub async fn reports(&mut self, pod: &str, what: &str, is: impl Fn(&Report) -> bool) -> Result<Report> {
        let end = Duration::from_secs(30);
        let trial = tokio::sync::Mutex::new(self);
        until(&format!("{pod} to report {what}"), end, async || {
            let report = trial.lock().await.report(pod).await?;
            Ok(if is(&report) { Seen::Yes(report) } else { Seen::NotYet(format!("{report:?}")) })
        })
        .await
    }
}

//! The operators of a site: who leads, and what can be done to them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use rustix::process::{Pid, Signal};
use serde_json::json;

use super::crew::Crew;
use super::{Ground, SYSTEM, Site};
use crate::wait::{Seen, until};

/// Of the leading operator of the hubs without a class.
pub(super) const LEASE: &str = "processhub-operator-default";
/// The chart's Deployment.
const DEPLOYMENT: &str = "processhub-operator";
/// The operators that run as child processes.
pub(super) const NAMES: [&str; 2] = ["operator-0", "operator-1"];

/// An operator by the name that it leads under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorPod(String);

impl OperatorPod {
    /// Name of its pod, or of its process where it runs as one.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl Site {
    /// The operator that holds the Lease.
    ///
    /// # Errors
    /// When none holds it.
    pub async fn leader(&self) -> Result<OperatorPod> {
        let leases: Api<Lease> = Api::namespaced(self.client(), SYSTEM);
        let lease = leases.get(LEASE).await?;
        let holder = lease.spec.and_then(|spec| spec.holder_identity).filter(|holder| !holder.is_empty());
        let holder = holder.context("nobody holds the Lease")?;
        // Each life of an operator has a random part of its own.
        let name = holder.rsplit_once('_').map_or(holder.as_str(), |(name, _)| name);
        Ok(OperatorPod(name.to_owned()))
    }

    /// Waits until an operator leads.
    ///
    /// # Errors
    /// When none does within a minute.
    pub async fn ready(&self) -> Result<()> {
        until("an operator that leads", Duration::from_secs(60), async || {
            Ok(match self.leader().await {
                Ok(_) => Seen::Yes(()),
                Err(error) => Seen::NotYet(format!("{error:#}")),
            })
        })
        .await
    }

    /// Waits until another operator than this one leads.
    ///
    /// # Errors
    /// When that is not so within a minute.
    pub async fn led_by_another(&self, than: &OperatorPod) -> Result<OperatorPod> {
        until("another operator to lead", Duration::from_secs(60), async || {
            let leader = self.leader().await?;
            Ok(if leader == *than { Seen::NotYet(leader.0) } else { Seen::Yes(leader) })
        })
        .await
    }

    /// All operators.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn operators(&self) -> Result<Vec<OperatorPod>> {
        if self.crew().is_some() {
            return Ok(NAMES.iter().map(|name| OperatorPod((*name).to_owned())).collect());
        }
        let pods: Api<Pod> = Api::namespaced(self.client(), SYSTEM);
        Ok(pods.list(&ListParams::default()).await?.iter().map(|pod| OperatorPod(pod.name_any())).collect())
    }

    /// Sends a signal to one operator's process. A killed one comes back by itself.
    ///
    /// # Errors
    /// When there is no such process.
    pub async fn signal_operator(&self, operator: &OperatorPod, signal: Signal) -> Result<()> {
        match self.crew() {
            Some(crew) => crew.signal(operator.name(), signal),
            None => self.signal(SYSTEM, operator.name(), "operator", signal).await,
        }
    }

    /// The processes of an operator, as this machine knows them.
    ///
    /// # Errors
    /// When it is down.
    pub async fn processes_of_operator(&self, operator: &OperatorPod) -> Result<Vec<Pid>> {
        match self.crew() {
            Some(crew) => Ok(vec![crew.pid(operator.name())?]),
            None => self.processes(SYSTEM, operator.name(), "operator").await,
        }
    }

    /// Kills one operator's process as `kill -9` does; it comes back by itself.
    ///
    /// # Errors
    /// When there is no such process.
    pub async fn kill_operator(&self, operator: &OperatorPod) -> Result<()> {
        match &*self.ground {
            // Its processes are out of reach; without grace the kubelet kills them.
            Ground::Existing(_) => self.delete_pod(SYSTEM, operator.name(), Some(0)).await,
            Ground::Embedded(_) | Ground::Local(_) => self.signal_operator(operator, Signal::KILL).await,
        }
    }

    /// Lets one operator alone lead, as a child process of this one that can be armed with failpoints.
    ///
    /// # Errors
    /// When it does not lead within a minute.
    pub async fn one_operator(&self) -> Result<()> {
        if let Ground::Local(local) = &*self.ground
            && self.crew().is_none()
        {
            self.scale_operators(0).await?;
            let crew = Crew::start(&NAMES, local.recipe()?, Box::new(|_, _| ()), &local.logs());
            self.set_crew(Some(Arc::new(crew)));
        }
        self.armed_crew()?.set_present(NAMES[1], false).await?;
        self.free_lease().await?;
        self.ready().await
    }

    /// Undoes [`Site::one_operator`].
    ///
    /// # Errors
    /// When no operator leads within a minute.
    pub async fn all_operators(&self) -> Result<()> {
        match &*self.ground {
            Ground::Embedded(_) => self.armed_crew()?.set_present(NAMES[1], true).await?,
            Ground::Local(_) => {
                self.set_crew(None);
                self.free_lease().await?;
                self.scale_operators(2).await?;
            }
            Ground::Existing(_) => {}
        }
        self.ready().await
    }

    /// Starts the one operator anew with this failpoint armed, and waits until it leads.
    ///
    /// # Errors
    /// When it does not within a minute.
    pub async fn arm(&self, failpoint: &str) -> Result<()> {
        self.armed_crew()?.arm(NAMES[0], Some(failpoint)).await?;
        self.free_lease().await?;
        self.ready().await
    }

    /// How often operators that run as child processes have ended.
    ///
    /// # Errors
    /// When they do not run as such.
    pub fn operator_ends(&self) -> Result<u64> {
        Ok(self.armed_crew()?.ends())
    }

    /// Waits until operators have ended more often than that, and lets the next one lead at once.
    ///
    /// # Errors
    /// When none ends within half a minute.
    pub async fn operator_ended(&self, before: u64) -> Result<()> {
        let crew = self.armed_crew()?;
        until("the operator to die at its failpoint", Duration::from_secs(30), async || {
            Ok(if crew.ends() > before { Seen::Yes(()) } else { Seen::NotYet("it lives".into()) })
        })
        .await?;
        self.free_lease().await?;
        self.ready().await
    }

    fn armed_crew(&self) -> Result<Arc<Crew>> {
        self.crew().context("the operators are not child processes here")
    }

    /// Takes the Lease from an operator that is known to be dead, so that nobody has to wait until it has run out.
    async fn free_lease(&self) -> Result<()> {
        let leases: Api<Lease> = Api::namespaced(self.client(), SYSTEM);
        match leases.delete(LEASE, &DeleteParams::default()).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn scale_operators(&self, replicas: u32) -> Result<()> {
        let deployments: Api<Deployment> = Api::namespaced(self.client(), SYSTEM);
        let scale = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        deployments.patch(DEPLOYMENT, &PatchParams::default(), &scale).await?;
        until(&format!("{replicas} operators"), Duration::from_secs(60), async || {
            let there = self.pods_of_operators().await?;
            Ok(if there == replicas as usize { Seen::Yes(()) } else { Seen::NotYet(format!("{there}")) })
        })
        .await
    }

    async fn pods_of_operators(&self) -> Result<usize> {
        let pods: Api<Pod> = Api::namespaced(self.client(), SYSTEM);
        Ok(pods.list(&ListParams::default()).await?.items.len())
    }
}

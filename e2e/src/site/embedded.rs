//! The system on the embedded cluster: operators and containers as processes of this machine.

use std::path::PathBuf;

use anyhow::{Result, bail};
use kube::Client;

use super::Signal;
use super::audit::{Mark, Write};
use super::crew::Recipe;
use crate::artifacts::Binaries;

/// An embedded cluster.
pub(super) struct Embedded(PathBuf);

impl Embedded {
    pub(super) async fn start(_binaries: &Binaries, _nodes: u8) -> Result<Self> {
        bail!("the embedded cluster is not there yet")
    }
    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.0.clone()
    }
    pub(super) fn logs(&self) -> PathBuf {
        self.0.clone()
    }
    pub(super) fn recipe(&self, _binaries: &Binaries) -> Result<Recipe> {
        bail!("not there yet")
    }
    pub(super) async fn join(&self) -> Result<String> {
        bail!("not there yet")
    }
    pub(super) async fn lose(&self, _node: &str) -> Result<()> {
        bail!("not there yet")
    }
    pub(super) async fn plug(&self, _node: &str, _plugged: bool) -> Result<()> {
        bail!("not there yet")
    }
    pub(super) async fn serve_api(&self, _up: bool) -> Result<()> {
        bail!("not there yet")
    }
    pub(super) async fn signal(&self, _n: &str, _p: &str, _c: &str, _s: Signal) -> Result<()> {
        bail!("not there yet")
    }
    pub(super) async fn mark(&self) -> Mark {
        Mark(0)
    }
    pub(super) async fn writes_since(&self, _mark: Mark) -> Vec<Write> {
        Vec::new()
    }
    pub(super) async fn stop(self) -> Result<()> {
        Ok(())
    }
}

pub(super) async fn install(_client: &Client) -> Result<()> {
    bail!("not there yet")
}

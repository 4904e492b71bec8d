//! The cluster as its users meet it: through kube-rs, kubectl and sockets.

mod api;
mod kubectl;
mod nodes;
mod pods;
mod support;

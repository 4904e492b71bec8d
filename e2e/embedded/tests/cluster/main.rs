//! The cluster as its users meet it: through kube-rs, kubectl and sockets.

// Said once more for clippy, which lets only what is under it unwrap.
#[cfg(test)]
mod api;
#[cfg(test)]
mod kubectl;
#[cfg(test)]
mod nodes;
#[cfg(test)]
mod pods;
#[cfg(test)]
mod support;

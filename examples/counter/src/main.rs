//! Part of ProcessHub for Kubernetes.
fn main() {}

//! Part of ProcessHub for Kubernetes.

//! Whether the hub's spec and template can be used.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::PostParams;
use kube::{Api, ResourceExt};
use processhub_crds::validate::{ValidatedHub, validate};
use processhub_crds::vocabulary::{EventReason, HubReason};
use processhub_crds::{HubProcess, HubProcessSpec, ProcessHub};
use processhub_protocol::id::Epoch;
use xxhash_rust::xxh3::xxh3_64;

use super::about;
use super::memory::Memory;
use crate::call::{self, CallError};
use crate::context::Context;
use crate::plan::replica;
use crate::process::pod::{self, Blueprint};

/// A refused template is tried again after so long, because what is missing need not be in it: a service account, a
/// namespace's policy.
const TRY_AGAIN: SignedDuration = SignedDuration::from_secs(30);

/// What was found.
#[derive(Clone, Debug)]
pub(super) struct Verdict {
    /// The hub, if it can be used.
    pub hub: Option<ValidatedHub>,
    /// The reason of the condition `Accepted`.
    pub reason: HubReason,
    /// Its message.
    pub message: String,
    at: Timestamp,
}

impl Verdict {
    fn refused(reason: HubReason, message: String, at: Timestamp) -> Self {
        Self { hub: None, reason, message, at }
    }

    /// That of a hub which can be used.
    #[cfg(test)]
    pub fn accepted_for_tests(hub: &ProcessHub) -> Self {
        accepted(validate(hub).unwrap(), Timestamp::UNIX_EPOCH)
    }

    fn is_stale(&self, now: Timestamp) -> bool {
        self.hub.is_none() && now.duration_since(self.at) >= TRY_AGAIN
    }
}

/// Judges the hub; asks the API server only about what it has not been asked about yet.
pub(super) async fn judge(
    context: &Context,
    hub: &ProcessHub,
    memory: &mut Memory,
    now: Timestamp,
) -> Result<Verdict, CallError> {
    let validated = match validate(hub) {
        Ok(validated) => validated,
        Err(invalid) => {
            return Ok(told(
                context,
                hub,
                memory,
                Verdict::refused(invalid.reason(), invalid.to_string(), now),
            ));
        }
    };
    let pod = sample(hub, &context.options.sidecar_image);
    let hash = xxh3_64(&serde_json::to_vec(&pod).unwrap_or_default());
    if let Some((tried, verdict)) = &memory.tried
        && *tried == hash
        && !verdict.is_stale(now)
    {
        let known = verdict.hub.as_ref().map(|_| validated);
        return Ok(Verdict { hub: known, ..verdict.clone() });
    }
    let pods = Api::<Pod>::namespaced(context.client.clone(), &hub.namespace().unwrap_or_default());
    let parameters = PostParams { dry_run: true, ..PostParams::default() };
    let verdict = match call::api("try template", pods.create(&parameters, &pod)).await {
        Ok(_) | Err(CallError::Exists { .. }) => accepted(validated, now),
        Err(CallError::Refused { code, message, .. }) => refusal(code, message, validated, now)?,
        Err(error) => return Err(error),
    };
    let verdict = told(context, hub, memory, verdict);
    memory.tried = Some((hash, verdict.clone()));
    Ok(verdict)
}

fn accepted(hub: ValidatedHub, at: Timestamp) -> Verdict {
    let message = "spec and template can be used".to_owned();
    Verdict { hub: Some(hub), reason: HubReason::Valid, message, at }
}

/// What the API server's refusal says about the template. Its own troubles are passed on as errors.
fn refusal(code: u16, message: String, hub: ValidatedHub, at: Timestamp) -> Result<Verdict, CallError> {
    match code {
        // A full quota says nothing about the template; the processes that find no room say so themselves.
        403 if message.contains("exceeded quota") => Ok(accepted(hub, at)),
        400 | 403 | 404 | 422 => Ok(Verdict::refused(
            HubReason::TemplateInvalid,
            format!("a pod of spec.template is refused, change the template: {message}"),
            at,
        )),
        _ => Err(CallError::Refused { what: "try template", code, message }),
    }
}

/// Tells a refusal once, as an event.
fn told(context: &Context, hub: &ProcessHub, memory: &Memory, verdict: Verdict) -> Verdict {
    let known = hub.status.as_ref().and_then(|status| {
        let accepted = processhub_crds::conditions::get(&status.conditions, "Accepted")?;
        Some(accepted.reason == verdict.reason.as_str() && accepted.message == verdict.message)
    });
    let tried = memory.tried.as_ref().is_some_and(|(_, tried)| tried.message == verdict.message);
    if verdict.hub.is_none() && !tried && known != Some(true) {
        context.events.warning(about(hub), EventReason::InvalidConfig, &verdict.message);
    }
    verdict
}

/// A pod as it would be made for the hub's first replica.
fn sample(hub: &ProcessHub, sidecar_image: &str) -> Pod {
    let mut process = HubProcess::new(
        &replica(&hub.name_any(), 0),
        HubProcessSpec { hub_name: hub.name_any(), ..HubProcessSpec::default() },
    );
    process.metadata.namespace = hub.namespace();
    let name = format!("{}-dry-run", hub.name_any());
    let epoch = Epoch(1);
    let mut pod = pod::build(&Blueprint {
        hub,
        process: &process,
        name: &name,
        node: "dry-run",
        epoch,
        gated: false,
        sidecar_image,
    });
    // It has no owner that the API server could know of.
    pod.metadata.owner_references = None;
    pod
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub() -> ProcessHub {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "processhub.io/v1alpha1", "kind": "ProcessHub",
            "metadata": { "name": "cart", "namespace": "shop" },
            "spec": { "template": { "spec": { "containers": [{ "name": "worker", "image": "cart:1" }] } } },
        }))
        .unwrap()
    }

    #[test]
    fn a_full_quota_is_no_fault_of_the_template() {
        let validated = validate(&hub()).unwrap();
        let full = "pods \"cart-dry-run\" is forbidden: exceeded quota: compute".to_owned();
        let verdict = refusal(403, full, validated.clone(), Timestamp::UNIX_EPOCH).unwrap();
        assert!(verdict.hub.is_some());
        let policy = "violates PodSecurity \"restricted:latest\"".to_owned();
        let verdict = refusal(403, policy, validated.clone(), Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!((verdict.hub, verdict.reason), (None, HubReason::TemplateInvalid));
        assert!(verdict.message.contains("violates PodSecurity"));
        assert!(refusal(500, "etcd".into(), validated, Timestamp::UNIX_EPOCH).is_err());
    }

    #[test]
    fn a_refusal_is_looked_at_again_and_an_acceptance_is_not() {
        let later = Timestamp::UNIX_EPOCH + TRY_AGAIN;
        let accepted = accepted(validate(&hub()).unwrap(), Timestamp::UNIX_EPOCH);
        assert!(!accepted.is_stale(later));
        let refused = Verdict::refused(HubReason::TemplateInvalid, String::new(), Timestamp::UNIX_EPOCH);
        assert!(refused.is_stale(later) && !refused.is_stale(Timestamp::UNIX_EPOCH));
    }

    #[test]
    fn the_sample_is_the_pod_of_the_first_replica_without_an_owner() {
        let pod = sample(&hub(), "sidecar:1");
        assert_eq!(pod.labels()["processhub.io/process"], "cart-0");
        assert_eq!(pod.metadata.owner_references, None);
        assert_eq!(pod.metadata.namespace.as_deref(), Some("shop"));
    }
}

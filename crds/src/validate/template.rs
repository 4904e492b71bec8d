//! What a template must have, and what is ours in the pods made from it.

use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec};

use super::{FieldError, labels};
use crate::limits::RESERVED_PORTS;
use crate::vocabulary::HubReason;

/// The container that holds the state.
const WORKER: &str = "worker";
/// Containers and volumes whose name begins so are the operator's.
const RESERVED_NAMES: &str = "processhub";
/// Environment variables whose name begins so are the operator's.
const RESERVED_VARIABLES: &str = "PROCESSHUB_";

pub(super) fn check(template: &PodTemplateSpec, port: u16, errors: &mut Vec<FieldError>) {
    if let Some(metadata) = &template.metadata {
        let reserved = [("labels", &metadata.labels), ("annotations", &metadata.annotations)];
        for (name, map) in reserved {
            let keys = map.iter().flat_map(|map| map.keys()).filter(|key| labels::is_reserved(key));
            errors.extend(keys.map(|key| {
                FieldError::new(
                    format!("spec.template.metadata.{name}"),
                    format!("{key}: the prefix processhub.io/ is reserved; use a prefix of your own"),
                )
            }));
        }
    }
    let Some(spec) = &template.spec else {
        errors.push(FieldError::new("spec.template.spec", "is missing; give it a container named worker"));
        return;
    };
    check_pod(spec, errors);
    check_names(spec, errors);
    match spec.containers.iter().filter(|container| container.name == WORKER).count() {
        0 => errors.push(FieldError::new(
            "spec.template.spec.containers",
            "none is named worker; name the container that holds the state worker",
        )),
        1 => {}
        _ => errors.push(FieldError::new(
            "spec.template.spec.containers",
            "several are named worker; one container holds the state",
        )),
    }
    for (field, container) in containers(spec) {
        check_container(&field, container, port, errors);
    }
}

/// Every container of the template with its field.
fn containers(spec: &PodSpec) -> impl Iterator<Item = (String, &Container)> {
    let main = spec.containers.iter().enumerate().map(|(index, container)| ("containers", index, container));
    let init = spec.init_containers.iter().flatten().enumerate();
    main.chain(init.map(|(index, container)| ("initContainers", index, container)))
        .map(|(list, index, container)| (format!("spec.template.spec.{list}[{index}]"), container))
}

fn check_pod(spec: &PodSpec, errors: &mut Vec<FieldError>) {
    let mut refuse = |field: &str, message: &str| {
        errors.push(FieldError::new(format!("spec.template.spec.{field}"), message));
    };
    if spec.host_network == Some(true) {
        refuse(
            "hostNetwork",
            "must not be true: source and target of a move have addresses of their own; remove it",
        );
    }
    if spec.node_name.is_some() {
        refuse("nodeName", "is decided by the hub; use spec.members.nodeSelector, or nodeName of a process");
    }
    if spec.restart_policy.as_deref().is_some_and(|policy| policy != "Always") {
        refuse(
            "restartPolicy",
            "must be Always: a worker that ends is started again with its state; remove it",
        );
    }
    if spec.active_deadline_seconds.is_some() {
        refuse("activeDeadlineSeconds", "would end an owner without a move; remove it");
    }
}

fn check_names(spec: &PodSpec, errors: &mut Vec<FieldError>) {
    let containers = containers(spec).map(|(field, container)| (field, &container.name));
    let volumes = spec.volumes.iter().flatten().enumerate();
    let volumes =
        volumes.map(|(index, volume)| (format!("spec.template.spec.volumes[{index}]"), &volume.name));
    let reserved = containers.chain(volumes).filter(|(_, name)| name.starts_with(RESERVED_NAMES));
    errors.extend(reserved.map(|(field, name)| {
        FieldError::new(
            format!("{field}.name"),
            format!("{name}: names that begin with {RESERVED_NAMES} are reserved; choose another name"),
        )
    }));
}

fn check_container(field: &str, container: &Container, port: u16, errors: &mut Vec<FieldError>) {
    let is_worker = container.name == WORKER;
    if is_worker && container.lifecycle.as_ref().is_some_and(|lifecycle| lifecycle.pre_stop.is_some()) {
        errors.push(
            FieldError::new(
                format!("{field}.lifecycle.preStop"),
                "is reserved: the hand-over of a pod that is asked to go hooks in there; remove it and clean up \
                 when the worker is told to suspend",
            )
            .because(HubReason::PreStopReserved),
        );
    }
    let variables =
        container.env.iter().flatten().filter(|variable| variable.name.starts_with(RESERVED_VARIABLES));
    errors.extend(variables.map(|variable| {
        FieldError::new(
            format!("{field}.env"),
            format!(
                "{}: variables that begin with {RESERVED_VARIABLES} are reserved; remove it",
                variable.name
            ),
        )
    }));
    for taken in container.ports.iter().flatten().map(|declared| declared.container_port) {
        let Ok(number) = u16::try_from(taken) else { continue };
        if RESERVED_PORTS.contains(&number) {
            errors.push(FieldError::new(
                format!("{field}.ports"),
                format!("{number} belongs to the sidecar ({RESERVED_PORTS:?}); use another port"),
            ));
        } else if number == port && !is_worker {
            errors.push(FieldError::new(
                format!("{field}.ports"),
                format!(
                    "{number} is spec.worker.port, where the sidecar listens for the worker; use another port"
                ),
            ));
        }
    }
}
